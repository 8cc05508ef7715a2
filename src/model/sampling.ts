// Choosing the next token from logits: temperature, top-k, top-p, and a random number that depends only on the sequence's
// seed and the step, so that neither the batch nor its order changes what a sequence becomes.

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
 */
export function chooseToken(
  logits: Float32Array,
  offset: number,
  size: number,
  uniform: number,
  { temperature = 1, topK = 0, topP = 1 }: SamplingOptions,
): Choice {
  let max = -Infinity;
  let best = 0;
  for (let i = 0; i < size; i++) {
    const value = logits[offset + i] as number;
    if (value > max) {
      max = value;
      best = i;
    }
  }
  let total = 0;
  let weighted = 0;
  for (let i = 0; i < size; i++) {
    const shifted = (logits[offset + i] as number) - max;
    const weight = Math.exp(shifted);
    total += weight;
    weighted += weight * shifted;
  }
  const logTotal = Math.log(total);
  const entropy = logTotal - weighted / total;
  const token = temperature === 0 ? best : draw(logits, offset, size, max, uniform, temperature, topK, topP);
  return { token, logProb: (logits[offset + token] as number) - max - logTotal, entropy };
}

function draw(
  logits: Float32Array,
  offset: number,
  size: number,
  max: number,
  uniform: number,
  temperature: number,
  topK: number,
  topP: number,
): number {
  if (topK === 0 && topP >= 1) {
    let total = 0;
    for (let i = 0; i < size; i++) total += Math.exp(((logits[offset + i] as number) - max) / temperature);
    let left = uniform * total;
    for (let i = 0; i < size; i++) {
      left -= Math.exp(((logits[offset + i] as number) - max) / temperature);
      if (left < 0) return i;
    }
    return size - 1; // only by rounding
  }
  // Best first; equal logits in the order of their ids, so that the choice is the same everywhere.
  let kept = Array.from({ length: size }, (_, i) => i).sort(
    (a, b) => (logits[offset + b] as number) - (logits[offset + a] as number) || a - b,
  );
  if (topK > 0) kept = kept.slice(0, topK);
  const weights = kept.map((i) => Math.exp(((logits[offset + i] as number) - max) / temperature));
  let total = weights.reduce((a, b) => a + b, 0);
  if (topP < 1) {
    let reached = 0;
    const last = weights.findIndex((weight) => (reached += weight) >= topP * total);
    kept = kept.slice(0, last + 1);
    total = reached;
  }
  let left = uniform * total;
  for (let i = 0; i < kept.length; i++) {
    left -= weights[i] as number;
    if (left < 0) return kept[i] as number;
  }
  return kept.at(-1) as number;
}
