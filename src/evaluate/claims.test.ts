// Scores of explanations whose quality is known: full labels, kept shares, garbled shares, silence and nonsense.
import { describe, expect, it } from "vitest";
import { Chooser } from "../world/chooser.js";
import { documentsOf } from "../world/documents.js";
import { labelAt } from "../world/labels.js";
import type { LabelDials } from "../world/labels.js";
import { scoreClaims } from "./claims.js";
import type { ExplainedToken } from "./claims.js";

const options = { seed: 1, resamples: 200 };

function rows(dials: LabelDials, edit = (text: string, _i: number) => text): ExplainedToken[] {
  return [...documentsOf({ seed: 41, count: 120 })].flatMap((document, i) =>
    [20, 40, 50].map((position) => {
      const explanation = labelAt(document, position, new Chooser(42, i, position), dials);
      return { document, position, explanation: edit(explanation, i) };
    }),
  );
}

describe("scores", () => {
  it("of full labels are one", () => {
    const { overall, categories, documents, unparsed, confabulated, byDistance } = scoreClaims(
      rows({}),
      options,
    );
    expect(documents).toBe(120);
    expect(overall.precision).toMatchObject({ value: 1, low: 1, high: 1 });
    expect([overall.recall?.value, overall.f1?.value, overall.claims]).toEqual([1, 1, overall.facts]);
    expect(categories.test.recall?.value).toBe(1);
    expect([unparsed.value, confabulated.value]).toEqual([0, 0]);
    const far = byDistance.find(({ category, to }) => category === "test" && to === null);
    expect(far).toMatchObject({ from: 36, precision: { value: 1 } });
  });

  it("know the kept and the garbled share, within their intervals", () => {
    const { overall, confabulated } = scoreClaims(rows({ keep: [1, 2], garble: [1, 10] }), options);
    for (const [interval, truth] of [
      [overall.precision!, 0.9],
      [overall.recall!, 0.45],
      [confabulated, 0.1],
    ] as const) {
      expect(interval.low).toBeLessThan(truth + 0.01);
      expect(interval.high).toBeGreaterThan(truth - 0.01);
      expect(interval.high - interval.low).toBeLessThan(0.06);
    }
    const { precision, recall, f1 } = overall;
    const harmonic = (2 * precision!.value * recall!.value) / (precision!.value + recall!.value);
    expect(f1!.value).toBeCloseTo(harmonic, 10);
  });

  it("count repetition and nonsense beside the claims", () => {
    const twice = scoreClaims(
      rows({}, (text) => `${text} ${text}`),
      options,
    );
    expect(twice.repeated.value).toBe(0.5);
    expect(twice.overall.precision?.value).toBe(1);
    const noise = scoreClaims(
      rows({ most: 1 }, (text) => `${text} all is well with the world .`),
      options,
    );
    expect(noise.unparsed.value).toBe(0.5);
    expect(noise.overall.precision?.value).toBe(1);
  });

  it("take silence for missed facts, and refuse a set that says nothing", () => {
    const { overall } = scoreClaims(
      rows({}, (text, i) => (i % 2 === 0 ? text : "")),
      options,
    );
    expect(overall.precision?.value).toBe(1);
    expect(Math.abs(overall.recall!.value - 0.5)).toBeLessThan(0.1);
    expect(() =>
      scoreClaims(
        rows({}, () => ""),
        options,
      ),
    ).toThrow(/at least one sentence/);
    expect(() => scoreClaims([], options)).toThrow(/found 0 explanations/);
  });

  it("have no interval for a category that no document has", () => {
    const stories = [...documentsOf({ seed: 1, count: 5, kind: "story" })].map((document) => {
      return { document, position: 30, explanation: "the topic is farming ." };
    });
    const { categories } = scoreClaims(stories, options);
    expect(categories.test).toMatchObject({ claims: 0, facts: 0, precision: null, recall: null, f1: null });
  });

  it("are the same for the same seed", () => {
    expect(scoreClaims(rows({ keep: [1, 2] }), options)).toEqual(
      scoreClaims(rows({ keep: [1, 2] }), options),
    );
  });
});
