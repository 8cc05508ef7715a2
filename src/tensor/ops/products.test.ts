// Matrix products and attention beyond the sizes of finite differences: across the tile borders of kernels, with two
// threads, with weights stored in bf16, and over a cache of keys and values.
import { afterAll, describe, expect, test } from "vitest";
import { Device } from "../../engine/index.js";
import { Arena, Graph, ops } from "../index.js";
import { make, relativeError } from "../testing/array64.js";
import type { Array64 } from "../testing/array64.js";
import { bfloat16Of, normals, seededRandom } from "../testing/random.js";
import { attention, matmul, tokenLogProbs } from "../testing/reference.js";

const devices = [1, 2].map((threads) => Device.open({ threads }));
const device = devices[0]!;
afterAll(() => devices.forEach((each) => each[Symbol.dispose]()));

function draw(shape: readonly number[], seed: number, round = Math.fround): Array64 {
  const random = seededRandom(seed);
  return make(shape, () => round(normals(random, 1)[0]!));
}
const f32 = ({ data }: Array64) => Float32Array.from(data);

// Below, at and above multiples of 8, 16, 32 and 64: the tiles of ggml's kernels.
const SIZES = [
  [1, 64, 1],
  [65, 33, 70],
  [16, 257, 31],
  [64, 64, 64],
  [2, 100, 129],
] as const;

describe("products against float64, with gradients dA = dY·Bᵀ and dB = Aᵀ·dY", () => {
  // Two threads for two sizes: on busy cores ggml's barrier makes each such graph wait for the scheduler.
  const cases = SIZES.flatMap((size, i) =>
    (["f32", "bf16"] as const).flatMap((compute) =>
      devices
        .slice(0, i < 2 ? 2 : 1)
        .map((on) => ({ size: size as readonly [number, number, number], compute, on })),
    ),
  );
  // So many rows that two threads pack the right side together before they multiply.
  for (const compute of ["f32", "bf16"] as const)
    cases.push({ size: [3201, 40, 37], compute, on: devices[1]! });
  test.each(cases.map((each) => [`${each.size} ${each.compute}, ${each.on.threads} threads`, each] as const))(
    "%s",
    async (_, { size: [m, k, n], compute, on }) => {
      // bf16 with numbers that bf16 holds: every product is exact and the bound is that of f32 sums.
      const round = compute === "bf16" ? bfloat16Of : Math.fround;
      const [a, b, dy] = [draw([m, k], 1, round), draw([k, n], 2, round), draw([m, n], 3, round)];
      using g = new Graph(on, { compute });
      const [ta, tb] = [g.variable("a", a.shape), g.variable("b", b.shape)];
      const y = g.output(ops.matmul(g, ta, tb));
      const gradients = g.backward(ops.sum(g, ops.mul(g, y, g.input("dy", dy.shape))));
      const [da, db] = [g.output(gradients.get(ta)!), g.output(gradients.get(tb)!)];
      await g.run({ a: f32(a), b: f32(b), dy: f32(dy) });
      expect(relativeError(y.readF32(), matmul(a, b).data)).toBeLessThan(1e-6);
      expect(relativeError(da.readF32(), matmul(dy, b, false, true).data)).toBeLessThan(1e-6);
      expect(relativeError(db.readF32(), matmul(a, dy, true, false).data)).toBeLessThan(1e-6);
    },
  );
});

describe("weights stored in bf16", () => {
  test.each(["f32", "bf16"] as const)("computed in %s give product and gradient of x", async (compute) => {
    const [x, w] = [draw([5, 33], 1, bfloat16Of), draw([7, 33], 2, bfloat16Of)];
    using arena = new Arena(device, "weights", { w: { shape: [7, 33], dtype: "bf16" } });
    const bits = new Uint32Array(f32(w).buffer);
    arena.get("w").write(Uint16Array.from(bits, (word) => word >>> 16));
    using g = new Graph(device, { compute });
    const tx = g.variable("x", x.shape);
    const y = g.output(ops.linear(g, tx, arena.get("w")));
    const dx = g.output(g.backward(ops.sum(g, y)).get(tx)!);
    await g.run({ x: f32(x) });
    const ones = make([5, 7], () => 1);
    expect(relativeError(y.readF32(), matmul(x, w, false, true).data)).toBeLessThan(1e-6);
    expect(relativeError(dx.readF32(), matmul(ones, w).data)).toBeLessThan(1e-6);
  });
});

