// Rows for arithmetic, functions of one operand, activations and gates.
import * as ops from "../../ops/index.js";
import type { Graph } from "../../graph.js";
import type { Tensor } from "../../tensor.js";
import { map, zip } from "../array64.js";
import { variable } from "../op-case.js";
import type { OpCase } from "../op-case.js";
import { normals, uniforms } from "../random.js";
import type { Random } from "../random.js";
import * as reference from "../reference.js";

// Away from a kink, so that no finite difference steps over it.
const awayFrom =
  (...kinks: readonly number[]) =>
  (random: Random, size: number) =>
    normals(random, size).map((x) => (kinks.some((kink) => Math.abs(x - kink) < 0.02) ? x + 0.05 : x));
const positive = (random: Random, size: number) => uniforms(random, size, 0.3, 3);
// Both signs, away from zero: for divisors.
const nonzero = (random: Random, size: number) =>
  uniforms(random, size, 0.4, 2).map((x) => (random() < 0.5 ? -x : x));

const SHAPES: readonly (readonly [readonly number[], readonly number[]])[] = [
  [
    [3, 5],
    [3, 5],
  ],
  [[2, 3, 5], [5]],
  [[5], [2, 3, 5]],
  [
    [3, 1],
    [1, 5],
  ],
  [
    [2, 1, 5],
    [3, 1],
  ],
  [[7], [1]],
  [
    [1, 1],
    [3, 7],
  ],
  [
    [2, 3, 1, 5],
    [1, 3, 4, 1],
  ],
];

interface Binary {
  readonly op: (g: Graph, a: Tensor, b: Tensor) => Tensor;
  readonly formula: (x: number, y: number) => number;
  readonly second?: (random: Random, size: number) => readonly number[];
}
const BINARY: Readonly<Record<string, Binary>> = {
  add: { op: ops.add, formula: (x, y) => x + y },
  sub: { op: ops.sub, formula: (x, y) => x - y },
  mul: { op: ops.mul, formula: (x, y) => x * y },
  div: { op: ops.div, formula: (x, y) => x / y, second: nonzero },
  // Multiples of 1/4 against odd multiples of 1/8: never closer than an eighth.
  minimum: {
    op: (g, a, b) => ops.minimum(g, a, b),
    formula: Math.min,
    second: (random, size) => normals(random, size).map((x) => Math.round(x * 4) / 4 + 0.125),
  },
};

const quarters = (random: Random, size: number) => normals(random, size).map((x) => Math.round(x * 4) / 4);

const binary = Object.entries(BINARY).flatMap(([name, { op, formula, second = normals }]) =>
  SHAPES.map(([a, b]): OpCase => ({
    name: `${name} [${a}] with [${b}]`,
    inputs: { a: variable(a, name === "minimum" ? quarters : normals), b: variable(b, second) },
    build: (g, t) => op(g, t.a!, t.b!),
    reference: (v) => zip(v.a!, v.b!, formula),
  })),
);

// Without minimum, for which x and x are the kink itself: elementwise.test.ts has that.
const ofItself = Object.entries(BINARY)
  .filter(([name]) => name !== "minimum")
  .map(([name, { op, formula }]): OpCase => ({
    name: `${name} of x and x`,
    inputs: { x: variable([3, 5], nonzero) },
    build: (g, t) => op(g, t.x!, t.x!),
    reference: (v) => map(v.x!, (x) => formula(x, x)),
  }));

interface Unary {
  readonly op: (g: Graph, x: Tensor) => Tensor;
  readonly formula: (x: number) => number;
  readonly values?: (random: Random, size: number) => readonly number[];
}
const UNARY: Readonly<Record<string, Unary>> = {
  scale: { op: (g, x) => ops.scale(g, x, -1.75), formula: (x) => -1.75 * x },
  affine: { op: (g, x) => ops.affine(g, x, 0.3, -2), formula: (x) => 0.3 * x - 2 },
  neg: { op: ops.neg, formula: (x) => -x },
  exp: { op: ops.exp, formula: Math.exp },
  log: { op: ops.log, formula: Math.log, values: positive },
  square: { op: ops.square, formula: (x) => x * x },
  sqrt: { op: ops.sqrt, formula: Math.sqrt, values: positive },
  tanh: { op: ops.tanh, formula: Math.tanh },
  sigmoid: { op: ops.sigmoid, formula: reference.sigmoid },
  relu: { op: ops.relu, formula: (x) => Math.max(x, 0), values: awayFrom(0) },
  clamp: {
    op: (g, x) => ops.clamp(g, x, -0.7, 0.9),
    formula: (x) => Math.min(Math.max(x, -0.7), 0.9),
    values: awayFrom(-0.7, 0.9),
  },
  softcap: { op: (g, x) => ops.softcap(g, x, 1.3), formula: (x) => reference.softcap(x, 1.3) },
  silu: { op: ops.silu, formula: reference.silu },
  geluTanh: { op: ops.geluTanh, formula: reference.gelu },
};

const unary = Object.entries(UNARY).flatMap(([name, { op, formula, values = normals }]) =>
  [[7], [3, 5], [2, 3, 1, 5]].map((shape): OpCase => ({
    name: `${name} [${shape}]`,
    inputs: { x: variable(shape, values) },
    build: (g, t) => op(g, t.x!),
    reference: (v) => map(v.x!, formula),
  })),
);

const GATES = [
  ["swiglu", ops.swiglu, reference.silu],
  ["geglu", ops.geglu, reference.gelu],
] as const;

const gates = GATES.flatMap(([name, op, activation]): OpCase[] => [
  {
    name: `${name} [3, 5]`,
    inputs: { gate: variable([3, 5]), up: variable([3, 5]) },
    build: (g, t) => op(g, t.gate!, t.up!),
    reference: (v) => zip(v.gate!, v.up!, (x, y) => activation(x) * y),
  },
  {
    name: `${name} [2, 3, 1, 7]`,
    inputs: { gate: variable([2, 3, 1, 7]), up: variable([2, 3, 1, 7]) },
    build: (g, t) => op(g, t.gate!, t.up!),
    reference: (v) => zip(v.gate!, v.up!, (x, y) => activation(x) * y),
  },
  {
    name: `${name} of x and x`,
    inputs: { x: variable([3, 5]) },
    build: (g, t) => op(g, t.x!, t.x!),
    reference: (v) => map(v.x!, (x) => activation(x) * x),
  },
]);

export const elementwiseCases: readonly OpCase[] = [...binary, ...ofItself, ...unary, ...gates];
