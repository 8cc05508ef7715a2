// CPython's random.Random, number for number: the Mersenne Twister, its seeding, and the draws that the reference makes.
//
// Positions, splits and shuffles of the reference come from this generator, so an equal seed must give equal data here.
// It is not a source of secrets, and it has only what the reference calls (no gauss, no choices).
import { createHash } from "node:crypto";
import { NlaError } from "../error.js";

const STATE_WORDS = 624; // n and m of MT19937 (Matsumoto and Nishimura 1998)
const SHIFT_WORDS = 397;
const MAX_BITS = 1 << 20; // far above any use; stops a forged bit count from filling memory

/** What CPython accepts as a seed and this port keeps: integers, bytes and text. Floats and None are refused. */
export type PythonSeed = number | bigint | Uint8Array | string;

/**
 * `random.Random(seed)` of CPython 3.11 (Modules/_randommodule.c, Lib/random.py): the same seed gives the same draws.
 * Integers seed by their absolute value; bytes and text (as UTF-8) by the integer of `bytes + sha512(bytes)`, big-endian.
 * Throws NlaError `random.seed` for a number that is not a safe integer.
 */
export class PythonRandom {
  readonly #state = new Uint32Array(STATE_WORDS);
  #index = STATE_WORDS;

  constructor(seed: PythonSeed) {
    this.#initByArray(seedWords(seed));
  }

