// `nla train` killed with SIGKILL at twenty random moments at least, in every stage of it: started again
// until it ends, it must leave the folder of a run that was never killed, byte for byte (times apart). And Ctrl-C: it
// saves, says how to go on, and the run ends with the same bytes too.
import { readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PythonRandom } from "../../src/data/python-random.js";
import { TRAINING_STAGES } from "../../src/train/run-layout.js";
import type { TrainingStage } from "../../src/train/run-layout.js";
import { checkpointSteps } from "../../src/train/training-state.js";
import { buildCommand, TINY_STEPS, writeTinyConfig } from "./built-command.js";
import type { BuiltCommand, Ended } from "./built-command.js";
import { contents } from "./folder-contents.js";

const KILLS = 20;
const POLL_MS = 3;
// Longest waits, about one step with its checkpoint, and one stage of the data, on a machine that has little else to do.
const STEP_MS = 60;
const STAGE_MS = 160;

/** Where a run stands, by what is in its folder. */
interface Standing {
  /** Stages that are done. */
  readonly done: readonly string[];
  /** Step of the newest checkpoint of the stage that is next, 0 without one. */
  readonly checkpoint: number;
}

let nla: BuiltCommand;
let config: string;
let stages: readonly string[];
let expected: Record<string, unknown>;

async function textOf(file: string): Promise<string | null> {
  return readFile(file, "utf8").catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === "ENOENT") return null;
    throw thrown;
  });
}

async function standing(run: string): Promise<Standing> {
  const text = await textOf(path.join(run, "state.json"));
  const state = text === null ? { stages: [] } : (JSON.parse(text) as { stages: { name: string }[] });
  const done = state.stages.map(({ name }) => name);
  const next = stages[done.length];
  const root = path.join(run, "checkpoints");
  const steps = next === undefined ? [] : await checkpointSteps({ root, stage: next });
  return { done, checkpoint: steps.at(-1) ?? 0 };
}

beforeAll(async () => {
  nla = await buildCommand();
  config = await writeTinyConfig(nla.folder);
  const whole = path.join(nla.folder, "whole");
  const ended = await nla.run(["train", config, "--run", whole, "--json"]);
  expect(ended).toMatchObject({ code: 0, stdout: `${JSON.stringify({ run: whole })}\n` });
  const state = JSON.parse(await readFile(path.join(whole, "state.json"), "utf8")) as {
    stages: { name: string }[];
  };
  stages = state.stages.map(({ name }) => name);
  expected = await contents(whole);
}, 240_000);
afterAll(() => nla?.[Symbol.asyncDispose]());

describe("the run that is compared with", () => {
  it("went through every stage and left nothing of its work behind", () => {
    expect(stages.slice(0, 5)).toEqual(["extract", "split", "label", "build", "shuffle"]);
    expect(stages.slice(5, 8)).toEqual(TRAINING_STAGES);
    const names = Object.keys(expected);
    expect(names).toEqual(
      expect.arrayContaining(["verbalizer/model.safetensors", "metrics.jsonl", "data/rl_shuf.parquet"]),
    );
    expect(names.filter((name) => name.includes(".nla-") || /^(\.staging|run\.lock)/.test(name))).toEqual([]);
    expect((expected["samples.jsonl"] as unknown[]).length).toBeGreaterThan(2);
    for (const stage of TRAINING_STAGES) {
      const rows = (expected["metrics.jsonl"] as { stage: string }[]).filter((row) => row.stage === stage);
      expect(rows).toHaveLength(TINY_STEPS[stage]);
    }
  });
});

/** Runs until killed: `waitMs` after the stage is seen at work, or after `step` of it. Null: the run ended before that. */
async function killIn(run: string, stage: string, step: number | null, waitMs: number): Promise<Ended> {
  let timer: NodeJS.Timeout | undefined;
  let poll: NodeJS.Timeout | undefined;
  const args = ["train", config, "--run", run, "--json"];
  const ended = await nla.run(args, {
    onStart(child) {
      if (step !== null) return;
      const begun = Date.now();
      poll = setInterval(() => {
        // A folder that an earlier kill left is older than this process.
        stat(path.join(run, ".staging", stage)).then(
          ({ ctimeMs }) => {
            if (ctimeMs > begun) timer ??= setTimeout(() => child.kill("SIGKILL"), waitMs);
          },
          () => undefined, // not there yet
        );
      }, POLL_MS);
    },
    onProgress(event, child) {
      if (step === null || event["stage"] !== stage || (event["step"] as number) < step) return;
      timer ??= setTimeout(() => child.kill("SIGKILL"), waitMs);
    },
  });
  clearTimeout(timer);
  clearInterval(poll);
  return ended;
}

const isTraining = (stage: string): stage is TrainingStage =>
  (TRAINING_STAGES as readonly string[]).includes(stage);

/** One kill: where the run stood, and the stage that it hit; undefined after the last one's end. */
interface Hit extends Standing {
  readonly stage: string | undefined;
}

/** What is still to be hit, as often as that: every stage, in training twice and once with a checkpoint to go on from. */
function missing(hits: readonly Hit[]): string[] {
  return stages.flatMap((stage) => {
    const found = hits.filter((hit) => hit.stage === stage);
    if (!isTraining(stage)) return found.length > 0 ? [] : [stage];
    const resumed = found.some(({ checkpoint }) => checkpoint > 0);
    return Array<string>(Math.max(2 - found.length, resumed ? 0 : 1, 0)).fill(stage);
  });
}

