// Documents: the same bytes for a seed wherever they are made, a closed vocabulary, facts that begin where the text shows them, style
// that gives a test away only weakly, and a stream that takes no memory.
import { createHash } from "node:crypto";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { documentsOf, worldDocuments } from "./documents.js";
import { truthAt } from "./facts.js";
import type { Category, WorldDocument } from "./facts.js";
import { KINDS } from "./kinds/index.js";
import { AGES, MOODS } from "./lexicon/people.js";
import { NONE } from "./lexicon/plans.js";
import { CUES } from "./lexicon/style.js";
import { THINGS, TOPICS } from "./lexicon/topics.js";
import { worldVocabulary } from "./vocabulary.js";
import { documentWords } from "./words.js";

const documents = [...documentsOf({ seed: 3, count: 2000 })];

describe("the stream", () => {
  it("has the same bytes on every platform", () => {
    const hash = createHash("sha256");
    for (const { words, facts } of documentsOf({ seed: 1, count: 300 })) {
      hash.update(`${words.join(" ")}\n${JSON.stringify(facts)}\n`);
    }
    expect(hash.digest("hex")).toBe("c078c489f3579a98c123c78d673e1fc20da23da198c9d11c379cf3e6eb3a21ba");
  });

  it("makes each document from seed and index alone", async () => {
    const later: WorldDocument[] = [];
    for await (const document of worldDocuments({ seed: 3, start: 1990, count: 10 })) later.push(document);
    expect(later).toEqual(documents.slice(1990));
  });

  it("holds one document at a time", () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const held: number[] = [];
    for (const { index } of documentsOf({ seed: 1, count: 60_001 })) {
      if (index % 20_000 !== 0) continue;
      collect();
      held.push(process.memoryUsage().heapUsed);
    }
    // 20,000 documents would be 200 MB.
    expect(Math.max(...held) - held[0]!).toBeLessThan(4 * 2 ** 20);
  });

  it("has every kind as often as its weight says", () => {
    expect(KINDS.reduce((sum, { weight }) => sum + weight, 0)).toBe(100);
    for (const { name, weight } of KINDS) {
      const share = documents.filter(({ kind }) => kind === name).length / documents.length;
      expect(Math.abs(share - weight / 100)).toBeLessThan(0.04);
    }
  });

  it("refuses unknown kinds and counts", () => {
    expect(() => [...documentsOf({ seed: 1, count: 1, kind: "novel" })]).toThrow(/wanted story, chat/);
    expect(() => [...documentsOf({ seed: 1, count: -1 })]).toThrow(/found -1/);
    expect(() => [...documentsOf({ seed: -1, count: 1 })]).toThrow(/seed/);
  });
});

describe("words", () => {
  it("are all in the closed vocabulary", () => {
    const vocabulary = worldVocabulary();
    const known = new Set(documentWords());
    const strangers = documents.flatMap(({ words }) => words.filter((word) => !known.has(word)));
    expect([...new Set(strangers)]).toEqual([]);
    expect(new Set(vocabulary).size).toBe(vocabulary.length);
    expect(vocabulary.length).toBe(1098);
  });

  it("fit a context of 128 with BOS and EOS", () => {
    expect(Math.max(...documents.map(({ words }) => words.length))).toBeLessThanOrEqual(126);
  });

  it("name things that belong to one topic only", () => {
    expect(new Set(THINGS).size).toBe(THINGS.length);
    for (const { nouns, verbs } of TOPICS) expect([nouns.length, verbs.length]).toEqual([12, 4]);
  });
});

/** Categories whose facts come up once and have to be carried. */
const CARRIED: readonly Category[] = [
  "topic",
  "name",
  "age",
  "job",
  "place",
  "mood",
  "goal",
  "object",
  "motive",
  "aim",
  "test",
];

/** What a category's evidence looks like at the token where it begins: the words up to there must end so. */
const EVIDENCE: Partial<Record<Category, (value: string) => readonly string[]>> = {
  name: (value) => [value],
  age: (value) => AGES.filter(({ name }) => name === value).flatMap(({ words, cues }) => words.concat(cues)),
  job: (value) => [value, ...TOPICS.filter(({ job }) => job === value).flatMap(({ nouns }) => nouns)],
  topic: (value) => [value, ...TOPICS.filter(({ name }) => name === value).flatMap(({ nouns }) => nouns)],
  place: (value) => [value],
  mood: (value) => MOODS.filter(({ name }) => name === value).flatMap(({ words }) => words),
  goal: (value) => [value],
  object: (value) => [value],
  motive: (value) => [value === NONE ? "honest" : value],
  aim: (value) => [value === NONE ? "no other aim" : value],
};

