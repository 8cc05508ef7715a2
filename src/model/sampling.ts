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

/** A chosen token. */
export interface Choice {
  readonly token: number;
  /** log p(token) of the model itself, before temperature and cuts, nats. */
  readonly logProb: number;
  /** Entropy of the model's distribution, before temperature and cuts, nats. */
  readonly entropy: number;
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

/**
 * Chooses from `size` logits that start at `offset`.
 *
 * @param uniform a number in [0, 1)
 * @param weights scratch of `size` elements; what is in it does not matter
 * @throws NlaError `model.not-finite` where a logit is NaN or +infinite
 */
export function chooseToken(
  logits: Float32Array,
  offset: number,
  size: number,
  uniform: number,
  { temperature = 1, topK = 0, topP = 1 }: SamplingOptions,
  weights: Float64Array = new Float64Array(size),
): Choice {
  const row = logits.subarray(offset, offset + size);
  let max = -Infinity;
  let best = 0;
  for (let i = 0; i < size; i++) {
    const value = row[i] as number;
    if (value > max) {
      max = value;
      best = i;
    }
  }
  let total = 0;
  let weighted = 0;
  for (let i = 0; i < size; i++) {
    const shifted = (row[i] as number) - max;
    const weight = Math.exp(shifted);
    weights[i] = weight;
    if (weight === 0) continue; // 0 · -inf is NaN, and counts nothing
    total += weight;
    weighted += weight * shifted;
  }
  // NaN anywhere makes the sum NaN, and so does a maximum of +inf or -inf.
  if (!Number.isFinite(total) || !(total > 0)) throw notFinite(row);
  const logTotal = Math.log(total);
  const entropy = logTotal - weighted / total;
  if (temperature === 0) return { token: best, logProb: -logTotal, entropy };
  if (temperature !== 1) {
    total = 0;
    for (let i = 0; i < size; i++) {
      const weight = Math.exp(((row[i] as number) - max) / temperature);
      weights[i] = weight;
      total += weight;
    }
  }
  const kept = topK > 0 || topP < 1 ? cut(row, max, weights, { temperature, topK, topP }) : total;
  const token = draw(weights, size, uniform * kept, best);
  return { token, logProb: (row[token] as number) - max - logTotal, entropy };
}

/** The first token at which the running sum of weights exceeds `target`. */
function draw(weights: Float64Array, size: number, target: number, best: number): number {
  let left = target;
  for (let i = 0; i < size; i++) {
    left -= weights[i] as number;
    if (left < 0) return i;
  }
  return best; // only by rounding
}

/**
 * Sets the weights of all but the best tokens to 0: the topK best, and of those the fewest whose share reaches topP. Among
 * equal logits the lower id is the better one, so that the choice is the same everywhere.
 *
 * @returns the sum of the weights left
 */
function cut(
  row: Float32Array,
  max: number,
  weights: Float64Array,
  { temperature, topK, topP }: Required<SamplingOptions>,
): number {
  const ascending = row.slice().sort(); // numbers alone: twenty times faster than sorting ids by them
  const size = row.length;
  let count = topK > 0 ? Math.min(topK, size) : size;
  const weightAt = (rank: number) => Math.exp(((ascending[size - 1 - rank] as number) - max) / temperature);
  if (topP < 1) {
    let all = 0;
    for (let rank = 0; rank < count; rank++) all += weightAt(rank);
    let reached = 0;
    let rank = 0;
    while (rank < count && reached < topP * all) reached += weightAt(rank++);
    count = Math.max(1, rank);
  }
  const last = ascending[size - count] as number;
  let atLast = 0; // how many of the tokens with the last logit are kept
  for (let rank = count - 1; rank >= 0 && ascending[size - 1 - rank] === last; rank--) atLast++;
  let total = 0;
  for (let i = 0; i < size; i++) {
    const value = row[i] as number;
    if (value > last || (value === last && atLast-- > 0)) total += weights[i] as number;
    else weights[i] = 0;
  }
  return total;
}

function notFinite(row: Float32Array): NlaError {
  const at = row.findIndex((value) => Number.isNaN(value) || value === Infinity);
  return new NlaError({
    code: "model.not-finite",
    subject: "the logits of a generated token",
    found: at < 0 ? `${row.length} logits, all -Infinity` : `${row[at]} at token ${at} of ${row.length}`,
    wanted: "finite logits",
    next: "Check the weights and injected vectors; with bf16 the numbers may have overflowed, so try f32.",
  });
}
