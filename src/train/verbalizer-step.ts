// The two losses of a verbalizer: cross-entropy of labels (warm start) and the clipped policy loss with KL (GRPO). Both see
// response tokens only. policy-math.ts states the policy formulas in plain numbers.
import type { Verbalizer } from "../nla/verbalizer.js";
import { ops } from "../tensor/index.js";
import type { AdamwState, Graph, Optimizer, Tensor } from "../tensor/index.js";
import { LossGraphs } from "./loss-graphs.js";
import type { LossGraph } from "./loss-graphs.js";
import { declareResponses, perToken, responseShape } from "./response-batch.js";
import type { ResponseBatch, ResponseRow } from "./response-batch.js";
import { Trainer } from "./trainer.js";

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
  /** One per token. */
  readonly advantages: ArrayLike<number>;
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

/** What the policy loss depends on besides the new log-probabilities: one number per response slot, all [n]. */
export interface PolicyInputs {
  /** log-probabilities at sampling time. */
  readonly old: Tensor;
  /** Those of the frozen policy. */
  readonly reference: Tensor;
  readonly advantages: Tensor;
  /** What each token counts; 0 in padding. */
  readonly weights: Tensor;
  /** 1 at a token, 0 in padding, whose log-probabilities mean nothing and might overflow. */
  readonly inside: Tensor;
}

/**
 * Σ weight · (-min(r·A, clip(r)·A) + klCoef · k3): the formulas of policy-math.ts as ops, r = exp(new - old),
 * k3 = exp(-l) - 1 + l with l = new - reference.
 *
 * @param logProbs the new ones, [n]
 * @returns [1]
 */
export function policyObjective(
  g: Graph,
  logProbs: Tensor,
  { old, reference, advantages, weights, inside }: PolicyInputs,
  { clipRange, klCoef }: PolicySettings,
): Tensor {
  const ratio = ops.exp(g, ops.mul(g, ops.sub(g, logProbs, old), inside));
  const clipped = ops.clamp(g, ratio, 1 - clipRange, 1 + clipRange);
  const surrogate = ops.minimum(g, ops.mul(g, ratio, advantages), ops.mul(g, clipped, advantages));
  const moved = ops.mul(g, ops.sub(g, logProbs, reference), inside);
  const k3 = ops.add(g, ops.exp(g, ops.neg(g, moved)), ops.affine(g, moved, 1, -1));
  const perTokenLoss = ops.sub(g, ops.scale(g, k3, klCoef), surrogate);
  return ops.sum(g, ops.mul(g, perTokenLoss, weights));
}

/**
 * Appends {@link policyObjective} of a micro-batch, averaged over a response's tokens and weighted over samples.
 * Output `logProbs`: the new ones, [rows · slots].
 */
export function policyLoss(
  g: Graph,
  verbalizer: Verbalizer,
  like: ResponseBatch<RolloutRow>,
  settings: PolicySettings,
): LossGraph<ResponseBatch<RolloutRow>> {
  const responses = declareResponses(g, verbalizer, like);
  const n = like.rows.length * like.slots;
  const softcap = verbalizer.model.config.logitSoftcap;
  const logProbs = ops.tokenLogProbs(g, responses.hidden, responses.head, responses.targets, { softcap });
  const inputs = {
    old: g.input("old", [n]),
    reference: g.input("reference", [n]),
    advantages: g.input("advantages", [n]),
    weights: g.input("weights", [n]),
    inside: g.input("inside", [n]),
  };
  return {
    loss: policyObjective(g, logProbs, inputs, settings),
    outputs: { logProbs },
    values: (micro) => ({
      ...responses.values(micro),
      old: perToken(micro, ({ oldLogProbs }, i) => oldLogProbs[i] as number),
      reference: perToken(micro, ({ referenceLogProbs }, i) => referenceLogProbs[i] as number),
      advantages: perToken(micro, ({ advantages }, i) => advantages[i] as number),
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
    parameters: verbalizer.model.trainable,
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
    parameters: verbalizer.model.trainable,
    optimizer,
    compute,
    build: (g, micro) => policyLoss(g, verbalizer, micro, settings),
    shapeOf: responseShape,
  });
}

/**
 * Graphs that give the log-probabilities of response tokens under a verbalizer that is not trained (output `logProbs`,
 * [rows · slots], anything in padding): no gradients and no optimizer state are held for it.
 */
export function logProbGraphs(verbalizer: Verbalizer, compute: "f32" | "bf16"): LossGraphs<ResponseBatch> {
  return new LossGraphs<ResponseBatch>({
    device: verbalizer.model.device,
    compute,
    build: (g, micro) => {
      const responses = declareResponses(g, verbalizer, micro);
      const softcap = verbalizer.model.config.logitSoftcap;
      const logProbs = ops.tokenLogProbs(g, responses.hidden, responses.head, responses.targets, { softcap });
      return { loss: ops.sum(g, logProbs), outputs: { logProbs }, values: responses.values };
    },
    shapeOf: responseShape,
  });
}
