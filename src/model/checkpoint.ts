// Decoders from and to Hugging Face directories: config.json and safetensors, sharded or not, in F32, F16 or BF16.
import { copyFile, mkdir, readdir } from "node:fs/promises";
import path from "node:path";
import { NlaError } from "../error.js";
import { writeFileAtomic } from "../data/files.js";
import { f32ToBf16, f32ToF16 } from "../data/floats.js";
import { entryOf, openWeights, saveWeights } from "../data/safetensors.js";
import type { ModelWeights, StoredDtype, TensorToWrite } from "../data/safetensors.js";
import { formatShape } from "../tensor/index.js";
import type { Device, Dtype } from "../tensor/index.js";
import { loadConfig } from "./config.js";
import type { DecoderConfig } from "./decoder-config.js";
import type { Decoder } from "./decoder.js";
import { adapterBase, hasAdapter, loadLora, saveLora } from "./lora-files.js";
import { EMBEDDING, FINAL_NORM, HEAD, parameterShapes } from "./parameters.js";
import type { Parts } from "./parameters.js";
import { placeDecoder } from "./placing.js";
import type { Holding } from "./storage.js";
import { isGguf, openGgufWeights } from "./weight-source.js";
import type { WeightSource } from "./weight-source.js";

// In files of some exporters, and computed from the config rather than read: rope frequencies, and the tied head again.
const IGNORED = /(^|\.)rotary_emb\.inv_freq$/;

/**
 * Loads a model folder onto a device. Values are f32 there, whatever the file holds, unless asked for otherwise. An adapter in
 * the folder is attached, not merged; a folder that has only an adapter is loaded with the base model that it names.
 *
 * @param directory or a GGUF file, whose matrices stay as they are stored unless `holding` says otherwise
 * @param parts what the folder is to have; a reconstructor has no final norm and no head
 * @param holding in which type matrices are held; other than f32 they are frozen
 * @throws NlaError `model.memory` before anything is loaded; `model.weights` where config.json and the weights contradict each
 *   other, `model.not-finite` for NaN or infinite values, `model.lora`, and those of the config and safetensors readers
 */
export async function loadDecoder(
  directory: string,
  device: Device,
  parts: Parts = {},
  holding: Holding = isGguf(directory) ? "stored" : "f32",
): Promise<Decoder> {
  if (isGguf(directory) || !(await hasAdapter(directory)))
    return loadPlain(directory, device, parts, holding);
  const hasBase = await holdsConfig(directory);
  const base = hasBase ? directory : await adapterBase(directory);
  const model = await loadPlain(base, device, parts, holding);
  try {
    model.attach(await loadLora(directory, device, model.config));
    return model;
  } catch (thrown) {
    model[Symbol.dispose]();
    throw thrown;
  }
}

async function holdsConfig(directory: string): Promise<boolean> {
  return (await readdir(directory)).includes("config.json");
}

async function loadPlain(
  directory: string,
  device: Device,
  parts: Parts,
  holding: Holding,
): Promise<Decoder> {
  const source = await openModelWeights(directory, parts);
  try {
    return await placeDecoder(source, device, parts, holding);
  } finally {
    await source.close();
  }
}

/**
 * Opens a folder's or a GGUF file's weights without loading them. Close them.
 *
 * @throws NlaError as {@link loadDecoder}, without those about memory and values
 */
export async function openModelWeights(directory: string, parts: Parts = {}): Promise<WeightSource> {
  return isGguf(directory) ? await openGgufWeights(directory, parts) : await openFolder(directory, parts);
}

async function openFolder(directory: string, parts: Parts): Promise<WeightSource> {
  const config = await loadConfig(directory);
  const weights = await openWeights(directory);
  try {
    checkShapes(config, weights, parts);
    await checkDummies(config, weights, parts);
    const entry = (name: string) => entryOf(weights, config.weightPrefix + name);
    const read = async (name: string) => {
      const values = await weights.readF32(config.weightPrefix + name);
      if (name === EMBEDDING) await checkTie(config, weights, values, parts);
      return values;
    };
    return {
      config,
      path: weights.path,
      stored: (name) => {
        const { dtype, file, begin } = entry(name);
        const held = dtype === "F32" || dtype === "F16" || dtype === "BF16";
        return {
          dtype: held ? (dtype.toLowerCase() as Dtype) : "f32",
          place: held ? { path: file, offset: begin } : null,
        };
      },
      bytes: (name) => weights.read(config.weightPrefix + name),
      f32: read,
      close: () => weights.close(),
    };
  } catch (thrown) {
    await weights.close();
    throw thrown;
  }
}

