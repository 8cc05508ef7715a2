// The table of wrong calls, in one process: each is an error with a code and the shapes, and the process lives on.
import { afterAll, describe, expect, test } from "vitest";
import { NlaError } from "../error.js";
import { Arena, Device, Graph, ops } from "./index.js";
import { ARENA, wrongCalls } from "./testing/wrong-calls/index.js";

const device = Device.open({ threads: 1 });
const other = Device.open({ threads: 1 });
const arena = new Arena(device, "weights", ARENA);
afterAll(() => {
  for (const each of [arena, other, device]) each[Symbol.dispose]();
});

async function thrownBy(call: () => unknown): Promise<unknown> {
  try {
    await call();
  } catch (error) {
    return error;
  }
  return null;
}

describe("a wrong call is an error", () => {
  test.each(wrongCalls.map((row) => [row.name, row] as const))("%s", async (_, row) => {
    const error = await thrownBy(() => row.call({ device, other, arena }));
    expect(error).toBeInstanceOf(NlaError);
    expect(error).toMatchObject({ code: row.code });
    for (const words of row.mentions) expect((error as NlaError).message).toContain(words);
    expect((error as NlaError).next.length).toBeGreaterThan(10);
  });

  test("and after all of them the device still computes", async () => {
    using g = new Graph(device);
    const y = g.output(ops.scale(g, g.input("x", [3]), 2));
    await g.run({ x: Float32Array.of(1, 2, 3) });
    expect([...y.readF32()]).toEqual([2, 4, 6]);
  });
});

test("the table has a row for each of many kinds of mistake", () => {
  expect(new Set(wrongCalls.map((row) => row.name)).size).toBe(wrongCalls.length);
  expect(wrongCalls.length).toBeGreaterThan(150);
});
