// Batched generation with a key-value cache: every distinct prompt is read once, its cache copied for each sample; rows that
// have ended leave the batch; each row has its own length, seed and stop.
import { freemem } from "node:os";
import { setImmediate } from "node:timers/promises";
import { Graph, PackedMatrices } from "../tensor/index.js";
import type { Tensor } from "../tensor/index.js";
import { NlaError } from "../error.js";
import { KvCache } from "./cache.js";
import type { Decoder } from "./decoder.js";
import type { CacheUse } from "./cache-layout.js";
import { forward } from "./forward.js";
import type { Weights } from "./forward.js";
import { canDraw, chooseToken, drawnTokens, nextTokens } from "./next-token.js";
import type { Choice, DrawnTokens, NextTokens } from "./next-token.js";
import { readPrompts } from "./read-prompts.js";
import type { Injection } from "./run.js";
import { uniformAt } from "./sampling.js";
import type { SamplingOptions } from "./sampling.js";

/** Options of {@link generate}. */
export interface GenerateOptions extends SamplingOptions {
  readonly maxNewTokens: number;
  /** Samples per prompt. Defaults to 1. */
  readonly samples?: number;
  /** Seed of each sample, prompt after prompt; a number seeds sample i with seed + i. Defaults to 0. */
  readonly seed?: number | readonly number[];
  /** Tokens that end a sequence; they are part of it. Defaults to none. */
  readonly stopTokens?: readonly number[];
  /** Texts that end a sequence as soon as its decoded text holds one; needs `decode`. Defaults to none. */
  readonly stopStrings?: readonly string[];
  readonly decode?: (tokens: readonly number[]) => string;
  /** Vectors that replace embedding rows of the prompts; `sequence` is the prompt's number. */
  readonly inject?: readonly Injection[];
  readonly compute?: "f32" | "bf16";
  readonly signal?: AbortSignal | undefined;
  /** Called after each step with the number of sequences that still grow. */
  readonly onStep?: (step: number, active: number) => void;
  /** Called with the seconds that building a graph took: for benchmarks. */
  readonly onGraph?: (seconds: number) => void;
}

/** A generated sequence. */
export interface Generated {
  readonly prompt: number;
  readonly tokens: readonly number[];
  /** log p of each token under the model (before temperature and cuts), nats. */
  readonly logProbs: readonly number[];
  /** Entropy of the model's distribution at each token, nats. */
  readonly entropies: readonly number[];
  /** `"stop"` by a token or text, `"length"` at the cap or the end of the context. */
  readonly finish: "stop" | "length";
}

// Copying the cache to fewer rows pays when at least a quarter of them have ended.
const SHRINK_BELOW = 0.75;

// Choosing tokens holds the event loop: after this many logits (some 10 ms) others get a turn.
const LOGITS_PER_TURN = 2_000_000;

/** The token of a row of a graph, given a number in [0, 1). */
type Choose = (row: number, uniform: number) => Choice;

interface Growing {
  readonly prompt: number;
  readonly sample: number;
  readonly seed: number;
  readonly tokens: number[];
  readonly logProbs: number[];
  readonly entropies: number[];
  length: number; // tokens in the cache after the next step
  finish: "stop" | "length" | null;
}

/**
 * Continues each prompt `samples` times.
 *
 * @param prompts token ids
 * @returns prompts · samples sequences, prompt after prompt
 * @throws NlaError `model.generate` for settings that make no sense or a prompt that fills the context, and those of
 *   {@link readPrompts}
 */
