// Random calls of every op: operands of random shapes, types and origins, random numbers as settings. Whatever is not
// refused with an NlaError is run, with its gradients where it has some. A call that reaches a native assertion ends the
// process, so surviving is the result. It finds the checks that a table of known mistakes forgets.
import type { Dtype } from "../../engine/index.js";
import { NlaError } from "../../error.js";
import { Arena, Graph, ops } from "../index.js";
import type { Device, HostArray, Shape, Tensor } from "../index.js";
import { integers, normals, seededRandom } from "./random.js";
import type { Random } from "./random.js";

/** How the calls went. */
export interface RandomCallsReport {
  readonly refused: number;
  readonly run: number;
  readonly differentiated: number;
  /** Ops of which no call was run: then the calls say nothing about them. */
  readonly neverRun: readonly string[];
}

const EXTENTS = [1, 2, 3, 4, 6];
const NUMBERS = [1, 1, 1, 0.5, 2, 0, -1, 1e-30, 1e30, 1e300, Number.NaN, Infinity, 3.7];
const INDEX_LIMIT = 8;

/** Draws operands for one call. */
class Draw {
  readonly values: Record<string, HostArray> = {};
  readonly base: Shape;
  readonly #random: Random;
  readonly #g: Graph;
  readonly #arena: Arena;
  #names = 0;

  constructor(random: Random, g: Graph, arena: Arena) {
    this.#random = random;
    this.#g = g;
    this.#arena = arena;
    this.base = this.#shape(1 + this.below(4));
  }

  below(end: number): number {
    return Math.floor(this.#random() * end);
  }

  one<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T;
  }

  chance(probability: number): boolean {
    return this.#random() < probability;
  }

