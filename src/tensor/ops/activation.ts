// Activation functions and gates. The one place that computes them: a fused kernel is chosen here and nowhere else.
import type { Dtype } from "../../engine/index.js";
import type { Graph } from "../graph.js";
import { sameShape, shapeError } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { requireDtype } from "./check.js";
import { affine, mul, square, tanh } from "./elementwise.js";
import { asDtype, partOf } from "./layout.js";

/** x · sigmoid(x). @throws NlaError `tensor.dtype` */
export function silu(g: Graph, x: Tensor): Tensor {
  requireDtype("silu", "f32", x);
  return g.record(g.emit("silu", x.shape, "f32", x), [x, (dy) => g.emit("silu_back", x.shape, "f32", dy, x)]);
}

/**
 * The tanh form of GELU (Hendrycks and Gimpel 2016), written out: ggml's own CPU op looks it up in an f16 table, which
 * costs 3e-4 on the logits of a Gemma. Its gradient follows from the parts.
 *
 * @throws NlaError `tensor.dtype`
 */
export function geluTanh(g: Graph, x: Tensor): Tensor {
  requireDtype("geluTanh", "f32", x);
  const c = Math.sqrt(2 / Math.PI);
  const inner = mul(g, x, affine(g, square(g, x), c * 0.044715, c));
  return mul(g, x, affine(g, tanh(g, inner), 0.5, 0.5));
}

/** silu(gate) · up. @throws NlaError `tensor.shape`, `tensor.dtype` */
export function swiglu(g: Graph, gate: Tensor, up: Tensor): Tensor {
  if (!sameShape(gate.shape, up.shape)) throw shapeError("swiglu", [gate.shape, up.shape], "equal shapes");
  requireDtype("swiglu", "f32", gate, up);
  if (g.native) return nativeGate(g, gate, up, SILU);
  return g.record(
    g.emit("swiglu_split", gate.shape, "f32", gate, up),
    [gate, (dy) => g.emit("silu_back", gate.shape, "f32", mul(g, dy, up), gate)],
    [up, (dy) => mul(g, silu(g, gate), dy)],
  );
}

/** geluTanh(gate) · up. @throws NlaError `tensor.shape`, `tensor.dtype` */
export function geglu(g: Graph, gate: Tensor, up: Tensor): Tensor {
  if (!sameShape(gate.shape, up.shape)) throw shapeError("geglu", [gate.shape, up.shape], "equal shapes");
  requireDtype("geglu", "f32", gate, up);
  return g.native ? nativeGate(g, gate, up, GELU) : mul(g, geluTanh(g, gate), up);
}

// The kernel's flag (native/rows.c).
const SILU = 0;
const GELU = 1;

/** A gated activation in one kernel each way; the reverse one gives both gradients, one after the other. */
function nativeGate(g: Graph, gate: Tensor, up: Tensor, flags: number): Tensor {
  const { size, shape } = gate;
  const swept = new Map<Dtype, Tensor>();
  const sweep = (dy: Tensor, dtype: "f32" | "bf16") => {
    const made = swept.get(dtype) ?? g.emitKernel("gated_back", [2 * size], [dy, gate, up], { flags, dtype });
    swept.set(dtype, made);
    return made;
  };
  const half = asDtype("bf16");
  // Products read the gradients in bf16: where nothing else does, the f32 ones are never computed.
  const gradient = (dy: Tensor, start: number) =>
    g.offer(partOf(g, sweep(dy, "f32"), start, shape), half, () =>
      partOf(g, sweep(dy, "bf16"), start, shape),
    );
  const gated = (dtype: "f32" | "bf16") => g.emitKernel("gated", shape, [gate, up], { flags, dtype });
  const y = g.record(gated("f32"), [gate, (dy) => gradient(dy, 0)], [up, (dy) => gradient(dy, size)]);
  return g.offer(y, half, () => gated("bf16"));
}
