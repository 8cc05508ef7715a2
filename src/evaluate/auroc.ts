// The area under the ROC curve: how often something true is scored above something false, ties counting half; with an interval that resamples
// documents. Pure: scores in, numbers out.
import { PythonRandom } from "../data/python-random.js";
import { NlaError } from "../error.js";
import type { BootstrapOptions, Interval } from "./bootstrap.js";

/** A score and whether what it was given to is true. */
export interface ScoredRow {
  readonly docId: string;
  readonly score: number;
  readonly positive: boolean;
}

/**
 * AUROC with a percentile interval: Mann and Whitney's U over the number of pairs (Hanley and McNeil 1982).
 *
 * @throws NlaError `auroc.rows` without a positive or a negative row, or for a score that is not a number
 */
export function bootstrapAuroc(
  rows: readonly ScoredRow[],
  { seed, resamples = 1000, level = 0.95 }: BootstrapOptions,
): Interval {
  const documents = new Map<string, number>();
  for (const { docId } of rows) if (!documents.has(docId)) documents.set(docId, documents.size);
  const sorted = rows
    .map(({ docId, score, positive }) => ({ document: documents.get(docId) as number, score, positive }))
    .sort((a, b) => a.score - b.score);
  const positives = rows.filter(({ positive }) => positive).length;
  if (positives === 0 || positives === rows.length || rows.some(({ score }) => Number.isNaN(score))) {
    throw new NlaError({
      code: "auroc.rows",
      subject: "an area under the ROC curve",
      found: `${positives} true ones of ${rows.length} rows, ${rows.filter(({ score }) => Number.isNaN(score)).length} without a score`,
      wanted: "rows of both kinds, each with a score",
      next: "Take more documents.",
    });
  }
  const weights = new Float64Array(documents.size).fill(1);
  const value = area(sorted, weights) as number;
  const random = new PythonRandom(seed);
  const values: number[] = [];
  for (let r = 0; r < resamples; r++) {
    weights.fill(0);
    for (let i = 0; i < documents.size; i++) weights[random.randbelow(documents.size)]!++;
    const each = area(sorted, weights);
    if (each !== null) values.push(each);
  }
  values.sort((a, b) => a - b);
  const at = (fraction: number) =>
    values[Math.round(fraction * (values.length - 1))] ?? value; /* one kind alone in every resample */
  const tail = (1 - level) / 2;
  return { value, low: at(tail), high: at(1 - tail), level, resamples, documents: documents.size };
}

/** The area with each document counted so often; null where one kind has no weight. */
function area(
  sorted: readonly { readonly document: number; readonly score: number; readonly positive: boolean }[],
  weights: Float64Array,
): number | null {
  let [below, won, positives] = [0, 0, 0]; // negatives passed so far, pairs won, positives
  for (let i = 0; i < sorted.length;) {
    const { score } = sorted[i] as (typeof sorted)[number];
    let [up, down] = [0, 0];
    for (; i < sorted.length && sorted[i]?.score === score; i++) {
      const { document, positive } = sorted[i] as (typeof sorted)[number];
      if (positive) up += weights[document] as number;
      else down += weights[document] as number;
    }
    won += up * (below + down / 2);
    below += down;
    positives += up;
  }
  return positives === 0 || below === 0 ? null : won / (positives * below);
}
