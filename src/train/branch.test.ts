// Arms from one warm start: a run that takes over another's data and warm start, with a frozen reconstructor and with labels continued.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { branchRun } from "./branch.js";
import { configDifferences, loadConfig } from "./config.js";
import { configSchema } from "./config-schema.js";
import { readRows } from "./metrics-log.js";
import { openProgress } from "./progress.js";
import { train } from "./run.js";
import { digestOfFile } from "./testing/tiny-training.js";

const few = { steps: 3, batch: 8, micro_batch: 8, lr: 1e-3 };
const configOf = (rl: object, more: object = {}) =>
  configSchema.parse({
    target: "smallworld",
    layer: 2,
    corpus: { path: "world:1", start: 7_000_000, length: 40 },
    positions: { per_document: 4, min_position: 5, max_length: 128 },
    splits: { ar_sft: 0.3, av_sft: 0.3, rl: 0.2, eval: 0.2 },
    labels: { kind: "world", keep: 0.4, most: 5 },
    reconstructor: few,
    verbalizer: few,
    rl: { steps: 2, prompts: 4, group: 2, micro_batch: 8, max_new_tokens: 12, lr_reconstructor: 1e-2, ...rl },
    log: { eval_every: 2, eval_rows: 8, sample_every: 2, checkpoint_every: 2 },
    threads: 1,
    ...more,
  });

let folder: string;
const at = (...parts: string[]) => path.join(folder, ...parts);
const start = async (name: string, config: ReturnType<typeof configOf>, from?: string) =>
  train(config, {
    directory: at(name),
    progress: openProgress({ stream: { write: () => true }, clock: () => 0, json: true, env: {} }),
    ...(from === undefined ? {} : { from: at(from) }),
  });
const shipped = (name: string) => loadConfig(path.resolve(import.meta.dirname, "../../configs", name));
const weights = (run: string, model: string) => digestOfFile(at(run, model, "model.safetensors"));

const logged = async (run: string) =>
  (await readRows(at(run, "metrics.jsonl"))).map(({ stage, step }) => `${String(stage)} ${String(step)}`);

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-branch-"));
  await start("first", configOf({}));
}, 120_000);
afterAll(() => rm(folder, { recursive: true }));

describe("a run from another's warm start", () => {
  it("the collapse run that ships can begin with the warm start of the run it warns of", async () => {
    const sound = await shipped("smallworld-rl.yaml");
    const differences = configDifferences(sound, await shipped("smallworld-collapse.yaml"));
    expect(differences.map(({ key }) => key).filter((key) => !/^(rl|log)\./.test(key))).toEqual([]);
    expect(differences.map(({ key }) => key)).toContain("rl.kl_coef");
  });

  it("ends as the other does where nothing differs, with the warm start's part of the log", async () => {
    await start("same", configOf({}), "first");
    for (const model of ["verbalizer", "reconstructor"])
      expect(await weights("same", model)).toBe(await weights("first", model));
    expect(await logged("same")).toEqual(await logged("first"));
  }, 120_000);

  it("leaves a frozen reconstructor as the warm start left it, and moves the verbalizer", async () => {
    await start("frozen", configOf({ freeze_reconstructor: true }), "first");
    const warm = (stage: string) => weights("first", path.join("checkpoints", stage, "final"));
    expect(await weights("frozen", "reconstructor")).toBe(await warm("ar_sft"));
    expect(await weights("frozen", "verbalizer")).not.toBe(await warm("av_sft"));
    expect(await weights("first", "reconstructor")).not.toBe(await warm("ar_sft"));
    const rows = await readRows(at("frozen", "metrics.jsonl"));
    expect(rows.filter(({ stage }) => stage === "rl")).toMatchObject([
      { loss_reconstructor: null },
      { loss_reconstructor: null },
    ]);
  }, 120_000);

  it("goes on with labels, both models, in rows that the warm start has not read", async () => {
    await start("labels", configOf({ objective: "labels" }), "first");
    const rows = (await readRows(at("labels", "metrics.jsonl"))).filter(({ stage }) => stage === "rl");
    expect(rows).toHaveLength(2);
    expect(rows[1]).toMatchObject({ loss: expect.any(Number) as number, eval: { n: 8 } });
    expect(rows[0]).not.toHaveProperty("reward_mean");
    for (const model of ["verbalizer", "reconstructor"])
      expect(await weights("labels", model)).not.toBe(await weights("first", model));
  }, 120_000);

  it("takes another run's reconstructor and its own warm start's as judges, and refuses one that is not there", async () => {
    const rl = { restart_reconstructor: 1, label_rows: 2, sentence_credit: 0.5 };
    await start("judged", configOf({ ...rl, judges: ["warm-start", at("first", "reconstructor")] }), "first");
    const rows = (await readRows(at("judged", "metrics.jsonl"))).filter(({ stage }) => stage === "rl");
    expect(rows).toHaveLength(2);
    for (const row of rows) {
      expect(row).toHaveProperty("loss_labels");
      expect(row).toHaveProperty("sentences_harmful");
    }
    await expect(start("unjudged", configOf({ judges: [at("nowhere")] }), "first")).rejects.toMatchObject({
      code: "judge.missing",
    });
  }, 120_000);

  it("goes on where it is, and refuses another warm start or none", async () => {
    const before = await readFile(at("frozen", "state.json"), "utf8");
    await branchRun(at("first"), at("frozen"), configOf({ freeze_reconstructor: true }));
    expect(await readFile(at("frozen", "state.json"), "utf8")).toBe(before);
    const longer = configOf({}, { verbalizer: { ...few, steps: 4 } });
    await expect(branchRun(at("first"), at("other"), longer)).rejects.toMatchObject({
      code: "branch.config",
      found: "a run with verbalizer.steps 3",
    });
    await expect(branchRun(at("nowhere"), at("other"), configOf({}))).rejects.toMatchObject({
      code: "branch.source",
      found: "no run",
    });
  });
});
