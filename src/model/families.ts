// The table of model families: how each spells its settings in config.json, and what it means where it says nothing. A
// family is one entry here and one folder of golden values; nothing else in nlakit knows its name.
import { NlaError } from "../error.js";
import type { DecoderConfig } from "./decoder-config.js";
import { configError, ConfigReader } from "./config-reader.js";
import type { Json } from "./config-reader.js";
import { ropeOf } from "./rope-config.js";

type Settings = Omit<DecoderConfig, "json" | "bosId" | "eosIds">;

interface Family {
  /** Keys that released files leave out, with the values they then have. */
  readonly defaults: Json;
  readonly settings: (read: ConfigReader) => Settings;
}

const GEMMA_DEFAULTS: Json = {
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 256,
  query_pre_attn_scalar: 256,
  sliding_window: 4096,
  bos_token_id: 2,
  eos_token_id: 1,
};

const FAMILIES: Readonly<Record<string, Family>> = {
  llama: { defaults: { max_position_embeddings: 2048 }, settings: llama },
  mistral: { defaults: { max_position_embeddings: 131_072, sliding_window: 4096 }, settings: mistral },
  qwen2: { defaults: { max_position_embeddings: 32_768 }, settings: qwen2 },
  qwen3: { defaults: { max_position_embeddings: 32_768, head_dim: 128 }, settings: qwen3 },
  gemma2: {
    defaults: {
      ...GEMMA_DEFAULTS,
      vocab_size: 256_000,
      max_position_embeddings: 8192,
      attn_logit_softcapping: 50,
      final_logit_softcapping: 30,
    },
    settings: gemma2,
  },
  gemma3_text: {
    defaults: {
      ...GEMMA_DEFAULTS,
      vocab_size: 262_208,
      max_position_embeddings: 131_072,
      rope_theta: 1_000_000,
      rope_local_base_freq: 10_000,
    },
    settings: gemma3,
  },
};

// Gemma 3 with a vision tower: its text model stands inside, and its weights under this prefix.
const MULTIMODAL = "gemma3";
const MULTIMODAL_PREFIX = "language_model.";

/**
 * A config of a parsed config.json.
 *
 * @throws NlaError `model.family` naming the families that are known, `model.config`
 */
export function familyOf(json: Json, subject: string): DecoderConfig {
  if (json.model_type === MULTIMODAL) {
    const { json: inner, subject: place } = textConfig(json, subject);
    return { ...familyOf(inner, place), weightPrefix: MULTIMODAL_PREFIX };
  }
  const name = String(json.model_type);
  const family = Object.hasOwn(FAMILIES, name) ? FAMILIES[name] : undefined;
  if (!family) {
    throw new NlaError({
      code: "model.family",
      subject,
      found: `model_type ${JSON.stringify(json.model_type) ?? "nothing"}`,
      wanted: `one of ${[...Object.keys(FAMILIES), MULTIMODAL].join(", ")}`,
      next: "Other architectures cannot be computed yet; docs/models.md says how a family is added.",
    });
  }
  const read = new ConfigReader({ ...family.defaults, ...json }, subject);
  read.refuse("quantization_config");
  const settings = family.settings(read);
  read.refuseRest();
  return { ...settings, ...specialIds(read), json };
}

/** The config of the text model alone, as it would stand in a folder of its own. */
function textConfig(json: Json, subject: string): { json: Json; subject: string } {
  const outer = new ConfigReader(json, subject);
  const inner = outer.object("text_config");
  if (!inner) throw configError(subject, "text_config", "nothing", "the settings of the text model");
  outer.refuse("tie_word_embeddings", true);
  outer.refuse("quantization_config");
  const eos = json.eos_token_id ?? inner.eos_token_id;
  return {
    json: {
      ...inner,
      ...(eos === undefined ? {} : { eos_token_id: eos }),
      architectures: ["Gemma3ForCausalLM"],
      model_type: "gemma3_text",
    },
    subject: `${subject}, text_config`,
  };
}

/** What a family does not say otherwise is this. */
function plain(read: ConfigReader, family: string): Settings {
  const dim = read.size("hidden_size");
  const layers = read.size("num_hidden_layers");
  const heads = read.size("num_attention_heads");
  const headDim = read.size("head_dim", dim / heads);
  return {
    family,
    dim,
    layers,
    heads,
    kvHeads: read.size("num_key_value_heads", heads),
    headDim,
    ffn: read.size("intermediate_size"),
    vocabulary: read.size("vocab_size"),
    contextLength: read.size("max_position_embeddings"),
    normEps: read.positive("rms_norm_eps", 1e-6),
    gainOffset: 0,
    embeddingScale: 1,
    tied: read.flag("tie_word_embeddings", false),
    activation: "silu",
    attentionBias: false,
    qkNorm: false,
    postNorms: false,
    attentionScale: 1 / Math.sqrt(headDim),
    attentionSoftcap: null,
    logitSoftcap: null,
    rope: [],
    windows: each(layers, () => null),
    weightPrefix: "",
  };
}

