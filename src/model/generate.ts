// Batched generation with a key-value cache: every distinct prompt is read once, its cache copied for each sample; rows that
// have ended leave the batch; each row has its own length, seed and stop.
import { setImmediate } from "node:timers/promises";
import { Graph, ops } from "../tensor/index.js";
import type { Tensor } from "../tensor/index.js";
import { NlaError } from "../error.js";
import { padBatch } from "./batch.js";
import { KvCache } from "./cache.js";
import type { Decoder } from "./decoder.js";
import { attendWithin, forward } from "./forward.js";
import { declareBatch } from "./graph-inputs.js";
import { chooseToken, nextTokens } from "./next-token.js";
import type { NextTokenRows, NextTokens } from "./next-token.js";
import { declareInjection, lastRows } from "./run.js";
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

// Attention covers slots in steps of this many, so that a graph serves several tokens and the fast kernels apply.
const SLOT_STEP = 32;

// Copying the cache to fewer rows pays when at least a quarter of them have ended.
const SHRINK_BELOW = 0.75;

// Choosing tokens holds the event loop: after this many logits (some 10 ms) others get a turn.
const LOGITS_PER_TURN = 2_000_000;

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
 *   {@link padBatch} and injection
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
  const slots =
    Math.ceil(Math.min(longest + maxNewTokens, model.config.contextLength) / SLOT_STEP) * SLOT_STEP;

  let cache = await KvCache.create(model, prompts.length, slots);
  let decode: DecodeGraph | null = null;
  try {
    const first = await readPrompts(model, prompts, cache, options);
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
      const used = Math.min(Math.ceil(furthest / SLOT_STEP) * SLOT_STEP, slots);
      if (!decode || decode.used !== used) {
        decode?.graph[Symbol.dispose]();
        const started = performance.now();
        decode = decodeGraph(model, cache, used, options);
        options.onGraph?.((performance.now() - started) / 1000);
      }
      const rows = await decodeStep(model, cache, decode, active, signal);
      for (const sequence of active) if (sequence.finish === null) sequence.length++;
      await take(
        model,
        active,
        rows,
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

/** Reads all prompts into the cache; what may follow each prompt's last token. */
async function readPrompts(
  model: Decoder,
  prompts: readonly (readonly number[])[],
  cache: KvCache,
  { inject = [], compute = "f32", temperature = 1, signal, onGraph }: GenerateOptions,
): Promise<NextTokenRows> {
  const { config } = model;
  const started = performance.now();
  const batch = padBatch(prompts, { maxLength: config.contextLength });
  using g = new Graph(model.device, { recording: false, compute });
  const declared = declareBatch(g, batch);
  const injection = declareInjection(g, inject, batch, config.dim);
  const within = attendWithin(g, model, declared);
  const { blocks } = forward(g, model, declared, {
    ...(injection ? { inject: injection.tensors } : {}),
    attend: (k, q, key, value) => {
      const byHead = (x: Tensor) => {
        const split = ops.reshape(g, x, [batch.rows, batch.length, config.kvHeads, config.headDim]);
        return ops.permute(g, split, [0, 2, 1, 3]);
      };
      cache.storePrompt(g, cache.keys(k), byHead(key));
      cache.storePrompt(g, cache.values(k), byHead(value));
      return within(k, q, key, value);
    },
  });
  const last = ops.gatherRows(g, blocks.at(-1) as Tensor, g.input("last", [batch.rows], "i32"));
  const next = nextTokens(g, model, last, temperature);
  g.compile();
  onGraph?.((performance.now() - started) / 1000);
  await g.run({ ...declared.values(batch), ...injection?.values, last: lastRows(batch) }, signal);
  return next.read();
}

interface DecodeGraph {
  readonly graph: Graph;
  readonly used: number;
  readonly next: NextTokens;
  readonly windows: readonly (number | null)[];
}

function noMaskWithin(): never {
  throw new RangeError("generation attends over its cache, not within the batch");
}

/** One token per row, attending over the first `used` slots of the cache. */
function decodeGraph(
  model: Decoder,
  cache: KvCache,
  used: number,
  { compute = "f32", temperature = 1 }: GenerateOptions,
): DecodeGraph {
  const { config } = model;
  const { rows } = cache;
  const g = new Graph(model.device, { recording: false, compute });
  const ids = g.input("ids", [rows], "i32");
  const positions = g.input("positions", [rows], "i32");
  const slotRows = g.input("slots", [rows * config.kvHeads], "i32");
  const windows = [...new Set(config.windows)];
  const masks = new Map(
    windows.map((window) => [window, g.input(`mask${window ?? ""}`, [rows, 1, 1, used], "f16")]),
  );
  const { blocks } = forward(
    g,
    model,
    { rows, length: 1, ids, positions, mask: noMaskWithin },
    {
      attend: (k, q, key, value) => {
        cache.storeToken(g, cache.keys(k), key, slotRows);
        cache.storeToken(g, cache.values(k), value, slotRows);
        const query = ops.reshape(g, q, [rows, 1, config.heads, config.headDim]);
        const mixed = ops.cachedAttention(
          g,
          query,
          cache.view(g, cache.keys(k), used),
          cache.view(g, cache.values(k), used),
          {
            mask: masks.get(config.windows[k] ?? null) as Tensor,
            scale: config.attentionScale,
            softcap: config.attentionSoftcap,
          },
        );
        return ops.reshape(g, mixed, [rows, config.heads * config.headDim]);
      },
    },
  );
  const next = nextTokens(g, model, blocks.at(-1) as Tensor, temperature);
  g.compile();
  return { graph: g, used, next, windows };
}

const F16_MINUS_INFINITY = 0xfc00;

async function decodeStep(
  model: Decoder,
  cache: KvCache,
  { graph, used, next, windows }: DecodeGraph,
  active: readonly Growing[],
  signal?: AbortSignal,
): Promise<NextTokenRows> {
  // A row that has ended computes its last token again, in its own slot: harmless, and cheaper than another graph.
  const ids = Int32Array.from(active, ({ tokens }) => tokens.at(-1) as number);
  const positions = Int32Array.from(active, ({ length }) =>
    Math.min(length, model.config.contextLength - 1, used - 1),
  );
  const inputs: Record<string, Int32Array | Uint16Array> = {
    ids,
    positions,
    slots: cache.slotRows(positions),
  };
  for (const window of windows) {
    const mask = new Uint16Array(active.length * used).fill(F16_MINUS_INFINITY);
    positions.forEach((position, row) => {
      const from = window === null ? 0 : Math.max(0, position - window + 1);
      mask.fill(0, row * used + from, row * used + position + 1);
    });
    inputs[`mask${window ?? ""}`] = mask;
  }
  await graph.run(inputs, signal);
  return next.read();
}

/** Chooses the next token of every growing sequence; `rowOf[i]` is the row of sequence i. */
async function take(
  model: Decoder,
  active: readonly Growing[],
  rows: NextTokenRows,
  rowOf: readonly number[],
  options: GenerateOptions,
): Promise<void> {
  const { maxNewTokens, stopTokens = [], stopStrings = [], decode } = options;
  let since = 0;
  for (const [i, sequence] of active.entries()) {
    if (sequence.finish !== null) continue;
    if ((since += rows.vocabulary) > LOGITS_PER_TURN) {
      since = 0;
      await setImmediate();
    }
    const uniform = uniformAt(sequence.seed, sequence.tokens.length);
    const { token, logProb, entropy } = chooseToken(rows, rowOf[i] as number, uniform, options);
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