function checkShapes(config: DecoderConfig, weights: ModelWeights, parts: Parts): void {
  const wanted = parameterShapes(config, parts);
  const { weightPrefix: prefix } = config;
  for (const [bare, shape] of wanted) {
    const name = prefix + bare;
    const entry = weights.entries.get(name);
    if (entry && formatShape(entry.shape) === formatShape(shape)) continue;
    throw new NlaError({
      code: "model.weights",
      subject: `${weights.path}, tensor ${name}`,
      found: entry ? `the shape ${formatShape(entry.shape)}` : "no such tensor",
      wanted: `the shape ${formatShape(shape)} that config.json asks for`,
      next: "config.json and the weights must be of the same model.",
    });
  }
  const extra = [...weights.entries.keys()].filter((name) => {
    if (!name.startsWith(prefix)) return false; // another tower's
    const bare = name.slice(prefix.length);
    if (isDummy(bare, parts)) return false;
    return !wanted.has(bare) && !IGNORED.test(bare) && !(config.tied && bare === HEAD);
  });
  if (extra.length > 0) {
    throw new NlaError({
      code: "model.weights",
      subject: weights.path,
      found: `${extra.length} tensors that config.json does not account for, ${extra[0]} first`,
      wanted: `exactly the ${wanted.size} tensors of a ${config.family} of ${config.layers} blocks`,
      next: "config.json and the weights must be of the same model.",
    });
  }
}

/** What a reconstructor has not, and exports for programs that want it whole have nevertheless. */
export function isDummy(name: string, { finalNorm = true, head = true }: Parts): boolean {
  return (!finalNorm && name === FINAL_NORM) || (!head && name === HEAD);
}

/**
 * A reconstructor's export in the megatron-compatible layout has a last norm of ones and the identity for a head: not read, since a norm of
 * ones still normalises. Any other such tensor says that the checkpoint is no reconstructor.
 *
 * @throws NlaError `model.weights`
 */
export async function checkDummies(
  config: DecoderConfig,
  weights: ModelWeights,
  parts: Parts,
): Promise<void> {
  const { dim, weightPrefix } = config;
  for (const bare of [FINAL_NORM, HEAD]) {
    const entry = weights.entries.get(weightPrefix + bare);
    if (!entry || !isDummy(bare, parts)) continue;
    const shape = bare === HEAD ? [dim, dim] : [dim];
    const fits = formatShape(entry.shape) === formatShape(shape);
    const values = fits ? await weights.readF32(weightPrefix + bare) : null;
    const expected = (i: number) => (bare === FINAL_NORM || i % (dim + 1) === 0 ? 1 : 0);
    if (values?.every((value, i) => value === expected(i))) continue;
    throw new NlaError({
      code: "model.weights",
      subject: `${weights.path}, tensor ${weightPrefix}${bare}`,
      found: fits ? "trained values" : `the shape ${formatShape(entry.shape)}`,
      wanted: `no such tensor in a reconstructor, or the dummy of other exports: ${bare === HEAD ? "the identity" : "ones"} ${formatShape(shape)}`,
      next: "The folder holds a whole model: a reconstructor is cut after block K, without last norm and head.",
    });
  }
}

/** A tied model may store its head, and then it must be the embedding. */
async function checkTie(
  config: DecoderConfig,
  weights: ModelWeights,
  embedding: Float32Array,
  { head = true }: Parts,
): Promise<void> {
  const name = config.weightPrefix + HEAD;
  if (!head || !config.tied || !weights.entries.has(name)) return;
  const stored = await weights.readF32(name);
  const differ = stored.reduce((count, value, i) => count + (value === embedding[i] ? 0 : 1), 0);
  if (differ === 0 && stored.length === embedding.length) return;
  throw new NlaError({
    code: "model.weights",
    subject: `${weights.path}, tensor ${name}`,
    found: `${differ} of ${stored.length} elements unlike the embedding's ${embedding.length}`,
    wanted: "the embedding itself, because config.json says tie_word_embeddings",
    next: "Set tie_word_embeddings to false if the model has a head of its own.",
  });
}

