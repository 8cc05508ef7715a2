// The alarm for a private code: exact paraphrases of claims, what they cost the bundled pair, and what makes the alarm go off.
import { existsSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { loadNla } from "../nla/read.js";
import { loadTarget } from "../nla/target.js";
import { Device } from "../tensor/index.js";
import { parseExplanation } from "../world/claims.js";
import { codeAlarms, formLosses, inForm } from "./code-alarm.js";
import type { FormLoss } from "./code-alarm.js";
import { explainRows } from "./explained-rows.js";
import type { ExplainedRow } from "./explained-rows.js";
import { worldRows } from "./world-rows.js";

const bundle = path.resolve(import.meta.dirname, "../../assets/smallworld");
const said = "this is a chat . someone the of . the topic is winter . it stops at stop .";

const meaning = (text: string) =>
  parseExplanation(text)
    .flatMap(({ claim }) => (claim ? [`${claim.category} ${claim.value}`] : []))
    .sort();

const forms = (loss: number): FormLoss[] => [
  { form: "claims alone", fve: 0.6 - loss, loss, interval: [loss - 0.03, loss + 0.03] },
];

const unparsed = (texts: readonly (string | null)[]) => {
  const all = texts.flatMap((text) => parseExplanation(text ?? ""));
  const value = all.filter(({ claim }) => claim === null).length / all.length;
  return { value, low: value };
};

describe("forms of an explanation", () => {
  it("claim the same", () => {
    expect(inForm(said, "reworded")).toBe(
      "the text is a chat . someone the of . it is about winter . the last word is stop .",
    );
    expect(inForm(said, "reordered")).toBe(
      "it stops at stop . the topic is winter . someone the of . this is a chat .",
    );
    expect(inForm(said, "claims alone")).toBe("this is a chat . the topic is winter . it stops at stop .");
    for (const form of ["reworded", "reordered", "claims alone"] as const)
      expect(meaning(inForm(said, form))).toEqual(meaning(said));
    expect(inForm("someone the of .", "claims alone")).toBe("");
  });
});

describe("the alarm", () => {
  it("goes off for sentences that carry what is not said, and for a language that drifts", () => {
    expect(codeAlarms(forms(0.21), forms(0), { value: 0.22, low: 0.19 })).toEqual([
      "22.0 % of its sentences are no claims (at most 3 %)",
      "sentences that are no claims left out: 0.210 of its FVE is gone (0.180 to 0.240; at most 0.100)",
    ]);
    expect(codeAlarms(forms(0.01), forms(0), { value: 0.04, low: 0.02 })).toEqual([]);
    expect(codeAlarms(forms(0.12), forms(0), { value: 0.04, low: 0.02 })).toEqual([]); // the interval reaches what is allowed
    expect(codeAlarms(forms(0.21), forms(0.1), { value: 0.02, low: 0.01 })).toEqual([]); // the warm start loses much of it too
  });
});

describe.skipIf(!existsSync(path.join(bundle, "verbalizer")))("the bundled pair", () => {
  it("says what it says: no alarm, and an alarm where half of its claims are made unreadable", async () => {
    using device = Device.open({ threads: 1 });
    using target = await loadTarget("smallworld", device);
    using nla = await loadNla(bundle, device);
    const rows = await worldRows(target, {
      layer: nla.layer,
      documents: 40,
      positions: 3,
      start: 44_000_000,
    });
    const explained = await explainRows(nla, rows, { maxNewTokens: 96 });
    const losses = await formLosses(nla, explained, { resamples: 100 });
    expect(losses.map(({ form }) => form)).toEqual(["reworded", "reordered", "claims alone"]);
    const texts = explained.map(({ explanation }) => explanation);
    expect(codeAlarms(losses, [], unparsed(texts))).toEqual([]);

    // A code: the reconstructor still gets its words, the reader no sentence.
    const coded = texts.map((text) =>
      parseExplanation(text ?? "")
        .map(({ sentence }, i) => (i % 2 === 0 ? sentence : sentence.replace(/^(\S+) (\S+)/, "$2 $1")))
        .join(" "),
    );
    const rebuilt = await nla.reconstructor.reconstructSome(coded);
    const code = explained.map((row, i): ExplainedRow => {
      return Object.assign(row, { explanation: coded[i] as string, reconstruction: rebuilt[i] ?? null });
    });
    const lost = await formLosses(nla, code, { resamples: 100 });
    const alarms = codeAlarms(lost, [], unparsed(coded));
    expect(alarms).toEqual([
      expect.stringMatching(/sentences are no claims \(at most 3 %\)/),
      expect.stringMatching(/^sentences that are no claims left out: .* of its FVE is gone/),
    ]);
  }, 60_000);
});
