// Verbalizers and reconstructors from and to folders in the released layout: a Hugging Face model with its tokenizer and
// nla_meta.yaml; the reconstructor truncated, with value_head.safetensors beside it.
import path from "node:path";
import { openSafetensors, writeSafetensors } from "../data/safetensors.js";
import { writeModelSidecar } from "../data/sidecar.js";
import type { ModelSidecar } from "../data/sidecar.js";
import { NlaError } from "../error.js";
import { isGguf, loadDecoder, readGgufValueHead, saveDecoder, storedTensor } from "../model/index.js";
import type { Holding, SaveOptions } from "../model/index.js";
import { formatShape } from "../tensor/index.js";
import type { Device } from "../tensor/index.js";
import { loadModelTokenizer, sidecarOfCheckpoint } from "./checkpoint-place.js";
import { Reconstructor } from "./reconstructor.js";
import { contractOf, sidecarOf } from "./sidecar-contract.js";
import type { CheckpointFacts } from "./sidecar-contract.js";
import { Verbalizer } from "./verbalizer.js";

const VALUE_HEAD_FILE = "value_head.safetensors";
const VALUE_HEAD_TENSOR = "weight";

/** Writes a verbalizer into an existing folder. @throws NlaError of the writers, `disk.full` above all */
export async function saveVerbalizer(
  directory: string,
  verbalizer: Verbalizer,
  facts: Omit<CheckpointFacts, "role">,
  options: SaveOptions = {},
): Promise<void> {
  await saveDecoder(directory, verbalizer.model, options);
  await verbalizer.tokenizer.save(directory);
  const end = verbalizer.tokenizer.eosId;
  await writeModelSidecar(directory, sidecarOf(verbalizer.contract, { ...facts, role: "av" }, end));
}

/** Writes a reconstructor into an existing folder. @throws as {@link saveVerbalizer} */
export async function saveReconstructor(
  directory: string,
  reconstructor: Reconstructor,
  facts: Omit<CheckpointFacts, "role">,
  options: SaveOptions = {},
): Promise<void> {
  const { dtype = "F32" } = options;
  await saveDecoder(directory, reconstructor.model, options);
  await reconstructor.tokenizer.save(directory);
  await saveValueHead(directory, reconstructor.head.readF32(), reconstructor.contract.dim, dtype);
  const end = reconstructor.tokenizer.eosId;
  await writeModelSidecar(directory, sidecarOf(reconstructor.contract, { ...facts, role: "ar" }, end));
}

/** Writes a reconstructor's value head [dim, dim] into its folder. @throws as {@link saveVerbalizer} */
export async function saveValueHead(
  directory: string,
  head: Float32Array,
  dim: number,
  dtype: "F32" | "F16" | "BF16",
): Promise<void> {
  const tensor = storedTensor(VALUE_HEAD_TENSOR, [dim, dim], dtype, head);
  await writeSafetensors(path.join(directory, VALUE_HEAD_FILE), [tensor], { metadata: { format: "pt" } });
}

/** What a reconstructor's decoder has. */
export const RECONSTRUCTOR_PARTS = { finalNorm: false, head: false } as const;

/** Options of both loaders. */
export interface LoadCheckpointOptions {
  /** A sidecar file, or a folder with one, to be used in the place of the checkpoint's own. */
  readonly contract?: string | undefined;
  /** How matrices are held. Defaults to f32, and as stored for a GGUF file. */
  readonly holding?: Holding | undefined;
}

/** A loaded checkpoint with what its sidecar says. */
export interface Loaded<T> {
  readonly model: T;
  readonly sidecar: ModelSidecar;
}

/**
 * Loads a verbalizer.
 *
 * @param directory a folder in the released layout, or a GGUF file with its sidecar beside it
 * @param options.layer its layer where its sidecar does not say it: sidecars as the reference's training writes them do
 *   not, those of released checkpoints do
 * @throws NlaError where the folder, its sidecar, tokenizer or weights are missing or contradict each other
 */
export async function loadVerbalizer(
  directory: string,
  device: Device,
  options: LoadCheckpointOptions & { readonly layer?: number } = {},
): Promise<Loaded<Verbalizer>> {
  const { file, sidecar } = await sidecarOfCheckpoint(directory, "av", options.contract);
  const tokenizer = await loadModelTokenizer(directory);
  const contract = contractOf(sidecar, file, tokenizer, options.layer ?? null);
  const decoder = await loadDecoder(directory, device, {}, options.holding);
  try {
    return { model: new Verbalizer(decoder, tokenizer, contract), sidecar };
  } catch (thrown) {
    decoder[Symbol.dispose]();
    throw thrown;
  }
}

/** Loads a reconstructor. @throws as {@link loadVerbalizer}, and `contract.value-head` */
export async function loadReconstructor(
  directory: string,
  device: Device,
  options: LoadCheckpointOptions = {},
): Promise<Loaded<Reconstructor>> {
  const { file, sidecar } = await sidecarOfCheckpoint(directory, "ar", options.contract);
  const tokenizer = await loadModelTokenizer(directory);
  const decoder = await loadDecoder(directory, device, RECONSTRUCTOR_PARTS, options.holding);
  try {
    const contract = contractOf(sidecar, file, tokenizer, decoder.config.layers - 1);
    const head = await valueHeadOf(directory, decoder.config.dim);
    return { model: new Reconstructor(decoder, tokenizer, contract, head), sidecar };
  } catch (thrown) {
    decoder[Symbol.dispose]();
    throw thrown;
  }
}

/** The value head of a folder; of a GGUF file its own, or the file beside it. @throws NlaError `contract.value-head` */
export async function valueHeadOf(directory: string, dim: number): Promise<Float32Array> {
  const inside = isGguf(directory) ? await readGgufValueHead(directory, dim) : null;
  const folder = isGguf(directory) ? path.dirname(directory) : directory;
  return inside ?? (await readValueHead(path.join(folder, VALUE_HEAD_FILE), dim));
}

async function readValueHead(file: string, dim: number): Promise<Float32Array> {
  const weights = await openSafetensors(file);
  try {
    const entry = weights.entries.get(VALUE_HEAD_TENSOR);
    const shape = [dim, dim];
    if (entry && formatShape(entry.shape) === formatShape(shape))
      return await weights.readF32(VALUE_HEAD_TENSOR);
    throw new NlaError({
      code: "contract.value-head",
      subject: file,
      found: entry
        ? `a matrix ${formatShape(entry.shape)}`
        : `tensors ${[...weights.entries.keys()].join(", ") || "none"}`,
      wanted: `a tensor ${VALUE_HEAD_TENSOR} ${formatShape(shape)}, as wide as the model`,
      next: "The file must be of the same checkpoint as the model beside it.",
    });
  } finally {
    await weights.close();
  }
}