export async function generate(
  model: Decoder,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions,
): Promise<Generated[]> {
  const { maxNewTokens, samples = 1, signal } = options;
  checkOptions(model, prompts, options);
  const sequences = prompts.flatMap((ids, prompt) =>
    Array.from({ length: samples }, (_, i): Growing => {
      const sample = prompt * samples + i;
      const seed =
        typeof options.seed === "object" ? (options.seed[sample] as number) : (options.seed ?? 0) + sample;
      return {
        prompt,
        sample,
        seed,
        tokens: [],
        logProbs: [],
        entropies: [],
        length: ids.length,
        finish: null,
      };
    }),
  );
  const longest = Math.max(...prompts.map((ids) => ids.length));
  const slots = Math.min(longest + maxNewTokens, model.config.contextLength);

  using packed = await packedWeights(model, sequences.length, options);
  const weights: Weights = packed?.weights ?? model;
  let cache = await KvCache.create(model, prompts.length, slots, options.compute ?? "f32");
  let decode: DecodeGraph | null = null;
  try {
    const rows = await readPrompts(model, prompts, cache, options);
    const first: Choose = (row, uniform) => chooseToken(rows, row, uniform, options);
    let active = sequences;
    if (samples > 1)
      cache = await replaceCache(
        cache,
        sequences.map(({ prompt }) => prompt),
        signal,
      );
    await take(
      model,
      active,
      first,
      active.map(({ prompt }) => prompt),
      options,
    );
    for (let step = 1; ; step++) {
      options.onStep?.(step, active.filter(({ finish }) => finish === null).length);
      const alive = active.flatMap(({ finish }, row) => (finish === null ? [row] : []));
      if (alive.length === 0) break;
      if (alive.length < active.length * SHRINK_BELOW) {
        decode?.graph[Symbol.dispose]();
        decode = null;
        cache = await replaceCache(cache, alive, signal);
        active = alive.map((row) => active[row] as Growing);
      }
      const furthest = Math.max(...active.map(({ length, finish }) => (finish === null ? length + 1 : 0)));
      const used = cache.layout.covered(furthest, cache.slots);
      if (!decode || decode.used !== used) {
        decode?.graph[Symbol.dispose]();
        const started = performance.now();
        decode = decodeGraph(model, weights, cache, used, options);
        options.onGraph?.((performance.now() - started) / 1000);
      }
      const choose = await decodeStep(model, decode, active, options);
      for (const sequence of active) if (sequence.finish === null) sequence.length++;
      await take(
        model,
        active,
        choose,
        active.map((_, row) => row),
        options,
      );
    }
  } finally {
    decode?.graph[Symbol.dispose]();
    cache[Symbol.dispose]();
  }
  return sequences.map(({ prompt, tokens, logProbs, entropies, finish }) => {
    return { prompt, tokens, logProbs, entropies, finish: finish ?? "length" };
  });
}

async function replaceCache(cache: KvCache, rows: readonly number[], signal?: AbortSignal): Promise<KvCache> {
  const selected = await cache.select(rows, signal);
  cache[Symbol.dispose]();
  return selected;
}

// Packing costs as much as a few steps, and memory; with fewer rows in f32 ggml's products are dot products, and read less.
const PACK_FROM_TOKENS = 8;
const PACK_FROM_ROWS_F32 = 8;
const PACK_AT_MOST = 0.25; // of the memory that is free

/** Whether steps of so many rows read packed weights faster than plain ones. */
export function packingPays(rows: number, compute: "f32" | "bf16"): boolean {
  return rows >= PACK_FROM_ROWS_F32 || compute === "bf16";
}

/** Weights packed for steps of so many rows, where that pays and they are not packed already; the numbers are the same. */
export async function packedWeights(
  model: Decoder,
  rows: number,
  { maxNewTokens, compute = "f32" }: Pick<GenerateOptions, "maxNewTokens" | "compute">,
): Promise<(Disposable & { readonly weights: Weights }) | null> {
  const { device } = model;
  if (device.kernels === null || model.packed || maxNewTokens < PACK_FROM_TOKENS) return null;
  if (!packingPays(rows, compute)) return null;
  const matrices = model.matrices;
  if (PackedMatrices.bytes(device, matrices.values(), compute) > PACK_AT_MOST * freemem()) return null;
  const packed = await PackedMatrices.of(device, matrices, compute);
  const weights: Weights = {
    config: model.config,
    get: (name) => model.get(name),
    matrix: (name) => packed.matrices.get(name) ?? model.matrix(name),
    merged: (names) => packed.matrices.get(names.join(" ")) ?? null,
    lowRank: (module) => model.lowRank(module),
    divisors: (k) => model.divisors(k),
  };
  return { weights, [Symbol.dispose]: () => packed[Symbol.dispose]() };
}

interface DecodeGraph {
  readonly graph: Graph;
  readonly used: number;
  readonly use: CacheUse;
  /** One of the two: the graph draws itself, or hands out distributions. */
  readonly drawn: DrawnTokens | null;
  readonly next: NextTokens | null;
}

function noMaskWithin(): never {
  throw new RangeError("generation attends over its cache, not within the batch");
}

/** One token per row, attending over the first `used` slots of the cache. */
function decodeGraph(
  model: Decoder,
  weights: Weights,
  cache: KvCache,
  used: number,
  options: GenerateOptions,
): DecodeGraph {
  const { compute = "f32", temperature = 1 } = options;
  const { rows } = cache;
  const g = new Graph(model.device, { recording: false, compute });
  const ids = g.input("ids", [rows], "i32");
  const positions = g.input("positions", [rows], "i32");
  const use = cache.layout.step(g, cache, positions, used);
  const batch = { rows, length: 1, ids, positions, mask: noMaskWithin };
  const last = forward(g, weights, batch, use).blocks.at(-1) as Tensor;
  const drawn = canDraw(g, options) ? drawnTokens(g, weights, last, temperature) : null;
  const next = drawn ? null : nextTokens(g, weights, last, temperature);
  g.compile();
  return { graph: g, used, use, drawn, next };
}

