// The choice of a token against a plain reference: exact over a grid of random numbers, and by chi-square over seeds.
import { describe, expect, test } from "vitest";
import { chooseToken } from "./next-token.js";
import type { NextTokenRows } from "./next-token.js";
import { draw, uniformAt } from "./sampling.js";
import type { SamplingOptions } from "./sampling.js";

// Two equal logits, one far below, one whose probability is 0 as float32.
const LOGITS = [1.2, -0.3, 2.0, 1.2, -200, 0.4, -30];
const ROW = 1;

/** What a graph would give: three rows, ours between two others. */
function rowsAt(temperature: number, logits: readonly number[] = LOGITS): NextTokenRows {
  const softmax = (scale: number) => {
    const weights = logits.map((x) => Math.exp((x - Math.max(...logits)) * scale));
    const total = weights.reduce((a, b) => a + b, 0);
    return weights.map((x) => x / total);
  };
  const p = softmax(1);
  return {
    vocabulary: logits.length,
    logits: between(logits),
    probabilities: between(p),
    expected: Float32Array.of(
      0,
      p.reduce((sum, x, i) => sum + x * logits[i]!, 0),
      0,
    ),
    tempered: between(softmax(temperature === 0 ? 1 : 1 / temperature)),
  };
}

function between(row: readonly number[]): Float32Array {
  const other = row.map(() => 1 / row.length);
  return Float32Array.from([...other, ...row, ...other]);
}

/** Sort, cut, normalise: as the papers state it. */
function reference({ temperature = 1, topK = 0, topP = 1 }: SamplingOptions): number[] {
  const weights = LOGITS.map((x) => Math.exp(x / temperature));
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
  const rows = rowsAt(options.temperature ?? 1);

  test("every token gets its share of a grid, exactly", () => {
    const n = 20_000;
    const counts = LOGITS.map(() => 0);
    for (let i = 0; i < n; i++) {
      counts[chooseToken(rows, ROW, (i + 0.5) / n, options).token]!++;
    }
    counts.forEach((count, i) => expect(Math.abs(count - n * wanted[i]!), `token ${i}`).toBeLessThan(1.5));
  });

  test("chi-square over seeds", () => {
    const n = 20_000;
    const counts = LOGITS.map(() => 0);
    for (let seed = 0; seed < n; seed++) {
      counts[chooseToken(rows, ROW, uniformAt(seed, 3), options).token]!++;
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
  expect(chooseToken(rowsAt(0), ROW, 0.999, { temperature: 0 }).token).toBe(2);
  expect(chooseToken(rowsAt(0, [1, 3, 3]), ROW, 0.999, { temperature: 0 }).token).toBe(1);
});

test("log-prob and entropy are the model's own, whatever the cuts", () => {
  const p = reference({});
  const entropy = -p.reduce((sum, x) => sum + x * Math.log(x), 0);
  for (const options of [...SETTINGS, { temperature: 0 }]) {
    const choice = chooseToken(rowsAt(options.temperature ?? 1), ROW, 0.4, options);
    expect(choice.logProb).toBeCloseTo(Math.log(p[choice.token]!), 5);
    expect(choice.entropy).toBeCloseTo(entropy, 5);
  }
});

test("log-prob of a token whose probability is 0 as float32", () => {
  const rows = rowsAt(1000); // hot enough that the unlikely is drawn
  const uniform = reference({ temperature: 1000 })
    .slice(0, 4)
    .reduce((a, b) => a + b, 0.001);
  const { token, logProb, entropy } = chooseToken(rows, ROW, uniform, { temperature: 1000 });
  expect(token).toBe(4);
  expect(logProb).toBeCloseTo(-200 - Math.log(LOGITS.reduce((sum, x) => sum + Math.exp(x), 0)), 4);
  expect(entropy).toBeCloseTo(chooseToken(rows, ROW, 0, {}).entropy, 4);
});

test("weights need not add up to one, and are left as they are", () => {
  const weights = Float32Array.of(5, 0, 20, 15);
  expect([0, 0.12, 0.13, 0.6, 0.63, 0.99].map((u) => draw(weights, u))).toEqual([0, 0, 2, 2, 3, 3]);
  expect([0, 0.57, 0.58].map((u) => draw(weights, u, { topK: 2 }))).toEqual([2, 2, 3]);
  expect([...weights]).toEqual([5, 0, 20, 15]);
});

test.each([
  [[0.5, NaN, 1], /NaN at token 1 of 3/],
  [[0, 1, Infinity], /Infinity at token 2 of 3/],
  [[0, 0], /2 that add up to 0/],
])("refuses the weights %o", (weights, message) => {
  const tempered = Float32Array.from(weights);
  expect(() => draw(tempered, 0.5)).toThrow(message);
  expect(() => draw(tempered, 0.5, { topK: 2 })).toThrow(message);
  for (const temperature of [0, 0.5]) {
    const rows = { ...rowsAt(1), vocabulary: weights.length, tempered };
    expect(() => chooseToken(rows, 0, 0.5, { temperature })).toThrow(message);
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
