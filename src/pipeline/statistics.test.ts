// Norms and baselines of a file: against values computed directly from its rows.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BaselineAccumulator } from "../nla/fidelity.js";
import { activationNorms, fveBaselines } from "./statistics.js";
import { writeTestRows } from "./testing/dataset.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-statistics-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const file = path.join(scratch, "rows.parquet");
const ROWS = 5003;
// Lengths 0, 3, 6, ... in a scrambled order: row r has 3 times (r * 7919 mod ROWS).
const rank = (row: number) => (row * 7919) % ROWS;
beforeAll(() =>
  writeTestRows(file, { rows: ROWS, width: 3, vector: (row) => [rank(row), 2 * rank(row), -2 * rank(row)] }),
);

describe("norms", () => {
  it("have mean and percentiles as numpy gives them", async () => {
    const last = 3 * (ROWS - 1);
    const norms = await activationNorms(file);
    expect(norms).toMatchObject({ rows: ROWS, min: 0, max: last, exact: true });
    expect(norms.mean).toBeCloseTo(last / 2, 8);
    expect(norms.median).toBeCloseTo(last / 2, 8);
    expect(norms.p75).toBeCloseTo(0.75 * last, 8); // between two ranks: 3751.5
  });

  it("are estimated from a sample beyond the limit, the same for the same seed", async () => {
    const sampled = await activationNorms(file, { exactRows: 1000 });
    expect(sampled).toMatchObject({ rows: ROWS, min: 0, max: 3 * (ROWS - 1), exact: false });
    // Four standard errors of a percentile rank over 1000 rows: 4 * sqrt(0.25 * 0.75 / 1000) = 0.055.
    expect(Math.abs(sampled.p75 / (3 * (ROWS - 1)) - 0.75)).toBeLessThan(0.055);
    expect(sampled.p75).not.toBe((await activationNorms(file)).p75);
    expect(await activationNorms(file, { exactRows: 1000 })).toEqual(sampled);
    expect(await activationNorms(file, { exactRows: 1000, seed: 1 })).not.toEqual(sampled);
  });

  it("of one row are that row's", async () => {
    const one = path.join(scratch, "one.parquet");
    await writeTestRows(one, { rows: 1, width: 2, vector: () => [3, 4] });
    expect(await activationNorms(one)).toEqual({
      rows: 1,
      mean: 5,
      min: 5,
      median: 5,
      p75: 5,
      max: 5,
      exact: true,
    });
  });
});

const vector = (row: number) => [Math.cos(row), Math.sin(row), row % 3];

describe("baselines", () => {
  it("are over the first rows of the file only", async () => {
    const spread = path.join(scratch, "spread.parquet");
    await writeTestRows(spread, { rows: 3000, width: 3, vector });
    for (const rows of [100, 2500, 9999]) {
      const expected = new BaselineAccumulator(3);
      for (let row = 0; row < Math.min(rows, 3000); row++) expected.add(Float32Array.from(vector(row)));
      expect(await fveBaselines(spread, { rows })).toEqual(expected.baselines());
    }
    const raw = await fveBaselines(spread, { rows: 100, mseScale: null });
    expect(raw.variance).not.toBe((await fveBaselines(spread, { rows: 100 })).variance);
  });
});
