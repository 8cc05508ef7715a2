// Normalisation. The one place that normalises: a fused kernel is chosen here and nowhere else.
import type { Graph } from "../graph.js";
import { sameShape, shapeError } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { requireDtype, requireNumber } from "./check.js";
import { hasStored } from "./product.js";
import { affine, div, mul, sqrt, square } from "./elementwise.js";
import { asDtype, partOf } from "./layout.js";
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
  if (g.native) return nativeRmsNorm(g, x, gain, eps);
  const unit = g.emit("rms_norm", x.shape, "f32", x, eps);
  const normed = g.record(unit, [x, (dy) => g.emit("rms_norm_back", x.shape, "f32", dy, x, eps)]);
  return mul(g, normed, gain);
}

// Partial sums over rows in native/rows.c: their number is fixed, so that the gradient is the same for any number of threads.
const SLOTS = 32;

/**
 * The same in one kernel each way. The reverse one gives both gradients: dx, and partial sums of the gain's after it; and where products
 * compute in bf16, dx once more in that.
 */
function nativeRmsNorm(g: Graph, x: Tensor, gain: Tensor, eps: number): Tensor {
  const d = gain.size;
  let swept: Tensor | null = null;
  const halves = hasStored(g) && d % 2 === 0;
  const size = x.size + SLOTS * d;
  const sweep = (dy: Tensor, sum: Tensor | null) =>
    (swept ??= g.emitKernel("rms_norm_back", [halves ? size + x.size / 2 : size], [dy, x, gain, sum], {
      value: eps,
    }));
  const unit = (dtype: "f32" | "bf16") => g.emitKernel("rms_norm", x.shape, [x, gain], { value: eps, dtype });
  const y = g.record(
    unit("f32"),
    [
      x,
      (dy, sum) => {
        const both = sweep(dy, sum);
        const dx = partOf(g, both, 0, x.shape);
        if (halves) g.expand(g.offer(dx, asDtype("bf16"), () => g.viewBf16(both, size, x.shape)));
        return sum ? g.summed(dx, sum) : dx;
      },
    ],
    [gain, (dy) => g.emitKernel("sum_rows", gain.shape, [partOf(g, sweep(dy, null), x.size, [SLOTS, d])])],
  );
  return g.offer(y, asDtype("bf16"), () => unit("bf16"));
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
