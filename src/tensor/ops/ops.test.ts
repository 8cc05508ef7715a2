// Every differentiable op against float64: values, and all gradients against finite differences of the reference, in every
// arrangement of memory. The rows are in testing/cases; this file only runs them.
import { afterAll, describe, expect, test } from "vitest";
import { Device } from "../../engine/index.js";
import { relativeError } from "../testing/array64.js";
import { attentionCases } from "../testing/cases/attention.js";
import { elementwiseCases } from "../testing/cases/elementwise.js";
import { headCases } from "../testing/cases/head.js";
import { layoutCases } from "../testing/cases/layout.js";
import { matmulCases } from "../testing/cases/matmul.js";
import { arrangements, expect64, runForward, runGradients } from "../testing/gradient-check.js";
import { F32_BOUNDS } from "../testing/op-case.js";
import type { Bounds, OpCase } from "../testing/op-case.js";
import { bfloat16Of } from "../testing/random.js";

// One thread: with more threads than free cores ggml's barrier spins, and a graph of this size takes 50 ms and not 50 µs.
const device = Device.open({ threads: 1 });
afterAll(() => device[Symbol.dispose]());

const TABLES = {
  elementwise: elementwiseCases,
  layout: layoutCases,
  "matmul, norms, rope": matmulCases,
  attention: attentionCases,
  head: headCases,
};

async function holds(row: OpCase, bounds: Bounds, compute: "f32" | "bf16", round: (x: number) => number) {
  const expected = expect64(row, round);
  const { shape, values } = await runForward(device, row, expected, { compute });
  expect(shape).toEqual(row.reference(expected.values).shape);
  expect(relativeError(values, expected.forward), "value").toBeLessThan(bounds.forward);

  for (const arrangement of arrangements(expected.dy.length)) {
    const { gradients, shared } = await runGradients(device, row, expected, arrangement, { compute });
    for (const [name, gradient] of Object.entries(gradients)) {
      // Reused operands also enter the loss as x²/4, twice.
      const x = expected.values[name]!.data;
      const seed = arrangement.gradient === "seed" ? 1 / expected.dy[0]! : 1;
      const wanted = expected.gradients[name]!.map((d, i) => d * seed + (arrangement.reused ? x[i]! : 0));
      const told = `gradient of ${name}, ${JSON.stringify(arrangement)}`;
      expect(relativeError(gradient, wanted), told).toBeLessThan(bounds.gradient);
    }
    if (shared !== null) {
      const norm = expected.dy.reduce((all, d) => all + d * d, 0);
      expect(relativeError([shared], [norm]), `dy, ${JSON.stringify(arrangement)}`).toBeLessThan(1e-6);
    }
  }
}

for (const [title, rows] of Object.entries(TABLES)) {
  describe(`${title}, f32`, () => {
    test.each(rows.map((row) => [row.name, row] as const))("%s", async (_, row) => {
      await holds(row, { ...F32_BOUNDS, ...row.f32 }, "f32", Math.fround);
    });
  });
}

const all = Object.values(TABLES).flat();

describe("products in bf16", () => {
  test.each(all.filter((row) => row.bf16).map((row) => [row.name, row] as const))("%s", async (_, row) => {
    await holds(row, row.bf16!, "bf16", Math.fround);
  });
});

describe("products in bf16 of numbers that bf16 can hold are as exact as in f32", () => {
  test.each(all.filter((row) => row.bf16Exact).map((row) => [row.name, row] as const))(
    "%s",
    async (_, row) => {
      await holds(row, F32_BOUNDS, "bf16", bfloat16Of);
    },
  );
});

test("no two rows have one name, which would give them one seed and hide one of them in a report", () => {
  const names = all.map((row) => row.name);
  expect(new Set(names).size).toBe(names.length);
});