describe("a run that is killed again and again", () => {
  it("ends with the bytes of one that never was", async () => {
    const random = new PythonRandom(7);
    const hits: Hit[] = [];
    for (let trial = 0; hits.length < KILLS || missing(hits).length > 0; trial++) {
      expect(trial, `not hit: ${missing(hits).join(", ")}`).toBeLessThan(8);
      const run = path.join(nla.folder, `killed-${trial}`);
      // First once in every stage of the data and three times in each of the training; then what is missing, and anywhere.
      const wanted = missing(hits);
      const plan = stages.flatMap((stage) => {
        const times = trial === 0 ? (isTraining(stage) ? 3 : 1) : random.randbelow(2);
        const least = wanted.filter((each) => each === stage).length;
        return Array.from({ length: Math.max(times, least) }, (_, i) => ({
          stage,
          late: i === 1 || trial > 0,
        }));
      });
      for (const { stage, late } of plan) {
        const before = await standing(run);
        if (before.done.includes(stage)) continue; // the kill before came after its end
        // In training after some steps of it, far enough to leave a checkpoint where the kill is to be late.
        const steps = late ? 3 : random.randbelow(4);
        const from = before.done.length === stages.indexOf(stage) ? before.checkpoint : 0;
        const step = isTraining(stage) ? Math.min(TINY_STEPS[stage] - 1, from + steps) : null;
        // The stages of the data have no steps: sooner in each trial, should the machine be faster than their wait.
        const longest = step === null ? STAGE_MS / (trial + 1) : STEP_MS;
        const ended = await killIn(run, stage, step, random.random() * longest);
        if (ended.signal === null) {
          expect(ended).toMatchObject({ code: 0 });
          break;
        }
        expect(ended.signal).toBe("SIGKILL");
        const after = await standing(run);
        hits.push({ ...after, stage: stages[after.done.length] });
      }
      const last = await nla.run(["train", config, "--run", run, "--json"]);
      expect(last).toMatchObject({ code: 0, signal: null });
      expect(await contents(run)).toEqual(expected);
    }
    const counts = stages.map((stage) => `${stage} ${hits.filter((hit) => hit.stage === stage).length}`);
    console.log(`${hits.length} kills: ${counts.join(", ")}`);
  }, 900_000);
});

/** Runs until `stage` reports `step`, then presses Ctrl-C. */
async function interruptAt(run: string, stage: string, step: number, json = true): Promise<Ended> {
  let pressed = false;
  return nla.run(["train", config, "--run", run, ...(json ? ["--json"] : [])], {
    onProgress(event, child) {
      if (pressed || event["stage"] !== stage || (event["step"] as number) < step) return;
      pressed = true;
      child.kill("SIGINT");
    },
  });
}

describe("Ctrl-C", () => {
  it("saves, says how to go on, and the run ends with the same bytes", async () => {
    const run = path.join(nla.folder, "interrupted");
    const moments = [
      ["extract", 16],
      ["ar_sft", 3],
      ["av_sft", 1],
      ["rl", 5],
    ] as const;
    for (const [stage, step] of moments) {
      const { code, signal, stdout, stderr } = await interruptAt(run, stage, step);
      expect({ code, signal, stderr }).toMatchObject({ code: 130, signal: null });
      expect(JSON.parse(stdout)).toMatchObject({ error: { code: "cli.interrupted" } });
      const note = stderr.split("\n").find((line) => line.includes('"event":"note"')) ?? "{}";
      const { text } = JSON.parse(note) as { text: string };
      expect(text).toContain(run);
      expect(text).toContain(`nla train ${config} --run ${run}`);
      const { done, checkpoint } = await standing(run);
      expect(stages[done.length]).toBe(stage);
      expect(checkpoint).toBeGreaterThanOrEqual(stage === "extract" ? 0 : step);
      expect(await readdir(run)).not.toContain("run.lock");
    }
    expect(await nla.run(["train", config, "--run", run])).toMatchObject({ code: 0, stdout: `${run}\n` });
    expect(await contents(run)).toEqual(expected);
  }, 240_000);
});

describe("the same seed", () => {
  it("gives the same weights in two processes, at one thread and at two", async () => {
    const set = ["reconstructor.steps=2", "verbalizer.steps=2", "rl.steps=2"].flatMap((each) => [
      "--set",
      each,
    ]);
    const weights = async (name: string, threads: number) => {
      const run = path.join(nla.folder, name);
      const args = ["train", config, "--run", run, ...set, "--set", `threads=${threads}`];
      expect(await nla.run(args)).toMatchObject({ code: 0 });
      const files = Object.entries(await contents(run)).filter(([file]) => file.endsWith(".safetensors"));
      return Object.fromEntries(files);
    };
    const one = await weights("one-thread", 1);
    expect(Object.keys(one)).toEqual(
      expect.arrayContaining(["reconstructor/value_head.safetensors", "verbalizer/model.safetensors"]),
    );
    expect(await weights("one-thread-again", 1)).toEqual(one);
    expect(await weights("two-threads", 2)).toEqual(one);
  }, 600_000);
});
