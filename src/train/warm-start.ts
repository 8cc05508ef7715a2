// The two warm starts as loops: the reconstructor learns activations from labels, the verbalizer labels from activations.
import type { Reconstructor } from "../nla/reconstructor.js";
import { wrapExplanation } from "../nla/explanation.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import { adamw } from "../tensor/index.js";
import { responseEndIds } from "./av-rows.js";
import type { TrainConfig } from "./config-schema.js";
import { measureLabels, measurePair, sampleRows } from "./held-out.js";
import type { HeldOutRow } from "./held-out.js";
import { resumePoint, runLoop } from "./loop.js";
import type { LoopOutputs, StepLog } from "./loop.js";
import { reconstructorTrainer, regressionBatches } from "./reconstructor-step.js";
import { responseBatches } from "./response-batch.js";
import { FIRST_ROW, takeRows } from "./row-order.js";
import { learningRateAt } from "./schedule.js";
import { labelTrainer } from "./verbalizer-step.js";
import type { LabelRow } from "./verbalizer-step.js";

/** A labelled activation. */
export interface LabelledRow {
  readonly vector: Float32Array;
  readonly label: string;
}

/** A training set that is read by row number. */
export interface RowSource<Row> {
  readonly rowCount: number;
  rows(indices: readonly number[]): Promise<Row[]>;
}

/** Settings of a warm start. */
export type WarmStartSettings = TrainConfig["reconstructor"];

/** What both warm starts need besides their model. */
export interface WarmStartContext {
  readonly rows: RowSource<LabelledRow>;
  readonly heldOut: readonly HeldOutRow[];
  readonly settings: WarmStartSettings;
  readonly log: TrainConfig["log"];
  readonly compute: "f32" | "bf16";
  /** Cap on held-out explanations, tokens. */
  readonly maxNewTokens: number;
  readonly outputs: LoopOutputs;
}

/** A model as a loop saves and restores it. */
export interface Storage {
  /** Writes the model into `{directory}/{name}`. */
  save(directory: string): Promise<void>;
}

function scheduleOf({ schedule, lr, warmup, steps }: WarmStartSettings) {
  const warmupSteps = Math.min(warmup, Math.max(0, steps - 1));
  return { shape: schedule, peak: lr, warmupSteps, totalSteps: Math.max(steps, warmupSteps + 1) };
}

function due(step: number, every: number, steps: number): boolean {
  return step % every === every - 1 || step === steps - 1;
}

/**
 * Trains a reconstructor on labels, from where its newest checkpoint stands.
 *
 * @param reconstructor already holding that checkpoint's weights
 * @param storage writes it into a checkpoint
 */
export async function warmStartReconstructor(
  reconstructor: Reconstructor,
  context: WarmStartContext,
  storage: Storage,
): Promise<void> {
  const { rows, heldOut, settings, log, compute, outputs } = context;
  const resumed = await resumePoint(outputs);
  const optimizer = adamw({ weightDecay: settings.weight_decay, clipNorm: settings.clip });
  using trainer = reconstructorTrainer(reconstructor, optimizer, compute);
  if (resumed)
    await trainer.restore(resumed.directory, "optimizer", countersOf(resumed.state.optimizers.reconstructor));
  let cursor = resumed?.state.data ?? FIRST_ROW;
  const { signal } = outputs;
  const loop = {
    steps: settings.steps,
    async step(step: number): Promise<StepLog> {
      const { rows: numbers, next } = takeRows(cursor, settings.batch, { rowCount: rows.rowCount });
      const batch = (await rows.rows(numbers)).map(({ vector, label }) => ({ vector, text: label }));
      const micros = regressionBatches(reconstructor, batch, settings.micro_batch);
      const learningRate = learningRateAt(step, scheduleOf(settings));
      const result = await trainer.step(micros, learningRate, signal);
      cursor = next;
      const evaluated = due(step, log.eval_every, settings.steps)
        ? await measureLabels(reconstructor, heldOut, { compute }) // not abortable: the step is done, its row must be whole
        : null;
      return {
        row: {
          loss: result.loss,
          learning_rate: learningRate,
          gradient_norm: finite(result.gradientNorm),
          skipped: trainer.counters.skipped,
          ...(evaluated ? { eval: evaluated } : {}),
        },
        tokens: micros.reduce((sum, { batch: { lengths } }) => sum + lengths.reduce((a, b) => a + b, 0), 0),
        numbers: { loss: result.loss, ...(evaluated ? { fve: evaluated.fve } : {}) },
      };
    },
    async save(directory: string) {
      await storage.save(directory);
      await trainer.save(directory, "optimizer");
    },
    state: () => ({ data: cursor, seeds: {}, optimizers: { reconstructor: trainer.counters }, best: {} }),
  };
  await runLoop(loop, resumed?.state.step ?? 0, outputs);
}

