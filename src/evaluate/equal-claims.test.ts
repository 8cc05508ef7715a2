// Two pairs at an equal number of claims, on the bundled pair and texts whose counts can be worked out: labels of the truth, longer and shorter,
// right and wrong.
import path from "node:path";
import { describe, expect, it } from "vitest";
import { loadNla } from "../nla/read.js";
import { loadTarget } from "../nla/target.js";
import { Device } from "../tensor/index.js";
import { Chooser } from "../world/chooser.js";
import { parseExplanation } from "../world/claims.js";
import { worldDocumentOf } from "../world/corpus.js";
import { labelAt } from "../world/labels.js";
import { bootstrapRatioGain } from "./bootstrap.js";
import { renderClaims } from "../cli/eval-claims.js";
import { atEqualClaims } from "./equal-claims.js";
import type { EvalRow, ExplainedRow } from "./explained-rows.js";
import { worldClaims } from "./world-claims.js";
import { worldRows } from "./world-rows.js";

const bundle = path.resolve(import.meta.dirname, "../../assets/smallworld");

function labelOf({ docId, position }: EvalRow): string {
  const document = worldDocumentOf(docId);
  return labelAt(document, position - 1, new Chooser(document.index, position));
}

function first(text: string, count: number): string {
  return parseExplanation(text)
    .slice(0, count)
    .map(({ sentence }) => sentence)
    .join(" ");
}

const words = (text: string | null) => (text ?? "").split(" ").filter((word) => word !== "").length;

describe("atEqualClaims", () => {
  it("takes from both as many claims as the shorter one has, and finds no gain in saying more", async () => {
    using device = Device.open({ threads: 1 });
    using target = await loadTarget("smallworld", device);
    using nla = await loadNla(bundle, device);
    const { layer } = nla;
    const rows = await worldRows(target, { layer, documents: 8, positions: 3, seed: 7, start: 44_000_000 });
    const said = async (texts: readonly (string | null)[]): Promise<ExplainedRow[]> => {
      const rebuilt = await nla.reconstructor.reconstructSome(texts.map((text) => text || null));
      return rows.map((row, i) => {
        return { ...row, explanation: texts[i] ?? null, reconstruction: rebuilt[i] ?? null, tokens: 1 };
      });
    };
    const labels = rows.map(labelOf);
    const bootstrap = { seed: 0, resamples: 200 };
    const long = { nla, rows: await said(labels) };
    const short = { nla, rows: await said(labels.map((label) => first(label, 3))) };
    const same = await atEqualClaims("greedy", long, short, bootstrap);
    // The first three of the long ones are the short ones.
    expect(same).toMatchObject({
      name: "greedy",
      claims: 3,
      gained: { fve: { fve: 0 }, precision: { value: 0, low: 0, high: 0 }, recall: { value: 0 } },
    });
    expect(same!.trained).toEqual(same!.warm);
    expect(same!.warm.precision).toBe(1);
    const whole = worldClaims(short.rows, bootstrap)!.overall;
    expect(same!.warm.recall).toBeCloseTo(whole.recall!.value, 12);
    expect(long.rows[0]!.explanation).toBe(labels[0]);

    // Labels of the row three further on, of another document: as many claims, less true, and one of them missing.
    const wrong = labels.map((_, i) => (i === 4 ? null : first(labels[(i + 3) % labels.length]!, 3)));
    const other = await atEqualClaims("greedy", long, { nla, rows: await said(wrong) }, bootstrap);
    expect(other!.claims).toBeCloseTo((3 * (rows.length - 1)) / rows.length, 12);
    expect(other!.gained.precision.low).toBeGreaterThan(0.3);
    expect(other!.gained.precision.value).toBeCloseTo(other!.trained.precision - other!.warm.precision, 12);
    expect(other!.gained.recall.value).toBeCloseTo(other!.trained.recall - other!.warm.recall, 12);
    expect(other!.gained.fve.fve).toBeCloseTo(other!.trained.fve - other!.warm.fve, 6);
    expect(other!.gained.fve.interval[0]).toBeGreaterThan(0);

    // By length: the long ones lose what the short ones have not, and a claim in more words costs others their place.
    const level = await atEqualClaims("greedy", long, short, bootstrap, "tokens");
    expect(level!.trained).toEqual(level!.warm);
    expect(level).toMatchObject({ claims: 3, claims_warm: 3 });
    const mixed = labels.map((label, i) => (i % 2 === 0 ? first(label, 1 + (i % 5)) : label));
    const turned = labels.map((_, i) => labels[(i + 3) % labels.length]!);
    const [a, b] = [await said(mixed), await said(turned)];
    const apart = await atEqualClaims("greedy", { nla, rows: a }, { nla, rows: b }, bootstrap, "tokens");
    const longest = a.map(({ explanation }, i) => Math.min(words(explanation), words(b[i]!.explanation)));
    const least = longest.reduce((sum, length) => sum + length, 0) / longest.length;
    for (const { tokens } of [apart!.trained, apart!.warm]) expect(Math.abs(tokens - least)).toBeLessThan(4);
    expect(Math.abs(apart!.trained.tokens - apart!.warm.tokens)).toBeLessThan(2);
    expect(apart!.gained.precision.value).toBeGreaterThan(0.3);

    const text = renderClaims({
      lines: [{ name: "greedy", fve: 0.5, tokens: 30, scores: worldClaims(long.rows, bootstrap) }],
      full_label_fve: 0.6,
      at_warm_categories: null,
      equal_claims: [other!],
      equal_tokens: [apart!],
    });
    expect(text).toMatch(/at as many claims +FVE +precision +recall +claims +tokens/);
    expect(text).toMatch(/ {2}gained +\d\.\d{3} \(/);
    expect(text).toMatch(/at equal length +FVE/);

    expect(
      await atEqualClaims("greedy", long, { nla, rows: await said(rows.map(() => null)) }, bootstrap),
    ).toBeNull();
  }, 60_000);
});

describe("bootstrapRatioGain", () => {
  it("takes both ratios of the same documents, so that what they share is no spread", () => {
    const rows = Array.from({ length: 40 }, (_, i) => {
      const share = (i * 7) % 10;
      return {
        docId: `d${i}`,
        after: { numerator: share + 1, denominator: 10 },
        before: { numerator: share, denominator: 10 },
      };
    });
    const gain = bootstrapRatioGain(rows, { seed: 1 });
    expect(gain.value).toBeCloseTo(0.1, 12);
    expect(gain.high - gain.low).toBeLessThan(1e-9);
    const nothing = rows.map(({ docId, after }) => ({
      docId,
      after,
      before: { numerator: 0, denominator: 0 },
    }));
    expect(() => bootstrapRatioGain(nothing, { seed: 1 })).toThrow(/a document with denominator 0/);
  });
});
