// Sentences of texts and tokens, and what each is worth: on a judge whose errors are a sum over the words it is given, where credit can be
// worked out by hand, and on a real reconstructor.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Explanation } from "../nla/verbalizer.js";
import { judgeOf } from "./judge.js";
import type { Judge } from "./judge.js";
import { scoreExplanations } from "./rollout.js";
import { sentenceAdvantages, sentenceOfToken, splitSentences } from "./sentence-credit.js";
import { openTinyTraining, tinyConfig } from "./testing/tiny-training.js";
import type { TinyPair, TinyTraining } from "./testing/tiny-training.js";

let tiny: TinyTraining;
let pair: TinyPair;
beforeAll(async () => {
  tiny = await openTinyTraining(1);
  pair = tiny.pair();
});
afterAll(() => {
  pair[Symbol.dispose]();
  tiny[Symbol.dispose]();
});

function explained(text: string, vector = 0): Explanation {
  const { tokenizer } = pair.verbalizer;
  const tokens = [...tokenizer.encode(text), tokenizer.eosId as number];
  const response = tokenizer.decode(tokens);
  const numbers = tokens.map(() => -1);
  return { text: response, response, tokens, logProbs: numbers, entropies: numbers, finish: "stop", vector };
}

describe("splitSentences", () => {
  it.each([
    ["", []],
    ["no end", ["no end"]],
    ["a b . c d .", ["a b . ", "c d ."]],
    ["He left. Why?! “So.” Then", ["He left. ", "Why?! ", "“So.” ", "Then"]],
    ["3.5 of v1.2 is one", ["3.5 of v1.2 is one"]],
    ["- one\n- two\n\nthree", ["- one\n", "- two\n\n", "three"]],
    ["他走了。为什么？好", ["他走了。", "为什么？", "好"]],
  ])("of %j", (text, sentences) => {
    expect(splitSentences(text)).toEqual(sentences);
    expect(splitSentences(text).join("")).toBe(text);
  });
});

describe("sentenceOfToken", () => {
  it("gives each token the sentence that its last character is in, and the end of a response none", () => {
    const explanation = explained("the king was dead. he wept.");
    const { tokenizer } = pair.verbalizer;
    const sentences = splitSentences(explanation.text as string);
    expect(sentences).toHaveLength(2);
    const found = sentenceOfToken(explanation, sentences, tokenizer);
    expect(found).toHaveLength(explanation.tokens.length);
    expect(found.at(-1)).toBeNull();
    const numbers = found.slice(0, -1) as number[];
    expect(numbers).toEqual([...numbers].sort());
    // What stands before the first token of the second sentence, decoded, is the first sentence, but for a blank.
    const cut = numbers.indexOf(1);
    expect(tokenizer.decode(explanation.tokens.slice(0, cut)).trim()).toBe(sentences[0]!.trim());
  });

  it("leaves out tags", () => {
    const { tokenizer } = pair.verbalizer;
    const response = "<explanation>\nit rains. he left.\n</explanation>";
    const tokens = tokenizer.encode(response);
    const decoded = tokenizer.decode(tokens);
    const found = sentenceOfToken(
      { text: "it rains. he left.", response: decoded, tokens },
      ["it rains. ", "he left."],
      tokenizer,
    );
    const inside = tokens.filter((_, i) => found[i] !== null);
    expect(tokenizer.decode(inside)).toContain("it rains. he left.");
    expect(tokenizer.decode(inside).length).toBeLessThan(decoded.length - 15);
    expect([found[0], found.at(-1)]).toEqual([null, null]);
  });
});

/** Each "good" takes .3 from an error of 1.5, each "bad" adds .2, other words nothing. */
const counting: Judge = {
  errors: (texts) =>
    Promise.resolve(
      texts.map((text) => {
        if (text === null) return null;
        const count = (word: string) => text.split(/[\s.]+/).filter((each) => each === word).length;
        return 1.5 - 0.3 * count("good") + 0.2 * count("bad");
      }),
    ),
};

