// Wrong calls: tensors of another graph or device, and of owners that are gone.
import { Arena, Device, Graph, ops } from "../../index.js";
import { input, wrong, x } from "./wrong-call.js";
import type { WrongCall } from "./wrong-call.js";

/** Owners. */
export const wrongOwners: readonly WrongCall[] = [
  wrong("operand of another graph", "owner", ["[4]", "another graph"], (g, { device }) => {
    using second = new Graph(device);
    ops.add(g, x(g, 4), x(second, 4));
  }),
  wrong("operand of another device", "owner", ["[4]", "another device"], (g, { other }) => {
    using arena = new Arena(other, "elsewhere", { a: { shape: [4] } });
    ops.mul(g, x(g, 4), arena.get("a"));
  }),
  wrong("output of another graph", "owner", ["[4]", "another graph"], (g, { device }) => {
    using second = new Graph(device);
    g.output(ops.exp(second, x(second, 4)));
  }),
  wrong("backward of another graph's loss", "owner", ["[1]", "another graph"], (g, { device }) => {
    using second = new Graph(device);
    g.backward(ops.sum(second, x(second, 4)));
  }),
  wrong("operand of a freed arena", "disposed", ["[4]", "freed"], (g, { device }) => {
    const arena = new Arena(device, "gone", { a: { shape: [4] } });
    const a = arena.get("a");
    arena[Symbol.dispose]();
    ops.exp(g, a);
  }),
  wrong("read of a freed arena", "disposed", ["[4]", "gone"], (_, { device }) => {
    const arena = new Arena(device, "gone", { a: { shape: [4] } });
    arena[Symbol.dispose]();
    arena.get("a").read();
  }),
  wrong("write to a freed arena", "disposed", ["[4]"], (_, { device }) => {
    const arena = new Arena(device, "gone", { a: { shape: [4] } });
    arena[Symbol.dispose]();
    arena.get("a").write(new Float32Array(4));
  }),
  wrong("zero of a freed arena", "disposed", ["[4]"], (_, { device }) => {
    const arena = new Arena(device, "gone", { a: { shape: [4] } });
    arena[Symbol.dispose]();
    arena.zero();
  }),
  wrong("run over a freed arena", "disposed", ["gone"], async (g, { device }) => {
    const arena = new Arena(device, "gone", { a: { shape: [4] } });
    g.output(ops.exp(g, arena.get("a")));
    g.compile();
    arena[Symbol.dispose]();
    await g.run();
  }),
  wrong("op in a freed graph", "engine.disposed", ["freed"], (_, { device, arena }) => {
    const g = new Graph(device);
    g[Symbol.dispose]();
    ops.exp(g, arena.get("w"));
  }),
  wrong("op on a freed graph's tensor", "disposed", ["[4]"], (_, { device }) => {
    const g = new Graph(device);
    const a = x(g, 4);
    g[Symbol.dispose]();
    ops.exp(g, a);
  }),
  wrong("run of a freed graph", "engine.disposed", ["freed"], async (_, { device }) => {
    const g = new Graph(device);
    g.output(ops.exp(g, input(g, [4])));
    g[Symbol.dispose]();
    await g.run();
  }),
  wrong("compile of a freed graph", "engine.disposed", ["freed"], (_, { device }) => {
    const g = new Graph(device);
    g[Symbol.dispose]();
    g.compile();
  }),
  wrong("expand in a freed graph", "engine.disposed", ["freed"], (_, { device, arena }) => {
    const g = new Graph(device);
    g[Symbol.dispose]();
    g.expand(arena.get("w"));
  }),
  wrong("nodes of a freed graph", "engine.disposed", ["freed"], (_, { device }) => {
    const g = new Graph(device);
    g[Symbol.dispose]();
    return g.nodes;
  }),
  wrong("read of a freed graph's output", "disposed", ["[1]"], async (_, { device }) => {
    const g = new Graph(device);
    const y = g.output(ops.sum(g, g.input("a", [4])));
    await g.run({ a: new Float32Array(4) });
    g[Symbol.dispose]();
    y.read();
  }),
  wrong("graph on a closed device", "engine.disposed", ["CPU"], () => {
    const device = Device.open({ threads: 1 });
    device[Symbol.dispose]();
    return new Graph(device);
  }),
  wrong("arena on a closed device", "engine.disposed", ["CPU"], () => {
    const device = Device.open({ threads: 1 });
    device[Symbol.dispose]();
    return new Arena(device, "late", { a: { shape: [4] } });
  }),
  wrong("run on a closed device", "disposed", ["CPU", "[4]"], async () => {
    const device = Device.open({ threads: 1 });
    const g = new Graph(device);
    g.output(ops.exp(g, g.input("a", [4])));
    g.compile();
    device[Symbol.dispose]();
    await g.run({ a: new Float32Array(4) });
  }),
  wrong("read on a closed device", "disposed", ["CPU", "[4]"], () => {
    const device = Device.open({ threads: 1 });
    const arena = new Arena(device, "late", { a: { shape: [4] } });
    device[Symbol.dispose]();
    arena.get("a").read();
  }),
  wrong("tensor that the arena has not", "name", ["wq", "w, v"], (_, { arena }) => arena.get("wq")),
];
