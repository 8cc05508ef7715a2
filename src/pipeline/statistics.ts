// Numbers over a whole file of activations, in one pass: their lengths, from which the injection scale is chosen, and the variance
// that an explained fraction is measured against.
import { VECTOR_COLUMN } from "../data/parquet.js";
import { PythonRandom } from "../data/python-random.js";
import { BaselineAccumulator } from "../nla/fidelity.js";
import type { FveBaselines, MseScale } from "../nla/fidelity.js";
import { openDataFile } from "./data-file.js";

// Eight bytes each: 8 MB. Beyond it percentiles are those of a sample, whose error is below 0.1 of a percentile rank.
const EXACT_ROWS = 1_000_000;
// The reference takes the first 50,000 rows, so that a baseline does not change as a set grows.
const BASELINE_ROWS = 50_000;

/** Lengths (L2) of a file's activations. */
export interface ActivationNorms {
  readonly rows: number;
  readonly mean: number;
  readonly min: number;
  readonly median: number;
  /** 75th percentile: the usual injection scale. */
  readonly p75: number;
  readonly max: number;
  /** False where median and p75 are those of a random sample of a million rows. */
  readonly exact: boolean;
}

/**
 * Lengths of all activations. Percentiles are interpolated linearly between the two nearest ranks, as numpy does.
 *
 * @param options.exactRows rows up to which percentiles are exact. Defaults to 1,000,000.
 * @param options.seed of the sample beyond it. Defaults to 0.
 * @throws NlaError as {@link openDataFile}, and `parquet.not-finite`
 */
export async function activationNorms(
  file: string,
  options: {
    readonly exactRows?: number;
    readonly seed?: number;
    readonly signal?: AbortSignal | undefined;
  } = {},
): Promise<ActivationNorms> {
  const { exactRows = EXACT_ROWS, seed = 0, signal } = options;
  using source = await openDataFile(file);
  const { width, parquet } = source;
  const kept = new Float64Array(Math.min(exactRows, parquet.rowCount));
  const random = new PythonRandom(seed);
  let rows = 0;
  let sum = 0;
  let min = Infinity;
  let max = 0;
  for await (const chunk of parquet.chunks({ columns: [VECTOR_COLUMN], width })) {
    signal?.throwIfAborted();
    const vectors = chunk.vectors();
    for (let row = 0; row < chunk.rowCount; row++) {
      const norm = lengthOf(vectors, row * width, width);
      sum += norm;
      min = Math.min(min, norm);
      max = Math.max(max, norm);
      // Vitter's algorithm R: every row is kept with the same probability.
      const place = rows < kept.length ? rows : random.randbelow(rows + 1);
      if (place < kept.length) kept[place] = norm;
      rows++;
    }
  }
  kept.sort();
  const exact = rows === kept.length;
  return { rows, mean: sum / rows, min, median: quantile(kept, 0.5), p75: quantile(kept, 0.75), max, exact };
}

/** Length of the `width` values from `start` on. */
export function lengthOf(values: Float32Array, start: number, width: number): number {
  let squares = 0;
  for (let i = start; i < start + width; i++) squares += (values[i] as number) ** 2;
  return Math.sqrt(squares);
}

/** The value at rank `q` (0 to 1) of sorted values, between two ranks by linear interpolation. */
function quantile(sorted: Float64Array, q: number): number {
  const rank = q * (sorted.length - 1);
  const below = sorted[Math.floor(rank)] as number;
  const above = sorted[Math.ceil(rank)] as number;
  return below + (above - below) * (rank - Math.floor(rank));
}

/**
 * The denominators of the explained fraction of variance, over the first rows in the file's order.
 *
 * @param options.rows Defaults to 50,000, as in the reference.
 * @throws NlaError as {@link openDataFile}; `fidelity.scale`
 */
export async function fveBaselines(
  file: string,
  options: MseScale & { readonly rows?: number; readonly signal?: AbortSignal | undefined } = {},
): Promise<FveBaselines> {
  const { rows = BASELINE_ROWS, signal, ...scale } = options;
  using source = await openDataFile(file);
  const { width, parquet } = source;
  const baselines = new BaselineAccumulator(width, scale);
  const end = Math.min(rows, parquet.rowCount);
  for await (const chunk of parquet.chunks({ columns: [VECTOR_COLUMN], width, end })) {
    signal?.throwIfAborted();
    const vectors = chunk.vectors();
    for (let row = 0; row < chunk.rowCount; row++) {
      baselines.add(vectors.subarray(row * width, (row + 1) * width));
    }
  }
  return baselines.baselines();
}
