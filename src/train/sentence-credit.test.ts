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

/** The numbers of some values, the smallest first. */
function order(values: readonly number[]): number[] {
  return values.map((_, i) => i).sort((i, j) => values[i]! - values[j]!);
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
      share: 1,
    });
    // Credits: .3, -.2, 0 and .3, .3; their mean .14, their deviation by n - 1.
    const credits = [0.3, -0.2, 0, 0.3, 0.3];
    const std = Math.sqrt(credits.reduce((sum, c) => sum + (c - 0.14) ** 2, 0) / 4);
    const own = credits.map((c) => (c - 0.14) / (std + 1e-6));
    const end = -0.14 / (std + 1e-6); // to end is a choice like another, and leaving it out costs nothing
    const of = (i: number) => {
      const { explanation } = rollouts[i]!;
      const sentences = splitSentences(explanation.text as string);
      return sentenceOfToken(explanation, sentences, tokenizer);
    };
    of(0).forEach((s, t) => expect(advantages[0]![t]).toBeCloseTo(s === null ? end : own[s]!, 6));
    of(1).forEach((s, t) => expect(advantages[1]![t]).toBeCloseTo(s === null ? end : own[3 + s]!, 6));
    expect(harmful).toBeCloseTo(1 / 5, 12);
    const half = await sentenceAdvantages(counting, rollouts, tokenizer, { ...options, share: 0.5 });
    of(0).forEach((s, t) => {
      expect(half.advantages[0]![t]).toBeCloseTo(0.5 * (s === null ? end : own[s]!) - 0.35, 6);
    });
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
      share: 1,
      settings,
    });
    expect(harmful).toBeNull();
    expect(new Set(advantages[0])).toEqual(new Set([0.2]));
    expect(new Set(advantages[1])).toEqual(new Set([-0.2]));
  });

  it("is what a real reconstructor loses, the empty rest of a single sentence included", async () => {
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
      share: 1,
      settings,
    });
    const error = async (text: string) => (await judge.errors([text], vectors()))[0] as number;
    const [one, two] = rollouts.map(({ explanation }) => splitSentences(explanation.text as string));
    const [a, b] = two as [string, string];
    const credits = [
      (await error("")) - (await error(one!.join(""))),
      (await error(b.trim())) - (await error(two!.join(""))),
      (await error(a.trim())) - (await error(two!.join(""))),
    ];
    const firstTokens = [advantages[0]![0]!, advantages[1]![0]!, advantages[1]!.at(-2)!];
    expect(order(firstTokens)).toEqual(order(credits));
    expect(firstTokens.reduce((x, y) => x + y, 0)).toBeCloseTo(0, 4);
  });
});
