// Ops by nlakit's own kernels against the same ops composed of ggml's, at every level that this machine has: values and
// gradients, at sizes beyond those of finite differences (several blocks of queries, ragged tiles), and the same bytes for 1 to
// 4 threads. Against float64 the kernels are tested in ops.test.ts and, one by one, in native/test.
import { afterAll, describe, expect, test } from "vitest";
import { Device } from "../engine/index.js";
import type { Kernels } from "../engine/index.js";
import { Graph, ops } from "./index.js";
import type { Tensor } from "./index.js";
import { relativeError } from "./testing/array64.js";
import { kernelLevels } from "./testing/levels.js";
import { normals, seededRandom } from "./testing/random.js";

const { kernels, levels, restore } = kernelLevels();
const devices = [1, 2, 3, 4].map((threads) => Device.open({ threads }));
const composed = Device.open({ threads: 1, kernels: false });
afterAll(() => {
  restore();
  for (const device of [...devices, composed]) device[Symbol.dispose]();
});

interface Row {
  readonly name: string;
  readonly variables: Readonly<Record<string, readonly number[]>>;
  readonly ids?: Readonly<Record<string, Int32Array>>;
  readonly constants?: Readonly<Record<string, { shape: readonly number[]; data: Float32Array }>>;
  readonly build: (g: Graph, t: Readonly<Record<string, Tensor>>) => Tensor;
}

const [BATCH, T, HEADS, KV, D] = [2, 150, 4, 2, 24];
const attentionShapes = { q: [BATCH, T, HEADS, D], k: [BATCH, T, KV, D], v: [BATCH, T, KV, D] };
function maskOf(rows: number, seen: (row: number, query: number, key: number) => boolean) {
  const data = Float32Array.from({ length: rows * T * T }, (_, i) => {
    const [row, query, key] = [Math.floor(i / (T * T)), Math.floor(i / T) % T, i % T];
    return seen(row, query, key) ? 0 : -Infinity;
  });
  return { shape: rows === 1 ? [T, T] : [rows, 1, T, T], data };
}
const attend = (g: Graph, t: Readonly<Record<string, Tensor>>) =>
  ops.attention(g, t["q"]!, t["k"]!, t["v"]!, { mask: t["mask"]!, scale: 0.2 });
const someIds = (count: number, below: number) =>
  Int32Array.from({ length: count }, (_, i) => (i * i * 7) % below);

