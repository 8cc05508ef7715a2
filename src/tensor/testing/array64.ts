// Arrays of float64 with a shape, and walks over their elements: what the reference ops are written with. Slow and plain
// on purpose, and without one line of the code that it checks.

/** Row-major float64 values. */
export interface Array64 {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/** How many elements a shape has. */
export function count(shape: readonly number[]): number {
  let product = 1;
  for (const extent of shape) product *= extent;
  return product;
}

/** An array made from a function of the multi-index. */
export function make(shape: readonly number[], value: (index: number[]) => number): Array64 {
  const data = new Float64Array(count(shape));
  const index = shape.map(() => 0);
  for (let flat = 0; flat < data.length; flat++) {
    data[flat] = value(index);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis] = (index[axis] as number) + 1;
      if ((index[axis] as number) < (shape[axis] as number)) break;
      index[axis] = 0;
    }
  }
  return { shape, data };
}

/** The element at a multi-index. */
export function at({ shape, data }: Array64, ...index: readonly number[]): number {
  let flat = 0;
  shape.forEach((extent, axis) => (flat = flat * extent + (index[axis] as number)));
  return data[flat] as number;
}

/** The element at a multi-index of a larger shape to which the array is stretched, aligned at the last axis. */
export function stretchedAt(array: Array64, index: readonly number[]): number {
  const skipped = index.length - array.shape.length;
  return at(
    array,
    ...array.shape.map((extent, axis) => (extent === 1 ? 0 : (index[axis + skipped] as number))),
  );
}

/** Element by element over two arrays, stretched to each other. */
export function zip(a: Array64, b: Array64, f: (x: number, y: number) => number): Array64 {
  const rank = Math.max(a.shape.length, b.shape.length);
  const shape = Array.from({ length: rank }, (_, axis) =>
    Math.max(a.shape[axis - rank + a.shape.length] ?? 1, b.shape[axis - rank + b.shape.length] ?? 1),
  );
  return make(shape, (index) => f(stretchedAt(a, index), stretchedAt(b, index)));
}

/** Element by element over one array. */
export function map(x: Array64, f: (value: number) => number): Array64 {
  return { shape: x.shape, data: x.data.map(f) };
}

/** Row by row over the last axis. */
export function mapRows(x: Array64, f: (row: Float64Array, rowIndex: number) => ArrayLike<number>): Array64 {
  const width = x.shape.at(-1) as number;
  const data = new Float64Array(x.data.length);
  for (let start = 0; start < data.length; start += width) {
    data.set(f(x.data.slice(start, start + width), start / width), start);
  }
  return { shape: x.shape, data };
}

/** |a - b| / |b| in the Euclidean norm; NaN anywhere gives NaN, which no bound accepts. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.NaN;
  let [difference, reference] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    difference += ((a[i] as number) - (b[i] as number)) ** 2;
    reference += (b[i] as number) ** 2;
  }
  return difference === 0 ? 0 : Math.sqrt(difference / reference);
}
