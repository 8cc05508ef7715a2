// Shapes: row-major, slowest dimension first, one to four dimensions, and the errors that name them.
import type { Extent } from "../engine/index.js";
import { NlaError } from "../error.js";

/** Extents of a tensor, slowest first: `[rows, columns]`. One to four positive integers. */
export type Shape = readonly number[];

/** Number of elements. */
export function sizeOf(shape: Shape): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

/** `[32, 128]`, for messages. */
export function formatShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

/** Whether two shapes are equal. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((extent, i) => extent === b[i]);
}

/**
 * ggml's extent of a shape: fastest dimension first, padded with ones to four.
 *
 * @throws NlaError `tensor.shape` for other than 1 to 4 positive integers
 */
export function extentOf(shape: Shape, subject: string): Extent {
  if (shape.length < 1 || shape.length > 4 || !shape.every((n) => Number.isSafeInteger(n) && n > 0)) {
    throw new NlaError({
      code: "tensor.shape",
      subject,
      found: `the shape ${formatShape(shape)}`,
      wanted: "one to four positive integers, such as [32, 128]",
      next: "An empty batch or a missing dimension is the usual reason; check what the shape was made from.",
    });
  }
  const reversed = [...shape].reverse();
  return [reversed[0] ?? 1, reversed[1] ?? 1, reversed[2] ?? 1, reversed[3] ?? 1];
}

/**
 * The shape that two shapes broadcast to, aligned at the last dimension: equal extents stay, 1 stretches.
 *
 * @throws NlaError `tensor.shape` with both shapes
 */
export function broadcastShapes(op: string, a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) {
      throw shapeError(op, [a, b], "shapes that are equal, or 1, in every dimension counted from the last");
    }
    return Math.max(x, y);
  });
}

/** The error of an op whose operands do not fit; its text holds every shape. */
export function shapeError(op: string, shapes: readonly Shape[], wanted: string): NlaError {
  return new NlaError({
    code: "tensor.shape",
    subject: op,
    found: `the shape${shapes.length > 1 ? "s" : ""} ${shapes.map(formatShape).join(" and ")}`,
    wanted,
    next: "Reshape or permute an operand first.",
  });
}
