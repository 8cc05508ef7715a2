// The numbers of an evaluation on rows made by hand, where each has a value that can be worked out.
import { describe, expect, it } from "vitest";
import { BaselineAccumulator, FidelityAccumulator } from "../nla/fidelity.js";
import { evaluateRows, fveGain } from "./evaluation.js";
import type { ExplainedRow } from "./explained-rows.js";
import { rowsOfOtherDocuments } from "./other-documents.js";

const WIDTH = 6;

/** `documents` of `per` rows; vectors scatter around one per document. */
function someRows(
  documents: number,
  per: number,
  reconstruct: (vector: Float32Array) => Float32Array | null,
): ExplainedRow[] {
  return Array.from({ length: documents * per }, (_, i) => {
    const document = Math.floor(i / per);
    const vector = Float32Array.from(
      { length: WIDTH },
      (_, k) => Math.sin(7 * document + 3 * k) + 0.3 * Math.sin(11 * i + k),
    );
    return {
      vector,
      docId: `d${document}`,
      position: i % per,
      text: null,
      explanation: `${i}`,
      reconstruction: reconstruct(vector),
      tokens: 3 + (i % 2),
    };
  });
}

const noisy = (vector: Float32Array) => vector.map((value, k) => value + 0.2 * Math.cos(k + value));

const inside = ([low, high]: readonly [number, number], value: number) => low < value && value < high;
const documents = (sizes: readonly number[]) =>
  sizes.flatMap((size, d) => Array.from({ length: size }, () => `d${d}`));

describe("evaluateRows", () => {
  it("agrees with the fidelity accumulator", () => {
    const rows = someRows(20, 4, noisy);
    const fidelity = new FidelityAccumulator(WIDTH);
    for (const { reconstruction, vector } of rows) fidelity.add(reconstruction as Float32Array, vector);
    const wanted = fidelity.result();
    const found = evaluateRows(rows);
    expect(found.fve).toBeCloseTo(wanted.fve, 12);
    expect(found.fve_meannorm).toBeCloseTo(wanted.fveMeannorm, 12);
    expect(found.variance).toBeCloseTo(wanted.variance, 12);
    expect(found.variance_meannorm).toBeCloseTo(wanted.varianceMeannorm, 12);
    expect(found.mse).toBeCloseTo(wanted.mse, 12);
    expect(found.cosine).toBeCloseTo(wanted.cosine, 12);
    expect(found).toMatchObject({ n: 80, documents: 20, length: 3.5, failed: 0 });
  });

  it("gives the mean 0 by construction, and the shuffled control far less than the rows", () => {
    const found = evaluateRows(someRows(20, 4, noisy));
    expect(Math.abs(found.controls.mean.fve)).toBeLessThan(1e-12);
    expect(found.fve).toBeGreaterThan(0.7);
    expect(found.controls.shuffled.fve).toBeLessThan(0);
    expect(found.controls.shuffled.cosine).toBeLessThan((found.cosine as number) - 0.5);
  });

  it("brackets each number by its interval, and the difference apart from 0", () => {
    const { fve, controls, intervals } = evaluateRows(someRows(20, 4, noisy), {
      bootstrap: { seed: 1, resamples: 500 },
    });
    expect(inside(intervals.fve, fve)).toBe(true);
    expect(inside(intervals.shuffled_fve, controls.shuffled.fve)).toBe(true);
    expect(inside(intervals.difference, fve - controls.shuffled.fve)).toBe(true);
    expect(intervals.difference[0]).toBeGreaterThan(0);
  });

  it("says the same for the same seed, and other intervals for another", () => {
    const rows = someRows(20, 4, noisy);
    const one = evaluateRows(rows, { bootstrap: { seed: 1, resamples: 200 } });
    expect(evaluateRows(rows, { bootstrap: { seed: 1, resamples: 200 } })).toEqual(one);
    const two = evaluateRows(rows, { bootstrap: { seed: 2, resamples: 200 } });
    expect(two.intervals.fve).not.toEqual(one.intervals.fve);
    expect(two.fve).toBe(one.fve);
  });

  it("finds nothing in explanations that do not depend on the activation", () => {
    const same = Float32Array.from({ length: WIDTH }, (_, k) => Math.cos(k));
    const { fve, controls, intervals } = evaluateRows(someRows(20, 4, () => same));
    expect(controls.shuffled.fve).toBe(fve);
    expect(intervals.difference.map(Math.abs).every((end) => end < 1e-12)).toBe(true);
  });

  it("counts a failed row as the mean: nothing explained, and in `failed`", () => {
    const all = someRows(20, 4, noisy);
    const none = evaluateRows(all.map((row) => ({ ...row, explanation: null, reconstruction: null })));
    expect(Math.abs(none.fve)).toBeLessThan(1e-12);
    expect(none).toMatchObject({ failed: 1, cosine: null });
    const perfect = all.map((row, i) => ({ ...row, reconstruction: i % 2 === 0 ? row.vector : null }));
    const half = evaluateRows(perfect);
    expect(half.failed).toBe(0.5);
    expect(half.cosine).toBeCloseTo(1, 6);
    const shares = new BaselineAccumulator(WIDTH);
    for (const { vector } of all) shares.add(vector);
    expect(half.fve).toBeGreaterThan(0.3);
    expect(half.fve).toBeLessThan(0.7);
    expect(half.variance).toBeCloseTo(shares.baselines().variance, 12);
  });

  it("takes denominators from another set", () => {
    const rows = someRows(20, 4, noisy);
    const baselines = { rows: 1000, variance: 0.5, varianceMeannorm: 0.8 };
    const found = evaluateRows(rows, { baselines });
    expect(found.fve).toBeCloseTo(1 - found.mse / 0.5, 12);
    expect(found.fve_meannorm).toBeCloseTo(1 - found.mse / 0.8, 12);
    expect(found.intervals.fve[0]).toBeLessThan(found.fve);
    expect(found.intervals.fve[1]).toBeGreaterThan(found.fve);
    expect(found.controls.mean.fve).not.toBeCloseTo(0, 3);
  });

  it("splits fidelity by position, the last bucket open", () => {
    const rows = someRows(3, 10, noisy);
    for (const [i, row] of rows.entries()) if (i % 10 === 9) rows[i] = { ...row, position: 5000 };
    const { by_position, n } = evaluateRows(rows);
    expect(by_position.map(({ from, to }) => [from, to])).toEqual([
      [0, 8],
      [8, 16],
      [4096, null],
    ]);
    expect(by_position.reduce((sum, bucket) => sum + bucket.n, 0)).toBe(n);
  });

  it.each([
    ["one document", someRows(1, 5, noisy), "5 of one document"],
    ["no rows", [], "0 of no document"],
  ])("refuses %s", (_, rows, found) => {
    expect(() => evaluateRows(rows)).toThrow(expect.objectContaining({ code: "evaluate.documents", found }));
  });
});

