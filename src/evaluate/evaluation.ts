// What explained rows say about a pair: fidelity against both baselines, the two controls, intervals, and fidelity by
// position. Pure: rows in, numbers out; the keys are those of `nla eval --json`.
//
// A row without a reconstruction counts with the baseline's own error, as if the mean had been guessed: it adds nothing to
// the explained variance, and is counted in `failed`. Leaving such rows out would reward a pair for giving up on hard ones.
import { BaselineAccumulator, fve, reconstructionScores, varianceAround } from "../nla/fidelity.js";
import type { FveBaselines } from "../nla/fidelity.js";
import { bootstrapFve } from "./bootstrap.js";
import { fveByPosition } from "./by-position.js";
import type { ExplainedRow } from "./explained-rows.js";
import { rowsOfOtherDocuments } from "./other-documents.js";

/** Ends of a 95 % interval. */
export type Range = readonly [low: number, high: number];

/** Fidelity of a pair on held-out activations. */
export interface Evaluation {
  /** Activations. */
  readonly n: number;
  /** Documents that they are of. */
  readonly documents: number;
  /** 1 - mse / variance. */
  readonly fve: number;
  /** 1 - mse / variance_meannorm. */
  readonly fve_meannorm: number;
  /** Denominator of `fve`: spread of the normalised activations around their mean. */
  readonly variance: number;
  /** Denominator of `fve_meannorm`: their spread around the best constant direction. */
  readonly variance_meannorm: number;
  readonly mse: number;
  /** Mean cosine of the rows that have one; null if none has. */
  readonly cosine: number | null;
  /** Mean tokens of a response. */
  readonly length: number;
  /** Share of rows without a reconstruction. */
  readonly failed: number;
  /** 95 % by bootstrap over documents; `difference` is `fve` less the shuffled control's, over the same resamples. */
  readonly intervals: { readonly fve: Range; readonly shuffled_fve: Range; readonly difference: Range };
  readonly controls: {
    /** Each row scored with the explanation of another document's activation. */
    readonly shuffled: { readonly fve: number; readonly cosine: number | null };
    /** Each row scored with the mean of all: 0 by construction where the baselines are these rows' own. */
    readonly mean: { readonly fve: number };
  };
  /** Fidelity by the token's place in its document; `to` is not in the range, null in the last, open one. */
  readonly by_position: readonly {
    readonly from: number;
    readonly to: number | null;
    readonly n: number;
    readonly fve: number | null;
    readonly mse: number;
  }[];
}

/** Options of {@link evaluateRows}. */
export interface EvaluateOptions {
  /** Lengths that are compared, as the reconstructor's contract says. Defaults to sqrt(dim). */
  readonly mseScale?: number | null;
  /** Denominators from another set. Defaults to those of the rows. */
  readonly baselines?: FveBaselines;
  /** Seed of the bootstrap and of the shuffled control. Defaults to 0, with 1000 resamples. */
  readonly bootstrap?: { readonly seed?: number; readonly resamples?: number };
}

interface Score {
  readonly mse: number;
  readonly cosine: number;
}

/**
 * The evaluation of explained rows.
 *
 * @throws NlaError `evaluate.documents` for fewer than two documents, `fidelity.baseline` for rows without variance, and
 *   those of the scores
 */
