// An optimizer step over micro-batches: the same as over one batch, whole or not at all, and continued bit for bit from disk.
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadReconstructor } from "../nla/pair-files.js";
import { Reconstructor } from "../nla/reconstructor.js";
import { adamw } from "../tensor/index.js";
import type { AdamwState, Optimizer, Tensor } from "../tensor/index.js";
import { LossGraphs } from "./loss-graphs.js";
import { reconstructorTrainer, regressionBatches, regressionLoss } from "./reconstructor-step.js";
import type { RegressionBatch, RegressionRow } from "./reconstructor-step.js";
import { responseBatches, responseShape } from "./response-batch.js";
import type { ResponseBatch } from "./response-batch.js";
import {
  digestOf,
  digestOfFile,
  openTinyTraining,
  storageOf,
  temporaryFolder,
} from "./testing/tiny-training.js";
import type { TinyTraining } from "./testing/tiny-training.js";
import { Trainer } from "./trainer.js";
import { labelLoss, labelTrainer } from "./verbalizer-step.js";
import type { LabelRow } from "./verbalizer-step.js";

let tiny: TinyTraining;
beforeAll(async () => {
  tiny = await openTinyTraining(8);
});
afterAll(() => tiny[Symbol.dispose]());

/** Texts of eight length classes, so that micro-batches of one need eight graphs. */
function longRows(): RegressionRow[] {
  return Array.from({ length: 8 }, (_, i) => {
    const text = "the king and the queen went home again ".repeat(9).slice(0, 12 + 34 * i);
    return { text, vector: tiny.rows[4 * i]!.vector };
  });
}

function shortRows(): RegressionRow[] {
  return tiny.rows.slice(0, 12).map(({ label, vector }) => ({ text: label, vector }));
}

type Values = ReadonlyMap<string, Float32Array>;

function valuesOf(parameters: ReadonlyMap<string, Tensor>): Values {
  return new Map([...parameters].map(([name, tensor]) => [name, tensor.readF32()]));
}

/** How far two sets of values are apart, relative to the largest change from `start`. */
function apart(a: Values, b: Values, start: Values): number {
  let farthest = 0;
  let change = 0;
  for (const [name, values] of a) {
    values.forEach((value, i) => {
      farthest = Math.max(farthest, Math.abs(value - b.get(name)![i]!));
      change = Math.max(change, Math.abs(value - start.get(name)![i]!));
    });
  }
  return farthest / change;
}

// Adam divides by the gradient's own size, which turns rounding of a gradient that is nearly zero into a whole step. With an
// eps far above the gradients the step is linear in them.
function linear(): Optimizer<AdamwState> {
  return adamw({ eps: 100, clipNorm: null });
}