/** Options of {@link saveDecoder}. */
export interface SaveOptions {
  /** Element type in the file. Defaults to `"F32"`. */
  readonly dtype?: "F32" | "F16" | "BF16";
  /** Keys of config.json that differ from the loaded one. */
  readonly config?: Readonly<Record<string, unknown>>;
}

/**
 * Writes a decoder into an existing folder as one model.safetensors and config.json, in the names of Hugging Face. An
 * adapter is written beside them in peft's layout; merge it first where one whole model is wanted.
 *
 * @throws NlaError `disk.full` and others of the writers
 */
export async function saveDecoder(
  directory: string,
  model: Decoder,
  options: SaveOptions = {},
): Promise<void> {
  const { dtype = "F32", config = {} } = options;
  await mkdir(directory, { recursive: true });
  const tensors = [...model.parameters.tensors].map(([name, tensor]) =>
    storedTensor(name, tensor.shape, dtype, tensor.readF32()),
  );
  await saveWeights(directory, tensors);
  const json: Record<string, unknown> = {
    ...model.config.json,
    vocab_size: model.get(EMBEDDING).shape[0],
    ...config,
  };
  // One of the two names is there, by the generation of transformers that wrote the config.
  json["dtype" in json ? "dtype" : "torch_dtype"] = { F32: "float32", F16: "float16", BF16: "bfloat16" }[
    dtype
  ];
  await writeFileAtomic(path.join(directory, "config.json"), `${JSON.stringify(json, null, 2)}\n`);
  if (model.lora) await saveLora(directory, model.lora, model.config);
}

/**
 * Writes a decoder as the folder it came from is laid out: the same files, order, metadata and element types, config.json
 * copied. Parameters that have not changed come back byte for byte; tensors that are not of the decoder are copied.
 *
 * @param from the folder that the decoder was loaded from
 * @throws NlaError of the safetensors reader and writer
 */
export async function saveDecoderLike(directory: string, model: Decoder, from: string): Promise<void> {
  const weights = await openWeights(from);
  const { weightPrefix: prefix } = model.config;
  try {
    const tensors: TensorToWrite[] = [];
    for (const [name, { dtype, shape }] of weights.entries) {
      const bare = name.startsWith(prefix) ? name.slice(prefix.length) : name;
      const tied = bare === HEAD && model.config.tied ? EMBEDDING : bare;
      const parameter = model.parameters.tensors.get(tied);
      const convertible = dtype === "F32" || dtype === "F16" || dtype === "BF16";
      if (parameter && convertible) tensors.push(storedTensor(name, shape, dtype, parameter.readF32()));
      else tensors.push({ name, dtype, shape, data: await weights.read(name) });
    }
    await mkdir(directory, { recursive: true });
    await saveWeights(directory, tensors, { shards: weights.layout });
    await copyFile(path.join(from, "config.json"), path.join(directory, "config.json"));
    if (model.lora) await saveLora(directory, model.lora, model.config);
  } finally {
    await weights.close();
  }
}

/** Values as a tensor of a safetensors file. */
export function storedTensor(
  name: string,
  shape: readonly number[],
  dtype: StoredDtype,
  values: Float32Array,
): TensorToWrite {
  const stored = dtype === "F32" ? values : dtype === "BF16" ? f32ToBf16(values) : f32ToF16(values);
  return { name, dtype, shape, data: new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength) };
}

/**
 * Copies a model folder: config and weights byte for byte, shards and index as they are, and the other files with it.
 *
 * @throws NlaError of the safetensors reader where the weights are not sound
 */
export async function copyModelFolder(from: string, to: string): Promise<void> {
  const weights = await openWeights(from); // a truncated file is refused here, not copied
  await weights.close();
  await mkdir(to, { recursive: true });
  for (const entry of await readdir(from, { withFileTypes: true })) {
    if (entry.isFile()) await copyFile(path.join(from, entry.name), path.join(to, entry.name));
  }
}
