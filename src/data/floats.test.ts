// Every 16-bit pattern both ways, ties, NaN, and the reference's own bf16 bytes.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

import { describeWith, sharedPath } from "../../test/shared.js";
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "./floats.js";

const everyPattern = Uint16Array.from({ length: 65536 }, (_, i) => i);
const golden = sharedPath("golden/nla/wire/bf16.json");

/** An f16 value by its definition, independent of the table. */
function halfByDefinition(h: number): number {
  const sign = h & 0x8000 ? -1 : 1;
  const exponent = (h >> 10) & 31;
  const fraction = h & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Xorshift32 bit patterns: any float32, subnormals, infinities and NaN included. */
function anyFloats(count: number): Float32Array {
  const bits = new Uint32Array(count);
  let state = 0x2545f491;
  for (let i = 0; i < count; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bits[i] = state;
  }
  return new Float32Array(bits.buffer);
}

/** Index of the nearest of two neighbours, the even pattern on a tie, computed in float64 (exact here). */
function isNearest(value: number, pattern: number, decode: (bits: Uint16Array) => Float32Array): boolean {
  const [here, below, above] = decode(Uint16Array.of(pattern, pattern - 1, pattern + 1));
  const distance = Math.abs(Math.abs(value) - Math.abs(here as number));
  for (const other of [below, above]) {
    if (other === undefined || !Number.isFinite(other) || Math.sign(other) * Math.sign(value) < 0) continue;
    const rival = Math.abs(Math.abs(value) - Math.abs(other));
    if (rival < distance || (rival === distance && pattern % 2 === 1)) return false;
  }
  return true;
}

describe("f16", () => {
  it("reads all 65,536 patterns as the definition says", () => {
    const values = f16ToF32(everyPattern);
    for (let h = 0; h < 65536; h++) {
      const want = halfByDefinition(h);
      if (!Object.is(values[h], want)) throw new Error(`pattern ${h}: ${values[h]} instead of ${want}`);
    }
  });

  it("gives every pattern back, NaN payloads included", () => {
    const back = f32ToF16(f16ToF32(everyPattern));
    for (let h = 0; h < 65536; h++) {
      const isNaNPattern = (h & 0x7c00) === 0x7c00 && (h & 0x3ff) !== 0;
      expect(back[h] === (isNaNPattern ? h | 0x200 : h)).toBe(true);
    }
  });

  it.each([
    [65519.99, 0x7bff],
    [65520, 0x7c00],
    [-1e30, 0xfc00],
    [2 ** -25, 0], // exactly half of the smallest: to even, which is zero
    [2 ** -25 * 1.0001, 1],
    [3 * 2 ** -25, 2], // tie between 1 and 2
    [1 + 2 ** -11, 0x3c00], // tie
    [1 + 3 * 2 ** -11, 0x3c02], // tie
    [2 ** -14 - 2 ** -26, 0x400], // rounds up out of the subnormals
    [-0, 0x8000],
  ])("rounds %d to %i", (value, pattern) => {
    expect(f32ToF16(Float32Array.of(value))[0]).toBe(pattern);
  });

  it("is the nearest neighbour of 200,000 values in range", () => {
    const values = anyFloats(400_000).filter((v) => Math.abs(v) < 65504 && Math.abs(v) > 2 ** -30);
    const halves = f32ToF16(values);
    expect(values.length).toBeGreaterThan(50_000);
    for (let i = 0; i < values.length; i++) {
      if (!isNearest(values[i] as number, halves[i] as number, f16ToF32)) throw new Error(String(values[i]));
    }
  });
});

describe("bf16", () => {
  it("gives every pattern back; a signalling NaN comes back quiet", () => {
    const back = f32ToBf16(bf16ToF32(everyPattern));
    for (let b = 0; b < 65536; b++) {
      const isNaNPattern = (b & 0x7f80) === 0x7f80 && (b & 0x7f) !== 0;
      expect(back[b] === (isNaNPattern ? b | 0x40 : b)).toBe(true);
    }
  });

  it("keeps NaN a NaN where rounding would carry it into an infinity or a zero", () => {
    const nans = new Float32Array(Uint32Array.of(0x7f800001, 0x7fffffff, 0xffffffff).buffer);
    expect([...bf16ToF32(f32ToBf16(nans))].every(Number.isNaN)).toBe(true);
  });

  it("is the nearest neighbour of 400,000 values", () => {
    const values = anyFloats(400_000).filter((v) => Math.abs(v) < 3.38e38);
    const rounded = f32ToBf16(values);
    for (let i = 0; i < values.length; i++) {
      if (!isNearest(values[i] as number, rounded[i] as number, bf16ToF32))
        throw new Error(String(values[i]));
    }
  });

  it("reads a view that does not start at the buffer's start", () => {
    const part = Float32Array.of(9, 1, -2.5).subarray(1);
    expect([...f32ToBf16(part)]).toEqual([0x3f80, 0xc020]);
  });
});

interface WireCase {
  readonly float32: { readonly b64: string };
  readonly bf16_b64: string;
  readonly read_back: { readonly b64: string };
}

describeWith(golden, "the reference's bf16 bytes", () => {
  it("are ours, both ways, in every case", () => {
    const cases = JSON.parse(readFileSync(golden as string, "utf8")) as WireCase[];
    expect(cases.length).toBeGreaterThan(5);
    for (const { float32, bf16_b64, read_back } of cases) {
      const values = new Float32Array(Uint8Array.from(Buffer.from(float32.b64, "base64")).buffer);
      const bits = f32ToBf16(values);
      expect(Buffer.from(bits.buffer).toString("base64")).toBe(bf16_b64);
      expect(Buffer.from(bf16ToF32(bits).buffer).toString("base64")).toBe(read_back.b64);
    }
  });
});
