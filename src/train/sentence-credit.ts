// Credit by sentence: what the reconstruction loses when a sentence is left out, as the advantage of that sentence's tokens. An explanation's
// one reward praises and blames all of its sentences alike; this tells them apart, by the reconstructor alone and for text of any kind.
// Not the group's advantage itself (advantage.ts) and not the loss (policy-math.ts).
import type { Explanation } from "../nla/verbalizer.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { Judge } from "./judge.js";
import { rewardOfMse } from "./reward.js";
import { rewardOptions } from "./rollout.js";
import type { RewardSettings, Rollout } from "./rollout.js";

// A stop that a blank follows, with the quotes and brackets it closes; a full-width stop; the end of a line. What stands behind it, up to the
// next word, belongs to the sentence before.
const SENTENCE_END = /(?:[.!?…]+["'”’)\]]*(?=\s|$)|[。！？]+|\n)\s*/gu;

/** The sentences of a text, which put together are the text again. A text without an end is one sentence, an empty one has none. */
export function splitSentences(text: string): string[] {
  const ends = [...text.matchAll(SENTENCE_END)].map(({ 0: end, index }) => index + end.length);
  const cuts = [0, ...ends, text.length];
  return cuts.slice(1).flatMap((end, i) => (end > cuts[i]! ? [text.slice(cuts[i], end)] : []));
}

/**
 * The sentence that each token of a response belongs to: the one its last character is in.
 *
 * @param sentences of `explanation.text`
 * @returns [tokens]; null for tokens outside the explanation: tags, and what ends a response
 */
export function sentenceOfToken(
  { text, response, tokens }: Pick<Explanation, "text" | "response" | "tokens">,
  sentences: readonly string[],
  tokenizer: Pick<Tokenizer, "decode">,
): (number | null)[] {
  const start = text === null ? -1 : response.indexOf(text);
  if (start < 0) return tokens.map(() => null);
  const ends = sentences.map(
    (
      (end) => (sentence: string) =>
        (end += sentence.length)
    )(start),
  );
  // Beginnings are decoded anew, since a token's text depends on its neighbours (blanks, characters of several tokens).
  let before = 0;
  return tokens.map((_, i) => {
    const length = Math.min(tokenizer.decode(tokens.slice(0, i + 1)).length, response.length);
    const last = length > before ? length - 1 : -1;
    before = Math.max(before, length);
    if (last < start) return null;
    const sentence = ends.findIndex((end) => last < end);
    return sentence < 0 ? null : sentence;
  });
}

/** Options of {@link sentenceAdvantages}. */
export interface SentenceCreditOptions {
  /** Advantage of each explanation, 0 to be kept in groups that teach nothing. [rollouts] */
  readonly advantages: ArrayLike<number>;
  /** Explanations per activation. */
  readonly groupSize: number;
  /** What a sentence's own credit counts beside its explanation's advantage. */
  readonly weight: number;
  readonly settings: RewardSettings;
  readonly signal?: AbortSignal | undefined;
}

/** What {@link sentenceAdvantages} finds. */
export interface SentenceCredit {
  /** Per rollout and token. */
  readonly advantages: readonly (readonly number[])[];
  /** Share of sentences without which the reconstruction is better; null where there is no sentence. */
  readonly harmful: number | null;
}

/**
 * Advantages per token: A of the explanation + weight · (c - mean) / (std + 1e-6), where c is the reward that is lost when the token's sentence
 * is left out, the mean is that of the same explanation's sentences and std is taken over all of the activation's group around those means.
 * Tokens outside sentences have their explanation's advantage, and so has a failed explanation, whose sentences were never read.
 *
 * Within an explanation credit only moves from one sentence to another. Held against the whole group instead, few sentences were best: one
 * that stands alone is missed more than any of five that say the same thing in part (docs/log.md).
 *
 * @param rollouts groups contiguous
 */
export async function sentenceAdvantages(
  judge: Judge,
  rollouts: readonly Rollout[],
  tokenizer: Pick<Tokenizer, "decode">,
  { advantages, groupSize, weight, settings, signal }: SentenceCreditOptions,
): Promise<SentenceCredit> {
  const parts = rollouts.map(({ failed, explanation: { text } }) => {
    return failed || text === null ? [] : splitSentences(text);
  });
  const credits = await creditsOf(judge, rollouts, parts, settings, signal);
  const perToken: number[][] = [];
  for (let start = 0; start < rollouts.length; start += groupSize) {
    const centred = credits.slice(start, start + groupSize).map(around);
    const known = centred.flat().filter((credit) => credit !== null);
    const std = Math.sqrt(known.reduce((sum, credit) => sum + credit ** 2, 0) / Math.max(1, known.length));
    centred.forEach((own, i) => {
      const { explanation } = rollouts[start + i] as Rollout;
      const whole = advantages[start + i] as number;
      const sentenceOf = sentenceOfToken(explanation, parts[start + i] as string[], tokenizer);
      perToken.push(
        sentenceOf.map((sentence) => {
          const credit = sentence === null ? null : (own[sentence] ?? null);
          return credit === null ? whole : whole + (weight * credit) / (std + 1e-6);
        }),
      );
    });
  }
  const all = credits.flat().filter((credit) => credit !== null);
  const harmful = all.length === 0 ? null : all.filter((credit) => credit < 0).length / all.length;
  return { advantages: perToken, harmful };
}

/** Credits less their mean; null stays null. */
function around(credits: readonly (number | null)[]): (number | null)[] {
  const known = credits.filter((credit) => credit !== null);
  const mean = known.reduce((sum, credit) => sum + credit, 0) / Math.max(1, known.length);
  return credits.map((credit) => (credit === null ? null : credit - mean));
}

/** The reward that each sentence's absence costs; null where the reconstructor cannot take the rest. */
async function creditsOf(
  judge: Judge,
  rollouts: readonly Rollout[],
  parts: readonly (readonly string[])[],
  settings: RewardSettings,
  signal?: AbortSignal,
): Promise<(number | null)[][]> {
  const { kind } = rewardOptions(settings);
  const rests = parts.flatMap((sentences) =>
    sentences.map((_, left) =>
      sentences
        .filter((_, s) => s !== left)
        .join("")
        .trim(),
    ),
  );
  const vectors = parts.flatMap((sentences, i) => sentences.map(() => (rollouts[i] as Rollout).vector));
  const errors = await judge.errors(rests, vectors, signal);
  let next = 0;
  return parts.map((sentences, i) =>
    sentences.map(() => {
      const error = errors[next++] ?? null;
      return error === null ? null : (rollouts[i] as Rollout).reward - rewardOfMse(error, kind);
    }),
  );
}
