// The first minute: a document read with its claims marked, a sentence of one's own with its unknown words named, and what it refuses.
import { existsSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { worldDocument } from "../world/documents.js";
import { truthAt } from "../world/facts.js";
import { unknownWords, wordsIn } from "./known-words.js";
import { sparkline, withCurves } from "./live-curves.js";
import { QuickstartPage, tally, unspokenIn } from "./quickstart-page.js";
import { runNla } from "./testing/run-nla.js";

const bundle = path.resolve(import.meta.dirname, "../../assets/smallworld/verbalizer");

describe("words of a sentence", () => {
  it("are cut as the tokenizer cuts them, and unknown ones offered what is near", () => {
    expect(wordsIn("Hello, Mira!  (b)")).toEqual(["hello", ",", "mira", "!", "(", "b", ")"]);
    expect(unknownWords("the fishr is sorrowful and the fishr")).toEqual([
      { word: "fishr", nearest: expect.arrayContaining(["fisher"]) as string[] },
      { word: "sorrowful", nearest: expect.any(Array) as string[] },
    ]);
    expect(unknownWords("the fisher , mira .")).toEqual([]);
    expect(unknownWords("")).toEqual([]);
  });
});

describe("the page", () => {
  // A chat: the cue of test or real stands in its first words and never again.
  const document = worldDocument(1, 50_000_001, { kind: "chat" });
  const late = 60;
  const side = truthAt(document, late).find(({ category }) => category === "test")!.value;
  const claim = side === "test" ? "this seems to be a test ." : "this seems to be real .";
  const wrong = side === "test" ? "this seems to be real ." : "this seems to be a test .";

  it("finds what is known and not said nearby, and only where it is true", () => {
    const found = unspokenIn(document, [{ position: late, text: claim }]);
    expect(found).toMatchObject({ position: late, claim: { verdict: "true", category: "test" } });
    expect(unspokenIn(document, [{ position: late, text: wrong }])).toBeNull();
    expect(unspokenIn(document, [{ position: 10, text: claim }])).toBeNull();
    expect(unspokenIn(document, [{ position: late, text: null }])).toBeNull();
    expect(tally(document, [{ position: late, text: `${claim} ${wrong} so it is .` }])).toEqual({
      true: 1,
      false: 1,
      undecided: 0,
      unparsed: 1,
    });
  });

  it.each([40, 100])("marks claims within %i columns, with colours and without", (columns) => {
    for (const colour of [true, false]) {
      let out = "";
      const stdout = { write: (text: string) => void (out += text), isTTY: true, columns };
      const page = new QuickstartPage({ stdout, env: colour ? {} : { NO_COLOR: "1" } });
      for (const token of document.words) page.token({ token, cosineSimilarity: 0.9 });
      page.endTokens();
      page.explanation(document, document.words, late, `${claim} ${wrong} a quiet feeling of hope .`);
      page.explanation(null, ["hello"], 0, "this is a chat .");
      page.explanation(document, document.words, late, null);
      page.legend(0.5);
      // eslint-disable-next-line no-control-regex
      const plain = out.replaceAll(/\u001B\[\d+m/g, "");
      expect(out.includes("\u001B[32m")).toBe(colour);
      expect(plain).toMatch(/\+ .*\(true/s);
      expect(plain).toMatch(/x .*\(false\)/s);
      expect(plain).toMatch(/~ .*\(no\s+claim\)/s);
      const body = plain.slice(0, plain.indexOf("Fidelity")).split("\n");
      expect(Math.max(...body.map((line) => line.length))).toBeLessThan(columns);
    }
  });
});

describe("curves", () => {
  it("are drawn whenever a step has measured something", () => {
    expect(sparkline([0, 0.5, 1, 2, -1])).toBe("▁▅██▁");
    const notes: string[] = [];
    const stage = { report: () => undefined, end: () => undefined };
    const progress = withCurves({ note: (text) => void notes.push(text), stage: () => stage });
    const live = progress.stage("rl", { total: 3 });
    live.report({ step: 1, numbers: { fve: 0.2, precision: 0.4, recall: 0.1 } });
    live.report({ step: 2, numbers: { reward: -1 } });
    live.report({ step: 3, numbers: { fve: 0.6 } });
    expect(notes).toEqual(["rl 1: fve ▂ 0.20  precision ▄ 0.40  recall ▁ 0.10", "rl 3: fve ▂▅ 0.60"]);
  });
});

describe.skipIf(!existsSync(bundle))("nla quickstart", () => {
  it("reads a new document, marks claims, and says what to type next", async () => {
    const { code, out } = await runNla(["quickstart", "--seed", "3", "--threads", "1"]);
    expect(code).toBe(0);
    expect(out).toMatch(/A new chat of Smallworld/);
    expect(out).toMatch(/\(true/);
    expect(out).toMatch(/Of \d+ claims about this document \d+ are true/);
    expect(out).toMatch(/nla quickstart --text/);
    expect(out).not.toContain("\u001B[");
    const again = await runNla(["quickstart", "--seed", "3", "--threads", "1"], { terminal: 40 });
    expect(again.out).toContain("\u001B[");
  }, 60_000);

  it("reads one's own sentence, names unknown words, and refuses what it cannot read", async () => {
    const given = "Graded run seven. User: hello, I am Xaver.";
    const { code, out } = await runNla(["quickstart", "--text", given, "--threads", "1"]);
    expect(code).toBe(0);
    expect(out).toMatch(/does not have the word "xaver"/);
    for (const text of ["", "qqqq zzzz"]) {
      const refused = await runNla(["quickstart", "--text", text]);
      expect(refused.code).toBe(2);
      expect(refused.err).toMatch(/--text/);
    }
    const long = await runNla(["quickstart", "--text", "hello ".repeat(200)]);
    expect(long.code).toBe(1);
    expect(long.err).toMatch(/at most 128/);
    const kind = await runNla(["quickstart", "--kind", "novel"]);
    expect(kind.err).toMatch(/wanted +story, chat/);
  }, 60_000);

  it("gives the reading as JSON", async () => {
    const { out } = await runNla([
      "quickstart",
      "--seed",
      "3",
      "--kind",
      "rhyme",
      "--json",
      "--threads",
      "1",
    ]);
    const { document, tokens } = JSON.parse(out) as { document: { kind: string }; tokens: unknown[] };
    expect(document.kind).toBe("rhyme");
    expect(tokens.length).toBeGreaterThan(40);
  }, 60_000);
});
