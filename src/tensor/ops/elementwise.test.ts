// What a table of smooth points cannot show: kinks, ties, rows of zeros, numbers at the ends of float32.
import { afterAll, describe, expect, test } from "vitest";
import { Device } from "../../engine/index.js";
import { Graph, ops } from "../index.js";
import type { Tensor } from "../index.js";

const device = Device.open({ threads: 1 });
afterAll(() => device[Symbol.dispose]());

/** Value of an op and the gradients of its sum. */
async function evaluate(
  inputs: Readonly<Record<string, readonly number[]>>,
  build: (g: Graph, t: Record<string, Tensor>) => Tensor,
  shape: readonly number[] | null = null,
) {
  using g = new Graph(device);
  const t = Object.fromEntries(
    Object.entries(inputs).map(([name, values]) => [name, g.variable(name, shape ?? [values.length])]),
  );
  const y = g.output(build(g, t));
  const gradients = g.backward(ops.sum(g, y));
  const kept = Object.entries(t).map(([name, x]) => [name, g.output(gradients.get(x)!)] as const);
  await g.run(Object.fromEntries(Object.entries(inputs).map(([k, v]) => [k, Float32Array.from(v)])));
  return {
    value: [...y.readF32()],
    gradient: Object.fromEntries(kept.map(([name, x]) => [name, [...x.readF32()]])),
  };
}

describe("kinks", () => {
  test("relu passes no gradient at 0", async () => {
    const { value, gradient } = await evaluate({ x: [-1, 0, 2] }, (g, t) => ops.relu(g, t.x!));
    expect(value).toEqual([0, 0, 2]);
    expect(gradient.x).toEqual([0, 0, 1]);
  });

  test("clamp passes a gradient strictly inside only", async () => {
    const { value, gradient } = await evaluate({ x: [-2, -1, 0, 1, 2] }, (g, t) => ops.clamp(g, t.x!, -1, 1));
    expect(value).toEqual([-1, -1, 0, 1, 1]);
    expect(gradient.x).toEqual([0, 0, 1, 0, 0]);
  });

  test("clamp to one value is that value, without gradient", async () => {
    const { value, gradient } = await evaluate({ x: [0, 3] }, (g, t) => ops.clamp(g, t.x!, 2, 2));
    expect(value).toEqual([2, 2]);
    expect(gradient.x).toEqual([0, 0]);
  });

  test("minimum gives a tie to its first operand", async () => {
    const { value, gradient } = await evaluate({ a: [1, 2, 3], b: [2, 2, 2] }, (g, t) =>
      ops.minimum(g, t.a!, t.b!),
    );
    expect(value).toEqual([1, 2, 2]);
    expect(gradient).toEqual({ a: [1, 1, 0], b: [0, 0, 1] });
  });

  test("minimum is exact where one operand is a million times the other", async () => {
    const b = Math.fround(0.001);
    const { value } = await evaluate({ a: [1000, b], b: [b, 1000] }, (g, t) => ops.minimum(g, t.a!, t.b!));
    expect(value).toEqual([b, b]);
  });
});

describe("ends of the range", () => {
  test("softmax of numbers whose exponentials float32 cannot hold", async () => {
    const { value } = await evaluate({ x: [1e4, 1e4, -1e4] }, (g, t) => ops.softmax(g, t.x!));
    expect(value).toEqual([0.5, 0.5, 0]);
  });

  test("a masked entry has probability 0 and gets gradient 0, exactly", async () => {
    using g = new Graph(device);
    const x = g.variable("x", [2, 3]);
    const p = g.output(ops.softmax(g, x, g.input("mask", [2, 3])));
    const gradient = g.output(g.backward(ops.sum(g, ops.square(g, p))).get(x)!);
    const mask = Float32Array.of(0, -Infinity, -Infinity, 0, 0, -Infinity);
    await g.run({ x: Float32Array.of(1, 50, 3, 1, 2, 90), mask });
    expect(p.readF32()[0]).toBe(1);
    for (const i of [1, 2, 5]) {
      expect(p.readF32()[i]).toBe(0);
      expect(Math.abs(gradient.readF32()[i]!)).toBe(0);
    }
  });

  test("silu, sigmoid, tanh and geluTanh of large numbers are finite", async () => {
    const x = [-1e4, -100, 100, 1e4];
    for (const op of [ops.silu, ops.sigmoid, ops.tanh, ops.geluTanh]) {
      const { value, gradient } = await evaluate({ x }, (g, t) => op(g, t.x!));
      expect(value.every(Number.isFinite)).toBe(true);
      expect(gradient.x!.every(Number.isFinite)).toBe(true);
      expect(value[0]! <= 0 && Math.abs(value[0]!) <= 1).toBe(true);
    }
  });

  test("a row of zeros normalises to zeros, with finite gradients", async () => {
    const zero = { x: [0, 0, 0, 0] };
    const normalized = await evaluate(zero, (g, t) => ops.normalizeRows(g, t.x!, 2));
    expect(normalized.value).toEqual([0, 0, 0, 0]);
    expect(normalized.gradient.x!.every(Number.isFinite)).toBe(true);
    const normed = await evaluate({ ...zero, gain: [1, 1, 1, 1] }, (g, t) =>
      ops.rmsNorm(g, t.x!, t.gain!, 1e-6),
    );
    expect(normed.value).toEqual([0, 0, 0, 0]);
    expect(normed.gradient.x!.every((d) => Math.abs(d - 1000) < 0.01)).toBe(true); // 1/√eps
  });

  test("NaN stays NaN and is not replaced by a number", async () => {
    for (const op of [ops.silu, ops.exp, ops.tanh, ops.geluTanh, ops.square]) {
      const { value } = await evaluate({ x: [1, Number.NaN] }, (g, t) => op(g, t.x!));
      expect(Number.isNaN(value[0])).toBe(false);
      expect(Number.isNaN(value[1])).toBe(true);
    }
  });
});
