// Rows for softmax and attention.
import * as ops from "../../ops/index.js";
import { constant, mask, variable } from "../op-case.js";
import type { InputSpec, OpCase } from "../op-case.js";
import * as reference from "../reference.js";

const causal = ([query = 0, key = 0]: number[]): boolean => key <= query;
// A causal mask of its own for each sequence: sequence b does not see its first b keys (left padding), but for itself.
const padded = ([batch = 0, , query = 0, key = 0]: number[]): boolean =>
  key === query || (key <= query && key >= batch);

const softmaxes: readonly OpCase[] = [
  {
    name: "softmax [7]",
    inputs: { x: variable([7]) },
    build: (g, t) => ops.softmax(g, t.x!),
    reference: (v) => reference.softmax(v.x!, null, 1),
  },
  {
    name: "softmax [2, 3, 5, 7] with scale",
    inputs: { x: variable([2, 3, 5, 7]) },
    build: (g, t) => ops.softmax(g, t.x!, null, 0.6),
    reference: (v) => reference.softmax(v.x!, null, 0.6),
  },
  {
    name: "softmax [5, 5] with a causal mask",
    inputs: { x: variable([5, 5]), mask: mask([5, 5], causal) },
    build: (g, t) => ops.softmax(g, t.x!, t.mask!),
    reference: (v) => reference.softmax(v.x!, v.mask!, 1),
  },
  {
    name: "softmax [2, 3, 5, 5] with one mask and scale",
    inputs: { x: variable([2, 3, 5, 5]), mask: mask([5, 5], causal) },
    build: (g, t) => ops.softmax(g, t.x!, t.mask!, 0.35),
    reference: (v) => reference.softmax(v.x!, v.mask!, 0.35),
  },
  {
    name: "softmax [3, 2, 5, 5] with a mask for each sequence",
    inputs: { x: variable([3, 2, 5, 5]), mask: mask([3, 1, 5, 5], padded) },
    build: (g, t) => ops.softmax(g, t.x!, t.mask!, 0.35),
    reference: (v) => reference.softmax(v.x!, v.mask!, 0.35),
  },
  {
    name: "softmax with an additive mask that is finite",
    inputs: { x: variable([3, 7]), mask: constant([3, 7]) },
    build: (g, t) => ops.softmax(g, t.x!, t.mask!, -0.8),
    reference: (v) => reference.softmax(v.x!, v.mask!, -0.8),
  },
];

interface Attention {
  readonly q: readonly number[];
  readonly k: readonly number[];
  readonly mask: InputSpec;
  readonly softcap?: number;
}
const window = ([query = 0, key = 0]: number[]): boolean => key <= query && key > query - 3;
const ATTENTION: Readonly<Record<string, Attention>> = {
  "multi-head": { q: [2, 5, 3, 4], k: [2, 5, 3, 4], mask: mask([5, 5], causal) },
  "grouped 4 to 2": { q: [2, 5, 4, 3], k: [2, 5, 2, 3], mask: mask([5, 5], causal) },
  "grouped 3 to 1": { q: [1, 5, 3, 4], k: [1, 5, 1, 4], mask: mask([5, 5], causal) },
  softcap: { q: [2, 5, 2, 4], k: [2, 5, 2, 4], mask: mask([5, 5], causal), softcap: 1.5 },
  "grouped, softcap, a mask for each sequence": {
    q: [3, 5, 4, 3],
    k: [3, 5, 2, 3],
    mask: mask([3, 1, 5, 5], padded),
    softcap: 2,
  },
  "a mask for each sequence": { q: [3, 5, 2, 4], k: [3, 5, 2, 4], mask: mask([3, 1, 5, 5], padded) },
  "a sliding window": { q: [1, 7, 2, 3], k: [1, 7, 2, 3], mask: mask([7, 7], window) },
  "fewer queries than keys": { q: [2, 3, 4, 5], k: [2, 7, 2, 5], mask: mask([3, 7], () => true) },
};
const SCALE = 0.45;

const attentions = Object.entries(ATTENTION).map(([name, { q, k, mask, softcap = null }]): OpCase => ({
  name: `attention, ${name}`,
  inputs: { q: variable(q), k: variable(k), v: variable(k), mask },
  build: (g, t) => ops.attention(g, t.q!, t.k!, t.v!, { mask: t.mask!, scale: SCALE, softcap }),
  reference: (v) => reference.attention(v.q!, v.k!, v.v!, v.mask!, SCALE, softcap),
}));

const shared: readonly OpCase[] = [
  {
    name: "attention of x to x with values x",
    inputs: { x: variable([2, 5, 3, 4]), mask: mask([5, 5], causal) },
    build: (g, t) => ops.attention(g, t.x!, t.x!, t.x!, { mask: t.mask!, scale: SCALE }),
    reference: (v) => reference.attention(v.x!, v.x!, v.x!, v.mask!, SCALE, null),
  },
];

export const attentionCases: readonly OpCase[] = [...softmaxes, ...attentions, ...shared];
