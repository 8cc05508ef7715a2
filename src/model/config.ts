// Reading a Hugging Face config.json into a DecoderConfig, and cutting one to its first blocks.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { NlaError, messageOf } from "../error.js";
import { configError } from "./config-reader.js";
import type { DecoderConfig } from "./decoder-config.js";
import { familyOf } from "./families.js";

// A config.json is a few kilobytes; a larger file is not one.
const MAX_CONFIG_BYTES = 4_000_000;

/**
 * Reads a model's config.json.
 *
 * @throws NlaError `model.config-missing`, `model.gguf` for a GGUF file, `model.config-syntax`, and those of {@link parseConfig}
 */
export async function loadConfig(directory: string): Promise<DecoderConfig> {
  const file = path.join(directory, "config.json");
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    if (directory.toLowerCase().endsWith(".gguf") && (cause as NodeJS.ErrnoException).code === "ENOTDIR") {
      throw new NlaError({
        code: "model.gguf",
        subject: directory,
        found: "a GGUF file",
        wanted:
          "the folder of a model in Hugging Face layout: it is read and can explain, but training starts from a folder",
        next: `Unpack it: nla convert ${directory} --folder DIR, and name DIR.`,
        cause,
      });
    }
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
