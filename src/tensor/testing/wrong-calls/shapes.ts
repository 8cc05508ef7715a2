// Wrong calls: shapes that do not fit, empty shapes, too many dimensions. ggml answers most of them with abort().
import { Arena, ops } from "../../index.js";
import { input, numbers, wrong, x } from "./wrong-call.js";
import type { WrongCall } from "./wrong-call.js";

/** Shapes. */
export const wrongShapes: readonly WrongCall[] = [
  wrong("add", "shape", ["[3, 5]", "[4]"], (g) => ops.add(g, x(g, 3, 5), x(g, 4))),
  wrong("sub", "shape", ["[3, 5]", "[3, 4]"], (g) => ops.sub(g, x(g, 3, 5), x(g, 3, 4))),
  wrong("mul", "shape", ["[2, 3]", "[3, 2]"], (g) => ops.mul(g, x(g, 2, 3), x(g, 3, 2))),
  wrong("div", "shape", ["[6]", "[4]"], (g) => ops.div(g, x(g, 6), x(g, 4))), // ggml would stretch 2 into 6
  wrong("add, whole multiple", "shape", ["[6]", "[2]"], (g) => ops.add(g, x(g, 6), x(g, 2))),
  wrong("minimum", "shape", ["[3, 5]", "[2, 5]"], (g) => ops.minimum(g, x(g, 3, 5), x(g, 2, 5))),
  wrong("matmul", "shape", ["[3, 5]", "[4, 5]"], (g) => ops.matmul(g, x(g, 3, 5), x(g, 4, 5))),
  wrong("matmul transposed", "shape", ["[3, 5]", "[5, 4]"], (g) =>
    ops.matmul(g, x(g, 3, 5), x(g, 5, 4), { transposeB: true }),
  ),
  wrong("matmul, batches", "shape", ["[2, 3, 5]", "[4, 5, 3]"], (g) =>
    ops.matmul(g, x(g, 2, 3, 5), x(g, 4, 5, 3)),
  ),
  wrong("matmul, batch against none", "shape", ["[2, 3, 5]", "[5, 3]"], (g) =>
    ops.matmul(g, x(g, 2, 3, 5), x(g, 5, 3)),
  ),
  wrong("matmul, vector", "shape", ["[3, 5]", "[5]"], (g) => ops.matmul(g, x(g, 3, 5), x(g, 5))),
  wrong("linear", "shape", ["[3, 4]", "[11, 5]"], (g, { arena }) =>
    ops.linear(g, x(g, 3, 4), arena.get("w")),
  ),
  wrong("reshape", "shape", ["[3, 5]", "[4, 4]"], (g) => ops.reshape(g, x(g, 3, 5), [4, 4])),
  wrong("reshape to rank 5", "shape", ["[1, 1, 1, 3, 5]"], (g) =>
    ops.reshape(g, x(g, 3, 5), [1, 1, 1, 3, 5]),
  ),
  wrong("permute, twice the same", "shape", ["[3, 5]", "[0, 0]"], (g) => ops.permute(g, x(g, 3, 5), [0, 0])),
  wrong("permute, too few", "shape", ["[2, 3, 5]", "[1, 0]"], (g) => ops.permute(g, x(g, 2, 3, 5), [1, 0])),
  wrong("permute, no numbers", "shape", ["[3, 5]"], (g) => ops.permute(g, x(g, 3, 5), [NaN, 0])),
  wrong("transpose of a vector", "shape", ["[5]"], (g) => ops.transpose(g, x(g, 5))),
  wrong("gatherRows from a vector", "shape", ["[5]", "[2]"], (g) =>
    ops.gatherRows(g, x(g, 5), numbers(g, 2)),
  ),
  wrong("gatherRows by a matrix", "shape", ["[5, 3]", "[2, 2]"], (g) =>
    ops.gatherRows(g, x(g, 5, 3), input(g, [2, 2], "i32")),
  ),
  wrong("replaceRows, widths", "shape", ["[5, 3]", "[2, 4]", "[2]"], (g) =>
    ops.replaceRows(g, x(g, 5, 3), x(g, 2, 4), numbers(g, 2)),
  ),
  wrong("replaceRows, counts", "shape", ["[5, 3]", "[2, 3]", "[1]"], (g) =>
    ops.replaceRows(g, x(g, 5, 3), x(g, 2, 3), numbers(g, 1)),
  ),
  wrong("concatRows, widths", "shape", ["[2, 3]", "[2, 4]"], (g) =>
    ops.concatRows(g, [x(g, 2, 3), x(g, 2, 4)]),
  ),
  wrong("concatRows of a vector", "shape", ["[3]"], (g) => ops.concatRows(g, [x(g, 3)])),
  wrong("concatRows of nothing", "shape", ["at least one"], (g) => ops.concatRows(g, [])),
  wrong("rmsNorm", "shape", ["[3, 5]", "[3]"], (g) => ops.rmsNorm(g, x(g, 3, 5), x(g, 3), 1e-6)),
  wrong("rope, odd width", "shape", ["[3, 2, 5]"], (g) =>
    ops.rope(g, x(g, 3, 2, 5), numbers(g, 3), { theta: 1e4 }),
  ),
  wrong("rope, positions", "shape", ["[3, 2, 4]", "[2]"], (g) =>
    ops.rope(g, x(g, 3, 2, 4), numbers(g, 2), { theta: 1e4 }),
  ),
  wrong("rope, divisors", "shape", ["[3, 2, 4]", "[4]"], (g) =>
    ops.rope(g, x(g, 3, 2, 4), numbers(g, 3), { theta: 1e4, frequencyDivisors: input(g, [4]) }),
  ),
  wrong("softmax, mask columns", "shape", ["[3, 5]", "[3, 4]"], (g) =>
    ops.softmax(g, x(g, 3, 5), input(g, [3, 4])),
  ),
  wrong("softmax, mask rows", "shape", ["[3, 5]", "[4, 5]"], (g) =>
    ops.softmax(g, x(g, 3, 5), input(g, [4, 5])),
  ),
  wrong("softmax, mask batch", "shape", ["[2, 1, 3, 5]", "[3, 1, 3, 5]"], (g) =>
    ops.softmax(g, x(g, 2, 1, 3, 5), input(g, [3, 1, 3, 5])),
  ),
  wrong("attention, heads", "shape", ["[1, 3, 4, 2]", "[1, 3, 3, 2]"], (g) =>
    ops.attention(g, x(g, 1, 3, 4, 2), x(g, 1, 3, 3, 2), x(g, 1, 3, 3, 2), {
      mask: input(g, [3, 3]),
      scale: 1,
    }),
  ),
  wrong("attention, values", "shape", ["[1, 3, 2, 2]", "[1, 4, 2, 2]"], (g) =>
    ops.attention(g, x(g, 1, 3, 2, 2), x(g, 1, 3, 2, 2), x(g, 1, 4, 2, 2), {
      mask: input(g, [3, 3]),
      scale: 1,
    }),
  ),
  wrong("attention, mask", "shape", ["[1, 2, 3, 3]", "[3, 4]"], (g) =>
    ops.attention(g, x(g, 1, 3, 2, 2), x(g, 1, 3, 2, 2), x(g, 1, 3, 2, 2), {
      mask: input(g, [3, 4]),
      scale: 1,
    }),
  ),
  wrong("attention, rank", "shape", ["[3, 2, 2]"], (g) =>
    ops.attention(g, x(g, 3, 2, 2), x(g, 3, 2, 2), x(g, 3, 2, 2), { mask: input(g, [3, 3]), scale: 1 }),
  ),
  wrong("cachedAttention, mask", "shape", ["[1, 1, 2, 4]", "[1, 1, 1, 5]"], (g) =>
    ops.cachedAttention(g, input(g, [1, 1, 2, 4]), input(g, [1, 2, 3, 4]), input(g, [1, 2, 3, 4]), {
      mask: input(g, [1, 1, 1, 5], "f16"),
      scale: 1,
    }),
  ),
  wrong("swiglu", "shape", ["[3, 5]", "[5]"], (g) => ops.swiglu(g, x(g, 3, 5), x(g, 5))),
  wrong("geglu", "shape", ["[3, 5]", "[3, 1]"], (g) => ops.geglu(g, x(g, 3, 5), x(g, 3, 1))),
  wrong("logits", "shape", ["[3, 4]", "[11, 5]"], (g, { arena }) =>
    ops.logits(g, x(g, 3, 4), arena.get("w")),
  ),
  wrong("crossEntropy, width", "shape", ["[3, 4]", "[11, 5]", "[3]"], (g, { arena }) =>
    ops.crossEntropy(g, x(g, 3, 4), arena.get("w"), numbers(g, 3), input(g, [3])),
  ),
  wrong("crossEntropy, weights", "shape", ["[3, 5]", "[2]"], (g, { arena }) =>
    ops.crossEntropy(g, x(g, 3, 5), arena.get("w"), numbers(g, 3), input(g, [2])),
  ),
  wrong("tokenLogProbs, targets", "shape", ["[3, 5]", "[11, 5]", "[2]"], (g, { arena }) =>
    ops.tokenLogProbs(g, x(g, 3, 5), arena.get("w"), numbers(g, 2)),
  ),
  wrong("input of rank 0", "shape", ["[]"], (g) => g.input("a", [])),
  wrong("input of rank 5", "shape", ["[1, 2, 3, 4, 5]"], (g) => g.input("a", [1, 2, 3, 4, 5])),
  wrong("input without rows", "shape", ["[0, 5]"], (g) => g.input("a", [0, 5])),
  wrong("input of a negative extent", "shape", ["[-3]"], (g) => g.input("a", [-3])),
  wrong("input of half a row", "shape", ["[2.5]"], (g) => g.input("a", [2.5])),
  wrong("input of NaN", "shape", ["[NaN, 3]"], (g) => g.input("a", [NaN, 3])),
  wrong("input whose size overflows", "shape", ["[4294967296, 4294967296]"], (g) =>
    g.input("a", [2 ** 32, 2 ** 32]),
  ),
  wrong("variable without rows", "shape", ["[0]"], (g) => g.variable("a", [0])),
  wrong("backward of two losses", "shape", ["[2]", "[1]"], (g) => g.backward(ops.exp(g, x(g, 2)))),
  wrong("arena with an empty tensor", "shape", ["[5, 0]"], (_, { device }) => {
    return new Arena(device, "wrong", { a: { shape: [5, 0] } });
  }),
];
