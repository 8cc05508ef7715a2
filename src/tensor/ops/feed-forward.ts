// A gated feed-forward layer, down · (f(gate · x) · (up · x)), whole: with nlakit's own kernels the gate is computed beside the
// products that make its operands, while those are in the cache, and the gradient beside the one that it comes from. Elsewhere `model/`
// composes it of products and a gate. In f32 the same numbers; in bf16 the gradient takes gate and up rounded to bf16.
import type { Graph } from "../graph.js";
import { PackedMatrix } from "../packed.js";
import { sameShape, shapeError } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { requireDtype } from "./check.js";
import { isHeld } from "./held.js";
import { partOf } from "./layout.js";
import { hasProduct, packedProduct, product, productOnto, stored } from "./product.js";

/** The matrices of a layer: gate and up [ffn, dim], down [dim, ffn]. */
export interface FeedForwardMatrices {
  readonly gate: Tensor | PackedMatrix;
  readonly up: Tensor | PackedMatrix;
  readonly down: Tensor | PackedMatrix;
}

/** Settings of {@link feedForward}. */
export interface FeedForwardOptions {
  readonly activation: "silu" | "gelu_tanh";
  /** Added to the result; of x's shape. Defaults to nothing. */
  readonly onto?: Tensor | null;
  /** Gate and up as one matrix [2 · ffn, dim], where they lie one after the other: the gradient of x is then one product. */
  readonly merged?: Tensor | null;
}

// Flags of the kernels (native/feed-forward.c).
const GELU = 1;
const IN_BF16 = 2;
const KEEP = 4;
const PACKED = 8;

// Deeper products do not fit the kernel's scratch.
const DEEPEST = 8192;

/** Whether {@link feedForward} is there for `rows` tokens and these matrices: all of them packed, or none and none held in blocks. */
export function hasFeedForward(g: Graph, rows: number, matrices: FeedForwardMatrices): boolean {
  const { gate, up, down } = matrices;
  if (!hasProduct(g, rows) || Math.max(gate.shape[1] ?? 0, down.shape[0] ?? 0) > DEEPEST) return false;
  if (gate instanceof PackedMatrix) return up instanceof PackedMatrix && down instanceof PackedMatrix;
  return [gate, up, down].every((w) => !(w instanceof PackedMatrix) && !isHeld(w) && w.dtype === gate.dtype);
}

/**
 * onto + down · (f(gate · x) · (up · x)) for rows x [n, dim] -> [n, dim], with f SiLU or the tanh form of GELU. Differentiable but for
 * packed matrices. Only where {@link hasFeedForward}.
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.gradient`
 */