  /** `k` random bits: a number up to 53 bits, a bigint above. Throws `random.bits` unless k is an integer from 0. */
  getrandbits(k: number): number | bigint {
    if (!Number.isInteger(k) || k < 0 || k > MAX_BITS) {
      throw new NlaError({
        code: "random.bits",
        subject: "getrandbits",
        found: `${k} bits`,
        wanted: `an integer from 0 to ${MAX_BITS}`,
        next: "Pass a whole number of bits.",
      });
    }
    if (k === 0) return 0;
    if (k <= 32) return this.#next() >>> (32 - k);
    if (k <= 53) {
      const low = this.#next(); // the least significant word is drawn first
      return (this.#next() >>> (64 - k)) * 2 ** 32 + low;
    }
    let bits = 0n;
    let left = k;
    for (let shift = 0n; left > 0; shift += 32n, left -= 32) {
      const word = left < 32 ? this.#next() >>> (32 - left) : this.#next();
      bits |= BigInt(word) << shift;
    }
    return bits;
  }

  /** A whole number in [0, n), drawn by rejection as `Random._randbelow` does. Throws `random.below` unless n >= 1. */
  randbelow(n: number): number;
  randbelow(n: bigint): bigint;
  randbelow(n: number | bigint): number | bigint {
    if (typeof n === "bigint" ? n < 1n : !Number.isSafeInteger(n) || n < 1) {
      throw new NlaError({
        code: "random.below",
        subject: "randbelow",
        found: String(n),
        wanted: "an integer of at least 1 (a bigint above 2^53)",
        next: "Draw from a range that is not empty.",
      });
    }
    const k = bitLength(n);
    let drawn = this.getrandbits(k);
    while (drawn >= n) drawn = this.getrandbits(k);
    return typeof n === "bigint" ? BigInt(drawn) : Number(drawn);
  }

  /** A float64 in [0, 1) with 53 random bits. */
  random(): number {
    const high = this.#next() >>> 5;
    const low = this.#next() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  /** Shuffles in place (Fisher-Yates from the end) and returns the same array. Plain and typed arrays alike. */
  shuffle<A extends { length: number; [index: number]: unknown }>(array: A): A {
    for (let i = array.length - 1; i > 0; i--) {
      const j = this.randbelow(i + 1);
      const held = array[i];
      array[i] = array[j];
      array[j] = held;
    }
    return array;
  }

  /**
   * `k` members of the population without replacement, in the order drawn. Small populations are drawn from a pool, large
   * ones by rejecting repeats: which of the two decides the numbers, so the threshold is CPython's.
   * Throws `random.sample` unless 0 <= k <= population length.
   */
  sample<T>(population: readonly T[], k: number): T[] {
    const n = population.length;
    if (!Number.isInteger(k) || k < 0 || k > n) {
      throw new NlaError({
        code: "random.sample",
        subject: "sample",
        found: `${k} of ${n}`,
        wanted: `a whole number from 0 to ${n}`,
        next: "Ask for no more than there is.",
      });
    }
    const drawn: T[] = [];
    if (n <= poolLimit(k)) {
      const pool = population.slice();
      for (let i = 0; i < k; i++) {
        const j = this.randbelow(n - i);
        drawn.push(pool[j] as T);
        pool[j] = pool[n - i - 1] as T;
      }
      return drawn;
    }
    const taken = new Set<number>();
    while (taken.size < k) {
      const j = this.randbelow(n);
      if (taken.has(j)) continue;
      taken.add(j);
      drawn.push(population[j] as T);
    }
    return drawn;
  }

  /** The 624 state words (a copy) and the index of the next one: the numbers inside CPython's `getstate()`. */
  getstate(): { words: Uint32Array; index: number } {
    return { words: this.#state.slice(), index: this.#index };
  }

  #initByArray(key: Uint32Array): void {
    const state = this.#state;
    state[0] = 19650218;
    for (let i = 1; i < STATE_WORDS; i++) {
      state[i] = Math.imul(1812433253, mixed(state, i - 1)) + i;
    }
    let i = 1;
    let j = 0;
    for (let left = Math.max(STATE_WORDS, key.length); left > 0; left--) {
      state[i] = (word(state, i) ^ Math.imul(mixed(state, i - 1), 1664525)) + word(key, j) + j;
      i = followed(state, i);
      j = j + 1 === key.length ? 0 : j + 1;
    }
    for (let left = STATE_WORDS - 1; left > 0; left--) {
      state[i] = (word(state, i) ^ Math.imul(mixed(state, i - 1), 1566083941)) - i;
      i = followed(state, i);
    }
    state[0] = 0x80000000;
  }

  #next(): number {
    if (this.#index === STATE_WORDS) this.#twist();
    let y = word(this.#state, this.#index++);
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  }

  #twist(): void {
    const state = this.#state;
    for (let i = 0; i < STATE_WORDS; i++) {
      const y = (word(state, i) & 0x80000000) | (word(state, (i + 1) % STATE_WORDS) & 0x7fffffff);
      const shifted = (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      state[i] = word(state, (i + SHIFT_WORDS) % STATE_WORDS) ^ shifted;
    }
    this.#index = 0;
  }
}

/**
 * The generator that the reference makes for one thing in one run: `Random(sha256(f"{seed}|{key}").digest())`, so that the
 * draws depend on the key (a document id, a dataset id) and never on what was drawn before.
 */
export function keyedRandom(seed: number | bigint, key: string): PythonRandom {
  return new PythonRandom(
    createHash("sha256")
      .update(`${wholeSeed(seed)}|${key}`, "utf8")
      .digest(),
  );
}

function word(words: Uint32Array, index: number): number {
  return words[index] as number;
}

function mixed(state: Uint32Array, index: number): number {
  const previous = word(state, index);
  return previous ^ (previous >>> 30);
}

/** The index after i in the seeding passes, which wrap to 1 and carry the last word to the front. */
function followed(state: Uint32Array, i: number): number {
  if (i + 1 < STATE_WORDS) return i + 1;
  state[0] = word(state, STATE_WORDS - 1);
  return 1;
}

function seedWords(seed: PythonSeed): Uint32Array {
  if (typeof seed === "number" || typeof seed === "bigint") {
    const whole = wholeSeed(seed);
    return littleEndianWords(whole < 0n ? -whole : whole);
  }
  const bytes = typeof seed === "string" ? new TextEncoder().encode(seed) : seed;
  const hex = Buffer.concat([bytes, createHash("sha512").update(bytes).digest()]).toString("hex");
  return littleEndianWords(BigInt(`0x${hex}`));
}

function wholeSeed(seed: number | bigint): bigint {
  if (typeof seed === "number" && !Number.isSafeInteger(seed)) {
    throw new NlaError({
      code: "random.seed",
      subject: "random seed",
      found: String(seed),
      wanted: "an integer that a number holds exactly, or a bigint",
      next: "Pass a whole number as the seed.",
    });
  }
  return BigInt(seed);
}

function littleEndianWords(value: bigint): Uint32Array {
  const hex = value.toString(16);
  const words = new Uint32Array(Math.ceil(hex.length / 8)); // zero is one word, as in CPython
  for (let i = 0; i < words.length; i++) {
    words[i] = Number.parseInt(hex.slice(Math.max(0, hex.length - 8 * (i + 1)), hex.length - 8 * i), 16);
  }
  return words;
}

function bitLength(n: number | bigint): number {
  if (typeof n === "bigint") return n.toString(2).length;
  return n < 2 ** 32 ? 32 - Math.clz32(n) : 64 - Math.clz32(Math.floor(n / 2 ** 32));
}

/** The largest population that CPython samples from a pool: 21, plus the least power of 4 that reaches 3k when k > 5. */
function poolLimit(k: number): number {
  if (k <= 5) return 21;
  let power = 1;
  while (power < 3 * k) power *= 4;
  return 21 + power;
}
