// Continuous batching: sequences join a running batch as they come and leave it as they end, each with its own prompt, sampling and
// stop. generate.ts continues a set of prompts that is known beforehand; this serves whoever asks, for as long as it lives.
//
// Rows of one cache are places. A newcomer's prompt is read into a small cache of its own and copied into a free place; then all
// places take one step together. The number of places doubles when they are taken and shrinks when three quarters are free.
import { setImmediate } from "node:timers/promises";
import { Graph } from "../tensor/index.js";
import type { Tensor } from "../tensor/index.js";
import { NlaError } from "../error.js";
import { copyRows, KvCache } from "./cache.js";
import type { CacheUse } from "./cache-layout.js";
import type { Decoder } from "./decoder.js";
import { forward } from "./forward.js";
import type { Weights } from "./forward.js";
import { packedWeights, packingPays } from "./generate.js";
import { canDraw, chooseToken, drawnTokens, nextTokens } from "./next-token.js";
import type { Choice, DrawnTokens, NextTokenRows, NextTokens } from "./next-token.js";
import { readPrompts } from "./read-prompts.js";
import { uniformAt } from "./sampling.js";
import type { SamplingOptions } from "./sampling.js";

/** How a batcher is set up. */
export interface BatcherOptions {
  /** Most sequences at once. Defaults to 64. */
  readonly maxRows?: number;
  /** Tokens of a sequence, prompt included; the model's context if that is shorter. Defaults to 2048. */
  readonly maxTokens?: number;
  /** Sequences that may wait; one more is refused. Defaults to 1024. */
  readonly maxQueue?: number;
  readonly compute?: "f32" | "bf16";
}

/** One sequence to continue. */
export interface BatchRequest extends SamplingOptions {
  readonly ids: readonly number[];
  /** Vectors [dim] that replace embedding rows of the prompt. */
  readonly inject?: readonly { readonly position: number; readonly vector: Float32Array }[];
  readonly maxNewTokens: number;
  /** Defaults to 0. */
  readonly seed?: number;
  /** Tokens that end the sequence; they are part of it. Defaults to none. */
  readonly stopTokens?: readonly number[];
  /** Called with each token as it comes; true ends the sequence as a stop does. */
  readonly onToken?: (choice: Choice, tokens: readonly number[]) => boolean | void;
  /** Leaves the batch, or the queue, at once. */
  readonly signal?: AbortSignal | undefined;
}

/** A finished sequence. */
export interface BatchResult {
  readonly tokens: readonly number[];
  /** log p under the model, before temperature and cuts, nats. */
  readonly logProbs: readonly number[];
  readonly finish: "stop" | "length";
}

/** What a batcher is doing. */
export interface BatcherLoad {
  readonly active: number;
  readonly waiting: number;
  /** Tokens made since the start. */
  readonly tokens: number;
  readonly steps: number;
}

interface Sequence {
  readonly request: BatchRequest;
  readonly tokens: number[];
  readonly logProbs: number[];
  /** Tokens in the cache after the next step. */
  length: number;
  readonly resolve: (result: BatchResult) => void;
  readonly reject: (reason: unknown) => void;
}

interface StepGraph {
  readonly graph: Graph;
  readonly used: number;
  /** Temperature of the kernel that draws; null where the host chooses. */
  readonly drawnAt: number | null;
  readonly use: CacheUse;
  readonly drawn: DrawnTokens | null;
  readonly next: NextTokens | null;
}

// Prompts read before everybody else takes a step: more would make them wait, fewer cost a pass each.
const PREFILL_TOKENS = 4096;

/** A running batch over one decoder, which it borrows. */
export class Batcher implements AsyncDisposable {
  readonly model: Decoder;
  readonly maxTokens: number;
  readonly #maxRows: number;
  readonly #maxQueue: number;
  readonly #compute: "f32" | "bf16";
  readonly #waiting: Sequence[] = [];
  #places: (Sequence | null)[] = [];
  #cache: KvCache | null = null;
  #step: StepGraph | null = null;
  /** Made when enough places are taken, kept until nobody is at work. */
  #packed: (Disposable & { readonly weights: Weights }) | null = null;
  #running: Promise<void> | null = null;
  #closed = false;
  #tokens = 0;
  #steps = 0;

