// What a GGUF file says of a model: its metadata as the config.json that the same model has on the hub, its tensor names as
// Hugging Face's, and what llama.cpp's converter does to some tensors on the way.
import { NlaError } from "../error.js";
import type { GgufFile, GgufValue } from "../data/gguf.js";
import { parseConfig } from "./config.js";
import type { DecoderConfig } from "./decoder-config.js";
import { EMBEDDING, FINAL_NORM, HEAD } from "./parameters.js";
import { frequencyDivisors } from "./rope-scaling.js";

const MODEL_TYPES: Readonly<Record<string, string>> = {
  llama: "llama",
  qwen2: "qwen2",
  qwen3: "qwen3",
  gemma2: "gemma2",
  gemma3: "gemma3_text",
};

/** The architecture's name in a GGUF file, or null where llama.cpp has none for the family. */
export function architectureOf(family: string): string | null {
  if (family === "mistral") return "llama"; // the same mathematics, without a window
  return Object.keys(MODEL_TYPES).find((name) => MODEL_TYPES[name] === family) ?? null;
}

/** Factors of Llama 3's rope, a tensor instead of settings. */
export const ROPE_FACTORS = "rope_freqs.weight";

/** A reconstructor's value head, [dim, dim]. llama.cpp has no such tensor, and no such model. */
export const VALUE_HEAD_TENSOR = "value_head.weight";

// Keys of an architecture that are read, or whose one known value changes nothing. Any other could change the mathematics.
// prettier-ignore
const KNOWN = new Set([
  "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count", "attention.head_count_kv",
  "attention.layer_norm_rms_epsilon", "attention.key_length", "attention.value_length", "attention.sliding_window", "rope.freq_base",
  "rope.freq_base_swa", "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
  "rope.scaling.finetuned", "vocab_size", "attn_logit_softcapping", "final_logit_softcapping",
]);

/**
 * The config of the model in a file.
 *
 * @throws NlaError `gguf.architecture` naming the known ones, `gguf.key` for a key that is missing, wrong, or not known and so
 *   may change the mathematics; those of {@link parseConfig}
 */
