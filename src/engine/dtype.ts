// Element types of tensors, by the names used everywhere in nlakit, with ggml's numbers and sizes.

/** What a tensor is made of. */
export type Dtype = "f32" | "f16" | "bf16" | "i32" | "i64";

/** ggml's enum value of each type. */
export const GGML_TYPE: Readonly<Record<Dtype, number>> = { f32: 0, f16: 1, bf16: 30, i32: 26, i64: 27 };

/** Bytes per element. */
export const BYTES: Readonly<Record<Dtype, number>> = { f32: 4, f16: 2, bf16: 2, i32: 4, i64: 8 };
