// Reinforcement learning of a pair: sample a group of explanations per activation, reward each by how well the live
// reconstructor gets the activation back, move the verbalizer by GRPO, and let the reconstructor take its own regression
// step on the same explanations. Deviations from the paper: k3 as KL estimate, -mse as reward by default.
import { performance } from "node:perf_hooks";
import { fve as fveOf, reconstructionScores } from "../nla/fidelity.js";
import type { Reconstructor } from "../nla/reconstructor.js";
import type { Explanation, Verbalizer } from "../nla/verbalizer.js";
import { NlaError } from "../error.js";
import { adamw } from "../tensor/index.js";
import { groupAdvantages } from "./advantage.js";
import type { TrainConfig } from "./config-schema.js";
import { measurePair, sampleRows } from "./held-out.js";
import type { HeldOutRow } from "./held-out.js";
import { resumePoint, runLoop } from "./loop.js";
import type { LoopOutputs, StepLog } from "./loop.js";
import { klEstimate } from "./policy-math.js";
import { reconstructorTrainer, regressionBatches } from "./reconstructor-step.js";
import type { RegressionRow } from "./reconstructor-step.js";
import { responseBatches } from "./response-batch.js";
import { isFailed, rewardOf } from "./reward.js";
import { FIRST_ROW, takeRows } from "./row-order.js";
import { learningRateAt } from "./schedule.js";
import { policyTrainer } from "./verbalizer-step.js";
import type { RolloutRow } from "./verbalizer-step.js";
import { countersOf, finite } from "./warm-start.js";
import type { RowSource, Storage } from "./warm-start.js";

/** What reinforcement learning needs besides the pair. */
export interface GrpoContext {
  /** Activations to explain. */
  readonly rows: RowSource<{ readonly vector: Float32Array }>;
  readonly heldOut: readonly HeldOutRow[];
  readonly settings: TrainConfig["rl"];
  readonly log: TrainConfig["log"];
  readonly compute: "f32" | "bf16";
  readonly seed: number;
  /** The warm-started verbalizer, frozen: what KL is measured from. */
  readonly reference: Verbalizer;
  /** Raw variance of normalised training activations: the denominator of the rollouts' FVE. */
  readonly variance: number;
  readonly outputs: LoopOutputs;
}

/** One sampled explanation with what became of it. */
export interface Rollout {
  readonly explanation: Explanation;
  readonly vector: Float32Array;
  readonly failed: boolean;
  /** Error of the reconstruction; null where it failed. */
  readonly mse: number | null;
  readonly reward: number;
}

/** Settings that rewards depend on. */
export type RewardSettings = Pick<TrainConfig["rl"], "reward" | "failed_penalty">;

/**
 * Samples and rewards a group of explanations for each activation.
 *
 * @returns vectors · group rollouts, activation after activation
 */
export async function rollOut(
  verbalizer: Verbalizer,
  reconstructor: Reconstructor,
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
  const scored = await scoreExplanations(reconstructor, explanations, vectors, settings, options.signal);
  const ended = performance.now();
  return {
    rollouts: scored,
    seconds: { rollout: (sampled - begun) / 1000, reward: (ended - sampled) / 1000 },
  };
}

async function scoreExplanations(
  reconstructor: Reconstructor,
  explanations: readonly Explanation[],
  vectors: readonly Float32Array[],
  { reward, failed_penalty }: RewardSettings,
  signal?: AbortSignal,
): Promise<Rollout[]> {
  const failed = explanations.map(({ text, finish }) => isFailed({ finish, explanation: text }));
  const good = explanations.flatMap((each, i) => (failed[i] ? [] : [each]));
  const rebuilt = await reconstructor.reconstruct(
    good.map(({ text }) => text as string),
    { batch: 256, signal },
  );
  const { mseScale } = reconstructor.contract;
  const kind = reward === "mse" ? "-mse" : "-log-mse";
  let next = 0;
  return explanations.map((explanation, i) => {
    const vector = vectors[explanation.vector] as Float32Array;
    const mse = failed[i]
      ? null
      : reconstructionScores(rebuilt[next++] as Float32Array, vector, { mseScale }).mse;
    const scored = { finish: explanation.finish, explanation: explanation.text, mse };
    return {
      explanation,
      vector,
      failed: failed[i] as boolean,
      mse,
      reward: rewardOf(scored, { kind, failureReward: failed_penalty }),
    };
  });
}

/**
 * Runs the stage, from where its newest checkpoint stands.
 *
 * @param verbalizer, reconstructor already holding that checkpoint's weights, or the warm start's
 * @param storage writes both into a checkpoint
 * @throws NlaError `rl.no-signal` where every group of ten steps in a row had equal rewards
 */