const ROWS: readonly Row[] = [
  {
    name: "linear",
    variables: { x: [131, 67], w: [93, 67] },
    build: (g, t) => ops.linear(g, t["x"]!, t["w"]!),
  },
  {
    name: "a batch of products, both transposed, an operand used twice",
    variables: { a: [3, 40, 33], b: [3, 50, 40] },
    build: (g, t) => {
      const y = ops.matmul(g, t["a"]!, t["b"]!, { transposeA: true, transposeB: true });
      return ops.matmul(g, y, ops.matmul(g, t["a"]!, y, {}), { transposeB: true });
    },
  },
  {
    name: "rms norm, its operand used beside it",
    variables: { x: [70, 49], gain: [49] },
    build: (g, t) =>
      ops.add(g, ops.rmsNorm(g, t["x"]!, t["gain"]!, 1e-5), ops.rmsNorm(g, t["x"]!, t["gain"]!, 1e-3)),
  },
  {
    // The gradient that the second residual hands on holds a sum already, but not the one that x has from the gathered rows.
    name: "two residual blocks, their input used again after them",
    variables: { x: [70, 49], gain: [49], w: [49, 49] },
    ids: { ids: someIds(70, 70) },
    build: (g, t) => {
      const block = (x: Tensor) => ops.add(g, x, ops.linear(g, ops.rmsNorm(g, x, t["gain"]!, 1e-5), t["w"]!));
      const out = block(block(t["x"]!));
      return ops.add(g, out, ops.square(g, ops.gatherRows(g, t["x"]!, t["ids"]!)));
    },
  },
  {
    name: "a norm that three products read, one of them twice",
    variables: { x: [70, 49], gain: [49], w: [49, 49], u: [49, 49] },
    build: (g, t) => {
      const h = ops.rmsNorm(g, t["x"]!, t["gain"]!, 1e-5);
      const [a, b] = [ops.linear(g, h, t["w"]!), ops.linear(g, h, t["u"]!)];
      return ops.add(g, ops.add(g, ops.mul(g, a, b), ops.linear(g, a, t["w"]!)), h);
    },
  },
  {
    name: "one gain for every norm of a chain, its result used again",
    variables: { x: [33, 31], gain: [31] },
    build: (g, t) => {
      const norm = (x: Tensor) => ops.rmsNorm(g, x, t["gain"]!, 1e-5);
      const [once, twice] = [norm(t["x"]!), norm(norm(t["x"]!))];
      return ops.add(g, ops.mul(g, once, twice), ops.add(g, t["x"]!, norm(ops.add(g, once, t["x"]!))));
    },
  },
  {
    // In bf16 the gradients of gates and turned heads are only ever made in bf16: products are all that reads them.
    name: "gates and turned heads between products, a product added to what it came from",
    variables: { x: [70, 48], w: [48, 48], u: [48, 48] },
    ids: { positions: Int32Array.from({ length: 70 }, (_, i) => i % 50) },
    build: (g, t) => {
      const [w, u] = [ops.scale(g, t["w"]!, 1 / 7), ops.scale(g, t["u"]!, 1 / 7)]; // as large as a model's
      const turned = ops.rope(g, ops.reshape(g, ops.linear(g, t["x"]!, w), [70, 3, 16]), t["positions"]!, {
        theta: 1e4,
      });
      const h = ops.linear(g, ops.reshape(g, turned, [70, 48]), u, t["x"]!);
      const gated = ops.swiglu(g, ops.linear(g, h, w), ops.linear(g, h, u));
      return ops.linear(g, gated, t["w"]!, h);
    },
  },
  {
    name: "swiglu of an operand with itself",
    variables: { a: [37, 41] },
    build: (g, t) => ops.swiglu(g, t["a"]!, t["a"]!),
  },
  {
    name: "gated both ways round, the operands used beside them",
    variables: { a: [37, 41], b: [37, 41] },
    build: (g, t) => {
      const [a, b] = [t["a"]!, t["b"]!];
      return ops.add(g, ops.add(g, ops.swiglu(g, a, b), ops.geglu(g, b, a)), ops.mul(g, a, b));
    },
  },
  {
    name: "an embedding that is the head, too, behind a residual block",
    variables: { table: [61, 33], gain: [33], w: [33, 33] },
    ids: { ids: someIds(50, 61), targets: someIds(50, 53) },
    constants: { weights: { shape: [50], data: Float32Array.from({ length: 50 }, (_, i) => (i % 3) / 60) } },
    build: (g, t) => {
      const x = ops.gatherRows(g, t["table"]!, t["ids"]!);
      const h = ops.add(g, x, ops.linear(g, ops.rmsNorm(g, x, t["gain"]!, 1e-5), t["w"]!));
      const last = ops.rmsNorm(g, h, t["gain"]!, 1e-5);
      return ops.crossEntropy(g, last, t["table"]!, t["targets"]!, t["weights"]!, { chunk: 16 });
    },
  },
  {
    name: "keys turned once and read by two attentions, and as values",
    variables: { q: [2, 21, 4, 10], k: [2, 21, 2, 10] },
    ids: { positions: Int32Array.from({ length: 42 }, (_, i) => i % 21) },
    constants: {
      mask: {
        shape: [21, 21],
        data: Float32Array.from({ length: 441 }, (_, i) => (i % 21 <= Math.floor(i / 21) ? 0 : -Infinity)),
      },
    },
    build: (g, t) => {
      const turn = (x: Tensor, heads: number) =>
        ops.reshape(g, ops.rope(g, ops.reshape(g, x, [42, heads, 10]), t["positions"]!, { theta: 1e4 }), [
          2,
          21,
          heads,
          10,
        ]);
      const [q, k] = [turn(t["q"]!, 4), turn(t["k"]!, 2)];
      const options = { mask: t["mask"]!, scale: 0.3 };
      const first = ops.attention(g, q, k, t["k"]!, options);
      return ops.add(g, first, ops.attention(g, t["q"]!, k, k, options));
    },
  },
  {
    name: "swiglu",
    variables: { a: [90, 101], b: [90, 101] },
    build: (g, t) => ops.swiglu(g, t["a"]!, t["b"]!),
  },
  {
    name: "geglu",
    variables: { a: [90, 101], b: [90, 101] },
    build: (g, t) => ops.geglu(g, t["a"]!, t["b"]!),
  },
  {
    name: "rope",
    variables: { x: [70, 3, 26] },
    ids: { positions: Int32Array.from({ length: 70 }, (_, i) => i % 50) },
    build: (g, t) => ops.rope(g, t["x"]!, t["positions"]!, { theta: 1e4, magnitude: 1.5 }),
  },
  {
    name: "rope with divisors of its frequencies, as llama3, linear and yarn scaling give",
    variables: { x: [70, 3, 26] },
    ids: { positions: Int32Array.from({ length: 70 }, (_, i) => (i * 7) % 50) },
    constants: { divisors: { shape: [13], data: Float32Array.from({ length: 13 }, (_, i) => 1 + i * 0.6) } },
    build: (g, t) =>
      ops.rope(g, t["x"]!, t["positions"]!, {
        theta: 5e5,
        frequencyDivisors: t["divisors"]!,
        magnitude: 1.2,
      }),
  },
  {
    name: "a soft cap, small numbers and large ones",
    variables: { x: [70, 131] },
    build: (g, t) => ops.softcap(g, ops.mul(g, t["x"]!, ops.square(g, t["x"]!)), 2.5),
  },
  {
    name: "gathered rows, the table used beside them",
    variables: { table: [40, 31] },
    ids: { ids: someIds(90, 40) },
    build: (g, t) => ops.linear(g, ops.gatherRows(g, t["table"]!, t["ids"]!), t["table"]!),
  },
  {
    name: "cross-entropy in chunks",
    variables: { h: [75, 33], w: [301, 33] },
    ids: { targets: someIds(75, 301) },
    constants: { weights: { shape: [75], data: Float32Array.from({ length: 75 }, (_, i) => (i % 4) / 100) } },
    build: (g, t) => ops.crossEntropy(g, t["h"]!, t["w"]!, t["targets"]!, t["weights"]!, { chunk: 32 }),
  },
  {
    name: "cross-entropy of capped logits in chunks",
    variables: { h: [75, 33], w: [301, 33] },
    ids: { targets: someIds(75, 301) },
    constants: { weights: { shape: [75], data: Float32Array.from({ length: 75 }, (_, i) => (i % 4) / 100) } },
    build: (g, t) =>
      ops.crossEntropy(g, t["h"]!, t["w"]!, t["targets"]!, t["weights"]!, { chunk: 32, softcap: 3 }),
  },
  {
    name: "log-probabilities of capped logits, each with a gradient of its own",
    variables: { h: [75, 33], w: [301, 33] },
    ids: { targets: someIds(75, 301) },
    build: (g, t) =>
      ops.square(g, ops.tokenLogProbs(g, t["h"]!, t["w"]!, t["targets"]!, { chunk: 32, softcap: 5 })),
  },
  {
    name: "log-probabilities in chunks, each with a gradient of its own, the head's matrix also an embedding",
    variables: { h: [75, 33], w: [301, 33] },
    ids: { targets: someIds(75, 301) },
    build: (g, t) => {
      const tied = ops.add(g, t["h"]!, ops.gatherRows(g, t["w"]!, t["targets"]!));
      return ops.square(g, ops.tokenLogProbs(g, tied, t["w"]!, t["targets"]!, { chunk: 32 }));
    },
  },
  {
    name: "causal attention",
    variables: attentionShapes,
    constants: { mask: maskOf(1, (_, i, j) => j <= i) },
    build: attend,
  },
  {
    name: "attention in a sliding window",
    variables: attentionShapes,
    constants: { mask: maskOf(1, (_, i, j) => j <= i && i - j < 20) },
    build: attend,
  },
  {
    name: "capped attention",
    variables: attentionShapes,
    constants: { mask: maskOf(1, (_, i, j) => j <= i) },
    build: (g, t) =>
      ops.attention(g, t["q"]!, t["k"]!, t["v"]!, { mask: t["mask"]!, scale: 0.2, softcap: 0.75 }),
  },
  {
    name: "capped attention in a sliding window, padding on the left of one row",
    variables: attentionShapes,
    constants: {
      mask: maskOf(BATCH, (row, i, j) => i === j || (j <= i && i - j < 33 && (row === 0 || j >= 90))),
    },
    build: (g, t) =>
      ops.attention(g, t["q"]!, t["k"]!, t["v"]!, { mask: t["mask"]!, scale: 0.2, softcap: 50 }),
  },
  {
    name: "attention with padding on the left of one row",
    variables: attentionShapes,
    constants: { mask: maskOf(BATCH, (row, i, j) => i === j || (j <= i && (row === 0 || j >= 90))) },
    build: attend,
  },
];

