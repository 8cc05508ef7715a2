// The choice of a token against a plain reference: exact over a grid of random numbers, and by chi-square over seeds.
import { describe, expect, test } from "vitest";
import { chooseToken, uniformAt } from "./sampling.js";
import type { SamplingOptions } from "./sampling.js";

// Two equal logits, one far below, one impossible; the vocabulary starts at an offset among other numbers.
const LOGITS = [1.2, -0.3, 2.0, 1.2, -Infinity, 0.4, -30];
const OFFSET = 3;
const ROW = Float32Array.from([9, 9, 9, ...LOGITS, 9, 9]);

/** Sort, cut, normalise: as the papers state it. */
function reference({ temperature = 1, topK = 0, topP = 1 }: SamplingOptions): number[] {
  const weights = LOGITS.map((x) => Math.exp(Math.fround(x) / temperature));
  let kept = LOGITS.map((_, i) => i).sort((a, b) => LOGITS[b]! - LOGITS[a]! || a - b);
  if (topK > 0) kept = kept.slice(0, topK);
  const share = (ids: number[]) => ids.reduce((sum, i) => sum + weights[i]!, 0);
  const reached = kept.findIndex((_, i) => share(kept.slice(0, i + 1)) >= topP * share(kept));
  if (topP < 1) kept = kept.slice(0, reached + 1);
  return LOGITS.map((_, i) => (kept.includes(i) ? weights[i]! / share(kept) : 0));
}

const SETTINGS: SamplingOptions[] = [
  {},
  { temperature: 0.5 },
  { temperature: 3 },
  { topK: 1 },
  { topK: 2 }, // cuts between the two equal logits: the lower id stays
  { topK: 3 },
  { topK: 100 },
  { topP: 0.3 },
  { topP: 0.7 },
  { topP: 0.999 },
  { topP: 0.6, temperature: 2 },
  { topP: 0.9, topK: 4, temperature: 0.7 },
  { topP: 1e-9 },
];

describe.each(SETTINGS)("%o", (options) => {
  const wanted = reference(options);

  test("every token gets its share of a grid, exactly", () => {
    const n = 20_000;
    const counts = LOGITS.map(() => 0);
    for (let i = 0; i < n; i++) {
      counts[chooseToken(ROW, OFFSET, LOGITS.length, (i + 0.5) / n, options).token]!++;
    }
    counts.forEach((count, i) => expect(Math.abs(count - n * wanted[i]!), `token ${i}`).toBeLessThan(1.5));
  });

  test("chi-square over seeds", () => {
    const n = 20_000;
    const counts = LOGITS.map(() => 0);
    for (let seed = 0; seed < n; seed++) {
      counts[chooseToken(ROW, OFFSET, LOGITS.length, uniformAt(seed, 3), options).token]!++;
    }
    let chiSquare = 0;
    counts.forEach((count, i) => {
      const expected = n * wanted[i]!;
      if (expected < 1e-6) expect(count, `token ${i}`).toBe(0);
      else chiSquare += (count - expected) ** 2 / expected;
    });
    expect(chiSquare).toBeLessThan(22.5); // 0.999 quantile at six degrees of freedom
  });
});

test("temperature 0 takes the best token, the first of equals", () => {
  const choice = chooseToken(ROW, OFFSET, LOGITS.length, 0.999, { temperature: 0 });
  expect(choice.token).toBe(2);
  expect(chooseToken(Float32Array.of(1, 3, 3), 0, 3, 0.999, { temperature: 0 }).token).toBe(1);
});

test("log-prob and entropy are the model's own, whatever the cuts", () => {
  const p = reference({});
  const entropy = -p.reduce((sum, x) => sum + (x === 0 ? 0 : x * Math.log(x)), 0);
  for (const options of [...SETTINGS, { temperature: 0 }]) {
    const choice = chooseToken(ROW, OFFSET, LOGITS.length, 0.4, options);
    expect(choice.logProb).toBeCloseTo(Math.log(p[choice.token]!), 6);
    expect(choice.entropy).toBeCloseTo(entropy, 6);
  }
});

test("scratch may hold anything and serve many calls", () => {
  const scratch = new Float64Array(LOGITS.length).fill(NaN);
  for (const options of SETTINGS) {
    const fresh = chooseToken(ROW, OFFSET, LOGITS.length, 0.77, options);
    expect(chooseToken(ROW, OFFSET, LOGITS.length, 0.77, options, scratch)).toEqual(fresh);
  }
});

test.each([
  [Float32Array.of(0, NaN, 1), /NaN at token 1 of 3/],
  [Float32Array.of(0, 1, Infinity), /Infinity at token 2 of 3/],
  [Float32Array.of(-Infinity, -Infinity), /2 logits, all -Infinity/],
])("refuses %o", (logits, message) => {
  for (const temperature of [0, 1, 0.5]) {
    expect(() => chooseToken(logits, 0, logits.length, 0.5, { temperature })).toThrow(message);
  }
});

describe("uniformAt", () => {
  const BINS = 50;
  const chiSquare = (n: number, value: (i: number) => number) => {
    const counts = Array.from({ length: BINS }, () => 0);
    for (let i = 0; i < n; i++) counts[Math.floor(value(i) * BINS)]!++;
    return counts.reduce((sum, count) => sum + (count - n / BINS) ** 2 / (n / BINS), 0);
  };
  const LIMIT = 85.4; // 0.999 quantile at 49 degrees of freedom

  test.each([
    ["steps of one seed", (i: number) => uniformAt(12, i)],
    ["neighbouring seeds at one step", (i: number) => uniformAt(i, 0)],
    ["seeds that differ above 32 bits", (i: number) => uniformAt(i * 2 ** 32, 5)],
    ["negative seeds", (i: number) => uniformAt(-i, 2)],
    ["seed and step together", (i: number) => uniformAt(i, i)],
    ["differences of neighbours", (i: number) => (uniformAt(i + 1, 4) - uniformAt(i, 4) + 1) % 1],
    ["differences of steps", (i: number) => (uniformAt(3, i + 1) - uniformAt(3, i) + 1) % 1],
  ])("is uniform over %s", (_, value) => expect(chiSquare(20_000, value)).toBeLessThan(LIMIT));

  test("stays in [0, 1) and repeats", () => {
    for (let i = 0; i < 1000; i++) {
      const value = uniformAt(Number.MAX_SAFE_INTEGER - i, i);
      expect(value).toBeGreaterThanOrEqual(0);
      expect(value).toBeLessThan(1);
      expect(uniformAt(Number.MAX_SAFE_INTEGER - i, i)).toBe(value);
    }
  });
});
