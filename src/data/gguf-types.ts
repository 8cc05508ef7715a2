// The element types of GGUF files that are read here: their numbers in the file, sizes, and how blocks become floats.
import { bf16ToF32, f16ToF32 } from "./floats.js";

/** Types by the name that files and users call them; blocks of k-quants are of 256 values, the older ones of 32. */
export type GgufDtype =
  "F32" | "F16" | "BF16" | "Q4_0" | "Q4_1" | "Q5_0" | "Q5_1" | "Q8_0" | "Q4_K" | "Q5_K" | "Q6_K";

/** One type: its number, the values of a block and the bytes they take. */
export interface GgufType {
  readonly id: number;
  readonly values: number;
  readonly bytes: number;
}

export const GGUF_TYPES: Readonly<Record<GgufDtype, GgufType>> = {
  F32: { id: 0, values: 1, bytes: 4 },
  F16: { id: 1, values: 1, bytes: 2 },
  BF16: { id: 30, values: 1, bytes: 2 },
  Q4_0: { id: 2, values: 32, bytes: 18 },
  Q4_1: { id: 3, values: 32, bytes: 20 },
  Q5_0: { id: 6, values: 32, bytes: 22 },
  Q5_1: { id: 7, values: 32, bytes: 24 },
  Q8_0: { id: 8, values: 32, bytes: 34 },
  Q4_K: { id: 12, values: 256, bytes: 144 },
  Q5_K: { id: 13, values: 256, bytes: 176 },
  Q6_K: { id: 14, values: 256, bytes: 210 },
};

/** Names of the other numbers, so that a refusal can say what it met. */
// prettier-ignore
export const OTHER_TYPES: Readonly<Record<number, string>> = {
  9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
  21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0",
  35: "TQ2_0", 39: "MXFP4",
};

/** The name of a type's number, or null for one that is not read here. */
export function dtypeOfId(id: number): GgufDtype | null {
  return (Object.keys(GGUF_TYPES) as GgufDtype[]).find((name) => GGUF_TYPES[name].id === id) ?? null;
}

/** Bytes of `size` values. */
export function ggufBytes(dtype: GgufDtype, size: number): number {
  return (size / GGUF_TYPES[dtype].values) * GGUF_TYPES[dtype].bytes;
}

type Unpack = (q: Uint8Array, at: number, scale: (at: number) => number, y: Float32Array, to: number) => void;

/** Whole blocks as float32. The caller has checked that `bytes` are whole blocks. */
export function dequantize(dtype: GgufDtype, bytes: Uint8Array): Float32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const { buffer, byteOffset, byteLength } = aligned;
  if (dtype === "F32") return new Float32Array(buffer, byteOffset, byteLength / 4).slice();
  if (dtype === "F16") return f16ToF32(new Uint16Array(buffer, byteOffset, byteLength / 2));
  if (dtype === "BF16") return bf16ToF32(new Uint16Array(buffer, byteOffset, byteLength / 2));
  const { values, bytes: size } = GGUF_TYPES[dtype];
  const count = byteLength / size;
  const y = new Float32Array(count * values);
  const half = halves();
  const scale = (at: number) => half[(bytes[at] as number) | ((bytes[at + 1] as number) << 8)] as number;
  const unpack = UNPACK[dtype];
  for (let i = 0; i < count; i++) unpack(bytes, i * size, scale, y, i * values);
  return y;
}

let table: Float32Array | undefined;

/** Every half-precision number by its bits: 256 KB, made once. */
function halves(): Float32Array {
  return (table ??= f16ToF32(Uint16Array.from({ length: 65_536 }, (_, i) => i)));
}

const signed = (byte: number) => (byte << 24) >> 24;

/** Blocks of 32 with 4 or 5 bits: value j and value j + 16 share a byte, a fifth bit stands apart. */
function small(quants: number, high: number | null, zero: number, minimum: boolean): Unpack {
  return (q, at, scale, y, to) => {
    const d = scale(at);
    const m = minimum ? scale(at + 2) : -zero * d;
    const bit = (j: number) =>
      high === null ? 0 : (((q[at + high + (j >> 3)] as number) >> (j & 7)) & 1) << 4;
    for (let j = 0; j < 16; j++) {
      const both = q[at + quants + j] as number;
      y[to + j] = ((both & 15) | bit(j)) * d + m;
      y[to + j + 16] = ((both >> 4) | bit(j + 16)) * d + m;
    }
  };
}

/** Scale and minimum number j of a k-quant's twelve bytes: six bits each, the last four split over two bytes. */
function sixBits(q: Uint8Array, at: number, j: number): [number, number] {
  const byte = (i: number) => q[at + i] as number;
  if (j < 4) return [byte(j) & 63, byte(j + 4) & 63];
  return [(byte(j + 4) & 15) | ((byte(j - 4) >> 6) << 4), (byte(j + 4) >> 4) | ((byte(j) >> 6) << 4)];
}

/** q4_K and q5_K: eight groups of 32, two of them in each 32 bytes; q5_K's fifth bits stand in 32 bytes before. */
function grouped(quants: number, high: number | null): Unpack {
  return (q, at, scale, y, to) => {
    const [d, least] = [scale(at), scale(at + 2)];
    for (let group = 0; group < 8; group++) {
      const [factor, minimum] = sixBits(q, at + 4, group);
      const from = at + quants + (group >> 1) * 32;
      for (let l = 0; l < 32; l++) {
        const low = group & 1 ? (q[from + l] as number) >> 4 : (q[from + l] as number) & 15;
        const fifth = high === null ? 0 : (((q[at + high + l] as number) >> group) & 1) << 4;
        y[to + group * 32 + l] = d * factor * (low | fifth) - least * minimum;
      }
    }
  };
}

const UNPACK: Readonly<Record<Exclude<GgufDtype, "F32" | "F16" | "BF16">, Unpack>> = {
  Q4_0: small(2, null, 8, false),
  Q4_1: small(4, null, 0, true),
  Q5_0: small(6, 2, 16, false),
  Q5_1: small(8, 4, 0, true),
  Q8_0: (q, at, scale, y, to) => {
    const d = scale(at);
    for (let j = 0; j < 32; j++) y[to + j] = signed(q[at + 2 + j] as number) * d;
  },
  Q4_K: grouped(16, null),
  Q5_K: grouped(48, 16),
  Q6_K: (q, at, scale, y, to) => {
    const d = scale(at + 208);
    for (let i = 0; i < 256; i++) {
      // Two halves of 128; in each, four quarters of 32 share the bytes: two by nibble, all by pairs of high bits.
      const [half, quarter, l] = [i >> 7, (i >> 5) & 3, i & 31];
      const low = q[at + half * 64 + (quarter & 1) * 32 + l] as number;
      const high = q[at + 128 + half * 32 + l] as number;
      const value = ((quarter < 2 ? low & 15 : low >> 4) | (((high >> (2 * quarter)) & 3) << 4)) - 32;
      y[to + i] = d * signed(q[at + 192 + (i >> 4)] as number) * value;
    }
  },
};
