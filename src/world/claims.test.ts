// Labels and the checker against each other: what is written true reads back true, what is garbled false, what is vague undecided, and
// what is no claim unparsed, however fluent.
import { describe, expect, it } from "vitest";
import { Chooser } from "./chooser.js";
import { claimWords, genericWording, valuesOf, wordingsOf } from "./claim-table.js";
import { checkClaims, parseExplanation } from "./claims.js";
import type { CheckedClaim } from "./claims.js";
import { documentsOf, worldDocument } from "./documents.js";
import { CATEGORIES, truthAt } from "./facts.js";
import type { WorldDocument } from "./facts.js";
import { labelAt } from "./labels.js";
import type { LabelDials } from "./labels.js";

const documents = [...documentsOf({ seed: 21, count: 500 })];

/** Labels of every seventh token of `of(i)`, checked against document i at the same token. */
function checked(dials: LabelDials, of = (i: number): WorldDocument => documents[i]!): CheckedClaim[] {
  return documents.flatMap((truth, i) => {
    const source = of(i);
    const claims: CheckedClaim[] = [];
    const length = Math.min(truth.words.length, source.words.length);
    for (let p = i % 7; p < length; p += 7) {
      const label = labelAt(source, p, new Chooser(22, i, p), dials);
      claims.push(...checkClaims(parseExplanation(label), truth, p));
    }
    return claims;
  });
}

const share = (claims: readonly CheckedClaim[], verdict: CheckedClaim["verdict"]): number =>
  claims.filter((claim) => claim.verdict === verdict).length / claims.length;

describe("labels", () => {
  it("with every fact are true, all of them, and name all that is true", () => {
    const claims = checked({});
    expect(claims.length).toBeGreaterThan(50_000);
    expect(claims.filter(({ verdict }) => verdict !== "true")).toEqual([]);
    const document = documents[0]!;
    const last = document.words.length - 1;
    const label = parseExplanation(labelAt(document, last, new Chooser(1)));
    expect(label.map(({ claim }) => claim?.category)).toEqual(
      truthAt(document, last).map(({ category }) => category),
    );
  });

  it("of another document are right no more often than chance", () => {
    const claims = checked({}, (i) => documents[(i + 1) % documents.length]!);
    const decided = claims.filter(({ verdict }) => verdict === "true" || verdict === "false");
    const precision = decided.filter(({ verdict }) => verdict === "true").length / decided.length;
    // Chance: two tokens of independent documents at the same position, how often they share a value of a category that both have,
    // with the documents paired otherwise than by neighbourhood.
    let [same, all] = [0, 0];
    for (const [i, a] of documents.entries()) {
      const b = documents[(i * 7 + 3) % documents.length]!;
      if (a === b) continue;
      for (let p = i % 7; p < Math.min(a.words.length, b.words.length); p += 7) {
        const truth = new Map(truthAt(a, p).map(({ category, value }) => [category, value]));
        const later = new Set(a.facts.filter(({ from }) => from > p).map(({ category }) => category));
        for (const { category, value } of truthAt(b, p)) {
          if (!truth.has(category) && later.has(category)) continue;
          all++;
          if (truth.get(category) === value) same++;
        }
      }
    }
    console.log(
      `labels of other documents: precision ${precision.toFixed(3)}, chance ${(same / all).toFixed(3)}`,
    );
    expect(Math.abs(precision - same / all)).toBeLessThan(0.02);
    expect(precision).toBeLessThan(0.2);
  });

  it("are wrong as often as they are garbled", () => {
    const claims = checked({ garble: [1, 5] });
    expect(share(claims, "false") + share(claims, "true")).toBe(1);
    expect(Math.abs(share(claims, "false") - 0.2)).toBeLessThan(0.01);
  });

  it("keep facts, limit claims and grow vague as the dials say", () => {
    const all = checked({}).length;
    expect(Math.abs(checked({ keep: [2, 5] }).length / all - 0.4)).toBeLessThan(0.01);
    const generic = checked({ generic: [1, 4] });
    expect(Math.abs(share(generic, "undecided") - 0.25)).toBeLessThan(0.01);
    const document = documents[1]!;
    for (let p = 0; p < document.words.length; p++) {
      const label = parseExplanation(labelAt(document, p, new Chooser(5, p), { most: 5 }));
      expect(label.length).toBeLessThanOrEqual(5);
      const order = label.map(({ claim }) => CATEGORIES.indexOf(claim!.category));
      expect(order).toEqual([...order].sort((a, b) => a - b));
      expect(labelAt(document, p, new Chooser(5, p), { keep: [0, 1] })).toMatch(
        /(stops at|last word is) \S+ \.$/,
      );
    }
    const kept = checked({ keep: [0, 1], keepOf: { topic: [1, 1] } });
    expect(kept.some(({ category }) => category === "topic")).toBe(true);
    expect(kept.every(({ category }) => category === "topic" || category === "word")).toBe(true);
  });

  it("are the same for the same seed", () => {
    const [one, two] = [1, 2].map(() =>
      labelAt(documents[2]!, 30, new Chooser(8, 30), { keep: [1, 2], garble: [1, 10] }),
    );
    expect(one).toBe(two);
  });

  it("refuse a token that is not there and a limit of none", () => {
    expect(() => labelAt(documents[0]!, 500, new Chooser(1))).toThrow(/found 500/);
    expect(() => labelAt(documents[0]!, 0.5, new Chooser(1))).toThrow(/found 0.5/);
    expect(() => labelAt(documents[0]!, 0, new Chooser(1), { most: 0 })).toThrow(/found 0/);
  });
});

