// Normalisation. The one place that normalises: a fused kernel is chosen here and nowhere else.
import type { Graph } from "../graph.js";
import { sameShape, shapeError } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { requireDtype, requireNumber } from "./check.js";
import { affine, div, mul, sqrt, square } from "./elementwise.js";
import { sumLast } from "./reduce.js";

/**
 * Root-mean-square norm over the last dimension: x / √(mean(x²) + eps) · gain. x [..., d], gain [d].
 * Source: Zhang and Sennrich 2019, as every Llama uses it.
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.argument`
 */
export function rmsNorm(g: Graph, x: Tensor, gain: Tensor, eps: number): Tensor {
  if (!sameShape(gain.shape, x.shape.slice(-1)))
    throw shapeError("rmsNorm", [x.shape, gain.shape], "x [..., d] and a gain [d]");
  requireDtype("rmsNorm", "f32", x, gain);
  requireNumber("rmsNorm", "eps", eps, "a number not below 0", eps >= 0);
  const unit = g.emit("rms_norm", x.shape, "f32", x, eps);
  const normed = g.record(unit, [x, (dy) => g.emit("rms_norm_back", x.shape, "f32", dy, x, eps)]);
  return mul(g, normed, gain);
}

/**
 * Rows brought to length `length`: x · length / √(|x|² + eps). x [..., d]. The eps is inside the root, so that the
 * gradient at a zero row is finite.
 *
 * @throws NlaError `tensor.dtype`, `tensor.argument`
 */
export function normalizeRows(g: Graph, x: Tensor, length: number, eps = 1e-24): Tensor {
  requireDtype("normalizeRows", "f32", x);
  requireNumber("normalizeRows", "length", length, "a positive number", length > 0);
  const norm = sqrt(g, affine(g, sumLast(g, square(g, x)), 1 / length ** 2, eps / length ** 2));
  return div(g, x, norm);
}