function vectors(): Float32Array[] {
  return [tiny.rows[0]!.vector];
}

describe("sentenceAdvantages", () => {
  const { rl: settings } = tinyConfig({ rl: { group: 2, max_sentences: 3 } });
  it("praises the sentence that helps and blames the one that harms, within one explanation", async () => {
    const rollouts = await scoreExplanations(
      counting,
      [explained("it is good. it is bad. it rains."), explained("good. good.")],
      vectors(),
      settings,
    );
    expect(rollouts.map(({ reward }) => reward)).toEqual(
      [-1.4, -0.9].map((r) => expect.closeTo(r, 9) as number),
    );
    const options = { advantages: [-0.7, 0.7], groupSize: 2, settings };
    const { tokenizer } = pair.verbalizer;
    const { advantages, harmful } = await sentenceAdvantages(counting, rollouts, tokenizer, {
      ...options,
      weight: 0.5,
    });
    // Credits: .3, -.2, 0 of the first, around .1 / 3; .3, .3 of the second, around .3.
    const centred = [0.3, -0.2, 0].map((credit) => credit - 0.1 / 3);
    const std = Math.sqrt(centred.reduce((sum, credit) => sum + credit ** 2, 0) / 5);
    const { explanation } = rollouts[0]!;
    const sentences = splitSentences(explanation.text as string);
    sentenceOfToken(explanation, sentences, tokenizer).forEach((sentence, t) => {
      const own = sentence === null ? 0 : centred[sentence]! / (std + 1e-6);
      expect(advantages[0]![t]).toBeCloseTo(-0.7 + 0.5 * own, 6);
    });
    // Equal sentences share what they earned: none is praised above the other, and one alone is not either.
    for (const advantage of advantages[1]!) expect(advantage).toBeCloseTo(0.7, 9);
    expect(harmful).toBeCloseTo(1 / 5, 12);
  });

  it("leaves a failed explanation its own advantage, and says nothing of no sentence", async () => {
    const rollouts = await scoreExplanations(
      counting,
      [explained("good . good . good . good ."), { ...explained("good ."), finish: "length" }],
      vectors(),
      settings,
    );
    expect(rollouts.map(({ failed }) => failed)).toEqual([true, true]);
    const { advantages, harmful } = await sentenceAdvantages(counting, rollouts, pair.verbalizer.tokenizer, {
      advantages: [0.2, -0.2],
      groupSize: 2,
      weight: 1,
      settings,
    });
    expect(harmful).toBeNull();
    expect(new Set(advantages[0])).toEqual(new Set([0.2]));
    expect(new Set(advantages[1])).toEqual(new Set([-0.2]));
  });

  it("is what a real reconstructor loses", async () => {
    const judge = judgeOf([pair.reconstructor]);
    const rollouts = await scoreExplanations(
      judge,
      [explained("the king wept."), explained("a long way. the sea.")],
      vectors(),
      settings,
    );
    const { advantages } = await sentenceAdvantages(judge, rollouts, pair.verbalizer.tokenizer, {
      advantages: [0, 0],
      groupSize: 2,
      weight: 1,
      settings,
    });
    const error = async (text: string) => (await judge.errors([text], vectors()))[0] as number;
    const [a, b] = splitSentences(rollouts[1]!.explanation.text as string) as [string, string];
    // Of two sentences one is as much above their mean as the other is below, and they alone make the spread: one over the root of 2 / 3.
    const more = (await error(b.trim())) > (await error(a.trim())) ? 1 : -1;
    const far = Math.sqrt(3 / 2);
    expect(advantages[1]![0]).toBeCloseTo(more * far, 3);
    expect(advantages[1]!.at(-2)).toBeCloseTo(-more * far, 3);
    // A sentence alone is nothing to compare.
    for (const advantage of advantages[0]!) expect(advantage).toBe(0);
  });
});
