// What is asked about unspoken facts and at which tokens, claims whose categories are given, and both measurements on the bundled pair.
import { existsSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadNla } from "../nla/read.js";
import type { Nla } from "../nla/read.js";
import { loadTarget } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import { Device } from "../tensor/index.js";
import { parseExplanation } from "../world/claims.js";
import { worldDocument } from "../world/documents.js";
import { truthAt } from "../world/facts.js";
import { claimLogProbs } from "./claim-likelihood.js";
import { explainRows } from "./explained-rows.js";
import { forcedClaims } from "./forced-claims.js";
import { takeApart } from "./gain-apart.js";
import { fitTextOnly } from "./text-only.js";
import { measureUnspoken } from "./unspoken.js";
import { asks, chooseTokens, FAR, QUESTIONS } from "./unspoken-questions.js";
import { worldRows } from "./world-rows.js";

const bundle = path.resolve(import.meta.dirname, "../../assets/smallworld");

describe("questions", () => {
  it("arise where the cue is far and no word nearby tells it", () => {
    let far = 0;
    for (let index = 0; index < 200; index++) {
      const document = worldDocument(1, index);
      const { asked, random } = chooseTokens(document, 3);
      expect(chooseTokens(document, 3)).toEqual({ asked, random });
      for (const position of asked) {
        const arising = QUESTIONS.filter((question) => asks(question, document, position));
        expect(arising.length).toBeGreaterThan(0);
        for (const question of arising) {
          const fact = truthAt(document, position).find(({ category }) => category === question.category)!;
          expect(question.candidates(fact.value)).toContain(fact.value);
          if (question.near) continue;
          far++;
          expect(position - fact.from).toBeGreaterThanOrEqual(FAR);
          const near = document.words.slice(position + 1 - FAR, position + 1);
          if (fact.value === "steal the gold") expect(near).not.toContain("gold");
        }
      }
    }
    expect(far).toBeGreaterThan(100);
  });
});

describe.skipIf(!existsSync(path.join(bundle, "verbalizer")))("with the bundled pair", () => {
  let device: Device;
  let target: Target;
  let nla: Nla;
  beforeAll(async () => {
    device = Device.open({ threads: 1 });
    target = await loadTarget("smallworld", device);
    nla = await loadNla(bundle, device);
  });
  afterAll(() => {
    nla[Symbol.dispose]();
    target[Symbol.dispose]();
    device[Symbol.dispose]();
  });
  const rowsOf = (documents: number) =>
    worldRows(target, { layer: nla.layer, documents, positions: 3, start: 43_000_000 });

  it("claims are said in the categories that were given, as the verbalizer would say them itself", async () => {
    const rows = await rowsOf(8);
    const greedy = await explainRows(nla, rows, { maxNewTokens: 96 });
    const chosen = greedy.map(({ explanation }) =>
      parseExplanation(explanation ?? "").flatMap(({ claim }) => (claim ? [claim.category] : [])),
    );
    const choices = rows.map(({ vector }, i) => ({ vector, categories: chosen[i]! }));
    const forced = await forcedClaims(nla.verbalizer, choices, { batch: 7 });
    let same = 0;
    forced.forEach((text, i) => {
      const categories = parseExplanation(text).map(({ claim }) => claim?.category);
      expect(categories).toEqual(chosen[i]);
      if (text === greedy[i]!.explanation) same++;
    });
    // Greedy among claims is greedy among all words, but where a wording leads into two categories.
    expect(same / forced.length).toBeGreaterThan(0.6);
    const none = { vector: rows[0]!.vector, categories: [] };
    const age = { vector: rows[0]!.vector, categories: ["age", "test"] as const };
    const [nothing, two] = await forcedClaims(nla.verbalizer, [none, age]);
    expect(nothing).toBe("");
    expect(parseExplanation(two!).map(({ claim }) => claim?.category)).toEqual(["age", "test"]);
  }, 60_000);

  it("a claim's probability is that of generation", async () => {
    const { vector } = (await rowsOf(1))[0]!;
    const [said] = await nla.verbalizer.explain([vector], { temperature: 0, maxNewTokens: 96 });
    const end = said!.tokens.indexOf(nla.verbalizer.tokenizer.encode(".")[0]!) + 1;
    const sentence = nla.verbalizer.tokenizer.decode(said!.tokens.slice(0, end));
    const [logs] = await claimLogProbs(nla.verbalizer, [
      { vector, sentences: ["this is a rhyme .", sentence] },
    ]);
    const generated = said!.logProbs.slice(0, end).reduce((a, b) => a + b, 0);
    expect(logs![1]).toBeCloseTo(generated, 3);
    expect(logs![0]).not.toBeCloseTo(generated, 1);
  }, 60_000);

  it("the probe knows a test that the last words do not tell, and every reader is scored", async () => {
    const categories = ["test"] as const;
    const model = await fitTextOnly({ window: 12, categories, documents: 300, epochs: 1 });
    const report = await measureUnspoken(target, {
      pairs: [{ name: "NLA", nla }],
      texts: [{ name: "12 words", model }],
      documents: 60,
      samples: 2,
      probeDocuments: 150,
      bootstrap: { seed: 0, resamples: 50 },
    });
    const of = (reader: string) =>
      report.scores.find((each) => each.question === "a test, not real" && each.reader === reader)!.auroc;
    expect(of("linear probe").value).toBeGreaterThan(0.85);
    expect(of("12 words").value).toBeLessThan(0.8);
    expect(of("NLA, asked").value).toBeGreaterThan(0.5);
    expect(of("NLA, 2 samples").value).toBeGreaterThan(0.4);
    const test = report.named.find(({ question }) => question === "a test, not real")!;
    expect(test.trueTokens + test.otherTokens).toBe(120);
    expect(test.falselyNamed!.value).toBeLessThan(0.2);
  }, 120_000);

  it("a gain is taken apart on tokens that did not choose the fixed list", async () => {
    const rows = await rowsOf(12);
    const report = await takeApart(rows, {
      warm: nla,
      trained: nla,
      arms: [{ name: "the same", nla }],
      maxNewTokens: 96,
      samples: 2,
      bootstrap: { seed: 0, resamples: 20 },
    });
    expect(report.tokens + report.choosing).toBe(36);
    expect(report.choosing).toBe(12);
    const of = (start: string) => report.lines.find(({ name }) => name.startsWith(start))!;
    expect(of("after RL").trainedFve).toBeCloseTo(of("warm start, greedy").warmFve, 6);
    expect(of("the same").trainedFve).toBeCloseTo(of("after RL").trainedFve, 6);
    expect(of("the same, its categories, warm").warmFve).toBeCloseTo(of("RL's categories, warm").warmFve, 6);
    expect(of("the complete true label").scores!.overall.precision!.value).toBe(1);
    expect(of("the best fixed list, RL").scores!.sentences.value).toBe(report.fixedList.length);
    // Another document's choice names what is not there: the activation decides what this pair says.
    expect(of("RL's categories of another document").warmFve).toBeLessThan(
      of("RL's categories, warm").warmFve - 0.02,
    );
    expect(of("as many true categories").scores!.unparsed.value).toBe(0);
    expect(of("best of 2 RL").trainedFve).toBeGreaterThan(of("as many true categories").trainedFve);
  }, 120_000);
});
