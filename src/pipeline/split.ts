// From one file of activations to one per set, by document and never by row: two positions of a document share their text.
//
// Held-out documents are taken off first, so that the other three sets are the reference's split of the documents that remain.
import { filterParquet } from "../data/parquet-rearrange.js";
import { DOC_COLUMN } from "../data/parquet.js";
import { keyedRandom } from "../data/python-random.js";
import { writeDatasetSidecar } from "../data/sidecar.js";
import { compareCodePoints, splitDocuments } from "../data/split.js";
import { NlaError } from "../error.js";
import { derivedSidecar, openDataFile } from "./data-file.js";
import { SET_NAMES, splitIdOf } from "./sets.js";
import type { SetName } from "./sets.js";

/** The share of documents of each set; together 1. */
export type SetFractions = Readonly<Record<SetName, number>>;

/** Options of {@link splitByDocument}. */
export interface SplitOptions {
  /** Activations, as extracted. */
  readonly base: string;
  readonly fractions: SetFractions;
  /** Defaults to 42. */
  readonly seed?: number;
  /** The file of each set. */
  readonly out: (set: SetName) => string;
  readonly signal?: AbortSignal | undefined;
}

/** One set after the split. */
export interface SplitPart {
  readonly file: string;
  readonly datasetId: string;
  readonly documents: number;
  readonly rows: number;
}

/** What was split. */
export interface Split {
  readonly documents: number;
  /** Documents that rounding left over while the share of `rl`, which takes them, is 0. */
  readonly unused: number;
  /** A set whose share is 0 has no documents and no file, and is absent. */
  readonly sets: Readonly<Partial<Record<SetName, SplitPart>>>;
}

/**
 * Splits activations over the sets.
 *
 * @throws NlaError `split.fractions`, `split.too-few` where a set with a share would get no document, `split.empty`, those of
 *   {@link openDataFile}
 */
export async function splitByDocument(options: SplitOptions): Promise<Split> {
  const { base, fractions, seed = 42, out, signal } = options;
  using source = await openDataFile(base, { activations: true, columns: [DOC_COLUMN] });
  const ids = new Set<string>();
  for await (const chunk of source.parquet.chunks({ columns: [DOC_COLUMN] })) {
    signal?.throwIfAborted();
    for (const id of chunk.strings(DOC_COLUMN)) ids.add(id);
  }
  const members = setsOf(ids, { fractions, seed });
  const sets: Partial<Record<SetName, SplitPart>> = {};
  let unused = ids.size;
  for (const set of SET_NAMES) {
    const documents = members[set];
    if (documents.length === 0) continue;
    signal?.throwIfAborted();
    unused -= documents.length;
    const file = out(set);
    const rows = await filterParquet(base, file, documents);
    const datasetId = splitIdOf(source.sidecar.datasetId, set);
    const changes = { datasetId, rowCount: rows, createdBy: "nlakit split" };
    await writeDatasetSidecar(file, derivedSidecar(source.sidecar, changes));
    sets[set] = { file, datasetId, documents: documents.length, rows };
  }
  return { documents: ids.size, unused, sets };
}

/**
 * Which documents go to which set. Held out are the first `int(n * eval)`, at least one, of the ids sorted by code point and
 * shuffled with the key `{seed}|eval`; the rest is split as the reference does, with the other shares in proportion. What
 * rounding leaves over goes to `rl`, unless its share is 0.
 * Throws as {@link splitByDocument}.
 */
export function setsOf(
  documentIds: Iterable<string>,
  { fractions, seed }: { readonly fractions: SetFractions; readonly seed: number },
): Record<SetName, string[]> {
  const shares = SET_NAMES.map((set) => fractions[set]);
  const sum = shares.reduce((total, share) => total + share, 0);
  if (!shares.every((share) => share >= 0 && share <= 1) || !(Math.abs(sum - 1) <= 1e-6)) {
    throw new NlaError({
      code: "split.fractions",
      subject: "split fractions",
      found: `${SET_NAMES.map((set) => `${set} ${fractions[set]}`).join(", ")} (sum ${sum})`,
      wanted: "four shares between 0 and 1 that sum to 1",
      next: "Correct the fractions.",
    });
  }
  const { ar_sft, av_sft, rl, eval: heldOutShare } = fractions;
  const ids = [...new Set(documentIds)].sort(compareCodePoints);
  const count = heldOutShare > 0 ? Math.max(1, Math.trunc(ids.length * heldOutShare)) : 0;
  const heldOut = keyedRandom(seed, "eval")
    .shuffle([...ids])
    .slice(0, count);
  const taken = new Set(heldOut);
  const others = ids.filter((id) => !taken.has(id));
  const trained = ar_sft + av_sft + rl;
  // Without held-out documents the shares are the reference's own, to the last bit.
  const scale = heldOutShare > 0 ? trained : 1;
  const split =
    trained === 0
      ? { ar_sft: [], av_sft: [], rl: [] }
      : splitDocuments(others, {
          seed,
          fractions: { ar_sft: ar_sft / scale, av_sft: av_sft / scale, rl: rl / scale },
        });
  const members: Record<SetName, string[]> = { ...split, eval: heldOut };
  if (rl === 0) members.rl = [];
  for (const set of SET_NAMES) {
    if (fractions[set] === 0 || members[set].length > 0) continue;
    throw new NlaError({
      code: "split.too-few",
      subject: `set ${set}`,
      found: `no document: a share of ${fractions[set]} of ${ids.length}`,
      wanted: "at least one document for every set that has a share",
      next: "Use more documents, a larger share, or 0 for a set that is not needed.",
    });
  }
  return members;
}
