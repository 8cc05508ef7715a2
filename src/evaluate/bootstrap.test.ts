// Bootstrap intervals: seeds, coverage against known sampling error, and documents as the unit.
import { describe, expect, it } from "vitest";
import { PythonRandom } from "../data/python-random.js";
import { bootstrapFve, bootstrapMean, bootstrapRatio, type FveRow, type MeanRow } from "./bootstrap.js";

describe("bootstrap", () => {
  const random = new PythonRandom(11);
  const independent: MeanRow[] = Array.from({ length: 400 }, (_, i) => ({
    docId: `d${i}`,
    value: random.random(),
  }));

  it("gives the same numbers for the same seed and others for another", () => {
    const once = bootstrapMean(independent, { seed: 5 });
    expect(bootstrapMean(independent, { seed: 5 })).toEqual(once);
    expect(bootstrapMean(independent, { seed: 6 }).low).not.toBe(once.low);
  });

  it("is as wide as theory says for independent rows", () => {
    const { value, low, high, documents } = bootstrapMean(independent, { seed: 1, resamples: 4000 });
    const mean = independent.reduce((sum, row) => sum + row.value, 0) / 400;
    const variance = independent.reduce((sum, row) => sum + (row.value - mean) ** 2, 0) / 399;
    expect(value).toBeCloseTo(mean, 12);
    expect(documents).toBe(400);
    // 2 * 1.96 standard errors; 4000 resamples place a percentile within about 4 %.
    expect((high - low) / (2 * 1.96 * Math.sqrt(variance / 400))).toBeCloseTo(1, 1);
    expect(low).toBeLessThan(mean);
    expect(high).toBeGreaterThan(mean);
  });

  it("widens when rows of a document are alike", () => {
    const alike: MeanRow[] = independent.map((_, i) => ({
      docId: `d${i % 20}`,
      value: independent[i % 20]!.value,
    }));
    const asRows = alike.map((row, i) => ({ ...row, docId: `r${i}` }));
    expect(width(alike)).toBeGreaterThan(3 * width(asRows)); // sqrt(20) = 4.5 in theory
  });

  it("covers the true mean about as often as it says", () => {
    let covered = 0;
    for (let trial = 0; trial < 200; trial++) {
      const rows = Array.from({ length: 60 }, (_, i) => ({ docId: String(i), value: random.random() }));
      const { low, high } = bootstrapMean(rows, { seed: trial, resamples: 300 });
      if (low <= 0.5 && 0.5 <= high) covered++;
    }
    expect(covered).toBeGreaterThanOrEqual(178); // 95 % of 200, less 4 standard errors
    expect(covered).toBeLessThan(200);
  });

  it("takes FVE as a ratio of sums, not a mean of ratios", () => {
    const rows: FveRow[] = [
      { docId: "a", mse: 0.1, variance: 1 },
      { docId: "b", mse: 0.9, variance: 3 },
    ];
    const { value, low, high } = bootstrapFve(rows, { seed: 0 });
    expect(value).toBeCloseTo(0.75, 12);
    expect(low).toBeCloseTo(0.7, 12);
    expect(high).toBeCloseTo(0.9, 12);
  });

  it("is a point for one document", () => {
    const { low, high, value } = bootstrapMean([{ docId: "a", value: 3 }], { seed: 0 });
    expect([low, value, high]).toEqual([3, 3, 3]);
  });

  it("refuses no rows, no variance, NaN and bad options", () => {
    expect(() => bootstrapMean([], { seed: 0 })).toThrow(/0 rows/);
    expect(() => bootstrapMean([{ docId: "x", value: NaN }], { seed: 0 })).toThrow(/document x/);
    expect(() => bootstrapFve([{ docId: "x", mse: 1, variance: 0 }], { seed: 0 })).toThrow(/variance of 0/);
    expect(() => bootstrapMean(independent, { seed: 0, resamples: 0 })).toThrow(/0 resamples/);
    expect(() => bootstrapMean(independent, { seed: 0, level: 1 })).toThrow(/level 1/);
  });
});

function width(rows: MeanRow[]): number {
  const { low, high } = bootstrapMean(rows, { seed: 2 });
  return high - low;
}

describe("bootstrapRatio", () => {
  const rows = Array.from({ length: 200 }, (_, i) => {
    return { docId: String(i % 50), numerator: i % 4 === 0 ? 1 : 0, denominator: 1 };
  });

  it("is the ratio of the sums, inside its interval, the same for the same seed", () => {
    const interval = bootstrapRatio(rows, { seed: 1 });
    expect(interval.value).toBe(0.25);
    expect(interval.documents).toBe(50);
    expect(interval.low).toBeLessThan(0.25);
    expect(interval.high).toBeGreaterThan(0.25);
    expect(bootstrapRatio(rows, { seed: 1 })).toEqual(interval);
  });

  it("weighs documents by their denominators", () => {
    const uneven = [
      { docId: "a", numerator: 9, denominator: 9 },
      { docId: "b", numerator: 0, denominator: 1 },
    ];
    expect(bootstrapRatio(uneven, { seed: 1 })).toMatchObject({ value: 0.9, low: 0, high: 1 });
  });

  it("refuses documents without a denominator", () => {
    const empty = [...rows, { docId: "empty", numerator: 0, denominator: 0 }];
    expect(() => bootstrapRatio(empty, { seed: 1 })).toThrow(/denominator 0/);
  });
});
