// A verbalizer whose decoder runs on other machines: the prompt's embeddings, with the activation in their midst, are made here and sent
// to servers that speak SGLang's protocol. Of its checkpoint only tokenizer, sidecar and embedding matrix are read.
import { bf16ToF32, f32ToBf16 } from "../data/floats.js";
import { NlaError } from "../error.js";
import { EMBEDDING, openModelWeights } from "../model/index.js";
import { verbalizerPrompt } from "../nla/contract.js";
import type { Contract, VerbalizerPrompt } from "../nla/contract.js";
import { extractExplanation } from "../nla/explanation.js";
import { scaleToNorm } from "../nla/injection.js";
import { loadModelTokenizer, sidecarOfCheckpoint } from "../nla/checkpoint-place.js";
import { contractOf } from "../nla/sidecar-contract.js";
import type { Explanation, ExplainOptions } from "../nla/verbalizer.js";
import type { RemoteServers } from "./remote-servers.js";
import { torchTensor } from "./torch-tensor.js";

/** What a client asks a server for. */
export interface RemoteRequest {
  readonly input_embeds: readonly (readonly number[])[];
  readonly sampling_params: Readonly<Record<string, unknown>>;
}

const SHORTEST = [6, 7, 8, 9]; // digits; nine always read back to the same float32

/** The number with the fewest digits that is this float32: embeddings are sent as text. */
export function shortest(value: number): number {
  for (const digits of SHORTEST) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return value;
}

function rounded(row: Float32Array): Float32Array {
  return bf16ToF32(f32ToBf16(row));
}

function replyError(found: string): NlaError {
  return new NlaError({
    code: "remote.reply",
    subject: "the reply of a server",
    found,
    wanted: '{"text": "...", "meta_info": {...}}, or a list of one',
    next: "The server is none that speaks SGLang's /generate.",
  });
}

/** The text of a reply to `/generate`. @throws NlaError `remote.reply` for what the reference's client would not take either */
export function textOfReply(reply: unknown): { readonly text: string; readonly finish: "stop" | "length" } {
  const one: unknown = Array.isArray(reply) ? (reply as unknown[])[0] : reply;
  if (typeof one !== "object" || one === null)
    throw replyError(JSON.stringify(reply)?.slice(0, 80) ?? "nothing");
  const { text, meta_info: meta } = one as {
    text?: unknown;
    meta_info?: { finish_reason?: { type?: unknown } | null };
  };
  if (typeof text !== "string") throw replyError(`text ${JSON.stringify(text)?.slice(0, 40) ?? "missing"}`);
  const type = meta?.finish_reason?.type;
  if (type === "abort") throw replyError("an aborted request");
  return { text, finish: type === "length" ? "length" : "stop" };
}

/** The text of vLLM's reply to `/v1/completions`. @throws NlaError `remote.reply` */
function textOfCompletion(reply: unknown): { readonly text: string; readonly finish: "stop" | "length" } {
  const [choice] =
    (reply as { choices?: { text?: unknown; finish_reason?: unknown }[] } | null)?.choices ?? [];
  if (typeof choice?.text !== "string") throw replyError(JSON.stringify(reply)?.slice(0, 80) ?? "nothing");
  return { text: choice.text, finish: choice.finish_reason === "length" ? "length" : "stop" };
}

/** What servers speak: SGLang's `/generate` with `input_embeds`, or vLLM's `/v1/completions` with `prompt_embeds`. */
export type RemoteProtocol = "sglang" | "vllm";

/** A verbalizer on servers. */
export class RemoteVerbalizer {
  readonly contract: Contract;
  readonly #prompt: VerbalizerPrompt;
  readonly #rows: readonly Float32Array[];
  readonly #context: number;
  readonly #servers: RemoteServers;
  readonly #protocol: RemoteProtocol;

  private constructor(
    contract: Contract,
    prompt: VerbalizerPrompt,
    rows: readonly Float32Array[],
    context: number,
    servers: RemoteServers,
    protocol: RemoteProtocol,
  ) {
    this.#protocol = protocol;
    this.contract = contract;
    this.#prompt = prompt;
    this.#rows = rows;
    this.#context = context;
    this.#servers = servers;
  }