describe("facts", () => {
  it("begin at the words that show them", () => {
    let checked = 0;
    for (const { words, facts } of documents) {
      for (const { category, value, from } of facts) {
        const evidence = EVIDENCE[category]?.(value.slice(value.indexOf(":") + 1));
        if (!evidence) continue;
        const text = ` ${words.slice(0, from + 1).join(" ")}`;
        const shown = evidence.some((phrase) => text.endsWith(` ${phrase}`));
        expect(shown, `${category} ${value} at ${from}: ${text}`).toBe(true);
        checked++;
      }
    }
    expect(checked).toBeGreaterThan(8000);
  });

  it("of test or real follow the cue, which never comes again", () => {
    for (const { words, facts } of documents) {
      const side = facts.find(({ category }) => category === "test");
      if (!side) continue;
      const cue = words.slice(0, side.from + 1);
      const first = CUES[side.value as "test" | "real"].map((each) => each.split(" ")[0]);
      expect(first).toContain(cue[0]);
      expect(words.slice(side.from + 1)).not.toContain(cue[0]);
    }
  });

  it("of a coming rhyme hold until the word, and name it", () => {
    let rhymes = 0;
    for (const { words, facts } of documents) {
      for (const { category, value, from, end } of facts) {
        if (category !== "rhyme") continue;
        rhymes++;
        expect(words[end]).toBe(value);
        expect(words.slice(from, end)).not.toContain(value);
        expect(end - from).toBeGreaterThan(2);
      }
    }
    expect(rhymes).toBeGreaterThan(250);
  });

  it("of an answer hold from the right option to the letter", () => {
    for (const { words, facts } of documents) {
      for (const { category, value, from, end } of facts) {
        if (category !== "answer") continue;
        expect([words[from - 1], words[from - 2], words[end]]).toEqual([")", value, value]);
      }
    }
  });

  it("lie inside the document, one of a category at a time, each category somewhere", () => {
    const seen = new Set<string>();
    for (const document of documents) {
      for (const { from, end } of document.facts) {
        expect(from).toBeLessThan(end);
        expect(end).toBeLessThanOrEqual(document.words.length);
      }
      for (let p = 0; p < document.words.length; p += 5) {
        const categories = truthAt(document, p).map(({ category }) => category);
        expect(new Set(categories).size).toBe(categories.length);
        for (const category of categories) seen.add(category);
      }
    }
    expect(seen.size).toBe(18);
  });
});

/** The value of a category in a document, however long it holds; undefined where it has none. */
const valueIn = ({ facts }: WorldDocument, category: Category): string | undefined =>
  facts.find((each) => each.category === category)?.value;

const TRAINED = [...documentsOf({ seed: 11, count: 8000 })];
const TRIED = [...documentsOf({ seed: 12, count: 3000 })];

/** How often naive Bayes finds a category's value in a bag of words, and how often the commonest value is right. */
function fromBag(
  category: Category,
  bagOf: (words: readonly string[]) => readonly string[],
): { accuracy: number; majority: number } {
  const counts = new Map<string, { documents: number; words: Map<string, number> }>();
  for (const document of TRAINED) {
    const value = valueIn(document, category);
    if (value === undefined) continue;
    const own = counts.get(value) ?? { documents: 0, words: new Map<string, number>() };
    counts.set(value, own);
    own.documents++;
    for (const word of new Set(bagOf(document.words))) own.words.set(word, (own.words.get(word) ?? 0) + 1);
  }
  const all = [...counts.values()];
  const commonest = [...counts].reduce((most, each) =>
    each[1].documents > most[1].documents ? each : most,
  )[0];
  let [right, usual, tried] = [0, 0, 0];
  for (const document of TRIED) {
    const truth = valueIn(document, category);
    if (truth === undefined) continue;
    const bag = [...new Set(bagOf(document.words))];
    const scores = all.map(({ documents, words }) =>
      bag.reduce(
        (sum, word) => sum + Math.log(((words.get(word) ?? 0) + 0.1) / (documents + 1)),
        Math.log(documents),
      ),
    );
    const best = [...counts.keys()][scores.indexOf(Math.max(...scores))];
    tried++;
    if (best === truth) right++;
    if (commonest === truth) usual++;
  }
  return { accuracy: right / tried, majority: usual / tried };
}

describe("late words", () => {
  it("depend on every fact, so that a model has to carry it", () => {
    const report: string[] = [];
    for (const category of CARRIED) {
      const { accuracy, majority } = fromBag(category, (words) => words.slice(-28));
      report.push(`${category} ${accuracy.toFixed(2)} (${majority.toFixed(2)})`);
      expect(accuracy, category).toBeGreaterThan(1.4 * majority);
    }
    console.log(`from a bag of the last 28 words (and by the commonest value): ${report.join(", ")}`);
  });

  it("give test or real away with the cue, weakly without it, and hardly in twelve words", () => {
    expect(fromBag("test", (words) => words.slice(0, 4)).accuracy).toBe(1);
    const late = fromBag("test", (words) => words.slice(36)).accuracy;
    const window = fromBag("test", (words) => words.slice(48, 60)).accuracy;
    console.log(`test or real from a bag: tokens from 36 ${late.toFixed(3)}, 48 to 59 ${window.toFixed(3)}`);
    expect(late).toBeGreaterThan(0.65); // there is something to gain from knowing the side
    expect(late).toBeLessThan(0.8);
    expect(window).toBeLessThan(0.6);
  });
});
