// Dense linear algebra in float64 for probes: the Gram matrix of a design, Cholesky, triangular solves. Row-major, small (hundreds of
// columns), in a fixed order, so that the same rows give the same bits. Not for models: those are in tensor/.
import { NlaError } from "../error.js";

/** A row-major matrix. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float64Array;
}

/** A matrix of zeros. */
export function zeros(rows: number, columns: number): Matrix {
  return { rows, columns, values: new Float64Array(rows * columns) };
}

/** Xᵀ X, [columns, columns]. */
export function gram({ rows, columns, values }: Matrix): Matrix {
  const result = zeros(columns, columns);
  const out = result.values;
  for (let r = 0; r < rows; r++) {
    const x = values.subarray(r * columns, (r + 1) * columns);
    for (let i = 0; i < columns; i++) {
      const factor = x[i] as number;
      const at = i * columns;
      for (let j = i; j < columns; j++) out[at + j]! += factor * x[j]!;
    }
  }
  for (let i = 0; i < columns; i++) {
    for (let j = 0; j < i; j++) out[i * columns + j] = out[j * columns + i] as number;
  }
  return result;
}

/** Xᵀ Y, [columns of X, columns of Y]; both have the same rows. */
export function transposedProduct(x: Matrix, y: Matrix): Matrix {
  const result = zeros(x.columns, y.columns);
  const out = result.values;
  for (let r = 0; r < x.rows; r++) {
    const row = y.values.subarray(r * y.columns, (r + 1) * y.columns);
    for (let i = 0; i < x.columns; i++) {
      const factor = x.values[r * x.columns + i] as number;
      const at = i * y.columns;
      for (let j = 0; j < row.length; j++) out[at + j]! += factor * row[j]!;
    }
  }
  return result;
}

/** X W, [rows of X, columns of W]. */
export function product(x: Matrix, w: Matrix): Matrix {
  const result = zeros(x.rows, w.columns);
  for (let r = 0; r < x.rows; r++) {
    const row = result.values.subarray(r * w.columns, (r + 1) * w.columns);
    for (let i = 0; i < x.columns; i++) {
      const factor = x.values[r * x.columns + i] as number;
      const at = i * w.columns;
      for (let j = 0; j < row.length; j++) row[j]! += factor * w.values[at + j]!;
    }
  }
  return result;
}

/**
 * Lower triangle L of A = L Lᵀ.
 *
 * @throws NlaError `probe.singular` where A is not positive definite or not finite
 */
export function cholesky({ rows: n, values: a }: Matrix): Matrix {
  const result = zeros(n, n);
  const l = result.values;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = a[i * n + j] as number;
      for (let k = 0; k < j; k++) sum -= l[i * n + k]! * l[j * n + k]!;
      if (i !== j) {
        l[i * n + j] = sum / l[j * n + j]!;
        continue;
      }
      if (!(sum > 0 && Number.isFinite(sum))) {
        throw new NlaError({
          code: "probe.singular",
          subject: `column ${i} of a probe's design`,
          found: `a pivot of ${sum}`,
          wanted: "a positive definite matrix",
          next: "Raise the ridge, or check the activations for values that are not finite.",
        });
      }
      l[i * n + i] = Math.sqrt(sum);
    }
  }
  return result;
}

/** The solution of L Lᵀ W = B for every column of B, given L of {@link cholesky}. */
export function solve({ rows: n, values: l }: Matrix, b: Matrix): Matrix {
  const { columns } = b;
  const w = Float64Array.from(b.values);
  const subtract = (i: number, k: number, factor: number) => {
    for (let c = 0; c < columns; c++) w[i * columns + c]! -= factor * w[k * columns + c]!;
  };
  const divide = (i: number) => {
    const pivot = l[i * n + i] as number;
    for (let c = 0; c < columns; c++) w[i * columns + c]! /= pivot;
  };
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) subtract(i, k, l[i * n + k] as number);
    divide(i);
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) subtract(i, k, l[k * n + i] as number);
    divide(i);
  }
  return { rows: n, columns, values: w };
}
