// Linear probes: what can be read from a vector by a weighted sum. Ridge regression for numbers, logistic regression for classes, both
// in float64, without chance, on columns standardised by the training rows. Pure; which facts are probed is world-probes.ts.
import { NlaError } from "../error.js";
import { cholesky, gram, product, solve, transposedProduct, zeros } from "./linear-algebra.js";
import type { Matrix } from "./linear-algebra.js";

/** Options of the fits. */
export interface ProbeOptions {
  /** Penalty on the weights, per row, in units of standardised columns. Defaults to 1e-3. */
  readonly ridge?: number;
  /** Steps of logistic regression after its start. Defaults to 40. */
  readonly steps?: number;
  /** Multiplications that all steps may take: beyond it there are fewer of them. Defaults to 3e9. */
  readonly budget?: number;
}

/** Vectors as a probe sees them: standardised, with a column of ones at the end. */
export interface Design {
  readonly x: Matrix;
  readonly mean: Float64Array;
  readonly deviation: Float64Array;
}

const RIDGE = 1e-3;
const STEPS = 40;
// Rows times columns times classes of all steps of one fit, some seconds. Above it (a thousand classes) there are fewer steps.
const BUDGET = 3e9;
const TINY = 1e-6;

/**
 * Standardises vectors by their own mean and deviation, or by those of another design. A column that does not vary becomes zero.
 *
 * @param vectors one per row, all of one width
 * @throws NlaError `probe.rows` for no rows, ragged ones, or values that are not finite
 */
export function designOf(vectors: readonly Float32Array[], like?: Design): Design {
  const width = vectors[0]?.length ?? 0;
  const fault = vectors.findIndex((v) => v.length !== width || !v.every(Number.isFinite));
  if (width === 0 || fault >= 0 || (like && like.mean.length !== width)) {
    throw new NlaError({
      code: "probe.rows",
      subject: "the activations of a probe",
      found:
        fault >= 0 ? `row ${fault} of another width or not finite` : `${vectors.length} rows of ${width}`,
      wanted: "at least one row, all finite and of one width",
      next: "Check the model and the layer that they are of.",
    });
  }
  const n = vectors.length;
  const mean = like?.mean ?? new Float64Array(width);
  const deviation = like?.deviation ?? new Float64Array(width);
  if (!like) {
    for (const v of vectors) for (let i = 0; i < width; i++) mean[i]! += v[i]! / n;
    for (const v of vectors) for (let i = 0; i < width; i++) deviation[i]! += (v[i]! - mean[i]!) ** 2 / n;
    for (let i = 0; i < width; i++) deviation[i] = Math.sqrt(deviation[i] as number);
  }
  const x = zeros(n, width + 1);
  vectors.forEach((v, r) => {
    const at = r * (width + 1);
    for (let i = 0; i < width; i++) {
      const spread = deviation[i] as number;
      x.values[at + i] = spread > TINY ? (v[i]! - mean[i]!) / spread : 0;
    }
    x.values[at + width] = 1;
  });
  return { x, mean, deviation };
}

/** The factor of XᵀX / n + ridge; the column of ones goes without, but for what keeps it solvable. */
function factorOf(x: Matrix, ridge: number): Matrix {
  const a = gram(x);
  const { columns: d } = x;
  for (let i = 0; i < a.values.length; i++) a.values[i]! /= x.rows;
  for (let i = 0; i < d; i++) a.values[i * d + i]! += i === d - 1 ? 1e-9 : ridge;
  return cholesky(a);
}

/**
 * Ridge regression of one number per row: min |Xw - y|² / n + ridge |w|², in closed form.
 *
 * @returns weights [width + 1, 1], the last one the intercept
 * @throws NlaError `probe.singular`, `probe.labels` for another count of numbers
 */
export function fitRidge({ x }: Design, y: ArrayLike<number>, { ridge = RIDGE }: ProbeOptions = {}): Matrix {
  requireLabels(x.rows, y);
  const right = transposedProduct(x, { rows: x.rows, columns: 1, values: Float64Array.from(y) });
  for (let i = 0; i < right.values.length; i++) right.values[i]! /= x.rows;
  return solve(factorOf(x, ridge), right);
}

/** What a ridge probe says of each row. */
export function predictNumbers({ x }: Design, weights: Matrix): Float64Array {
  return product(x, weights).values;
}

