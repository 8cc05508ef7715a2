// The graph as a whole: what survives between runs, what an output is, the order of execution, gradients of a composition.
import { afterAll, describe, expect, test } from "vitest";
import { Arena, Device, Graph, ops } from "./index.js";
import { relativeError } from "./testing/array64.js";
import { trainSmall } from "./testing/small-training.js";

const device = Device.open({ threads: 1 });
afterAll(() => device[Symbol.dispose]());

describe("runs", () => {
  test("the same graph gives the same result again, with new and with kept inputs", async () => {
    using g = new Graph(device);
    const [a, b] = [g.input("a", [3]), g.input("b", [3])];
    const y = g.output(ops.mul(g, ops.add(g, a, b), b));
    const given = { a: Float32Array.of(1, 2, 3), b: Float32Array.of(4, 5, 6) };
    await g.run(given);
    expect([...y.readF32()]).toEqual([20, 35, 54]);
    await g.run();
    expect([...y.readF32()]).toEqual([20, 35, 54]);
    await g.run({ a: Float32Array.of(0, 0, 0) });
    expect([...y.readF32()]).toEqual([16, 25, 36]);
    expect([...a.readF32()]).toEqual([0, 0, 0]);
  });

  test("a refused run changes nothing", async () => {
    using g = new Graph(device);
    const y = g.output(ops.gatherRows(g, g.input("table", [3, 1]), g.input("rows", [1], "i32")));
    await g.run({ table: Float32Array.of(7, 8, 9), rows: Int32Array.of(1) });
    await expect(g.run({ table: Float32Array.of(0, 0, 0), rows: Int32Array.of(3) })).rejects.toThrow(
      "0 to 2",
    );
    await g.run();
    expect([...y.readF32()]).toEqual([8]);
  });

  test("a graph of inputs alone runs", async () => {
    using g = new Graph(device);
    const a = g.input("a", [2]);
    await g.run({ a: Float32Array.of(1, 2) });
    expect([...a.readF32()]).toEqual([1, 2]);
  });

  test("a graph that only writes to an arena runs, again and again", async () => {
    using arena = new Arena(device, "counters", { sum: { shape: [2] } });
    using g = new Graph(device);
    g.expand(g.emit("add_inplace", [2], "f32", arena.get("sum"), g.input("a", [2])));
    for (let i = 0; i < 3; i++) await g.run({ a: Float32Array.of(1, 10) });
    expect([...arena.get("sum").readF32()]).toEqual([3, 30]);
  });

  test("compiling twice is compiling once", () => {
    using g = new Graph(device);
    g.output(ops.exp(g, g.input("a", [1000])));
    const { workingBytes } = g.compile();
    expect(workingBytes).toBeGreaterThanOrEqual(8000);
    expect(g.compile().workingBytes).toBe(workingBytes);
  });
});

describe("outputs", () => {
  test("an output that is a view, or is used on, keeps its values", async () => {
    using g = new Graph(device);
    const y = ops.exp(g, g.input("x", [3, 4]));
    const view = g.output(ops.reshape(g, y, [4, 3]));
    const used = g.output(ops.affine(g, y, 1, 1));
    let z = ops.mul(g, ops.neg(g, view), ops.reshape(g, used, [4, 3]));
    for (let i = 0; i < 6; i++) z = ops.affine(g, ops.transpose(g, z), 0.5, i);
    const last = g.output(z);
    await g.run({ x: new Float32Array(12) });
    expect([...view.readF32()]).toEqual(Array(12).fill(1));
    expect([...used.readF32()]).toEqual(Array(12).fill(2));
    expect(last.readF32().every(Number.isFinite)).toBe(true);
  });

  test("every result of a chain can be kept", async () => {
    using g = new Graph(device);
    let x = g.input("x", [5]);
    const kept = Array.from({ length: 150 }, () => g.output((x = ops.affine(g, x, 1, 1))));
    await g.run({ x: new Float32Array(5) });
    kept.forEach((tensor, i) => expect([...tensor.readF32()]).toEqual(Array(5).fill(i + 1)));
  });

  test("more than 200 outputs are refused, because ggml's list of free blocks ends", () => {
    using g = new Graph(device);
    const x = g.input("x", [5]);
    const keepAll = () => Array.from({ length: 201 }, () => g.output(ops.exp(g, x)));
    expect(keepAll).toThrow("at most 200");
  });
});