describe("rowsOfOtherDocuments", () => {
  it.each([[[3, 3, 3, 3]], [[1, 5, 2, 1]], [[9, 1]], [[1, 9, 1]], [[2, 2]], [[1, 1, 1, 1, 1, 12]]])(
    "never gives a row of its own document: sizes %j",
    (sizes) => {
      const ids = documents(sizes);
      for (let seed = 0; seed < 20; seed++) {
        const donors = rowsOfOtherDocuments(ids, { seed });
        expect(donors.length).toBe(ids.length);
        donors.forEach((donor, row) => {
          expect(ids[donor]).toBeDefined();
          expect(ids[donor]).not.toBe(ids[row]);
        });
      }
    },
  );

  it("is a permutation where documents are of one size, interleaved too, and another for another seed", () => {
    const ids = Array.from({ length: 30 }, (_, i) => `d${i % 10}`);
    const donors = rowsOfOtherDocuments(ids, { seed: 3 });
    expect([...donors].sort((a, b) => a - b)).toEqual(ids.map((_, i) => i));
    expect(rowsOfOtherDocuments(ids, { seed: 3 })).toEqual(donors);
    expect(rowsOfOtherDocuments(ids, { seed: 4 })).not.toEqual(donors);
  });
});

describe("fveGain", () => {
  const after = someRows(20, 4, noisy);
  const before = someRows(20, 4, (vector) => noisy(noisy(noisy(vector))));

  it("is the difference of the two FVE, inside its interval, and turns its sign with the pairs", () => {
    const gain = fveGain(after, before);
    expect(gain.fve).toBeCloseTo(evaluateRows(after).fve - evaluateRows(before).fve, 10);
    expect(gain.fve).toBeGreaterThan(0);
    expect(inside(gain.interval, gain.fve)).toBe(true);
    expect(fveGain(before, after).fve).toBeCloseTo(-gain.fve, 10);
  });

  it("of a pair over itself is exactly 0", () => {
    expect(fveGain(after, after)).toEqual({ fve: 0, interval: [0, 0] });
  });

  it("counts a failed explanation as the mean", () => {
    const failed = someRows(20, 4, () => null);
    expect(fveGain(after, failed).fve).toBeCloseTo(evaluateRows(after).fve, 10);
  });

  it("refuses lists of different rows", () => {
    expect(() => fveGain(after, before.slice(1))).toThrow(RangeError);
  });
});
