// Writing a model as a GGUF file that llama.cpp loads with the same logits: a decoder, or weights on disk one tensor at a time.
import { f32ToBf16, f32ToF16 } from "../data/floats.js";
import type { GgufDtype } from "../data/gguf-types.js";
import { writeGguf } from "../data/gguf-write.js";
import type { GgufField, GgufTensorToWrite } from "../data/gguf-write.js";
import { NlaError } from "../error.js";
import { Device, isBlockDtype, quantizeRows } from "../tensor/index.js";
import type { Dtype, Shape } from "../tensor/index.js";
import { loadDecoder, openModelWeights } from "./checkpoint.js";
import type { DecoderConfig } from "./decoder-config.js";
import { Decoder } from "./decoder.js";
import {
  architectureOf,
  ggufName,
  holdsOnePlus,
  interleavedHeads,
  reorderRows,
  ROPE_FACTORS,
  VALUE_HEAD_TENSOR,
} from "./gguf-config.js";
import { hasAdapter } from "./lora-files.js";
import { parameterShapes } from "./parameters.js";
import type { Parts } from "./parameters.js";
import { checkFinite } from "./finite.js";
import { frequencyDivisors } from "./rope-scaling.js";
import { heldAs } from "./storage.js";
import type { Holding } from "./storage.js";
import { isGguf } from "./weight-source.js";

/** A model's weights as they are to be written: a decoder's, or a folder's on disk. */
export interface WeightsToSave {
  readonly config: DecoderConfig;
  readonly parts: Parts;
  /** The type that a parameter has now. */
  dtype(name: string): Dtype;
  /** Its bytes in that type, Hugging Face's order of rows. */
  bytes(name: string): Promise<Uint8Array>;
  f32(name: string): Promise<Float32Array> | Float32Array;
}

