// Claims of data-set rows: positions that count BOS, missing explanations, the report's marks and tables, the command's table.
import { describe, expect, it } from "vitest";
import { renderClaims } from "./eval-claims.js";
import { Chooser } from "../world/chooser.js";
import { worldDocument } from "../world/documents.js";
import { labelAt } from "../world/labels.js";
import { warmGate } from "../evaluate/claim-report.js";
import type { ClaimReport } from "../evaluate/claim-report.js";
import { claimsSection, markedExplanation } from "../evaluate/report-claims.js";
import { trainingCurves } from "../evaluate/training-curves.js";
import { claimNumbers, isWorld, worldClaims } from "../evaluate/world-claims.js";

const rows = Array.from({ length: 30 }, (_, i) => {
  const position = 10 + (i % 30);
  const label = labelAt(worldDocument(1, i), position - 1, new Chooser(4, i));
  return { docId: `world-1:train:${i}`, position, explanation: i === 7 ? null : label };
});

describe("claims of rows", () => {
  it("are held against the token that BOS shifts by one", () => {
    expect(isWorld(rows)).toBe(true);
    expect(isWorld([{ docId: "text:train:1" }])).toBe(false);
    expect(isWorld([])).toBe(false);
    const numbers = claimNumbers(rows)!;
    expect(numbers.precision).toBe(1);
    expect(numbers.recall).toBeGreaterThan(0.9); // one explanation is missing
    expect(numbers.recall).toBeLessThan(1);
    const shifted = rows.map(({ docId, position, explanation }) => {
      return { docId, position: position + 1, explanation };
    });
    expect(claimNumbers(shifted)!.precision).toBeLessThan(1);
    expect(claimNumbers([{ docId: "world-1:train:1", position: 10, explanation: null }])).toBeNull();
  });

  it("are marked one by one for the report", () => {
    const { docId, position, explanation } = rows[0]!;
    const html = markedExplanation(docId, position, `${explanation} fluent <b> nonsense .`)!;
    expect(html).toMatch(/class="claim true"/);
    expect(html).toMatch(/class="claim unparsed" title="no claim"><b>~<\/b>fluent &lt;b&gt;/);
    expect(markedExplanation("text:train:1", 3, "a .")).toBeNull();
    expect(markedExplanation(docId, 500, "a .")).toBeNull();
  });

  it("pass or fail the gate of a warm start by its far claims of test or real", () => {
    const far = Array.from({ length: 60 }, (_, index) => worldDocument(1, index)).flatMap((document) => {
      const truth = document.facts.find(({ category }) => category === "test");
      return truth && document.words.length > 70 ? [{ document, side: truth.value }] : [];
    });
    const gateOf = (wrongFor: number) => {
      const said = far.map(({ document, side }, i) => {
        const claimed = i < wrongFor === (side === "real") ? "a test" : "real";
        const docId = `world-1:train:${document.index}`;
        return { docId, position: 60, explanation: `this seems to be ${claimed} .` };
      });
      return warmGate(worldClaims(said, { seed: 0, resamples: 20 })!);
    };
    expect(far.length).toBeGreaterThan(20);
    expect(gateOf(0)).toMatchObject({ from: 36, least: 0.95, passed: true, precision: { value: 1 } });
    expect(gateOf(0).claims).toBeGreaterThan(20);
    expect(gateOf(5)).toMatchObject({ passed: false });
  });

  it("stand in tables beside their controls", () => {
    const scores = worldClaims(rows, { seed: 0, resamples: 20 })!;
    const report: ClaimReport = {
      lines: [
        { name: "greedy", fve: 0.5, tokens: 30, scores },
        { name: "warm start, T=1", fve: 0.1, tokens: 30, scores: null },
        { name: "warm start, greedy", fve: 0.4, tokens: 30, scores },
        { name: "the mean activation", fve: null, tokens: null, scores: null },
      ],
      full_label_fve: 0.6,
      at_warm_categories: { warm: 0.7, trained: 0.72 },
    };
    const text = renderClaims(report);
    expect(text).toMatch(/greedy +0\.500 +1\.000 \(1\.000 to 1\.000\)/);
    expect(text).toMatch(/the mean activation +- +- +- +-/);
    expect(text).toMatch(/warm: claims/);
    expect(text).toMatch(/0\.720, against its own 0\.700/);
    const metrics = [
      {
        stage: "av_sft",
        step: 9,
        eval: { fve: 0.3, claims: { precision: 0.5, recall: 0.1, categories: {} } },
      },
      { stage: "rl", step: 9, eval: { fve: 0.5, claims: { precision: 0.6, recall: 0.2, categories: {} } } },
    ];
    const html = claimsSection(trainingCurves(metrics), report);
    expect(html).toMatch(/How informative the explanations are/);
    expect(html).toMatch(/<svg/);
    expect(html).toMatch(/the mean activation/);
    expect(html).not.toMatch(/equal number/);
    const numbers = { fve: 0.5, precision: 0.8, recall: 0.3, tokens: 24 };
    const gain = scores.overall.precision!;
    const gained = { fve: { fve: 0.1, interval: [0.05, 0.15] as const }, precision: gain, recall: gain };
    const equal = { name: "greedy", claims: 3.9, trained: numbers, warm: numbers, gained };
    const compared = claimsSection(trainingCurves(metrics), { ...report, equal_claims: [equal] });
    expect(compared).toMatch(/At an equal number of claims/);
    expect(compared).not.toMatch(/At equal length/);
    const level = claimsSection(trainingCurves(metrics), {
      ...report,
      equal_tokens: [{ ...equal, claims_warm: 4.2 }],
    });
    expect(level).toMatch(/At equal length/);
    expect(level).toMatch(/4\.20/);
    expect(compared).toMatch(/greedy: gained<\/td><td class="n">0\.100 \(0\.050 to 0\.150\)/);
    expect(claimsSection(trainingCurves(metrics), null)).toBe("");
  });
});
