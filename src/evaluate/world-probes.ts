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

/** What a probe has to reach before an NLA of a target is worth training. */
export interface Gate {
  readonly category: Category;
  /** Tokens since the evidence, from and below; null: without end. */
  readonly from: number;
  readonly to: number | null;
  readonly least: number;
}

/** The gates of a target of the world. */
export const GATES: readonly Gate[] = [
  { category: "test", from: 48, to: null, least: 0.95 },
  { category: "topic", from: 0, to: 24, least: 0.9 },
  { category: "job", from: 0, to: null, least: 0.7 },
  { category: "mood", from: 0, to: null, least: 0.5 },
  { category: "goal", from: 0, to: null, least: 0.5 },
];

/** A gate with what was measured at its distances. */
export interface GateResult extends Gate, DistanceBucket {
  readonly from: number;
  readonly to: number | null;
  /** Accuracy there of the probe that was fitted to shuffled labels. */
  readonly control: number;
  readonly passed: boolean;
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
  /** null for a category without one, or with too few rows at its distances. */
  readonly gate: GateResult | null;
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
      next: "Two thousand give intervals of two or three points.",
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
      const gate = GATES.find((each) => each.category === category) ?? null;
      const result = probeCategory(vectors.get(layer) as Float32Array[], rows, { seed, resamples, gate });
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
  {
    seed,
    resamples,
    gate,
  }: { readonly seed: number; readonly resamples: number; readonly gate: Gate | null },
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
    // A gate is not to fail because its fit was cut short: with five steps instead of forty a probe of jobs was right in .64, not .88.
    const weights = fitClasses(design, ordered, values.length, gate ? { budget: Infinity } : {});
    const said = predictClasses(testDesign, weights);
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
  const between = (from: number, to: number | null) =>
    test.flatMap(({ distance }, i) => (distance >= from && distance < (to ?? Infinity) ? [i] : []));
  const byDistance = EDGES.flatMap((from, e): DistanceBucket[] => {
    const to = EDGES[e + 1] ?? null;
    const inside = between(from, to);
    return inside.length < LEAST_ROWS ? [] : [{ from, to, rows: inside.length, accuracy: interval(inside) }];
  });
  const rightShuffled = rightOf(shuffled);
  const gated = gate ? between(gate.from, gate.to) : [];
  const judged = (of: Gate): GateResult => {
    const accuracy = interval(gated);
    const control = mean(gated.map((i) => rightShuffled[i] as number));
    return { ...of, rows: gated.length, accuracy, control, passed: accuracy.value >= of.least };
  };
  return {
    classes: values.length,
    trainRows: train.length,
    testRows: test.length,
    accuracy: interval(test.map((_, i) => i)),
    control: mean(rightShuffled),
    majority: mean(test.map(({ value }) => (classOf.get(value) === commonest ? 1 : 0))),
    byDistance,
    gate: gate && gated.length >= LEAST_ROWS ? judged(gate) : null,
  };
}

/** The layer to read: the one that passes most gates, of those the one whose worst margin is best; null without any gate. */
export function bestLayer(results: readonly ProbeResult[]): number | null {
  const layers = [...new Set(results.map(({ layer }) => layer))];
  const gatesOf = (at: number) => results.flatMap(({ layer, gate }) => (layer === at && gate ? [gate] : []));
  const ranked = layers
    .map((layer) => {
      const gates = gatesOf(layer);
      const margins = gates.map(({ accuracy, least }) => accuracy.value - least);
      return { layer, gates: gates.length, passed: gates.filter(({ passed }) => passed).length, margins };
    })
    .filter(({ gates }) => gates > 0)
    .sort((a, b) => b.passed - a.passed || Math.min(...b.margins) - Math.min(...a.margins));
  return ranked[0]?.layer ?? null;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
