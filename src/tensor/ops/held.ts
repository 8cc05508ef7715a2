// Products with matrices that are held in half precision or in blocks (q8_0, q4_k, ...): frozen, so no gradient flows to them.
//
// A few rows go to ggml's products, which read the blocks as they are and round the rows of `a` to blocks too. Many rows, and
// the gradient, multiply with the matrix made f32 once per graph: that costs one pass over it, and nothing of `a` is rounded.
import { isBlockDtype } from "../../engine/index.js";
import { NlaError } from "../../error.js";
import type { Graph } from "../graph.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { castTo } from "./layout.js";

/** Whether a matrix is held in a type that only these products read. */
export function isHeld({ dtype }: Tensor): boolean {
  return dtype === "f16" || isBlockDtype(dtype);
}

// A guess, not measured: from about here on nlakit's products of f32 should be faster, the conversion included.
const MANY_ROWS = 128;

/** Whether so many rows are multiplied with the matrix made f32. */
export function unpacksFor(g: Graph, rows: number): boolean {
  return g.native && rows >= MANY_ROWS;
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