  #shape(rank: number): Shape {
    return Array.from({ length: rank }, () => this.one(EXTENTS));
  }

  /** Near to the base shape, so that many calls fit and others only just do not. */
  shape(): Shape {
    const { base } = this;
    switch (this.below(9)) {
      case 0:
        return this.#shape(1 + this.below(4));
      case 1:
        return base.map((extent) => (this.chance(0.4) ? 1 : extent));
      case 2:
        return base.length > 1 ? base.slice(1) : base;
      case 3:
        return base.slice(-1);
      case 4:
        return [...base].reverse();
      case 5:
        return base.map((extent) => (this.chance(0.2) ? this.one(EXTENTS) : extent));
      default:
        return base;
    }
  }

  tensor(shape: Shape = this.shape(), dtype: Dtype = this.#dtype()): Tensor {
    if (this.chance(0.05)) return this.one([...this.#arena.tensors.values()]);
    const name = `t${this.#names++}`;
    const tensor =
      dtype === "f32" && this.chance(0.6) ? this.#g.variable(name, shape) : this.#g.input(name, shape, dtype);
    this.values[name] = this.#data(tensor);
    if (dtype !== "f32" || this.chance(0.7)) return tensor;
    return this.chance(0.5) ? ops.scale(this.#g, tensor, 1) : ops.reshape(this.#g, tensor, shape);
  }

  /** An input without gradient. */
  plain(shape: Shape, dtype: Dtype = "f32"): Tensor {
    const name = `t${this.#names++}`;
    const tensor = this.#g.input(name, shape, dtype);
    this.values[name] = this.#data(tensor);
    return tensor;
  }

  /** An index input, mostly. */
  ids(count = this.one([this.base[0] ?? 1, this.one(EXTENTS)])): Tensor {
    return this.chance(0.9) ? this.tensor([count], "i32") : this.tensor();
  }

  number(): number {
    return this.one(NUMBERS);
  }

  #dtype(): Dtype {
    return this.chance(0.9) ? "f32" : this.one(["f16", "bf16", "i32", "i64"]);
  }

  #data({ size, dtype }: Tensor): HostArray {
    if (dtype === "f32") return Float32Array.from(normals(this.#random, size));
    if (dtype === "i32") return Int32Array.from(integers(this.#random, size, INDEX_LIMIT));
    return dtype === "i64" ? new BigInt64Array(size) : new Uint16Array(size);
  }
}

type Call = (g: Graph, d: Draw) => Tensor;
const unary =
  (op: (g: Graph, x: Tensor) => Tensor): Call =>
  (g, d) =>
    op(g, d.tensor());
const binary =
  (op: (g: Graph, a: Tensor, b: Tensor) => Tensor): Call =>
  (g, d) =>
    op(g, d.tensor(), d.tensor());
const bits = (d: Draw) => ({ transposeA: d.chance(0.5), transposeB: d.chance(0.5) });
const heads = (d: Draw): Shape => [d.one([1, 2]), d.one([1, 2, 3]), d.one([1, 2, 4]), d.one([1, 2, 3])];

/** Each op with drawn operands. Ops that need fitting shapes to be accepted get them most of the time. */
const CALLS: Readonly<Record<string, Call>> = {
  add: binary(ops.add),
  sub: binary(ops.sub),
  mul: binary(ops.mul),
  div: binary(ops.div),
  minimum: binary(ops.minimum),
  scale: (g, d) => ops.scale(g, d.tensor(), d.number()),
  affine: (g, d) => ops.affine(g, d.tensor(), d.number(), d.number()),
  clamp: (g, d) => ops.clamp(g, d.tensor(), d.number(), d.number()),
  softcap: (g, d) => ops.softcap(g, d.tensor(), d.number()),
  neg: unary(ops.neg),
  exp: unary(ops.exp),
  log: unary(ops.log),
  square: unary(ops.square),
  sqrt: unary(ops.sqrt),
  tanh: unary(ops.tanh),
  sigmoid: unary(ops.sigmoid),
  relu: unary(ops.relu),
  silu: unary(ops.silu),
  geluTanh: unary(ops.geluTanh),
  swiglu: binary(ops.swiglu),
  geglu: binary(ops.geglu),
  sum: unary(ops.sum),
  sumLast: unary(ops.sumLast),
  mean: unary(ops.mean),
  reshape: (g, d) => ops.reshape(g, d.tensor(), d.shape()),
  permute: (g, d) => {
    const x = d.tensor();
    const order = x.shape.map((_, i) => i).sort(() => d.below(3) - 1);
    return ops.permute(g, x, d.chance(0.8) ? order : [d.below(4), d.below(4)]);
  },
  transpose: unary(ops.transpose),
  gatherRows: (g, d) => ops.gatherRows(g, d.tensor(), d.ids()),
  replaceRows: (g, d) => {
    const x = d.chance(0.6) ? d.tensor([8, 3], "f32") : d.tensor();
    const rows = d.chance(0.6) ? d.tensor([d.one([1, 2]), 3], "f32") : d.tensor();
    return ops.replaceRows(g, x, rows, d.ids(rows.shape[0]));
  },
  concatRows: (g, d) =>
    ops.concatRows(
      g,
      Array.from({ length: d.below(4) }, () => d.tensor()),
    ),
  matmul: (g, d) => ops.matmul(g, d.tensor(), d.tensor(), bits(d)),
  linear: binary(ops.linear),
  rmsNorm: (g, d) => ops.rmsNorm(g, d.tensor(), d.tensor(), d.number()),
  normalizeRows: (g, d) => ops.normalizeRows(g, d.tensor(), d.number()),
  rope: (g, d) => {
    const x = d.chance(0.7) ? d.tensor([d.base[0] ?? 1, 2, 4], "f32") : d.tensor();
    return ops.rope(g, x, d.ids(), {
      theta: d.number(),
      frequencyDivisors: d.chance(0.5) ? null : d.tensor([2], "f32"),
      magnitude: d.chance(0.7) ? 1 : d.number(),
    });
  },
  softmax: (g, d) => ops.softmax(g, d.tensor(), d.chance(0.5) ? null : d.tensor(), d.number()),
  attention: (g, d) => {
    const [batch, t, h, width] = heads(d) as [number, number, number, number];
    const keys = [batch, d.one([t, 2]), d.one([1, 2, h]), width];
    const fitting = d.chance(0.7);
    return ops.attention(
      g,
      fitting ? d.tensor([batch, t, h, width], "f32") : d.tensor(),
      fitting ? d.tensor(keys, "f32") : d.tensor(),
      fitting ? d.tensor(keys) : d.tensor(),
      {
        mask: d.plain(d.one([[t, keys[1] ?? 1], [batch, 1, t, keys[1] ?? 1], d.shape()])),
        scale: d.number(),
        softcap: d.chance(0.5) ? null : d.number(),
      },
    );
  },
  cachedAttention: (g, d) => {
    const [batch, t, h, width] = heads(d) as [number, number, number, number];
    const dtype = d.one(["f32", "f32", "f16", "bf16"] as const);
    const keys = [batch, d.one([1, 2, h]), d.one([1, 2, 5]), width];
    const fitting = d.chance(0.7);
    return ops.cachedAttention(
      g,
      fitting ? d.plain([batch, t, h, width]) : d.tensor(),
      fitting ? d.plain(keys, dtype) : d.tensor(),
      fitting ? d.plain(keys, d.one([dtype, "f32"])) : d.tensor(),
      {
        mask: d.plain(d.one([[1, 1, t, keys[2] ?? 1], [batch, 1, t, keys[2] ?? 1], d.shape()]), "f16"),
        scale: d.number(),
        softcap: d.chance(0.5) ? null : d.number(),
      },
    );
  },
  logits: (g, d) => ops.logits(g, d.tensor(), d.tensor(), { softcap: d.chance(0.5) ? null : d.number() }),
  crossEntropy: (g, d) => {
    const { h, w, options } = head(d);
    return ops.crossEntropy(g, h, w, d.ids(h.shape[0]), d.plain([h.shape[0] ?? 1]), options);
  },
  tokenLogProbs: (g, d) => {
    const { h, w, options } = head(d);
    return ops.tokenLogProbs(g, h, w, d.ids(h.shape[0]), options);
  },
};

function head(d: Draw) {
  const [n, width] = [d.one(EXTENTS), d.one(EXTENTS)];
  const h = d.chance(0.7) ? d.tensor([n, width], "f32") : d.tensor();
  const w = d.chance(0.7) ? d.tensor([INDEX_LIMIT, width], "f32") : d.tensor();
  return {
    h,
    w,
    options: { chunk: d.one([1, 2, 1024, 0, 1.5]), softcap: d.chance(0.6) ? null : d.number() },
  };
}

/**
 * Makes `count` random calls.
 *
 * @param announce is told of each call before it is made: after a crash the last one is the culprit
 * @throws whatever a call throws that is no NlaError
 */
export async function randomCalls(
  device: Device,
  seed: number,
  count: number,
  announce: (call: string) => void = () => {},
): Promise<RandomCallsReport> {
  const random = seededRandom(seed);
  const names = Object.keys(CALLS);
  using arena = new Arena(device, "weights", {
    p: { shape: [4, 3], parameter: true },
    q: { shape: [6] },
    half: { shape: [4, 3], dtype: "bf16" },
  });
  let [refused, run, differentiated] = [0, 0, 0];
  const opsRun = new Set<string>();
  for (let i = 0; i < count; i++) {
    const name = names[Math.floor(random() * names.length)] as string;
    announce(`${i} ${name}`);
    using g = new Graph(device, {
      compute: random() < 0.3 ? "bf16" : "f32",
      recording: name !== "cachedAttention",
    });
    const draw = new Draw(random, g, arena);
    try {
      const y = (CALLS[name] as Call)(g, draw);
      announce(`${i} ${name} -> [${y.shape}]`);
      if (y.requiresGrad) {
        const gradients = g.backward(ops.sum(g, ops.square(g, y)));
        for (const gradient of gradients.values()) g.output(gradient);
        differentiated++;
      }
      g.output(y);
      await g.run(draw.values);
      y.read();
      run++;
      opsRun.add(name);
    } catch (error) {
      if (!(error instanceof NlaError)) throw new Error(`call ${i}, ${name}`, { cause: error });
      refused++;
    }
  }
  return { refused, run, differentiated, neverRun: names.filter((name) => !opsRun.has(name)) };
}
