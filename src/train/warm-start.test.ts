// Both warm starts on a handful of activations of the bundled target: they learn, they log what the method asks for, and an
// interrupted one ends with the bytes of one that never was.
import { readdir } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadReconstructor, loadVerbalizer } from "../nla/pair-files.js";
import { resumePoint } from "./loop.js";
import { readRows, withoutTiming } from "./metrics-log.js";
import type { LogRow } from "./metrics-log.js";
import {
  digestOf,
  inMemory,
  openTinyTraining,
  outputsIn,
  storageOf,
  temporaryFolder,
  tinyConfig,
} from "./testing/tiny-training.js";
import type { TinyTraining } from "./testing/tiny-training.js";
import type { RowSource, LabelledRow, WarmStartContext } from "./warm-start.js";
import { warmStartReconstructor, warmStartVerbalizer } from "./warm-start.js";

let tiny: TinyTraining;
beforeAll(async () => {
  tiny = await openTinyTraining(10);
});
afterAll(() => tiny[Symbol.dispose]());

const trained = () => tiny.rows.slice(0, 32);
const heldOut = () => tiny.rows.slice(32);

function contextFor(
  folder: string,
  stage: "ar_sft" | "av_sft",
  keys: object,
  {
    rows = inMemory(trained()),
    signal,
    measuredOn = heldOut(),
    checkpointEvery = 1000,
  }: {
    rows?: RowSource<LabelledRow>;
    signal?: AbortSignal;
    checkpointEvery?: number;
    measuredOn?: WarmStartContext["heldOut"];
  } = {},
): WarmStartContext {
  const config = tinyConfig({
    reconstructor: { batch: 8, micro_batch: 4, warmup: 2, schedule: "constant", ...keys },
    log: { eval_every: 4, sample_every: 3, samples: 2 },
  });
  const outputs = outputsIn(folder, stage, { checkpointEvery, ...(signal ? { signal } : {}) });
  return {
    rows,
    heldOut: measuredOn,
    settings: config.reconstructor,
    log: config.log,
    compute: "f32",
    maxNewTokens: 12,
    outputs,
  };
}

