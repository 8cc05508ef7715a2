// Moving elements without changing them: reshape, permute, transpose, cast, rows gathered and scattered.
import { BYTES, GGML_TYPE } from "../../engine/index.js";
import type { Dtype } from "../../engine/index.js";
import type { Graph, Pullback } from "../graph.js";
import { extentOf, shapeError, sizeOf } from "../shape.js";
import type { Shape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { requireDtype } from "./check.js";

/** The same elements in another shape; memory is shared. @throws NlaError `tensor.shape` */
export function reshape(g: Graph, x: Tensor, shape: Shape): Tensor {
  const extent = extentOf(shape, "reshape");
  if (sizeOf(shape) !== x.size)
    throw shapeError("reshape", [x.shape, shape], "shapes of equally many elements");
  const y = g.record(g.emit("reshape_4d", shape, x.dtype, x, ...extent), [
    x,
    (dy) => reshape(g, dy, x.shape),
  ]);
  const half = asDtype("bf16");
  return g.offers(x, half) ? g.offer(y, half, () => reshape(g, castTo(g, x, "bf16"), shape)) : y;
}

/**
 * Dimensions in another order, copied: dimension `order[i]` of `x` becomes dimension `i`.
 *
 * @throws NlaError `tensor.shape` where `order` is not a permutation of x's dimensions
 */
export function permute(g: Graph, x: Tensor, order: readonly number[]): Tensor {
  const rank = x.shape.length;
  if (order.length !== rank || [...order].sort().some((axis, i) => axis !== i)) {
    throw shapeError("permute", [x.shape, order], `an order that is a permutation of 0 to ${rank - 1}`);
  }
  const shape = order.map((axis) => x.shape[axis] as number);
  // ggml counts dimensions from the fastest and wants, for each of its dimensions, where it goes.
  const target = [0, 1, 2, 3];
  order.forEach((axis, i) => (target[rank - 1 - axis] = rank - 1 - i));
  const view = g.emit("permute", shape, x.dtype, x, ...target);
  const inverse = order.map((_, axis) => order.indexOf(axis));
  return g.record(g.emit("cont", shape, x.dtype, view), [x, (dy) => permute(g, dy, inverse)]);
}

/** The last two dimensions swapped, copied once per graph: [..., m, n] -> [..., n, m]. @throws NlaError `tensor.shape` */
export function transpose(g: Graph, x: Tensor): Tensor {
  const y = transposedAs(g, x, x.dtype);
  return g.record(y, [x, (dy) => transpose(g, dy)]);
}

/** For matmul: transposed and converted in one pass, no gradient. */
export function transposedAs(g: Graph, x: Tensor, dtype: Dtype): Tensor {
  const rank = x.shape.length;
  if (rank < 2) throw shapeError("transpose", [x.shape, []], "at least two dimensions");
  const shape = [...x.shape.slice(0, -2), x.shape[rank - 1] as number, x.shape[rank - 2] as number];
  return g.derive(x, `transposed ${dtype}`, () => {
    const view = g.emit("transpose", shape, x.dtype, x);
    if (dtype === x.dtype) return g.emit("cont", shape, dtype, view);
    return g.emit("cast", shape, dtype, view, GGML_TYPE[dtype]);
  });
}

/** What {@link castTo} derives, for ops that offer it themselves. */
export function asDtype(dtype: Dtype): string {
  return `as ${dtype}`;
}

/** Another element type, converted once per graph; no gradient. */
export function castTo(g: Graph, x: Tensor, dtype: Dtype): Tensor {
  if (x.dtype === dtype) return x;
  return g.derive(x, asDtype(dtype), () => g.emit("cast", x.shape, dtype, x, GGML_TYPE[dtype]));
}

/**
 * Rows of a table by number: table [rows, d], ids [n] -> [n, d]. The gradient adds rows up where ids repeat.
 *
 * @throws NlaError `tensor.shape`, `tensor.index` (at once where ids are no i32 input, in `run` where one is out of range)
 */
export function gatherRows(g: Graph, table: Tensor, ids: Tensor): Tensor {
  const [rows, width] = table.shape;
  if (table.shape.length !== 2 || ids.shape.length !== 1 || rows === undefined || width === undefined) {
    throw shapeError("gatherRows", [table.shape, ids.shape], "a table [rows, d] and ids [n]");
  }
  // Rows of every float type come out as f32; only a table in f32 can be trained.
  if (table.requiresGrad || table.dtype === "i32" || table.dtype === "i64") {
    requireDtype("gatherRows", "f32", table);
  }
  g.boundIndices("gatherRows", ids, rows);
  return g.record(g.emit("get_rows", [ids.size, width], "f32", table, ids), [
    table,
    (dy, sum) => {
      if (!g.native) return g.emit("get_rows_back", table.shape, "f32", dy, ids, table);
      const added = g.emitKernel("gather_back", table.shape, [dy, ids, sum]);
      return sum ? g.summed(added, sum) : added;
    },
  ]);
}

/**
 * A copy of `x` in which the rows of given numbers are replaced: x [n, d], rows [k, d], at [k] -> [n, d].
 * This is the injection of activations into embeddings. The numbers must differ from each other, or the run is refused.
 *
 * @throws NlaError `tensor.shape`, `tensor.index`
 */
export function replaceRows(g: Graph, x: Tensor, rows: Tensor, at: Tensor): Tensor {
  const [n, d] = x.shape;
  const fits =
    x.shape.length === 2 && rows.shape.length === 2 && rows.shape[1] === d && at.shape.length === 1;
  if (!fits || n === undefined || at.size !== rows.shape[0] || at.size > n) {
    throw shapeError(
      "replaceRows",
      [x.shape, rows.shape, at.shape],
      "x [n, d], rows [k, d] and at [k] with k <= n",
    );
  }
  requireDtype("replaceRows", "f32", x, rows);
  g.boundIndices("replaceRows", at, n, true);
  // set_rows writes into its first operand, which others may still need: so a copy.
  const copy = g.emit("cont", x.shape, "f32", x);
  return g.record(
    g.emit("set_rows", x.shape, "f32", copy, rows, at),
    [x, (dy) => replaceRows(g, dy, g.emit("scale", rows.shape, "f32", rows, 0), at)],
    [rows, (dy) => g.emit("get_rows", rows.shape, "f32", dy, at)],
  );
}

/** Rows of several tensors one after another: [n_i, d] -> [sum n_i, d]. @throws NlaError `tensor.shape`, `tensor.dtype` */
export function concatRows(g: Graph, parts: readonly Tensor[]): Tensor {
  const [first, ...rest] = parts;
  const width = first?.shape[1];
  if (!first || width === undefined || parts.some(({ shape }) => shape.length !== 2 || shape[1] !== width)) {
    throw shapeError(
      "concatRows",
      parts.map((part) => part.shape),
      "at least one tensor, and rows [n, d] of one width",
    );
  }
  requireDtype("concatRows", "f32", ...parts);
  const joined = g.native
    ? stackRows(g, parts, width)
    : rest.reduce(
        (all, part) => g.emit("concat", [rowsOf(all) + rowsOf(part), width], "f32", all, part, 1),
        first,
      );
  let start = 0;
  const pullbacks = parts.map((part): Pullback => {
    const from = start;
    start += rowsOf(part);
    return [part, (dy) => rowsView(g, dy, from, rowsOf(part), width)];
  });
  return g.record(joined, ...pullbacks);
}

// Sources of the kernel (native/rows.c).
const MOST_STACKED = 7;

/** The same by nlakit's kernel, which copies each part once: pair by pair, ggml copies the first as often as there are others. */
function stackRows(g: Graph, parts: readonly Tensor[], width: number): Tensor {
  const [first] = parts as readonly [Tensor];
  if (parts.length === 1) return first;
  const groups = Array.from({ length: Math.ceil(parts.length / MOST_STACKED) }, (_, i) => {
    const group = parts.slice(i * MOST_STACKED, (i + 1) * MOST_STACKED);
    if (group.length === 1) return group[0] as Tensor;
    return g.emitKernel("stack_rows", [group.reduce((sum, part) => sum + rowsOf(part), 0), width], group);
  });
  return stackRows(g, groups, width);
}

function rowsOf(x: Tensor): number {
  return x.shape[0] as number;
}

/** For ops: rows [start, start + rows) of a tensor (no blocks) seen as [n, width]; memory is shared, no gradient. */
export function rowsView(g: Graph, x: Tensor, start: number, rows: number, width: number): Tensor {
  const row = width * BYTES[x.dtype];
  return g.emit(
    "view_4d",
    [rows, width],
    x.dtype,
    x,
    width,
    rows,
    1,
    1,
    row,
    row * rows,
    row * rows,
    start * row,
  );
}

/** For ops: the elements from `start` on of a tensor (no blocks), seen in a shape of their own; memory is shared, no gradient. */
export function partOf(g: Graph, x: Tensor, start: number, shape: Shape): Tensor {
  const [n0, n1, n2, n3] = extentOf(shape, "part");
  if (start + sizeOf(shape) > x.size)
    throw shapeError("part", [x.shape, shape], "a part that lies within the tensor");
  const bytes = BYTES[x.dtype];
  const [row, plane, volume] = [n0 * bytes, n0 * n1 * bytes, n0 * n1 * n2 * bytes];
  return g.emit("view_4d", shape, x.dtype, x, n0, n1, n2, n3, row, plane, volume, start * bytes);
}
