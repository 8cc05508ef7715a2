// Reinforcement learning of a pair: sample a group of explanations per activation, reward each by how well the live
// reconstructor gets the activation back, move the verbalizer by GRPO, and let the reconstructor take its own regression
// step on the same explanations. Deviations from the paper: k3 as KL estimate, -mse as reward by default.
import { performance } from "node:perf_hooks";
import type { Reconstructor } from "../nla/reconstructor.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import { NlaError } from "../error.js";
import { adamw } from "../tensor/index.js";
import { groupAdvantages, perTokenAdvantages } from "./advantage.js";
import type { TrainConfig } from "./config-schema.js";
import { claimProgress, observePair } from "./held-out.js";
import type { HeldOutRow } from "./held-out.js";
import { judgeOf } from "./judge.js";
import { labelAnchor } from "./label-anchor.js";
import type { WarmRows } from "./label-stream.js";
import { languageAlarm, measuredBefore } from "./language-alarm.js";
import { resumePoint, runLoop } from "./loop.js";
import type { LoopOutputs, StepLog } from "./loop.js";
import { restoreTrainers, saveTrainers } from "./pair-trainers.js";
import { policySamples, updatePolicy } from "./policy-update.js";
import type { PolicyUpdate } from "./policy-update.js";
import { reconstructorTrainer, regressionBatches } from "./reconstructor-step.js";
import type { RegressionRow } from "./reconstructor-step.js";
import { rewardOptions, rolloutNumbers, rollOut } from "./rollout.js";
import { FIRST_ROW, takeRows } from "./row-order.js";
import { stageRate } from "./schedule.js";
import { sentenceAdvantages } from "./sentence-credit.js";
import { logProbGraphs, policyTrainer } from "./verbalizer-step.js";
import { finite } from "./warm-start.js";
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
  /** Frozen reconstructors that judge beside the live one. */
  readonly judges?: readonly Reconstructor[];
  /** The warm start's reconstructor, where `restart_reconstructor` needs it. */
  readonly warmReconstructor?: Reconstructor | undefined;
  /** Labels of both warm starts, where `label_rows` asks for them. */
  readonly labels?: { readonly verbalizer: WarmRows; readonly reconstructor: WarmRows } | undefined;
  /** Raw variance of normalised training activations: the denominator of the rollouts' FVE. */
  readonly variance: number;
  readonly outputs: LoopOutputs;
}

// A pair that learns nothing for so many steps in a row has collapsed.
const MAX_SILENT_STEPS = 10;

/**
 * Runs the stage, from where its newest checkpoint stands.
 *
 * @param verbalizer, reconstructor already holding that checkpoint's weights, or the warm start's
 * @param storage writes both into a checkpoint
 * @throws NlaError `rl.no-signal` where in ten steps in a row the rewards of every group were equal
 */
