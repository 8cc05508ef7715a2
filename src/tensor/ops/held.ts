// Products with matrices that are held in half precision or in blocks (q8_0, q4_k, ...): frozen, so no gradient flows to them.
//
// nlakit's kernels unpack a tile at a time and multiply it in f32 or bf16, the gradient included: no copy of the matrix is made. A few
// rows go to ggml's products, which are faster there and round the rows of `a` to blocks too. Where there are no kernels, or
// a width that they do not take, the gradient multiplies with the matrix made f32 once per graph.
import { isBlockDtype } from "../../engine/index.js";
import type { Dtype, KernelLevel } from "../../engine/index.js";
import { NlaError } from "../../error.js";
import type { Graph } from "../graph.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { castTo } from "./layout.js";

/** Whether a matrix is held in a type that only these products read. */
export function isHeld({ dtype }: Tensor): boolean {
  return dtype === "f16" || isBlockDtype(dtype);
}

// What native/held.c takes: whole pieces of 32 values, and 32 rows of them in its scratch.
const PIECE = 32;
const WIDEST = 32_000;

/** Whether nlakit's kernels multiply with a held matrix, whatever the number of rows. */
export function hasHeldKernel(g: Graph, w: Tensor): boolean {
  const width = w.shape.at(-1) as number;
  return g.native && width % PIECE === 0 && width <= WIDEST;
}

// From how many rows on the kernels are faster than ggml's products, measured (docs/performance.md has the table): on vectors of 512
// bits and AMX, in bf16 on AMX, and on narrower vectors. ggml reads q8_0 fastest, which is nearly what it computes with.
const IN_BF16: Partial<Record<Dtype, number>> = { q8_0: 16 };
const WIDE: Partial<Record<Dtype, number>> = { q8_0: 40, f16: 28 };
const NARROW: Partial<Record<Dtype, number>> = { q8_0: 512, f16: 192 };
const [IN_BF16_ELSE, WIDE_ELSE, NARROW_ELSE] = [12, 24, 80];

/** How many rows are worth unpacking a matrix of that type for. */
export function fewestHeldRows(dtype: Dtype, level: KernelLevel, inBf16: boolean): number {
  if (level === "portable") return Infinity;
  if (inBf16) return IN_BF16[dtype] ?? IN_BF16_ELSE;
  if (level === "avx2" || level === "neon") return NARROW[dtype] ?? NARROW_ELSE;
  return WIDE[dtype] ?? WIDE_ELSE;
}

/** Whether so many rows are multiplied with a held matrix by nlakit's kernels. */
export function unpacksFor(g: Graph, w: Tensor, rows: number, compute: "f32" | "bf16"): boolean {
  const { kernels } = g.device;
  if (!kernels || !hasHeldKernel(g, w)) return false;
  return rows >= fewestHeldRows(w.dtype, kernels.level, compute === "bf16" && kernels.fastBf16);
}

/** a · wᵀ by ggml, a f32 [..., n, in] and w held [out, in]. @throws NlaError `tensor.held` for other than a matrix that is frozen */
export function heldProduct(g: Graph, a: Tensor, w: Tensor): Tensor {
  if (w.shape.length !== 2 || a.shape.at(-1) !== w.shape[1] || w.requiresGrad) {
    throw new NlaError({
      code: "tensor.held",
      subject: `a product with ${w.dtype} ${formatShape(w.shape)}`,
      found: w.requiresGrad ? "a matrix to be trained" : `rows ${formatShape(a.shape)}`,
      wanted: "a frozen matrix [out, in], transposed, and rows [..., in]",
      next: "Hold matrices in f32 where they are trained or multiplied the other way round.",
    });
  }
  return g.emit("mul_mat", [...a.shape.slice(0, -1), w.shape[0] as number], "f32", w, a);
}

/** The matrix in f32, made once per graph; others come back as they are. */
export function unpacked(g: Graph, w: Tensor): Tensor {
  return isHeld(w) ? castTo(g, w, "f32") : w;
}
