// The model that is read: a decoder, its tokenizer, and the activations of its tokens.
import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { cachedModel } from "../data/hub-cache.js";
import { parseHubName } from "../data/hub-name.js";
import { NlaError } from "../error.js";
import { isGguf, loadDecoder, run } from "../model/index.js";
import type { Decoder, Holding } from "../model/index.js";
import type { Device } from "../tensor/index.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { loadModelTokenizer } from "./checkpoint-place.js";
import { checkVocabulary } from "./verbalizer.js";

/** Targets that ship inside the package, by name, and their folders in assets/. */
const BUNDLED_FOLDERS: Readonly<Record<string, string>> = {
  aidreams260K: "aidreams260K",
  smallworld: "smallworld/target",
};

/** The names of the bundled targets. */
export const BUNDLED: readonly string[] = Object.keys(BUNDLED_FOLDERS);

/** A target model. It owns its decoder. */
export interface Target extends Disposable {
  /** As it was named: a path or a bundled name. */
  readonly name: string;
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
}

/** The folder or GGUF file of a target: a bundled name's inside the package, a hub name's in the cache if it is there, else the path itself. */
export function targetDirectory(name: string): string {
  const hub = parseHubName(name);
  const cached = hub === null ? null : cachedModel(hub);
  if (cached !== null) return cached;
  const folder =
    Object.hasOwn(BUNDLED_FOLDERS, name) && !existsSync(name) ? BUNDLED_FOLDERS[name] : undefined;
  // Two folders up from src/nla and from dist/nla alike.
  return folder === undefined ? name : path.resolve(import.meta.dirname, "../../assets", folder);
}

/**
 * Loads a target.
 *
 * @param name a Hugging Face folder, a GGUF file, or the name of a bundled target
 * @param holding how its matrices are held; by default f32, and as stored for a GGUF file
 * @throws NlaError `target.missing` where there is no such folder; those of the loaders; `contract.vocabulary` where the tokenizer has more ids than the model has rows
 */
export async function loadTarget(name: string, device: Device, holding?: Holding): Promise<Target> {
  const directory = targetDirectory(name);
  await requireFolder(name, directory);
  const tokenizer = await loadModelTokenizer(directory);
  const model = await loadDecoder(directory, device, {}, holding);
  try {
    checkVocabulary(model, tokenizer);
  } catch (thrown) {
    model[Symbol.dispose]();
    throw thrown;
  }
  return { name, model, tokenizer, [Symbol.dispose]: () => model[Symbol.dispose]() };
}

async function requireFolder(name: string, directory: string): Promise<void> {
  const found = await stat(directory).catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === "ENOENT" || thrown.code === "ENOTDIR") return null;
    throw thrown;
  });
  if (found?.isFile() && isGguf(directory)) return;
  if (found?.isDirectory()) {
    const names = await readdir(directory);
    const files = names.filter(isGguf).sort();
    if (files.length === 0 || names.includes("config.json")) return;
    throw new NlaError({
      code: "target.missing",
      subject: `the target ${name}`,
      found: `no config.json, and ${files.length === 1 ? "the file" : "the files"} ${files.join(", ")}`,
      wanted: "the folder of a model in Hugging Face layout, or one .gguf file",
      next: `Name the file: ${path.join(directory, files[0] as string)}`,
    });
  }
  throw new NlaError({
    code: "target.missing",
    subject: `the target ${name}`,
    found: found ? "a file" : `no folder ${path.resolve(directory)}`,
    wanted: `the folder of a model in Hugging Face layout, a .gguf file, or the name of a bundled one (${BUNDLED.join(", ")})`,
    next: "Check the path, or name a model of the hub: org/name, org/name@revision, org/name/file.gguf.",
  });
}

/**
 * Activations of every token of some texts.
 *
 * @param sequences token ids, special tokens included
 * @returns per sequence, row-major [tokens, dim]
 * @throws NlaError `model.layer`, `model.batch` for a text longer than the context
 */
export async function activationsOf(
  { model }: Pick<Target, "model">,
  layer: number,
  sequences: readonly (readonly number[])[],
  options: { readonly compute?: "f32" | "bf16"; readonly signal?: AbortSignal | undefined } = {},
): Promise<Float32Array[]> {
  const { blocks } = await run(model, sequences, { ...options, capture: [layer] });
  const packed = blocks.get(layer) as Float32Array;
  const { dim } = model.config;
  let start = 0;
  return sequences.map((ids) => packed.slice(start * dim, (start += ids.length) * dim));
}
