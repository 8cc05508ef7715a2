// How near a reconstruction is to its activation: mean squared error of directions, cosine, and the fraction of variance
// explained (FVE) against both baselines of the field. Pure numbers; not the loss graph (train/) and not intervals
// (evaluate/bootstrap.ts).
//
// With n(v) = v / (|v| / s), s the `mse_scale` (sqrt(d) unless a sidecar says otherwise), d the width:
//   mse(p, v)         = |n(p) - n(v)|^2 / d           at s = sqrt(d) this is 2 (1 - cos(p, v))
//   variance          = mean over rows |n(v) - mu|^2 / d,     mu = mean of n(v)         ("raw variance", published FVE)
//   varianceMeannorm  = mean over rows |n(v) - n(mu)|^2 / d   what the best constant direction reaches
//   fve = 1 - mean mse / variance,  fveMeannorm = 1 - mean mse / varianceMeannorm
// A cosine or an mse says nothing across models (the variance is 0.73 in one and 0.03 in another), so every FVE here
// travels with its denominator.
import { NlaError } from "../error.js";

type Vector = Float32Array | Float64Array;

// As in scaleToNorm: a vector shorter than this is scaled by it, so that zero stays zero.
const SMALLEST_NORM = 1e-12;

/** Lengths to which both vectors are brought before they are compared: a number, or null for their own lengths. */
export interface MseScale {
  /** Defaults to sqrt(d). */
  readonly mseScale?: number | null;
}

/** The scores of one reconstruction. */
export interface ReconstructionScores {
  /** |n(prediction) - n(original)|^2 / d. Exactly 1 at the default scale if one of the two is zero. */
  readonly mse: number;
  /** Cosine of the angle; NaN if one of the two is zero: it has no direction. */
  readonly cosine: number;
  readonly predictionNorm: number;
  readonly originalNorm: number;
}

/** The denominators of FVE over a set of activations, with the size of the set. */
export interface FveBaselines {
  readonly rows: number;
  readonly variance: number;
  readonly varianceMeannorm: number;
}

/**
 * Scores of one reconstruction against its activation, in float64.
 *
 * @param prediction [d]
 * @param original [d]
 * @throws NlaError `fidelity.width` for different or zero widths, `fidelity.not-finite` for NaN or infinite values
 */
export function reconstructionScores(
  prediction: Vector,
  original: Vector,
  options: MseScale = {},
): ReconstructionScores {
  const d = original.length;
  if (prediction.length !== d) throw widthError("reconstruction", prediction.length, d);
  const predictionNorm = finiteNorm(prediction, "reconstruction");
  const originalNorm = finiteNorm(original, "activation");
  const predictionDivisor = divisorFor(predictionNorm, d, options);
  const originalDivisor = divisorFor(originalNorm, d, options);
  let squares = 0;
  let dot = 0;
  for (let i = 0; i < d; i++) {
    const difference = prediction[i]! / predictionDivisor - original[i]! / originalDivisor;
    squares += difference * difference;
    dot += (prediction[i]! / (predictionNorm || NaN)) * (original[i]! / (originalNorm || NaN));
  }
  return { mse: squares / d, cosine: Math.max(-1, Math.min(1, dot)), predictionNorm, originalNorm };
}

/** `n(vector)`: the vector at length `mseScale`, [d] in float64. Throws as {@link reconstructionScores}. */
export function normalised(vector: Vector, options: MseScale = {}): Float64Array {
  const divisor = divisorFor(finiteNorm(vector, "activation"), vector.length, options);
  return Float64Array.from(vector, (value) => value / divisor);
}

/**
 * |n(vector) - centre|^2 / d: one row's share of a baseline. With `centre` the mean of n(v) over a set, its mean over
 * the set is `variance`; with n(mean), `varianceMeannorm`.
 */
export function varianceAround(vector: Vector, centre: Float64Array, options: MseScale = {}): number {
  if (centre.length !== vector.length) throw widthError("activation", vector.length, centre.length);
  const v = normalised(vector, options);
  return v.reduce((sum, value, i) => sum + (value - centre[i]!) ** 2, 0) / v.length;
}

/**
 * 1 - mse / baseline.
 *
 * @throws NlaError `fidelity.baseline` if the baseline is not positive (all activations alike: nothing to explain)
 */
export function fve(mse: number, baseline: number): number {
  if (!(baseline > 0 && Number.isFinite(baseline)) || !Number.isFinite(mse)) {
    throw new NlaError({
      code: "fidelity.baseline",
      subject: "fraction of variance explained",
      found: `mse ${mse} over a variance of ${baseline}`,
      wanted: "a finite mse and a positive variance",
      next: "Use activations of more than one text position; equal activations have no variance to explain.",
    });
  }
  return 1 - mse / baseline;
}

/**
 * Both baselines over a stream of activations, in memory of one vector (Welford's update per dimension).
 *
 * `varianceMeannorm` needs no second pass: mean |v - c|^2 = mean |v - mu|^2 + |mu - c|^2 for any centre c.
 */
export class BaselineAccumulator {
  readonly #options: MseScale;
  readonly #mean: Float64Array;
  #rows = 0;
  #squares = 0;

