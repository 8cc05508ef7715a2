// The two warm starts as loops: the reconstructor learns activations from labels, the verbalizer labels from activations.
import { performance } from "node:perf_hooks";
import { rowsOfOtherDocuments } from "../evaluate/other-documents.js";
import type { Reconstructor } from "../nla/reconstructor.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import type { Batch } from "../model/index.js";
import { adamw } from "../tensor/index.js";
import type { TrainConfig } from "./config-schema.js";
import { claimProgress, measureLabels, observePair } from "./held-out.js";
import type { HeldOutRow } from "./held-out.js";
import { responseEncoder } from "./label-response.js";
import { due, resumePoint, runLoop } from "./loop.js";
import type { LoopOutputs, StepLog } from "./loop.js";
import { reconstructorTrainer, regressionBatches } from "./reconstructor-step.js";
import { responseBatches } from "./response-batch.js";
import { FIRST_ROW, takeRows } from "./row-order.js";
import { stageRate } from "./schedule.js";
import type { StepResult } from "./trainer.js";
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
  const labelled = heldOut.filter(({ label }) => label !== null);
  const loop = {
    steps: settings.steps,
    async step(step: number): Promise<StepLog> {
      const { rows: numbers, next } = takeRows(cursor, settings.batch, { rowCount: rows.rowCount });
      const batch = (await rows.rows(numbers)).map(({ vector, label }) => ({ vector, text: label }));
      const micros = regressionBatches(reconstructor, batch, settings.micro_batch);
      const learningRate = stageRate(step, settings, settings.lr);
      const result = await trainer.step(micros, learningRate, signal);
      cursor = next;
      const begun = performance.now();
      // Not abortable: the step is done, and its row must be whole. One row has no variance to explain.
      const evaluated =
        due(step, log.eval_every, settings.steps) && labelled.length > 1
          ? await measureLabels(reconstructor, labelled, { compute: "f32" })
          : null;
      const seconds = { evaluate: (performance.now() - begun) / 1000 };
      return {
        row: {
          ...stepFields(result, learningRate, trainer.counters),
          ...(evaluated ? { eval: evaluated } : {}),
        },
        seconds,
        tokens: tokensOf(micros),
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
    const others = rowsOfOtherDocuments(
      labelled.map(({ docId }) => docId),
      { seed: 0 },
    );
    const loss = async (vectorOf: (i: number) => Float32Array) => {
      const batch = labelled.map(({ label }, i): LabelRow => {
        return { vector: vectorOf(i), response: encode(label ?? ""), weight: 1 / labelled.length };
      });
      return (await trainer.measure(responseBatches(verbalizer, batch, settings.micro_batch))).loss;
    };
    const real = await loss((i) => (labelled[i] as HeldOutRow).vector);
    const shuffled = await loss((i) => (labelled[others[i] as number] as HeldOutRow).vector);
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
      const learningRate = stageRate(step, settings, settings.lr);
      const result = await trainer.step(micros, learningRate, signal);
      cursor = next;
      const begun = performance.now();
      const { fields, samples } = await observePair(verbalizer, reconstructor, heldOut, step, {
        steps: settings.steps,
        log,
        maxNewTokens,
      });
      const gap = fields && labelled.length > 0 ? await measureGap() : null;
      const seconds = { evaluate: (performance.now() - begun) / 1000 };
      return {
        row: {
          ...stepFields(result, learningRate, trainer.counters),
          ...gap,
          ...(fields ? { eval: fields } : {}),
        },
        seconds,
        tokens: tokensOf(micros),
        numbers: {
          loss: result.loss,
          ...(gap ? { gap: gap.gap } : {}),
          ...(fields ? { fve: fields.fve, ...claimProgress(fields) } : {}),
        },
        ...(samples ? { samples } : {}),
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

/** What both warm starts log of a step. */
function stepFields(
  { loss, gradientNorm }: StepResult,
  learningRate: number,
  { skipped }: { readonly skipped: number },
) {
  return {
    loss: finite(loss),
    learning_rate: learningRate,
    gradient_norm: finite(gradientNorm),
    skipped,
  };
}

/** Tokens in some micro-batches, padding left out. */
function tokensOf(micros: readonly { readonly batch: Batch }[]): number {
  return micros.flatMap(({ batch }) => batch.lengths).reduce((sum, length) => sum + length, 0);
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
