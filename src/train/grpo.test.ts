// The loop of reinforcement learning on a toy: eight activations, a pair that has seen them a little. Rewards rise, every number
// that the method asks for is logged, and an interrupted run ends with the bytes of one that never was.
import { mkdtemp, readdir, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { TrainConfigInput } from "./config-schema.js";
import { runGrpo } from "./grpo.js";
import { resumePoint } from "./loop.js";
import { readRows, withoutTiming } from "./metrics-log.js";
import type { LogRow } from "./metrics-log.js";
import {
  digestOf,
  inMemory,
  openTinyTraining,
  outputsIn,
  readPair,
  storageOf,
  temporaryFolder,
  tinyConfig,
  writeWarmPair,
} from "./testing/tiny-training.js";
import type { TinyTraining } from "./testing/tiny-training.js";
import type { RowSource } from "./warm-start.js";

type Vectors = RowSource<{ readonly vector: Float32Array }>;

let tiny: TinyTraining;
let warm: string;
beforeAll(async () => {
  tiny = await openTinyTraining(4);
  warm = await mkdtemp(path.join(os.tmpdir(), "nla-grpo-"));
  await writeWarmPair(tiny, warm, { rows: tiny.rows.slice(0, 8), steps: 15 });
});
afterAll(async () => {
  tiny[Symbol.dispose]();
  await rm(warm, { recursive: true });
});

interface Options {
  readonly rl?: NonNullable<TrainConfigInput["rl"]>;
  readonly rows?: Vectors;
  readonly signal?: AbortSignal;
  readonly from?: string;
  readonly checkpointEvery?: number;
  /** Defaults to 5. */
  readonly seed?: number;
}

/** Runs the stage as a run does: from the newest checkpoint in the folder, else from the warm start. */
async function reinforce(folder: string, options: Options = {}) {
  const {
    rl = {},
    rows = inMemory(tiny.rows.slice(0, 8)),
    signal,
    from = warm,
    checkpointEvery = 1000,
    seed = 5,
  } = options;
  const config = tinyConfig({
    rl: {
      prompts: 8,
      group: 4,
      micro_batch: 16,
      max_new_tokens: 12,
      lr_verbalizer: 2e-4,
      lr_reconstructor: 1e-4,
      ...rl,
    },
    log: { eval_every: 3, sample_every: 2, samples: 2 },
  });
  const labelled = { ...inMemory(tiny.rows), read: 3 };
  const outputs = outputsIn(folder, "rl", { checkpointEvery, ...(signal ? { signal } : {}) });
  const checkpoint = await resumePoint(outputs);
  using pair = await readPair(tiny, checkpoint?.directory ?? from);
  using frozen = await readPair(tiny, from);
  const before = digestOf(frozen.verbalizer.model.parameters.tensors);
  const context = {
    rows,
    heldOut: tiny.rows,
    settings: config.rl,
    log: config.log,
    compute: "f32" as const,
    seed,
    reference: frozen.verbalizer,
    judges: config.rl.judges.map(() => frozen.reconstructor),
    warmReconstructor: frozen.reconstructor,
    labels: { verbalizer: labelled, reconstructor: labelled },
    variance: 0.7,
    outputs,
  };
  await runGrpo(pair.verbalizer, pair.reconstructor, context, storageOf(pair));
  expect(digestOf(frozen.verbalizer.model.parameters.tensors)).toBe(before);
  return {
    rows: await readRows(outputs.metricsFile),
    samples: await readRows(outputs.samplesFile),
    verbalizer: digestOf(pair.verbalizer.model.parameters.tensors),
    reconstructor: digestOf(pair.reconstructor.trainable),
  };
}

/** A folder with a pair that has learnt nothing. */
async function untrained() {
  const folder = await temporaryFolder();
  using pair = tiny.pair();
  await storageOf(pair).save(folder.path);
  return folder;
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const column = (rows: readonly LogRow[], name: string) => rows.map((row) => row[name] as number);

describe("runGrpo", () => {
  it("raises the reward by moving the verbalizer alone", async () => {
    // The reconstructor moves by nothing, so that what rises is the explanations. Some samples are right from the start, and
    // a right one is worth 1.5 more than a wrong one: the bound is a quarter of what there is to gain.
    const rl = { steps: 15, group: 8, lr_verbalizer: 5e-4, lr_reconstructor: 1e-12, kl_coef: 0.001 };
    const rises: number[] = [];
    for (const seed of [5, 6, 7]) {
      await using folder = await temporaryFolder();
      const { rows } = await reinforce(folder.path, { rl, seed });
      const rewards = column(rows, "reward_mean");
      rises.push(mean(rewards.slice(-3)) - mean(rewards.slice(0, 3)));
      expect(column(rows, "kl")[0]).toBeLessThan(1e-9);
      expect(column(rows, "kl").at(-1)).toBeGreaterThan(1e-3);
    }
    // At this rate one run may be thrown back by a single step (a gradient norm of 11 once), and which one is a matter of the last
    // bit of a product: the median of three.
    expect(rises.toSorted((a, b) => a - b)[1], `rises of ${rises.join(", ")}`).toBeGreaterThan(0.25);
  });

  it("logs every number of a step, and measures and samples at their intervals", async () => {
    await using folder = await temporaryFolder();
    const { rows, samples } = await reinforce(folder.path, {
      rl: { steps: 4, schedule: "linear", warmup: 1 },
    });
    expect(rows.map(({ step }) => step)).toEqual([0, 1, 2, 3]);
    const numbers = [
      "loss",
      "loss_reconstructor",
      "reward_mean",
      "reward_std",
      "fve",
      "variance",
      "entropy",
      "length",
      "failed",
      "truncated",
      "kl",
      "clip_fraction",
      "groups_dropped",
      "learning_rate",
      "learning_rate_reconstructor",
      "gradient_norm",
      "gradient_norm_reconstructor",
      "skipped",
      "skipped_reconstructor",
    ];
    for (const row of rows) {
      for (const name of numbers)
        expect(Number.isFinite(row[name]), `${name} of step ${row.step}`).toBe(true);
      expect(Object.keys(row.timing ?? {}).sort()).toEqual(
        [
          "seconds",
          "seconds_rollout",
          "seconds_reward",
          "seconds_update",
          "seconds_evaluate",
          "tokens_per_second",
        ].sort(),
      );
      expect(row.timing!.seconds).toBeGreaterThan(row.timing!.seconds_rollout!);
      expect(row.failed as number).toBeGreaterThanOrEqual(row.truncated as number);
      // FVE of the rollouts: the mean error over the variance, a failed one counted as nothing explained.
      expect(row.variance).toBe(0.7);
    }
    expect(rows.map(({ eval: fields }) => fields !== undefined)).toEqual([false, false, true, true]);
    expect(Object.keys(rows[2]!.eval as object).sort()).toEqual(
      [
        "n",
        "fve",
        "fve_meannorm",
        "variance",
        "variance_meannorm",
        "shuffled_fve",
        "length",
        "failed",
      ].sort(),
    );
    expect(rows[2]!.eval).toMatchObject({ n: 16 });
    expect(samples.map(({ step, row }) => [step, row])).toEqual([
      [1, 0],
      [1, 1],
      [3, 0],
      [3, 1],
    ]);
    expect(samples[0]).toMatchObject({
      stage: "rl",
      doc_id: "bit:0",
      position: 14,
      text: tiny.rows[0]!.text,
    });
  });

  it("lets both models learn from one step, the reconstructor from explanations that did not fail", async () => {
    await using folder = await temporaryFolder();
    using pair = await readPair(tiny, warm);
    const start = {
      verbalizer: digestOf(pair.verbalizer.model.parameters.tensors),
      reconstructor: digestOf(pair.reconstructor.trainable),
    };
    const learnt = await reinforce(folder.path, { rl: { steps: 1 } });
    expect(learnt.verbalizer).not.toBe(start.verbalizer);
    expect(learnt.reconstructor).not.toBe(start.reconstructor);
    // Before its step: the mean error of exactly those explanations.
    const [row] = learnt.rows;
    const failed = row!.failed as number;
    const mse = (1 - (row!.fve as number)) * 0.7;
    expect(row!.loss_reconstructor).toBeCloseTo((mse - failed * 0.7) / (1 - failed), 4);
  });

  it("takes several updates, the logarithm as reward, and two steps on different activations", async () => {
    await using folder = await temporaryFolder();
    const rl = {
      steps: 2,
      prompts: 6,
      updates_per_batch: 2,
      clip_range: 0.02,
      reward: "log_mse",
      failed_penalty: -5,
    } as const;
    const { rows } = await reinforce(folder.path, { rl });
    expect(column(rows, "clip_fraction").every((value) => value > 0 && value <= 1)).toBe(true);
    // -log of an error below one is above zero; -2 (1 - cos) never is.
    expect(Math.max(...column(rows, "reward_mean"), ...column(rows, "reward_std"))).toBeGreaterThan(0);
    expect(column(rows, "reward_std")[0]).toBeGreaterThan(1);
  });

  it("takes the next activations at each step, and samples anew", async () => {
    await using folder = await temporaryFolder();
    const asked: number[][] = [];
    const source = inMemory(tiny.rows.slice(0, 8));
    // Every activation is the first one, and neither model moves: what differs from step to step is the draw.
    const rows: Vectors = {
      rowCount: 8,
      rows(indices) {
        asked.push([...indices]);
        return source.rows(indices.map(() => 0));
      },
    };
    const rl = { steps: 4, prompts: 3, lr_verbalizer: 1e-12, lr_reconstructor: 1e-12 };
    const found = await reinforce(folder.path, { rl, rows });
    expect(asked).toEqual([
      [0, 1, 2],
      [3, 4, 5],
      [6, 7, 0],
      [1, 2, 3],
    ]);
    expect(new Set(column(found.rows, "entropy")).size).toBe(4);
  });

  it("leaves out groups of equal rewards, or trains them on KL alone", async () => {
    // An untrained verbalizer does not end after one token: every explanation fails, and every group is equal.
    const rl = { steps: 2, max_new_tokens: 1 };
    await using from = await untrained();
    await using dropping = await temporaryFolder();
    const dropped = await reinforce(dropping.path, { rl, from: from.path });
    expect(dropped.rows[0]).toMatchObject({
      groups_dropped: 8,
      failed: 1,
      reward_mean: -2,
      reward_std: 0,
      loss: null,
      kl: null,
    });
    await using keeping = await temporaryFolder();
    const kept = await reinforce(keeping.path, { rl: { ...rl, drop_zero_variance: false }, from: from.path });
    expect(kept.rows[0]).toMatchObject({ groups_dropped: 0, loss_reconstructor: null });
    // On the policy, and without an advantage, there is nothing to learn.
    expect(Math.abs(kept.rows[0]!.loss as number)).toBeLessThan(1e-9);
    expect(kept.rows[0]!.gradient_norm).toBeLessThan(1e-4);
  });
});

/** What the reconstructor's losses are over three steps in which the verbalizer stays where it is, so that all draw the same explanations. */
async function lossesWith(rl: NonNullable<TrainConfigInput["rl"]>): Promise<number[]> {
  await using folder = await temporaryFolder();
  const { rows } = await reinforce(folder.path, { rl: { steps: 3, lr_verbalizer: 1e-12, ...rl } });
  return column(rows, "loss_reconstructor");
}

describe("what may steady it", () => {
  it("labels in every step pull the verbalizer towards them, where rewards alone do not", async () => {
    await using folder = await temporaryFolder();
    // Without a policy loss to speak of, so that what the labels do is seen alone.
    const rl = { steps: 12, prompts: 2, group: 2, kl_coef: 0, lr_verbalizer: 1e-3, label_weight: 100 };
    const { rows } = await reinforce(folder.path, { rl: { ...rl, label_rows: 16 } });
    const losses = column(rows, "loss_labels");
    expect(mean(losses.slice(-3))).toBeLessThan(mean(losses.slice(0, 3)) - 0.3);
    // The reconstructor reads them as well: 16 labels beside four explanations.
    await using without = await temporaryFolder();
    const alone = await reinforce(without.path, { rl: { ...rl, steps: 1 } });
    expect(alone.rows[0]!.loss_reconstructor).not.toBe(rows[0]!.loss_reconstructor);
    expect(alone.rows[0]).not.toHaveProperty("loss_labels");
  });

  it("a reconstructor that begins anew before step 2 is the warm start's there", async () => {
    const never = await lossesWith({ lr_reconstructor: 1e-3 });
    const anew = await lossesWith({ lr_reconstructor: 1e-3, restart_reconstructor: 2 });
    const still = await lossesWith({ lr_reconstructor: 1e-12 });
    expect(anew.slice(0, 2)).toEqual(never.slice(0, 2));
    expect(anew[2]).toBeCloseTo(still[2]!, 5);
    expect(never[2]).toBeLessThan(still[2]! - 0.02);
  });

  it("a frozen judge holds the reward, and credit by sentence is logged", async () => {
    await using folder = await temporaryFolder();
    const rl = { steps: 3, lr_verbalizer: 1e-12, lr_reconstructor: 3e-3 };
    const live = await reinforce(folder.path, { rl });
    await using judged = await temporaryFolder();
    const both = await reinforce(judged.path, {
      rl: { ...rl, judges: ["warm-start"], judgement: "worst", sentence_credit: 0.5 },
    });
    const last = (rows: readonly LogRow[]) => column(rows, "reward_mean").at(-1)!;
    // The live one gets better at the same explanations, and the frozen one does not.
    expect(last(live.rows)).toBeGreaterThan(column(live.rows, "reward_mean")[0]! + 0.05);
    expect(last(both.rows)).toBeLessThan(last(live.rows) - 0.05);
    for (const row of both.rows) {
      expect(row.sentences_harmful).toBeGreaterThanOrEqual(0);
      expect(row.sentences_harmful).toBeLessThanOrEqual(1);
    }
    expect(live.rows[0]).not.toHaveProperty("sentences_harmful");
  });
});

describe("an interrupted run", () => {
  it.each([
    ["plain", {}],
    [
      "with labels, judges, sentence credit and a reconstructor that begins anew",
      {
        label_rows: 5,
        judges: ["warm-start"],
        sentence_credit: 0.5,
        restart_reconstructor: 3,
      },
    ],
  ])("saves, stops, and ends as one that was never stopped: %s", async (_, more) => {
    const rl = { steps: 5, updates_per_batch: 2, ...more };
    await using whole = await temporaryFolder();
    await using parts = await temporaryFolder();
    const undisturbed = await reinforce(whole.path, { rl, checkpointEvery: 2 });
    const checkpoints = path.join(parts.path, "checkpoints", "rl");
    for (const [stopAt, saved] of [
      [2, "step-000001"],
      [3, "step-000003"],
    ] as const) {
      const stopping = new AbortController();
      let reads = 0;
      const source = inMemory(tiny.rows.slice(0, 8));
      const rows: Vectors = {
        rowCount: 8,
        rows(indices) {
          if (++reads === stopAt) stopping.abort(new Error("SIGINT"));
          return source.rows(indices);
        },
      };
      const stopped = reinforce(parts.path, { rl, rows, signal: stopping.signal, checkpointEvery: 2 });
      await expect(stopped).rejects.toThrow("SIGINT");
      expect((await readdir(checkpoints)).at(-1)).toBe(saved);
    }
    const resumed = await reinforce(parts.path, { rl, checkpointEvery: 2 });
    expect(resumed.verbalizer).toBe(undisturbed.verbalizer);
    expect(resumed.reconstructor).toBe(undisturbed.reconstructor);
    expect(resumed.rows.map(withoutTiming)).toEqual(undisturbed.rows.map(withoutTiming));
    expect(resumed.samples).toEqual(undisturbed.samples);
    expect(resumed.rows.length).toBe(5);
    expect(await readdir(checkpoints)).toEqual(await readdir(path.join(whole.path, "checkpoints", "rl")));
  });

  it("that has collapsed is told so after ten steps, those before the interruption counted", async () => {
    await using folder = await temporaryFolder();
    await using untrainedPair = await untrained();
    const from = untrainedPair.path;
    const rl = { steps: 20, prompts: 2, group: 2, max_new_tokens: 1 };
    const stopping = new AbortController();
    let reads = 0;
    const source = inMemory(tiny.rows.slice(0, 8));
    const rows: Vectors = {
      rowCount: 8,
      rows(indices) {
        if (++reads === 7) stopping.abort(new Error("SIGINT"));
        return source.rows(indices);
      },
    };
    await expect(reinforce(folder.path, { rl, from, rows, signal: stopping.signal })).rejects.toThrow(
      "SIGINT",
    );
    await expect(reinforce(folder.path, { rl, from })).rejects.toMatchObject({
      code: "rl.no-signal",
      subject: "reinforcement learning, step 9",
      next: expect.stringContaining("raise kl_coef") as string,
    });
  });
});