function llama(read: ConfigReader): Settings {
  read.refuse("hidden_act", "silu");
  read.refuse("attention_bias", false);
  read.refuse("mlp_bias", false);
  read.refuse("pretraining_tp", 1, 0);
  read.refuse("partial_rotary_factor", 1);
  const settings = plain(read, "llama");
  const rope = ropeOf(read);
  return { ...settings, rope: each(settings.layers, () => rope) };
}

function mistral(read: ConfigReader): Settings {
  read.refuse("hidden_act", "silu");
  const settings = plain(read, "mistral");
  const rope = ropeOf(read);
  const window = read.raw("sliding_window") === null ? null : read.size("sliding_window");
  return {
    ...settings,
    rope: each(settings.layers, () => rope),
    windows: each(settings.layers, () => window),
  };
}

function qwen2(read: ConfigReader): Settings {
  return { ...qwen(read, "qwen2"), attentionBias: true };
}

function qwen3(read: ConfigReader): Settings {
  read.refuse("attention_bias", false);
  return { ...qwen(read, "qwen3"), qkNorm: true };
}

function qwen(read: ConfigReader, family: string): Settings {
  read.refuse("hidden_act", "silu");
  // Released files carry a sliding_window beside this flag, and mean the flag.
  read.refuse("use_sliding_window", false);
  read.raw("sliding_window");
  const settings = plain(read, family);
  layerTypes(read, settings.layers)?.forEach((type, k) => {
    if (type === "full_attention") return;
    throw configError(read.subject, `layer_types[${k}]`, type, "full_attention: no other is known");
  });
  const rope = ropeOf(read);
  return { ...settings, rope: each(settings.layers, () => rope) };
}

function gemma2(read: ConfigReader): Settings {
  const settings = gemma(read, "gemma2", (k) => k % 2 === 0);
  const rope = ropeOf(read);
  return { ...settings, rope: each(settings.layers, () => rope) };
}

function gemma3(read: ConfigReader): Settings {
  const pattern = read.size("sliding_window_pattern", read.size("_sliding_window_pattern", 6));
  const settings = gemma(read, "gemma3_text", (k) => (k + 1) % pattern !== 0);
  const full = ropeOf(read, { theta: 1_000_000, layerType: "full_attention" });
  const local = ropeOf(read, {
    layerType: "sliding_attention",
    thetaKey: "rope_local_base_freq",
    scaled: false,
  });
  return {
    ...settings,
    rope: settings.windows.map((window) => (window === null ? full : local)),
    qkNorm: true,
  };
}

/** @param slides which blocks see a window only, where the file does not list them */
function gemma(read: ConfigReader, family: string, slides: (k: number) => boolean): Settings {
  read.refuse("hidden_act", "gelu_pytorch_tanh");
  read.refuse("hidden_activation", "gelu_pytorch_tanh");
  read.refuse("attention_bias", false);
  read.refuse("use_bidirectional_attention", false);
  const settings = plain(read, family);
  const types = layerTypes(read, settings.layers);
  const window = read.size("sliding_window");
  return {
    ...settings,
    gainOffset: 1,
    embeddingScale: Math.sqrt(settings.dim),
    tied: read.flag("tie_word_embeddings", true),
    activation: "gelu_tanh",
    postNorms: true,
    attentionScale: read.positive("query_pre_attn_scalar") ** -0.5,
    attentionSoftcap: read.positiveOrNull("attn_logit_softcapping"),
    logitSoftcap: read.positiveOrNull("final_logit_softcapping"),
    windows: each(settings.layers, (k) =>
      (types ? types[k] === "sliding_attention" : slides(k)) ? window : null,
    ),
  };
}

function each<T>(layers: number, of: (k: number) => T): T[] {
  return Array.from({ length: layers }, (_, k) => of(k));
}

/** transformers 5's list of what each block attends to; null where there is none. */
function layerTypes(read: ConfigReader, layers: number): string[] | null {
  const list = read.raw("layer_types") ?? null;
  if (list === null) return null;
  if (!Array.isArray(list) || list.length !== layers) {
    const found = Array.isArray(list) ? `${list.length} entries` : typeof list;
    throw configError(read.subject, "layer_types", found, `${layers} entries, one per block`);
  }
  return list.map((type, k) => {
    if (type === "full_attention" || type === "sliding_attention") return type;
    throw configError(
      read.subject,
      `layer_types[${k}]`,
      JSON.stringify(type),
      "full_attention or sliding_attention: no other is known",
    );
  });
}

function specialIds(read: ConfigReader): Pick<DecoderConfig, "bosId" | "eosIds"> {
  const bos = read.raw("bos_token_id");
  const eos = read.raw("eos_token_id");
  return {
    bosId: typeof bos === "number" ? bos : null,
    eosIds: (Array.isArray(eos) ? eos : [eos]).filter((id): id is number => typeof id === "number"),
  };
}
