// The regression loss: the reference's values and gradients where a case can stand here, and the scores of nla/fidelity.ts.
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { normalised, reconstructionScores } from "../nla/fidelity.js";
import { adamw, Device, Graph } from "../tensor/index.js";
import { LossGraphs } from "./loss-graphs.js";
import {
  directionLoss,
  reconstructorTrainer,
  regressionBatches,
  regressionLoss,
} from "./reconstructor-step.js";
import type { RegressionBatch } from "./reconstructor-step.js";
import { openTinyTraining } from "./testing/tiny-training.js";

interface GoldenCase {
  readonly case: string;
  readonly last_indices: number[];
  readonly mse_scale: number | null;
  /** Predictions of every token: [1, tokens, dim], or [tokens, 1, dim]. */
  readonly layout: "1TD" | "T1D";
  readonly values: (number | string)[][][];
  readonly gold: number[][];
  readonly loss: number | string;
  readonly gradient_of_values: (number | string)[][][];
}

const file = sharedPath("golden/nla/train/ar_loss.json");
const cases = file ? (JSON.parse(readFileSync(file, "utf8")) as { cases: GoldenCase[] }).cases : [];

let device: Device;
beforeAll(() => {
  device = Device.open({ threads: 1 });
});
afterAll(() => device[Symbol.dispose]());

/** Loss of predictions with a weight of one each, and its gradient of them. */
async function lossOf(predictions: number[][], activations: number[][], mseScale: number | null) {
  const rows = predictions.length;
  const dim = predictions[0]?.length as number;
  using g = new Graph(device);
  const predicted = g.variable("predicted", [rows, dim]);
  const { loss, mse } = directionLoss(g, predicted, g.input("gold", [rows, dim]), g.input("weight", [1]), {
    mseScale,
  });
  const gradient = g.output(g.backward(g.output(loss)).get(predicted)!);
  g.output(mse);
  await g.run({
    predicted: Float32Array.from(predictions.flat()),
    gold: Float32Array.from(
      activations.flatMap((row) => [...normalised(Float64Array.from(row), { mseScale })]),
    ),
    weight: Float32Array.of(1),
  });
  return { loss: loss.readF32()[0]!, mse: mse.readF32(), gradient: gradient.readF32() };
}

function lastRowsOf(values: (number | string)[][][], { layout, last_indices }: GoldenCase): number[][] {
  const tokens = layout === "1TD" ? values[0]! : values.map(([row]) => row!);
  return last_indices.map((index) => tokens[index]!.map(Number));
}

describeWith(file, "the loss is the reference's", () => {
  // Left out: NaN (refused before it gets here), no samples (no batch of none), and a prediction beyond float32's squares,
  // whose gradient the reference has as 0.
  const comparable = cases.filter(({ case: name }) => !/NaN|huge|no samples/.test(name));

  it("has nine cases to show it on", () => expect(comparable.length).toBe(9));

  it.each(comparable.map((each) => [each.case, each] as const))("%s", async (_, golden) => {
    const found = await lossOf(lastRowsOf(golden.values, golden), golden.gold, golden.mse_scale);
    expect(Math.abs(found.loss / Number(golden.loss) - 1)).toBeLessThan(1e-5);
    const wanted = lastRowsOf(golden.gradient_of_values, golden);
    const predictions = lastRowsOf(golden.values, golden);
    const dim = golden.gold[0]!.length;
    wanted.forEach((row, r) => {
      // Where prediction and activation lie on one line the true gradient is zero, and both numbers are a few roundings
      // of its parts, which are as large as 2 s² / (dim |prediction|).
      const s = golden.mse_scale ?? 0;
      const parts = (2 * s * s) / (dim * (Math.hypot(...predictions[r]!) || Infinity));
      const bound = 1e-5 * Math.hypot(...row) + 4 * 2 ** -23 * parts;
      row.forEach((value, i) =>
        expect(Math.abs(found.gradient[r * dim + i]! - value)).toBeLessThanOrEqual(bound),
      );
    });
  });
});

describe("the loss", () => {
  const predictions = [
    [0.3, -2, 5, 0.01],
    [0, 0, 0, 0],
    [1e-3, 2e-3, -1e-3, 4e-3],
  ];
  const activations = [
    [1, 1, -1, 2],
    [3, 0, 0, 4],
    [10, 20, -10, 40],
  ];

  it.each([2, 7.5, null])("at scale %s has the errors of fidelity.ts", async (mseScale) => {
    const { mse, loss } = await lossOf(predictions, activations, mseScale);
    const wanted = predictions.map((row, i) => {
      return reconstructionScores(Float64Array.from(row), Float64Array.from(activations[i]!), { mseScale })
        .mse;
    });
    wanted.forEach((value, i) => expect(Math.abs(mse[i]! - value)).toBeLessThan(1e-5 * Math.max(1, value)));
    const sum = wanted.reduce((a, b) => a + b, 0);
    expect(Math.abs(loss / sum - 1)).toBeLessThan(1e-5);
  });

  it("of a zero prediction is one, with a finite gradient that leads to the activation", async () => {
    const { mse, gradient } = await lossOf([[0, 0, 0, 0]], [[3, 0, 0, 4]], 2);
    expect(mse[0]).toBeCloseTo(1, 6);
    expect(gradient.every(Number.isFinite)).toBe(true);
    expect(gradient[0]!).toBeLessThan(0);
    expect(gradient[3]! / gradient[0]!).toBeCloseTo(4 / 3, 5);
  });
});

describe("a batch of texts", () => {
  it("gets the errors of its reconstructions, whatever the micro-batches, and a step lowers them", async () => {
    using tiny = await openTinyTraining(3);
    using pair = tiny.pair();
    const { reconstructor } = pair;
    const rows = tiny.rows.slice(0, 10).map(({ vector, label }) => ({ vector, text: label }));
    const batches = regressionBatches(reconstructor, rows, 4);
    expect(batches.map(({ rows: { length } }) => length)).toEqual([4, 4, 2]);
    const { mseScale } = reconstructor.contract;
    const before = await reconstructor.reconstruct(rows.map(({ text }) => text));
    const wanted = new Map(
      rows.map((row, i) => [row, reconstructionScores(before[i]!, row.vector, { mseScale }).mse]),
    );
    using graphs = new LossGraphs<RegressionBatch>({
      device: tiny.device,
      compute: "f32",
      build: (g, micro) => regressionLoss(g, reconstructor, micro),
      shapeOf: ({ batch }) => `${batch.rows}x${batch.length}`,
    });
    const { loss, outputs } = await graphs.run(batches);
    const mean = [...wanted.values()].reduce((a, b) => a + b, 0) / rows.length;
    expect(Math.abs(loss - mean)).toBeLessThan(1e-5);
    batches.forEach(({ rows: part }, b) => {
      part.forEach((row, r) => expect(outputs[b]!.mse![r]).toBeCloseTo(wanted.get(row)!, 5));
    });

    using trainer = reconstructorTrainer(reconstructor, adamw(), "f32");
    for (let i = 0; i < 4; i++) await trainer.step(batches, 1e-3);
    expect((await trainer.measure(batches)).loss).toBeLessThan(mean - 0.05);
  });

  it("refuses a text that is longer than the context", async () => {
    using tiny = await openTinyTraining(1);
    using pair = tiny.pair();
    const text = "and ".repeat(200);
    expect(() => regressionBatches(pair.reconstructor, [{ text, vector: tiny.rows[0]!.vector }], 4)).toThrow(
      /tokens.*1 to 128 tokens/s,
    );
  });
});
