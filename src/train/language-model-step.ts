// The loss of a language model on whole documents, and the future loss beside it: from the residual after block K predict words that
// come much later. Micro-batches, graphs and trainer; the loop is language-model.ts.
import { declareBatch, finalNorm, forward, headOf, padBatch } from "../model/index.js";
import type { Batch, Decoder } from "../model/index.js";
import type { PythonRandom } from "../data/python-random.js";
import { Arena, ops } from "../tensor/index.js";
import type { AdamwState, Graph, Optimizer, Tensor } from "../tensor/index.js";
import type { LossGraph } from "./loss-graphs.js";
import { Trainer } from "./trainer.js";

/** Settings of the future loss. */
export interface FutureSettings {
  /** Factor on it in the sum of losses. */
  readonly weight: number;
  /** Block whose output it reads. */
  readonly layer: number;
  /** Pairs drawn per token. */
  readonly pairs: number;
  /** By id: whether it is a content word. */
  readonly content: readonly boolean[];
}

/** Pairs of a token and a later content word. All [slots]; a slot without a pair has weight 0. */
export interface FuturePairs {
  /** Row of the batch's tokens that has to know. */
  readonly from: Int32Array;
  /** Id of the later word. */
  readonly words: Int32Array;
  readonly weights: Float32Array;
}

/** A padded micro-batch of documents with what each token is to predict. */
export interface DocumentBatch {
  readonly batch: Batch;
  /** The next token, [rows · length]; 0 where there is none. */
  readonly targets: Int32Array;
  /** What each counts: those of a step sum to one. */
  readonly weights: Float32Array;
  readonly future: FuturePairs | null;
}

// Lengths in steps of this many, so that a few compiled graphs serve all micro-batches.
const LENGTH_STEP = 16;
// Draws until a content word is met. A document with next to none goes without.
const MAX_DRAWS = 32;

interface Options {
  readonly microBatch: number;
  readonly maxLength: number;
  readonly future?: { readonly settings: FutureSettings; readonly random: PythonRandom } | null;
}

/**
 * Splits documents into micro-batches, those of like length together, padded on the right. Each token but the last predicts the
 * next one; weights sum to one over all of them.
 *
 * @param documents token ids, BOS and EOS included, at least two of them
 * @throws NlaError `model.batch` for a document longer than `maxLength`
 */
export function documentBatches(
  documents: readonly (readonly number[])[],
  { microBatch, maxLength, future = null }: Options,
): DocumentBatch[] {
  const predicted = documents.reduce((sum, ids) => sum + ids.length - 1, 0);
  const sorted = documents
    .map((ids, i) => ({ ids, i }))
    .sort((a, b) => a.ids.length - b.ids.length || a.i - b.i);
  const batches: DocumentBatch[] = [];
  for (let start = 0; start < sorted.length; start += microBatch) {
    const part = sorted.slice(start, start + microBatch).map(({ ids }) => ids);
    const batch = padBatch(part, { multiple: LENGTH_STEP, maxLength });
    const targets = new Int32Array(batch.ids.length);
    const weights = new Float32Array(batch.ids.length);
    part.forEach((ids, row) => {
      const at = row * batch.length;
      targets.set(ids.slice(1), at);
      weights.fill(1 / predicted, at, at + ids.length - 1);
    });
    const pairs = future ? drawPairs(part, batch.length, future.settings, future.random) : null;
    batches.push({ batch, targets, weights, future: pairs });
  }
  const total = batches.reduce((sum, { future: pairs }) => sum + (pairs ? countPairs(pairs) : 0), 0);
  for (const { future: pairs } of batches) {
    pairs?.weights.forEach((weight, i) => (pairs.weights[i] = weight > 0 ? 1 / total : 0));
  }
  return batches;
}

/** Pairs that are there. */
export function countPairs({ weights }: FuturePairs): number {
  return weights.reduce((sum, weight) => sum + (weight > 0 ? 1 : 0), 0);
}