export function ggufConfig(file: GgufFile): DecoderConfig {
  const architecture = file.metadata.get("general.architecture");
  const modelType = typeof architecture === "string" ? MODEL_TYPES[architecture] : undefined;
  if (modelType === undefined || !Object.hasOwn(MODEL_TYPES, architecture as string)) {
    throw new NlaError({
      code: "gguf.architecture",
      subject: file.path,
      found: `general.architecture ${JSON.stringify(architecture) ?? "nothing"}`,
      wanted: `one of ${Object.keys(MODEL_TYPES).join(", ")}`,
      next: "Other architectures cannot be computed yet; docs/models.md says how a family is added.",
    });
  }
  const read = new Keys(file, architecture as string);
  read.refuseUnknown();
  const dim = read.number("embedding_length");
  const heads = read.number("attention.head_count");
  const headDim = read.number("attention.key_length", dim / heads);
  for (const key of ["attention.value_length", "rope.dimension_count"]) {
    if (read.number(key, headDim) !== headDim) throw read.wrong(key, `${headDim}, as long as a head`);
  }
  const vocabulary = file.tensors.get("token_embd.weight")?.shape[0];
  const gemma = modelType.startsWith("gemma");
  // llama.cpp knows the largest Gemmas by their number of blocks, and takes another scale for them.
  const largest = read.number("block_count") === (modelType === "gemma2" ? 46 : 62);
  const json: Record<string, unknown> = {
    model_type: modelType,
    vocab_size: vocabulary,
    hidden_size: dim,
    num_hidden_layers: read.number("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: read.number("attention.head_count_kv", heads),
    intermediate_size: read.number("feed_forward_length"),
    head_dim: headDim,
    max_position_embeddings: read.number("context_length"),
    rms_norm_eps: read.number("attention.layer_norm_rms_epsilon"),
    rope_theta: read.number("rope.freq_base", modelType === "gemma3_text" ? 1_000_000 : 10_000),
    tie_word_embeddings: !file.tensors.has("output.weight"),
    ...ids(file.metadata),
  };
  if (gemma) {
    json.sliding_window = read.number("attention.sliding_window", 4096);
    json.query_pre_attn_scalar = largest ? dim / heads : headDim;
    const caps = modelType === "gemma2" ? ([50, 30] as const) : ([null, null] as const);
    json.attn_logit_softcapping = read.optional("attn_logit_softcapping") ?? caps[0];
    json.final_logit_softcapping = read.optional("final_logit_softcapping") ?? caps[1];
    if (modelType === "gemma3_text") json.rope_local_base_freq = read.number("rope.freq_base_swa", 10_000);
  } else if (read.optional("attention.sliding_window")) {
    throw read.wrong("attention.sliding_window", "no window for this architecture");
  }
  const scaling = read.scaling();
  if (scaling) json.rope_scaling = scaling;
  // As released folders have it; without scaling both spellings mean the same.
  return parseConfig(json, file.path);
}

function ids(metadata: ReadonlyMap<string, GgufValue>): Record<string, unknown> {
  const of = (name: string) => metadata.get(`tokenizer.ggml.${name}_token_id`);
  const ends = [...new Set([of("eos"), of("eot")])].filter((id) => typeof id === "number");
  return {
    ...(typeof of("bos") === "number" ? { bos_token_id: of("bos") } : { bos_token_id: null }),
    eos_token_id: ends.length > 1 ? ends : (ends[0] ?? null),
  };
}

class Keys {
  constructor(
    private readonly file: GgufFile,
    private readonly architecture: string,
  ) {}

  optional(key: string): number | null {
    const value = this.file.metadata.get(`${this.architecture}.${key}`);
    if (value === undefined) return null;
    if (typeof value === "number" && Number.isFinite(value) && value >= 0) return value;
    throw this.wrong(key, "one number from 0");
  }

  number(key: string, otherwise?: number): number {
    const value = this.optional(key) ?? otherwise;
    if (value !== undefined && value > 0) return value;
    throw this.wrong(key, "a positive number");
  }

  /** As rope_scaling of a config.json. */
  scaling(): Record<string, unknown> | null {
    const type = this.file.metadata.get(`${this.architecture}.rope.scaling.type`) ?? "none";
    const original = this.optional("rope.scaling.original_context_length");
    if (type === "none") return null;
    if (type === "linear") return { rope_type: "linear", factor: this.number("rope.scaling.factor") };
    if (type === "yarn") {
      return {
        rope_type: "yarn",
        factor: this.number("rope.scaling.factor"),
        ...(original === null ? {} : { original_max_position_embeddings: original }),
      };
    }
    throw this.wrong("rope.scaling.type", "none, linear or yarn");
  }

  refuseUnknown(): void {
    const prefix = `${this.architecture}.`;
    for (const [key, value] of this.file.metadata) {
      if (!key.startsWith(prefix) || KNOWN.has(key.slice(prefix.length))) continue;
      const none = value === 0 || value === false || (key.endsWith("attention.causal") && value === true);
      if (!none) throw this.wrong(key.slice(prefix.length), "no such key: it may change what is computed");
    }
  }

  wrong(key: string, wanted: string): NlaError {
    const name = `${this.architecture}.${key}`;
    const value = this.file.metadata.get(name);
    const found =
      value === undefined
        ? "no such key"
        : Array.isArray(value)
          ? `${value.length} values`
          : String(value).slice(0, 60);
    return new NlaError({
      code: "gguf.key",
      subject: `${this.file.path}: ${name}`,
      found,
      wanted,
      next: "The file is damaged, or of a model that cannot be computed yet.",
    });
  }
}

/** Llama 3's rope scaling from the factors that a file has instead: factors of these settings, or none. */
export function llama3Scaling(
  config: DecoderConfig,
  factors: Float32Array,
  originalLength: number,
): Record<string, unknown> | null {
  const factor = factors.at(-1) ?? 0;
  const scaling = {
    kind: "llama3",
    factor,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalLength,
  } as const;
  const theta = config.rope[0]?.theta ?? 10_000;
  const wanted = factor > 0 ? frequencyDivisors({ theta, scaling }, config.headDim) : null;
  if (!wanted || wanted.length !== factors.length) return null;
  const alike = wanted.every((value, i) => Math.abs(value - (factors[i] as number)) <= 1e-4 * value);
  if (!alike) return null;
  return {
    rope_type: "llama3",
    factor,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: originalLength,
  };
}

const BLOCK_NAMES: readonly (readonly [string, string])[] = [
  ["attn_q", "self_attn.q_proj"],
  ["attn_k", "self_attn.k_proj"],
  ["attn_v", "self_attn.v_proj"],
  ["attn_output", "self_attn.o_proj"],
  ["attn_q_norm", "self_attn.q_norm"],
  ["attn_k_norm", "self_attn.k_norm"],
  ["ffn_gate", "mlp.gate_proj"],
  ["ffn_up", "mlp.up_proj"],
  ["ffn_down", "mlp.down_proj"],
  ["attn_norm", "input_layernorm"],
];

/** The tensor's name in a GGUF file. @throws NlaError `gguf.name` for a parameter that has none there */
export function ggufName(name: string, { postNorms }: DecoderConfig): string {
  if (name === EMBEDDING) return "token_embd.weight";
  if (name === FINAL_NORM) return "output_norm.weight";
  if (name === HEAD) return "output.weight";
  const [, k, rest, kind] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  const norms = postNorms
    ? [
        ["ffn_norm", "pre_feedforward_layernorm"],
        ["post_attention_norm", "post_attention_layernorm"],
        ["post_ffw_norm", "post_feedforward_layernorm"],
      ]
    : [["ffn_norm", "post_attention_layernorm"]];
  const pair = [...BLOCK_NAMES, ...norms].find(([, theirs]) => theirs === rest);
  if (pair) return `blk.${k}.${pair[0]}.${kind}`;
  throw new NlaError({
    code: "gguf.name",
    subject: name,
    found: "a parameter without a name in GGUF files",
    wanted: "one of a decoder",
    next: "Only decoders can be written as GGUF.",
  });
}

/** Which rows of q and k change places: heads whose halves are interleaved in files of the llama architecture; else null. */
export function interleavedHeads(name: string, config: DecoderConfig): number | null {
  if (architectureOf(config.family) !== "llama") return null;
  const part = /\.self_attn\.([qk])_proj\.(?:weight|bias)$/.exec(name)?.[1];
  return part === undefined ? null : part === "q" ? config.heads : config.kvHeads;
}

/** Rows to and from the order of GGUF's llama: in each head, row i of the first half and of the second become neighbours. */
export function reorderRows(bytes: Uint8Array, rows: number, heads: number, to: "gguf" | "hf"): Uint8Array {
  const width = bytes.byteLength / rows;
  const perHead = rows / heads;
  const out = new Uint8Array(bytes.byteLength);
  for (let row = 0; row < rows; row++) {
    const [head, within] = [Math.floor(row / perHead), row % perHead];
    const [half, i] = [Math.floor(within / (perHead / 2)), within % (perHead / 2)];
    const neighbours = head * perHead + 2 * i + half;
    const [from, at] = to === "gguf" ? [row, neighbours] : [neighbours, row];
    out.set(bytes.subarray(from * width, (from + 1) * width), at * width);
  }
  return out;
}

/** Whether the file holds 1 + gain where Hugging Face's has the gain. */
export function holdsOnePlus(name: string, config: DecoderConfig): boolean {
  return config.gainOffset === 1 && name.includes("norm");
}
