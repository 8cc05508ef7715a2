// Pretraining of a decoder from scratch on documents that are seen once each: the loop and its held-out measure. What a document is
// comes from a source; what the loss is, from language-model-step.ts; the run folder, from train-target.ts.
import path from "node:path";
import { performance } from "node:perf_hooks";
import { openSafetensors, writeSafetensors } from "../data/safetensors.js";
import { keyedRandom } from "../data/python-random.js";
import { NlaError } from "../error.js";
import { randomParameters, saveDecoder, storedTensor } from "../model/index.js";
import type { Decoder } from "../model/index.js";
import { adamw } from "../tensor/index.js";
import {
  countPairs,
  documentBatches,
  FUTURE_HEAD,
  futureHead,
  languageTrainer,
} from "./language-model-step.js";
import type { DocumentBatch, FutureSettings } from "./language-model-step.js";
import { due, resumePoint, runLoop } from "./loop.js";
import type { LoopOutputs, StepLog } from "./loop.js";
import { FIRST_ROW } from "./row-order.js";
import { learningRateAt } from "./schedule.js";
import type { PassResult } from "./loss-graphs.js";
import type { TargetConfig } from "./target-config.js";
import type { Trainer } from "./trainer.js";
import { countersOf, finite } from "./warm-start.js";

/** A document to learn from. */
export interface LanguageDocument {
  /** Token ids with BOS and EOS, at least two. */
  readonly ids: readonly number[];
  /** What it is grouped by in the held-out figures. */
  readonly kind: string;
  /** Its exact -ln(probability) where that is known. */
  readonly nats: number | null;
}

/** Documents by number, the same one each time. */
export interface DocumentSource {
  /** How many there are; Infinity for a stream without end. */
  readonly count: number;
  document(index: number): LanguageDocument;
}

/** What the loop needs besides the model. */
export interface LanguageContext {
  readonly documents: DocumentSource;
  readonly heldOut: readonly LanguageDocument[];
  readonly settings: Pick<
    TargetConfig,
    | "steps"
    | "batch"
    | "micro_batch"
    | "lr"
    | "floor"
    | "warmup"
    | "beta1"
    | "beta2"
    | "weight_decay"
    | "clip"
    | "future"
    | "log"
    | "seed"
    | "compute"
  >;
  /** Ids that are never content words: the special tokens. */
  readonly specialIds: ReadonlySet<number>;
  readonly outputs: LoopOutputs;
}

/** Held-out figures, nats per token with the end of the document counted as one. */
export interface HeldOutLoss {
  readonly loss: number;
  /** The least loss that a model can have; absent where it is not known. */
  readonly bound?: number;
  /** loss - bound */
  readonly distance?: number;
  /** Future loss, where there is one. */
  readonly future?: number;
}

/** Folder of the model within a checkpoint. */
export const CHECKPOINT_MODEL = "model";
const FUTURE_FILE = "future_head";

/**
 * By id, whether a word is content: rarer than `share` among the tokens of some documents, and not special.
 *
 * @param vocabulary how many ids there are
 */
export function contentWords(
  documents: readonly LanguageDocument[],
  { vocabulary, share, special }: { vocabulary: number; share: number; special: ReadonlySet<number> },
): boolean[] {
  const counts = new Float64Array(vocabulary);
  let total = 0;
  for (const { ids } of documents) {
    for (const id of ids) counts[id] = (counts[id] as number) + 1;
    total += ids.length;
  }
  return Array.from(counts, (count, id) => count < share * total && !special.has(id));
}

/**
 * Trains a language model from where its newest checkpoint stands. Step s sees documents s · batch to (s + 1) · batch - 1 of the
 * source, so none is seen twice.
 *
 * @param model already holding that checkpoint's weights
 * @throws NlaError `train.documents` where the source has fewer documents than the steps need; those of the loop
 */
