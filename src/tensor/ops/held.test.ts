// Products with matrices in blocks and half precision by nlakit's own kernels, at every level that this machine has, against float64
// sums over the values that ggml unpacks: forward, the gradient of the rows, the output head; and the memory that they take.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BLOCKS, Device, quantizeRows } from "../../engine/index.js";
import type { BlockDtype, Dtype, Kernels } from "../../engine/index.js";
import { Arena, Graph, ops } from "../index.js";
import { relativeError } from "../testing/array64.js";
import { kernelLevels } from "../testing/levels.js";
import { normals, seededRandom } from "../testing/random.js";
import { fewestHeldRows } from "./held.js";

const { kernels, levels, restore } = kernelLevels();
const devices = [1, 3].map((threads) => Device.open({ threads }));
const device = devices[0] as Device;
afterAll(() => {
  restore();
  for (const each of devices) each[Symbol.dispose]();
});
const random = (size: number, seed: number) => Float32Array.from(normals(seededRandom(seed), size));

const TYPES: readonly Dtype[] = ["f16", ...(Object.keys(BLOCKS) as BlockDtype[])];
const smallF16 = (size: number) => Uint16Array.from({ length: size }, (_, i) => (i * 7919) & 0xbbff); // below 2

function arenaOf(on: Device, dtype: Dtype, n: number, k: number): Arena {
  const arena = new Arena(on, "w", { w: { shape: [n, k], dtype } });
  arena
    .get("w")
    .write(dtype === "f16" ? smallF16(n * k) : quantizeRows(dtype as BlockDtype, random(n * k, 3), k));
  return arena;
}

/** What ggml makes of the blocks. */
async function valuesOf(dtype: Dtype, n: number, k: number): Promise<Float32Array> {
  using arena = arenaOf(device, dtype, n, k);
  using g = new Graph(device, { recording: false });
  const all = g.output(ops.gatherRows(g, arena.get("w"), g.input("ids", [n], "i32")));
  await g.run({ ids: Int32Array.from({ length: n }, (_, i) => i) });
  return all.readF32();
}

function products(
  x: Float32Array,
  w: Float32Array,
  m: number,
  n: number,
  k: number,
  along: boolean,
): Float64Array {
  const y = new Float64Array(m * (along ? k : n));
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++)
      for (let p = 0; p < k; p++) {
        const value = w[j * k + p] as number;
        if (along) y[i * k + p]! += (x[i * n + j] as number) * value;
        else y[i * n + j]! += (x[i * k + p] as number) * value;
      }
  return y;
}

/** In float64, once for all levels. */
async function referenceOf({ dtype, m, n, k }: Given) {
  const key = `${dtype} ${m} ${n} ${k}`;
  const known = references.get(key);
  if (known) return known;
  const values = await valuesOf(dtype, n, k);
  const made = {
    wanted: products(random(m * k, 1), values, m, n, k, false),
    gradient: products(random(m * n, 2), values, m, n, k, true).map((each) => each + 1),
  };
  references.set(key, made);
  return made;
}
const references = new Map<string, { wanted: Float64Array; gradient: Float64Array }>();

interface Given {
  readonly dtype: Dtype;
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

async function linear(on: Device, { dtype, m, n, k }: Given, compute: "f32" | "bf16") {
  using arena = arenaOf(on, dtype, n, k);
  using g = new Graph(on, { compute });
  const x = g.variable("x", [m, k]);
  const y = g.output(ops.linear(g, x, arena.get("w")));
  // The rows are read twice, so that a gradient is added to one that is there.
  const sum = ops.add(g, ops.sum(g, ops.mul(g, y, g.input("dy", [m, n]))), ops.sum(g, x));
  const dx = g.output(g.backward(sum).get(x)!);
  await g.run({ x: random(m * k, 1), dy: random(m * n, 2) });
  return { y: y.readF32(), dx: dx.readF32(), bytes: g.workingBytes };
}

describe.skipIf(!kernels)("products with held matrices", () => {
  const own = kernels as Kernels;
  beforeAll(() => expect(levels.length).toBeGreaterThan(0));

  for (const level of levels)
    test.each(TYPES)(`${level}: %s against float64`, async (dtype) => {
      for (const [m, n, k] of [
        [520, 37, 256],
        [90, 300, 512],
        [3, 65, 768],
      ] as const) {
        const { wanted, gradient } = await referenceOf({ dtype, m, n, k });
        own.select(level);
        for (const compute of ["f32", "bf16"] as const) {
          const { y, dx } = await linear(device, { dtype, m, n, k }, compute);
          const rounded = compute === "bf16" && own.fastBf16;
          const byOurs = m >= fewestHeldRows(dtype, level, rounded);
          expect(relativeError(y, wanted), `${m} x ${n} x ${k}`).toBeLessThan(
            !byOurs ? 2e-2 : rounded ? 8e-3 : 1e-6,
          );
          expect(relativeError(dx, gradient), `gradient of ${m} x ${n} x ${k}`).toBeLessThan(
            rounded ? 8e-3 : 1e-6,
          );
        }
      }
    });

  test.each(TYPES)("%s: the same bytes for 1 and 3 threads", async (dtype) => {
    own.select(own.best);
    const given = { dtype, m: 70, n: 163, k: 768 };
    for (const compute of ["f32", "bf16"] as const) {
      const [one, three] = [await linear(device, given, compute), await linear(devices[1]!, given, compute)];
      expect(three.y).toEqual(one.y);
      expect(three.dx).toEqual(one.dx);
    }
  });

  test("no copy of the matrix is made, in neither direction", async () => {
    own.select(own.best);
    const [m, n, k] = [64, 1024, 2048];
    const { bytes } = await linear(device, { dtype: "q4_k", m, n, k }, "f32");
    expect(bytes).toBeLessThan((n * k * 4) / 2); // rows and their gradients alone
  });

  test.each([null, 3])(
    "a head in blocks, cap %s: loss and gradient as with its values in f32",
    async (softcap) => {
      own.select(own.best);
      const [rows, vocabulary, d] = [50, 301, 64];
      const values = await valuesOf("q8_0", vocabulary, d);
      using arena = arenaOf(device, "q8_0", vocabulary, d);
      using plain = new Arena(device, "plain", { w: { shape: [vocabulary, d] } });
      plain.get("w").write(values);
      for (const [compute, bound] of [
        ["f32", 2e-6],
        ["bf16", 1e-2],
      ] as const) {
        const found = [plain, arena].map(async (of) => {
          using g = new Graph(device, { compute });
          const h = g.variable("h", [rows, d]);
          const [targets, weights] = [g.input("targets", [rows], "i32"), g.input("weights", [rows])];
          const options = { chunk: 16, softcap };
          const loss = ops.crossEntropy(g, h, of.get("w"), targets, weights, options);
          const logP = ops.tokenLogProbs(g, h, of.get("w"), targets, options);
          const kept = [
            loss,
            logP,
            g.backward(ops.add(g, loss, ops.sum(g, ops.mul(g, logP, weights)))).get(h)!,
          ];
          for (const each of kept) g.output(each);
          await g.run({
            h: random(rows * d, 8),
            targets: Int32Array.from({ length: rows }, (_, i) => (i * 37) % vocabulary),
            weights: Float32Array.from({ length: rows }, (_, i) => (i % 4) / 50),
          });
          return kept.map((each) => each.readF32());
        });
        const [wanted, given] = [await found[0]!, await found[1]!];
        given.forEach((each, i) =>
          expect(relativeError(each, wanted[i]!), `${compute} ${i}`).toBeLessThan(bound),
        );
      }
    },
  );
});