  constructor(width: number, options: MseScale = {}) {
    if (!Number.isSafeInteger(width) || width < 1) throw widthError("baseline", width, "a positive integer");
    this.#options = options;
    this.#mean = new Float64Array(width);
  }

  /** Takes one raw activation, [d]. Throws as {@link reconstructionScores}. */
  add(vector: Vector): void {
    const mean = this.#mean;
    if (vector.length !== mean.length) throw widthError("activation", vector.length, mean.length);
    const divisor = divisorFor(finiteNorm(vector, "activation"), mean.length, this.#options);
    this.#rows++;
    for (let i = 0; i < mean.length; i++) {
      const value = vector[i]! / divisor;
      const delta = value - mean[i]!;
      mean[i] = mean[i]! + delta / this.#rows;
      this.#squares += delta * (value - mean[i]!);
    }
  }

  /** mu, the mean of the normalised activations so far, [d]; a copy. */
  mean(): Float64Array {
    return this.#mean.slice();
  }

  /** n(mu), the best constant direction, [d]. */
  meanDirection(): Float64Array {
    return normalised(this.#mean, this.#options);
  }

  /** The baselines so far. Throws NlaError `fidelity.empty` before the first row. */
  baselines(): FveBaselines {
    if (this.#rows === 0) throw emptyError();
    const d = this.#mean.length;
    const variance = this.#squares / (this.#rows * d);
    const direction = this.meanDirection();
    const shift = this.#mean.reduce((sum, value, i) => sum + (value - direction[i]!) ** 2, 0) / d;
    return { rows: this.#rows, variance, varianceMeannorm: variance + shift };
  }
}

/** What a reconstructor achieves over a set of rows. */
export interface Fidelity extends FveBaselines {
  readonly mse: number;
  /** Mean over the rows that have a direction; NaN if none has. */
  readonly cosine: number;
  /** Rows without a cosine, because the reconstruction or the activation is zero. */
  readonly withoutDirection: number;
  readonly fve: number;
  readonly fveMeannorm: number;
}

/** Fidelity over a stream of (reconstruction, activation) pairs, in memory of one vector. */
export class FidelityAccumulator {
  readonly #options: MseScale;
  readonly #baseline: BaselineAccumulator;
  #mse = 0;
  #cosine = 0;
  #withDirection = 0;

  constructor(width: number, options: MseScale = {}) {
    this.#options = options;
    this.#baseline = new BaselineAccumulator(width, options);
  }

  /** Takes one pair, [d] each, and returns its scores. Throws as {@link reconstructionScores}. */
  add(prediction: Vector, original: Vector): ReconstructionScores {
    const scores = reconstructionScores(prediction, original, this.#options);
    this.#baseline.add(original);
    this.#mse += scores.mse;
    if (!Number.isNaN(scores.cosine)) {
      this.#cosine += scores.cosine;
      this.#withDirection++;
    }
    return scores;
  }

  /**
   * The fidelity so far.
   *
   * @param baselines denominators from another set, e.g. the training set's; by default those of the rows added
   * @throws NlaError `fidelity.empty` before the first row, `fidelity.baseline` if the rows have no variance
   */
  result(baselines?: FveBaselines): Fidelity {
    const own = this.#baseline.baselines();
    const { variance, varianceMeannorm } = baselines ?? own;
    const mse = this.#mse / own.rows;
    return {
      rows: own.rows,
      mse,
      cosine: this.#cosine / this.#withDirection,
      withoutDirection: own.rows - this.#withDirection,
      variance,
      varianceMeannorm,
      fve: fve(mse, variance),
      fveMeannorm: fve(mse, varianceMeannorm),
    };
  }
}

function finiteNorm(vector: Vector, subject: string): number {
  if (vector.length === 0) throw widthError(subject, 0, "at least 1");
  let squares = 0;
  for (let i = 0; i < vector.length; i++) {
    const value = vector[i]!;
    if (!Number.isFinite(value)) {
      throw new NlaError({
        code: "fidelity.not-finite",
        subject,
        found: `${value} at index ${i} of ${vector.length}`,
        wanted: "finite numbers",
        next: "Find the step that produced it; a score over NaN would count as a bad explanation instead of a fault.",
      });
    }
    squares += value * value;
  }
  return Math.sqrt(squares);
}

function divisorFor(norm: number, width: number, { mseScale = Math.sqrt(width) }: MseScale): number {
  if (mseScale === null) return 1;
  if (!(mseScale > 0 && Number.isFinite(mseScale))) {
    throw new NlaError({
      code: "fidelity.scale",
      subject: "mse scale",
      found: String(mseScale),
      wanted: "a positive number, or null for the vectors' own lengths",
      next: "Correct extraction.mse_scale in the sidecar, or leave it out for sqrt(d_model).",
    });
  }
  return Math.max(norm, SMALLEST_NORM) / mseScale;
}

function widthError(subject: string, found: number, wanted: number | string): NlaError {
  return new NlaError({
    code: "fidelity.width",
    subject,
    found: `a width of ${found}`,
    wanted: String(wanted),
    next: "Reconstructor and activations must come from the same target model.",
  });
}

function emptyError(): NlaError {
  return new NlaError({
    code: "fidelity.empty",
    subject: "fidelity",
    found: "0 rows",
    wanted: "at least 1",
    next: "Check the filter or the split that selected the rows.",
  });
}
