// Element by element: arithmetic with broadcasting, and functions of one operand.
import type { OpName } from "../../engine/index.js";
import type { Graph } from "../graph.js";
import { broadcastShapes, extentOf, sameShape } from "../shape.js";
import type { Shape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { requireDtype, requireNumber } from "./check.js";

/** `x` stretched to `shape` (no gradient recorded). */
function stretch(g: Graph, x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  return g.emit("repeat_4d", shape, "f32", x, ...extentOf(shape, "broadcast"));
}

/** The gradient of a broadcast: `dy` summed over what was stretched, in the shape of `like`. */
function gather(g: Graph, dy: Tensor, like: Tensor): Tensor {
  if (sameShape(dy.shape, like.shape)) return dy;
  if (dy.size === like.size)
    return g.emit("reshape_4d", like.shape, "f32", dy, ...extentOf(like.shape, "broadcast"));
  return g.emit("repeat_back", like.shape, "f32", dy, like);
}

function binary(g: Graph, op: OpName, a: Tensor, b: Tensor): Tensor {
  requireDtype(op, "f32", a, b);
  const shape = broadcastShapes(op, a.shape, b.shape);
  // ggml stretches only its second operand.
  if (!sameShape(a.shape, shape) && sameShape(b.shape, shape) && (op === "add" || op === "mul")) {
    return g.emit(op, shape, "f32", b, a);
  }
  return g.emit(op, shape, "f32", stretch(g, a, shape), b);
}

/** a + b, broadcast. Shapes as in {@link broadcastShapes}; throws `tensor.shape`, `tensor.dtype`, as all of this file. */
export function add(g: Graph, a: Tensor, b: Tensor): Tensor {
  return g.record(binary(g, "add", a, b), [a, (dy) => gather(g, dy, a)], [b, (dy) => gather(g, dy, b)]);
}

/** a - b, broadcast. */
export function sub(g: Graph, a: Tensor, b: Tensor): Tensor {
  return g.record(
    binary(g, "sub", a, b),
    [a, (dy) => gather(g, dy, a)],
    [b, (dy) => gather(g, neg(g, dy), b)],
  );
}

/** a * b, broadcast. */
export function mul(g: Graph, a: Tensor, b: Tensor): Tensor {
  return g.record(
    binary(g, "mul", a, b),
    [a, (dy) => gather(g, binary(g, "mul", dy, b), a)],
    [b, (dy) => gather(g, binary(g, "mul", dy, a), b)],
  );
}

/** a / b, broadcast. d/da = 1/b, d/db = -a/b². */
export function div(g: Graph, a: Tensor, b: Tensor): Tensor {
  const y = binary(g, "div", a, b);
  return g.record(
    y,
    [a, (dy) => gather(g, binary(g, "div", dy, b), a)],
    [b, (dy) => gather(g, neg(g, binary(g, "div", mul(g, dy, y), b)), b)],
  );
}

/** x * factor. @throws NlaError `tensor.argument` for a factor that is not finite */
export function scale(g: Graph, x: Tensor, factor: number): Tensor {
  requireDtype("scale", "f32", x);
  requireNumber("scale", "factor", factor);
  return g.record(g.emit("scale", x.shape, "f32", x, factor), [x, (dy) => scale(g, dy, factor)]);
}

/** x * factor + offset. @throws NlaError `tensor.argument` */
export function affine(g: Graph, x: Tensor, factor: number, offset: number): Tensor {
  requireDtype("affine", "f32", x);
  requireNumber("affine", "factor", factor);
  requireNumber("affine", "offset", offset);
  return g.record(g.emit("scale_bias", x.shape, "f32", x, factor, offset), [x, (dy) => scale(g, dy, factor)]);
}

function unary(g: Graph, op: OpName, x: Tensor): Tensor {
  requireDtype(op, "f32", x);
  return g.emit(op, x.shape, "f32", x);
}

/** -x. */
export function neg(g: Graph, x: Tensor): Tensor {
  return scale(g, x, -1);
}

/** e^x. */
export function exp(g: Graph, x: Tensor): Tensor {
  const y = unary(g, "exp", x);
  return g.record(y, [x, (dy) => mul(g, dy, y)]);
}

/** Natural logarithm. */
export function log(g: Graph, x: Tensor): Tensor {
  return g.record(unary(g, "log", x), [x, (dy) => div(g, dy, x)]);
}

/** x². */
export function square(g: Graph, x: Tensor): Tensor {
  return g.record(unary(g, "sqr", x), [x, (dy) => scale(g, mul(g, dy, x), 2)]);
}

/** √x. */
export function sqrt(g: Graph, x: Tensor): Tensor {
  const y = unary(g, "sqrt", x);
  return g.record(y, [x, (dy) => scale(g, div(g, dy, y), 0.5)]);
}

/** tanh x, derivative 1 - y². */
export function tanh(g: Graph, x: Tensor): Tensor {
  const y = unary(g, "tanh", x);
  return g.record(y, [x, (dy) => mul(g, dy, affine(g, square(g, y), -1, 1))]);
}

/** 1 / (1 + e^-x), derivative y - y². */
export function sigmoid(g: Graph, x: Tensor): Tensor {
  const y = unary(g, "sigmoid", x);
  return g.record(y, [x, (dy) => mul(g, dy, sub(g, y, square(g, y)))]);
}

/** max(x, 0); its derivative at 0 is 0. */
export function relu(g: Graph, x: Tensor): Tensor {
  return g.record(unary(g, "relu", x), [x, (dy) => mul(g, dy, unary(g, "step", x))]);
}

/** Element-wise minimum, broadcast: where equal, the gradient goes to `a`. */
export function minimum(g: Graph, a: Tensor, b: Tensor): Tensor {
  // Chosen by a factor of 0 or 1: a - relu(a - b) would round b away where a is much larger.
  const takeB = unary(g, "step", binary(g, "sub", a, b));
  return add(g, mul(g, a, affine(g, takeB, -1, 1)), mul(g, b, takeB));
}

/** x limited to [low, high]; the gradient passes only strictly inside. @throws NlaError `tensor.argument` */
export function clamp(g: Graph, x: Tensor, low: number, high: number): Tensor {
  requireDtype("clamp", "f32", x);
  requireNumber("clamp", "low", low);
  requireNumber("clamp", "high", high, `a number not below ${low}`, high >= low);
  return g.record(g.emit("clamp", x.shape, "f32", x, low, high), [
    x,
    (dy) =>
      mul(g, dy, mul(g, unary(g, "step", affine(g, x, 1, -low)), unary(g, "step", affine(g, x, -1, high)))),
  ]);
}

/** softcap · tanh(x / softcap), as Gemma 2 bounds scores and logits. */
export function softcap(g: Graph, x: Tensor, cap: number): Tensor {
  requireNumber("softcap", "cap", cap, "a positive number", cap > 0);
  if (g.native) {
    requireDtype("softcap", "f32", x);
    const y = g.emitKernel("soft_cap", x.shape, [x], { value: cap });
    return g.record(y, [x, (dy) => g.emitKernel("soft_cap_back", x.shape, [dy, y], { value: cap })]);
  }
  return scale(g, tanh(g, scale(g, x, 1 / cap)), cap);
}
