// Conversions between float32 and the two 16-bit floats that weights are stored in. Bits in, bits out.
//
// bf16 is the upper half of a float32; f16 is IEEE binary16. To 16 bits means round to nearest, ties to even; a value
// too large becomes an infinity, a NaN stays a NaN. Byte order is the machine's (little-endian on every platform here).

/** Float32 values of bf16 bit patterns (exact). */
export function bf16ToF32(bits: Uint16Array): Float32Array {
  const out = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = (bits[i] as number) << 16;
  return new Float32Array(out.buffer);
}

/** The bf16 bit patterns nearest to `values`, ties to even; NaN stays NaN (quiet, sign and upper payload kept). */
export function f32ToBf16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i] as number;
    // Rounding a NaN could carry into the exponent and give an infinity or zero, so NaN is cut and made quiet instead.
    out[i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
  return out;
}

// All 65,536 f16 values: 256 KiB, built once; a look-up is several times faster than the arithmetic.
let halves: Float32Array | null = null;

/** Float32 values of f16 bit patterns (exact, subnormals and NaN included). */
export function f16ToF32(bits: Uint16Array): Float32Array {
  halves ??= tabulateHalves();
  const out = new Uint32Array(bits.length); // copied as bits: a NaN's payload may not survive a trip through a number
  const table = new Uint32Array(halves.buffer);
  for (let i = 0; i < bits.length; i++) out[i] = table[bits[i] as number] as number;
  return new Float32Array(out.buffer);
}

function tabulateHalves(): Float32Array {
  const out = new Uint32Array(65536);
  const values = new Float32Array(out.buffer);
  for (let h = 0; h < 65536; h++) {
    const sign = (h & 0x8000) << 16;
    const exponent = (h >>> 10) & 0x1f;
    const fraction = h & 0x3ff;
    if (exponent === 0) values[h] = (sign === 0 ? 1 : -1) * fraction * 2 ** -24;
    else if (exponent === 31) out[h] = sign | 0x7f800000 | (fraction << 13);
    else out[h] = sign | ((exponent + 112) << 23) | (fraction << 13); // 112 = 127 - 15, the two biases
  }
  return values;
}

/** The f16 bit patterns nearest to `values`, ties to even; beyond 65,519.99 an infinity, NaN stays NaN. */
export function f32ToF16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i] as number;
    const sign = (b >>> 16) & 0x8000;
    const size = b & 0x7fffffff; // ordered like the magnitudes
    let half: number;
    if (size > 0x7f800000) half = 0x7e00 | ((size >>> 13) & 0x3ff);
    else if (size >= 0x477ff000)
      half = 0x7c00; // from 65,520 on the nearest is past the largest f16
    else if (size < 0x38800000) half = roundSubnormal(size);
    else half = (size - 0x38000000 + 0xfff + ((size >>> 13) & 1)) >>> 13;
    out[i] = sign | half;
  }
  return out;
}

/** Magnitude bits below 2^-14 as multiples of 2^-24, ties to even. */
function roundSubnormal(size: number): number {
  const shift = 126 - (size >>> 23); // 14 at the smallest f16's binade and more below
  if (shift > 24) return 0; // under half of 2^-24
  const significand = (size & 0x7fffff) | 0x800000;
  const kept = significand >>> shift;
  const rest = significand & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return rest > half || (rest === half && (kept & 1) === 1) ? kept + 1 : kept;
}