describe("gradients", () => {
  test("a second reverse pass in one graph gives the same gradients", async () => {
    using g = new Graph(device);
    const x = g.variable("x", [2]);
    const loss = ops.sum(g, ops.square(g, x));
    const [first, second] = [g.output(g.backward(loss).get(x)!), g.output(g.backward(loss).get(x)!)];
    await g.run({ x: Float32Array.of(3, -4) });
    expect([...first.readF32()]).toEqual([6, -8]);
    expect([...second.readF32()]).toEqual([6, -8]);
  });

  test("the gradient of the loss itself is 1, and of an input that is the loss, too", async () => {
    using g = new Graph(device);
    const x = g.variable("x", [1]);
    const gradient = g.output(g.backward(x).get(x)!);
    await g.run({ x: Float32Array.of(5) });
    expect([...gradient.readF32()]).toEqual([1]);
  });

  test("a graph that does not record has none, and a parameter that is not used has none", () => {
    using arena = new Arena(device, "weights", { p: { shape: [2], parameter: true } });
    using quiet = new Graph(device, { recording: false });
    expect(ops.square(quiet, arena.get("p")).requiresGrad).toBe(false);
    using g = new Graph(device);
    const gradients = g.backward(ops.sum(g, ops.square(g, g.variable("x", [2]))));
    expect(gradients.has(arena.get("p"))).toBe(false);
  });

  test("what is derived from a weight once a graph is made again in the next graph", async () => {
    using arena = new Arena(device, "weights", { w: { shape: [2, 2] } });
    const results: number[][] = [];
    for (const values of [
      [1, 2, 3, 4],
      [5, 6, 7, 8],
    ]) {
      arena.get("w").write(Float32Array.from(values));
      using g = new Graph(device);
      const y = g.output(ops.matmul(g, g.input("x", [1, 2]), arena.get("w")));
      await g.run({ x: Float32Array.of(1, 10) });
      results.push([...y.readF32()]);
    }
    expect(results).toEqual([
      [31, 42],
      [75, 86],
    ]);
  });
});

describe("in a bf16 graph", () => {
  test("a transpose is exact, although a rounded one was made before for a product", async () => {
    using g = new Graph(device, { compute: "bf16" });
    const w = g.variable("w", [2, 1]);
    const h = g.variable("h", [1, 1]);
    // The loss makes the bf16 transpose of w on the way to the gradient of h.
    ops.crossEntropy(g, h, w, g.input("targets", [1], "i32"), g.input("weights", [1]));
    const transposed = g.output(ops.transpose(g, w));
    const values = Float32Array.of(1.2345678, -0.1);
    await g.run({
      w: values,
      h: Float32Array.of(1),
      targets: new Int32Array(1),
      weights: new Float32Array(1),
    });
    expect(transposed.readF32()).toEqual(values);
  });
});

describe("a small model learns", () => {
  test.each(["f32", "bf16"] as const)("two batches by heart, %s", async (compute) => {
    const { losses, weights } = await trainSmall(device, { steps: 80, compute, seed: 3 });
    expect(losses[0]).toBeGreaterThan(2.5); // log 23 is 3.1
    expect(losses.at(-1)).toBeLessThan(0.1);
    expect(weights.every((values) => values.every(Number.isFinite))).toBe(true);
  });

  test("in bf16 about as in f32", async () => {
    const exact = await trainSmall(device, { steps: 10, compute: "f32", seed: 4 });
    const rounded = await trainSmall(device, { steps: 10, compute: "bf16", seed: 4 });
    expect(relativeError(rounded.losses, exact.losses)).toBeLessThan(0.02);
    expect(relativeError(rounded.losses, exact.losses)).toBeGreaterThan(0);
  });
});
