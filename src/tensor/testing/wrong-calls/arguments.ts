// Wrong calls: element types, numbers out of range, sizes that no machine has.
import { Arena, Device, Graph, ops } from "../../index.js";
import { input, mistyped, numbers, wrong, x } from "./wrong-call.js";
import type { WrongCall } from "./wrong-call.js";

/** Element types. */
export const wrongTypes: readonly WrongCall[] = [
  wrong("add of i32", "dtype", ["f32 [3]", "i32 [3]"], (g) => ops.add(g, x(g, 3), input(g, [3], "i32"))),
  wrong("exp of f16", "dtype", ["f16 [3]"], (g) => ops.exp(g, input(g, [3], "f16"))),
  wrong("silu of bf16", "dtype", ["bf16 [3]"], (g) => ops.silu(g, input(g, [3], "bf16"))),
  wrong("clamp of i32", "dtype", ["i32 [3]"], (g) => ops.clamp(g, input(g, [3], "i32"), 0, 1)),
  wrong("sum of i64", "dtype", ["i64 [3]"], (g) => ops.sum(g, input(g, [3], "i64"))),
  wrong("sumLast of f16", "dtype", ["f16 [3]"], (g) => ops.sumLast(g, input(g, [3], "f16"))),
  wrong("matmul, i32 first", "dtype", ["i32 [3, 5]"], (g) =>
    ops.matmul(g, input(g, [3, 5], "i32"), x(g, 5, 2)),
  ),
  wrong("matmul, i32 second", "dtype", ["i32 [5, 2]"], (g) =>
    ops.matmul(g, x(g, 3, 5), input(g, [5, 2], "i32")),
  ),
  wrong("rmsNorm of bf16", "dtype", ["bf16 [3, 5]", "f32 [5]"], (g) =>
    ops.rmsNorm(g, input(g, [3, 5], "bf16"), x(g, 5), 1e-6),
  ),
  wrong("softmax, f16 mask", "dtype", ["f32 [3, 3]", "f16 [3, 3]"], (g) =>
    ops.softmax(g, x(g, 3, 3), input(g, [3, 3], "f16")),
  ),
  wrong("attention, i32 keys", "dtype", ["i32"], (g) =>
    ops.attention(g, x(g, 1, 2, 1, 4), input(g, [1, 2, 1, 4], "i32"), x(g, 1, 2, 1, 4), {
      mask: input(g, [2, 2]),
      scale: 1,
    }),
  ),
  wrong("cachedAttention, f32 mask", "dtype", ["f32 [1, 1, 1, 3]"], (g) =>
    ops.cachedAttention(g, input(g, [1, 1, 2, 4]), input(g, [1, 2, 3, 4]), input(g, [1, 2, 3, 4]), {
      mask: input(g, [1, 1, 1, 3]),
      scale: 1,
    }),
  ),
  wrong("cachedAttention, i32 keys", "dtype", ["i32 [1, 2, 3, 4]"], (g) =>
    ops.cachedAttention(g, input(g, [1, 1, 2, 4]), input(g, [1, 2, 3, 4], "i32"), input(g, [1, 2, 3, 4]), {
      mask: input(g, [1, 1, 1, 3], "f16"),
      scale: 1,
    }),
  ),
  wrong("cachedAttention, f16 keys and f32 values", "dtype", ["f16 [1, 2, 3, 4]", "f32 [1, 2, 3, 4]"], (g) =>
    ops.cachedAttention(g, input(g, [1, 1, 2, 4]), input(g, [1, 2, 3, 4], "f16"), input(g, [1, 2, 3, 4]), {
      mask: input(g, [1, 1, 1, 3], "f16"),
      scale: 1,
    }),
  ),
  wrong("gatherRows from i32", "dtype", ["i32 [11, 5]"], (g) =>
    ops.gatherRows(g, input(g, [11, 5], "i32"), numbers(g, 2)),
  ),
  wrong("concatRows of i32", "dtype", ["f32 [2, 3]", "i32 [2, 3]"], (g) =>
    ops.concatRows(g, [x(g, 2, 3), input(g, [2, 3], "i32")]),
  ),
  wrong("crossEntropy, bf16 head", "dtype", ["f32 [3, 5]", "bf16 [11, 5]"], (g, { arena }) =>
    ops.crossEntropy(g, x(g, 3, 5), arena.get("half"), numbers(g, 3), input(g, [3])),
  ),
  wrong("crossEntropy, i32 weights", "dtype", ["i32 [3]"], (g, { arena }) =>
    ops.crossEntropy(g, x(g, 3, 5), arena.get("w"), numbers(g, 3), numbers(g, 3)),
  ),
  wrong("input of an unknown type", "dtype", ["f64", "bf16"], (g) => g.input("a", [3], mistyped("f64"))),
  wrong("arena of an unknown type", "dtype", ["int8"], (_, { device }) => {
    return new Arena(device, "wrong", { a: { shape: [5], dtype: mistyped("int8") } });
  }),
  wrong("readF32 of bf16", "dtype", ["bf16", "[11, 5]"], (_, { arena }) => arena.get("half").readF32()),
];

