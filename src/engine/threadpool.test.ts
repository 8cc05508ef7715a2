// The threads of a CPU device: there from its opening to its end, and not one more per graph.
import { existsSync, readdirSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { Device, Graph, ops } from "../tensor/index.js";

const TASKS = "/proc/self/task";
const threadsOfProcess = () => readdirSync(TASKS).length;

describe.skipIf(!existsSync(TASKS))("threads of a device (needs /proc)", () => {
  test("are kept from graph to graph, and end with the device", async () => {
    using first = Device.open({ threads: 1 });
    await square(first, 3); // the event loop's own threads have started
    const before = threadsOfProcess();
    const device = Device.open({ threads: 4 });
    expect(threadsOfProcess()).toBe(before + 3);
    for (let i = 0; i < 20; i++) await square(device, i);
    expect(threadsOfProcess()).toBe(before + 3);
    device[Symbol.dispose]();
    for (let i = 0; threadsOfProcess() > before && i < 100; i++) await setTimeout(10);
    expect(threadsOfProcess()).toBe(before);
  });

  test("a graph under way when its device is closed still ends", async () => {
    const device = Device.open({ threads: 2 });
    using g = new Graph(device, { recording: false });
    const side = 1024;
    const x = g.input("x", [side, side]);
    let y = x;
    for (let i = 0; i < 4; i++) y = ops.matmul(g, y, x);
    g.output(y);
    const running = g.run({ x: new Float32Array(side * side) });
    await setTimeout(1); // it has left the queue, and takes some ten times as long
    device[Symbol.dispose]();
    await expect(running).resolves.toBeUndefined();
  });
});

async function square(device: Device, value: number): Promise<void> {
  using g = new Graph(device, { recording: false });
  const x = g.input("x", [4]);
  const y = g.output(ops.mul(g, x, x));
  await g.run({ x: new Float32Array(4).fill(value) });
  expect([...y.readF32()]).toEqual(Array.from({ length: 4 }, () => value * value));
}