export function evaluateRows(rows: readonly ExplainedRow[], options: EvaluateOptions = {}): Evaluation {
  const { bootstrap: { seed = 0, resamples = 1000 } = {} } = options;
  const scale = options.mseScale === undefined ? {} : { mseScale: options.mseScale };
  const others = rowsOfOtherDocuments(
    rows.map(({ docId }) => docId),
    { seed },
  );
  const accumulator = new BaselineAccumulator((rows[0] as ExplainedRow).vector.length, scale);
  for (const { vector } of rows) accumulator.add(vector);
  const { variance, varianceMeannorm } = options.baselines ?? accumulator.baselines();
  const mean = accumulator.mean();
  const around = rows.map(({ vector }) => varianceAround(vector, mean, scale));
  // With denominators from elsewhere their centre is not known, and every row has the same share of them.
  const shares = options.baselines ? rows.map(() => variance) : around;

  const score = (reconstruction: Float32Array | null, row: number): Score =>
    reconstruction === null
      ? { mse: shares[row] as number, cosine: NaN }
      : reconstructionScores(reconstruction, (rows[row] as ExplainedRow).vector, scale);
  const real = rows.map(({ reconstruction }, i) => score(reconstruction, i));
  const shuffled = rows.map((_, i) => score((rows[others[i] as number] as ExplainedRow).reconstruction, i));

  const interval = (errors: readonly number[]): Range => {
    const sums = rows.map(({ docId }, i) => ({
      docId,
      mse: errors[i] as number,
      variance: shares[i] as number,
    }));
    const { low, high } = bootstrapFve(sums, { seed, resamples });
    return [low, high];
  };
  const errors = real.map(({ mse }) => mse);
  const shuffledErrors = shuffled.map(({ mse }) => mse);
  const mse = average(errors);
  return {
    n: rows.length,
    documents: new Set(rows.map(({ docId }) => docId)).size,
    fve: fve(mse, variance),
    fve_meannorm: fve(mse, varianceMeannorm),
    variance,
    variance_meannorm: varianceMeannorm,
    mse,
    cosine: meanCosine(real),
    length: average(rows.map(({ tokens }) => tokens)),
    failed: rows.filter(({ reconstruction }) => reconstruction === null).length / rows.length,
    intervals: {
      fve: interval(errors),
      shuffled_fve: interval(shuffledErrors),
      // 1 - (mse - shuffled mse + variance) / variance is the difference of the two FVE of a resample.
      difference: interval(
        errors.map((each, i) => each - (shuffledErrors[i] as number) + (shares[i] as number)),
      ),
    },
    controls: {
      shuffled: { fve: fve(average(shuffledErrors), variance), cosine: meanCosine(shuffled) },
      mean: { fve: fve(average(around), variance) },
    },
    by_position: fveByPosition(
      rows.map(({ position }, i) => ({
        position,
        mse: errors[i] as number,
        variance: shares[i] as number,
      })),
    ).map(({ from, to, rows: n, fve, mse }) => ({ from, to: to === Infinity ? null : to, n, fve, mse })),
  };
}

/** What one pair explains more than another. */
export interface Gain {
  /** Difference of the two FVE. */
  readonly fve: number;
  /** 95 % by bootstrap over documents, both pairs over the same resamples. */
  readonly interval: Range;
}

/**
 * How much more of the variance `after` explains than `before`, two pairs' readings of the same activations.
 *
 * @throws as {@link evaluateRows}, and RangeError for lists of different lengths, a fault of the program
 */
export function fveGain(
  after: readonly ExplainedRow[],
  before: readonly ExplainedRow[],
  options: Omit<EvaluateOptions, "baselines"> = {},
): Gain {
  if (after.length !== before.length) throw new RangeError(`${after.length} rows against ${before.length}`);
  const { bootstrap: { seed = 0, resamples = 1000 } = {} } = options;
  const scale = options.mseScale === undefined ? {} : { mseScale: options.mseScale };
  const accumulator = new BaselineAccumulator((after[0] as ExplainedRow).vector.length, scale);
  for (const { vector } of after) accumulator.add(vector);
  const mean = accumulator.mean();
  // 1 - (mse after - mse before + variance) / variance is the difference of the two FVE.
  const rows = after.map(({ vector, docId, reconstruction }, i) => {
    const variance = varianceAround(vector, mean, scale);
    const error = (each: Float32Array | null) =>
      each ? reconstructionScores(each, vector, scale).mse : variance;
    return {
      docId,
      variance,
      mse: error(reconstruction) - error((before[i] as ExplainedRow).reconstruction) + variance,
    };
  });
  const { value, low, high } = bootstrapFve(rows, { seed, resamples });
  return { fve: value, interval: [low, high] };
}

function average(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function meanCosine(scores: readonly Score[]): number | null {
  const cosines = scores.flatMap(({ cosine }) => (Number.isNaN(cosine) ? [] : [cosine]));
  return cosines.length === 0 ? null : average(cosines);
}
