// The files of a tokenizer directory, read and checked: tokenizer.json, tokenizer_config.json, special_tokens_map.json and
// chat_template.jinja. Shapes are checked as far as the rest of text/ relies on them.
//
// Plain data in, plain data out; what the data means is in added-tokens.ts and tokenizer.ts.
import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { messageOf, NlaError } from "../error.js";

/** A JSON object whose fields are not known yet. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** What a tokenizer directory holds, as it stands in the files. */
export interface TokenizerFiles {
  readonly directory: string;
  /** tokenizer.json: the rules and the vocabulary. `model.type` is filled in where an old file leaves it out. */
  readonly rules: JsonObject & { readonly model: JsonObject & { readonly type: ModelType } };
  /** tokenizer_config.json; empty where there is none. */
  readonly config: JsonObject;
  /** special_tokens_map.json; empty where there is none. Only consulted for what the config leaves out. */
  readonly specialTokensMap: JsonObject;
  /** chat_template.jinja, which wins over the template in the config; null where there is none. */
  readonly templateFile: string | null;
}

/** The models of tokenizer.json that text/ implements. */
export type ModelType = "BPE" | "Unigram" | "WordPiece" | "WordLevel";

const MODEL_TYPES: readonly string[] = ["BPE", "Unigram", "WordPiece", "WordLevel"];
const MAX_FILE_BYTES = 256 * 2 ** 20; // the largest real one (Gemma 3) has 33 MB; stops reading a model file by mistake

/**
 * Reads a tokenizer directory. Throws NlaError: `tokenizer.missing` without tokenizer.json, `tokenizer.json` for text that is
 * not a JSON object or not UTF-8, `tokenizer.model_unknown` for a model type that is none of `ModelType`,
 * `tokenizer.too_large` for a file that cannot be a tokenizer.
 */
export async function readTokenizerFiles(directory: string): Promise<TokenizerFiles> {
  const file = path.join(directory, "tokenizer.json");
  const rules = await readJson(file);
  if (rules === null) {
    throw new NlaError({
      code: "tokenizer.missing",
      subject: file,
      found: "no such file",
      wanted: "the tokenizer of the model",
      next: "Copy tokenizer.json from the model's repository; vocab.json and merges.txt alone are not enough.",
    });
  }
  const model = rules["model"];
  if (!isObject(model)) {
    throw new NlaError({
      code: "tokenizer.json",
      subject: file,
      found: `"model" is ${kindOf(model)}`,
      wanted: "an object with the vocabulary",
      next: "Download the file again; it is not a tokenizer.json.",
    });
  }
  const type = model["type"] ?? inferredType(model);
  if (typeof type !== "string" || !MODEL_TYPES.includes(type)) {
    throw new NlaError({
      code: "tokenizer.model_unknown",
      subject: file,
      found: `model type ${JSON.stringify(type) ?? "absent"}`,
      wanted: MODEL_TYPES.join(", "),
      next: "Use a model whose tokenizer is one of these.",
    });
  }
  return {
    directory,
    rules: { ...rules, model: { ...model, type: type as ModelType } },
    config: (await readJson(path.join(directory, "tokenizer_config.json"))) ?? {},
    specialTokensMap: (await readJson(path.join(directory, "special_tokens_map.json"))) ?? {},
    templateFile: await readText(path.join(directory, "chat_template.jinja")),
  };
}

/**
 * Writes the files into `directory` (made if absent) in the layout that transformers reads and writes: one chat template goes
 * to chat_template.jinja and leaves the config, a list of named ones stays in the config. Throws `tokenizer.write` with the
 * system's reason; wrap the directory in a temporary one where a half-written result must not be seen.
 */
export async function writeTokenizerFiles(files: TokenizerFiles, directory: string): Promise<void> {
  const { chat_template: configTemplate, ...rest } = files.config;
  const template = files.templateFile ?? (typeof configTemplate === "string" ? configTemplate : null);
  const config = Array.isArray(configTemplate) ? files.config : rest;
  const contents: [string, string | null][] = [
    ["tokenizer.json", `${JSON.stringify(files.rules, null, 2)}\n`],
    ["tokenizer_config.json", `${JSON.stringify(config, null, 2)}\n`],
    [
      "special_tokens_map.json",
      hasFields(files.specialTokensMap) ? `${JSON.stringify(files.specialTokensMap, null, 2)}\n` : null,
    ],
    ["chat_template.jinja", template],
  ];
  try {
    await mkdir(directory, { recursive: true });
    for (const [name, content] of contents) {
      const target = path.join(directory, name);
      // A file of an earlier tokenizer in the same directory would change what is loaded.
      if (content === null) await rm(target, { force: true });
      else await writeFile(target, content);
    }
  } catch (cause) {
    throw new NlaError({
      code: "tokenizer.write",
      subject: directory,
      found: messageOf(cause),
      wanted: "a directory that takes the tokenizer's files",
      next: "Free space or choose another directory, then save again.",
      cause,
    });
  }
}

/** True for a JSON object (not null, not an array). */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function hasFields(value: JsonObject): boolean {
  return Object.keys(value).length > 0;
}

/** Files from before 2020 have no `model.type`: only BPE has merges, only Unigram has a list as vocabulary. */
function inferredType(model: JsonObject): ModelType | undefined {
  if ("merges" in model) return "BPE";
  return Array.isArray(model["vocab"]) ? "Unigram" : undefined;
}

function kindOf(value: unknown): string {
  if (value === undefined) return "absent";
  return value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
}

async function readJson(file: string): Promise<JsonObject | null> {
  const text = await readText(file);
  if (text === null) return null;
  let value: unknown;
  let reason = "";
  try {
    value = JSON.parse(text);
  } catch (cause) {
    reason = messageOf(cause);
  }
  if (reason === "" && isObject(value)) return value;
  throw new NlaError({
    code: "tokenizer.json",
    subject: file,
    found: reason === "" ? kindOf(value) : reason,
    wanted: "a JSON object",
    next: "Download the file again; a git-lfs pointer or an error page is not a tokenizer.",
  });
}

async function readText(file: string): Promise<string | null> {
  let bytes: Uint8Array;
  try {
    const { size } = await stat(file);
    if (size > MAX_FILE_BYTES) {
      throw new NlaError({
        code: "tokenizer.too_large",
        subject: file,
        found: `${size} bytes`,
        wanted: `at most ${MAX_FILE_BYTES} bytes`,
        next: "Check that this is a tokenizer's file.",
      });
    }
    bytes = await readFile(file);
  } catch (cause) {
    if (cause instanceof NlaError) throw cause;
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw new NlaError({
      code: "tokenizer.unreadable",
      subject: file,
      found: messageOf(cause),
      wanted: "a readable file",
      next: "Check the path and its permissions.",
      cause,
    });
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new NlaError({
      code: "tokenizer.json",
      subject: file,
      found: "bytes that are not UTF-8",
      wanted: "UTF-8 text",
      next: "Download the file again.",
      cause,
    });
  }
}