async function decodeStep(
  model: Decoder,
  { graph, used, use, drawn, next }: DecodeGraph,
  active: readonly Growing[],
  options: GenerateOptions,
): Promise<Choose> {
  // A row that has ended computes its last token again, in its own slot: harmless, and cheaper than another graph.
  const ids = Int32Array.from(active, ({ tokens }) => tokens.at(-1) as number);
  const positions = Int32Array.from(active, ({ length }) =>
    Math.min(length, model.config.contextLength - 1, used - 1),
  );
  const uniforms = Float64Array.from(active, ({ seed, tokens }) => uniformAt(seed, tokens.length));
  await graph.run({ ids, positions, ...use.inputs(positions), ...drawn?.inputs(uniforms) }, options.signal);
  if (drawn) return drawn.read();
  const rows = (next as NextTokens).read();
  return (row, uniform) => chooseToken(rows, row, uniform, options);
}

/** Chooses the next token of every growing sequence; `rowOf[i]` is the row of sequence i. */
async function take(
  model: Decoder,
  active: readonly Growing[],
  choose: Choose,
  rowOf: readonly number[],
  options: GenerateOptions,
): Promise<void> {
  const { maxNewTokens, stopTokens = [], stopStrings = [], decode } = options;
  let since = 0;
  for (const [i, sequence] of active.entries()) {
    if (sequence.finish !== null) continue;
    if ((since += model.config.vocabulary) > LOGITS_PER_TURN) {
      since = 0;
      await setImmediate();
    }
    const uniform = uniformAt(sequence.seed, sequence.tokens.length);
    const { token, logProb, entropy } = choose(rowOf[i] as number, uniform);
    sequence.tokens.push(token);
    sequence.logProbs.push(logProb);
    sequence.entropies.push(entropy);
    if (stopTokens.includes(token)) sequence.finish = "stop";
    else if (stopStrings.length > 0 && decode) {
      const text = decode(sequence.tokens);
      if (stopStrings.some((stop) => text.includes(stop))) sequence.finish = "stop";
    }
    const full = sequence.length + 1 >= model.config.contextLength; // the new token counts, though no cache holds it yet
    if (sequence.finish === null && (sequence.tokens.length >= maxNewTokens || full))
      sequence.finish = "length";
  }
}

function checkOptions(
  model: Decoder,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions,
): void {
  const {
    maxNewTokens,
    samples = 1,
    temperature = 1,
    topK = 0,
    topP = 1,
    seed,
    stopStrings = [],
    decode,
  } = options;
  const { contextLength } = model.config;
  const wrong: [string, boolean, unknown, string][] = [
    ["prompts", prompts.length > 0, "none", "at least one"],
    ["maxNewTokens", Number.isInteger(maxNewTokens) && maxNewTokens > 0, maxNewTokens, "a positive integer"],
    ["samples", Number.isInteger(samples) && samples > 0, samples, "a positive integer"],
    ["temperature", Number.isFinite(temperature) && temperature >= 0, temperature, "a number not below 0"],
    ["topK", Number.isInteger(topK) && topK >= 0, topK, "an integer not below 0"],
    ["topP", topP > 0 && topP <= 1, topP, "a number above 0, at most 1"],
    [
      "stopStrings",
      stopStrings.length === 0 || decode !== undefined,
      "no decode function",
      "one that turns tokens into text",
    ],
  ];
  for (const each of typeof seed === "object" ? seed : [seed ?? 0])
    wrong.push(["seed", Number.isSafeInteger(each), each, "an integer"]);
  if (typeof seed === "object") {
    const count = prompts.length * samples;
    wrong.push(["seed", seed.length === count, `${seed.length} seeds`, `${count}, one per sample`]);
  }
  prompts.forEach((ids, i) => {
    wrong.push([
      `prompt ${i}`,
      ids.length < contextLength,
      `${ids.length} tokens`,
      `fewer than the context of ${contextLength}`,
    ]);
  });
  for (const [name, holds, found, wanted] of wrong) {
    if (holds) continue;
    throw new NlaError({
      code: "model.generate",
      subject: `generate, ${name}`,
      found: String(found),
      wanted,
      next: "Correct the option.",
    });
  }
}
