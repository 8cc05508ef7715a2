// The ops of generation against float64, at every level that this machine has: a cache that is written token by token and as a
// whole, one query over it, and the choice of a token. And packed weights against the same weights not packed, bit for bit.
import { afterAll, describe, expect, test } from "vitest";
import { Device } from "../../engine/index.js";
import { f32ToBf16 } from "../../data/floats.js";
import { Arena, Graph, ops, PackedMatrices } from "../index.js";
import { relativeError } from "../testing/array64.js";
import { kernelLevels } from "../testing/levels.js";
import { normals, seededRandom } from "../testing/random.js";

const { kernels, levels, restore } = kernelLevels();
const devices = [1, 3].map((threads) => Device.open({ threads }));
afterAll(() => {
  restore();
  for (const device of devices) device[Symbol.dispose]();
});
const random = (size: number, seed: number) => Float32Array.from(normals(seededRandom(seed), size));
const rounded = (x: Float32Array) =>
  new Float32Array(Uint32Array.from(f32ToBf16(x), (half) => half << 16).buffer);

interface Case {
  readonly sequences: number;
  readonly heads: number;
  readonly kv: number;
  readonly d: number;
  readonly slots: number;
  readonly softcap: number | null;
  readonly window: number;
}
const CASES: readonly Case[] = [
  { sequences: 3, heads: 4, kv: 2, d: 24, slots: 160, softcap: null, window: 0 },
  { sequences: 2, heads: 3, kv: 1, d: 7, slots: 48, softcap: 1.5, window: 0 },
  { sequences: 5, heads: 2, kv: 2, d: 128, slots: 32, softcap: null, window: 5 },
  { sequences: 1, heads: 1, kv: 1, d: 1, slots: 16, softcap: null, window: 1 },
];

/** Attention of one query per sequence over slots [first, position], in float64. */
function wanted(c: Case, q: Float32Array, k: Float32Array, v: Float32Array, at: Int32Array): Float64Array {
  const out = new Float64Array(c.sequences * c.heads * c.d);
  const group = c.heads / c.kv;
  for (let b = 0; b < c.sequences; b++) {
    for (let h = 0; h < c.heads; h++) {
      const element = (x: Float32Array, slot: number, i: number) =>
        x[((b * c.slots + slot) * c.kv + Math.floor(h / group)) * c.d + i] as number;
      const first = c.window > 0 ? Math.max(0, at[b]! - c.window + 1) : 0;
      const scores: number[] = [];
      for (let j = first; j <= at[b]!; j++) {
        let score = 0;
        for (let i = 0; i < c.d; i++) score += q[(b * c.heads + h) * c.d + i]! * element(k, j, i);
        score *= 0.4;
        scores.push(c.softcap === null ? score : c.softcap * Math.tanh(score / c.softcap));
      }
      const most = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - most));
      const sum = weights.reduce((a, b_) => a + b_, 0);
      weights.forEach((weight, j) => {
        for (let i = 0; i < c.d; i++)
          out[(b * c.heads + h) * c.d + i]! += (weight / sum) * element(v, first + j, i);
      });
    }
  }
  return out;
}

describe.skipIf(levels.length === 0)("a cache written in two parts, and one query over it", () => {
  const rows = CASES.flatMap((c) =>
    (["f32", "bf16"] as const).flatMap((dtype) =>
      levels.map((level) => [`${level}, ${dtype}, d ${c.d}`, c, dtype, level] as const),
    ),
  );
  test.each(rows)("%s", async (_, c, dtype, level) => {
    kernels?.select(level);
    const size = c.sequences * c.slots * c.kv * c.d;
    const [q, k, v] = [random(c.sequences * c.heads * c.d, 1), random(size, 2), random(size, 3)];
    const at = Int32Array.from({ length: c.sequences }, (_unused, b) => (b * 13 + 12) % c.slots);
    const results = await Promise.all(
      devices.map(async (device) => {
        const spec = { shape: [c.sequences, c.kv, c.slots, c.d], dtype };
        using cache = new Arena(device, "cache", { k: spec, v: spec });
        // Slots 0 to slots - 2 as a prompt, the last as a token: all of them are known, but only some are seen.
        for (const [length, start] of [
          [c.slots - 1, 0],
          [1, c.slots - 1],
        ] as const) {
          using g = new Graph(device, { recording: false });
          const part = (x: Float32Array) =>
            Float32Array.from({ length: c.sequences * length * c.kv * c.d }, (_unused, i) => {
              const row = c.kv * c.d;
              const [b, t, rest] = [Math.floor(i / (length * row)), Math.floor(i / row) % length, i % row];
              return x[(b * c.slots + start + t) * row + rest] as number;
            });
          const slots = g.input("at", [c.sequences], "i32");
          const shape = [c.sequences, length, c.kv, c.d];
          ops.storeTokens(g, cache.get("k"), g.input("k", shape), slots, "keys");
          ops.storeTokens(g, cache.get("v"), g.input("v", shape), slots, "values");
          await g.run({ k: part(k), v: part(v), at: new Int32Array(c.sequences).fill(start) });
        }
        using g = new Graph(device, { recording: false });
        const y = g.output(
          ops.cacheAttention(
            g,
            g.input("q", [c.sequences, c.heads, c.d]),
            cache.get("k"),
            cache.get("v"),
            g.input("at", [c.sequences], "i32"),
            {
              scale: 0.4,
              softcap: c.softcap,
              first: c.window > 0 ? g.input("first", [c.sequences], "i32") : null,
            },
          ),
        );
        const first = at.map((position) => Math.max(0, position - c.window + 1));
        await g.run({ q, at, ...(c.window > 0 ? { first } : {}) });
        return y.readF32();
      }),
    );
    const [one, three] = results as [Float32Array, Float32Array];
    expect(three).toEqual(one);
    const [keys, values] = dtype === "bf16" ? [rounded(k), rounded(v)] : [k, v];
    expect(relativeError(one, wanted(c, q, keys, values, at))).toBeLessThan(2e-6);
  });
});

