// The reconstructor (AR): the first K + 1 blocks of a decoder without last norm and head, and a linear map of the state at
// the last token of a prompt that holds an explanation. What it predicts is the activation that was explained.
import { NlaError } from "../error.js";
import { declareBatch, forward, lastRows, padBatch } from "../model/index.js";
import type { Batch, Decoder, DeclaredBatch } from "../model/index.js";
import { Arena, Graph, ops } from "../tensor/index.js";
import type { Tensor } from "../tensor/index.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { reconstructorPrompt } from "./contract.js";
import type { Contract } from "./contract.js";
import { fillTemplate, promptEndsWith } from "./template.js";
import { checkVocabulary, checkWidth } from "./verbalizer.js";

/** Name of the linear map's matrix among the trainable parameters. */
export const VALUE_HEAD = "value_head.weight";

/** Options of {@link Reconstructor.reconstruct}. */
export interface ReconstructOptions {
  /** Texts per pass. Defaults to 64. */
  readonly batch?: number;
  readonly compute?: "f32" | "bf16";
  readonly signal?: AbortSignal | undefined;
}

/** A reconstructor with its tokenizer and contract. It owns its decoder and its value head. */
export class Reconstructor implements Disposable {
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
  readonly contract: Contract;
  readonly #head: Arena;

  /**
   * @param model a decoder of K + 1 blocks without last norm and head
   * @param head the value head [dim, dim], row-major out x in; null: the identity, from which training starts
   * @throws NlaError `contract.width`, `contract.layer`, `contract.vocabulary`
   */
  constructor(model: Decoder, tokenizer: Tokenizer, contract: Contract, head: Float32Array | null = null) {
    checkWidth(model, contract, "reconstructor");
    checkVocabulary(model, tokenizer);
    if (model.config.layers !== contract.layer + 1) {
      throw new NlaError({
        code: "contract.layer",
        subject: "the reconstructor",
        found: `${model.config.layers} blocks`,
        wanted: `${contract.layer + 1}: layer ${contract.layer} is the output of block ${contract.layer}, so ${contract.layer + 1} blocks are kept`,
        next: "num_hidden_layers in its config.json is K + 1, not K: the checkpoint was cut at another layer than its sidecar says.",
      });
    }
    this.model = model;
    this.tokenizer = tokenizer;
    this.contract = contract;
    const { dim } = contract;
    this.#head = new Arena(model.device, "value head", {
      [VALUE_HEAD]: { shape: [dim, dim], parameter: true },
    });
    this.#head.get(VALUE_HEAD).write(head ?? identity(dim));
  }

  /** The value head [dim, dim]. */
  get head(): Tensor {
    return this.#head.get(VALUE_HEAD);
  }

  /** Everything that training changes: the decoder's parameters, or its adapter's, and the value head. */
  get trainable(): ReadonlyMap<string, Tensor> {
    return new Map([...this.model.trainable, [VALUE_HEAD, this.head]]);
  }

  /** Token ids of the prompt around a text. @throws NlaError `template.suffix-merged` */
  promptIds(text: string): number[] {
    return reconstructorPrompt(this.contract, this.tokenizer, text);
  }

  /**
   * Whether a text can be reconstructed: its prompt fits the context and ends as the contract says. Text that a verbalizer
   * wrote may do neither, and is a failed explanation then, not a fault.
   */
  accepts(text: string): boolean {
    const { templates, suffixIds } = this.contract;
    const ids = this.tokenizer.encode(fillTemplate(templates.reconstructor, text), {
      addSpecialTokens: true,
    });
    return ids.length > 0 && ids.length <= this.model.config.contextLength && promptEndsWith(ids, suffixIds);
  }

  /** Appends the predictions of a batch to a graph: the map of the state at each row's last token, [rows, dim]. */
  predict(g: Graph, batch: DeclaredBatch, last: Tensor): Tensor {
    const { blocks } = forward(g, this.model, batch);
    return ops.linear(g, ops.gatherRows(g, blocks.at(-1) as Tensor, last), this.head);
  }

  /**
   * Activations for texts.
   *
   * @returns [dim] each, in the order of the texts; only their direction means anything
   * @throws NlaError `model.batch` for a text longer than the context
   */
  async reconstruct(texts: readonly string[], options: ReconstructOptions = {}): Promise<Float32Array[]> {
    const { batch: size = 64, compute = "f32", signal } = options;
    const { contextLength, dim } = this.model.config;
    const vectors: Float32Array[] = [];
    for (let start = 0; start < texts.length; start += size) {
      const prompts = texts.slice(start, start + size).map((text) => this.promptIds(text));
      const batch: Batch = padBatch(prompts, { maxLength: contextLength });
      using g = new Graph(this.model.device, { recording: false, compute });
      const declared = declareBatch(g, batch);
      const predicted = g.output(this.predict(g, declared, g.input("last", [batch.rows], "i32")));
      await g.run({ ...declared.values(batch), last: lastRows(batch) }, signal);
      const values = predicted.readF32();
      for (let row = 0; row < batch.rows; row++) vectors.push(values.slice(row * dim, (row + 1) * dim));
    }
    return vectors;
  }

  /**
   * Activations for explanations, of which some may be missing or none that {@link Reconstructor.accepts}.
   *
   * @returns [dim] each, in their order; null for those
   */
  async reconstructSome(
    texts: readonly (string | null)[],
    options: ReconstructOptions = {},
  ): Promise<(Float32Array | null)[]> {
    const accepted = texts.flatMap((text, i) => (text !== null && this.accepts(text) ? [{ text, i }] : []));
    const vectors = await this.reconstruct(
      accepted.map(({ text }) => text),
      options,
    );
    const all: (Float32Array | null)[] = texts.map(() => null);
    accepted.forEach(({ i }, k) => (all[i] = vectors[k] as Float32Array));
    return all;
  }

  [Symbol.dispose](): void {
    this.#head[Symbol.dispose]();
    this.model[Symbol.dispose]();
  }
}

function identity(n: number): Float32Array {
  const values = new Float32Array(n * n);
  for (let i = 0; i < n; i++) values[i * n + i] = 1;
  return values;
}
