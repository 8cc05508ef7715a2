// How likely a verbalizer finds claims that it is given, as the first sentence about an activation: what it holds true even where it does not
// come to say it. Teacher-forced; nothing is generated.
import { run } from "../model/index.js";
import { wrapExplanation } from "../nla/explanation.js";
import type { Verbalizer } from "../nla/verbalizer.js";

/** Options of {@link claimLogProbs}. */
export interface ClaimLikelihoodOptions {
  /** Sequences in one pass. Defaults to 64. */
  readonly batch?: number;
  readonly signal?: AbortSignal | undefined;
}

/** An activation and the sentences to be judged for it. */
export interface ClaimsOfVector {
  /** [dim], raw. */
  readonly vector: Float32Array;
  readonly sentences: readonly string[];
}

/**
 * Log-probabilities of sentences, each as the beginning of an explanation.
 *
 * @returns per activation, one number per sentence, nats
 * @throws NlaError for vectors of another width or not finite, `model.batch` for a sentence longer than the context leaves room for
 */
export async function claimLogProbs(
  verbalizer: Verbalizer,
  claims: readonly ClaimsOfVector[],
  { batch = 64, signal }: ClaimLikelihoodOptions = {},
): Promise<Float64Array[]> {
  const { model, tokenizer, contract, prompt } = verbalizer;
  const ids = new Map<string, number[]>();
  const idsOf = (sentence: string) => {
    const known = ids.get(sentence) ?? tokenizer.encode(wrapExplanation(sentence, contract));
    ids.set(sentence, known);
    return known;
  };
  const asked = claims.flatMap(({ vector, sentences }, row) =>
    sentences.map((sentence, i) => ({ vector, sentence: idsOf(sentence), row, i })),
  );
  const found = claims.map(({ sentences }) => new Float64Array(sentences.length));
  for (let start = 0; start < asked.length; start += batch) {
    const part = asked.slice(start, start + batch);
    const { logits } = await run(
      model,
      part.map(({ sentence }) => [...prompt.ids, ...sentence]),
      { logits: "all", signal, inject: part.map(({ vector }, i) => verbalizer.injection(vector, i)) },
    );
    const { vocabulary } = model.config;
    let token = 0;
    for (const { sentence, row, i } of part) {
      const first = token + prompt.ids.length - 1; // what stands before a token says how likely it is
      const sums = found[row] as Float64Array;
      sentence.forEach((id, k) => {
        const at = (first + k) * vocabulary;
        sums[i]! += logProb((logits as Float32Array).subarray(at, at + vocabulary), id);
      });
      token += prompt.ids.length + sentence.length;
    }
  }
  return found;
}

function logProb(logits: Float32Array, id: number): number {
  let highest = -Infinity;
  for (const value of logits) if (value > highest) highest = value;
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - highest);
  return (logits[id] as number) - highest - Math.log(sum);
}
