// What only processes of their own can show: memory that stays flat over thousands of graphs, and weights that are the same
// to the last bit whatever the number of threads. Random calls are here, too: to survive them is a property of a process.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../engine/index.js";
import { compileChildren } from "./testing/compiled.js";
import type { Compiled } from "./testing/compiled.js";
import { randomCalls } from "./testing/random-calls.js";

let children: Compiled;
beforeAll(async () => {
  children = await compileChildren();
});
afterAll(() => children.remove());

const MB = 2 ** 20;

async function residentMegabytes(what: string, count: number, points: number): Promise<number[]> {
  const printed = await children.run("memory", what, count, points);
  return printed.split(" ").map((bytes) => Number(bytes) / MB);
}

describe("memory", () => {
  // A graph here takes 12 MB of address space and 0.3 MB of memory: leaking them would show as 600 MB.
  test("2,000 graphs, built, run and freed after 400 for warming up, add less than 16 MB", async () => {
    const [start = Number.NaN, ...later] = await residentMegabytes("graphs", 400, 6);
    expect(later).toHaveLength(5);
    for (const point of later) expect(point - start).toBeLessThan(16);
  });

  test("2,000 arenas of 2 MB add less than 16 MB", async () => {
    const [start = Number.NaN, ...later] = await residentMegabytes("arenas", 400, 6);
    expect(later).toHaveLength(5);
    for (const point of later) expect(point - start).toBeLessThan(16);
  });
});

describe("the same training has the same weights, bit for bit,", () => {
  test.each(["f32", "bf16"])("with 1 thread, again, and with 2 threads: %s", async (compute) => {
    const hashes: string[] = [];
    for (const threads of [1, 1, 2]) hashes.push(await children.run("train", threads, compute, 3));
    expect(hashes[0]).toMatch(/^[0-9a-f]{64}$/);
    expect(new Set(hashes).size).toBe(1);
  });

  test("and f32 and bf16 do differ", async () => {
    expect(await children.run("train", 1, "f32", 2)).not.toBe(await children.run("train", 1, "bf16", 2));
  });
});

test("5,000 random calls are refused or run, and never end the process", async () => {
  using device = Device.open({ threads: 1 });
  const report = await randomCalls(device, 1, 5000);
  // Both kinds must be there, and every op must have been run, or the calls test nothing.
  expect(report.refused).toBeGreaterThan(500);
  expect(report.run).toBeGreaterThan(1000);
  expect(report.differentiated).toBeGreaterThan(500);
  expect(report.neverRun).toEqual([]);
});
