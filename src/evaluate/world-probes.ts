// Which facts of the world are linearly present in a target, by layer and by distance from what made them evident: activations of
// documents of known truth, a probe per category, held-out documents, a shuffled-label control and intervals. The probes are probe.ts.
import { keyedRandom } from "../data/python-random.js";
import { NlaError } from "../error.js";
import { checkLayer, run } from "../model/index.js";
import type { Target } from "../nla/target.js";
import { worldDocument } from "../world/documents.js";
import { CATEGORIES, truthAt } from "../world/facts.js";
import type { Category, WorldDocument } from "../world/facts.js";
import { bootstrapMean } from "./bootstrap.js";
import type { Interval } from "./bootstrap.js";
import { designOf, fitClasses, fittingDesign, predictClasses } from "./probe.js";

/** Options of {@link probeWorld}. */
export interface WorldProbeOptions {
  readonly layers: readonly number[];
  /** Documents, a fifth of them held out. */
  readonly documents: number;
  /** Tokens of each document, at most. Defaults to 8. */
  readonly positions?: number;
  /** World, positions, shuffles and resamples follow from it. Defaults to 1, the world that targets are trained on. */
  readonly seed?: number;
  /** Index of the first document. Defaults to one that no config trains on or measures. */
  readonly start?: number;
  /** Resamples of the intervals. Defaults to 500. */
  readonly resamples?: number;
  readonly signal?: AbortSignal | undefined;
  /** Called as documents are read, then as probes are fitted. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** Accuracy at some distance from the cue. */
export interface DistanceBucket {
  /** Tokens since the token that made the fact evident: from `from` to below `to`. */
  readonly from: number;
  /** null: without end. */
  readonly to: number | null;
  readonly rows: number;
  /** 95 %, resampling documents. */
  readonly accuracy: Interval;
}

/** One category at one layer, on held-out documents. */
export interface ProbeResult {
  readonly layer: number;
  readonly category: Category;
  /** Values among the training rows. */
  readonly classes: number;
  readonly trainRows: number;
  readonly testRows: number;
  /** A value that no training row has counts as wrong. */
  readonly accuracy: Interval;
  /** Accuracy of a probe that was fitted to the same labels in another order. */
  readonly control: number;
  /** Accuracy of always saying the commonest value of the training rows. */
  readonly majority: number;
  readonly byDistance: readonly DistanceBucket[];
}

const FIRST_DOCUMENT = 6_000_000;
const EDGES: readonly number[] = [0, 12, 24, 36, 48];
const HELD_OUT_PART = 5;
// Documents in one forward pass.
const PASS = 24;
// Before this the kind of most documents is not evident.
const FIRST_POSITION = 3;
// Fewer held-out rows than this, or than this many documents, give no figure.
const LEAST_ROWS = 30;

interface FactRow {
  readonly docId: string;
  readonly row: number;
  readonly heldOut: boolean;
  readonly value: string;
  readonly distance: number;
}

/**
 * Probes every category that has enough rows.
 *
 * @throws NlaError `probe.documents` for fewer than ten, `probe.target` where the target's tokenizer is not of this world, `model.layer`
 */
export async function probeWorld(target: Target, options: WorldProbeOptions): Promise<ProbeResult[]> {
  const {
    layers,
    documents: count,
    positions = 8,
    seed = 1,
    start = FIRST_DOCUMENT,
    resamples = 500,
  } = options;
  for (const layer of layers) checkLayer(layer, target.model.config.layers);
  if (!(count >= 10)) {
    throw new NlaError({
      code: "probe.documents",
      subject: "the documents of a probe",
      found: String(count),
      wanted: "at least 10, a fifth of them held out",
      next: "A thousand give intervals of two or three points.",
    });
  }
  const documents = Array.from({ length: count }, (_, i) => worldDocument(seed, start + i));
  const chosen = documents.map(({ words, index }) => {
    const places = Array.from({ length: words.length - FIRST_POSITION }, (_, i) => i + FIRST_POSITION);
    const most = Math.min(positions, places.length);
    return keyedRandom(seed, `probe ${index}`)
      .sample(places, most)
      .sort((a, b) => a - b);
  });
  const total = count + layers.length * CATEGORIES.length;
  const vectors = await readVectors(target, documents, chosen, {
    ...options,
    onProgress: (done) => options.onProgress?.(done, total),
  });
  const facts = factRows(documents, chosen, count - Math.ceil(count / HELD_OUT_PART));
  const results: ProbeResult[] = [];
  let done = count;
  for (const layer of layers) {
    for (const category of CATEGORIES) {
      options.signal?.throwIfAborted();
      const rows = facts.get(category) ?? [];
      const result = probeCategory(vectors.get(layer) as Float32Array[], rows, { seed, resamples });
      if (result) results.push({ layer, category, ...result });
      options.onProgress?.(++done, total);
      await new Promise((resolve) => setImmediate(resolve)); // lets Ctrl-C in between fits
    }
  }
  return results;
}

/** Activations at the chosen tokens of every document, by layer. */
async function readVectors(
  target: Target,
  documents: readonly WorldDocument[],
  chosen: readonly (readonly number[])[],
  {
    layers,
    signal,
    onProgress,
  }: Pick<WorldProbeOptions, "layers" | "signal"> & { onProgress: (done: number) => void },
): Promise<Map<number, Float32Array[]>> {
  const { model, tokenizer } = target;
  const { dim } = model.config;
  const vectors = new Map(layers.map((layer) => [layer, [] as Float32Array[]]));
  for (let first = 0; first < documents.length; first += PASS) {
    const part = documents.slice(first, first + PASS);
    const sequences = part.map((document) => {
      const ids = tokenizer.encode(document.words.join(" "), { addSpecialTokens: true });
      const known = tokenizer.unkId === null || !ids.includes(tokenizer.unkId);
      if (ids.length === document.words.length + 1 && known) return ids;
      throw new NlaError({
        code: "probe.target",
        subject: `the target ${target.name}`,
        found: `${ids.length} tokens for ${document.words.length} words${known ? "" : ", some of them unknown"}`,
        wanted: "a target with the world's tokenizer: BOS, then a token per word",
        next: "`nla world train` makes one; one of an older vocabulary has to be trained anew.",
      });
    });
    const { blocks } = await run(model, sequences, { capture: layers, signal });
    for (const [layer, packed] of blocks) {
      let offset = 0;
      sequences.forEach((ids, i) => {
        for (const position of chosen[first + i] as number[]) {
          const at = (offset + position + 1) * dim; // after BOS
          (vectors.get(layer) as Float32Array[]).push(packed.slice(at, at + dim));
        }
        offset += ids.length;
      });
    }
    onProgress(first + part.length);
  }
  return vectors;
}

function factRows(
  documents: readonly WorldDocument[],
  chosen: readonly (readonly number[])[],
  trained: number,
): Map<Category, FactRow[]> {
  const rows = new Map<Category, FactRow[]>();
  let row = 0;
  documents.forEach((document, i) => {
    for (const position of chosen[i] as number[]) {
      for (const { category, value, from } of truthAt(document, position)) {
        const list = rows.get(category) ?? [];
        rows.set(category, list);
        list.push({ docId: String(i), row, heldOut: i >= trained, value, distance: position - from });
      }
      row++;
    }
  });
  return rows;
}

function probeCategory(
  vectors: readonly Float32Array[],
  rows: readonly FactRow[],
  { seed, resamples }: { readonly seed: number; readonly resamples: number },
): Omit<ProbeResult, "layer" | "category"> | null {
  const train = rows.filter(({ heldOut }) => !heldOut);
  const test = rows.filter(({ heldOut }) => heldOut);
  const values = [...new Set(train.map(({ value }) => value))].sort();
  if (test.length < LEAST_ROWS || values.length < 2) return null;
  const classOf = new Map(values.map((value, i) => [value, i]));
  const labels = train.map(({ value }) => classOf.get(value) as number);
  const pick = (of: readonly FactRow[]) => of.map(({ row }) => vectors[row] as Float32Array);
  const design = fittingDesign(designOf(pick(train)));
  const testDesign = designOf(pick(test), design);
  const rightOf = (ordered: readonly number[]) => {
    const said = predictClasses(testDesign, fitClasses(design, ordered, values.length));
    return test.map(({ value }, i) => (said[i] === classOf.get(value) ? 1 : 0));
  };
  const right = rightOf(labels);
  const shuffled = [...labels];
  keyedRandom(seed, "shuffled labels").shuffle(shuffled);
  const counts = new Int32Array(values.length);
  for (const label of labels) counts[label] = counts[label]! + 1;
  const commonest = counts.indexOf(Math.max(...counts));
  const interval = (of: readonly number[]) =>
    bootstrapMean(
      of.map((i) => ({ docId: (test[i] as FactRow).docId, value: right[i] as number })),
      { seed, resamples },
    );
  const byDistance = EDGES.flatMap((from, e): DistanceBucket[] => {
    const to = EDGES[e + 1] ?? Infinity;
    const inside = test.flatMap(({ distance }, i) => (distance >= from && distance < to ? [i] : []));
    if (inside.length < LEAST_ROWS) return [];
    return [{ from, to: Number.isFinite(to) ? to : null, rows: inside.length, accuracy: interval(inside) }];
  });
  return {
    classes: values.length,
    trainRows: train.length,
    testRows: test.length,
    accuracy: interval(test.map((_, i) => i)),
    control: mean(rightOf(shuffled)),
    majority: mean(test.map(({ value }) => (classOf.get(value) === commonest ? 1 : 0))),
    byDistance,
  };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
