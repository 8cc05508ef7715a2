// Where a decoder's weights come from: a Hugging Face folder or one GGUF file, seen alike: parameters by Hugging Face name, in
// Hugging Face's order, with the type they are stored in and where in a file they lie, so that they can be mapped.
import { NlaError } from "../error.js";
import { openGguf } from "../data/gguf.js";
import type { GgufFile, GgufTensor } from "../data/gguf.js";
import type { Dtype, Shape } from "../tensor/index.js";
import { parseConfig } from "./config.js";
import type { DecoderConfig } from "./decoder-config.js";
import {
  ggufConfig,
  ggufName,
  holdsOnePlus,
  interleavedHeads,
  llama3Scaling,
  reorderRows,
  ROPE_FACTORS,
  VALUE_HEAD_TENSOR,
} from "./gguf-config.js";
import { parameterShapes } from "./parameters.js";
import type { Parts } from "./parameters.js";

/** One parameter as it is stored. */
export interface StoredParameter {
  readonly dtype: Dtype;
  /** Where it lies as it is to be in memory; null where rows or values have to be changed first. */
  readonly place: { readonly path: string; readonly offset: number } | null;
}

/** A model's weights on disk. Close it. */
export interface WeightSource {
  readonly config: DecoderConfig;
  readonly path: string;
  stored(name: string): StoredParameter;
  /** As stored, rows in Hugging Face's order. */
  bytes(name: string): Promise<Uint8Array>;
  f32(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}

/** The types of a GGUF file's matrices. @throws NlaError of the reader */
export async function storedTypes(path: string): Promise<Dtype[]> {
  const file = await openGguf(path);
  try {
    const matrices = [...file.tensors.values()].filter(({ shape }) => shape.length > 1);
    return [...new Set(matrices.map(({ dtype }) => dtype.toLowerCase() as Dtype))];
  } finally {
    await file.close();
  }
}

/** A reconstructor's value head [dim, dim] in a GGUF file; null where it has none. @throws NlaError of the reader, `model.weights` */
export async function readGgufValueHead(path: string, dim: number): Promise<Float32Array | null> {
  const file = await openGguf(path);
  try {
    const entry = file.tensors.get(VALUE_HEAD_TENSOR);
    if (!entry) return null;
    if (entry.shape.length === 2 && entry.shape.every((extent) => extent === dim))
      return await file.readF32(VALUE_HEAD_TENSOR);
    const found = `the shape [${entry.shape.join(", ")}]`;
    throw mismatch(`${path}, tensor ${VALUE_HEAD_TENSOR}`, found, `[${dim}, ${dim}], as wide as the model`);
  } finally {
    await file.close();
  }
}

/** Whether a model's name is that of one file of this kind. */
export function isGguf(path: string): boolean {
  return path.toLowerCase().endsWith(".gguf");
}

/** The config of a GGUF file. @throws NlaError of the reader and of {@link ggufConfig} */
export async function loadGgufConfig(path: string): Promise<DecoderConfig> {
  const file = await openGguf(path);
  try {
    return await configWithRope(file);
  } finally {
    await file.close();
  }
}

/**
 * Opens a GGUF file as weights.
 *
 * @throws NlaError of the reader; `model.weights` where tensors are missing, have other shapes or are not accounted for
 */
export async function openGgufWeights(path: string, parts: Parts): Promise<WeightSource> {
  const file = await openGguf(path);
  try {
    const config = await configWithRope(file);
    checkTensors(file, config, parts);
    const entry = (name: string) => file.tensors.get(ggufName(name, config)) as GgufTensor;
    const f32 = async (name: string): Promise<Float32Array> => {
      const { shape } = entry(name);
      const values = await file.readF32(ggufName(name, config));
      if (holdsOnePlus(name, config)) return values.map((value) => value - 1);
      const heads = interleavedHeads(name, config);
      if (heads === null) return values;
      const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      return new Float32Array(reorderRows(bytes, shape[0] as number, heads, "hf").buffer);
    };
    return {
      config,
      path,
      stored: (name) => {
        const { dtype, begin } = entry(name);
        const moved = holdsOnePlus(name, config) || interleavedHeads(name, config) !== null;
        return { dtype: dtype.toLowerCase() as Dtype, place: moved ? null : { path, offset: begin } };
      },
      bytes: async (name) => {
        const heads = interleavedHeads(name, config);
        const bytes = await file.read(ggufName(name, config));
        return heads === null ? bytes : reorderRows(bytes, entry(name).shape[0] as number, heads, "hf");
      },
      f32,
      close: () => file.close(),
    };
  } catch (thrown) {
    await file.close();
    throw thrown;
  }
}

async function configWithRope(file: GgufFile): Promise<DecoderConfig> {
  const config = ggufConfig(file);
  if (!file.tensors.has(ROPE_FACTORS)) return config;
  const original = file.metadata.get("llama.rope.scaling.original_context_length");
  // Converters leave it out: every released Llama 3 has 8,192.
  const length = typeof original === "number" ? original : 8192;
  const scaling = llama3Scaling(config, await file.readF32(ROPE_FACTORS), length);
  if (scaling) return parseConfig({ ...config.json, rope_scaling: scaling }, file.path);
  throw new NlaError({
    code: "gguf.key",
    subject: `${file.path}: ${ROPE_FACTORS}`,
    found: "rope factors that are not those of Llama 3.1 to 3.3",
    wanted: `low 1, high 4, original length ${length}, and any factor`,
    next: "Load the model's safetensors folder: its config.json states the scaling.",
  });
}

function checkTensors(file: GgufFile, config: DecoderConfig, parts: Parts): void {
  const wanted = new Map<string, Shape>();
  for (const [name, shape] of parameterShapes(config, {})) wanted.set(ggufName(name, config), shape);
  for (const [name, shape] of parameterShapes(config, parts)) {
    const entry = file.tensors.get(ggufName(name, config));
    if (entry && String(entry.shape) === String(shape)) continue;
    throw mismatch(
      `${file.path}, tensor ${ggufName(name, config)}`,
      entry ? `the shape [${entry.shape.join(", ")}]` : "no such tensor",
      `the shape [${shape.join(", ")}] that the metadata asks for`,
    );
  }
  const extra = [...file.tensors.keys()].find(
    (name) =>
      !wanted.has(name) && name !== ROPE_FACTORS && !(parts.head === false && name === VALUE_HEAD_TENSOR),
  );
  if (extra !== undefined) {
    throw mismatch(
      `${file.path}, tensor ${extra}`,
      "a tensor that the metadata does not account for",
      "none",
    );
  }
}

function mismatch(subject: string, found: string, wanted: string): NlaError {
  return new NlaError({
    code: "model.weights",
    subject,
    found,
    wanted,
    next: "Metadata and tensors must be of the same model; convert it again.",
  });
}