describe("micro-batches", () => {
  it.each([
    ["reconstructor, eight lengths in micro-batches of one", 1],
    ["reconstructor, micro-batches of three", 3],
  ])("of a %s give the step of one batch", async (_, microBatch) => {
    const after: Values[] = [];
    let start: Values | null = null;
    const norms: number[] = [];
    const losses: number[] = [];
    for (const size of [8, microBatch]) {
      using pair = tiny.pair();
      start ??= valuesOf(pair.reconstructor.trainable);
      const batches = regressionBatches(pair.reconstructor, longRows(), size);
      expect(batches.length).toBe(Math.ceil(8 / size));
      using trainer = reconstructorTrainer(pair.reconstructor, linear(), "f32");
      const { loss, gradientNorm, skipped } = await trainer.step(batches, 10);
      expect(skipped).toBe(false);
      norms.push(gradientNorm);
      losses.push(loss);
      after.push(valuesOf(pair.reconstructor.trainable));
    }
    expect(apart(after[0]!, after[1]!, start!)).toBeLessThan(1e-5);
    expect(Math.abs(norms[0]! / norms[1]! - 1)).toBeLessThan(1e-5);
    expect(Math.abs(losses[0]! / losses[1]! - 1)).toBeLessThan(1e-5);
  });

  it("of a verbalizer give the step of one batch", async () => {
    const after: Values[] = [];
    let start: Values | null = null;
    for (const size of [9, 4, 1]) {
      using pair = tiny.pair();
      const { verbalizer } = pair;
      start ??= valuesOf(verbalizer.model.parameters.tensors);
      const rows = tiny.rows.slice(0, 9).map(({ vector, text }, i) => {
        return { vector, response: verbalizer.tokenizer.encode(text!.slice(0, 4 + 6 * i)), weight: 1 / 9 };
      });
      using trainer = labelTrainer(verbalizer, linear(), "f32");
      await trainer.step(responseBatches(verbalizer, rows, size), 10);
      after.push(valuesOf(verbalizer.model.parameters.tensors));
    }
    expect(apart(after[0]!, after[1]!, start!)).toBeLessThan(1e-5);
    expect(apart(after[0]!, after[2]!, start!)).toBeLessThan(1e-5);
  });

  it("and a joined loss are one step with what both ask for", async () => {
    const after: Values[] = [];
    let start: Values | null = null;
    for (const joining of [false, true]) {
      using pair = tiny.pair();
      const { verbalizer } = pair;
      start ??= valuesOf(verbalizer.model.parameters.tensors);
      const rows = tiny.rows.slice(0, 8).map(({ vector, text }, i) => {
        return { vector, response: verbalizer.tokenizer.encode(text!.slice(0, 4 + 6 * i)), weight: 1 / 8 };
      });
      using trainer = labelTrainer(verbalizer, linear(), "f32");
      using graphs = trainer.joined<ResponseBatch<LabelRow>>({
        device: tiny.device,
        compute: "f32",
        build: (g, micro) => labelLoss(g, verbalizer, micro),
        shapeOf: responseShape,
      });
      const [own, others] = joining ? [rows.slice(0, 3), rows.slice(3)] : [rows, []];
      const batches = (of: typeof rows) => responseBatches(verbalizer, of, 4);
      await trainer.step(batches(own), 10, undefined, () => graphs.run(batches(others)));
      after.push(valuesOf(verbalizer.model.parameters.tensors));
    }
    expect(apart(after[0]!, after[1]!, start!)).toBeLessThan(1e-5);
  });

  it("after a restart are as after none: no moment of before is left", async () => {
    const after: string[] = [];
    for (const before of [0, 3]) {
      using pair = tiny.pair();
      const { reconstructor } = pair;
      const start = [...reconstructor.trainable].map(([name, tensor]) => [name, tensor.readF32()] as const);
      using trainer = reconstructorTrainer(reconstructor, adamw(), "f32");
      const batches = regressionBatches(reconstructor, shortRows(), 12);
      for (let i = 0; i < before; i++) await trainer.step(batches, 1e-3);
      for (const [name, values] of start) reconstructor.trainable.get(name)!.write(values);
      trainer.restart();
      expect(trainer.counters).toEqual({ steps: 0, skipped: 0 });
      for (let i = 0; i < 2; i++) await trainer.step(batches, 1e-3);
      after.push(digestOf(reconstructor.trainable));
    }
    expect(after[1]).toBe(after[0]);
  });

  it("need few graphs: the one used longest ago goes, and comes back the same", async () => {
    using pair = tiny.pair();
    const { reconstructor } = pair;
    let built = 0;
    using graphs = new LossGraphs<RegressionBatch>({
      device: tiny.device,
      compute: "f32",
      build: (g, micro) => {
        built++;
        return regressionLoss(g, reconstructor, micro);
      },
      shapeOf: ({ batch }) => String(batch.length),
    });
    const batches = regressionBatches(reconstructor, longRows(), 1);
    const first = await graphs.run(batches);
    expect([built, graphs.size]).toEqual([8, 6]);
    expect((await graphs.run(batches.slice(-6))).outputs).toEqual(first.outputs.slice(-6));
    expect(built).toBe(8);
    await graphs.run([batches[2]!, batches[0]!]); // 2 is the newest now, 0 takes the place of 3
    await graphs.run([batches[2]!]);
    expect(built).toBe(9);
    await graphs.run([batches[3]!]);
    expect(built).toBe(10);
    expect(await graphs.run(batches)).toEqual(first);
  });
});

