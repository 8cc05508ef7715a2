// The verbalizer (AV): a whole decoder that continues a fixed prompt in which one token's embedding is an activation.
import { NlaError } from "../error.js";
import { checkLayer, generate } from "../model/index.js";
import type { Decoder, Generated, Injection } from "../model/index.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { verbalizerPrompt } from "./contract.js";
import type { Contract, VerbalizerPrompt } from "./contract.js";
import { extractExplanation } from "./explanation.js";
import { ADDED_AFTER_BLOCK, scaleToNorm } from "./injection.js";

/** Options of {@link Verbalizer.explain}. */
export interface ExplainOptions {
  /** Explanations per activation. Defaults to 1. */
  readonly samples?: number;
  /** 0 is greedy. Defaults to 0. */
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  /** Cap on a response. Defaults to 200, or what the context leaves. */
  readonly maxNewTokens?: number;
  /** Seed of the first sample; sample i has seed + i. Defaults to 0. */
  readonly seed?: number;
  readonly compute?: "f32" | "bf16";
  readonly signal?: AbortSignal | undefined;
}

/** One explanation of one activation. */
export interface Explanation extends Pick<Generated, "tokens" | "logProbs" | "entropies" | "finish"> {
  /** Number of the activation. */
  readonly vector: number;
  /** The explanation, stripped; null where none could be extracted or the response was cut off. */
  readonly text: string | null;
  /** The response as generated, special tokens left out. */
  readonly response: string;
}

/** A verbalizer with its tokenizer and contract. It owns its decoder. */
export class Verbalizer implements Disposable {
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
  readonly contract: Contract;
  readonly prompt: VerbalizerPrompt;
  /** The block after which the activation is added; null: it replaces an embedding. */
  readonly injectedAfter: number | null;
  /** Tokens that end a response. */
  readonly stopTokens: readonly number[];

  /** @throws NlaError `contract.*` where the contract does not hold, `contract.width`, `contract.vocabulary` */
  constructor(model: Decoder, tokenizer: Tokenizer, contract: Contract) {
    checkWidth(model, contract, "verbalizer");
    checkVocabulary(model, tokenizer);
    this.model = model;
    this.injectedAfter = contract.injection.kind === "add-normed" ? ADDED_AFTER_BLOCK : null;
    if (this.injectedAfter !== null) checkLayer(this.injectedAfter, model.config.layers);
    this.tokenizer = tokenizer;
    this.contract = contract;
    this.prompt = verbalizerPrompt(contract, tokenizer);
    const ends = new Set(model.config.eosIds);
    if (tokenizer.eosId !== null) ends.add(tokenizer.eosId);
    this.stopTokens = [...ends];
  }

  /**
   * Explains activations.
   *
   * @param vectors raw activations, [dim] each
   * @returns vectors · samples explanations, activation after activation
   * @throws NlaError for vectors of another width or not finite
   */
  async explain(vectors: readonly Float32Array[], options: ExplainOptions = {}): Promise<Explanation[]> {
    const { samples = 1, temperature = 0, maxNewTokens = 200, ...rest } = options;
    const room = this.model.config.contextLength - this.prompt.ids.length;
    const generated = await generate(
      this.model,
      vectors.map(() => this.prompt.ids),
      {
        ...rest,
        samples,
        temperature,
        maxNewTokens: Math.min(maxNewTokens, room),
        stopTokens: this.stopTokens,
        inject: vectors.map((vector, sequence) => this.injection(vector, sequence)),
      },
    );
    return generated.map((each) => this.#explanation(each));
  }

  /** How an activation enters sequence `sequence` of a batch that begins with the prompt. */
  injection(vector: Float32Array, sequence: number): Injection {
    if (vector.length !== this.contract.dim) {
      throw new NlaError({
        code: "contract.width",
        subject: "an activation to explain",
        found: `${vector.length} elements`,
        wanted: `${this.contract.dim}, the width that the verbalizer was trained for`,
        next: "Take it from the model that the pair belongs to.",
      });
    }
    const { kind, scale } = this.contract.injection;
    return {
      sequence,
      position: this.prompt.site,
      // What is added gets its length in the graph, from the state that it is added to.
      vector: scaleToNorm(vector, kind === "replace" ? scale : null),
      after: this.injectedAfter,
    };
  }

  #explanation({ prompt, tokens, logProbs, entropies, finish }: Generated): Explanation {
    const response = this.tokenizer.decode(tokens);
    const cut = finish === "length" && this.contract.format === "plain";
    const extracted = cut ? null : extractExplanation(response, { format: this.contract.format });
    return { vector: prompt, text: extracted, response, tokens, logProbs, entropies, finish };
  }

  [Symbol.dispose](): void {
    this.model[Symbol.dispose]();
  }
}

/** @throws NlaError `contract.width` where a model is not as wide as the contract says */
export function checkWidth(model: Decoder, contract: Contract, role: string): void {
  if (model.config.dim === contract.dim) return;
  throw new NlaError({
    code: "contract.width",
    subject: `the ${role}`,
    found: `a model of width ${model.config.dim}`,
    wanted: `width ${contract.dim}, as the sidecar says (d_model)`,
    next: "The sidecar and the weights must be of the same checkpoint.",
  });
}

/** @throws NlaError `contract.vocabulary` where a tokenizer has ids that the model has no embedding for */
export function checkVocabulary(model: Decoder, tokenizer: Tokenizer): void {
  if (tokenizer.size <= model.config.vocabulary) return;
  throw new NlaError({
    code: "contract.vocabulary",
    subject: tokenizer.directory,
    found: `a tokenizer of ${tokenizer.size} ids`,
    wanted: `at most ${model.config.vocabulary}, the rows of the model's embedding`,
    next: "Use the tokenizer that belongs to the model.",
  });
}