  /**
   * Reads what a client needs of a verbalizer's checkpoint.
   *
   * @param options.layer its layer where its sidecar does not say it
   * @throws NlaError those of the readers and of the contract
   */
  static async load(
    directory: string,
    servers: RemoteServers,
    options: {
      readonly layer?: number;
      readonly protocol?: RemoteProtocol;
      readonly contract?: string | undefined;
    } = {},
  ): Promise<RemoteVerbalizer> {
    const { file, sidecar } = await sidecarOfCheckpoint(directory, "av", options.contract);
    const tokenizer = await loadModelTokenizer(directory);
    const contract = contractOf(sidecar, file, tokenizer, options.layer ?? null);
    const prompt = verbalizerPrompt(contract, tokenizer);
    const weights = await openModelWeights(directory);
    try {
      const { config } = weights;
      const all = await weights.f32(EMBEDDING);
      const { dim, embeddingScale } = config;
      // Servers hold bf16, and so does the reference's client: the row rounded, times the embedding's scale, rounded again.
      const rows = prompt.ids.map((id) => {
        const row = rounded(all.slice(id * dim, (id + 1) * dim));
        return embeddingScale === 1 ? row : rounded(row.map((value) => value * embeddingScale));
      });
      return new RemoteVerbalizer(
        contract,
        prompt,
        rows,
        config.contextLength,
        servers,
        options.protocol ?? "sglang",
      );
    } finally {
      await weights.close();
    }
  }

  /** What is sent for an activation. @throws NlaError `contract.width`, `injection.*` */
  request(vector: Float32Array, sampling: Readonly<Record<string, unknown>> = {}): RemoteRequest {
    const { dim, injection } = this.contract;
    if (vector.length !== dim) {
      throw new NlaError({
        code: "contract.width",
        subject: "an activation to explain",
        found: `${vector.length} elements`,
        wanted: `${dim}, the width that the verbalizer was trained for`,
        next: "Take it from the model that the pair belongs to.",
      });
    }
    const injected = scaleToNorm(vector, injection.scale);
    const rows = this.#rows.map((row, position) => (position === this.#prompt.site ? injected : row));
    return {
      input_embeds: rows.map((row) => Array.from(row, shortest)),
      sampling_params: { temperature: 1, max_new_tokens: 200, skip_special_tokens: false, ...sampling },
    };
  }

  /** Explains activations, as `Verbalizer.explain` does; there are no log-probabilities. @throws NlaError `remote.*` */
  async explain(vectors: readonly Float32Array[], options: ExplainOptions = {}): Promise<Explanation[]> {
    const {
      samples = 1,
      temperature = 0,
      topK = 0,
      topP = 1,
      maxNewTokens = 200,
      seed = 0,
      signal,
    } = options;
    const room = this.#context - this.#prompt.ids.length;
    const jobs = vectors.flatMap((vector, i) =>
      Array.from({ length: samples }, (_, sample) => ({ vector, i, seed: seed + i * samples + sample })),
    );
    return Promise.all(
      jobs.map(async ({ vector, i, seed: own }) => {
        const body = this.request(vector, {
          temperature,
          max_new_tokens: Math.min(maxNewTokens, room),
          // SGLang knows no seed of a request in all versions; at temperature 0 none is needed.
          ...(temperature > 0 ? { sampling_seed: own } : {}),
          ...(topP < 1 ? { top_p: topP } : {}),
          ...(topK > 0 ? { top_k: topK } : {}),
        });
        const { text: response, finish } = await this.#ask(body, signal);
        const { format } = this.contract;
        const cut = finish === "length" && format === "plain";
        const text = cut ? null : extractExplanation(response, { format });
        return { vector: i, text, response, tokens: [], logProbs: [], entropies: [], finish };
      }),
    );
  }

  async #ask({ input_embeds: embeds, sampling_params: sampling }: RemoteRequest, signal?: AbortSignal) {
    if (this.#protocol === "sglang") {
      return textOfReply(
        await this.#servers.post("/generate", { input_embeds: embeds, sampling_params: sampling }, signal),
      );
    }
    const { max_new_tokens: tokens, sampling_seed: seed, ...rest } = sampling;
    const body = {
      prompt_embeds: torchTensor(embeds).toString("base64"),
      max_tokens: tokens,
      ...(seed === undefined ? {} : { seed }),
      ...rest,
    };
    return textOfCompletion(await this.#servers.post("/v1/completions", body, signal));
  }
}