describe("a step is whole or not at all", () => {
  it.each(["between micro-batches", "before the update"])("where it is aborted %s", async (when) => {
    using pair = tiny.pair();
    const { reconstructor } = pair;
    const batches = regressionBatches(reconstructor, shortRows(), 4);
    const aborting = new AbortController();
    const inner = adamw();
    let watched = false;
    let runs = 0;
    const optimizer: Optimizer<AdamwState> = {
      init: inner.init,
      update(state, learningRate, signal) {
        if (watched && when === "before the update") aborting.abort(new Error("stop here"));
        return inner.update(state, learningRate, signal);
      },
    };
    using trainer = new Trainer<RegressionBatch>({
      device: tiny.device,
      parameters: reconstructor.trainable,
      optimizer,
      compute: "f32",
      build: (g, micro) => regressionLoss(g, reconstructor, micro),
      shapeOf: ({ batch }) => {
        if (watched && when === "between micro-batches" && ++runs === 2)
          aborting.abort(new Error("stop here"));
        return `${batch.rows}x${batch.length}`;
      },
    });
    await trainer.step(batches, 1e-3);
    await using folder = await temporaryFolder();
    const moments = async (name: string) => {
      await trainer.save(folder.path, name);
      return digestOfFile(path.join(folder.path, `${name}.safetensors`));
    };
    const before = { values: digestOf(reconstructor.trainable), moments: await moments("before") };
    watched = true;
    await expect(trainer.step(batches, 1e-3, aborting.signal)).rejects.toThrow("stop here");
    watched = false;
    expect(digestOf(reconstructor.trainable)).toBe(before.values);
    expect(await moments("after")).toBe(before.moments);
    expect(trainer.counters).toEqual({ steps: 1, skipped: 0 });

    // What the aborted step had added up does not reach the next.
    await trainer.step(batches, 1e-3);
    using undisturbed = tiny.pair();
    using other = reconstructorTrainer(undisturbed.reconstructor, adamw(), "f32");
    const same = regressionBatches(undisturbed.reconstructor, shortRows(), 4);
    for (let i = 0; i < 2; i++) await other.step(same, 1e-3);
    expect(digestOf(reconstructor.trainable)).toBe(digestOf(undisturbed.reconstructor.trainable));
  });

  it("where a gradient is not finite: skipped, counted, and forgotten", async () => {
    using pair = tiny.pair();
    // With no scale the loss is of the vectors themselves, and so are the gradients.
    const contract = { ...pair.reconstructor.contract, mseScale: null };
    using reconstructor = new Reconstructor(
      pair.reconstructor.model.copy(),
      pair.reconstructor.tokenizer,
      contract,
    );
    using trainer = reconstructorTrainer(reconstructor, adamw(), "f32");
    const good = regressionBatches(reconstructor, shortRows(), 4);
    const huge = shortRows().map(({ text }) => ({ text, vector: new Float32Array(64).fill(1e30) }));
    await trainer.step(good, 1e-3);
    const before = digestOf(reconstructor.trainable);
    const report = await trainer.step(regressionBatches(reconstructor, huge, 4), 1e-3);
    expect(report).toMatchObject({ skipped: true, loss: Infinity });
    expect(Number.isFinite(report.gradientNorm)).toBe(false);
    expect(trainer.counters).toEqual({ steps: 1, skipped: 1 });
    expect(digestOf(reconstructor.trainable)).toBe(before);
    const next = await trainer.step(good, 1e-3);
    expect(next.skipped).toBe(false);
    expect(Number.isFinite(next.gradientNorm)).toBe(true);
    expect(trainer.counters).toEqual({ steps: 2, skipped: 1 });
  });
});

describe("a saved trainer", () => {
  it("goes on bit for bit, in another model of the same weights", async () => {
    await using folder = await temporaryFolder();
    const checkpoint = path.join(folder.path, "checkpoint");
    await mkdir(path.join(checkpoint, "reconstructor"), { recursive: true });
    using pair = tiny.pair();
    using trainer = reconstructorTrainer(pair.reconstructor, adamw({ weightDecay: 0.1 }), "f32");
    const batches = regressionBatches(pair.reconstructor, shortRows(), 5);
    for (let i = 0; i < 2; i++) await trainer.step(batches, 1e-3);
    await storageOf({ reconstructor: pair.reconstructor }).save(checkpoint);
    await trainer.save(checkpoint, "optimizer");
    const { counters } = trainer;
    for (let i = 0; i < 2; i++) await trainer.step(batches, 1e-3);

    using loaded = (await loadReconstructor(path.join(checkpoint, "reconstructor"), tiny.device)).model;
    using resumed = reconstructorTrainer(loaded, adamw({ weightDecay: 0.1 }), "f32");
    await resumed.restore(checkpoint, "optimizer", counters);
    expect(resumed.counters).toEqual({ steps: 2, skipped: 0 });
    for (let i = 0; i < 2; i++) await resumed.step(regressionBatches(loaded, shortRows(), 5), 1e-3);
    expect(digestOf(loaded.trainable)).toBe(digestOf(pair.reconstructor.trainable));
  });

  it("is not taken for another model's", async () => {
    await using folder = await temporaryFolder();
    using pair = tiny.pair();
    using trainer = reconstructorTrainer(pair.reconstructor, adamw(), "f32");
    await trainer.save(folder.path, "optimizer");
    using other = labelTrainer(pair.verbalizer, adamw(), "f32");
    await expect(other.restore(folder.path, "optimizer", { steps: 1, skipped: 0 })).rejects.toMatchObject({
      code: "train.moments",
      subject: expect.stringContaining("optimizer.safetensors, tensor m.") as string,
    });
  });
});
