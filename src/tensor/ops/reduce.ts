// Sums and means.
import type { Graph } from "../graph.js";
import { extentOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { requireDtype } from "./check.js";
import { scale } from "./elementwise.js";

/** Sum of all elements: any shape -> [1]. */
export function sum(g: Graph, x: Tensor): Tensor {
  requireDtype("sum", "f32", x);
  return g.record(g.emit("sum", [1], "f32", x), [
    x,
    (dy) => g.emit("repeat_4d", x.shape, "f32", dy, ...extentOf(x.shape, "sum")),
  ]);
}

/** Sum over the last dimension, which stays as 1: [..., n] -> [..., 1]. */
export function sumLast(g: Graph, x: Tensor): Tensor {
  requireDtype("sumLast", "f32", x);
  return g.record(g.emit("sum_rows", [...x.shape.slice(0, -1), 1], "f32", x), [
    x,
    (dy) => g.emit("repeat_4d", x.shape, "f32", dy, ...extentOf(x.shape, "sumLast")),
  ]);
}

/** Mean of all elements: any shape -> [1]. */
export function mean(g: Graph, x: Tensor): Tensor {
  return scale(g, sum(g, x), 1 / x.size);
}