export function feedForward(
  g: Graph,
  x: Tensor,
  matrices: FeedForwardMatrices,
  { activation, onto = null, merged = null }: FeedForwardOptions,
): Tensor {
  const { gate, up, down } = matrices;
  const [n, dim] = x.shape as [number, number];
  const ffn = gate.shape[0] as number;
  const fits =
    x.shape.length === 2 &&
    sameShape(gate.shape, [ffn, dim]) &&
    sameShape(up.shape, gate.shape) &&
    sameShape(down.shape, [dim, ffn]) &&
    (!onto || sameShape(onto.shape, x.shape)) &&
    (!merged || sameShape(merged.shape, [2 * ffn, dim]));
  if (!fits) {
    const shapes = [x, gate, up, down, ...(onto ? [onto] : []), ...(merged ? [merged] : [])];
    throw shapeError(
      "feedForward",
      shapes.map(({ shape }) => shape),
      "x [n, dim], gate and up [ffn, dim], down [dim, ffn], onto like x, merged [2 · ffn, dim]",
    );
  }
  requireDtype("feedForward", "f32", x, ...(onto ? [onto] : []));
  const flags = activation === "gelu_tanh" ? GELU : 0;
  if (gate instanceof PackedMatrix || up instanceof PackedMatrix || down instanceof PackedMatrix) {
    return packedFeedForward(g, x, { gate, up, down }, onto, flags);
  }
  const compute = g.compute === "bf16" || gate.dtype === "bf16" ? "bf16" : "f32";
  const half = compute === "bf16" && g.device.kernels?.fastBf16 === true;
  const dtype = half ? "bf16" : "f32";
  const settings = { flags: flags | (half ? IN_BF16 : 0), dtype } as const;
  const operand = (t: Tensor) => (half ? stored(g, t) : t);
  const keeps = g.wantsGradient(x, gate, up, down);
  const made = g.emitKernel(
    "gated_product",
    [keeps ? 3 * n * ffn : n * ffn],
    [operand(x), operand(gate), operand(up)],
    {
      ...settings,
      flags: settings.flags | (keeps ? KEEP : 0),
    },
  );
  const y = partOf(g, made, 0, [n, ffn]);
  const z = product(g, y, down, { transposeB: true, compute, base: onto });
  if (!keeps) return g.record(z, ...(onto ? [[onto, (dz: Tensor) => dz] as const] : []));
  const kept = partOf(g, made, n * ffn, [n, 2 * ffn]);
  let swept: Tensor | null = null;
  const sweep = (dz: Tensor) =>
    (swept ??= g.emitKernel(
      "gated_product_back",
      [n, 2 * ffn],
      [operand(dz), operand(down), kept],
      settings,
    ));
  // Both matrices' gradients in one product, as the two lie side by side in what it multiplies.
  let both: Tensor | null = null;
  const ofMatrices = (dz: Tensor) => (both ??= product(g, sweep(dz), x, { transposeA: true, compute }));
  return g.record(
    z,
    ...(onto ? [[onto, (dz: Tensor) => dz] as const] : []),
    [down, (dz, sum) => productOnto(g, sum, dz, y, { transposeA: true, compute })],
    [
      x,
      (dz, sum) => {
        if (merged) return productOnto(g, sum, sweep(dz), merged, { compute });
        const one = productOnto(g, sum, columns(g, sweep(dz), 0, ffn), gate, { compute });
        const two = product(g, columns(g, sweep(dz), ffn, ffn), up, { compute, base: one });
        return sum ? g.summed(two, sum) : two;
      },
    ],
    [gate, (dz) => partOf(g, ofMatrices(dz), 0, gate.shape)],
    [up, (dz) => partOf(g, ofMatrices(dz), ffn * dim, up.shape)],
  );
}

/** Columns [start, start + width) of a matrix, where they lie; only products read that. */
function columns(g: Graph, x: Tensor, start: number, width: number): Tensor {
  const [n, all] = x.shape as [number, number];
  const size = x.dtype === "bf16" ? 2 : 4;
  const row = all * size;
  return g.emit("view_4d", [n, width], x.dtype, x, width, n, 1, 1, row, row * n, row * n, start * size);
}

function packedFeedForward(
  g: Graph,
  x: Tensor,
  { gate, up, down }: FeedForwardMatrices,
  onto: Tensor | null,
  flags: number,
): Tensor {
  const all = [gate, up, down];
  if (!all.every((w) => w instanceof PackedMatrix)) {
    throw shapeError(
      "feedForward",
      all.map(({ shape }) => shape),
      "three packed matrices, or none",
    );
  }
  g.refuseGradient("feedForward with packed weights", x, ...(onto ? [onto] : []));
  const [gates, ups, downs] = all as [PackedMatrix, PackedMatrix, PackedMatrix];
  gates.requireUsable();
  ups.requireUsable();
  const half = gates.compute === "bf16";
  const y = g.emitKernel(
    "gated_product",
    [x.shape[0] as number, gates.n],
    [half ? stored(g, x) : x, gates.storage, ups.storage],
    {
      flags: flags | PACKED | (half ? IN_BF16 : 0),
      dtype: half && g.device.kernels?.fastBf16 ? "bf16" : "f32",
    },
  );
  return packedProduct(g, y, downs, onto);
}
