// The control of reinforcement learning: both models go on with the labels of their warm start, for as many steps and examples as RL would
// have taken and at its rates. What RL adds beyond this is not for having trained longer.
import type { Reconstructor } from "../nla/reconstructor.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import { adamw } from "../tensor/index.js";
import type { TrainConfig } from "./config-schema.js";
import { claimProgress, observePair } from "./held-out.js";
import type { HeldOutRow } from "./held-out.js";
import { responseEncoder } from "./label-response.js";
import { labelStream } from "./label-stream.js";
import type { WarmRows } from "./label-stream.js";
import { resumePoint, runLoop } from "./loop.js";
import type { LoopOutputs, StepLog } from "./loop.js";
import { restoreTrainers, saveTrainers } from "./pair-trainers.js";
import { reconstructorTrainer, regressionBatches } from "./reconstructor-step.js";
import { responseBatches } from "./response-batch.js";
import { stageRate } from "./schedule.js";
import { labelTrainer } from "./verbalizer-step.js";
import { finite } from "./warm-start.js";
import type { Storage } from "./warm-start.js";

/** What the control needs besides the pair. */
export interface ContinueLabelsContext {
  /** The warm starts' own training sets. */
  readonly reconstructorRows: WarmRows;
  readonly verbalizerRows: WarmRows;
  readonly heldOut: readonly HeldOutRow[];
  readonly settings: TrainConfig["rl"];
  readonly log: TrainConfig["log"];
  readonly compute: "f32" | "bf16";
  readonly outputs: LoopOutputs;
}

/** Runs the stage, from where its newest checkpoint stands. Models and storage as for {@link runGrpo}. */
export async function continueLabels(
  verbalizer: Verbalizer,
  reconstructor: Reconstructor,
  context: ContinueLabelsContext,
  storage: Storage,
): Promise<void> {
  const { reconstructorRows, verbalizerRows, heldOut, settings, log, compute, outputs } = context;
  const resumed = await resumePoint(outputs);
  const optimizer = () => adamw({ weightDecay: settings.weight_decay, clipNorm: settings.clip });
  using trainerV = labelTrainer(verbalizer, optimizer(), compute);
  using trainerR = reconstructorTrainer(reconstructor, optimizer(), compute);
  const trainers = { verbalizer: trainerV, reconstructor: trainerR };
  await restoreTrainers(trainers, resumed);
  const examples = settings.prompts * settings.group;
  const encode = responseEncoder(verbalizer);
  const done = resumed?.state.step ?? 0;
  const streamV = labelStream(verbalizerRows, examples, done);
  const streamR = labelStream(reconstructorRows, examples, done);
  const loop = {
    steps: settings.steps,
    async step(step: number): Promise<StepLog> {
      const labels = (await streamV.next()).map(({ vector, label }) => {
        return { vector, response: encode(label), weight: 1 / examples };
      });
      const texts = (await streamR.next()).map(({ vector, label }) => {
        return { vector, text: label };
      });
      outputs.signal?.throwIfAborted();
      // From here on nothing is aborted: the two models change together or not at all.
      const rateV = stageRate(step, settings, settings.lr_verbalizer);
      const rateR = stageRate(step, settings, settings.lr_reconstructor);
      const microV = responseBatches(verbalizer, labels, settings.micro_batch);
      const microR = regressionBatches(reconstructor, texts, settings.micro_batch);
      const resultV = await trainerV.step(microV, rateV);
      const resultR = await trainerR.step(microR, rateR);
      const { fields, samples } = await observePair(verbalizer, reconstructor, heldOut, step, {
        steps: settings.steps,
        log,
        maxNewTokens: settings.max_new_tokens,
      });
      const tokens = [...microV, ...microR].flatMap(({ batch }) => batch.lengths).reduce((a, b) => a + b, 0);
      return {
        row: {
          loss: finite(resultV.loss),
          loss_reconstructor: finite(resultR.loss),
          learning_rate: rateV,
          learning_rate_reconstructor: rateR,
          gradient_norm: finite(resultV.gradientNorm),
          gradient_norm_reconstructor: finite(resultR.gradientNorm),
          skipped: trainerV.counters.skipped,
          skipped_reconstructor: trainerR.counters.skipped,
          ...(fields ? { eval: fields } : {}),
        },
        tokens,
        numbers: { loss: resultV.loss, ...(fields ? { fve: fields.fve, ...claimProgress(fields) } : {}) },
        ...(samples ? { samples } : {}),
      };
    },
    save: (directory: string) => saveTrainers(trainers, storage, directory),
    state: () => ({
      data: streamV.cursor,
      seeds: {},
      optimizers: { verbalizer: trainerV.counters, reconstructor: trainerR.counters },
      best: {},
    }),
  };
  await runLoop(loop, done, outputs);
}