/** Numbers. */
export const wrongNumbers: readonly WrongCall[] = [
  wrong("scale by NaN", "argument", ["NaN"], (g) => ops.scale(g, x(g, 3), NaN)),
  wrong("scale by more than float32 holds", "argument", ["1e+300"], (g) => ops.scale(g, x(g, 3), 1e300)),
  wrong("affine by infinity", "argument", ["Infinity"], (g) => ops.affine(g, x(g, 3), 1, Infinity)),
  wrong("clamp, bounds swapped", "argument", ["0", "1"], (g) => ops.clamp(g, x(g, 3), 1, 0)),
  wrong("softcap of 0", "argument", ["0"], (g) => ops.softcap(g, x(g, 3), 0)),
  wrong("rmsNorm, negative eps", "argument", ["-1"], (g) => ops.rmsNorm(g, x(g, 3), x(g, 3), -1)),
  wrong("rmsNorm, NaN eps", "argument", ["NaN"], (g) => ops.rmsNorm(g, x(g, 3), x(g, 3), NaN)),
  wrong("normalizeRows to length 0", "argument", ["0"], (g) => ops.normalizeRows(g, x(g, 3), 0)),
  wrong("softmax, NaN scale", "argument", ["NaN"], (g) => ops.softmax(g, x(g, 3), null, NaN)),
  wrong("rope, theta 0", "argument", ["theta"], (g) =>
    ops.rope(g, x(g, 3, 2, 4), numbers(g, 3), { theta: 0 }),
  ),
  wrong("rope, magnitude NaN", "argument", ["magnitude"], (g) =>
    ops.rope(g, x(g, 3, 2, 4), numbers(g, 3), { theta: 1e4, magnitude: NaN }),
  ),
  wrong("attention, softcap NaN", "argument", ["softcap", "NaN"], (g) =>
    ops.attention(g, x(g, 1, 3, 2, 2), x(g, 1, 3, 2, 2), x(g, 1, 3, 2, 2), {
      mask: input(g, [3, 3]),
      scale: 1,
      softcap: NaN,
    }),
  ),
  wrong("attention, softcap 0", "argument", ["softcap", "0"], (g) =>
    ops.attention(g, x(g, 1, 3, 2, 2), x(g, 1, 3, 2, 2), x(g, 1, 3, 2, 2), {
      mask: input(g, [3, 3]),
      scale: 1,
      softcap: 0,
    }),
  ),
  wrong("crossEntropy, chunk 0", "argument", ["chunk", "0"], (g, { arena }) =>
    ops.crossEntropy(g, x(g, 3, 5), arena.get("w"), numbers(g, 3), input(g, [3]), { chunk: 0 }),
  ),
  wrong("tokenLogProbs, softcap -1", "argument", ["softcap", "-1"], (g, { arena }) =>
    ops.tokenLogProbs(g, x(g, 3, 5), arena.get("w"), numbers(g, 3), { softcap: -1 }),
  ),
  wrong("graph with an unknown compute type", "argument", ["fp8", "bf16"], (_, { device }) => {
    return new Graph(device, { compute: mistyped("fp8") });
  }),
  wrong("graph of no tensors", "engine.graph-size", ["0"], (_, { device }) => {
    return new Graph(device, { maxTensors: 0 });
  }),
  wrong("graph of NaN tensors", "engine.graph-size", ["NaN"], (_, { device }) => {
    return new Graph(device, { maxTensors: NaN });
  }),
  wrong("graph too small for its ops", "engine.graph-size", ["8"], (_, { device }) => {
    using g = new Graph(device, { maxTensors: 8 });
    let y = x(g, 3);
    for (let i = 0; i < 8; i++) y = ops.exp(g, y);
  }),
  wrong(
    "graph too small for the tensors of its arena",
    "engine.graph-size",
    ["4"],
    (_, { device, arena }) => {
      using g = new Graph(device, { maxTensors: 4 });
      ops.add(g, ops.add(g, arena.get("w"), arena.get("v")), arena.get("w"));
    },
  ),
  wrong("threads 0", "engine.threads", ["0", "512"], () => Device.open({ threads: 0 })),
  wrong("threads 1.5", "engine.threads", ["1.5"], () => Device.open({ threads: 1.5 })),
  wrong("threads NaN", "engine.threads", ["NaN"], () => Device.open({ threads: NaN })),
  wrong("20000 threads", "engine.threads", ["20000"], () => Device.open({ threads: 20_000 })),
  wrong("unknown device", "engine.device", ["tpu", "CPU"], () => Device.open({ device: "tpu" })),
  wrong("device that is no text", "engine.device", ["0"], () => Device.open({ device: mistyped(0) })),
  wrong("arena of 100 TB", "engine.memory", ["bytes"], (_, { device }) => {
    return new Arena(device, "wrong", { a: { shape: [5_000_000, 5_000_000] } });
  }),
  wrong("result of 100 TB", "engine.memory", ["[5000000, 5000000]"], (g) =>
    ops.matmul(g, x(g, 5_000_000, 1), x(g, 1, 5_000_000)),
  ),
  wrong("input of 100 TB", "engine.memory", ["[5000000, 5000000]"], (g) =>
    g.input("a", [5_000_000, 5_000_000]),
  ),
];
