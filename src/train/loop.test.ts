// The frame around the steps of a stage: what is logged and saved, and what is not saved because it is not whole. The step is a
// counter, so that a fault can be put anywhere in it.
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { due, resumePoint, runLoop } from "./loop.js";
import type { LoopOutputs, TrainingLoop } from "./loop.js";
import { readRows } from "./metrics-log.js";
import { outputsIn, temporaryFolder } from "./testing/tiny-training.js";
import { checkpointSteps } from "./training-state.js";

/** A stage whose whole state is how often it was stepped. */
class Counting implements TrainingLoop {
  readonly steps = 10;
  count: number;
  readonly #during: (step: number) => void;

  constructor(count: number, during: (step: number) => void = () => undefined) {
    this.count = count;
    this.#during = during;
  }

  step(step: number) {
    this.count++;
    this.#during(step);
    return Promise.resolve({
      row: { count: this.count },
      seconds: { update: 0.25, evaluate: 0 },
      tokens: 12,
      numbers: {},
      ...(step % 4 === 3 ? { samples: [{ row: 0 }, { row: 1 }] } : {}),
    });
  }

  save(directory: string): Promise<void> {
    return writeFile(path.join(directory, "count.txt"), String(this.count));
  }

  state() {
    return { data: { epoch: 0, offset: this.count }, seeds: {}, optimizers: {}, best: {} };
  }
}

async function resume(outputs: LoopOutputs) {
  const checkpoint = await resumePoint(outputs);
  if (!checkpoint) return { step: 0, count: 0 };
  const count = Number(await readFile(path.join(checkpoint.directory, "count.txt"), "utf8"));
  return { step: checkpoint.state.step, count };
}

describe("runLoop", () => {
  it("logs each step and its samples, and saves at intervals and at the end", async () => {
    await using folder = await temporaryFolder();
    const outputs = outputsIn(folder.path, "rl", { checkpointEvery: 4 });
    await runLoop(new Counting(0), 0, outputs);
    const rows = await readRows(outputs.metricsFile);
    expect(rows.map(({ stage, step, count }) => [stage, step, count])).toEqual(
      Array.from({ length: 10 }, (_, i) => ["rl", i, i + 1]),
    );
    for (const { timing } of rows) {
      expect(Object.keys(timing!)).toEqual([
        "seconds",
        "seconds_update",
        "seconds_evaluate",
        "tokens_per_second",
      ]);
      expect(timing!.tokens_per_second).toBeCloseTo(12 / timing!.seconds!, 6);
    }
    expect((await readRows(outputs.samplesFile)).map(({ step, row }) => [step, row])).toEqual([
      [3, 0],
      [3, 1],
      [7, 0],
      [7, 1],
    ]);
    expect(await checkpointSteps(outputs.place)).toEqual([8, 10]);
    expect(await resume(outputs)).toEqual({ step: 10, count: 10 });
  });

  it("saves where it is stopped between steps", async () => {
    await using folder = await temporaryFolder();
    const stopping = new AbortController();
    const outputs = outputsIn(folder.path, "rl", { checkpointEvery: 4, signal: stopping.signal });
    const loop = new Counting(0, (step) => {
      if (step === 5) stopping.abort(new Error("SIGINT"));
    });
    await expect(runLoop(loop, 0, outputs)).rejects.toThrow("SIGINT");
    expect(await resume(outputs)).toEqual({ step: 6, count: 6 });
    expect((await readRows(outputs.metricsFile)).length).toBe(6);
  });

  it("does not save a step that broke in the middle, also where it was being stopped", async () => {
    await using folder = await temporaryFolder();
    const stopping = new AbortController();
    const outputs = outputsIn(folder.path, "rl", { checkpointEvery: 4, signal: stopping.signal });
    const loop = new Counting(0, (step) => {
      if (step !== 5) return;
      stopping.abort(new Error("SIGINT"));
      throw new Error("the disk is gone");
    });
    await expect(runLoop(loop, 0, outputs)).rejects.toThrow("the disk is gone");
    // What had counted step 5 half is not what the next run goes on from.
    expect(await resume(outputs)).toEqual({ step: 4, count: 4 });

    const again = outputsIn(folder.path, "rl", { checkpointEvery: 4 });
    const { step, count } = await resume(again);
    await runLoop(new Counting(count), step, again);
    const rows = await readRows(again.metricsFile);
    expect(rows.map(({ count: logged }) => logged)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });
});

describe("due", () => {
  it("is every so many steps, and after the last", () => {
    const steps = Array.from({ length: 10 }, (_, step) => step);
    expect(steps.filter((step) => due(step, 4, 10))).toEqual([3, 7, 9]);
    expect(steps.filter((step) => due(step, 1, 10))).toEqual(steps);
    expect(steps.filter((step) => due(step, 100, 10))).toEqual([9]);
  });
});