type Change = (name: string, data: Float32Array) => Float32Array;

/** The leaves of a row in a graph, and values for them. */
function leavesOf(g: Graph, row: Row, change: Change = (_, data) => data) {
  const random = seededRandom(5);
  const tensors: Record<string, Tensor> = {};
  const values: Record<string, Float32Array | Int32Array> = {};
  for (const [name, shape] of Object.entries(row.variables)) {
    tensors[name] = g.variable(name, shape);
    values[name] = change(name, Float32Array.from(normals(random, tensors[name].size)));
  }
  for (const [name, ids] of Object.entries(row.ids ?? {})) {
    tensors[name] = g.input(name, [ids.length], "i32");
    values[name] = ids;
  }
  for (const [name, { shape, data }] of Object.entries(row.constants ?? {})) {
    tensors[name] = g.input(name, shape);
    values[name] = data;
  }
  return { random, tensors, values };
}

/** The result of a row with its leaves changed, and the gradient that {@link compute} lets arrive at it. */
async function forwardOf(device: Device, row: Row, change: Change) {
  using g = new Graph(device, { compute: "f32" });
  const { random, tensors, values } = leavesOf(g, row, change);
  const y = g.output(row.build(g, tensors));
  await g.run(values);
  return { kept: y.readF32(), values: normals(random, y.size) };
}