/** Draws t and s > t evenly, again until the word at s is content. Weights are 1 or 0 here. */
function drawPairs(
  rows: readonly (readonly number[])[],
  length: number,
  { pairs, content }: FutureSettings,
  random: PythonRandom,
): FuturePairs {
  const perRow = Math.ceil(length * pairs);
  const from = new Int32Array(rows.length * perRow);
  const words = new Int32Array(from.length);
  const weights = new Float32Array(from.length);
  rows.forEach((ids, row) => {
    const wanted = ids.length < 3 ? 0 : Math.floor(ids.length * pairs);
    for (let i = 0; i < wanted; i++) {
      const slot = row * perRow + i;
      from[slot] = row * length;
      for (let draw = 0; draw < MAX_DRAWS; draw++) {
        const t = random.randbelow(ids.length - 2);
        const word = ids[t + 1 + random.randbelow(ids.length - 1 - t)] as number;
        if (!content[word]) continue;
        from[slot] = row * length + t;
        words[slot] = word;
        weights[slot] = 1;
        break;
      }
    }
  });
  return { from, words, weights };
}

/** The key under which micro-batches share a graph. */
export function documentShape({ batch, future }: DocumentBatch): string {
  return `${batch.rows}x${batch.length}+${future?.from.length ?? 0}`;
}

/**
 * Appends cross-entropy of the next token, plus `weight` times the future loss where there are pairs: cross-entropy of the later word
 * under softmax(W rms(h_K)). Outputs `language` and `future`, [1] each, nats.
 *
 * @param head W [vocabulary, dim], used here only and thrown away after training
 */
export function languageLoss(
  g: Graph,
  model: Decoder,
  like: DocumentBatch,
  future: { readonly settings: FutureSettings; readonly head: Tensor } | null,
): LossGraph<DocumentBatch> {
  const { config } = model;
  const declared = declareBatch(g, like.batch);
  const n = like.batch.ids.length;
  const { blocks } = forward(g, model, declared);
  const targets = g.input("targets", [n], "i32");
  const weights = g.input("weights", [n]);
  const hidden = finalNorm(g, model, blocks.at(-1) as Tensor);
  const softcap = config.logitSoftcap;
  const language = ops.crossEntropy(g, hidden, headOf(model), targets, weights, { softcap });
  const nextToken = (micro: DocumentBatch) => {
    return { ...declared.values(micro.batch), targets: micro.targets, weights: micro.weights };
  };
  if (!future || !like.future) return { loss: language, outputs: { language }, values: nextToken };

  const { settings, head } = future;
  const slots = like.future.from.length;
  const from = g.input("futureFrom", [slots], "i32");
  const words = g.input("futureWords", [slots], "i32");
  const futureWeights = g.input("futureWeights", [slots]);
  const ones = g.input("ones", [config.dim]);
  const states = ops.gatherRows(g, blocks[settings.layer] as Tensor, from);
  const normed = ops.rmsNorm(g, states, ones, config.normEps);
  const later = ops.crossEntropy(g, normed, head, words, futureWeights);
  return {
    loss: ops.add(g, language, ops.scale(g, later, settings.weight)),
    outputs: { language, future: later },
    values: (micro) => ({
      ...nextToken(micro),
      futureFrom: (micro.future as FuturePairs).from,
      futureWords: (micro.future as FuturePairs).words,
      futureWeights: (micro.future as FuturePairs).weights,
      ones: new Float32Array(config.dim).fill(1),
    }),
  };
}

/** Name of the matrix of the future loss. */
export const FUTURE_HEAD = "future_head.weight";

/** A place for the matrix of the future loss, [vocabulary, dim], zero at first. */
export function futureHead(model: Decoder): Arena {
  const { vocabulary, dim } = model.config;
  return new Arena(model.device, "future head", {
    [FUTURE_HEAD]: { shape: [vocabulary, dim], parameter: true },
  });
}

/** The trainer of a language model; with a future loss it trains that one's matrix too. */
export function languageTrainer(
  model: Decoder,
  optimizer: Optimizer<AdamwState>,
  compute: "f32" | "bf16",
  future: { readonly settings: FutureSettings; readonly head: Tensor } | null,
): Trainer<DocumentBatch> {
  const parameters = new Map(model.parameters.tensors);
  if (future) parameters.set(FUTURE_HEAD, future.head);
  return new Trainer<DocumentBatch>({
    device: model.device,
    parameters,
    optimizer,
    compute,
    build: (g, micro) => languageLoss(g, model, micro, future),
    shapeOf: documentShape,
  });
}
