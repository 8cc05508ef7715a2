// Makes golden values of a model by our own computation: what a later version, another machine or another engine can be
// compared with. It proves nothing about this engine by itself, and golden.json says who made it.
import { writeFileAtomic } from "../data/files.js";
import path from "node:path";
import { writeSafetensors } from "../data/safetensors.js";
import type { TensorToWrite } from "../data/safetensors.js";
import type { Device } from "../tensor/index.js";
import { loadDecoder, storedTensor } from "./checkpoint.js";
import { trainingPass } from "./conformance-training.js";
import type { Decoder } from "./decoder.js";
import { generate } from "./generate.js";
import { GOLDEN_JSON, GOLDEN_TENSORS, goldenError, isThere } from "./golden-folder.js";
import { run } from "./run.js";
import { uniformAt } from "./sampling.js";

// Longer than the windows and the original lengths of the small models, and of three lengths, so that there is padding.
const LENGTHS = [48, 31, 7];
const PROMPTS = [20, 9];
const GREEDY_TOKENS = 24;
// Where the best two logits are nearer than this, another order of summation may choose the other token.
const MIN_MARGIN = 1e-3;
const INJECTED_AT = 5;

/**
 * Computes golden values for the model in a folder, in f32, and writes golden.json and golden.safetensors into it.
 *
 * @throws NlaError `model.golden` where the folder has such values already, or the model's context is too short; those of the
 *   loader and writers
 */
export async function writeGolden(
  directory: string,
  device: Device,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<void> {
  for (const name of [GOLDEN_JSON, GOLDEN_TENSORS]) {
    if (await isThere(path.join(directory, name)))
      throw goldenError(directory, `${name} already`, "a model folder without golden values");
  }
  using model = await loadDecoder(directory, device);
  const { vocabulary, dim, layers, contextLength } = model.config;
  if (contextLength < Math.max(...LENGTHS))
    throw goldenError(directory, `a context of ${contextLength} tokens`, `at least ${Math.max(...LENGTHS)}`);
  const { signal } = options;
  const ids = (length: number, seed: number) =>
    Array.from({ length }, (_, i) => Math.floor(uniformAt(seed, i) * vocabulary));
  const sequences = LENGTHS.map((length, i) => ids(length, 100 + i));
  const tensors: TensorToWrite[] = [];
  const store = (name: string, values: Float32Array, ...shape: number[]) =>
    void tensors.push(storedTensor(name, shape, "F32", values));

  const capture = Array.from({ length: layers }, (_, k) => k);
  const all = { capture, embedded: true, normed: true, logits: "all", signal } as const;
  const states = await run(model, sequences, all);
  const n = states.lengths.reduce((a, b) => a + b, 0);
  const embedded = states.embedded as Float32Array;
  store("hidden.embed", embedded, n, dim);
  for (const [k, values] of states.blocks) store(`hidden.block${k}`, values, n, dim);
  store("hidden.norm", states.normed as Float32Array, n, dim);
  store("logits", states.logits as Float32Array, n, vocabulary);
  const left = await run(model, sequences, { logits: "last", padding: "left", signal });
  store("left.logits", left.logits as Float32Array, sequences.length, vocabulary);

  // A vector as long as the rows that it replaces one of.
  const [first] = sequences as [number[]];
  const vector = embedded.slice(2 * dim, 3 * dim).map((x, i) => x * (i % 2 === 0 ? 1 : -1));
  const injected = { sequence: 0, position: INJECTED_AT };
  const changed = await run(model, [first], { logits: "all", inject: [{ ...injected, vector }], signal });
  store("inject.vector", vector, dim);
  store("inject.logits", changed.logits as Float32Array, first.length, vocabulary);
  const block = Math.min(1, layers - 1);
  const stopped = await run(model, [first], { capture: [block], signal });
  store(`truncated.block${block}`, stopped.blocks.get(block) as Float32Array, first.length, dim);

  // The next token, but for the last of each sequence.
  const targets = sequences.flatMap((sequence) => sequence.map((_, i) => sequence[i + 1] ?? -100));
  const weights = Float32Array.from(targets, (target) => (target < 0 ? 0 : 1));
  store("loss.weights", weights, n);
  store("nll", negativeLogProbs(states.logits as Float32Array, targets, vocabulary), n);
  using pass = trainingPass(device, model, sequences, targets, weights);
  const loss = await pass.run(signal);
  let squares = 0;
  for (const [name, sum] of pass.sums.sums.tensors) {
    const values = sum.readF32();
    for (const value of values) squares += value * value;
    store(model.lora ? `grad.base_model.model.${name}` : `grad.${name}`, values, ...sum.shape);
  }
  const json = {
    description:
      "computed by nlakit itself, in float32: for comparing versions and machines, not for proving the engine",
    family: model.config.family,
    kernels: device.kernels !== null,
    lengths: LENGTHS,
    sequences,
    targets,
    loss,
    grad_norm: Math.sqrt(squares),
    generation: await greedy(
      model,
      PROMPTS.map((length, i) => ids(length, 200 + i)),
      signal,
    ),
    inject: injected,
    truncated: { block, sequence: 0 },
  };
  await writeSafetensors(path.join(directory, GOLDEN_TENSORS), tensors, { metadata: { format: "pt" } });
  await writeFileAtomic(path.join(directory, GOLDEN_JSON), `${JSON.stringify(json, null, 1)}\n`);
}

/** Greedy continuations with the margin of each token, cut before the first that is not certain. */
async function greedy(model: Decoder, prompts: readonly number[][], signal: AbortSignal | undefined) {
  const room = model.config.contextLength - Math.max(...PROMPTS);
  const made = await generate(model, prompts, {
    maxNewTokens: Math.min(GREEDY_TOKENS, room),
    temperature: 0,
    signal,
  });
  const certain = [];
  for (const [i, { tokens }] of made.entries()) {
    const prompt = prompts[i] as number[];
    const { logits } = await run(model, [[...prompt, ...tokens]], { logits: "all", signal });
    const { vocabulary } = model.config;
    const margins = tokens.map((_, t) => {
      const start = (prompt.length - 1 + t) * vocabulary;
      const sorted = (logits as Float32Array).slice(start, start + vocabulary).toSorted((a, b) => b - a);
      return (sorted[0] as number) - (sorted[1] as number);
    });
    const doubtful = margins.findIndex((margin) => margin < MIN_MARGIN);
    const kept = doubtful < 0 ? tokens.length : doubtful;
    if (kept > 0) certain.push({ prompt, tokens: tokens.slice(0, kept), margins: margins.slice(0, kept) });
  }
  return certain;
}

/** -log p of each target under its row of logits, in float64; 0 where there is none. */
function negativeLogProbs(
  logits: Float32Array,
  targets: readonly number[],
  vocabulary: number,
): Float32Array {
  return Float32Array.from(targets, (target, i) => {
    if (target < 0) return 0;
    const row = logits.subarray(i * vocabulary, (i + 1) * vocabulary);
    const max = row.reduce((a, b) => Math.max(a, b), -Infinity);
    return max + Math.log(row.reduce((sum, x) => sum + Math.exp(x - max), 0)) - (row[target] as number);
  });
}
