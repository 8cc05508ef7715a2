// Rollouts of reinforcement learning: a group of sampled explanations per activation, each rewarded by how well its judge, the live
// reconstructor or several, gets the activation back from it. Not what is learnt from them (grpo.ts).
import { performance } from "node:perf_hooks";
import { fve as fveOf } from "../nla/fidelity.js";
import type { Explanation, Verbalizer } from "../nla/verbalizer.js";
import type { TrainConfig } from "./config-schema.js";
import type { Judge } from "./judge.js";
import { FAILURE_REWARD, isFailed, rewardOf } from "./reward.js";
import type { RewardOptions } from "./reward.js";

/** One sampled explanation with what became of it. */
export interface Rollout {
  readonly explanation: Explanation;
  readonly vector: Float32Array;
  /** Cut off, without an explanation, or with one that the reconstructor cannot take (longer than its context). */
  readonly failed: boolean;
  /** Error of the reconstruction; null where it failed. */
  readonly mse: number | null;
  readonly reward: number;
}

/** Settings that rewards depend on. */
export type RewardSettings = Pick<TrainConfig["rl"], "reward" | "failed_penalty"> & {
  /** Sentences that an explanation may have; null or absent: no limit. */
  readonly max_sentences?: number | null;
};

/** The reward's settings in the terms of reward.ts. */
export function rewardOptions({ reward, failed_penalty }: RewardSettings): Required<RewardOptions> {
  const kind = reward === "mse" ? "-mse" : "-log-mse";
  return { kind, failureReward: failed_penalty ?? FAILURE_REWARD[kind] };
}

/**
 * Samples and rewards a group of explanations for each activation.
 *
 * @returns vectors · group rollouts, activation after activation
 */
export async function rollOut(
  verbalizer: Verbalizer,
  judge: Judge,
  vectors: readonly Float32Array[],
  settings: TrainConfig["rl"],
  options: { readonly seed: number; readonly signal?: AbortSignal | undefined },
): Promise<{ rollouts: Rollout[]; seconds: { rollout: number; reward: number } }> {
  const begun = performance.now();
  const explanations = await verbalizer.explain(vectors, {
    samples: settings.group,
    temperature: settings.temperature,
    topK: settings.top_k,
    topP: settings.top_p,
    maxNewTokens: settings.max_new_tokens,
    seed: options.seed,
    signal: options.signal,
  });
  const sampled = performance.now();
  const rollouts = await scoreExplanations(judge, explanations, vectors, settings, options.signal);
  const ended = performance.now();
  return { rollouts, seconds: { rollout: (sampled - begun) / 1000, reward: (ended - sampled) / 1000 } };
}

/**
 * Rewards explanations.
 *
 * @param vectors the activations that `explanation.vector` counts
 */
export async function scoreExplanations(
  judge: Judge,
  explanations: readonly Explanation[],
  vectors: readonly Float32Array[],
  settings: RewardSettings,
  signal?: AbortSignal,
): Promise<Rollout[]> {
  const most = settings.max_sentences ?? Infinity;
  const ended = explanations.map(({ finish, text }) => {
    return isFailed({ finish, explanation: text }) || sentences(text as string) > most ? null : text;
  });
  const explained = explanations.map(({ vector }) => vectors[vector] as Float32Array);
  const errors = await judge.errors(ended, explained, signal);
  return explanations.map((explanation, i): Rollout => {
    const vector = explained[i] as Float32Array;
    const mse = errors[i] ?? null;
    const text = mse === null ? null : explanation.text;
    const reward = rewardOf({ finish: explanation.finish, explanation: text, mse }, rewardOptions(settings));
    return { explanation, vector, failed: text === null, mse, reward };
  });
}

/** Sentences of a text: stops that stand alone, as in the world's language. */
function sentences(text: string): number {
  return text.split(/\s+/).filter((word) => word === ".").length;
}

/**
 * What a step's rollouts were like, for metrics.jsonl. `fve` counts a failed explanation as the mean activation: nothing
 * explained.
 *
 * @param variance denominator of `fve`
 */
export function rolloutNumbers(rollouts: readonly Rollout[], variance: number) {
  const n = rollouts.length;
  const mean = (of: (rollout: Rollout) => number) =>
    rollouts.reduce((sum, rollout) => sum + of(rollout), 0) / n;
  const rewardMean = mean(({ reward }) => reward);
  const mse = mean((rollout) => rollout.mse ?? variance);
  return {
    reward_mean: rewardMean,
    reward_std: Math.sqrt(mean(({ reward }) => (reward - rewardMean) ** 2)),
    fve: fveOf(mse, variance),
    variance,
    /** Nats per token. */
    entropy: mean(
      ({ explanation: { entropies } }) => entropies.reduce((a, b) => a + b, 0) / entropies.length,
    ),
    /** Tokens of a response, its end included. */
    length: mean(({ explanation }) => explanation.tokens.length),
    failed: mean(({ failed }) => (failed ? 1 : 0)),
    truncated: mean(({ explanation }) => (explanation.finish === "length" ? 1 : 0)),
  };
}
