// The parameters of a decoder: their Hugging Face names and shapes, in the order of such a file.
import type { Shape } from "../tensor/index.js";
import type { DecoderConfig } from "./decoder-config.js";

/** Name of the embedding matrix [vocabulary, dim]. */
export const EMBEDDING = "model.embed_tokens.weight";
/** Name of the gain of the norm after the last block [dim]. */
export const FINAL_NORM = "model.norm.weight";
/** Name of the output matrix [vocabulary, dim], absent where it is tied to the embedding. */
export const HEAD = "lm_head.weight";

/** What may be left off a decoder: a reconstructor has neither last norm nor head. */
export interface Parts {
  /** Defaults to true. */
  readonly finalNorm?: boolean;
  /** Defaults to true. */
  readonly head?: boolean;
}

/** Name of a parameter of block `k`: `blockName(2, "mlp.up_proj.weight")`. */
export function blockName(k: number, rest: string): string {
  return `model.layers.${k}.${rest}`;
}

/** Names of the matrices that make a block's queries, keys and values, in the order in which they lie. */
export function headMatrices(k: number): readonly string[] {
  return ["q", "k", "v"].map((part) => blockName(k, `self_attn.${part}_proj.weight`));
}

/** Names of the linear maps of a block's feed-forward layer: gate, up and down. */
export function feedForwardModules(k: number): readonly [gate: string, up: string, down: string] {
  return [blockName(k, "mlp.gate_proj"), blockName(k, "mlp.up_proj"), blockName(k, "mlp.down_proj")];
}

/** Shape of every parameter by name; matrices are [out, in]. */
export function parameterShapes(
  config: DecoderConfig,
  { finalNorm = true, head = true }: Parts = {},
): Map<string, Shape> {
  const { dim, ffn, heads, kvHeads, headDim, vocabulary } = config;
  const shapes = new Map<string, Shape>([[EMBEDDING, [vocabulary, dim]]]);
  const matrix = (k: number, rest: string, out: number, into: number, bias: boolean) => {
    shapes.set(blockName(k, `${rest}.weight`), [out, into]);
    if (bias) shapes.set(blockName(k, `${rest}.bias`), [out]);
  };
  for (let k = 0; k < config.layers; k++) {
    matrix(k, "self_attn.q_proj", heads * headDim, dim, config.attentionBias);
    matrix(k, "self_attn.k_proj", kvHeads * headDim, dim, config.attentionBias);
    matrix(k, "self_attn.v_proj", kvHeads * headDim, dim, config.attentionBias);
    matrix(k, "self_attn.o_proj", dim, heads * headDim, false);
    if (config.qkNorm) {
      shapes.set(blockName(k, "self_attn.q_norm.weight"), [headDim]);
      shapes.set(blockName(k, "self_attn.k_norm.weight"), [headDim]);
    }
    matrix(k, "mlp.gate_proj", ffn, dim, false);
    matrix(k, "mlp.up_proj", ffn, dim, false);
    matrix(k, "mlp.down_proj", dim, ffn, false);
    shapes.set(blockName(k, "input_layernorm.weight"), [dim]);
    shapes.set(blockName(k, "post_attention_layernorm.weight"), [dim]);
    if (config.postNorms) {
      shapes.set(blockName(k, "pre_feedforward_layernorm.weight"), [dim]);
      shapes.set(blockName(k, "post_feedforward_layernorm.weight"), [dim]);
    }
  }
  if (finalNorm) shapes.set(FINAL_NORM, [dim]);
  if (head && !config.tied) shapes.set(HEAD, [vocabulary, dim]);
  return shapes;
}

/** Number of parameters. */
export function parameterCount(config: DecoderConfig, parts: Parts = {}): number {
  let count = 0;
  for (const shape of parameterShapes(config, parts).values()) count += shape.reduce((a, b) => a * b, 1);
  return count;
}
