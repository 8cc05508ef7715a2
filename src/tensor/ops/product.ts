// Matrix products by nlakit's own kernels, which take either operand transposed and add to a sum without a copy. No gradients are
// recorded here: matmul.ts does, and falls back to ggml's products where this file says no.
import type { Graph } from "../graph.js";
import type { PackedMatrix } from "../packed.js";
import { shapeError } from "../shape.js";
import { requireDtype } from "./check.js";
import { isHeld } from "./held.js";
import { castTo } from "./layout.js";
import type { Tensor } from "../tensor.js";

// Bits of the kernel's flags (native/products.c).
const A_TRANSPOSED = 1;
const B_TRANSPOSED = 2;
const IN_BF16 = 4;
const HAS_BASE = 8;
const A_HOLDS_BF16 = 16;
const B_PACKED = 32;
// And of native/held.c, whose others are the same.
const ALONG_ROWS = 1;

/** Settings of {@link product}. */
export interface ProductOptions {
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly compute: "f32" | "bf16";
  /** Added to the product; of its shape. */
  readonly base?: Tensor | null;
  /** Whether each row of `a` begins with its values in bf16, as the cross-entropy kernel leaves them. */
  readonly aHoldsBf16?: boolean;
}

/**
 * x · wᵀ of a packed weight, plus `onto` [m, n]: x f32, or as {@link stored}, [m, k] -> [m, n]. Any number of rows: there is nothing left to pack.
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.gradient`
 */
export function packedProduct(g: Graph, x: Tensor, w: PackedMatrix, onto: Tensor | null = null): Tensor {
  const [m, k] = x.shape as [number, number];
  if (x.shape.length !== 2 || k !== w.k) {
    throw shapeError("linear", [x.shape, [w.n, w.k]], "x [m, k] and a packed weight [n, k]");
  }
  const added = onto ? [onto] : [];
  requireDtype("linear", x.dtype === "bf16" && w.compute === "bf16" ? "bf16" : "f32", x);
  requireDtype("linear", "f32", ...added);
  g.refuseGradient("linear with a packed weight", x, ...added);
  w.requireUsable();
  const flags = B_PACKED | B_TRANSPOSED | (w.compute === "bf16" ? IN_BF16 : 0) | (onto ? HAS_BASE : 0);
  const operand = w.compute === "bf16" ? stored(g, x) : x;
  return g.emitKernel("matmul", [m, w.n], [operand, w.storage, ...added], { flags });
}

// A kernel packs B before it multiplies. For a few rows that costs more than the product, which ggml computes as dot products.
const FEWEST_ROWS = 8;

/** Whether products of so many rows are the kernels'. */
export function hasProduct(g: Graph, rows: number): boolean {
  return g.native && rows >= FEWEST_ROWS;
}

/**
 * base + a · b over the last two dimensions, a [..., m, k] and b [..., k, n] after transposition; equal leading dimensions.
 * The caller has checked the shapes and {@link hasProduct}, or for a held matrix b [n, k] `hasHeldKernel`; then a is not transposed.
 */
export function product(g: Graph, a: Tensor, b: Tensor, options: ProductOptions): Tensor {
  const { transposeA = false, transposeB = false, compute, base = null, aHoldsBf16 = false } = options;
  const m = a.shape.at(transposeA ? -1 : -2) as number;
  const n = b.shape.at(transposeB ? -2 : -1) as number;
  // What is stored in bf16 is multiplied in bf16: ggml does that, too.
  const half = compute === "bf16" || b.dtype === "bf16";
  const flags =
    (transposeA ? A_TRANSPOSED : 0) |
    (transposeB ? B_TRANSPOSED : 0) |
    (half ? IN_BF16 : 0) |
    (base ? HAS_BASE : 0) |
    (aHoldsBf16 ? A_HOLDS_BF16 : 0);
  if (isHeld(b)) return heldMatmul(g, a, b, { transposeB, half, base, aHoldsBf16 });
  const packed = packedOnce(g, m, n, b, { half, transposeA, transposeB });
  const left = half && !aHoldsBf16 ? stored(g, a) : a;
  const right = packed ?? (half ? stored(g, b) : b);
  const operands = base ? [left, right, base] : [left, right];
  return g.emitKernel("matmul", [...a.shape.slice(0, -2), m, n], operands, {
    flags: packed ? flags | B_PACKED : flags,
  });
}

// As in native/products.c: where every thread would pack all of B for itself, they do it together, in an op before.
const ROWS_TAKEN = 192;
const PACKED_ONCE = 3 << 19;

function packedOnce(
  g: Graph,
  m: number,
  n: number,
  b: Tensor,
  { half, transposeA, transposeB }: { half: boolean; transposeA: boolean; transposeB: boolean },
): Tensor | null {
  const { kernels, threads } = g.device;
  if (!kernels || threads === 1 || transposeA || b.shape.length !== 2 || m < 8 * ROWS_TAKEN * threads)
    return null;
  const bytes = kernels.packedBytes(n, b.size / n, half);
  if (bytes > PACKED_ONCE || n === 0 || b.size === 0) return null;
  const flags = (transposeB ? B_TRANSPOSED : 0) | (half ? IN_BF16 : 0);
  return g.derive(b, `packed ${flags}`, () => g.emitKernel("pack", [Math.ceil(bytes / 4)], [b], { flags }));
}

interface HeldOptions {
  readonly transposeB: boolean;
  readonly half: boolean;
  readonly base: Tensor | null;
  readonly aHoldsBf16: boolean;
}

function heldMatmul(
  g: Graph,
  a: Tensor,
  w: Tensor,
  { transposeB, half, base, aHoldsBf16 }: HeldOptions,
): Tensor {
  const flags =
    (transposeB ? 0 : ALONG_ROWS) |
    (half ? IN_BF16 : 0) |
    (base ? HAS_BASE : 0) |
    (aHoldsBf16 ? A_HOLDS_BF16 : 0);
  const left = half && !aHoldsBf16 ? stored(g, a) : a;
  const shape = [...a.shape.slice(0, -1), w.shape[transposeB ? 0 : 1] as number];
  return g.emitKernel("held_matmul", shape, base ? [left, w, base] : [left, w], { flags });
}

/**
 * What a product in bf16 reads: activations and gradients are rounded once per graph, not by each product that reads them
 * (a norm's output goes into three, its gradient into two each), and half as much is read. The rounding is the same.
 */
export function stored(g: Graph, x: Tensor): Tensor {
  return x.owner === g && g.device.kernels?.fastBf16 ? castTo(g, x, "bf16") : x;
}

/** Whether products of this graph read {@link stored} operands: for ops that can leave their result in bf16 as well. */
export function hasStored(g: Graph): boolean {
  return g.compute === "bf16" && g.device.kernels?.fastBf16 === true;
}

/** For gradient rules: the product added to the gradient so far, if there is one. */
export function productOnto(
  g: Graph,
  sum: Tensor | null,
  a: Tensor,
  b: Tensor,
  options: Omit<ProductOptions, "base">,
): Tensor {
  const result = product(g, a, b, { ...options, base: sum });
  return sum ? g.summed(result, sum) : result;
}
