// The table of model families: how each spells its settings in config.json. A family is one entry here and one folder of
// golden values; nothing else in nlakit knows its name.
import { NlaError } from "../error.js";
import { configError } from "./config.js";
import type { DecoderConfig, RopeConfig, RopeScaling } from "./config.js";

type Json = Readonly<Record<string, unknown>>;

/** Reads typed values of one config.json, and names the key where one is missing or wrong. */
class Reader {
  readonly json: Json;
  readonly subject: string;

  constructor(json: Json, subject: string) {
    this.json = json;
    this.subject = subject;
  }

  /** A number; `fallback` where the key is absent or null. */
  number(key: string, fallback?: number): number {
    const value = this.json[key] ?? fallback;
    if (typeof value === "number" && Number.isFinite(value)) return value;
    throw configError(this.subject, key, JSON.stringify(value) ?? "nothing", "a number");
  }

  // Larger extents than this do not occur, and would overflow the sizes computed from them.
  size(key: string, fallback?: number): number {
    const value = this.number(key, fallback);
    if (Number.isInteger(value) && value > 0 && value <= 16_777_216) return value;
    throw configError(this.subject, key, String(value), "an integer from 1 to 16,777,216");
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.json[key] ?? fallback;
    if (typeof value === "boolean") return value;
    throw configError(this.subject, key, JSON.stringify(value) ?? "nothing", "true or false");
  }

  /** Refuses a value that the family's code would have to honour and does not. */
  refuse(key: string, ...allowed: readonly unknown[]): void {
    const value = this.json[key];
    if (value === undefined || value === null || allowed.includes(value)) return;
    throw configError(
      this.subject,
      key,
      JSON.stringify(value),
      `${allowed.map(String).join(" or ")}: no other is known`,
    );
  }
}

function llama(json: Json, subject: string): DecoderConfig {
  const read = new Reader(json, subject);
  read.refuse("hidden_act", "silu");
  read.refuse("attention_bias", false);
  read.refuse("mlp_bias", false);
  read.refuse("pretraining_tp", 1, 0);
  read.refuse("partial_rotary_factor", 1);
  const dim = read.size("hidden_size");
  const layers = read.size("num_hidden_layers");
  const heads = read.size("num_attention_heads");
  const headDim = read.size("head_dim", dim / heads);
  const rope = ropeOf(read);
  return {
    family: "llama",
    dim,
    layers,
    heads,
    kvHeads: read.size("num_key_value_heads", heads),
    headDim,
    ffn: read.size("intermediate_size"),
    vocabulary: read.size("vocab_size"),
    contextLength: read.size("max_position_embeddings", 2048),
    normEps: read.number("rms_norm_eps", 1e-6),
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
    rope: Array.from({ length: layers }, () => rope),
    windows: Array.from({ length: layers }, () => null),
    ...specialIds(json),
    json,
  };
}

const FAMILIES: Readonly<Record<string, (json: Json, subject: string) => DecoderConfig>> = { llama };

/** @throws NlaError `model.family` naming the families that are known */
export function familyOf(json: Json, subject: string): DecoderConfig {
  const family = String(json.model_type);
  const parse = Object.hasOwn(FAMILIES, family) ? FAMILIES[family] : undefined;
  if (parse) return parse(json, subject);
  throw new NlaError({
    code: "model.family",
    subject,
    found: `model_type ${JSON.stringify(json.model_type)}`,
    wanted: `one of ${Object.keys(FAMILIES).join(", ")}`,
    next: "Other architectures cannot be computed yet; docs/method.md says how a family is added.",
  });
}

function specialIds(json: Json): Pick<DecoderConfig, "bosId" | "eosIds"> {
  const bos = json.bos_token_id;
  const eos = json.eos_token_id;
  return {
    bosId: typeof bos === "number" ? bos : null,
    eosIds: (Array.isArray(eos) ? eos : [eos]).filter((id): id is number => typeof id === "number"),
  };
}

/** transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 both inside `rope_parameters`. */
function ropeOf(read: Reader): RopeConfig {
  const nested = read.json.rope_parameters as Json | null | undefined;
  const scaling = (nested ?? read.json.rope_scaling) as Json | null | undefined;
  const theta = nested
    ? new Reader(nested, `${read.subject}, rope_parameters`).number("rope_theta", 10_000)
    : read.number("rope_theta", 10_000);
  return { theta, scaling: scaling ? scalingOf(scaling, read.subject) : null };
}

function scalingOf(json: Json, subject: string): RopeScaling | null {
  const read = new Reader(json, `${subject}, rope scaling`);
  const kind = json.rope_type ?? json.type ?? "default";
  if (kind === "default") return null;
  if (kind === "linear") return { kind, factor: read.number("factor") };
  if (kind === "llama3") {
    return {
      kind,
      factor: read.number("factor"),
      lowFrequencyFactor: read.number("low_freq_factor"),
      highFrequencyFactor: read.number("high_freq_factor"),
      originalLength: read.size("original_max_position_embeddings"),
    };
  }
  throw configError(
    subject,
    "rope_type",
    JSON.stringify(kind),
    "default, linear or llama3: no other is known",
  );
}
