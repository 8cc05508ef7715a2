// Choosing the next token from logits: temperature, top-k, top-p, and a random number that depends only on the sequence's
// seed and the step, so that neither the batch nor its order changes what a sequence becomes.
import { NlaError } from "../error.js";

/** How a sequence is sampled. */
export interface SamplingOptions {
  /** 0 chooses the best token. Defaults to 1. */
  readonly temperature?: number;
  /** Keep the k best tokens; 0 keeps all. Defaults to 0. */
  readonly topK?: number;
  /** Keep the fewest best tokens whose probability reaches this. Defaults to 1. */
  readonly topP?: number;
}

function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** A number in [0, 1) from a seed and a counter (two rounds of a 32-bit finaliser on each half). */
export function uniformAt(seed: number, step: number): number {
  const low = seed >>> 0;
  const high = Math.floor(seed / 4294967296) >>> 0;
  const a = mix(mix(low ^ 0x9e3779b9) ^ mix(high ^ mix(step ^ 0x85ebca6b)));
  const b = mix(a ^ mix(step + 0x165667b1) ^ low);
  return ((a >>> 5) * 67108864 + (b >>> 6)) / 9007199254740992;
}

/** Index of the greatest number, the first of equals. */
export function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if ((values[i] as number) > (values[best] as number)) best = i;
  return best;
}

/**
 * Draws an index with probability in proportion to its weight, after the cuts.
 *
 * @param weights not negative; they need not add up to one. Temperature is in them already
 * @param uniform a number in [0, 1)
 * @throws NlaError `model.not-finite` where the weights have no finite sum above 0
 */
export function draw(
  weights: Float32Array,
  uniform: number,
  { topK = 0, topP = 1 }: Pick<SamplingOptions, "topK" | "topP"> = {},
): number {
  let total = sumOf(weights);
  if (!(total > 0 && total < Infinity)) throw notFinite(weights); // before the cut, which would leave a NaN out
  let kept = weights;
  if (topK > 0 || topP < 1) {
    kept = cut(weights, topK, topP);
    total = sumOf(kept);
  }
  let left = uniform * total;
  for (let i = 0; i < kept.length; i++) {
    left -= kept[i] as number;
    if (left < 0) return i;
  }
  return argmax(kept); // only by rounding
}

function sumOf(values: Float32Array): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i] as number;
  return total;
}

/**
 * A copy with all but the best weights 0: the topK best, and of those the fewest whose share reaches topP. Among equals the
 * lower index is the better one, so that the choice is the same everywhere.
 */
function cut(weights: Float32Array, topK: number, topP: number): Float32Array {
  const ascending = weights.slice().sort(); // numbers alone: twenty times faster than sorting indices by them
  const size = weights.length;
  let count = topK > 0 ? Math.min(topK, size) : size;
  const ranked = (rank: number) => ascending[size - 1 - rank] as number;
  if (topP < 1) {
    let all = 0;
    for (let rank = 0; rank < count; rank++) all += ranked(rank);
    let reached = 0;
    let rank = 0;
    while (rank < count && reached < topP * all) reached += ranked(rank++);
    count = Math.max(1, rank);
  }
  const last = ranked(count - 1);
  let atLast = 0; // how many of those equal to the last are kept
  for (let rank = count - 1; rank >= 0 && ranked(rank) === last; rank--) atLast++;
  return weights.map((weight) => (weight > last || (weight === last && atLast-- > 0) ? weight : 0));
}

function notFinite(weights: Float32Array): NlaError {
  const at = weights.findIndex((weight) => !Number.isFinite(weight));
  return unsound(
    at < 0 ? `${weights.length} that add up to 0` : `${weights[at]} at token ${at} of ${weights.length}`,
  );
}

/** The error of a distribution that no token can be drawn from. */
export function unsound(found: string): NlaError {
  return new NlaError({
    code: "model.not-finite",
    subject: "the probabilities of a generated token",
    found,
    wanted: "finite probabilities",
    next: "Check the weights and injected vectors; with bf16 the numbers may have overflowed, so try f32.",
  });
}