describe.skipIf(levels.length === 0)("the choice of a token", () => {
  const [rows, vocabulary] = [40, 333];
  const logits = random(rows * vocabulary, 5).map((x) => 3 * x);
  const uniforms = Float64Array.from({ length: rows }, (_, i) => ((i * 7919 + 13) % 1000) / 1000);
  const halves = new Float32Array(2 * rows);
  uniforms.forEach((u, i) => halves.set([Math.fround(u), u - Math.fround(u)], 2 * i));

  const choose = async (device: Device, temperature: number, values = logits) => {
    using g = new Graph(device, { recording: false });
    const uniform = g.input("u", [rows, 2]);
    const y = g.output(ops.chooseTokens(g, g.input("x", [rows, vocabulary]), uniform, temperature));
    await g.run({ x: values, u: halves });
    return y.readF32();
  };
  const cases = levels.flatMap((level) =>
    [0, 0.3, 1, 2.5].map((temperature) => [level, temperature] as const),
  );
  test.each(cases)("%s at temperature %s", async (level, temperature) => {
    kernels?.select(level);
    const found = await choose(devices[0]!, temperature);
    expect(await choose(devices[1]!, temperature)).toEqual(found);
    for (let row = 0; row < rows; row++) {
      const x = Array.from(logits.subarray(row * vocabulary, (row + 1) * vocabulary));
      const most = Math.max(...x);
      const logZ = most + Math.log(x.reduce((sum, each) => sum + Math.exp(each - most), 0));
      const [token, logProb, entropy] = found.subarray(4 * row, 4 * row + 4) as unknown as [
        number,
        number,
        number,
      ];
      if (temperature === 0) {
        expect(token).toBe(x.indexOf(most));
      } else {
        // Up to the token the share of the mass is at most the number drawn, and with it, above.
        const weights = x.map((each) => Math.exp((each - most) / temperature));
        const sum = weights.reduce((a, b) => a + b, 0);
        const below = weights.slice(0, token).reduce((a, b) => a + b, 0) / sum;
        expect(uniforms[row]).toBeGreaterThan(below - 1e-5);
        expect(uniforms[row]).toBeLessThan(below + weights[token]! / sum + 1e-5);
      }
      expect(logProb).toBeCloseTo(x[token]! - logZ, 4);
      expect(entropy).toBeCloseTo(
        x.reduce((sum, each) => sum - Math.exp(each - logZ) * (each - logZ), 0),
        4,
      );
    }
  });

  test("a row with NaN, or all of -infinity, has no sum of weights; one with -infinity in it has", async () => {
    const values = logits.slice();
    values[3] = NaN;
    values.fill(-Infinity, vocabulary, 2 * vocabulary);
    values.fill(-Infinity, 2 * vocabulary + 5, 3 * vocabulary);
    const found = await choose(devices[0]!, 1, values);
    for (const row of [0, 1]) expect(found[4 * row + 3]).toBeNaN();
    expect(found[4 * 2 + 3]).toBeGreaterThan(0);
    expect(found[4 * 2]).toBeLessThan(5);
    expect(found[4 * 2 + 2]).toBeGreaterThan(0);
  });
});

describe.skipIf(levels.length === 0)("packed weights give the same bytes", () => {
  const sizes = [
    [1, 5, 3],
    [9, 67, 130],
    [64, 33, 1100], // deeper than a pass of any product
    [100, 1200, 48], // wider than a block of packed columns
  ] as const;
  const cases = levels.flatMap((level) =>
    sizes.flatMap((size) => (["f32", "bf16"] as const).map((compute) => [level, size, compute] as const)),
  );
  test.each(cases)("%s, %j, %s", async (level, [m, n, k], compute) => {
    kernels?.select(level);
    const [x, w] = [random(m * k, 7), random(n * k, 8)];
    // A block that holds an infinity goes another way.
    if (m > 1) w[(n - 1) * k] = Infinity;
    for (const device of devices) {
      using weights = new Arena(device, "weights", { w: { shape: [n, k] } });
      weights.get("w").write(w);
      using packed = await PackedMatrices.of(device, weights.tensors, compute);
      using g = new Graph(device, { recording: false, compute });
      // Rows enough for our own product on both sides.
      const input = g.input("x", [m, k]);
      const wide = g.input("wide", [Math.max(m, 8), k]);
      const plain = g.output(ops.linear(g, wide, weights.get("w")));
      const found = g.output(ops.linear(g, input, packed.matrices.get("w")!));
      const padded = new Float32Array(Math.max(m, 8) * k);
      padded.set(x);
      await g.run({ x, wide: padded });
      expect(found.readF32()).toEqual(plain.readF32().subarray(0, m * n));
    }
  });

  test("and are refused by other kernels than those they were packed for", async () => {
    if (levels.length < 2) return;
    kernels?.select(levels[0]!);
    using weights = new Arena(devices[0]!, "weights", { w: { shape: [8, 8] } });
    using packed = await PackedMatrices.of(devices[0]!, weights.tensors, "f32");
    kernels?.select(levels[1]!);
    using g = new Graph(devices[0]!, { recording: false });
    expect(() => ops.linear(g, g.input("x", [8, 8]), packed.matrices.get("w")!)).toThrow(
      expect.objectContaining({ code: "tensor.packed" }),
    );
  });
});
