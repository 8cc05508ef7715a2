// The two losses of a verbalizer: cross-entropy of labels (warm start) and the clipped policy loss with KL (GRPO). Both see
// response tokens only. policy-math.ts states the policy formulas in plain numbers.
import type { Verbalizer } from "../nla/verbalizer.js";
import { ops } from "../tensor/index.js";
import type { AdamwState, Graph, Optimizer } from "../tensor/index.js";
import { declareResponses, perToken, responseShape } from "./response-batch.js";
import type { ResponseBatch, ResponseRow } from "./response-batch.js";
import { Trainer } from "./trainer.js";
import type { LossGraph } from "./trainer.js";

/** A label with what it counts: the rows of a step add up to one. */
export interface LabelRow extends ResponseRow {
  readonly weight: number;
}

/** Appends cross-entropy, averaged over a response's tokens and weighted over rows. */
export function labelLoss(
  g: Graph,
  verbalizer: Verbalizer,
  like: ResponseBatch<LabelRow>,
): LossGraph<ResponseBatch<LabelRow>> {
  const responses = declareResponses(g, verbalizer, like);
  const weights = g.input("weights", [like.rows.length * like.slots]);
  const softcap = verbalizer.model.config.logitSoftcap;
  return {
    loss: ops.crossEntropy(g, responses.hidden, responses.head, responses.targets, weights, { softcap }),
    outputs: {},
    values: (micro) => ({
      ...responses.values(micro),
      weights: perToken(micro, ({ weight, response }) => weight / response.length),
    }),
  };
}

/** A rollout to learn from. All lists have the response's length. */
export interface RolloutRow extends ResponseRow {
  /** What the sample counts: the samples of a step add up to one. */
  readonly weight: number;
  readonly advantage: number;
  /** log-probabilities at sampling time. */
  readonly oldLogProbs: readonly number[];
  /** Those under the frozen warm-started verbalizer. */
  readonly referenceLogProbs: readonly number[];
}

/** Settings of {@link policyLoss}. */
export interface PolicySettings {
  readonly clipRange: number;
  readonly klCoef: number;
}

/**
 * Appends -min(r·A, clip(r)·A) + klCoef · k3, averaged over a response's tokens and weighted over samples.
 * Output `logProbs`: the new ones, [rows · slots].
 */
export function policyLoss(
  g: Graph,
  verbalizer: Verbalizer,
  like: ResponseBatch<RolloutRow>,
  { clipRange, klCoef }: PolicySettings,
): LossGraph<ResponseBatch<RolloutRow>> {
  const responses = declareResponses(g, verbalizer, like);
  const n = like.rows.length * like.slots;
  const softcap = verbalizer.model.config.logitSoftcap;
  const logProbs = ops.tokenLogProbs(g, responses.hidden, responses.head, responses.targets, { softcap });
  const old = g.input("old", [n]);
  const reference = g.input("reference", [n]);
  const advantages = g.input("advantages", [n]);
  const weights = g.input("weights", [n]);
  const inside = g.input("inside", [n]); // 1 at a token, 0 in padding, whose log-probabilities mean nothing
  const ratio = ops.exp(g, ops.mul(g, ops.sub(g, logProbs, old), inside));
  const clipped = ops.clamp(g, ratio, 1 - clipRange, 1 + clipRange);
  const surrogate = ops.minimum(g, ops.mul(g, ratio, advantages), ops.mul(g, clipped, advantages));
  const moved = ops.mul(g, ops.sub(g, logProbs, reference), inside);
  const k3 = ops.add(g, ops.exp(g, ops.neg(g, moved)), ops.affine(g, moved, 1, -1));
  const perTokenLoss = ops.sub(g, ops.scale(g, k3, klCoef), surrogate);
  return {
    loss: ops.sum(g, ops.mul(g, perTokenLoss, weights)),
    outputs: { logProbs },
    values: (micro) => ({
      ...responses.values(micro),
      old: perToken(micro, ({ oldLogProbs }, i) => oldLogProbs[i] as number),
      reference: perToken(micro, ({ referenceLogProbs }, i) => referenceLogProbs[i] as number),
      advantages: perToken(micro, ({ advantage }) => advantage),
      weights: perToken(micro, ({ weight, response }) => weight / response.length),
      inside: perToken(micro, () => 1),
    }),
  };
}

/** The trainer of a verbalizer on labels. */
export function labelTrainer(
  verbalizer: Verbalizer,
  optimizer: Optimizer<AdamwState>,
  compute: "f32" | "bf16",
): Trainer<ResponseBatch<LabelRow>> {
  return new Trainer<ResponseBatch<LabelRow>>({
    device: verbalizer.model.device,
    parameters: verbalizer.model.parameters.tensors,
    optimizer,
    compute,
    build: (g, micro) => labelLoss(g, verbalizer, micro),
    shapeOf: responseShape,
  });
}

/** The trainer of a verbalizer on rollouts. */
export function policyTrainer(
  verbalizer: Verbalizer,
  optimizer: Optimizer<AdamwState>,
  compute: "f32" | "bf16",
  settings: PolicySettings,
): Trainer<ResponseBatch<RolloutRow>> {
  return new Trainer<ResponseBatch<RolloutRow>>({
    device: verbalizer.model.device,
    parameters: verbalizer.model.parameters.tensors,
    optimizer,
    compute,
    build: (g, micro) => policyLoss(g, verbalizer, micro, settings),
    shapeOf: responseShape,
  });
}
