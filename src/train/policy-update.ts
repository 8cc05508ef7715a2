// The verbalizer's part of a reinforcement-learning step: rollouts with their advantages become samples, the frozen verbalizer
// says how likely it finds them, and the policy loss is stepped. The formulas are policy-math.ts's, as ops in verbalizer-step.ts.
import type { Verbalizer } from "../nla/verbalizer.js";
import type { LossGraphs } from "./loss-graphs.js";
import { clippedLoss, klEstimate } from "./policy-math.js";
import { responseBatches } from "./response-batch.js";
import type { ResponseBatch } from "./response-batch.js";
import type { Rollout } from "./rollout.js";
import type { Trainer } from "./trainer.js";
import type { RolloutRow } from "./verbalizer-step.js";

/** A rollout that is learnt from. */
export interface KeptRollout {
  readonly rollout: Rollout;
  /** One per token of its response. */
  readonly advantages: ArrayLike<number>;
}

/** What the verbalizer's steps on one set of samples came to. */
export interface PolicyUpdate {
  /** Of the last update, before it was applied. */
  readonly loss: number;
  /** Of the last update. */
  readonly gradientNorm: number;
  /** k3 estimate of KL to the frozen verbalizer before the first update, nats per token. */
  readonly kl: number;
  /** Share of tokens whose clipped term was taken in the last update: 0 where there is but one, up to rounding. */
  readonly clipFraction: number;
}

/**
 * Samples for the policy loss, each with the log-probabilities of its tokens under the frozen verbalizer.
 *
 * @param reference graphs of the frozen verbalizer (logProbGraphs)
 * @returns as many as `kept`, ordered by length
 */
export async function policySamples(
  kept: readonly KeptRollout[],
  verbalizer: Verbalizer,
  reference: LossGraphs<ResponseBatch>,
  microBatch: number,
): Promise<RolloutRow[]> {
  const rows = kept.map(({ rollout: { explanation, vector }, advantages }) => {
    const { tokens, logProbs } = explanation;
    return { vector, response: tokens, weight: 1 / kept.length, advantages, oldLogProbs: logProbs };
  });
  const batches = responseBatches(verbalizer, rows, microBatch);
  const { outputs } = await reference.run(batches);
  return batches.flatMap((batch, b) => {
    const logProbs = outputs[b]?.logProbs as Float32Array;
    return batch.rows.map((row, r) => ({ ...row, referenceLogProbs: logProbsOf(batch, r, logProbs) }));
  });
}

/**
 * One or more optimizer steps on the same samples.
 *
 * @param samples at least one
 */
export async function updatePolicy(
  trainer: Trainer<ResponseBatch<RolloutRow>>,
  verbalizer: Verbalizer,
  samples: readonly RolloutRow[],
  options: {
    readonly learningRate: number;
    readonly microBatch: number;
    readonly updates: number;
    readonly clipRange: number;
    /** Adds another loss's gradients to each step. */
    readonly also?: (() => Promise<unknown>) | undefined;
  },
): Promise<PolicyUpdate> {
  const { learningRate, microBatch, updates, clipRange, also } = options;
  const batches = responseBatches(verbalizer, samples, microBatch);
  const first = await trainer.step(batches, learningRate, undefined, also);
  let last = first;
  for (let i = 1; i < updates; i++) last = await trainer.step(batches, learningRate, undefined, also);

  let kl = 0;
  eachRow(batches, first.outputs, (row, logProbs) => {
    row.referenceLogProbs.forEach((reference, i) => {
      kl += (row.weight / logProbs.length) * klEstimate(logProbs[i] as number, reference, "k3");
    });
  });
  let clipped = 0;
  let tokens = 0;
  eachRow(batches, last.outputs, ({ oldLogProbs, advantages }, logProbs) => {
    oldLogProbs.forEach((old, i) => {
      const token = clippedLoss((logProbs[i] as number) - old, advantages[i] as number, {
        epsClip: clipRange,
      });
      if (token.clipped) clipped++;
      tokens++;
    });
  });
  return { loss: last.loss, gradientNorm: last.gradientNorm, kl, clipFraction: clipped / tokens };
}

/** Calls `visit` with every row of some micro-batches and the log-probabilities that a pass gave for its response. */
function eachRow<Row extends RolloutRow>(
  batches: readonly ResponseBatch<Row>[],
  outputs: readonly Readonly<Record<string, Float32Array>>[],
  visit: (row: Row, logProbs: readonly number[]) => void,
): void {
  batches.forEach((batch, b) => {
    const logProbs = outputs[b]?.logProbs as Float32Array;
    batch.rows.forEach((row, r) => visit(row, logProbsOf(batch, r, logProbs)));
  });
}

/** What belongs to the response of row `r` in a micro-batch's output [rows · slots]. */
function logProbsOf({ rows, slots }: ResponseBatch, r: number, logProbs: Float32Array): number[] {
  const length = rows[r]?.response.length as number;
  return Array.from(logProbs.subarray(r * slots, r * slots + length));
}