/** Options of {@link saveGguf}. */
export interface GgufOptions {
  /** The type of the matrices; vectors are F32. `stored` keeps what they have. Defaults to `"f32"`. */
  readonly holding?: Holding;
  /** Fields of the tokenizer. Without them the file says that it has no vocabulary. */
  readonly tokenizer?: ReadonlyMap<string, GgufField>;
  /** A reconstructor's matrix [dim, dim], written as {@link VALUE_HEAD_TENSOR}. */
  readonly valueHead?: Float32Array | null;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Writes a model, one tensor in memory at a time.
 *
 * @throws NlaError `gguf.architecture`, `gguf.rope`, `gguf.scale`, `gguf.windows` for what GGUF cannot say, `model.not-finite`,
 *   `tensor.dtype` where a decoder is quantized and is to be written in another type, `disk.full`
 */
export async function saveGguf(
  path: string,
  from: Decoder | WeightsToSave,
  options: GgufOptions = {},
): Promise<void> {
  const { holding = "f32", tokenizer = NO_VOCABULARY, valueHead = null, signal } = options;
  const weights = from instanceof Decoder ? weightsOf(from) : from;
  const { config } = weights;
  const fields = new Map([...fieldsOf(config), ...tokenizer]);
  const tensors: GgufTensorToWrite[] = [];
  const factors =
    config.rope[0]?.scaling?.kind === "llama3" ? frequencyDivisors(config.rope[0], config.headDim) : null;
  if (factors) {
    tensors.push({ name: ROPE_FACTORS, dtype: "F32", shape: [factors.length], data: bytesOf(factors) });
  }
  for (const [name, shape] of parameterShapes(config, weights.parts)) {
    const dtype = heldAs(holding, name, shape, config, weights.dtype(name));
    tensors.push({
      name: ggufName(name, config),
      dtype: dtype.toUpperCase() as GgufDtype,
      shape,
      data: async () => {
        signal?.throwIfAborted();
        return dataOf(weights, name, shape, dtype, path);
      },
    });
  }
  if (valueHead) {
    const shape = [config.dim, config.dim];
    tensors.push({ name: VALUE_HEAD_TENSOR, dtype: "F32", shape, data: bytesOf(valueHead) });
  }
  await writeGguf(path, fields, tensors);
}

/**
 * Writes a model on disk, a folder or another GGUF file, without loading it. An adapter is merged first, which takes the memory of
 * the whole model.
 *
 * @param parts what the model has; a reconstructor has no final norm and no head
 * @throws NlaError as {@link saveGguf}, and those of the readers
 */
export async function convertToGguf(
  from: string,
  to: string,
  { parts = {}, ...options }: GgufOptions & { readonly parts?: Parts } = {},
): Promise<void> {
  const { holding = "stored" } = options;
  if (!isGguf(from) && (await hasAdapter(from))) {
    using device = Device.open();
    using model = await loadDecoder(from, device, parts);
    await model.merge();
    return await saveGguf(to, model, { ...options, holding: holding === "stored" ? "f32" : holding });
  }
  const source = await openModelWeights(from, parts);
  try {
    const { config, bytes, f32 } = source;
    const dtype = (name: string) => source.stored(name).dtype;
    await saveGguf(to, { config, parts, dtype, bytes, f32 }, { ...options, holding });
  } finally {
    await source.close();
  }
}

const NO_VOCABULARY: ReadonlyMap<string, GgufField> = new Map([
  ["tokenizer.ggml.model", { type: "string", value: "no_vocab" }],
]);

function weightsOf(model: Decoder): WeightsToSave {
  return {
    config: model.config,
    parts: model.parts,
    dtype: (name) => model.parameters.get(name).dtype as Dtype,
    bytes: async (name) => bytesOf(model.parameters.get(name).readF32()),
    f32: (name) => model.parameters.get(name).readF32(),
  };
}

/** One parameter as the file is to hold it. */
async function dataOf(
  weights: WeightsToSave,
  name: string,
  shape: Shape,
  dtype: Dtype,
  path: string,
): Promise<Uint8Array> {
  const { config } = weights;
  const plusOne = holdsOnePlus(name, config);
  let data: Uint8Array;
  if (dtype === weights.dtype(name) && dtype !== "f32") data = await weights.bytes(name);
  else {
    let values = await weights.f32(name);
    checkFinite(path, name, values);
    if (plusOne) values = values.map((value) => value + 1);
    data = isBlockDtype(dtype)
      ? quantizeRows(dtype, values, shape.at(-1) as number)
      : bytesOf(dtype === "f16" ? f32ToF16(values) : dtype === "bf16" ? f32ToBf16(values) : values);
  }
  const heads = interleavedHeads(name, config);
  return heads === null ? data : reorderRows(data, shape[0] as number, heads, "gguf");
}

function bytesOf(values: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function fieldsOf(config: DecoderConfig): Map<string, GgufField> {
  const architecture = architectureOf(config.family);
  if (architecture === null) {
    throw refused("gguf.architecture", `the family ${config.family}`, "a family that llama.cpp has");
  }
  const window = config.windows.find((each) => each !== null) ?? null;
  if (window !== null && architecture === "llama") {
    throw refused(
      "gguf.architecture",
      `a window of ${window}`,
      "a model without windows: llama.cpp's llama has none",
    );
  }
  // What llama.cpp has in its code instead of in the file.
  const largest = config.layers === (architecture === "gemma2" ? 46 : 62);
  const scale = (config.postNorms && largest ? config.dim / config.heads : config.headDim) ** -0.5;
  if (Math.abs(config.attentionScale - scale) > 1e-6 * scale) {
    throw refused("gguf.scale", `attention scaled by ${config.attentionScale}`, `${scale}, llama.cpp's own`);
  }
  const period = architecture === "gemma2" ? 2 : 6;
  if (config.postNorms && config.windows.some((each, k) => (each === null) !== (k % period === period - 1))) {
    throw refused("gguf.windows", "windows in other blocks", `a whole view in every ${period}th block only`);
  }
  const fields = new Map<string, GgufField>([
    ["general.architecture", { type: "string", value: architecture }],
  ]);
  const u32 = (key: string, value: number) => fields.set(`${architecture}.${key}`, { type: "u32", value });
  const f32 = (key: string, value: number) => fields.set(`${architecture}.${key}`, { type: "f32", value });
  u32("context_length", config.contextLength);
  u32("embedding_length", config.dim);
  u32("block_count", config.layers);
  u32("feed_forward_length", config.ffn);
  u32("attention.head_count", config.heads);
  u32("attention.head_count_kv", config.kvHeads);
  u32("attention.key_length", config.headDim);
  u32("attention.value_length", config.headDim);
  u32("rope.dimension_count", config.headDim);
  u32("vocab_size", config.vocabulary);
  f32("attention.layer_norm_rms_epsilon", config.normEps);
  const full = config.rope[config.windows.indexOf(null)] ?? config.rope[0];
  f32("rope.freq_base", full?.theta ?? 10_000);
  if (window !== null) u32("attention.sliding_window", window);
  const local = config.rope[config.windows.findIndex((each) => each !== null)];
  if (architecture === "gemma3" && local) f32("rope.freq_base_swa", local.theta);
  if (config.attentionSoftcap !== null) f32("attn_logit_softcapping", config.attentionSoftcap);
  if (config.logitSoftcap !== null) f32("final_logit_softcapping", config.logitSoftcap);
  const scaling = full?.scaling ?? null;
  if (scaling?.kind === "llama3") {
    if (scaling.lowFrequencyFactor !== 1 || scaling.highFrequencyFactor !== 4) {
      throw refused("gguf.rope", "llama3 scaling of other factors", "low 1 and high 4");
    }
    u32("rope.scaling.original_context_length", scaling.originalLength);
  }
  if (scaling?.kind === "yarn") {
    const { fastTurns, slowTurns, magnitude, truncate } = scaling;
    if (fastTurns !== 32 || slowTurns !== 1 || magnitude !== null || !truncate) {
      throw refused(
        "gguf.rope",
        "YaRN with other settings than its own",
        "beta_fast 32 and beta_slow 1 alone",
      );
    }
  }
  if (scaling?.kind === "linear" || scaling?.kind === "yarn") {
    fields.set(`${architecture}.rope.scaling.type`, { type: "string", value: scaling.kind });
    f32("rope.scaling.factor", scaling.factor);
    if (scaling.kind === "yarn") u32("rope.scaling.original_context_length", scaling.originalLength);
  }
  return fields;
}

function refused(code: string, found: string, wanted: string): NlaError {
  return new NlaError({
    code,
    subject: "a GGUF file",
    found,
    wanted,
    next: "Save the model as safetensors.",
  });
}
