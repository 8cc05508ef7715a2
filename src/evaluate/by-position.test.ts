// FVE per bucket of positions.
import { describe, expect, it } from "vitest";
import { fveByPosition } from "./by-position.js";

describe("FVE by position", () => {
  const rows = [
    { position: 0, mse: 1, variance: 0 },
    { position: 8, mse: 0.2, variance: 1 },
    { position: 15, mse: 0.4, variance: 1 },
    { position: 16, mse: 0.5, variance: 2 },
    { position: 90_000, mse: 3, variance: 2 },
  ];

  it("is a ratio of sums per bucket, empty buckets left out, the last one open", () => {
    const buckets = fveByPosition(rows);
    expect(buckets.map(({ from, to, rows: n }) => [from, to, n])).toEqual([
      [0, 8, 1],
      [8, 16, 2],
      [16, 32, 1],
      [4096, Infinity, 1],
    ]);
    expect(buckets[0]!.fve).toBeNull();
    expect(buckets[1]!.fve).toBeCloseTo(0.7, 12);
    expect(buckets[1]!.mse).toBeCloseTo(0.3, 12);
    expect(buckets[3]!.fve).toBeCloseTo(-0.5, 12);
  });

  it("loses no row to any edges", () => {
    for (const edges of [[0], [0, 1], [0, 15, 16, 17]]) {
      expect(fveByPosition(rows, edges).reduce((sum, bucket) => sum + bucket.rows, 0)).toBe(5);
    }
  });

  it("refuses edges that do not ascend from 0 and rows that are not scored", () => {
    for (const edges of [[], [1, 2], [0, 2, 2], [0, NaN]]) {
      expect(() => fveByPosition(rows, edges)).toThrow(/start at 0 and ascend/);
    }
    expect(() => fveByPosition([{ position: -1, mse: 1, variance: 1 }])).toThrow(
      /scored row 0: found position -1/,
    );
    expect(() => fveByPosition([{ position: 1, mse: NaN, variance: 1 }])).toThrow(/mse NaN/);
  });
});
