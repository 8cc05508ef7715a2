// How fast this machine trains, generates and extracts: one model of random weights, timed as users run it (inputs written,
// results read, tokens chosen). It measures; it judges nothing and compares with nothing.
import { adamw, GradientSums, Graph, ops } from "../tensor/index.js";
import type { Device, Tensor } from "../tensor/index.js";
import { NlaError } from "../error.js";
import { profileSteps } from "./bench-profile.js";
import type { BenchProfile } from "./bench-profile.js";
import { padBatch } from "./batch.js";
import { parseConfig } from "./config.js";
import { Decoder, randomParameters } from "./decoder.js";
import { finalNorm, forward } from "./forward.js";
import { generate } from "./generate.js";
import { declareBatch } from "./graph-inputs.js";
import { Lora } from "./lora.js";
import { median } from "./median.js";
import { parameterShapes } from "./parameters.js";
import { converted } from "./placing.js";
import { headOf, run } from "./run.js";
import { heldAs } from "./storage.js";
import type { Holding } from "./storage.js";
import { uniformAt } from "./sampling.js";

export { median } from "./median.js"; // for bench/*.mjs

/** The model and the work. Defaults to a Llama of 7.16 million parameters with a tied head. */
export interface BenchOptions {
  readonly dim?: number;
  readonly layers?: number;
  readonly heads?: number;
  /** Defaults to `heads`. */
  readonly kvHeads?: number;
  readonly ffn?: number;
  readonly vocabulary?: number;
  /** Sequences at a time. Defaults to 32, for decoding to 64. */
  readonly batch?: number;
  /** Tokens of each sequence, for decoding of each prompt. Defaults to 128, for decoding to 60. */
  readonly length?: number;
  /** Tokens to generate. Defaults to 80. */
  readonly newTokens?: number;
  /** Type of matrix products. Defaults to `"f32"`. */
  readonly compute?: "f32" | "bf16";
  /** How matrices are held, for decoding and extracting; what is not f32 cannot be trained. Defaults to `"f32"`. */
  readonly holding?: Holding;
  /** Rank of an adapter on every linear map, which alone is trained; for training. Defaults to none. */
  readonly lora?: number;
  /** Timed steps, after one that is not. Defaults to 5. */
  readonly steps?: number;
  /** Whether to time each op, too, in steps of its own. Defaults to false. */
  readonly profile?: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** One measurement, as `nla bench --json` prints it. */
export interface BenchReport {
  readonly what: "train" | "decode" | "extract";
  readonly params: number;
  /** Parameters that a step changes, where that is an adapter's; absent otherwise. */
  readonly trained_params?: number;
  readonly threads: number;
  readonly compute: "f32" | "bf16";
  /** How matrices were held. */
  readonly holding: Holding;
  readonly device: string;
  /** Instruction set of nlakit's kernels; null where ggml's are used. */
  readonly kernels: string | null;
  /** Median of the timed steps. */
  readonly seconds: number;
  readonly tokens_per_second: number;
  /** The longest time that the event loop was held during the timed steps. */
  readonly longest_event_loop_gap_ms: number;
  /** Of the process so far. */
  readonly peak_rss_bytes: number;
  /** Part of all seconds, building included, that went into building graphs. */
  readonly graph_build_share: number;
  /** Arithmetic of products and attention in a second, billions; null for decoding, where memory is the limit. */
  readonly gflops_per_second: number | null;
  /** Null unless it was asked for. */
  readonly profile: BenchProfile | null;
}

/** Something to time; `using` frees what it holds. */
export interface BenchCase extends Disposable {
  readonly what: BenchReport["what"];
  readonly model: Decoder;
  readonly compute: "f32" | "bf16";
  /** Tokens of one step. */
  readonly tokens: number;
  /** Floating point operations of one step, where they say something. */
  readonly operations: number | null;
  /** Seconds spent on building graphs so far. */
  readonly buildSeconds: () => number;
  step(): Promise<void>;
}

/** A training step: loss, gradients, norm, clipping, AdamW. @throws NlaError `model.config`, `engine.memory` */
export function trainCase(device: Device, options: BenchOptions = {}): BenchCase {
  const { batch = 32, length = 128, compute = "f32", signal } = options;
  const model = benchModel(device, length, options);
  if (options.lora !== undefined)
    model.attach(new Lora(device, model.config, { rank: options.lora, alpha: 2 * options.lora }));
  const tokens = batch * length;
  const started = performance.now();
  const padded = padBatch(someSequences(batch, length, model.config.vocabulary), { maxLength: length });
  const g = new Graph(device, { compute });
  const declared = declareBatch(g, padded);
  const hidden = finalNorm(g, model, forward(g, model, declared).blocks.at(-1) as Tensor);
  const targets = g.input("targets", [tokens], "i32");
  const loss = g.output(ops.crossEntropy(g, hidden, headOf(model), targets, g.input("weights", [tokens])));
  const sums = new GradientSums(model.trainable);
  sums.accumulate(g, g.backward(loss));
  g.compile();
  const optimizer = adamw();
  const state = optimizer.init(sums);
  const built = (performance.now() - started) / 1000;
  const next = Int32Array.from(padded.ids, (_, i) => padded.ids[i + 1] ?? 0);
  const weights = new Float32Array(tokens).fill(1 / tokens);
  return {
    what: "train",
    model,
    compute,
    tokens,
    operations: 3 * forwardOperations(model, tokens, length, true),
    buildSeconds: () => built,
    async step() {
      sums.clear();
      await g.run({ ...declared.values(padded), targets: next, weights }, signal);
      const nats = loss.readF32()[0] as number;
      const { skipped } = await optimizer.update(state, 1e-4, signal);
      if (skipped || !Number.isFinite(nats)) throw notFinite(nats);
    },
    [Symbol.dispose]() {
      g[Symbol.dispose]();
      state[Symbol.dispose]();
      sums[Symbol.dispose]();
      model[Symbol.dispose]();
    },
  };
}

/** Reading prompts and generating after them, at temperature 0.8. @throws NlaError `model.config`, `engine.memory` */
export function decodeCase(device: Device, options: BenchOptions = {}): BenchCase {
  const { batch = 64, length = 60, newTokens = 80, compute = "f32", signal } = options;
  const model = benchModel(device, length + newTokens, options);
  if (compute === "bf16") model.makeHalf();
  const prompts = someSequences(batch, length, model.config.vocabulary);
  let built = 0;
  return {
    what: "decode",
    model,
    compute,
    tokens: batch * newTokens,
    operations: null,
    buildSeconds: () => built,
    async step() {
      await generate(model, prompts, {
        maxNewTokens: newTokens,
        temperature: 0.8,
        compute,
        signal,
        onGraph: (seconds) => (built += seconds),
      });
    },
    [Symbol.dispose]: () => model[Symbol.dispose](),
  };
}

/** The residual stream after the last block, read to the host, as an extraction reads one block's; no head. @throws NlaError `model.config`, `engine.memory` */
export function extractCase(device: Device, options: BenchOptions = {}): BenchCase {
  const { batch = 32, length = 128, compute = "f32", signal } = options;
  const model = benchModel(device, length, options);
  if (compute === "bf16") model.makeHalf();
  const sequences = someSequences(batch, length, model.config.vocabulary);
  const capture = [model.config.layers - 1];
  let built = 0;
  return {
    what: "extract",
    model,
    compute,
    tokens: batch * length,
    operations: forwardOperations(model, batch * length, length, false),
    buildSeconds: () => built,
    async step() {
      await run(model, sequences, {
        capture,
        compute,
        signal,
        onGraph: (seconds) => (built += seconds),
      });
    },
    [Symbol.dispose]: () => model[Symbol.dispose](),
  };
}

/** Times {@link trainCase}. */
export function benchTrain(device: Device, options: BenchOptions = {}): Promise<BenchReport> {
  return measure(trainCase(device, options), options);
}

/** Times {@link decodeCase}; tokens are those generated, seconds include reading the prompts. */
export function benchDecode(device: Device, options: BenchOptions = {}): Promise<BenchReport> {
  return measure(decodeCase(device, options), options);
}

/** Times {@link extractCase}. */
export function benchExtract(device: Device, options: BenchOptions = {}): Promise<BenchReport> {
  return measure(extractCase(device, options), options);
}

/** Two for each weight that a token is multiplied with, and causal attention's two products: each sees half of the keys. */
function forwardOperations(model: Decoder, tokens: number, length: number, head: boolean): number {
  const { dim, windows, vocabulary } = model.config;
  const layers = windows.length;
  const gains = (2 * layers + 1) * dim;
  const weights = model.parameterCount - gains - (head ? 0 : vocabulary * dim); // the tied embedding is the head
  return tokens * (2 * weights + layers * 2 * (length + 1) * dim);
}

async function measure(
  bench: BenchCase,
  { steps = 5, profile = false, holding = "f32" }: BenchOptions,
): Promise<BenchReport> {
  using timed = bench;
  if (!Number.isInteger(steps) || steps < 1) {
    throw new NlaError({
      code: "model.bench",
      subject: "bench, steps",
      found: String(steps),
      wanted: "an integer of at least 1",
      next: "Correct the option.",
    });
  }
  await timed.step();
  const before = timed.what === "train" ? 0 : timed.buildSeconds();
  const watch = watchEventLoop();
  const seconds: number[] = [];
  try {
    for (let i = 0; i < steps; i++) {
      const started = performance.now();
      await timed.step();
      seconds.push((performance.now() - started) / 1000);
    }
  } finally {
    watch.stop();
  }
  const all = seconds.reduce((a, b) => a + b, 0);
  const built = timed.buildSeconds() - before;
  // A training graph is built once, before the steps; the others build within them.
  const share = timed.what === "train" ? built / (built + all) : built / all;
  const middle = median(seconds);
  return {
    what: timed.what,
    params: timed.model.parameterCount,
    ...(timed.model.lora ? { trained_params: timed.model.lora.parameterCount } : {}),
    threads: timed.model.device.threads,
    compute: timed.compute,
    holding,
    device: `${timed.model.device.info.name}: ${timed.model.device.info.description}`,
    kernels: timed.model.device.kernels?.level ?? null,
    seconds: middle,
    tokens_per_second: timed.tokens / middle,
    longest_event_loop_gap_ms: watch.longest(),
    peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
    graph_build_share: share,
    gflops_per_second: timed.operations === null ? null : timed.operations / middle / 1e9,
    profile: profile ? await profileSteps(timed, Math.min(steps, PROFILED)) : null,
  };
}

const PROFILED = 3; // steps are alike

const TICK_MS = 2;

/** Notes the longest time between two ticks of a timer, beyond the tick itself. */
export function watchEventLoop(): { readonly stop: () => void; readonly longest: () => number } {
  let longest = 0;
  let last = performance.now();
  const tick = () => {
    const now = performance.now();
    longest = Math.max(longest, now - last - TICK_MS);
    last = now;
  };
  const timer = setInterval(tick, TICK_MS);
  return {
    stop() {
      tick();
      clearInterval(timer);
    },
    longest: () => longest,
  };
}

function benchModel(device: Device, contextLength: number, options: BenchOptions): Decoder {
  const { dim = 288, layers = 6, heads = 6, kvHeads = heads, ffn = 768, vocabulary = 4096 } = options;
  const { holding = "f32" } = options;
  const json = {
    model_type: "llama",
    hidden_size: dim,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    intermediate_size: ffn,
    vocab_size: vocabulary,
    max_position_embeddings: contextLength,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
  };
  const config = parseConfig(json, "bench");
  const random = randomParameters(1, 0.02);
  if (holding === "f32" || holding === "stored") return new Decoder(device, config, random);
  const specs = new Map(
    [...parameterShapes(config)].map(([name, shape]) => {
      const dtype = heldAs(holding, name, shape, config, "f32");
      return [name, { shape, dtype, parameter: false }] as const;
    }),
  );
  const model = new Decoder(device, config, null, {}, { specs, mappings: [] });
  for (const [name, { shape, dtype }] of specs)
    model.get(name).write(converted(random(name, shape), dtype, shape));
  return model;
}

function someSequences(count: number, length: number, vocabulary: number): number[][] {
  return Array.from({ length: count }, (_, row) =>
    Array.from({ length }, (_, i) => Math.floor(uniformAt(row, i) * vocabulary)),
  );
}

function notFinite(nats: number): NlaError {
  return new NlaError({
    code: "model.not-finite",
    subject: "the loss of a training step",
    found: String(nats),
    wanted: "a finite number",
    next: "Report this with the output of `nla doctor --json`.",
  });
}
