// Checkpoints inside a stage: written whole, found by looking, pruned, and told when damaged. Kills are in kill.test.ts.
import { mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { NlaError } from "../error.js";
import {
  checkpointSteps,
  latestCheckpoint,
  openCheckpoint,
  pruneCheckpoints,
  saveCheckpoint,
  stepFolder,
} from "./training-state.js";
import type { TrainingState } from "./training-state.js";

let root: string;
beforeEach(async () => void (root = await mkdtemp(path.join(os.tmpdir(), "nla-checkpoints-"))));
afterEach(() => rm(root, { recursive: true, force: true }));

const state = (step: number, more: Partial<TrainingState> = {}): TrainingState => ({
  stage: "rl",
  step,
  data: { epoch: 1, offset: step * 8 },
  seeds: { rollout: 42, generator: "1f".repeat(20) },
  optimizers: { verbalizer: { steps: step, skipped: 1 } },
  best: { fve: 0.25 },
  ...more,
});
const place = () => ({ root, stage: "rl", configHash: "abc" });

async function write(folder: string): Promise<void> {
  await writeFile(path.join(folder, "verbalizer.safetensors"), "weights");
  await mkdir(path.join(folder, "optimizer"));
  await writeFile(path.join(folder, "optimizer/m.safetensors"), "moments");
}
const save = (step: number, keep?: number) =>
  saveCheckpoint(place(), state(step), write, keep === undefined ? {} : { keep });

const everyTwentieth = (step: number) => step % 20 === 0;

async function rejection(promise: Promise<unknown>): Promise<NlaError> {
  return promise.then(
    () => Promise.reject(new Error("nothing was thrown")),
    (thrown: unknown) => (thrown instanceof NlaError ? thrown : Promise.reject(thrown)),
  );
}

describe("checkpoints", () => {
  it("come back as they were saved", async () => {
    expect(await latestCheckpoint(place())).toBeNull();
    const directory = await save(123);
    expect(directory).toBe(path.join(root, "rl", "step-000123"));
    expect(await latestCheckpoint(place())).toEqual({
      directory,
      state: state(123),
      files: ["optimizer/m.safetensors", "verbalizer.safetensors"],
    });
  });

  it("are ordered by number and pruned to the newest", async () => {
    for (const step of [20, 40, 60]) await save(step, 2);
    expect(await checkpointSteps(place())).toEqual([40, 60]);
    await save(1_000_000, 3);
    expect(await checkpointSteps(place())).toEqual([40, 60, 1_000_000]);
    await pruneCheckpoints(place(), { keep: 1 });
    expect((await latestCheckpoint(place()))?.state.step).toBe(1_000_000);
    expect(await readdir(path.join(root, "rl"))).toEqual([stepFolder(1_000_000)]);
  });

  it("of a step at which only a stopped run saves go when there is a newer one", async () => {
    const retention = { keep: 2, scheduled: everyTwentieth };
    for (const step of [20, 40, 47]) {
      await saveCheckpoint(place(), state(step), write, retention);
    }
    expect(await checkpointSteps(place())).toEqual([20, 40, 47]);
    await saveCheckpoint(place(), state(60), write, retention);
    expect(await checkpointSteps(place())).toEqual([40, 60]);
  });

  it("replace one of the same step", async () => {
    await save(5);
    await saveCheckpoint(place(), state(5, { best: {} }), (folder) => writeFile(path.join(folder, "a"), ""));
    expect(await latestCheckpoint(place())).toMatchObject({ files: ["a"], state: { best: {} } });
  });

  it("ignore other folders, and remove what a killed process left half-written", async () => {
    await save(5);
    await mkdir(path.join(root, "rl", "final"));
    await mkdir(path.join(root, "rl", ".step-000006.nla-new.4000000.abcdef"));
    await mkdir(path.join(root, "rl", ".step-000006.nla-new.1.abcdef")); // process 1 lives, but did not write it
    expect((await latestCheckpoint(place()))?.state.step).toBe(5);
    expect((await readdir(path.join(root, "rl"))).sort()).toEqual(["final", "step-000005"]);
  });

  it("leave nothing when the weights cannot be written, and keep the older ones", async () => {
    await save(5);
    const failing = saveCheckpoint(place(), state(6), async (folder) => {
      await write(folder);
      throw new Error("device lost");
    });
    await expect(failing).rejects.toThrow("device lost");
    expect(await readdir(path.join(root, "rl"))).toEqual(["step-000005"]);
  });

  it("write no time", async () => {
    const bytes = await readFile(path.join(await save(7), "state.json"));
    await rm(path.join(root, "rl"), { recursive: true });
    expect((await readFile(path.join(await save(7), "state.json"))).equals(bytes)).toBe(true);
  });

  it("refuse numbers that JSON would change", async () => {
    const nan = saveCheckpoint(place(), state(1, { best: { fve: Number.NaN } }), write);
    expect(await rejection(nan)).toMatchObject({
      code: "checkpoint.state",
      subject: "the state of step 1 of rl",
    });
    expect((await rejection(saveCheckpoint(place(), state(1.5), write))).found).toContain("step");
    expect(await checkpointSteps(place())).toEqual([]);
  });
});

describe("a damaged checkpoint", () => {
  it.each([
    [
      "a file cut short",
      (folder: string) => truncate(path.join(folder, "verbalizer.safetensors"), 3),
      "3 bytes",
      "7 bytes",
    ],
    [
      "a file gone",
      (folder: string) => rm(path.join(folder, "optimizer/m.safetensors")),
      "no such file",
      "a file of 7 bytes",
    ],
    [
      "a torn state",
      (folder: string) => truncate(path.join(folder, "state.json"), 30),
      "",
      "the JSON that nlakit wrote",
    ],
    [
      "another step's state",
      (folder: string) => rm(folder, { recursive: true }).then(() => renamed(folder)),
      "step 4 of rl",
      "step 5 of rl",
    ],
  ])("%s", async (_, damage, found, wanted) => {
    await damage(await save(5));
    const error = await rejection(latestCheckpoint(place()));
    expect(error.code).toBe("checkpoint.damaged");
    expect(error.found).toContain(found);
    expect(error.wanted).toBe(wanted);
    expect(error.next).toContain(path.join(root, "rl", "step-000005"));
  });

  it("of another config is not resumed from", async () => {
    await save(5);
    const error = await rejection(openCheckpoint({ ...place(), configHash: "def" }, 5));
    expect(error).toMatchObject({ code: "checkpoint.other-config", found: "a checkpoint of config abc" });
  });
});

async function renamed(folder: string): Promise<void> {
  const other = await save(4);
  const { rename } = await import("node:fs/promises");
  await rename(other, folder);
}
