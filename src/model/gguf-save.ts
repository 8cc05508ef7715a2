// Writing a decoder as a GGUF file that llama.cpp loads with the same logits.
import { f32ToBf16, f32ToF16 } from "../data/floats.js";
import type { GgufDtype } from "../data/gguf-types.js";
import { writeGguf } from "../data/gguf-write.js";
import type { GgufField, GgufTensorToWrite } from "../data/gguf-write.js";
import { NlaError } from "../error.js";
import { isBlockDtype, quantizeRows } from "../tensor/index.js";
import type { DecoderConfig } from "./decoder-config.js";
import type { Decoder } from "./decoder.js";
import {
  architectureOf,
  ggufName,
  holdsOnePlus,
  interleavedHeads,
  reorderRows,
  ROPE_FACTORS,
} from "./gguf-config.js";
import { frequencyDivisors } from "./rope-scaling.js";
import { heldAs } from "./storage.js";
import type { Holding } from "./storage.js";

/**
 * Writes a decoder whose parameters are f32.
 *
 * @param holding the type of the matrices; vectors are F32
 * @param tokenizer fields of the tokenizer; without them the file says it has no vocabulary
 * @throws NlaError `gguf.architecture`, `gguf.rope` for what GGUF cannot say, `tensor.dtype` where the decoder is quantized
 */
export async function saveGguf(
  path: string,
  model: Decoder,
  holding: Exclude<Holding, "stored"> = "f32",
  tokenizer: ReadonlyMap<string, GgufField> = new Map([
    ["tokenizer.ggml.model", { type: "string", value: "no_vocab" }],
  ]),
): Promise<void> {
  const { config } = model;
  const tensors: GgufTensorToWrite[] = [];
  const factors =
    config.rope[0]?.scaling?.kind === "llama3" ? frequencyDivisors(config.rope[0], config.headDim) : null;
  if (factors) {
    tensors.push({ name: ROPE_FACTORS, dtype: "F32", shape: [factors.length], data: bytesOf(factors) });
  }
  for (const [name, { shape, ...tensor }] of [...model.parameters.tensors].map(
    ([name, t]) => [name, { shape: t.shape, values: t.readF32() }] as const,
  )) {
    let { values } = tensor;
    if (holdsOnePlus(name, config)) values = values.map((value) => value + 1);
    const dtype = heldAs(holding, name, shape, config, "f32");
    const data = isBlockDtype(dtype)
      ? quantizeRows(dtype, values, shape.at(-1) as number)
      : bytesOf(dtype === "f16" ? f32ToF16(values) : dtype === "bf16" ? f32ToBf16(values) : values);
    const heads = interleavedHeads(name, config);
    tensors.push({
      name: ggufName(name, config),
      dtype: dtype.toUpperCase() as GgufDtype,
      shape,
      data: heads === null ? data : reorderRows(data, shape[0] as number, heads, "gguf"),
    });
  }
  await writeGguf(path, new Map([...fieldsOf(config), ...tokenizer]), tensors);
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
  if (config.attentionSoftcap !== null) f32("attn_logit_softcapping", config.attentionSoftcap);
  if (config.logitSoftcap !== null) f32("final_logit_softcapping", config.logitSoftcap);
  const scaling = full?.scaling ?? null;
  if (scaling?.kind === "llama3") {
    if (scaling.lowFrequencyFactor !== 1 || scaling.highFrequencyFactor !== 4) {
      throw refused("gguf.rope", "llama3 scaling of other factors", "low 1 and high 4");
    }
    u32("rope.scaling.original_context_length", scaling.originalLength);
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