export async function runGrpo(
  verbalizer: Verbalizer,
  reconstructor: Reconstructor,
  context: GrpoContext,
  storage: Storage,
): Promise<void> {
  const { rows, settings, log, compute, outputs, seed } = context;
  const resumed = await resumePoint(outputs);
  const optimizer = () => adamw({ weightDecay: settings.weight_decay, clipNorm: settings.clip });
  const policy = { clipRange: settings.clip_range, klCoef: settings.kl_coef };
  using trainerV = policyTrainer(verbalizer, optimizer(), compute, policy);
  using trainerR = reconstructorTrainer(reconstructor, optimizer(), compute);
  using reference = policyTrainer(context.reference, optimizer(), compute, policy);
  if (resumed) {
    const { optimizers } = resumed.state;
    await trainerV.restore(resumed.directory, "verbalizer-optimizer", countersOf(optimizers.verbalizer));
    await trainerR.restore(
      resumed.directory,
      "reconstructor-optimizer",
      countersOf(optimizers.reconstructor),
    );
  }
  let cursor = resumed?.state.data ?? FIRST_ROW;
  let silent = 0; // steps in a row without a signal
  const { signal } = outputs;

  const loop = {
    steps: settings.steps,
    async step(step: number): Promise<StepLog> {
      const { rows: numbers, next } = takeRows(cursor, settings.prompts, { rowCount: rows.rowCount });
      const vectors = (await rows.rows(numbers)).map(({ vector }) => vector);
      const { rollouts, seconds } = await rollOut(verbalizer, reconstructor, vectors, settings, {
        seed: sampleSeed(seed, step),
        signal,
      });
      const { advantages, groups } = groupAdvantages(
        rollouts.map(({ reward }) => reward),
        {
          groupSize: settings.group,
          divideByStd: settings.advantage_std,
          dropZeroVariance: settings.drop_zero_variance,
        },
      );
      const kept = rollouts.flatMap((rollout, i) => {
        return groups[Math.floor(i / settings.group)]?.kept
          ? [{ rollout, advantage: advantages[i] as number }]
          : [];
      });
      silent = kept.length === 0 ? silent + 1 : 0;
      if (silent >= 10) throw noSignal(step);
      // From here on nothing is aborted: the two models change together or not at all.
      const begun = performance.now();
      const samples = await withReference(kept, context.reference, reference, settings.micro_batch);
      const rates = {
        verbalizer: learningRateAt(step, scheduleOf(settings, settings.lr_verbalizer)),
        reconstructor: learningRateAt(step, scheduleOf(settings, settings.lr_reconstructor)),
      };
      const update = await updatePolicy(trainerV, verbalizer, samples, settings, rates.verbalizer);
      const good = rollouts.flatMap(({ failed, explanation, vector }): RegressionRow[] => {
        return failed ? [] : [{ text: explanation.text as string, vector }];
      });
      const regression =
        good.length > 0
          ? await trainerR.step(
              regressionBatches(reconstructor, good, settings.micro_batch),
              rates.reconstructor,
            )
          : null;
      cursor = next;
      const updated = (performance.now() - begun) / 1000;
      const evaluated =
        step % log.eval_every === log.eval_every - 1 || step === settings.steps - 1
          ? await measurePair(verbalizer, reconstructor, context.heldOut, {
              maxNewTokens: settings.max_new_tokens,
              compute: "f32",
            })
          : null;
      const sampled =
        evaluated && (step % log.sample_every === log.sample_every - 1 || step === settings.steps - 1);
      const numbersOf = rolloutNumbers(rollouts, context.variance);
      return {
        row: {
          loss: update.loss,
          loss_reconstructor: regression?.loss ?? null,
          ...numbersOf,
          kl: update.kl,
          clip_fraction: update.clipFraction,
          groups_dropped: groups.filter((group) => !group.kept).length,
          learning_rate: rates.verbalizer,
          learning_rate_reconstructor: rates.reconstructor,
          gradient_norm: finite(update.gradientNorm),
          gradient_norm_reconstructor: regression ? finite(regression.gradientNorm) : null,
          skipped: trainerV.counters.skipped,
          skipped_reconstructor: trainerR.counters.skipped,
          ...(evaluated ? { eval: evaluated.fields } : {}),
        },
        seconds: { ...seconds, update: updated },
        tokens: rollouts.reduce((sum, { explanation }) => sum + explanation.tokens.length, 0),
        numbers: {
          reward: numbersOf.reward_mean,
          kl: update.kl,
          length: numbersOf.length,
          ...(evaluated ? { fve: evaluated.fields.fve } : {}),
        },
        ...(sampled ? { samples: sampleRows(context.heldOut, evaluated, log.samples) } : {}),
      };
    },
    async save(directory: string) {
      await storage.save(directory);
      await trainerV.save(directory, "verbalizer-optimizer");
      await trainerR.save(directory, "reconstructor-optimizer");
    },
    state: () => ({
      data: cursor,
      seeds: { rollouts: seed },
      optimizers: { verbalizer: trainerV.counters, reconstructor: trainerR.counters },
      best: {},
    }),
  };
  await runLoop(loop, resumed?.state.step ?? 0, outputs);
}

