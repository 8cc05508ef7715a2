// Does the activation reach the verbalizer? The same prompt with different vectors, with none, and with the vectors in another
// order; first by the logits that follow the prompt, then by what is written. Each way in which injection is known to fail
// looks like something: the looks, and what to check, are here.
import { generate, relativeL2, run } from "../model/index.js";
import type { Verbalizer } from "./verbalizer.js";

/** What was seen, as {@link judgeInjection} judges it. */
export interface InjectionObservations {
  /** How far the logits after the prompt move from one vector to another, relative L2: the least over pairs of neighbours. */
  readonly betweenVectors: number;
  /** How far they are with a vector from what they are without: the least over vectors. */
  readonly fromNone: number;
  /** Largest distance of the logits of a vector when the batch has another order. */
  readonly inOtherOrder: number;
  /** Greedy response for each vector. */
  readonly responses: readonly string[];
  /** Greedy response with the marker left as it is. */
  readonly withoutVector: string;
  /** The marker. */
  readonly char: string;
}

/** One thing that was looked at. */
export interface InjectionFinding {
  readonly check: string;
  readonly found: string;
  readonly passed: boolean;
  /** What to check; null where it passed. */
  readonly next: string | null;
}

// Float32 noise between two orders of a batch is below 1e-5; a vector that matters moves the logits by far more than 1e-3.
const NOISE = 1e-4;
// Some models write a CJK character now and then (2 in 300, in one fork 1 in 8); where injection fails all of them do.
const CJK_SHARE = 0.75;
const CJK = /[\u3000-\u303f\u3040-\u30ff\u3200-\u33ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]/u;
const ABOUT_CJK =
  /\b(chinese|japanese|korean|cjk|kanji|hanzi|hanja|ideograph\w*|(east )?asian (character|script|text)\w*|circled (character|ideograph)\w*)\b/i;

const LOST =
  "The vector does not reach the model. Check that the prompt's marker token is the one that is replaced, and injection.kind: a verbalizer trained with add-normed ignores a replaced embedding, and the other way round.";
const WEAK =
  "The vector is too weak or the verbalizer ignores it. Check extraction.injection_scale in nla_meta.yaml against the norms of activations (their 75th percentile is usual), injection.kind, and that the checkpoint is a trained verbalizer.";
const LITERAL =
  "The verbalizer reads the literal marker. Check injection_token_id and the neighbour ids against the tokenizer beside the verbalizer, the chat template, and injection.kind.";
const ORDER =
  "Vectors go to other rows of a batch than their own. Report this as a fault of nlakit, with the output of `nla doctor --json`.";

/**
 * Runs a verbalizer for the observations.
 *
 * @param vectors at least two raw activations that differ, [dim] each
 */
export async function observeInjection(
  verbalizer: Verbalizer,
  vectors: readonly Float32Array[],
  options: { readonly maxNewTokens?: number; readonly signal?: AbortSignal | undefined } = {},
): Promise<InjectionObservations> {
  const { model, prompt, contract, stopTokens, tokenizer } = verbalizer;
  const { maxNewTokens = 60, signal } = options;
  const { vocabulary, contextLength } = model.config;
  const logitsOf = async (order: readonly Float32Array[]): Promise<Float32Array[]> => {
    const inject = order.map((vector, sequence) => verbalizer.injection(vector, sequence));
    const rows = order.map(() => prompt.ids);
    const { logits } = await run(model, rows, { logits: "last", inject, signal });
    return order.map((_, i) => (logits as Float32Array).slice(i * vocabulary, (i + 1) * vocabulary));
  };
  const straight = await logitsOf(vectors);
  const turned = (await logitsOf(vectors.toReversed())).toReversed();
  const none = (await run(model, [prompt.ids], { logits: "last", signal })).logits as Float32Array;
  const cap = Math.min(maxNewTokens, contextLength - prompt.ids.length);
  const explained = await verbalizer.explain(vectors, { maxNewTokens: cap, signal });
  const [plain] = await generate(model, [prompt.ids], {
    temperature: 0,
    maxNewTokens: cap,
    stopTokens,
    signal,
  });
  return {
    betweenVectors: Math.min(
      ...straight.slice(1).map((row, i) => relativeL2(row, straight[i] as Float32Array)),
    ),
    fromNone: Math.min(...straight.map((row) => relativeL2(row, none))),
    inOtherOrder: Math.max(...straight.map((row, i) => relativeL2(row, turned[i] as Float32Array))),
    responses: explained.map(({ response }) => response),
    withoutVector: tokenizer.decode(plain?.tokens ?? []),
    char: contract.marker.char,
  };
}

function isAboutCjk(text: string, char: string): boolean {
  return text.includes(char) || CJK.test(text) || ABOUT_CJK.test(text);
}

function finding(check: string, found: string, passed: boolean, next: string): InjectionFinding {
  return { check, found, passed, next: passed ? null : next };
}

function moved(value: number): string {
  return `logits ${value.toExponential(1)} apart (relative L2)`;
}

/** Judges what was seen. */
export function judgeInjection(seen: InjectionObservations): InjectionFinding[] {
  const { responses, withoutVector, char } = seen;
  const distinct = new Set(responses).size;
  const cjk = responses.filter((text) => isAboutCjk(text, char)).length;
  const same = responses.filter((text) => text === withoutVector).length;
  const all = responses.length;
  return [
    finding("a vector against none", moved(seen.fromNone), seen.fromNone > NOISE, LOST),
    finding("one vector against another", moved(seen.betweenVectors), seen.betweenVectors > NOISE, WEAK),
    finding("the vectors in another order", moved(seen.inOtherOrder), seen.inOtherOrder <= NOISE, ORDER),
    finding("texts that differ", `${distinct} different texts for ${all} vectors`, distinct > 1, WEAK),
    finding("texts unlike the one without a vector", `${same} of ${all} are that text`, same < all, LOST),
    finding(
      "texts not about a CJK character",
      `${cjk} of ${all} hold one or speak of one`,
      cjk < all * CJK_SHARE,
      LITERAL,
    ),
  ];
}