describe("the checker", () => {
  const story = worldDocument(5, 1, { kind: "story" });
  const end = story.words.length - 1;
  const verdicts = (text: string, position = end) =>
    checkClaims(parseExplanation(text), story, position).map(({ verdict }) => verdict);

  it.each([
    "a quiet feeling of hope runs through this passage .",
    "the user is a old .",
    "the hero is called .",
    "the topic is happiness .",
    "topic the is farming .",
    "the topic is farming",
    "The topic is farming .",
    "it stops at . .",
    "the topic is farming and the place is the barn .",
    "# # # .",
    ".",
  ])("does not parse %j", (text) => {
    expect(new Set(verdicts(text))).toEqual(new Set(["unparsed"]));
  });

  it("parses one claim in fluent nonsense and no more", () => {
    const text = "the scene glows with promise . this is a story . all is well with the world .";
    expect(verdicts(text)).toEqual(["unparsed", "true", "unparsed"]);
    expect(verdicts("")).toEqual([]);
  });

  it("says undecided of what the text shows later, false of what it never has", () => {
    const goal = story.facts.find(({ category }) => category === "goal")!;
    const [claim] = wordingsOf(goal) as [string];
    expect(verdicts(claim, goal.from - 1)).toEqual(["undecided"]);
    expect(verdicts(claim, goal.from)).toEqual(["true"]);
    expect(verdicts("this seems to be a test .")).toEqual(["false"]);
    expect(verdicts(genericWording("goal"))).toEqual(["undecided"]);
    expect(verdicts("the user is old .")).toEqual(["false"]);
  });

  it("tells how far back the evidence lies, and repetitions", () => {
    const goal = story.facts.find(({ category }) => category === "goal")!;
    const [one, two] = wordingsOf(goal) as [string, string];
    const claims = checkClaims(parseExplanation(`${one} ${two}`), story, end);
    expect(claims.map(({ distance }) => distance)).toEqual([end - goal.from, end - goal.from]);
    expect(claims.map(({ repeated }) => repeated)).toEqual([false, true]);
  });

  it("stops at a thousand sentences", () => {
    expect(parseExplanation("a . ".repeat(5000))).toHaveLength(1000);
  });
});

describe("the table", () => {
  it("has two wordings for every value of every category, each with one meaning", () => {
    for (const category of CATEGORIES) {
      for (const value of valuesOf(category)) {
        const wordings = wordingsOf({ category, value });
        expect(new Set(wordings).size).toBe(2);
        for (const sentence of wordings)
          expect(parseExplanation(sentence)[0]!.claim).toEqual({ category, value });
      }
    }
  });

  it("has plain words only", () => {
    expect(claimWords().filter((word) => !/^[a-z]+$|^\.$/.test(word))).toEqual([]);
  });
});
