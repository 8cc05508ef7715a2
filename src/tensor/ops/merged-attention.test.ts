// Queries, keys and values of one product against three products, ropes and an attention of their own: values and all gradients.
import { afterAll, describe, expect, test } from "vitest";
import { Device } from "../../engine/index.js";
import { Arena, Graph, ops } from "../index.js";
import type { Tensor } from "../index.js";
import { relativeError } from "../testing/array64.js";
import { normals, seededRandom } from "../testing/random.js";

const devices = [1, 3].map((threads) => Device.open({ threads }));
afterAll(() => devices.forEach((each) => each[Symbol.dispose]()));
const { kernels } = devices[0]!;
if (!kernels) console.log("skipped: no native kernels (run `node native/build.mjs`)");

interface Case {
  readonly name: string;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly length: number;
  readonly window: number | null;
  readonly softcap: number | null;
}
const CASES: readonly Case[] = [
  { name: "grouped queries", heads: 4, kvHeads: 2, headDim: 12, length: 33, window: null, softcap: null },
  {
    name: "as many keys as queries",
    heads: 3,
    kvHeads: 3,
    headDim: 16,
    length: 70,
    window: null,
    softcap: null,
  },
  { name: "a window and a cap", heads: 2, kvHeads: 1, headDim: 10, length: 40, window: 9, softcap: 2 },
  {
    name: "longer than a block of queries",
    heads: 2,
    kvHeads: 1,
    headDim: 8,
    length: 300,
    window: null,
    softcap: null,
  },
];
const BATCH = 2;
const DIM = 32;

function maskOf({ length, window }: Case): Float32Array {
  return Float32Array.from({ length: length * length }, (_, at) => {
    const [i, j] = [Math.floor(at / length), at % length];
    return j <= i && (window === null || i - j < window) ? 0 : -Infinity;
  });
}

/** Output, and the gradients of x and of the three weights. */
async function compute(
  device: Device,
  merged: boolean,
  each: Case,
  type: "f32" | "bf16",
): Promise<Float32Array[]> {
  const { heads, kvHeads, headDim, length, softcap } = each;
  const n = BATCH * length;
  const rows = { q: heads * headDim, k: kvHeads * headDim, v: kvHeads * headDim };
  const specs = Object.entries(rows).map(
    ([name, out]) => [name, { shape: [out, DIM], parameter: true }] as const,
  );
  using arena = new Arena(device, "weights", Object.fromEntries(specs));
  const random = seededRandom(3);
  for (const tensor of arena.tensors.values())
    tensor.write(Float32Array.from(normals(random, tensor.size), (value) => value / 4));
  using g = new Graph(device, { compute: type });
  const [x, mask] = [g.variable("x", [n, DIM]), g.input("mask", [length, length])];
  const positions = g.input("positions", [n], "i32");
  const rope = { theta: 1e4, magnitude: 1.2 };
  const settings = { mask, scale: 0.4, softcap };
  let y: Tensor;
  if (merged) {
    const parts = ["q", "k", "v"].map((name) => arena.get(name));
    const span = arena.span(["q", "k", "v"]);
    expect(span, "contiguous weights").not.toBeNull();
    const qkv = ops.mergedLinear(g, x, span!, parts);
    y = ops.mergedAttention(g, qkv, { ...settings, batch: BATCH, heads, kvHeads, headDim, positions, rope });
  } else {
    const split = (name: "q" | "k" | "v", turned: boolean) => {
      const flat = ops.reshape(g, ops.linear(g, x, arena.get(name)), [n, rows[name] / headDim, headDim]);
      const ready = turned ? ops.rope(g, flat, positions, rope) : flat;
      return ops.reshape(g, ready, [BATCH, length, rows[name] / headDim, headDim]);
    };
    const mixed = ops.attention(g, split("q", true), split("k", true), split("v", false), settings);
    y = ops.reshape(g, mixed, [n, heads * headDim]);
  }
  const dy = g.input("dy", y.shape);
  const gradients = g.backward(ops.sum(g, ops.mul(g, y, dy)));
  const wanted = [
    y,
    ...[x, arena.get("q"), arena.get("k"), arena.get("v")].map((each) => gradients.get(each)!),
  ];
  const kept = wanted.map((each) => g.output(each));
  await g.run({
    x: Float32Array.from(normals(random, x.size)),
    dy: Float32Array.from(normals(random, dy.size)),
    mask: maskOf(each),
    positions: Int32Array.from({ length: n }, (_, i) => i % length),
  });
  return kept.map((each) => each.readF32());
}

describe.skipIf(!kernels)("merged queries, keys and values", () => {
  // In bf16 a gradient of x is one sum instead of three, and a rounding may fall the other way.
  const bounds = [
    ["f32", 2e-6],
    ["bf16", 6e-3],
  ] as const;
  const all = CASES.flatMap((each) => bounds.map(([type, bound]) => ({ each, type, bound })));
  test.each(all.map((row) => [`${row.each.name}, ${row.type}`, row] as const))(
    "%s",
    async (_, { each, type, bound }) => {
      const wanted = await compute(devices[0]!, false, each, type);
      const found = await compute(devices[0]!, true, each, type);
      found.forEach((values, i) =>
        expect(relativeError(values, wanted[i]!), `result ${i}`).toBeLessThan(bound),
      );
      expect(await compute(devices[1]!, true, each, type), "three threads").toEqual(found);
    },
  );

  test("weights that alignment keeps apart, or of other widths, are not merged", () => {
    using arena = new Arena(devices[0]!, "weights", {
      a: { shape: [1, 3] },
      b: { shape: [4, 3] },
      c: { shape: [4, 5] },
      d: { shape: [4, 16] },
      e: { shape: [2, 16] },
    });
    expect(arena.span(["a", "b"])).toBeNull();
    expect(arena.span(["b", "c"])).toBeNull();
    expect(arena.span(["e", "d"])).toBeNull();
    expect(arena.span(["d", "e"])?.shape).toEqual([6, 16]);
    arena.get("e").write(new Float32Array(32).fill(7));
    expect(arena.span(["d", "e"])?.readF32().slice(64)).toEqual(new Float32Array(32).fill(7));
  });

  test("wrong shapes are refused before any kernel is called", () => {
    using g = new Graph(devices[0]!);
    using arena = new Arena(devices[0]!, "weights", { w: { shape: [12, 8], parameter: true } });
    const [x, w] = [g.input("x", [16, 8]), arena.get("w")];
    const refusal = expect.objectContaining({ code: "tensor.shape" });
    expect(() => ops.mergedLinear(g, x, w, [w, w])).toThrow(refusal);
    const qkv = ops.mergedLinear(g, x, arena.span(["w"])!, [w]);
    const options = { batch: 3, heads: 1, kvHeads: 1, headDim: 4, scale: 1, rope: { theta: 1e4 } };
    const [mask, positions] = [g.input("mask", [8, 8]), g.input("positions", [16], "i32")];
    expect(() => ops.mergedAttention(g, qkv, { ...options, mask, positions })).toThrow(refusal);
    const wide = { ...options, batch: 2, headDim: 6 };
    expect(() => ops.mergedAttention(g, qkv, { ...wide, mask, positions })).toThrow(refusal);
    const other = g.input("other mask", [8, 9]);
    expect(() => ops.mergedAttention(g, qkv, { ...options, batch: 2, mask: other, positions })).toThrow(
      refusal,
    );
  });
});