// Seeds of different steps are this far apart: more samples than one step will ever have.
const SEED_STRIDE = 1_000_003;

function sampleSeed(seed: number, step: number): number {
  return (seed % 1_000_000) * 4_294_967_296 + step * SEED_STRIDE;
}

function scheduleOf({ schedule, warmup, steps }: TrainConfig["rl"], peak: number) {
  const warmupSteps = Math.min(warmup, Math.max(0, steps - 1));
  return { shape: schedule, peak, warmupSteps, totalSteps: Math.max(steps, warmupSteps + 1) };
}

/** Adds the frozen verbalizer's log-probabilities to the samples. */
async function withReference(
  kept: readonly { readonly rollout: Rollout; readonly advantage: number }[],
  verbalizer: Verbalizer,
  trainer: ReturnType<typeof policyTrainer>,
  microBatch: number,
): Promise<RolloutRow[]> {
  const samples = kept.map(({ rollout: { explanation, vector }, advantage }): RolloutRow => {
    const { tokens, logProbs } = explanation;
    const weight = 1 / kept.length;
    return {
      vector,
      response: tokens,
      weight,
      advantage,
      oldLogProbs: logProbs,
      referenceLogProbs: logProbs,
    };
  });
  const batches = responseBatches(verbalizer, samples, microBatch);
  const { outputs } = await trainer.measure(batches);
  return batches.flatMap(({ rows, slots }, b) => {
    const logProbs = outputs[b]?.logProbs as Float32Array;
    return rows.map((row, r) => {
      return {
        ...row,
        referenceLogProbs: Array.from(logProbs.subarray(r * slots, r * slots + row.response.length)),
      };
    });
  });
}

/** The verbalizer's optimizer steps on one set of samples. */
async function updatePolicy(
  trainer: ReturnType<typeof policyTrainer>,
  verbalizer: Verbalizer,
  samples: readonly RolloutRow[],
  settings: TrainConfig["rl"],
  learningRate: number,
) {
  if (samples.length === 0) return { loss: 0, kl: 0, clipFraction: 0, gradientNorm: 0 };
  const batches = responseBatches(verbalizer, samples, settings.micro_batch);
  let result = await trainer.step(batches, learningRate);
  for (let i = 1; i < settings.updates_per_batch; i++) result = await trainer.step(batches, learningRate);
  let clipped = 0;
  let tokens = 0;
  batches.forEach(({ rows, slots }, b) => {
    rows.forEach(({ oldLogProbs, advantage }, r) => {
      oldLogProbs.forEach((old, i) => {
        const ratio = Math.exp((result.outputs[b]?.logProbs?.[r * slots + i] as number) - old);
        if (advantage > 0 ? ratio > 1 + settings.clip_range : ratio < 1 - settings.clip_range) clipped++;
        tokens++;
      });
    });
  });
  let kl = 0;
  for (const { oldLogProbs, referenceLogProbs, weight } of samples) {
    oldLogProbs.forEach((logProb, i) => {
      kl += (weight / oldLogProbs.length) * klEstimate(logProb, referenceLogProbs[i] as number, "k3");
    });
  }
  return { loss: result.loss, kl, clipFraction: clipped / tokens, gradientNorm: result.gradientNorm };
}

/** What a step's rollouts were like. `fve` counts a failed explanation as the mean activation: nothing explained. */
function rolloutNumbers(rollouts: readonly Rollout[], variance: number) {
  const n = rollouts.length;
  const mean = (of: (rollout: Rollout) => number) =>
    rollouts.reduce((sum, rollout) => sum + of(rollout), 0) / n;
  const rewardMean = mean(({ reward }) => reward);
  return {
    reward_mean: rewardMean,
    reward_std: Math.sqrt(mean(({ reward }) => (reward - rewardMean) ** 2)),
    fve: fveOf(
      mean(({ mse }) => mse ?? variance),
      variance,
    ),
    entropy: mean(
      ({ explanation: { entropies } }) => entropies.reduce((a, b) => a + b, 0) / entropies.length,
    ),
    length: mean(({ explanation }) => explanation.tokens.length),
    failed: mean(({ failed }) => (failed ? 1 : 0)),
    truncated: mean(({ explanation }) => (explanation.finish === "length" ? 1 : 0)),
  };
}

function noSignal(step: number): NlaError {
  return new NlaError({
    code: "rl.no-signal",
    subject: `reinforcement learning, step ${step}`,
    found: "ten steps in a row in which every group's rewards were equal",
    wanted: "groups whose explanations differ",
    next: "The verbalizer has collapsed: raise kl_coef or the temperature, lower lr_verbalizer, or train the warm start longer.",
  });
}