export async function runGrpo(
  verbalizer: Verbalizer,
  reconstructor: Reconstructor,
  context: GrpoContext,
  storage: Storage,
): Promise<void> {
  const { rows, heldOut, settings, log, compute, outputs, seed } = context;
  const resumed = await resumePoint(outputs);
  const optimizer = () => adamw({ weightDecay: settings.weight_decay, clipNorm: settings.clip });
  const policy = { clipRange: settings.clip_range, klCoef: settings.kl_coef };
  using trainerV = policyTrainer(verbalizer, optimizer(), compute, policy);
  using trainerR = reconstructorTrainer(reconstructor, optimizer(), compute);
  using reference = logProbGraphs(context.reference, compute);
  const trainers = { verbalizer: trainerV, reconstructor: trainerR };
  await restoreTrainers(trainers, resumed);
  using anchor =
    settings.label_rows > 0 && context.labels
      ? labelAnchor(verbalizer, trainerV, context.labels, {
          rows: settings.label_rows,
          weight: settings.label_weight,
          microBatch: settings.micro_batch,
          steps: resumed?.state.step ?? 0,
          compute,
        })
      : null;
  const judge = judgeOf([reconstructor, ...(context.judges ?? [])], settings.judgement);
  let cursor = resumed?.state.data ?? FIRST_ROW;
  const before = await measuredBefore(outputs.metricsFile);
  let silent = resumed?.state.optimizers.verbalizer?.silent ?? 0; // steps in a row without a signal

  const loop = {
    steps: settings.steps,
    async step(step: number): Promise<StepLog> {
      if (restarts(step, settings) && context.warmReconstructor) {
        copyParameters(context.warmReconstructor, reconstructor);
        trainerR.restart();
      }
      const { rows: numbers, next } = takeRows(cursor, settings.prompts, { rowCount: rows.rowCount });
      const vectors = (await rows.rows(numbers)).map(({ vector }) => vector);
      const { rollouts, seconds } = await rollOut(verbalizer, judge, vectors, settings, {
        seed: sampleSeed(seed, step),
        signal: outputs.signal,
      });
      const { advantages, groups } = groupAdvantages(
        rollouts.map(({ reward }) => reward),
        {
          groupSize: settings.group,
          divideByStd: settings.advantage_std,
          dropZeroVariance: settings.drop_zero_variance,
        },
      );
      const begunCredit = performance.now();
      const credit =
        settings.sentence_credit > 0
          ? await sentenceAdvantages(judge, rollouts, verbalizer.tokenizer, {
              advantages,
              groupSize: settings.group,
              weight: settings.sentence_credit,
              settings,
              signal: outputs.signal,
            })
          : null;
      const lengths = rollouts.map(({ explanation }) => explanation.tokens.length);
      const perToken = credit?.advantages ?? perTokenAdvantages(advantages, lengths);
      const kept = rollouts.flatMap((rollout, i) => {
        const group = groups[Math.floor(i / settings.group)];
        return group?.kept ? [{ rollout, advantages: perToken[i] as ArrayLike<number> }] : [];
      });
      const labels = await anchor?.next();
      silent = groups.every(({ std }) => std === 0) ? silent + 1 : 0;
      if (silent >= MAX_SILENT_STEPS) throw noSignal(step);

      // From here on nothing is aborted: the two models change together or not at all.
      const begun = performance.now();
      const rates = {
        verbalizer: stageRate(step, settings, settings.lr_verbalizer),
        reconstructor: stageRate(step, settings, settings.lr_reconstructor),
      };
      let update: PolicyUpdate | null = null;
      if (kept.length > 0) {
        const samples = await policySamples(kept, context.reference, reference, settings.micro_batch);
        update = await updatePolicy(trainerV, verbalizer, samples, {
          learningRate: rates.verbalizer,
          microBatch: settings.micro_batch,
          updates: settings.updates_per_batch,
          clipRange: settings.clip_range,
          also: labels?.learn,
        });
      }
      const explained = rollouts.flatMap(({ failed, explanation, vector }): RegressionRow[] => {
        return failed ? [] : [{ text: explanation.text as string, vector }];
      });
      explained.push(...(labels?.regression ?? []));
      const regression =
        explained.length > 0 && !settings.freeze_reconstructor
          ? await trainerR.step(
              regressionBatches(reconstructor, explained, settings.micro_batch),
              rates.reconstructor,
            )
          : null;
      cursor = next;
      const updated = performance.now();
      const { fields, samples } = await observePair(verbalizer, reconstructor, heldOut, step, {
        steps: settings.steps,
        log,
        maxNewTokens: settings.max_new_tokens,
        reward: rewardOptions(settings),
      });
      const observed = performance.now();
      const alarm = fields && languageAlarm(before, fields);
      if (alarm) outputs.progress.note(alarm);
      const numbersOf = rolloutNumbers(rollouts, context.variance);
      return {
        row: {
          // null: nothing was learnt from, because every group had equal rewards, every explanation had failed, or it is frozen.
          loss: update && finite(update.loss),
          loss_reconstructor: regression && finite(regression.loss),
          ...numbersOf,
          ...(credit ? { sentences_harmful: credit.harmful } : {}),
          ...(labels ? { loss_labels: update && finite(labels.loss()) } : {}),
          kl: update && finite(update.kl),
          clip_fraction: update && update.clipFraction,
          groups_dropped: groups.filter((group) => !group.kept).length,
          learning_rate: rates.verbalizer,
          learning_rate_reconstructor: rates.reconstructor,
          gradient_norm: update && finite(update.gradientNorm),
          gradient_norm_reconstructor: regression && finite(regression.gradientNorm),
          skipped: trainerV.counters.skipped,
          skipped_reconstructor: trainerR.counters.skipped,
          ...(fields ? { eval: fields } : {}),
          ...(alarm ? { alarm } : {}),
        },
        seconds: {
          ...seconds,
          reward: seconds.reward + (begun - begunCredit) / 1000,
          update: (updated - begun) / 1000,
          evaluate: (observed - updated) / 1000,
        },
        tokens: rollouts.reduce((sum, { explanation }) => sum + explanation.tokens.length, 0),
        numbers: {
          reward: numbersOf.reward_mean,
          ...(update ? { kl: update.kl } : {}),
          length: numbersOf.length,
          failed: numbersOf.failed,
          ...(fields ? { fve: fields.fve, ...claimProgress(fields) } : {}),
        },
        ...(samples ? { samples } : {}),
      };
    },
    save: (directory: string) => saveTrainers(trainers, storage, directory),
    state: () => ({
      data: cursor,
      seeds: { rollouts: seed },
      optimizers: { verbalizer: { ...trainerV.counters, silent }, reconstructor: trainerR.counters },
      best: {},
    }),
  };
  await runLoop(loop, resumed?.state.step ?? 0, outputs);
}

/** Whether the reconstructor begins anew before a step. */
function restarts(step: number, { restart_reconstructor: every }: TrainConfig["rl"]): boolean {
  return every !== null && step > 0 && step % every === 0;
}

/** Writes what training changes in one reconstructor into another of the same shapes. */
function copyParameters(from: Reconstructor, to: Reconstructor): void {
  const there = from.trainable;
  for (const [name, tensor] of to.trainable) {
    const source = there.get(name);
    if (!source) {
      throw new NlaError({
        code: "rl.restart",
        subject: "the warm start's reconstructor",
        found: `no parameter ${name}`,
        wanted: "the parameters of the one that is trained",
        next: "Train the warm start anew with this config's lora settings.",
      });
    }
    tensor.write(source.readF32());
  }
}

// Seeds of different steps are this far apart: more samples than one step will ever have.
const SEED_STRIDE = 1_000_003;

function sampleSeed(seed: number, step: number): number {
  return (seed % 1_000_000) * 4_294_967_296 + step * SEED_STRIDE;
}

function noSignal(step: number): NlaError {
  return new NlaError({
    code: "rl.no-signal",
    subject: `reinforcement learning, step ${step}`,
    found: `${MAX_SILENT_STEPS} steps in a row in which every group's rewards were equal`,
    wanted: "groups whose explanations differ",
    next: "The verbalizer has collapsed: raise kl_coef or the temperature, lower lr_verbalizer, or train the warm start longer.",
  });
}