export async function trainLanguageModel(model: Decoder, context: LanguageContext): Promise<void> {
  const { documents, heldOut, settings, specialIds, outputs } = context;
  const { steps, batch, log, seed, future } = settings;
  if (documents.count < steps * batch) {
    throw new NlaError({
      code: "train.documents",
      subject: "the documents of pretraining",
      found: `${documents.count.toLocaleString("en")} of them`,
      wanted: `${(steps * batch).toLocaleString("en")}: ${steps} steps of ${batch}, none seen twice`,
      next: "Lower steps or batch, or give a larger corpus.",
    });
  }
  const { vocabulary } = model.config;
  const wantsFuture = future.weight > 0;
  const content = contentWords(heldOut, { vocabulary, share: future.content, special: specialIds });
  const futureSettings: FutureSettings = { ...future, content };
  using head = wantsFuture ? futureHead(model) : null;
  const resumed = await resumePoint(outputs);
  const headTensor = head?.get(FUTURE_HEAD);
  if (headTensor) {
    // Another stream than the model's, or its first rows would be the embedding's.
    headTensor.write(
      resumed ? await readHead(resumed.directory) : randomParameters(seed + 1)(FUTURE_HEAD, headTensor.shape),
    );
  }
  const optimizer = adamw({
    beta1: settings.beta1,
    beta2: settings.beta2,
    weightDecay: settings.weight_decay,
    clipNorm: settings.clip,
  });
  const trained = headTensor ? { settings: futureSettings, head: headTensor } : null;
  using trainer = languageTrainer(model, optimizer, settings.compute, trained);
  if (resumed) {
    await trainer.restore(resumed.directory, "optimizer", countersOf(resumed.state.optimizers.model));
  }
  const batchesOf = (ids: readonly (readonly number[])[], key: string) =>
    documentBatches(ids, {
      microBatch: settings.micro_batch,
      maxLength: model.config.contextLength,
      future: trained ? { settings: futureSettings, random: keyedRandom(seed, key) } : null,
    });
  const measure = (group: readonly LanguageDocument[], key: string) =>
    heldOutLoss(
      trainer,
      group,
      batchesOf(
        group.map(({ ids }) => ids),
        `held-out ${key}`,
      ),
    );
  const kinds = [...new Set(heldOut.map(({ kind }) => kind))].sort();
  let offset = resumed?.state.data.offset ?? FIRST_ROW.offset;
  const { signal } = outputs;
  const loop = {
    steps,
    async step(step: number): Promise<StepLog> {
      const part = Array.from({ length: batch }, (_, i) => documents.document(step * batch + i).ids);
      const micros = batchesOf(part, `step ${step}`);
      const warmupSteps = Math.min(settings.warmup, steps - 1);
      const peak = settings.lr;
      const learningRate = learningRateAt(step, {
        shape: "cosine",
        peak,
        floor: settings.floor * peak,
        warmupSteps,
        totalSteps: steps,
      });
      const result = await trainer.step(micros, learningRate, signal);
      offset = (step + 1) * batch;
      const begun = performance.now();
      // Not abortable: the step is done, and its row must be whole.
      const evaluated = due(step, log.eval_every, steps) ? await measure(heldOut, "all") : null;
      const byKind: Record<string, Readonly<Record<string, number>>> = {};
      if (step === steps - 1) {
        for (const kind of kinds) {
          const group = heldOut.filter((each) => each.kind === kind);
          byKind[kind] = { ...(await measure(group, kind)) };
        }
      }
      const sums = sumsOf(result);
      return {
        row: {
          loss: finite(sums.language),
          ...(trained ? { future: finite(sums.future), pairs: pairsOf(micros) } : {}),
          learning_rate: learningRate,
          gradient_norm: finite(result.gradientNorm),
          skipped: trainer.counters.skipped,
          ...(evaluated ? { eval: { ...evaluated, ...(step === steps - 1 ? { kinds: byKind } : {}) } } : {}),
        },
        seconds: { evaluate: (performance.now() - begun) / 1000 },
        tokens: part.reduce((sum, ids) => sum + ids.length, 0),
        numbers: { loss: sums.language, ...(evaluated ? { heldOut: evaluated.loss } : {}) },
      };
    },
    async save(directory: string) {
      await saveDecoder(path.join(directory, CHECKPOINT_MODEL), model);
      if (headTensor) {
        const tensor = storedTensor(FUTURE_HEAD, headTensor.shape, "F32", headTensor.readF32());
        await writeSafetensors(path.join(directory, `${FUTURE_FILE}.safetensors`), [tensor]);
      }
      await trainer.save(directory, "optimizer");
    },
    state: () => ({
      data: { epoch: 0, offset },
      seeds: {},
      optimizers: { model: trainer.counters },
      best: {},
    }),
  };
  await runLoop(loop, resumed?.state.step ?? 0, outputs);
}

/** Loss on held-out documents and, where their nats are known, how far it is from the best possible. */
async function heldOutLoss(
  trainer: Trainer<DocumentBatch>,
  documents: readonly LanguageDocument[],
  micros: readonly DocumentBatch[],
): Promise<HeldOutLoss> {
  const { language: loss, future } = sumsOf(await trainer.measure(micros));
  const predicted = documents.reduce((sum, { ids }) => sum + ids.length - 1, 0);
  const known = documents.every(({ nats }) => nats !== null);
  const bound = documents.reduce((sum, { nats }) => sum + (nats ?? 0), 0) / predicted;
  return {
    loss,
    ...(known ? { bound, distance: loss - bound } : {}),
    ...(micros[0]?.future ? { future } : {}),
  };
}

function sumsOf({ outputs }: PassResult): { language: number; future: number } {
  const sum = (name: string) => outputs.reduce((total, each) => total + (each[name]?.[0] ?? 0), 0);
  return { language: sum("language"), future: sum("future") };
}

function pairsOf(micros: readonly DocumentBatch[]): number {
  return micros.reduce((sum, { future }) => sum + (future ? countPairs(future) : 0), 0);
}

async function readHead(directory: string): Promise<Float32Array> {
  const file = await openSafetensors(path.join(directory, `${FUTURE_FILE}.safetensors`));
  try {
    return await file.readF32(FUTURE_HEAD);
  } finally {
    await file.close();
  }
}
