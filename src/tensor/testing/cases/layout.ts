// Rows for sums, layout and rows by number.
import * as ops from "../../ops/index.js";
import { map } from "../array64.js";
import { ids, variable } from "../op-case.js";
import type { OpCase } from "../op-case.js";
import * as reference from "../reference.js";

const SHAPES = [[7], [3, 5], [2, 3, 5], [2, 3, 4, 5]];

const sums = SHAPES.flatMap((shape): OpCase[] => [
  {
    name: `sum [${shape}]`,
    inputs: { x: variable(shape) },
    build: (g, t) => ops.sum(g, t.x!),
    reference: (v) => reference.sum(v.x!),
  },
  {
    name: `sumLast [${shape}]`,
    inputs: { x: variable(shape) },
    build: (g, t) => ops.sumLast(g, t.x!),
    reference: (v) => reference.sumLast(v.x!),
  },
  {
    name: `mean [${shape}]`,
    inputs: { x: variable(shape) },
    build: (g, t) => ops.mean(g, t.x!),
    reference: (v) => map(reference.sum(v.x!), (all) => all / v.x!.data.length),
  },
]);

const RESHAPES: readonly (readonly [readonly number[], readonly number[]])[] = [
  [[6], [2, 3]],
  [
    [2, 3, 5],
    [5, 6],
  ],
  [[2, 3, 4, 5], [120]],
];
const reshapes = RESHAPES.map(([from, to]): OpCase => ({
  name: `reshape [${from}] to [${to}]`,
  inputs: { x: variable(from) },
  build: (g, t) => ops.reshape(g, t.x!, to),
  reference: (v) => reference.reshape(v.x!, to),
}));

/** Every order of the numbers below `rank`. */
function orders(rank: number): number[][] {
  if (rank === 0) return [[]];
  return orders(rank - 1).flatMap((order) =>
    Array.from({ length: rank }, (_, place) => [...order.slice(0, place), rank - 1, ...order.slice(place)]),
  );
}
const EXTENTS = [2, 3, 5, 4];
const permutes = [1, 2, 3, 4].flatMap((rank) =>
  orders(rank).map((order): OpCase => ({
    name: `permute [${EXTENTS.slice(0, rank)}] by ${order}`,
    inputs: { x: variable(EXTENTS.slice(0, rank)) },
    build: (g, t) => ops.permute(g, t.x!, order),
    reference: (v) => reference.permute(v.x!, order),
  })),
);

const transposes = [
  [3, 5],
  [2, 3, 5],
  [2, 3, 4, 5],
  [1, 7],
].map((shape): OpCase => {
  const rank = shape.length;
  const order = [...Array.from({ length: rank - 2 }, (_, axis) => axis), rank - 1, rank - 2];
  return {
    name: `transpose [${shape}]`,
    inputs: { x: variable(shape) },
    build: (g, t) => ops.transpose(g, t.x!),
    reference: (v) => reference.permute(v.x!, order),
  };
});

const rows: readonly OpCase[] = [
  {
    name: "gatherRows with repeated and unused rows",
    inputs: { table: variable([6, 5]), rows: ids(4, 0, 4, 2, 4, 5, 0) },
    build: (g, t) => ops.gatherRows(g, t.table!, t.rows!),
    reference: (v) => reference.gatherRows(v.table!, v.rows!),
  },
  {
    name: "gatherRows of one row",
    inputs: { table: variable([1, 3]), rows: ids(0) },
    build: (g, t) => ops.gatherRows(g, t.table!, t.rows!),
    reference: (v) => reference.gatherRows(v.table!, v.rows!),
  },
  {
    name: "replaceRows",
    inputs: { x: variable([7, 3]), rows: variable([3, 3]), places: ids(5, 0, 2) },
    build: (g, t) => ops.replaceRows(g, t.x!, t.rows!, t.places!),
    reference: (v) => reference.replaceRows(v.x!, v.rows!, v.places!),
  },
  {
    name: "replaceRows, every row",
    inputs: { x: variable([3, 5]), rows: variable([3, 5]), places: ids(1, 2, 0) },
    build: (g, t) => ops.add(g, ops.replaceRows(g, t.x!, t.rows!, t.places!), t.x!),
    reference: (v) => {
      const replaced = reference.replaceRows(v.x!, v.rows!, v.places!);
      return { ...replaced, data: replaced.data.map((value, i) => value + v.x!.data[i]!) };
    },
  },
  {
    name: "replaceRows of x by x",
    inputs: { x: variable([3, 5]), places: ids(1, 2, 0) },
    build: (g, t) => ops.replaceRows(g, t.x!, t.x!, t.places!),
    reference: (v) => reference.replaceRows(v.x!, v.x!, v.places!),
  },
  {
    name: "concatRows",
    inputs: { a: variable([2, 3]), b: variable([1, 3]), c: variable([4, 3]) },
    build: (g, t) => ops.concatRows(g, [t.a!, t.b!, t.c!]),
    reference: (v) => reference.concatRows([v.a!, v.b!, v.c!]),
  },
  {
    name: "concatRows of x, y and x",
    inputs: { x: variable([2, 3]), y: variable([3, 3]) },
    build: (g, t) => ops.concatRows(g, [t.x!, t.y!, t.x!]),
    reference: (v) => reference.concatRows([v.x!, v.y!, v.x!]),
  },
  {
    name: "concatRows of one",
    inputs: { x: variable([2, 3]) },
    build: (g, t) => ops.scale(g, ops.concatRows(g, [t.x!]), 2),
    reference: (v) => map(v.x!, (x) => 2 * x),
  },
];

export const layoutCases: readonly OpCase[] = [...sums, ...reshapes, ...permutes, ...transposes, ...rows];
