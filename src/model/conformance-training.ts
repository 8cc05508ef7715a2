// The checks of training: loss, gradient of every trainable parameter, and the parameters after AdamW steps.
import { adamw, GradientSums, Graph, ops } from "../tensor/index.js";
import type { Device } from "../tensor/index.js";
import { packedRows, padBatch } from "./batch.js";
import { relativeL2 } from "./conformance-findings.js";
import type { Findings, Subject } from "./conformance-findings.js";
import type { Decoder } from "./decoder.js";
import { finalNorm, forward } from "./forward.js";
import { declareBatch } from "./graph-inputs.js";
import { headOf } from "./run.js";

const LOSS = 1e-5;
const GRADIENT = 1e-4;
const GRADIENT_NORM = 1e-5;
// Of the update, not of the parameter. The first update is lr · sign(gradient) where the gradient is rounding noise.
const UPDATE = 1e-2;
// Rows of logits at a time; small, so that several chunks are added up.
const CHUNK = 50;

/** The masked mean cross-entropy of some sequences, with gradient sums of all that is trainable. */
export interface TrainingPass extends Disposable {
  readonly sums: GradientSums;
  /** Clears the sums and runs. @returns the loss */
  run(signal?: AbortSignal): Promise<number>;
}

/**
 * Builds loss and gradients: Σ weight · -log p(target) / Σ weight over the real tokens of sequence 0, then 1, and so on.
 *
 * @param targets one per token, below 0 where there is none
 * @param weights one per token, 0 there
 */
export function trainingPass(
  device: Device,
  model: Decoder,
  sequences: readonly (readonly number[])[],
  targets: readonly number[],
  weights: Float32Array,
): TrainingPass {
  const batch = padBatch(sequences, { maxLength: model.config.contextLength });
  const n = batch.rows * batch.length;
  const sums = new GradientSums(model.trainable);
  const g = new Graph(device);
  const declared = declareBatch(g, batch);
  const { blocks, embedded } = forward(g, model, declared);
  const hidden = finalNorm(g, model, blocks.at(-1) ?? embedded);
  const inputs = [g.input("targets", [n], "i32"), g.input("weights", [n])] as const;
  const options = { chunk: CHUNK, softcap: model.config.logitSoftcap };
  const loss = g.output(ops.crossEntropy(g, hidden, headOf(model), ...inputs, options));
  sums.accumulate(g, g.backward(loss));
  g.compile();
  const values = { targets: new Int32Array(n), weights: new Float32Array(n) };
  const total = weights.reduce((a, b) => a + b, 0);
  packedRows(batch).forEach((row, i) => {
    values.targets[row] = Math.max(0, targets[i] as number);
    values.weights[row] = (weights[i] as number) / total;
  });
  return {
    sums,
    async run(signal) {
      sums.clear();
      await g.run({ ...declared.values(batch), ...values }, signal);
      return loss.readF32()[0] as number;
    },
    [Symbol.dispose]() {
      g[Symbol.dispose]();
      sums[Symbol.dispose]();
    },
  };
}

/** What stands before a parameter's name in the names of golden gradients: peft's prefix for an adapter. */
function gradientName(model: Decoder, name: string): string {
  return model.lora ? `grad.base_model.model.${name}` : `grad.${name}`;
}

/** Loss, gradients, their norm, and the steps that the folder has values for. */
export async function checkTraining(subject: Subject, findings: Findings): Promise<void> {
  const { device, golden, signal } = subject;
  const { sequences, targets, loss, grad_norm: norm, adamw: settings } = golden.values;
  const names = ["loss", "gradients", "gradient norm", "parameters after AdamW steps"] as const;
  if (!targets || loss === undefined || norm === undefined) {
    for (const name of names) findings.add(name, "absolute", 0, []);
    return;
  }
  using copy = settings && !subject.model.lora ? subject.model.copy() : null; // the steps change it
  const model = copy ?? subject.model;
  using pass = trainingPass(device, model, sequences, targets, await golden.tensor("loss.weights"));
  const found = await pass.run(signal);
  findings.add(names[0], "absolute", LOSS, [["loss", Math.abs(found - loss)]]);
  const gradients: [string, number][] = [];
  let squares = 0;
  for (const [name, sum] of pass.sums.sums.tensors) {
    const values = sum.readF32();
    for (const value of values) squares += value * value;
    const wanted = gradientName(model, name);
    if (golden.names.has(wanted)) gradients.push([name, relativeL2(values, await golden.tensor(wanted))]);
  }
  findings.add(names[1], "rel L2", GRADIENT, gradients);
  findings.add(names[2], "relative", GRADIENT_NORM, [["norm", Math.abs(Math.sqrt(squares) / norm - 1)]]);

  const updates: [string, number][] = [];
  const steps = copy && settings ? [...golden.names].filter((name) => /^step\d+\./.test(name)) : [];
  if (settings && steps.length > 0) {
    const optimizer = adamw({
      beta1: settings.betas[0],
      beta2: settings.betas[1],
      eps: settings.eps,
      weightDecay: settings.weight_decay,
      clipNorm: settings.clip_grad_norm,
    });
    using state = optimizer.init(pass.sums);
    const last = Math.max(...steps.map((name) => Number(/^step(\d+)/.exec(name)?.[1])));
    for (let step = 1; step <= last; step++) {
      if (step > 1) await pass.run(signal);
      await optimizer.update(state, settings.lr, signal);
      for (const stored of steps.filter((name) => name.startsWith(`step${step}.`))) {
        const name = stored.slice(`step${step}.`.length);
        const start = subject.model.get(name).readF32();
        const update = (values: Float32Array) => values.map((x, i) => x - (start[i] as number));
        updates.push([
          stored,
          relativeL2(update(model.get(name).readF32()), update(await golden.tensor(stored))),
        ]);
      }
    }
  }
  findings.add(names[3], "rel L2", UPDATE, updates);
}
