// Runs off the event loop: timers fire meanwhile, a signal stops what has not begun, runs on one device take turns, and
// memory that is freed during a run is freed after it.
import { describe, expect, test } from "vitest";
import { Arena, Device, Graph, ops } from "./index.js";
import type { Tensor } from "./index.js";

/** A graph that computes for about a second on one core: n³ · 2 · products operations. */
function slow(device: Device, n = 1024, products = 16): { g: Graph; y: Tensor; values: Float32Array } {
  const g = new Graph(device, { recording: false });
  const x = g.input("x", [n, n]);
  let y = x;
  for (let i = 0; i < products; i++) y = ops.scale(g, ops.matmul(g, y, x, { transposeB: true }), 1 / n);
  g.output(y);
  return { g, y, values: new Float32Array(n * n).fill(1) };
}

/** A graph that adds 1 to every element of a counter. */
function counting(device: Device, counter: Tensor): Graph {
  const g = new Graph(device, { recording: false });
  g.expand(g.emit("add_inplace", counter.shape, "f32", counter, g.input("one", counter.shape)));
  return g;
}

describe("the event loop", () => {
  test("timers fire while a graph computes", async () => {
    using device = Device.open({ threads: 1 });
    const { g, y, values } = slow(device);
    using _ = g;
    let ticks = 0;
    const timer = setInterval(() => ticks++, 5);
    await g.run({ x: values });
    clearInterval(timer);
    // A run on the event loop would let none fire; about a hundred would fit.
    expect(ticks).toBeGreaterThanOrEqual(10);
    expect(y.readF32().every((value) => Math.abs(value - 1) < 1e-4)).toBe(true);
  });
});

describe("an AbortSignal", () => {
  test("stops a run that waits, which then has changed nothing", async () => {
    using device = Device.open({ threads: 1 });
    using arena = new Arena(device, "counter", { n: { shape: [2] } });
    const { g, values } = slow(device);
    using first = g;
    using second = counting(device, arena.get("n"));
    const controller = new AbortController();
    const running = first.run({ x: values });
    const waiting = second.run({ one: Float32Array.of(1, 1) }, controller.signal);
    controller.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    await running;
    expect([...arena.get("n").readF32()]).toEqual([0, 0]);
    await second.run({ one: Float32Array.of(1, 1) });
    expect([...arena.get("n").readF32()]).toEqual([1, 1]);
  });

  test("that is aborted already stops a run before it begins", async () => {
    using device = Device.open({ threads: 1 });
    using arena = new Arena(device, "counter", { n: { shape: [2] } });
    using g = counting(device, arena.get("n"));
    await expect(g.run({ one: Float32Array.of(1, 1) }, AbortSignal.abort())).rejects.toThrow("aborted");
    expect([...arena.get("n").readF32()]).toEqual([0, 0]);
  });
});

describe("runs at the same time", () => {
  test("on one device take turns: no addition is lost", async () => {
    using device = Device.open({ threads: 1 });
    const size = 300_000;
    using arena = new Arena(device, "counter", { n: { shape: [size] } });
    using a = counting(device, arena.get("n"));
    using b = counting(device, arena.get("n"));
    const one = new Float32Array(size).fill(1);
    await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? a : b).run({ one })));
    expect(
      arena
        .get("n")
        .readF32()
        .every((value) => value === 20),
    ).toBe(true);
  });

  test("of one graph each see their own inputs, and the results are those of the last", async () => {
    using device = Device.open({ threads: 1 });
    using arena = new Arena(device, "sum", { n: { shape: [1] } });
    using g = counting(device, arena.get("n"));
    await Promise.all([1, 10, 100].map((value) => g.run({ one: Float32Array.of(value) })));
    expect([...arena.get("n").readF32()]).toEqual([111]);
  });

  test("on two devices both are right", async () => {
    using one = Device.open({ threads: 1 });
    using two = Device.open({ threads: 1 });
    const graphs = [one, two].map((device) => slow(device, 200, 10));
    await Promise.all(graphs.map(({ g, values }) => g.run({ x: values })));
    for (const { g, y } of graphs) {
      expect(y.readF32().every((value) => Math.abs(value - 1) < 1e-4)).toBe(true);
      g[Symbol.dispose]();
    }
  });

  test("a run that fails does not stop the next", async () => {
    using device = Device.open({ threads: 1 });
    using g = new Graph(device);
    const y = g.output(ops.exp(g, g.input("x", [1])));
    const failing = g.run({ x: new Float32Array(2) });
    const right = g.run({ x: new Float32Array(1) });
    await expect(failing).rejects.toThrow("Float32Array of 2");
    await right;
    expect([...y.readF32()]).toEqual([1]);
  });
});

describe("freed during a run", () => {
  test("a graph and an arena: the run ends well and is right, what waits is refused", async () => {
    using device = Device.open({ threads: 1 });
    const shape = [800, 800];
    const size = 800 * 800;
    using result = new Arena(device, "result", { y: { shape } });
    const arena = new Arena(device, "gone", { w: { shape } });
    arena.get("w").write(new Float32Array(size).fill(1 / 800));
    const g = new Graph(device);
    let y = g.input("x", shape);
    for (let i = 0; i < 24; i++) y = ops.matmul(g, y, arena.get("w"), { transposeB: true });
    g.expand(g.emit("cpy", shape, "f32", y, result.get("y")));
    const x = new Float32Array(size).fill(1);
    const running = g.run({ x });
    const waiting = g.run({ x });
    const refused = expect(waiting).rejects.toThrow("freed");
    await new Promise((resolve) => setTimeout(resolve, 5)); // the computation has begun
    for (const each of [g, arena]) each[Symbol.dispose]();
    expect([g.disposed, arena.disposed]).toEqual([true, true]);
    // Whoever got the memory back too early would now have it overwritten.
    using thief = new Arena(device, "thief", { a: { shape }, b: { shape }, c: { shape }, d: { shape } });
    for (const tensor of thief.tensors.values()) tensor.write(new Float32Array(size).fill(Number.NaN));
    await running;
    await refused;
    expect(
      result
        .get("y")
        .readF32()
        .every((value) => Math.abs(value - 1) < 1e-4),
    ).toBe(true);
    expect(() => y.read()).toThrow("freed");
  });

  test("a device: the run ends well, what waits is refused", async () => {
    const device = Device.open({ threads: 1 });
    const { g, values } = slow(device); // long enough that it still runs when the timer fires, whatever the kernels
    const running = g.run({ x: values });
    const refused = expect(g.run({ x: values })).rejects.toThrow("freed");
    await new Promise((resolve) => setTimeout(resolve, 5));
    device[Symbol.dispose]();
    expect(device.disposed).toBe(true);
    await running;
    await refused;
    g[Symbol.dispose]();
  });
});
