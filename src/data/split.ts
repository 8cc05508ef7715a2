// Who trains on what: the split of documents over the three training stages, and the order of rows in a file.
//
// A split is by document, never by row: two positions of one document share most of their text, so a row split would leak.
// Pure functions over ids and counts; reading and writing the rows is the pipeline's work.
import { NlaError } from "../error.js";
import { keyedRandom, PythonRandom } from "./python-random.js";

/** The three training stages, by the reference's names. */
export type SplitStage = "av_sft" | "ar_sft" | "rl";

/** The share of documents of each stage; together 1. */
export type SplitFractions = Readonly<Record<SplitStage, number>>;

const STAGES: readonly SplitStage[] = ["av_sft", "ar_sft", "rl"];
const SUM_TOLERANCE = 1e-6; // the reference's, for fractions such as 0.29 + 0.57 + 0.14

/** Orders text by code point, as Python sorts. (UTF-16 order puts U+1F98A before U+FF21; this does not.) */
export function compareCodePoints(a: string, b: string): number {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i++) {
    const left = a.charCodeAt(i);
    const right = b.charCodeAt(i);
    if (left === right) continue;
    const leftIsHigh = left >= 0xd800 && left <= 0xdfff;
    const rightIsHigh = right >= 0xd800 && right <= 0xdfff;
    // Only one of them is half of a pair: that one is a code point beyond every single unit.
    return leftIsHigh === rightIsHigh ? left - right : leftIsHigh ? 1 : -1;
  }
  return a.length - b.length;
}

/**
 * Splits documents over the stages (nla-facts 2.7): distinct ids sorted by code point, shuffled by `Random(seed)`, the first
 * `int(n * av_sft)` to the verbalizer's warm start, the next `int(n * ar_sft)` to the reconstructor's, the rest to RL.
 * Lists keep the shuffled order. Throws NlaError `split.fractions` unless each share is in [0, 1] and they sum to 1 (within
 * 1e-6), `split.empty` without documents.
 */
export function splitDocuments(
  documentIds: Iterable<string>,
  { seed, fractions }: { readonly seed: number | bigint; readonly fractions: SplitFractions },
): Record<SplitStage, string[]> {
  const shares = STAGES.map((stage) => fractions[stage]);
  const sum = shares.reduce((total, share) => total + share, 0);
  if (!shares.every((share) => share >= 0 && share <= 1) || !(Math.abs(sum - 1) <= SUM_TOLERANCE)) {
    throw new NlaError({
      code: "split.fractions",
      subject: "split fractions",
      found: `${STAGES.map((stage) => `${stage} ${fractions[stage]}`).join(", ")} (sum ${sum})`,
      wanted: "three shares between 0 and 1 that sum to 1",
      next: "Correct the fractions.",
    });
  }
  const ids = [...new Set(documentIds)].sort(compareCodePoints);
  if (ids.length === 0) {
    throw new NlaError({
      code: "split.empty",
      subject: "split",
      found: "0 documents",
      wanted: "at least one document",
      next: "Check that the extraction wrote rows.",
    });
  }
  new PythonRandom(seed).shuffle(ids);
  const av = Math.trunc(ids.length * fractions.av_sft);
  const ar = Math.trunc(ids.length * fractions.ar_sft);
  return { av_sft: ids.slice(0, av), ar_sft: ids.slice(av, av + ar), rl: ids.slice(av + ar) };
}

/** Arguments of the two row permutations: rows in the file, seed, and the `dataset_id` in the sidecar of the input file. */
export interface RowShuffle {
  readonly rowCount: number;
  readonly seed: number | bigint;
  readonly datasetId: string;
}

/** The order of a shuffled file: row i of the output is row `order[i]` of the input. Key: `{seed}|{dataset_id}`. */
export function rowOrder({ rowCount, seed, datasetId }: RowShuffle): Uint32Array {
  return permutation(rowCount, seed, datasetId);
}

/**
 * The order of the random-activation control: row i keeps its text and takes the vector of row `order[i]`.
 * Key: `{seed}|{dataset_id}|activ`, so that it differs from the row shuffle of the same seed.
 */
export function activationOrder({ rowCount, seed, datasetId }: RowShuffle): Uint32Array {
  return permutation(rowCount, seed, `${datasetId}|activ`);
}

function permutation(rowCount: number, seed: number | bigint, key: string): Uint32Array {
  if (!Number.isInteger(rowCount) || rowCount < 0 || rowCount > 0xffffffff) {
    throw new NlaError({
      code: "split.rows",
      subject: `row order of ${key}`,
      found: `${rowCount} rows`,
      wanted: "a whole number of rows from 0 to 2^32 - 1",
      next: "Pass the row count of the file.",
    });
  }
  return keyedRandom(seed, key).shuffle(Uint32Array.from({ length: rowCount }, (_, i) => i));
}
