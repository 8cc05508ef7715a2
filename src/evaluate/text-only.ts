// A model that sees text and no activation: for each category of facts a multinomial logistic regression on the words, pairs and triples of
// the last so many words (or of all), with a class for "not evident". It is fitted to documents of the world, as many as it takes seconds
// for. It is the control of every NLA claim: what it can say as well needs no activation.
import { setImmediate } from "node:timers/promises";
import { keyedRandom } from "../data/python-random.js";
import { NlaError } from "../error.js";
import { worldDocument } from "../world/documents.js";
import { CATEGORIES, truthAt } from "../world/facts.js";
import type { Category, WorldDocument } from "../world/facts.js";
import { textFeatures } from "./text-features.js";
import type { TextFeatures } from "./text-features.js";

/** Options of {@link fitTextOnly}. */
export interface TextOnlyOptions {
  /** Words that it sees, from the end; null: all of the text. */
  readonly window: number | null;
  /** Defaults to every category that is not read off the last two words. */
  readonly categories?: readonly Category[];
  /** Documents that it is fitted to. Defaults to 2000. */
  readonly documents?: number;
  /** Tokens of each, at most. Defaults to 8. */
  readonly positions?: number;
  /** World; positions and order follow from it. Defaults to 1, the world of every target. */
  readonly seed?: number;
  /** Index of the first document. Defaults to one that no config trains on or measures. */
  readonly start?: number;
  /** Passes over the rows. Defaults to 3. */
  readonly epochs?: number;
  readonly signal?: AbortSignal | undefined;
  /** Called with rows seen of all. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** A value with how sure the model is of it. */
export interface Guess {
  readonly value: string;
  readonly probability: number;
}

/** A fitted model. */
export interface TextOnly {
  readonly window: number | null;
  /** Every value that it gives to a category at a token, the likeliest first; what is left of 1 is "not evident". */
  guesses(document: WorldDocument, position: number, category: Category): Guess[];
}

interface Classes {
  readonly category: Category;
  /** Class 0 is "not evident". */
  readonly values: readonly string[];
  readonly classOf: ReadonlyMap<string, number>;
  /** [features + 1, classes]; the last row is the intercept. */
  readonly weights: Float32Array;
  /** Sum of squared gradients of each feature, for its step (AdaGrad, Duchi et al. 2011, one rate a row). */
  readonly squares: Float32Array;
}

const FIRST_DOCUMENT = 8_500_000;
const FIRST_POSITION = 4;
const RATE = 0.5;
// A class's share of the gradient below this moves nothing in the third digit, and leaving it out halves the time.
const NEGLIGIBLE = 1e-3;
// Rows between turns of the event loop.
const TURN = 200;

/** What the last two words are needs no fit. */
function readOff({ words }: WorldDocument, position: number, category: Category): Guess[] | null {
  if (category !== "word" && category !== "previous") return null;
  const value = words[category === "word" ? position : position - 1];
  return value === undefined ? [] : [{ value, probability: 1 }];
}

/**
 * Fits a text-only model to documents of the world.
 *
 * @throws NlaError `text-only.documents` for fewer than 20 documents or a window below 1; the signal's reason
 */
export async function fitTextOnly({
  window,
  categories = CATEGORIES.filter((category) => category !== "word" && category !== "previous"),
  documents: count = 2000,
  positions = 8,
  seed = 1,
  start = FIRST_DOCUMENT,
  epochs = 3,
  signal,
  onProgress,
}: TextOnlyOptions): Promise<TextOnly> {
  if (!(count >= 20) || (window !== null && !(window >= 1))) {
    throw new NlaError({
      code: "text-only.documents",
      subject: "a text-only control",
      found: `${count} documents and a window of ${window} words`,
      wanted: "at least 20 documents and a window of at least one word, or null for all",
      next: "The defaults take seconds.",
    });
  }
  const rows = Array.from({ length: count }, (_, i) => worldDocument(seed, start + i)).flatMap((document) => {
    const places = Array.from(
      { length: Math.max(0, document.words.length - FIRST_POSITION) },
      (_, i) => i + FIRST_POSITION,
    );
    const drawn = keyedRandom(seed, `text-only ${document.index}`).sample(
      places,
      Math.min(positions, places.length),
    );
    return drawn.map((position) => ({ document, position }));
  });
  const features = textFeatures(
    rows.map(({ document, position }) => document.words.slice(0, position + 1)),
    window,
  );
  const truths = rows.map(
    ({ document, position }) =>
      new Map(truthAt(document, position).map(({ category, value }) => [category, value])),
  );
  const models = categories.map((category): Classes => {
    const found = truths.map((truth) => truth.get(category)).filter((value) => value !== undefined);
    const values = ["", ...[...new Set(found)].sort()];
    const rowsOfWeights = features.size + 1;
    return {
      category,
      values,
      classOf: new Map(values.map((value, i) => [value, i])),
      weights: new Float32Array(rowsOfWeights * values.length),
      squares: new Float32Array(rowsOfWeights),
    };
  });
  const seenIn = rows.map(({ document, position }) => features.of(document.words.slice(0, position + 1)));
  const order = rows.map((_, i) => i);
  let done = 0;
  for (let epoch = 0; epoch < epochs; epoch++) {
    keyedRandom(seed, `text-only order ${epoch}`).shuffle(order);
    for (const i of order) {
      const seen = seenIn[i] as Int32Array;
      const truth = truths[i] as ReadonlyMap<Category, string>;
      for (const model of models) learn(model, seen, model.classOf.get(truth.get(model.category) ?? "") ?? 0);
      if (++done % TURN === 0) {
        signal?.throwIfAborted();
        onProgress?.(done, epochs * rows.length);
        await setImmediate();
      }
    }
  }
  return {
    window,
    guesses: (document, position, category) =>
      readOff(document, position, category) ?? guessesOf(models, features, document, position, category),
  };
}

function guessesOf(
  models: readonly Classes[],
  features: TextFeatures,
  { words }: WorldDocument,
  position: number,
  category: Category,
): Guess[] {
  const model = models.find((each) => each.category === category);
  if (!model) return [];
  const shares = probabilities(model, features.of(words.slice(0, position + 1)));
  return model.values
    .map((value, i) => ({ value, probability: shares[i] as number }))
    .slice(1)
    .sort((a, b) => b.probability - a.probability);
}

/** Softmax of the summed weights of what is seen. */
function probabilities({ weights, values, squares }: Classes, seen: Int32Array): Float64Array {
  const classes = values.length;
  const logits = new Float64Array(classes);
  const intercept = squares.length - 1;
  for (let f = 0; f <= seen.length; f++) {
    const at = (f === seen.length ? intercept : (seen[f] as number)) * classes;
    for (let c = 0; c < classes; c++) logits[c]! += weights[at + c] as number;
  }
  let highest = -Infinity;
  for (let c = 0; c < classes; c++) highest = Math.max(highest, logits[c] as number);
  let sum = 0;
  for (let c = 0; c < classes; c++) sum += logits[c] = Math.exp((logits[c] as number) - highest);
  for (let c = 0; c < classes; c++) logits[c]! /= sum;
  return logits;
}

/** One step on one row. */
function learn(model: Classes, seen: Int32Array, label: number): void {
  const { weights, values, squares } = model;
  const classes = values.length;
  const gradient = probabilities(model, seen);
  gradient[label]! -= 1;
  const moved: number[] = [];
  let norm = 0;
  for (let c = 0; c < classes; c++) {
    const value = gradient[c] as number;
    norm += value * value;
    if (Math.abs(value) > NEGLIGIBLE) moved.push(c);
  }
  if (moved.length === 0) return;
  const intercept = squares.length - 1;
  for (let f = 0; f <= seen.length; f++) {
    const feature = f === seen.length ? intercept : (seen[f] as number);
    const square = (squares[feature] as number) + norm;
    squares[feature] = square;
    const rate = RATE / Math.sqrt(square + 1);
    const at = feature * classes;
    for (const c of moved) weights[at + c]! -= rate * (gradient[c] as number);
  }
}
