// The matrix product of the native kernels against float64, at every level that this machine has: ragged sizes, all
// transpositions, strides, sums on top of a base, F32 and BF16 operands, values that break careless code. Outputs and scratch
// are NaN before each product.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { describeKernels, KERNEL_LEVELS, loadKernels } from "./kernels.js";
import type { DirectMatrix, KernelLevel, Kernels } from "./kernels.js";

const kernels = loadKernels();
const levels = kernels
  ? KERNEL_LEVELS.filter((level) => {
      try {
        kernels.select(level);
        return true;
      } catch {
        return false;
      }
    })
  : [];
if (!kernels) console.warn(`skipped: ${describeKernels().reason}`);

const SIZES = [
  [1, 1, 1],
  [3, 5, 7],
  [14, 32, 16],
  [15, 33, 17],
  [29, 31, 64],
  [64, 48, 128],
  [33, 129, 65],
  [100, 77, 391],
  [130, 260, 1030],
  [65, 96, 1500],
  [2, 300, 64],
  [257, 40, 33],
  [7, 16, 0],
  [0, 4, 4],
  [5, 1, 512],
  [1, 700, 1],
] as const;

let state = 1;
function random(): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32 - 0.5;
}
const bits = new Uint32Array(1);
const float = new Float32Array(bits.buffer);
function roundToBf16(x: number): number {
  float[0] = x;
  const b = bits[0] as number;
  bits[0] = ((b + 0x7fff + ((b >>> 16) & 1)) >>> 16) << 16;
  return float[0] as number;
}
const toBf16 = (values: Float32Array) =>
  Uint16Array.from(values, (x) => {
    float[0] = roundToBf16(x);
    return (bits[0] as number) >>> 16;
  });

const side = (data: Float32Array, half: boolean, row: number, column: number): DirectMatrix => ({
  data: half ? toBf16(data) : data,
  rowStride: row,
  columnStride: column,
});

interface Case {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  readonly base: boolean;
  readonly halfA: boolean;
  readonly halfB: boolean;
  readonly bf16: boolean;
  readonly scale?: number;
}

function multiply(using: Kernels, given: Case, scratch: Uint8Array): number {
  const { m, n, k, transposeA, transposeB, base, halfA, halfB, bf16, scale = 1 } = given;
  const [padA, padB, padC] = [3, 5, 2]; // rows longer than they need be
  const strideA = (transposeA ? m : k) + padA;
  const strideB = (transposeB ? k : n) + padB;
  const stride = n + padC;
  const fill = (size: number) => Float32Array.from({ length: size }, () => random() * scale);
  const a = fill(strideA * (transposeA ? k : m) + 1).subarray(1); // not aligned
  const b = fill(strideB * (transposeB ? n : k) + 1).subarray(1);
  const before = fill(stride * m);
  const c = base ? before.slice() : new Float32Array(stride * m).fill(Number.NaN);
  using.multiply({
    m,
    n,
    k,
    a: transposeA ? side(a, halfA, 1, strideA) : side(a, halfA, strideA, 1),
    b: transposeB ? side(b, halfB, 1, strideB) : side(b, halfB, strideB, 1),
    c,
    cStride: stride,
    base: base ? c : null,
    bf16,
    scratch,
  });
  const rounds = bf16 && using.fastBf16;
  const round = (x: number, half: boolean) => (half || rounds ? roundToBf16(x) : x);
  let worst = 0;
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < stride; j++) {
      const found = c[i * stride + j] as number;
      if (j >= n) {
        const kept = base ? found === before[i * stride + j] : Number.isNaN(found);
        if (!kept) throw new Error(`wrote outside of C at ${i}, ${j}`);
        continue;
      }
      let sum = base ? (before[i * stride + j] as number) : 0;
      let size = Math.abs(sum) + 1e-30;
      for (let p = 0; p < k; p++) {
        const left = round(a[transposeA ? p * strideA + i : i * strideA + p] as number, halfA);
        const right = round(b[transposeB ? j * strideB + p : p * strideB + j] as number, halfB);
        sum += left * right;
        size += Math.abs(left * right);
      }
      const error = Math.abs(found - sum) / size;
      if (!(error <= worst)) worst = error; // NaN stays
    }
  }
  return worst;
}

describe.skipIf(!kernels)("native matrix product", () => {
  const using = kernels as Kernels;
  const before = { level: using?.level as KernelLevel, fast: using?.fastBf16 };
  const scratch = new Uint8Array((using?.scratchBytes ?? 0) + 64);
  beforeAll(() => expect(levels.length).toBeGreaterThan(0));
  afterAll(() => using.select(before.level, before.fast));

  const flags = [false, true];
  test.each(levels)("%s agrees with float64", (level) => {
    using.select(level);
    for (const [m, n, k] of SIZES) {
      new Float32Array(scratch.buffer).fill(Number.NaN);
      for (const transposeA of flags) {
        for (const transposeB of flags) {
          for (const base of flags) {
            for (const bf16 of using.fastBf16 ? flags : [false]) {
              const halves =
                m * n * k > 1e6 ? [[base, bf16]] : flags.flatMap((x) => flags.map((y) => [x, y]));
              for (const [halfA = false, halfB = false] of halves) {
                const given = { m, n, k, transposeA, transposeB, base, halfA, halfB, bf16 };
                expect(multiply(using, given, scratch), JSON.stringify(given)).toBeLessThan(1e-6);
              }
            }
          }
        }
      }
    }
  });

  test.each(levels)("%s multiplies huge and tiny values", (level) => {
    using.select(level);
    for (const scale of [1e18, 1e-15]) {
      const given = {
        m: 17,
        n: 35,
        k: 40,
        transposeA: false,
        transposeB: true,
        base: false,
        halfA: false,
        halfB: false,
      };
      expect(multiply(using, { ...given, bf16: false, scale }, scratch)).toBeLessThan(1e-6);
      expect(multiply(using, { ...given, bf16: true, scale }, scratch)).toBeLessThan(1e-6);
    }
  });

  test.each(levels)("%s keeps infinities and NaN in their rows", (level) => {
    using.select(level);
    const [m, n, k] = [33, 37, 45];
    for (const bf16 of flags) {
      const a = new Float32Array(m * k).fill(1);
      const b = new Float32Array(n * k).fill(1);
      a[5 * k + 3] = Infinity;
      a[7 * k + 44] = Number.NaN;
      const c = new Float32Array(m * n);
      const left = { data: a, rowStride: k, columnStride: 1 };
      const right = { data: b, rowStride: 1, columnStride: k };
      using.multiply({ m, n, k, a: left, b: right, c, cStride: n, bf16, scratch });
      for (let i = 0; i < m; i++) {
        const row = [...c.subarray(i * n, (i + 1) * n)];
        const wanted = i === 5 ? Infinity : i === 7 ? Number.NaN : k;
        expect(
          row.every((value) => Object.is(value, wanted)),
          `row ${i}`,
        ).toBe(true);
      }
    }
  });

  test("a level that the machine has not is refused", () => {
    const missing = KERNEL_LEVELS.find((level) => !levels.includes(level)) as KernelLevel;
    expect(() => using.select(missing)).toThrow(/NLA_KERNELS/);
  });
});