  constructor(model: Decoder, options: BatcherOptions = {}) {
    const { maxRows = 64, maxTokens = 2048, maxQueue = 1024, compute = "f32" } = options;
    this.model = model;
    this.#maxRows = maxRows;
    this.#maxQueue = maxQueue;
    this.#compute = compute;
    this.maxTokens = Math.min(maxTokens, model.config.contextLength);
  }

  get load(): BatcherLoad {
    const active = this.#places.filter((each) => each !== null).length;
    return { active, waiting: this.#waiting.length, tokens: this.#tokens, steps: this.#steps };
  }

  /**
   * Continues a sequence.
   *
   * @throws NlaError `batch.length` for a prompt that leaves no room, `batch.full` where too many wait, `batch.closed`,
   *   `model.inject`, `model.batch`, `model.not-finite`; the signal's reason once it is aborted
   */
  submit(request: BatchRequest): Promise<BatchResult> {
    return new Promise((resolve, reject) => {
      request.signal?.throwIfAborted();
      this.#check(request);
      const length = request.ids.length;
      this.#waiting.push({ request, tokens: [], logProbs: [], length, resolve, reject });
      this.#running ??= this.#run();
    });
  }

  #check({ ids, maxNewTokens }: BatchRequest): void {
    if (this.#closed)
      throw batchError("closed", "a batch that is ending", "an open one", "Ask another server.");
    if (ids.length < 1 || ids.length >= this.maxTokens || maxNewTokens < 1) {
      const found = `${ids.length} tokens, to be continued by ${maxNewTokens}`;
      const wanted = `1 to ${this.maxTokens - 1} tokens, to be continued by at least one`;
      throw batchError("length", found, wanted, "Shorten the prompt.");
    }
    if (this.#waiting.length >= this.#maxQueue) {
      const found = `${this.#waiting.length} sequences waiting`;
      throw batchError("full", found, `fewer than ${this.#maxQueue}`, "Try again in a moment.");
    }
  }

  async #run(): Promise<void> {
    try {
      await setImmediate(); // whoever asks in the same turn comes along
      while (this.#waiting.length > 0 || this.#places.some((each) => each !== null)) {
        this.#dropAborted();
        await this.#admit();
        await this.#shrink();
        if (this.#places.some((each) => each !== null)) await this.#advance();
        await setImmediate(); // sockets get their turn between steps
      }
    } catch (thrown) {
      // What breaks a whole step breaks all that were in it; those who wait get a fresh batch.
      for (const each of this.#places) each?.reject(thrown);
      this.#reset();
    } finally {
      this.#running = null;
      if (this.#waiting.length > 0) this.#running = this.#run();
      else this.#reset(); // an idle server holds no cache and no packed weights
    }
  }

  #reset(): void {
    this.#dropStep();
    this.#cache?.[Symbol.dispose]();
    this.#cache = null;
    this.#packed?.[Symbol.dispose]();
    this.#packed = null;
    this.#places = [];
  }

  #dropStep(): void {
    this.#step?.graph[Symbol.dispose]();
    this.#step = null;
  }

  #dropAborted(): void {
    for (let i = this.#waiting.length - 1; i >= 0; i--) {
      const sequence = this.#waiting[i] as Sequence;
      if (!sequence.request.signal?.aborted) continue;
      this.#waiting.splice(i, 1);
      sequence.reject(sequence.request.signal.reason);
    }
    this.#places = this.#places.map((sequence) => {
      if (!sequence?.request.signal?.aborted) return sequence;
      sequence.reject(sequence.request.signal.reason);
      return null;
    });
  }

  /** Takes those who wait into free places, as many as one pass should read. */
  async #admit(): Promise<void> {
    const free = this.#maxRows - this.#places.filter((each) => each !== null).length;
    const joining: Sequence[] = [];
    let longest = 0;
    while (joining.length < free && this.#waiting.length > 0) {
      const { request } = this.#waiting[0] as Sequence;
      longest = Math.max(longest, request.ids.length);
      if (joining.length > 0 && longest * (joining.length + 1) > PREFILL_TOKENS) break;
      joining.push(this.#waiting.shift() as Sequence);
    }
    if (joining.length === 0) return;
    let prompts: KvCache | null = null;
    try {
      prompts = await KvCache.create(this.model, joining.length, this.maxTokens, this.#compute);
      const choose = await this.#readPrompts(joining, prompts);
      joining.forEach((sequence, row) => this.#take(sequence, row, choose));
      const stay = joining.flatMap((sequence, row) => (isDone(sequence) ? [] : [row]));
      if (stay.length === 0) return;
      const active = this.#places.filter((each) => each !== null).length;
      await this.#resize(active + stay.length);
      const places = stay.map((row) => {
        const place = this.#places.indexOf(null);
        this.#places[place] = joining[row] as Sequence;
        return place;
      });
      await copyRows(this.model, prompts, stay, this.#cache as KvCache, places);
    } catch (thrown) {
      // One bad vector must not fail the others that came with it.
      const inPlace = joining.some((each) => this.#places.includes(each));
      if (joining.length === 1 || inPlace) {
        for (const each of joining) each.reject(thrown);
        this.#places = this.#places.map((each) => (each !== null && joining.includes(each) ? null : each));
      } else for (const each of joining) await this.#admitAlone(each);
    } finally {
      prompts?.[Symbol.dispose]();
    }
  }

  async #admitAlone(sequence: Sequence): Promise<void> {
    const others = this.#waiting.splice(0);
    this.#waiting.push(sequence);
    await this.#admit();
    this.#waiting.push(...others);
  }

  async #readPrompts(joining: readonly Sequence[], cache: KvCache) {
    const inject = joining.flatMap(({ request }, sequence) =>
      (request.inject ?? []).map(({ position, vector }) => ({ sequence, position, vector })),
    );
    const prompts = joining.map(({ request }) => request.ids);
    const options = { maxLength: this.maxTokens, inject, compute: this.#compute };
    return chooserOf(await readPrompts(this.model, prompts, cache, options));
  }

  /** Makes places for so many sequences; those at work keep theirs, in a row from 0 on. */
  async #resize(count: number): Promise<void> {
    const rows = Math.min(this.#maxRows, 2 ** Math.ceil(Math.log2(count)));
    if (this.#cache !== null && rows <= this.#cache.rows) return;
    await this.#move(rows);
  }

  async #shrink(): Promise<void> {
    const active = this.#places.filter((each) => each !== null).length;
    if (this.#cache === null || active * 4 > this.#cache.rows || active === 0) return;
    await this.#move(2 ** Math.ceil(Math.log2(active)));
  }

  async #move(rows: number): Promise<void> {
    this.#dropStep();
    const from = this.#places.flatMap((each, place) => (each === null ? [] : [place]));
    const kept = from.map((place) => this.#places[place] as Sequence);
    const before = this.#cache;
    this.#cache =
      before === null || from.length === 0
        ? await KvCache.create(this.model, rows, this.maxTokens, this.#compute)
        : await before.select(Array.from({ length: rows }, (_, i) => from[i] ?? (from[0] as number)));
    before?.[Symbol.dispose]();
    this.#places = Array.from({ length: rows }, (_, i) => kept[i] ?? null);
  }

  /** One token for everybody. */
  async #advance(): Promise<void> {
    const cache = this.#cache as KvCache;
    const active = this.#places.filter((each) => each !== null);
    const furthest = Math.max(...active.map(({ length }) => length + 1));
    const used = cache.layout.covered(furthest, cache.slots);
    const drawnAt = sharedTemperature(active);
    if (this.#step === null || this.#step.used !== used || this.#step.drawnAt !== drawnAt) {
      this.#dropStep();
      const left = Math.max(...active.map(({ request, tokens }) => request.maxNewTokens - tokens.length));
      this.#packed ??= await packedWeights(this.model, cache.rows, {
        maxNewTokens: left,
        compute: this.#compute,
      });
      this.#step = this.#stepGraph(cache, used, drawnAt);
    }
    const { graph, use, drawn, next } = this.#step;
    // A free place computes token 0 at slot 0, which the next one to sit there overwrites.
    const ids = Int32Array.from(this.#places, (each) => each?.tokens.at(-1) ?? 0);
    const positions = Int32Array.from(this.#places, (each) => each?.length ?? 0);
    const uniforms = Float64Array.from(this.#places, (each) =>
      each === null ? 0 : uniformAt(each.request.seed ?? 0, each.tokens.length),
    );
    await graph.run({ ids, positions, ...use.inputs(positions), ...drawn?.inputs(uniforms) });
    const choose = drawn === null ? chooserOf((next as NextTokens).read()) : drawn.read();
    this.#steps++;
    this.#places = this.#places.map((sequence, row) => {
      if (sequence === null) return null;
      sequence.length++;
      this.#take(sequence, row, choose);
      return isDone(sequence) ? null : sequence;
    });
  }

  #stepGraph(cache: KvCache, used: number, drawnAt: number | null): StepGraph {
    const { model } = this;
    const { rows } = cache;
    const packed = packingPays(rows, this.#compute) ? this.#packed : null;
    const weights = packed?.weights ?? model;
    const g = new Graph(model.device, { recording: false, compute: this.#compute });
    const ids = g.input("ids", [rows], "i32");
    const positions = g.input("positions", [rows], "i32");
    const use = cache.layout.step(g, cache, positions, used);
    const batch = { rows, length: 1, ids, positions, mask: noMask };
    const last = forward(g, weights, batch, use).blocks.at(-1) as Tensor;
    const drawn = drawnAt !== null && canDraw(g, {}) ? drawnTokens(g, weights, last, drawnAt) : null;
    const next = drawn ? null : nextTokens(g, weights, last, 1);
    g.compile();
    return { graph: g, used, drawnAt, use, drawn, next };
  }

  #take(sequence: Sequence, row: number, choose: Chooser): void {
    const { request, tokens, logProbs } = sequence;
    try {
      const choice = choose(row, uniformAt(request.seed ?? 0, tokens.length), request);
      tokens.push(choice.token);
      logProbs.push(choice.logProb);
      this.#tokens++;
      const stopped = request.onToken?.(choice, tokens) === true;
      const stop = stopped || (request.stopTokens ?? []).includes(choice.token);
      const full = tokens.length >= request.maxNewTokens || sequence.length + 1 >= this.maxTokens;
      if (!stop && !full) return;
      done.add(sequence);
      sequence.resolve({ tokens, logProbs, finish: stop ? "stop" : "length" });
    } catch (thrown) {
      done.add(sequence);
      sequence.reject(thrown); // NaN in one row is that row's alone
    }
  }

  /** Lets all that is at work or waiting end, and takes nothing new. */
  async drain(): Promise<void> {
    this.#closed = true;
    while (this.#running !== null) await this.#running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.drain();
  }
}

function batchError(code: string, found: string, wanted: string, next: string): NlaError {
  return new NlaError({ code: `batch.${code}`, subject: "a sequence to continue", found, wanted, next });
}

const done = new WeakSet<Sequence>();

function isDone(sequence: Sequence): boolean {
  return done.has(sequence);
}

type Chooser = (row: number, uniform: number, options: SamplingOptions) => Choice;

/** The temperature that all share, if no cut is asked for; null otherwise. */
function sharedTemperature(active: readonly Sequence[]): number | null {
  const [first] = active;
  const wanted = first?.request.temperature ?? 1;
  const plain = active.every(
    ({ request: { temperature = 1, topK = 0, topP = 1 } }) =>
      temperature === wanted && topK === 0 && topP >= 1,
  );
  return plain ? wanted : null;
}

/** Chooses on the host, each row at its own temperature. */
function chooserOf(rows: NextTokenRows): Chooser {
  const { vocabulary } = rows;
  return (row, uniform, options) => {
    const { temperature = 1 } = options;
    if (temperature === 0 || temperature === 1) return chooseToken(rows, row, uniform, options);
    const of = (values: Float32Array) => values.subarray(row * vocabulary, (row + 1) * vocabulary);
    const logits = of(rows.logits);
    let most = -Infinity;
    for (const logit of logits) most = Math.max(most, logit);
    const tempered = logits.map((logit) => Math.exp((logit - most) / temperature));
    const one = {
      vocabulary,
      logits,
      probabilities: of(rows.probabilities),
      expected: rows.expected.subarray(row, row + 1),
      tempered,
    };
    return chooseToken(one, 0, uniform, options);
  };
}

function noMask(): never {
  throw new RangeError("a step attends over its cache, not within the batch");
}
