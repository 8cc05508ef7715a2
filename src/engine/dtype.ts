// Element types of tensors, by the names used everywhere in nlakit, with ggml's numbers and sizes.

/** Types of blocks: some numbers share a scale. Names as in GGUF files, in small letters. */
export type BlockDtype = "q4_0" | "q4_1" | "q5_0" | "q5_1" | "q8_0" | "q4_k" | "q5_k" | "q6_k";

/** What a tensor is made of. */
export type Dtype = "f32" | "f16" | "bf16" | "i32" | "i64" | BlockDtype;

/** ggml's enum value of each type. */
// prettier-ignore
export const GGML_TYPE: Readonly<Record<Dtype, number>> = {
  f32: 0, f16: 1, bf16: 30, i32: 26, i64: 27,
  q4_0: 2, q4_1: 3, q5_0: 6, q5_1: 7, q8_0: 8, q4_k: 12, q5_k: 13, q6_k: 14,
};

/** Numbers in a block, and its bytes. */
export const BLOCKS: Readonly<Record<BlockDtype, { readonly values: number; readonly bytes: number }>> = {
  q4_0: { values: 32, bytes: 18 },
  q4_1: { values: 32, bytes: 20 },
  q5_0: { values: 32, bytes: 22 },
  q5_1: { values: 32, bytes: 24 },
  q8_0: { values: 32, bytes: 34 },
  q4_k: { values: 256, bytes: 144 },
  q5_k: { values: 256, bytes: 176 },
  q6_k: { values: 256, bytes: 210 },
};

const perElement = (dtype: BlockDtype) => BLOCKS[dtype].bytes / BLOCKS[dtype].values; // exact: blocks are powers of two

/** Bytes per element; of a block type a fraction, and whole for whole blocks. */
// prettier-ignore
export const BYTES: Readonly<Record<Dtype, number>> = {
  f32: 4, f16: 2, bf16: 2, i32: 4, i64: 8,
  q4_0: perElement("q4_0"), q4_1: perElement("q4_1"), q5_0: perElement("q5_0"), q5_1: perElement("q5_1"),
  q8_0: perElement("q8_0"), q4_k: perElement("q4_k"), q5_k: perElement("q5_k"), q6_k: perElement("q6_k"),
};

/** Whether a type is one of blocks. */
export function isBlockDtype(dtype: Dtype): dtype is BlockDtype {
  return Object.hasOwn(BLOCKS, dtype);
}