function lossesOf(rows: readonly LogRow[]): number[] {
  return rows.map(({ loss }) => loss as number);
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

describe("the reconstructor's warm start", () => {
  it("lowers the loss and logs the held-out FVE of labels with both denominators", async () => {
    await using folder = await temporaryFolder();
    using pair = tiny.pair();
    const context = contextFor(folder.path, "ar_sft", { steps: 24, lr: 1e-3 });
    await warmStartReconstructor(
      pair.reconstructor,
      context,
      storageOf({ reconstructor: pair.reconstructor }),
    );
    const rows = await readRows(context.outputs.metricsFile);
    expect(rows.map(({ step }) => step)).toEqual(Array.from({ length: 24 }, (_, i) => i));
    const losses = lossesOf(rows);
    // Three epochs of four steps; the first knows nothing.
    expect(mean(losses.slice(20))).toBeLessThan(0.5 * mean(losses.slice(0, 4)));
    expect(rows[0]).toMatchObject({ stage: "ar_sft", learning_rate: 5e-4, skipped: 0 });
    expect(rows[0]?.timing).toMatchObject({
      seconds: expect.any(Number),
      tokens_per_second: expect.any(Number),
    });
    const evaluated = rows.filter(({ eval: fields }) => fields !== undefined);
    expect(evaluated.map(({ step }) => step)).toEqual([3, 7, 11, 15, 19, 23]);
    const { n, fve, fve_meannorm, variance, variance_meannorm } = evaluated.at(-1)!.eval as Record<
      string,
      number
    >;
    expect(n).toBe(8);
    // One and the same error over either denominator.
    expect((1 - fve!) * variance!).toBeCloseTo((1 - fve_meannorm!) * variance_meannorm!, 10);
    expect(variance_meannorm).toBeGreaterThan(variance!);
  });

  it("measures nothing where no held-out row has a label", async () => {
    await using folder = await temporaryFolder();
    using pair = tiny.pair();
    const measuredOn = heldOut().map(({ vector, docId, position, text }) => {
      return { vector, docId, position, text, label: null };
    });
    const context = contextFor(folder.path, "ar_sft", { steps: 2, lr: 1e-3 }, { measuredOn });
    await warmStartReconstructor(
      pair.reconstructor,
      context,
      storageOf({ reconstructor: pair.reconstructor }),
    );
    expect((await readRows(context.outputs.metricsFile)).map(({ eval: fields }) => fields)).toEqual([
      undefined,
      undefined,
    ]);
  });
});

describe("the verbalizer's warm start", () => {
  it("lowers the loss and comes to read the activation: the gap to other rows' activations grows", async () => {
    await using folder = await temporaryFolder();
    using pair = tiny.pair();
    // Measured on the rows it learns, so that a few steps show it.
    const measuredOn = trained().slice(0, 16);
    const context = contextFor(
      folder.path,
      "av_sft",
      { steps: 60, batch: 16, micro_batch: 16, lr: 3e-3 },
      { measuredOn, rows: inMemory(measuredOn) },
    );
    const log = { ...context.log, eval_every: 30, sample_every: 1000 };
    const { verbalizer } = pair;
    await warmStartVerbalizer(verbalizer, pair.reconstructor, { ...context, log }, storageOf({ verbalizer }));
    const rows = await readRows(context.outputs.metricsFile);
    const losses = lossesOf(rows);
    expect(mean(losses.slice(-4))).toBeLessThan(0.3 * mean(losses.slice(0, 4)));
    const [half, end] = rows.filter(({ gap }) => gap !== undefined);
    expect([half?.step, end?.step]).toEqual([29, 59]);
    for (const { gap, loss_real, loss_shuffled } of [half!, end!]) {
      expect(gap).toBe((loss_shuffled as number) - (loss_real as number));
    }
    // Nats per token. A verbalizer that does not look at its activation has no gap.
    expect(end!.gap).toBeGreaterThan(1);
    expect(end!.gap).toBeGreaterThan(half!.gap as number);
    const explained = await verbalizer.explain(
      measuredOn.map(({ vector }) => vector),
      { maxNewTokens: 12 },
    );
    const right = explained.filter(({ text }, i) => text === measuredOn[i]!.label).length;
    expect(right).toBeGreaterThan(measuredOn.length / 2);
    const fields = end!.eval as Record<string, number>;
    expect(Object.keys(fields).sort()).toEqual(
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
    expect(fields.failed).toBeLessThan(0.5);
    expect(fields.length).toBe(mean(explained.map(({ tokens }) => tokens.length)));
  });

  it("writes samples at their own interval, with what reinforcement learning would pay", async () => {
    await using folder = await temporaryFolder();
    using pair = tiny.pair();
    const { verbalizer } = pair;
    const context = contextFor(folder.path, "av_sft", { steps: 7, lr: 3e-3 });
    await warmStartVerbalizer(verbalizer, pair.reconstructor, context, storageOf({ verbalizer }));
    const samples = await readRows(context.outputs.samplesFile);
    // Every third step and the last; measured every fourth.
    expect(samples.map(({ step, row }) => [step, row])).toEqual(
      [2, 5, 6].flatMap((step) => [
        [step, 0],
        [step, 1],
      ]),
    );
    for (const { explanation, mse, reward, doc_id, position, text } of samples) {
      expect({ doc_id, position }).toEqual({ doc_id: "bit:8", position: expect.any(Number) as number });
      expect(text).toEqual(expect.any(String));
      expect(reward).toBe(mse === null ? -2 : -(mse as number));
      if (explanation === null) expect(mse).toBeNull();
    }
  });
});

describe.each(["ar_sft", "av_sft"] as const)("an interrupted %s", (stage) => {
  /** Runs the stage as a run does: from the newest checkpoint in the folder, else from the start. */
  async function runStage(
    folder: string,
    options: { rows?: RowSource<LabelledRow>; signal?: AbortSignal } = {},
  ) {
    using pair = tiny.pair();
    const context = contextFor(folder, stage, { steps: 7, lr: 1e-3 }, { ...options, checkpointEvery: 2 });
    const checkpoint = await resumePoint(context.outputs);
    const inside = (name: string) => path.join(checkpoint?.directory ?? "", name);
    if (stage === "ar_sft") {
      using loaded = checkpoint && (await loadReconstructor(inside("reconstructor"), tiny.device)).model;
      const reconstructor = loaded ?? pair.reconstructor;
      await warmStartReconstructor(reconstructor, context, storageOf({ reconstructor }));
      return digestOf(reconstructor.trainable);
    }
    using loaded = checkpoint && (await loadVerbalizer(inside("verbalizer"), tiny.device)).model;
    const verbalizer = loaded ?? pair.verbalizer;
    await warmStartVerbalizer(verbalizer, pair.reconstructor, context, storageOf({ verbalizer }));
    return digestOf(verbalizer.model.parameters.tensors);
  }

  it("saves, stops, and ends as one that was never stopped", async () => {
    await using whole = await temporaryFolder();
    await using parts = await temporaryFolder();
    const undisturbed = await runStage(whole.path);

    const checkpoints = path.join(parts.path, "checkpoints", stage);
    // Stopped in steps 3 and 5, which are then not done; the checkpoints in between are not due ones.
    for (const [stopAt, saved] of [
      [4, "step-000003"],
      [3, "step-000005"],
    ] as const) {
      const stopping = new AbortController();
      const source = inMemory<LabelledRow>(trained());
      let reads = 0;
      const rows: RowSource<LabelledRow> = {
        rowCount: source.rowCount,
        rows(indices) {
          if (++reads === stopAt) stopping.abort(new Error("SIGINT"));
          return source.rows(indices);
        },
      };
      await expect(runStage(parts.path, { rows, signal: stopping.signal })).rejects.toThrow("SIGINT");
      expect((await readdir(checkpoints)).at(-1)).toBe(saved);
    }
    expect(await runStage(parts.path)).toBe(undisturbed);
    for (const file of ["metrics.jsonl", "samples.jsonl"]) {
      const [wanted, found] = await Promise.all(
        [whole, parts].map(({ path: folder }) => readRows(path.join(folder, file))),
      );
      expect(found!.map(withoutTiming)).toEqual(wanted!.map(withoutTiming));
      if (file === "metrics.jsonl") expect(wanted!.length).toBe(7);
    }
    expect(await readdir(checkpoints)).toEqual(await readdir(path.join(whole.path, "checkpoints", stage)));
    // A finished stage does nothing when it is run again.
    expect(await runStage(parts.path)).toBe(undisturbed);
  });
});