/** Share of the variance of `y` that predictions explain: 1 - Σ(y - p)² / Σ(y - mean)². At most 1, below 0 for worse than the mean. */
export function explainedVariance(y: ArrayLike<number>, predicted: ArrayLike<number>): number {
  const mean = Array.from(y).reduce((a, b) => a + b, 0) / y.length;
  let error = 0;
  let spread = 0;
  for (let i = 0; i < y.length; i++) {
    error += (y[i]! - predicted[i]!) ** 2;
    spread += (y[i]! - mean) ** 2;
  }
  return 1 - error / spread;
}

/** A design with the factor that every fit on it shares: class labels, shuffled ones, other categories over the same rows. */
export interface FittingDesign extends Design {
  readonly factor: Matrix;
  readonly ridge: number;
}

/** Prepares a design for {@link fitClasses}. Throws NlaError `probe.singular`. */
export function fittingDesign(design: Design, { ridge = RIDGE }: ProbeOptions = {}): FittingDesign {
  return { ...design, ridge, factor: factorOf(design.x, ridge) };
}

/**
 * Multinomial logistic regression by Newton steps with a fixed bound on the Hessian (Böhning 1992), accelerated (Nesterov 1983):
 * W ← W + 2 (XᵀX/n + ridge)⁻¹ (Xᵀ(Y - P)/n - ridge W). It starts from least squares on the centred indicators, for two classes the
 * direction of Fisher's discriminant, scaled up; so a few dozen steps are enough, and with none it is still a probe.
 *
 * @param labels class of each row, 0 to classes - 1
 * @returns weights [width + 1, classes]
 * @throws NlaError `probe.labels` for another count, or a label that is no class
 */
export function fitClasses(
  { x, factor, ridge }: FittingDesign,
  labels: ArrayLike<number>,
  classes: number,
  { steps = STEPS, budget = BUDGET }: ProbeOptions = {},
): Matrix {
  requireLabels(x.rows, labels, classes);
  const { rows: n, columns: d } = x;
  const most = Math.floor(budget / (2 * n * d * classes));
  let w = zeros(d, classes);
  let ahead = zeros(d, classes); // Nesterov's extrapolation, in the metric of the bound
  let momentum = 1;
  for (let step = 0; step <= Math.min(steps, most); step++) {
    // Y - P, with P from the weights so far: at first the same for all classes.
    const residual = product(x, ahead);
    for (let r = 0; r < n; r++)
      residualRow(residual.values.subarray(r * classes, (r + 1) * classes), labels[r]!);
    const right = transposedProduct(x, residual);
    for (let i = 0; i < right.values.length; i++) {
      const penalty = i < (d - 1) * classes ? ridge * ahead.values[i]! : 0;
      right.values[i] = right.values[i]! / n - penalty;
    }
    const change = solve(factor, right);
    const grown = (1 + Math.sqrt(1 + 4 * momentum ** 2)) / 2;
    const beyond = (momentum - 1) / grown;
    const next = zeros(d, classes);
    const further = zeros(d, classes);
    for (let i = 0; i < next.values.length; i++) {
      const value = ahead.values[i]! + 2 * change.values[i]!;
      next.values[i] = value;
      further.values[i] = value + beyond * (value - w.values[i]!);
    }
    [w, ahead, momentum] = [next, further, grown];
  }
  return w;
}

/** Turns logits into indicator - softmax, in place. */
function residualRow(row: Float64Array, label: number): void {
  let highest = -Infinity;
  for (let c = 0; c < row.length; c++) highest = Math.max(highest, row[c] as number);
  let sum = 0;
  for (let c = 0; c < row.length; c++) sum += row[c] = Math.exp(row[c]! - highest);
  for (let c = 0; c < row.length; c++) row[c] = (c === label ? 1 : 0) - row[c]! / sum;
}

/** The likeliest class of each row; of equals the first. */
export function predictClasses({ x }: Design, weights: Matrix): Int32Array {
  const { values, columns } = product(x, weights);
  return Int32Array.from({ length: x.rows }, (_, r) => {
    let best = 0;
    for (let c = 1; c < columns; c++) if (values[r * columns + c]! > values[r * columns + best]!) best = c;
    return best;
  });
}

function requireLabels(rows: number, labels: ArrayLike<number>, classes = Infinity): void {
  const bad = Array.from(labels).findIndex(
    (label) =>
      !Number.isFinite(label) ||
      (classes < Infinity && !(Number.isInteger(label) && label >= 0 && label < classes)),
  );
  if (labels.length === rows && bad < 0) return;
  throw new NlaError({
    code: "probe.labels",
    subject: "the labels of a probe",
    found: bad >= 0 ? `${labels[bad]} for row ${bad}` : `${labels.length} for ${rows} rows`,
    wanted: classes < Infinity ? `one class from 0 to ${classes - 1} per row` : "one finite number per row",
    next: "Give each row its own.",
  });
}