/**
 * Trains a verbalizer on labels, from where its newest checkpoint stands. At intervals it logs the cross-entropy on held-out
 * labels with the right activations and with those of other rows: the gap is what it reads from the activation.
 */
export async function warmStartVerbalizer(
  verbalizer: Verbalizer,
  reconstructor: Reconstructor,
  context: WarmStartContext,
  storage: Storage,
): Promise<void> {
  const { rows, heldOut, settings, log, compute, outputs, maxNewTokens } = context;
  const resumed = await resumePoint(outputs);
  const optimizer = adamw({ weightDecay: settings.weight_decay, clipNorm: settings.clip });
  using trainer = labelTrainer(verbalizer, optimizer, compute);
  if (resumed)
    await trainer.restore(resumed.directory, "optimizer", countersOf(resumed.state.optimizers.verbalizer));
  let cursor = resumed?.state.data ?? FIRST_ROW;
  const { signal } = outputs;
  const encode = responseEncoder(verbalizer);
  const labelled = heldOut.filter(({ label }) => label !== null);
  const measureGap = async () => {
    const loss = async (shift: number) => {
      const batch = labelled.map(({ label }, i): LabelRow => {
        const { vector } = labelled[(i + shift) % labelled.length] as HeldOutRow;
        return { vector, response: encode(label ?? ""), weight: 1 / labelled.length };
      });
      return (await trainer.measure(responseBatches(verbalizer, batch, settings.micro_batch))).loss;
    };
    // Half the set away is another document, since rows of one stand together.
    const [real, shuffled] = [await loss(0), await loss(Math.floor(labelled.length / 2))];
    return { loss_real: real, loss_shuffled: shuffled, gap: shuffled - real };
  };
  const loop = {
    steps: settings.steps,
    async step(step: number): Promise<StepLog> {
      const { rows: numbers, next } = takeRows(cursor, settings.batch, { rowCount: rows.rowCount });
      const batch = (await rows.rows(numbers)).map(({ vector, label }) => {
        return { vector, response: encode(label), weight: 1 / settings.batch };
      });
      const micros = responseBatches(verbalizer, batch, settings.micro_batch);
      const learningRate = learningRateAt(step, scheduleOf(settings));
      const result = await trainer.step(micros, learningRate, signal);
      cursor = next;
      const evaluated = due(step, log.eval_every, settings.steps)
        ? await measurePair(verbalizer, reconstructor, heldOut, { maxNewTokens, compute: "f32" })
        : null;
      const gap = evaluated && labelled.length > 1 ? await measureGap() : null;
      const sampled = evaluated && due(step, log.sample_every, settings.steps);
      return {
        row: {
          loss: result.loss,
          learning_rate: learningRate,
          gradient_norm: finite(result.gradientNorm),
          skipped: trainer.counters.skipped,
          ...gap,
          ...(evaluated ? { eval: evaluated.fields } : {}),
        },
        tokens: micros.reduce((sum, { batch: { lengths } }) => sum + lengths.reduce((a, b) => a + b, 0), 0),
        numbers: {
          loss: result.loss,
          ...(gap ? { gap: gap.gap } : {}),
          ...(evaluated ? { fve: evaluated.fields.fve } : {}),
        },
        ...(sampled ? { samples: sampleRows(heldOut, evaluated, log.samples) } : {}),
      };
    },
    async save(directory: string) {
      await storage.save(directory);
      await trainer.save(directory, "optimizer");
    },
    state: () => ({ data: cursor, seeds: {}, optimizers: { verbalizer: trainer.counters }, best: {} }),
  };
  await runLoop(loop, resumed?.state.step ?? 0, outputs);
}

/** Turns a label into the response that teaches it, its end included, cut to what the context leaves. */
export function responseEncoder({
  tokenizer,
  contract,
  prompt,
  model,
}: Verbalizer): (label: string) => number[] {
  const end = responseEndIds(tokenizer);
  const room = model.config.contextLength - prompt.ids.length - end.length;
  return (label) => {
    const ids = tokenizer.encode(wrapExplanation(label, { format: contract.format }));
    return [...ids.slice(0, room), ...end];
  };
}

/** Counters of an optimizer in a checkpoint. */
export function countersOf(counters: Readonly<Record<string, number>> | undefined): {
  steps: number;
  skipped: number;
} {
  return { steps: counters?.steps ?? 0, skipped: counters?.skipped ?? 0 };
}

/** A number for JSON: what is not finite is written as its name, not as null. */
export function finite(value: number): number | string {
  return Number.isFinite(value) ? value : String(value);
}
