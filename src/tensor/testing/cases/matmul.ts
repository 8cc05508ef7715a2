// Rows for matrix products, norms and rotary embedding.
import * as ops from "../../ops/index.js";
import { constant, ids, variable } from "../op-case.js";
import type { OpCase } from "../op-case.js";
import { uniforms } from "../random.js";
import * as reference from "../reference.js";

/**
 * Rounding both factors to bf16 (8 bits, relative error at most 2^-9, 1.1e-3 root mean square) moves a product by about
 * 1.6e-3 relative to the norm, forward and in each gradient.
 */
const BF16 = { forward: 4e-3, gradient: 4e-3 };

const LEADS = [[], [3], [2, 3]];
const [M, K, N] = [5, 7, 3];
const products = LEADS.flatMap((lead) =>
  [0, 1, 2, 3].map((bits): OpCase => {
    const [transposeA, transposeB] = [bits % 2 === 1, bits >= 2];
    const a = [...lead, ...(transposeA ? [K, M] : [M, K])];
    const b = [...lead, ...(transposeB ? [N, K] : [K, N])];
    return {
      name: `matmul [${a}]${transposeA ? "ᵀ" : ""} · [${b}]${transposeB ? "ᵀ" : ""}`,
      inputs: { a: variable(a), b: variable(b) },
      build: (g, t) => ops.matmul(g, t.a!, t.b!, { transposeA, transposeB }),
      reference: (v) => reference.matmul(v.a!, v.b!, transposeA, transposeB),
      bf16: BF16,
      bf16Exact: true,
    };
  }),
);

const otherProducts: readonly OpCase[] = [
  {
    name: "linear [4, 33] by [5, 33]",
    inputs: { x: variable([4, 33]), w: variable([5, 33]) },
    build: (g, t) => ops.linear(g, t.x!, t.w!),
    reference: (v) => reference.matmul(v.x!, v.w!, false, true),
    bf16: BF16,
    bf16Exact: true,
  },
  {
    // Not among the inexact ones: a single sum may cancel, and then rounding its factors has no bound.
    name: "matmul of one row and one column",
    inputs: { a: variable([1, 5]), b: variable([5, 1]) },
    build: (g, t) => ops.matmul(g, t.a!, t.b!),
    reference: (v) => reference.matmul(v.a!, v.b!),
    bf16Exact: true,
  },
  {
    name: "matmul x · xᵀ",
    inputs: { x: variable([5, 7]) },
    build: (g, t) => ops.matmul(g, t.x!, t.x!, { transposeB: true }),
    reference: (v) => reference.matmul(v.x!, v.x!, false, true),
    bf16: BF16,
    bf16Exact: true,
  },
  {
    name: "matmul xᵀ · x",
    inputs: { x: variable([5, 7]) },
    build: (g, t) => ops.matmul(g, t.x!, t.x!, { transposeA: true }),
    reference: (v) => reference.matmul(v.x!, v.x!, true, false),
    bf16: BF16,
    bf16Exact: true,
  },
  {
    name: "matmul (a · b) · b",
    inputs: { a: variable([3, 5]), b: variable([5, 5]) },
    build: (g, t) => ops.matmul(g, ops.matmul(g, t.a!, t.b!), t.b!),
    reference: (v) => reference.matmul(reference.matmul(v.a!, v.b!), v.b!),
    bf16: { forward: 8e-3, gradient: 8e-3 },
  },
];

const norms: readonly OpCase[] = [
  ...[[7], [3, 5], [2, 3, 5], [2, 3, 4, 5]].flatMap((shape): OpCase[] => [
    {
      name: `rmsNorm [${shape}]`,
      inputs: { x: variable(shape), gain: variable(shape.slice(-1)) },
      build: (g, t) => ops.rmsNorm(g, t.x!, t.gain!, 1e-6),
      reference: (v) => reference.rmsNorm(v.x!, v.gain!, 1e-6),
    },
    {
      name: `normalizeRows [${shape}]`,
      inputs: { x: variable(shape) },
      build: (g, t) => ops.normalizeRows(g, t.x!, 2.5),
      reference: (v) => reference.normalizeRows(v.x!, 2.5, 1e-24),
    },
  ]),
  {
    name: "rmsNorm with an eps of the size of the values",
    inputs: { x: variable([3, 5]), gain: variable([5]) },
    build: (g, t) => ops.rmsNorm(g, t.x!, t.gain!, 0.7),
    reference: (v) => reference.rmsNorm(v.x!, v.gain!, 0.7),
  },
  {
    name: "rmsNorm of x by x",
    inputs: { x: variable([7]) },
    build: (g, t) => ops.rmsNorm(g, t.x!, t.x!, 1e-6),
    reference: (v) => reference.rmsNorm(v.x!, v.x!, 1e-6),
  },
  {
    name: "normalizeRows with an eps of the size of the values",
    inputs: { x: variable([3, 5]) },
    build: (g, t) => ops.normalizeRows(g, t.x!, 0.5, 2),
    reference: (v) => reference.normalizeRows(v.x!, 0.5, 2),
  },
];

const divisors = constant([3], (random, size) => uniforms(random, size, 1, 8));
const POSITIONS = ids(0, 3, 17, 3, 40);
const ropes: readonly OpCase[] = [
  {
    name: "rope",
    inputs: { x: variable([5, 3, 6]), positions: POSITIONS },
    build: (g, t) => ops.rope(g, t.x!, t.positions!, { theta: 10_000 }),
    reference: (v) => reference.rope(v.x!, v.positions!, 10_000, null, 1),
  },
  {
    name: "rope with divisors",
    inputs: { x: variable([5, 3, 6]), positions: POSITIONS, divisors },
    build: (g, t) => ops.rope(g, t.x!, t.positions!, { theta: 500_000, frequencyDivisors: t.divisors! }),
    reference: (v) => reference.rope(v.x!, v.positions!, 500_000, v.divisors!, 1),
  },
  {
    name: "rope with magnitude",
    inputs: { x: variable([5, 1, 6]), positions: POSITIONS },
    build: (g, t) => ops.rope(g, t.x!, t.positions!, { theta: 10_000, magnitude: 1.2 }),
    reference: (v) => reference.rope(v.x!, v.positions!, 10_000, null, 1.2),
  },
  {
    name: "rope with divisors and magnitude",
    inputs: { x: variable([5, 2, 6]), positions: POSITIONS, divisors },
    build: (g, t) =>
      ops.rope(g, t.x!, t.positions!, { theta: 10_000, frequencyDivisors: t.divisors!, magnitude: 0.8 }),
    reference: (v) => reference.rope(v.x!, v.positions!, 10_000, v.divisors!, 0.8),
  },
  {
    name: "rope, one head of two elements at a far position",
    inputs: { x: variable([2, 1, 2]), positions: ids(4095, 1) },
    build: (g, t) => ops.rope(g, t.x!, t.positions!, { theta: 10_000 }),
    reference: (v) => reference.rope(v.x!, v.positions!, 10_000, null, 1),
  },
];

export const matmulCases: readonly OpCase[] = [...products, ...otherProducts, ...norms, ...ropes];
