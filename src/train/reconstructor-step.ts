// The reconstructor's regression: explanations in, activations out, squared error of directions. The warm start and the
// reconstructor's own step in reinforcement learning are this one loss.
import { declareBatch, lastRows, padBatch } from "../model/index.js";
import type { Batch } from "../model/index.js";
import { normalised } from "../nla/fidelity.js";
import type { Reconstructor } from "../nla/reconstructor.js";
import { ops } from "../tensor/index.js";
import type { AdamwState, Graph, Optimizer, Tensor } from "../tensor/index.js";
import type { LossGraph } from "./loss-graphs.js";
import { Trainer } from "./trainer.js";

/** An explanation and the activation that it is of. */
export interface RegressionRow {
  readonly text: string;
  /** Raw activation [dim]. */
  readonly vector: Float32Array;
}

/** A padded micro-batch of prompts. `weight` is what each row counts in the loss; the rows of a step add up to one. */
export interface RegressionBatch {
  readonly rows: readonly RegressionRow[];
  readonly batch: Batch;
  readonly weight: number;
}

// Lengths in steps of this many, so that a few compiled graphs serve all micro-batches.
const LENGTH_STEP = 8;

/** Splits rows into micro-batches, prompts of like length together. */
export function regressionBatches(
  reconstructor: Reconstructor,
  rows: readonly RegressionRow[],
  microBatch: number,
): RegressionBatch[] {
  const maxLength = reconstructor.model.config.contextLength;
  const sorted = rows
    .map((row, i) => ({ row, i, ids: reconstructor.promptIds(row.text) }))
    .sort((a, b) => a.ids.length - b.ids.length || a.i - b.i);
  const batches: RegressionBatch[] = [];
  for (let start = 0; start < sorted.length; start += microBatch) {
    const part = sorted.slice(start, start + microBatch);
    const batch = padBatch(
      part.map(({ ids }) => ids),
      { multiple: LENGTH_STEP, maxLength },
    );
    batches.push({ rows: part.map(({ row }) => row), batch, weight: 1 / rows.length });
  }
  return batches;
}

/**
 * Σ weight · |n(prediction) - gold|² / dim, n as in nla/fidelity.ts with the same `mseScale`; at the default scale of sqrt(dim)
 * that is 2(1 - cos). A zero prediction has the error that a zero vector has, and a finite gradient.
 *
 * @param predicted [rows, dim]
 * @param gold [rows, dim], already n(activation)
 * @param weight [1], what each row counts
 */
export function directionLoss(
  g: Graph,
  predicted: Tensor,
  gold: Tensor,
  weight: Tensor,
  { mseScale }: { readonly mseScale: number | null },
): { readonly loss: Tensor; readonly mse: Tensor } {
  const dim = predicted.shape[1] as number;
  const scaled = mseScale === null ? predicted : ops.normalizeRows(g, predicted, mseScale);
  const mse = ops.scale(g, ops.sumLast(g, ops.square(g, ops.sub(g, scaled, gold))), 1 / dim); // [rows, 1]
  return { loss: ops.sum(g, ops.mul(g, mse, weight)), mse };
}

/** Appends {@link directionLoss} of a micro-batch's predictions. Output `mse`: [rows, 1]. */
export function regressionLoss(
  g: Graph,
  reconstructor: Reconstructor,
  like: RegressionBatch,
): LossGraph<RegressionBatch> {
  const { dim, mseScale } = reconstructor.contract;
  const { rows } = like.batch;
  const declared = declareBatch(g, like.batch);
  const predicted = reconstructor.predict(g, declared, g.input("last", [rows], "i32"));
  const gold = g.input("gold", [rows, dim]);
  const { loss, mse } = directionLoss(g, predicted, gold, g.input("weight", [1]), { mseScale });
  return {
    loss,
    outputs: { mse },
    values: (micro) => {
      const values = new Float32Array(rows * dim);
      micro.rows.forEach(({ vector }, row) => values.set(normalised(vector, { mseScale }), row * dim));
      return {
        ...declared.values(micro.batch),
        last: lastRows(micro.batch),
        gold: values,
        weight: Float32Array.of(micro.weight),
      };
    },
  };
}

/** The trainer of a reconstructor: its decoder and its value head. */
export function reconstructorTrainer(
  reconstructor: Reconstructor,
  optimizer: Optimizer<AdamwState>,
  compute: "f32" | "bf16",
): Trainer<RegressionBatch> {
  return new Trainer({
    device: reconstructor.model.device,
    parameters: reconstructor.trainable,
    optimizer,
    compute,
    build: (g, micro) => regressionLoss(g, reconstructor, micro),
    shapeOf: ({ batch }) => `${batch.rows}x${batch.length}`,
  });
}
