// Small random decoders for tests of the model layer, and the slow way to do what generation does fast.
import { Decoder, parseConfig, randomParameters, run } from "../../src/model/index.js";
import type { DecoderConfig, Injection, SamplingOptions } from "../../src/model/index.js";
import { argmax, draw, uniformAt } from "../../src/model/sampling.js";
import type { Device } from "../../src/tensor/index.js";

/** config.json of a Llama with grouped queries; `overrides` replace or add keys. */
export function tinyJson(overrides: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 8,
    vocab_size: 61,
    max_position_embeddings: 96,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: true,
    torch_dtype: "float32",
    ...overrides,
  };
}

export function tinyConfig(overrides: Record<string, unknown> = {}): DecoderConfig {
  return parseConfig(tinyJson(overrides), "tiny");
}

/** Weights are large, so that the model has opinions and mistakes show. */
export function tinyModel(device: Device, overrides: Record<string, unknown> = {}, seed = 1): Decoder {
  return new Decoder(device, tinyConfig(overrides), randomParameters(seed, 0.25));
}

/** Deterministic ids: the same arguments, the same tokens. */
export function someIds(length: number, vocabulary: number, seed = 0): number[] {
  return Array.from({ length }, (_, i) => Math.floor(uniformAt(seed + 77, i) * vocabulary));
}

/** Tokens and log-probs by computing the whole sequence again for each token. */
export async function continueSlowly(
  model: Decoder,
  prompt: readonly number[],
  options: SamplingOptions & { maxNewTokens: number; seed: number; inject?: readonly Injection[] },
): Promise<{ tokens: number[]; logProbs: number[]; entropies: number[] }> {
  const { contextLength } = model.config;
  const tokens: number[] = [];
  const logProbs: number[] = [];
  const entropies: number[] = [];
  const { inject = [], temperature = 1, topK = 0, topP = 1 } = options;
  while (tokens.length < options.maxNewTokens && prompt.length + tokens.length < contextLength) {
    const { logits } = await run(model, [[...prompt, ...tokens]], { logits: "last", inject });
    const uniform = uniformAt(options.seed, tokens.length);
    const weights = Float32Array.from(logSoftmax(logits!.map((x) => x / (temperature || 1))), Math.exp);
    const token = temperature === 0 ? argmax(logits!) : draw(weights, uniform, { topK, topP });
    const logP = logSoftmax(logits!);
    tokens.push(token);
    logProbs.push(logP[token]!);
    entropies.push(-logP.reduce((sum, x) => sum + Math.exp(x) * x, 0));
  }
  return { tokens, logProbs, entropies };
}

/** log softmax of one row in float64. */
export function logSoftmax(row: Float32Array): number[] {
  const max = row.reduce((a, b) => Math.max(a, b), -Infinity);
  const total = row.reduce((sum, x) => sum + Math.exp(x - max), 0);
  return [...row].map((x) => x - max - Math.log(total));
}