async function compute(device: Device, row: Row, type: "f32" | "bf16" = "f32"): Promise<Float32Array[]> {
  using g = new Graph(device, { compute: type });
  const { random, tensors, values } = leavesOf(g, row);
  const y = row.build(g, tensors);
  const dy = g.input("dy", y.shape);
  values["dy"] = Float32Array.from(normals(random, y.size));
  const gradients = g.backward(ops.sum(g, ops.mul(g, y, dy)));
  const kept = [y, ...Object.keys(row.variables).map((name) => gradients.get(tensors[name]!)!)].map((each) =>
    g.output(each),
  );
  await g.run(values);
  return kept.map((each) => each.readF32());
}

const STEP = 2e-3;

interface Moved {
  readonly name: string;
  readonly direction: Float32Array;
  readonly step: number;
}

/** Σ dy·y of a row, summed in float64, with one variable moved along a direction. */
async function lossAt(device: Device, row: Row, { name, direction, step }: Moved): Promise<number> {
  const { kept, values } = await forwardOf(device, row, (of, data) =>
    of === name ? data.map((value, i) => value + step * direction[i]!) : data,
  );
  return kept.reduce((sum, value, i) => sum + value * values[i]!, 0);
}

describe.skipIf(!kernels)("native kernels against ggml's", () => {
  const own = kernels as Kernels;
  for (const level of levels) {
    test.each(ROWS.map((row) => [row.name, row] as const))(`${level}: %s`, async (_, row) => {
      own.select(level);
      const [wanted, found] = [await compute(composed, row), await compute(devices[0]!, row)];
      expect(composed.kernels).toBeNull();
      found.forEach((values, i) =>
        expect(relativeError(values, wanted[i]!), `result ${i}`).toBeLessThan(3e-6),
      );
      const half = await compute(devices[0]!, row, "bf16");
      half.forEach((values, i) =>
        expect(relativeError(values, wanted[i]!), `result ${i} in bf16`).toBeLessThan(3e-2),
      );
    });
  }

  // Central differences through ggml's forward pass in float32 would be too coarse: along one random direction, with a step
  // that balances rounding and curvature, they are right to a few per mille, and a gradient counted twice is not.
  for (const level of levels) {
    test.each(ROWS.map((row) => [row.name, row] as const))(
      `${level}, along a direction against differences: %s`,
      async (_, row) => {
        own.select(level);
        const names = Object.keys(row.variables);
        const [, ...gradients] = await compute(devices[0]!, row);
        const directions = names.map((_name, i) =>
          Float32Array.from(normals(seededRandom(40 + i), gradients[i]!.length)),
        );
        for (const [i, name] of names.entries()) {
          const along = gradients[i]!.reduce((sum, value, j) => sum + value * directions[i]![j]!, 0);
          const size = Math.hypot(...gradients[i]!) + 1e-6;
          const at = (step: number) => lossAt(composed, row, { name, direction: directions[i]!, step });
          const found = ((await at(STEP)) - (await at(-STEP))) / (2 * STEP);
          expect(Math.abs(found - along) / size, `gradient of ${name}`).toBeLessThan(0.03);
        }
      },
    );
  }

  test.each(ROWS.map((row) => [row.name, row] as const))(
    "the same bytes for 1 to 4 threads: %s",
    async (_, row) => {
      own.select(own.best);
      for (const type of ["f32", "bf16"] as const) {
        const wanted = await compute(devices[0]!, row, type);
        for (const device of devices.slice(1)) expect(await compute(device, row, type)).toEqual(wanted);
      }
    },
  );
});
