// In which type each parameter of a decoder is held: f32 to train, or matrices in half precision or blocks, which take a half to
// an eighth of the memory and cannot be trained. And whether the machine has that memory.
import { availableMemory } from "node:process";
import { NlaError } from "../error.js";
import { BLOCKS, BYTES, isBlockDtype } from "../tensor/index.js";
import type { Dtype, Shape } from "../tensor/index.js";
import type { DecoderConfig } from "./decoder-config.js";
import { EMBEDDING, HEAD } from "./parameters.js";

/** How matrices are held: `stored` is as in the file, mapped where that can be; the others convert on load. */
export const HOLDINGS = [
  "f32",
  "stored",
  "f16",
  "bf16",
  "q8_0",
  "q6_k",
  "q5_k",
  "q4_k",
  "q4_k_m",
  "q5_0",
  "q4_0",
] as const;

export type Holding = (typeof HOLDINGS)[number];

/** The type for rows that a k-quant's blocks of 256 do not divide, as llama.cpp has it; then what has no blocks. */
const SMALLER: Partial<Record<Dtype, Dtype>> = { q4_k: "q5_0", q5_k: "q5_1", q6_k: "q8_0" };

/**
 * The type of one parameter. Vectors stay f32. `q4_k_m` is llama.cpp's mix: q6_k for the output matrix and for half of the
 * value and down projections, q4_k else.
 *
 * @param stored its type in the file
 */
export function heldAs(
  holding: Holding,
  name: string,
  shape: Shape,
  config: DecoderConfig,
  stored: Dtype,
): Dtype {
  if (shape.length < 2) return "f32";
  if (holding === "stored") return stored;
  let dtype: Dtype = holding === "q4_k_m" ? mixed(name, config) : holding;
  const width = shape.at(-1) as number;
  const fits = (type: Dtype) => !isBlockDtype(type) || width % BLOCKS[type].values === 0;
  if (!fits(dtype)) dtype = SMALLER[dtype] ?? "f16";
  return fits(dtype) ? dtype : "f16";
}

function mixed(name: string, config: DecoderConfig): Dtype {
  if (name === HEAD || (name === EMBEDDING && config.tied)) return "q6_k";
  const [, block, part] = /^model\.layers\.(\d+)\.(self_attn\.v_proj|mlp\.down_proj)\./.exec(name) ?? [];
  if (part === undefined) return "q4_k";
  const [k, eighth] = [Number(block), Math.floor(config.layers / 8)];
  const more = k < eighth || k >= Math.floor((7 * config.layers) / 8) || (k - eighth) % 3 === 2;
  return more ? "q6_k" : "q4_k";
}

/** Bytes of tensors of these shapes and types. */
export function bytesHeld(specs: Iterable<{ readonly shape: Shape; readonly dtype: Dtype }>): number {
  let bytes = 0;
  for (const { shape, dtype } of specs) bytes += shape.reduce((a, b) => a * b, BYTES[dtype]);
  return bytes;
}

/**
 * @param bytes memory of its own that loading takes at its peak; pages of mapped files can be dropped, and are not counted
 * @throws NlaError `model.memory` where the machine has not that much free now
 */
export function requireMemory(subject: string, bytes: number, available = availableMemory()): void {
  if (bytes <= available) return;
  throw new NlaError({
    code: "model.memory",
    subject,
    found: `${bytes.toLocaleString("en")} bytes needed, ${available.toLocaleString("en")} free`,
    wanted: "a model that fits",
    next: "Hold it smaller: --quantize stored maps the file as it is, --quantize q8_0 or q4_k_m make it smaller.",
  });
}
