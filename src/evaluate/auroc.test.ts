// The area under the ROC curve against counting pairs, with ties, and its interval.
import { describe, expect, it } from "vitest";
import { PythonRandom } from "../data/python-random.js";
import { bootstrapAuroc } from "./auroc.js";

describe("AUROC", () => {
  const random = new PythonRandom(5);
  const rows = Array.from({ length: 300 }, (_, i) => {
    const positive = random.random() < 0.3;
    return { docId: `d${i % 40}`, positive, score: Math.round(8 * (random.random() + (positive ? 0.4 : 0))) };
  });

  const of = (score: (positive: boolean) => number) =>
    bootstrapAuroc(
      rows.map((row) => ({ ...row, score: score(row.positive) })),
      { seed: 1, resamples: 20 },
    ).value;

  it("is the share of pairs that are in order, ties half", () => {
    let [won, pairs] = [0, 0];
    for (const a of rows.filter(({ positive }) => positive)) {
      for (const b of rows.filter(({ positive }) => !positive)) {
        pairs++;
        won += a.score > b.score ? 1 : a.score === b.score ? 0.5 : 0;
      }
    }
    const { value, low, high, documents } = bootstrapAuroc(rows, { seed: 1, resamples: 300 });
    expect(value).toBeCloseTo(won / pairs, 12);
    expect(documents).toBe(40);
    expect(low).toBeLessThan(value);
    expect(high).toBeGreaterThan(value);
    expect(high - low).toBeLessThan(0.3);
    expect(bootstrapAuroc(rows, { seed: 1, resamples: 300 })).toMatchObject({ low, high });
  });

  it("is 1 in order, 0 in reverse, a half where nothing tells them apart", () => {
    expect(of((positive) => (positive ? 2 : 1))).toBe(1);
    expect(of((positive) => (positive ? 1 : 2))).toBe(0);
    expect(of(() => -Infinity)).toBe(0.5);
  });

  it("refuses one kind alone and what is not a number", () => {
    const alone = rows.filter(({ positive }) => positive);
    expect(() => bootstrapAuroc(alone, { seed: 1 })).toThrow(/rows of both kinds/);
    expect(() => bootstrapAuroc([{ ...rows[0]!, score: NaN }, ...rows], { seed: 1 })).toThrow(/1 without/);
  });
});
