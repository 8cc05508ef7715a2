// Shapes: row-major, slowest dimension first, one to four dimensions, and the errors that name them.
import { BLOCKS, BYTES, isBlockDtype } from "../engine/index.js";
import type { Dtype, Extent } from "../engine/index.js";
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

/** @throws NlaError `tensor.dtype` for a name that is no type */
export function requireDtypeName(subject: string, dtype: Dtype): void {
  if (Object.hasOwn(BYTES, dtype)) return;
  throw new NlaError({
    code: "tensor.dtype",
    subject,
    found: String(dtype),
    wanted: `one of ${Object.keys(BYTES).join(", ")}`,
    next: "Correct the type.",
  });
}

/** @throws NlaError `tensor.blocks` where the blocks of a type do not divide its rows: ggml would end the process */
export function requireBlocks(subject: string, shape: Shape, dtype: Dtype): void {
  const width = shape.at(-1) ?? 1;
  if (!isBlockDtype(dtype) || width % BLOCKS[dtype].values === 0) return;
  throw new NlaError({
    code: "tensor.blocks",
    subject,
    found: `rows of ${width} in ${dtype}`,
    wanted: `rows of a multiple of ${BLOCKS[dtype].values}`,
    next: "Use another type: q8_0 and q4_0 have blocks of 32, f16 and bf16 none.",
  });
}

// ggml multiplies extents into 64-bit sizes without a check; below this nothing overflows, and no machine has that much.
const MAX_ELEMENTS = 2 ** 48;

/**
 * ggml's extent of a shape: fastest dimension first, padded with ones to four.
 *
 * @throws NlaError `tensor.shape` for other than 1 to 4 positive integers, or more than 2^48 elements
 */
export function extentOf(shape: Shape, subject: string): Extent {
  const positive = shape.every((n) => Number.isSafeInteger(n) && n > 0);
  if (shape.length < 1 || shape.length > 4 || !positive || sizeOf(shape) > MAX_ELEMENTS) {
    throw new NlaError({
      code: "tensor.shape",
      subject,
      found: `the shape ${formatShape(shape)}`,
      wanted: "one to four positive integers, such as [32, 128], of at most 2^48 elements",
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
