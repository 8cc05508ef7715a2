// Every random choice of a document, with its exact cost: the negative log probability of what was chosen, in nats. The sum is the
// document's entropy. Integers only (xoshiro128**, Blackman and Vigna 2018), so the choices are the same on every platform.
// Not a source of secrets, and not CPython's generator: seeding that one costs more than writing a document.
import { NlaError } from "../error.js";

/** A probability as a fraction of whole numbers: `[7, 10]`. */
export type Odds = readonly [numerator: number, denominator: number];

const WORD = 2 ** 32;

/** A seeded source of choices that counts their cost. */
export class Chooser {
  #a: number;
  #b: number;
  #c: number;
  #d: number;
  #nats = 0;

  /**
   * The choices of one document: a function of the numbers given and nothing else.
   *
   * @throws NlaError `world.seed` unless each is a whole number from 0 to 2^53 - 1
   */
  constructor(...seeds: readonly number[]) {
    let hash = 0x9e3779b9;
    for (const seed of seeds) {
      if (!Number.isSafeInteger(seed) || seed < 0) throw seedError(seed);
      hash = mixed(hash ^ (seed % WORD));
      hash = mixed((hash + Math.floor(seed / WORD) + 0x85ebca6b) | 0);
    }
    this.#a = mixed(hash + 1);
    this.#b = mixed(hash + 2);
    this.#c = mixed(hash + 3);
    this.#d = mixed(hash + 4) | 1; // the one state that never moves is all zeros
  }

  /** Sum of -ln(probability) over the choices so far. */
  get nats(): number {
    return this.#nats;
  }

  /** One of the options, all alike. Throws `world.choice` for none. */
  pick<T>(options: readonly T[]): T {
    this.#nats += Math.log(options.length);
    return options[this.#below(options.length)] as T;
  }

  /** True with the given odds. Certain odds (0 or 1) cost nothing and draw nothing. */
  chance([numerator, denominator]: Odds): boolean {
    if (numerator <= 0 || numerator >= denominator) return numerator > 0;
    const yes = this.#below(denominator) < numerator;
    this.#nats -= Math.log((yes ? numerator : denominator - numerator) / denominator);
    return yes;
  }

  /** `usual` with the given odds, else one of the other options; so no two ways lead to one value. */
  usually<T>(usual: T, options: readonly T[], odds: Odds): T {
    return this.chance(odds) ? usual : this.pick(options.filter((option) => option !== usual));
  }

  /** `count` different options in the order drawn; all of them by default. */
  sample<T>(options: readonly T[], count: number = options.length): T[] {
    const pool = [...options];
    for (let i = 0; i < count; i++) {
      const left = pool.length - i;
      this.#nats += Math.log(left);
      const j = i + this.#below(left);
      [pool[i], pool[j]] = [pool[j] as T, pool[i] as T];
    }
    return pool.slice(0, count);
  }

  /** One of the options, each as likely as its whole-numbered weight says. */
  weighted<T extends { readonly weight: number }>(options: readonly T[]): T {
    const total = options.reduce((sum, { weight }) => sum + weight, 0);
    let rest = this.#below(total);
    for (const option of options) {
      if (rest < option.weight) {
        this.#nats -= Math.log(option.weight / total);
        return option;
      }
      rest -= option.weight;
    }
    throw choiceError(`weights that sum to ${total}`);
  }

  // Rejection of the incomplete last run keeps every outcome exactly alike.
  #below(n: number): number {
    if (!Number.isSafeInteger(n) || n < 1 || n > WORD) throw choiceError(`${n} options`);
    const limit = WORD - (WORD % n);
    let drawn = this.#next();
    while (drawn >= limit) drawn = this.#next();
    return drawn % n;
  }

  #next(): number {
    const scrambled = Math.imul(rotated(Math.imul(this.#b, 5), 7), 9) >>> 0;
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = rotated(this.#d, 11);
    return scrambled;
  }
}

/** One of the options as a fixed function of a word: world knowledge, such as the colour of a thing (FNV-1a, 32 bits). */
export function fixedBy<T>(word: string, options: readonly T[]): T {
  let hash = 0x811c9dc5;
  for (let i = 0; i < word.length; i++) hash = Math.imul(hash ^ word.charCodeAt(i), 0x01000193);
  return options[(mixed(hash) >>> 0) % options.length] as T;
}

// The finisher of MurmurHash3: every bit of the input moves every bit of the output.
function mixed(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function rotated(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by));
}

function seedError(seed: number): NlaError {
  return new NlaError({
    code: "world.seed",
    subject: "the world's seed",
    found: String(seed),
    wanted: "a whole number from 0 to 2^53 - 1",
    next: "Give a small whole number, such as 1.",
  });
}

function choiceError(found: string): NlaError {
  return new NlaError({
    code: "world.choice",
    subject: "a choice of the world",
    found,
    wanted: "1 to 2^32 options",
    next: "Check the lists of the document kind that was being written.",
  });
}
