// Bootstrap intervals for a mean and for FVE, resampling whole documents: positions of one document are alike, and
// resampling rows would make every interval too narrow. Percentile intervals, seeded: same seed, same numbers.
import { PythonRandom } from "../data/python-random.js";
import { NlaError } from "../error.js";

/** A point estimate with its percentile interval. */
export interface Interval {
  readonly value: number;
  readonly low: number;
  readonly high: number;
  /** Coverage aimed at, e.g. 0.95. */
  readonly level: number;
  readonly resamples: number;
  /** Documents that were resampled. */
  readonly documents: number;
}

/** Options of the intervals. */
export interface BootstrapOptions {
  readonly seed: number;
  /** Defaults to 1000. */
  readonly resamples?: number;
  /** Defaults to 0.95. */
  readonly level?: number;
}

/** A value per row and the document it came from. */
export interface MeanRow {
  readonly docId: string;
  readonly value: number;
}

/** A row's error and its share of the baseline, |n(v) - centre|^2 / d with the centre of the whole set (nla/fidelity.ts). */
export interface FveRow {
  readonly docId: string;
  readonly mse: number;
  readonly variance: number;
}

/** A numerator and a denominator per row, such as right claims and claims, and the document it came from. */
export interface RatioRow {
  readonly docId: string;
  readonly numerator: number;
  readonly denominator: number;
}

// Above this the percentiles no longer move in the third digit, and a typing error would run for hours.
const MAX_RESAMPLES = 1_000_000;

/** Mean of the rows' values. Throws NlaError `bootstrap.rows` for no rows or a value that is not finite. */
export function bootstrapMean(rows: readonly MeanRow[], options: BootstrapOptions): Interval {
  const sums = sumsByDocument(rows, ({ value }) => [value, 1]);
  return ratioInterval(sums, (numerator, denominator) => numerator / denominator, options);
}

/**
 * FVE = 1 - sum of mse / sum of variance. The centre of the variance is held at the whole set's, so a resample's
 * baseline is its documents' spread around it; the interval covers the sampling of documents, not of the model.
 *
 * @throws NlaError `bootstrap.rows` as {@link bootstrapMean}, or if the rows have no variance
 */
export function bootstrapFve(rows: readonly FveRow[], options: BootstrapOptions): Interval {
  const sums = sumsByDocument(rows, ({ mse, variance }) => [mse, variance]);
  const spread = sums.reduce((sum, [, variance = 0]) => sum + variance, 0);
  if (!(spread > 0))
    throw rowsError(`a variance of ${spread} over ${rows.length} rows`, "a positive variance");
  return ratioInterval(sums, (mse, variance) => 1 - mse / variance, options);
}

/**
 * Sum of numerators / sum of denominators. Throws NlaError `bootstrap.rows` as {@link bootstrapMean}, or for a document whose
 * denominators do not sum to more than 0: a resample of such documents alone would have no ratio.
 */
export function bootstrapRatio(rows: readonly RatioRow[], options: BootstrapOptions): Interval {
  const sums = sumsByDocument(rows, ({ numerator, denominator }) => [numerator, denominator]);
  const least = sums.reduce((lowest, [, denominator = 0]) => Math.min(lowest, denominator), Infinity);
  if (!(least > 0))
    throw rowsError(`a document with denominator ${least}`, "a positive one in every document");
  return ratioInterval(sums, (numerator, denominator) => numerator / denominator, options);
}

/** Two ratios of one row, before and after something, and the document it came from. */
export interface GainRow {
  readonly docId: string;
  readonly after: Omit<RatioRow, "docId">;
  readonly before: Omit<RatioRow, "docId">;
}

/**
 * The ratio after less the ratio before, both of the same resampled documents: what they have in common leaves the interval. Throws as
 * {@link bootstrapRatio}, for either ratio.
 */
export function bootstrapRatioGain(rows: readonly GainRow[], options: BootstrapOptions): Interval {
  const sums = sumsByDocument(rows, ({ after, before }) => [
    after.numerator,
    after.denominator,
    before.numerator,
    before.denominator,
  ]);
  const least = sums.reduce((lowest, [, a = 0, , b = 0]) => Math.min(lowest, a, b), Infinity);
  if (!(least > 0))
    throw rowsError(`a document with denominator ${least}`, "positive ones in every document");
  return interval(sums, ([a = 0, b = 0, c = 0, d = 0]) => a / b - c / d, options);
}

type Sums = readonly number[];

function sumsByDocument<R extends { readonly docId: string }>(
  rows: readonly R[],
  sumsOf: (row: R) => Sums,
): Sums[] {
  if (rows.length === 0) throw rowsError("0 rows", "at least 1");
  const sums = new Map<string, Sums>();
  for (const row of rows) {
    const values = sumsOf(row);
    if (!values.every(Number.isFinite))
      throw rowsError(`${values.join(" and ")} in document ${row.docId}`, "finite values");
    const before = sums.get(row.docId);
    sums.set(row.docId, before ? values.map((value, i) => (before[i] as number) + value) : values);
  }
  return [...sums.values()];
}

function ratioInterval(
  sums: readonly Sums[],
  statistic: (numerator: number, denominator: number) => number,
  options: BootstrapOptions,
): Interval {
  return interval(sums, ([numerator = 0, denominator = 0]) => statistic(numerator, denominator), options);
}

function interval(
  sums: readonly Sums[],
  statistic: (sums: Sums) => number,
  { seed, resamples = 1000, level = 0.95 }: BootstrapOptions,
): Interval {
  if (
    !Number.isSafeInteger(resamples) ||
    resamples < 1 ||
    resamples > MAX_RESAMPLES ||
    !(level > 0 && level < 1)
  ) {
    throw new NlaError({
      code: "bootstrap.option",
      subject: "bootstrap",
      found: `${resamples} resamples at level ${level}`,
      wanted: `1 to ${MAX_RESAMPLES} resamples and a level between 0 and 1`,
      next: "1000 resamples at level 0.95 are usual.",
    });
  }
  const random = new PythonRandom(seed);
  const values = new Float64Array(resamples);
  const total = (sums[0] as Sums).map(() => 0);
  for (let r = 0; r < resamples; r++) {
    total.fill(0);
    for (let i = 0; i < sums.length; i++) {
      const drawn = sums[random.randbelow(sums.length)]!;
      for (let k = 0; k < drawn.length; k++) total[k]! += drawn[k]!;
    }
    values[r] = statistic(total);
  }
  values.sort();
  const tail = (1 - level) / 2;
  const whole = sums.reduce((before, each) => before.map((value, k) => value + each[k]!));
  return {
    value: statistic(whole),
    low: percentile(values, tail),
    high: percentile(values, 1 - tail),
    level,
    resamples,
    documents: sums.length,
  };
}

// Linear interpolation between the two nearest ranks.
function percentile(sorted: Float64Array, fraction: number): number {
  const rank = fraction * (sorted.length - 1);
  const below = sorted[Math.floor(rank)]!;
  return below + (sorted[Math.ceil(rank)]! - below) * (rank - Math.floor(rank));
}

function rowsError(found: string, wanted: string): NlaError {
  return new NlaError({
    code: "bootstrap.rows",
    subject: "bootstrap",
    found,
    wanted,
    next: "Check the rows that were scored; an interval over them would mean nothing.",
  });
}