test("a vocabulary of 2,000 in chunks of 100 rows: log-probabilities against float64", async () => {
  const [h, w] = [draw([257, 24], 1), draw([2000, 24], 2)];
  const targets = Int32Array.from({ length: 257 }, (_, i) => (i * 37) % 2000);
  using g = new Graph(device, { recording: false });
  const logP = g.output(
    ops.tokenLogProbs(g, g.input("h", h.shape), g.input("w", w.shape), g.input("targets", [257], "i32"), {
      chunk: 100,
    }),
  );
  await g.run({ h: f32(h), w: f32(w), targets });
  const ids = { shape: [257], data: Float64Array.from(targets) };
  expect(relativeError(logP.readF32(), tokenLogProbs(h, w, ids, null).data)).toBeLessThan(1e-6);
});

test.each([
  ["ggml's ops: as 1e-37", false],
  ["nlakit's kernels, where there are any: as what it is", true],
])("a probability that float32 cannot hold counts by %s", async (_, kernels) => {
  using own = Device.open({ threads: 1, kernels });
  using g = new Graph(own, { recording: false });
  const logP = g.output(
    ops.tokenLogProbs(g, g.input("h", [2, 1]), g.input("w", [2, 1]), g.input("targets", [2], "i32")),
  );
  await g.run({ h: Float32Array.of(300, 20), w: Float32Array.of(0, 1), targets: new Int32Array(2) });
  expect(logP.readF32()[0]).toBeCloseTo(g.native ? -300 : Math.log(1e-37), 3);
  expect(logP.readF32()[1]).toBeCloseTo(-20, 5);
});

describe("attention over a cache against float64", () => {
  const dims = [
    { name: "one query, grouped", t: 1, heads: 4, kvHeads: 2, s: 7, cap: null },
    { name: "three queries", t: 3, heads: 2, kvHeads: 2, s: 5, cap: null },
    { name: "softcap, one key head", t: 2, heads: 3, kvHeads: 1, s: 40, cap: 1.5 },
  ];
  // In f16 the keys and values round by 5e-4 at most.
  const kinds = [
    ["f32", 2e-6],
    ["f16", 1e-3],
  ] as const;
  const cases = dims.flatMap((each) =>
    kinds.map((kind) => [`${each.name}, ${kind[0]}`, each, kind] as const),
  );
  test.each(cases)("%s", async (_, { t, heads, kvHeads, s, cap }, [dtype, bound]) => {
    const [batch, d] = [2, 6];
    const [q, k, v] = [
      draw([batch, t, heads, d], 1),
      draw([batch, s, kvHeads, d], 2),
      draw([batch, s, kvHeads, d], 3),
    ];
    // Sequence 1 does not see the first key; nobody sees the future.
    const seen = (b: number, i: number, j: number) => j <= s - t + i && j >= b;
    const mask = make([batch, 1, t, s], ([b = 0, , i = 0, j = 0]) => (seen(b, i, j) ? 0 : -Infinity));
    using g = new Graph(device, { recording: false });
    // The cache is [batch, kvHeads, s, d]; a cast to f16 has to happen on the device.
    const cache = (name: string) => {
      const x = ops.permute(g, g.input(name, [batch, s, kvHeads, d]), [0, 2, 1, 3]);
      return dtype === "f32" ? x : g.emit("cast", x.shape, "f16", x, 1);
    };
    const y = g.output(
      ops.cachedAttention(g, g.input("q", q.shape), cache("k"), cache("v"), {
        mask: g.input("mask", mask.shape, "f16"),
        scale: 0.4,
        softcap: cap,
      }),
    );
    await g.run({
      q: f32(q),
      k: f32(k),
      v: f32(v),
      mask: Uint16Array.from(mask.data, (x) => (x === 0 ? 0 : 0xfc00)), // -inf in f16
    });
    expect(y.shape).toEqual([batch, t, heads * d]);
    expect(relativeError(y.readF32(), attention(q, k, v, mask, 0.4, cap).data)).toBeLessThan(bound);
  });
});
