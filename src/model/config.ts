// What a decoder is, in numbers: every setting that changes the mathematics, made from a Hugging Face config.json. Families
// differ only in how they spell these settings (families.ts); the forward pass knows no family.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { NlaError, messageOf } from "../error.js";
import { configError } from "./config-reader.js";
import { familyOf } from "./families.js";

/** How positions turn queries and keys in one block. */
export interface RopeConfig {
  readonly theta: number;
  /** Scaling of the frequencies; null: none. */
  readonly scaling: RopeScaling | null;
}

/** One factor for every frequency, Llama 3's scaling by wavelength, or YaRN's with a factor on the scores. */
export type RopeScaling =
  | { readonly kind: "linear"; readonly factor: number }
  | {
      readonly kind: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalLength: number;
    }
  | {
      readonly kind: "yarn";
      readonly factor: number;
      readonly originalLength: number;
      /** Frequencies that turn more often than this within the original length are kept. */
      readonly fastTurns: number;
      /** Those that turn less often than this are divided by `factor`. */
      readonly slowTurns: number;
      /** Factor on cos and sin; null: 0.1 ln(factor) + 1. */
      readonly magnitude: number | null;
      /** Whether the bounds between the two are whole pair numbers. */
      readonly truncate: boolean;
    };

/** The shape and settings of a decoder. Lengths are in elements or tokens. */
export interface DecoderConfig {
  /** `model_type` of the config file. */
  readonly family: string;
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly ffn: number;
  readonly vocabulary: number;
  /** Longest text, in tokens. */
  readonly contextLength: number;
  readonly normEps: number;
  /** What is added to a norm's stored gain: 0, or 1 for the Gemmas. */
  readonly gainOffset: number;
  /** Factor on the embedding's output. */
  readonly embeddingScale: number;
  /** Whether the output head is the embedding. */
  readonly tied: boolean;
  readonly activation: "silu" | "gelu_tanh";
  readonly attentionBias: boolean;
  /** Whether each head's q and k are normalised before rope. */
  readonly qkNorm: boolean;
  /** Whether attention and feed-forward outputs are normalised before they are added. */
  readonly postNorms: boolean;
  /** Factor on attention scores. */
  readonly attentionScale: number;
  readonly attentionSoftcap: number | null;
  readonly logitSoftcap: number | null;
  /** One per block. */
  readonly rope: readonly RopeConfig[];
  /** One per block: how many positions back it sees, itself included; null: all. */
  readonly windows: readonly (number | null)[];
  /** What stands before every name in the files: `language_model.` beside a vision tower, else nothing. */
  readonly weightPrefix: string;
  readonly bosId: number | null;
  readonly eosIds: readonly number[];
  /** The file as it was, so that what nobody reads is written back. */
  readonly json: Readonly<Record<string, unknown>>;
}

// A config.json is a few kilobytes; a larger file is not one.
const MAX_CONFIG_BYTES = 4_000_000;

/**
 * Reads a model's config.json.
 *
 * @throws NlaError `model.config-missing`, `model.config-syntax`, and those of {@link parseConfig}
 */
export async function loadConfig(directory: string): Promise<DecoderConfig> {
  const file = path.join(directory, "config.json");
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    throw new NlaError({
      code: "model.config-missing",
      subject: file,
      found: messageOf(cause),
      wanted: "the config.json of a model in Hugging Face layout",
      next: "Name the folder that holds config.json and the weights.",
      cause,
    });
  }
  let json: unknown;
  try {
    if (text.length > MAX_CONFIG_BYTES) throw new Error(`${text.length} characters`);
    json = JSON.parse(text);
  } catch (cause) {
    throw new NlaError({
      code: "model.config-syntax",
      subject: file,
      found: messageOf(cause),
      wanted: "a JSON object",
      next: "Is the download complete?",
      cause,
    });
  }
  return parseConfig(json, file);
}

/**
 * Makes a config of a parsed config.json, of the style of transformers 4 (`rope_theta`) or 5 (`rope_parameters`).
 *
 * @param subject names the file in errors
 * @throws NlaError `model.config` for a missing or impossible value, `model.family` for an unknown `model_type`
 */
export function parseConfig(json: unknown, subject: string): DecoderConfig {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new NlaError({
      code: "model.config",
      subject,
      found: Array.isArray(json) ? "an array" : typeof json,
      wanted: "a JSON object",
      next: "Name the config.json of a model.",
    });
  }
  const record = json as Record<string, unknown>;
  const config = familyOf(record, subject);
  const wrong = [
    [
      "num_attention_heads",
      config.heads % config.kvHeads === 0,
      `a multiple of num_key_value_heads (${config.kvHeads})`,
    ],
    ["head_dim", config.headDim % 2 === 0, "an even number, because rope turns pairs"],
  ] as const;
  for (const [key, holds, wanted] of wrong) {
    if (!holds)
      throw configError(subject, key, String(key === "head_dim" ? config.headDim : config.heads), wanted);
  }
  return config;
}

/**
 * The config of the first `layers` blocks, as a reconstructor has it: per-block lists are cut too.
 *
 * @throws NlaError `model.layer` where the model has fewer blocks
 */
export function truncateConfig(config: DecoderConfig, layers: number): DecoderConfig {
  if (!Number.isInteger(layers) || layers < 1 || layers > config.layers) {
    throw new NlaError({
      code: "model.layer",
      subject: `a copy of the first ${layers} blocks`,
      found: `a model of ${config.layers} blocks`,
      wanted: `a number from 1 to ${config.layers}`,
      next: `Layers count from 0: the last one is ${config.layers - 1}.`,
    });
  }
  const json: Record<string, unknown> = { ...config.json, num_hidden_layers: layers };
  for (const key of ["layer_types", "no_rope_layers"]) {
    if (Array.isArray(json[key])) json[key] = json[key].slice(0, layers);
  }
  return {
    ...config,
    layers,
    rope: config.rope.slice(0, layers),
    windows: config.windows.slice(0, layers),
    json,
  };
}
