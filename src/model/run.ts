// Running a decoder over ragged sequences for their residual streams and logits: capture after any set of blocks in one
// pass, stop after any block, replace embedding rows. No gradients; training builds its own graphs.
import { setImmediate } from "node:timers/promises";
import { Graph, ops } from "../tensor/index.js";
import type { HostArray, Tensor } from "../tensor/index.js";
import { NlaError } from "../error.js";
import { packedRows, padBatch, pickRows } from "./batch.js";
import type { Batch } from "./batch.js";
import type { Decoder } from "./decoder.js";
import { finalNorm, forward, headMatrix } from "./forward.js";
import { declareBatch } from "./graph-inputs.js";
import { EMBEDDING, HEAD } from "./parameters.js";

/** A vector that enters the residual stream at one token. */
export interface Injection {
  readonly sequence: number;
  readonly position: number;
  /** [dim] */
  readonly vector: Float32Array;
  /**
   * null: the vector replaces what enters block 0. k: it is added to the output of block k at the token, at the length of what
   * is there. The same for all of a batch. Defaults to null.
   */
  readonly after?: number | null;
}

/** Options of {@link run}. */
export interface RunOptions {
  /** Blocks whose output is wanted. Defaults to none. */
  readonly capture?: readonly number[];
  /** Whether what enters block 0 is wanted. Defaults to false. */
  readonly embedded?: boolean;
  /** Whether the stream after the last norm is wanted. Defaults to false. */
  readonly normed?: boolean;
  /** Whether logits are wanted: of every token, of each sequence's last one, or not. Defaults to `"none"`. */
  readonly logits?: "all" | "last" | "none";
  readonly inject?: readonly Injection[];
  /** Where padding stands in the batch. Defaults to `"right"`. */
  readonly padding?: "right" | "left";
  /** Type of matrix products. Defaults to `"f32"`. */
  readonly compute?: "f32" | "bf16";
  readonly signal?: AbortSignal | undefined;
  /** Called with the seconds that building the graph took: for benchmarks. */
  readonly onGraph?: (seconds: number) => void;
}

/** Packed results: the real tokens of sequence 0, then 1, and so on; row-major f32. */
export interface RunResult {
  readonly lengths: readonly number[];
  /** After each captured block, [tokens, dim]. */
  readonly blocks: ReadonlyMap<number, Float32Array>;
  /** [tokens, dim], where asked for. */
  readonly embedded: Float32Array | null;
  /** [tokens, dim], where asked for. */
  readonly normed: Float32Array | null;
  /** [tokens, vocabulary], or [sequences, vocabulary] for `"last"`. */
  readonly logits: Float32Array | null;
}

/**
 * One pass over a batch. A pass that wants neither logits nor the last norm stops after the last captured block.
 *
 * @param sequences token ids, one array per sequence, of any lengths
 * @throws NlaError `model.layer` for a block that does not exist, `model.batch`, `tensor.index` for an id beyond the
 *   vocabulary, `model.inject`
 */
export async function run(
  model: Decoder,
  sequences: readonly (readonly number[])[],
  options: RunOptions = {},
): Promise<RunResult> {
  const {
    capture = [],
    embedded = false,
    normed = false,
    logits = "none",
    padding = "right",
    compute = "f32",
  } = options;
  const { config } = model;
  for (const k of capture) checkLayer(k, config.layers);
  const batch = padBatch(sequences, { padding, maxLength: config.contextLength });
  const toTheEnd = normed || logits !== "none";
  const until = toTheEnd ? config.layers - 1 : Math.max(-1, ...capture);

  const started = performance.now();
  using g = new Graph(model.device, { recording: false, compute });
  const declared = declareBatch(g, batch);
  const injection = declareInjection(g, options.inject ?? [], batch, config.dim);
  const residuals = forward(g, model, declared, {
    until,
    ...(injection ? { inject: injection.tensors } : {}),
  });
  const wanted = new Map<string, Tensor>();
  if (embedded) wanted.set("embedded", residuals.embedded);
  for (const k of capture) wanted.set(String(k), residuals.blocks[k] as Tensor);
  const values: Record<string, HostArray> = { ...injection?.values };
  if (toTheEnd) {
    let last = finalNorm(g, model, residuals.blocks.at(-1) ?? residuals.embedded);
    if (normed) wanted.set("normed", last);
    if (logits === "last") {
      last = ops.gatherRows(g, last, g.input("last", [batch.rows], "i32"));
      values.last = lastRows(batch);
    }
    if (logits !== "none")
      wanted.set("logits", ops.logits(g, last, headMatrix(model), { softcap: config.logitSoftcap }));
  }
  for (const tensor of wanted.values()) g.output(tensor);
  g.compile();
  options.onGraph?.((performance.now() - started) / 1000);
  await g.run({ ...declared.values(batch), ...values }, options.signal);

  const rows = packedRows(batch);
  const read = new Map<string, Float32Array>();
  for (const [name, tensor] of wanted) {
    if (read.size > 0) await setImmediate(); // copying a long text's streams holds the event loop
    const all = tensor.readF32();
    // Without padding all rows are wanted, in their order; of the last tokens there is no padding.
    const every = rows.length === batch.ids.length || (name === "logits" && logits === "last");
    read.set(name, every ? all : pickRows(all, tensor.shape[1] as number, rows));
  }
  return {
    lengths: batch.lengths,
    blocks: new Map(capture.map((k) => [k, read.get(String(k)) as Float32Array])),
    embedded: read.get("embedded") ?? null,
    normed: read.get("normed") ?? null,
    logits: read.get("logits") ?? null,
  };
}

/** The matrix that makes logits. */
export function headOf(model: Decoder): Tensor {
  return model.get(model.config.tied ? EMBEDDING : HEAD);
}

/** Row of each sequence's last token in a padded batch. */
export function lastRows(batch: Batch): Int32Array {
  return Int32Array.from(
    batch.lengths,
    (n, row) => row * batch.length + (batch.offsets[row] as number) + n - 1,
  );
}

/** @throws NlaError `model.layer` where the model has no such block */
export function checkLayer(k: number, layers: number): void {
  if (Number.isInteger(k) && k >= 0 && k < layers) return;
  throw new NlaError({
    code: "model.layer",
    subject: `layer ${k}`,
    found: `a model of ${layers} blocks`,
    wanted: `a layer from 0 to ${layers - 1}`,
    next: "Layer K is the output of block K, counted from 0 (Hugging Face's hidden_states[K + 1]).",
  });
}

/**
 * Declares the injected vectors of a batch and gives their values.
 *
 * @throws NlaError `model.inject` for a vector of another width, not finite, at a token that is not there, or at one that
 *   has a vector already
 */
export function declareInjection(g: Graph, injections: readonly Injection[], batch: Batch, dim: number) {
  if (injections.length === 0) return null;
  const vectors = g.input("injected", [injections.length, dim]);
  const at = g.input("injectedAt", [injections.length], "i32");
  const after = injections[0]?.after ?? null;
  const values = injectionValues(injections, batch, dim);
  return { tensors: { vectors, at, after }, values };
}

/** The values of what {@link declareInjection} declares, for one batch. */
export function injectionValues(injections: readonly Injection[], batch: Batch, dim: number) {
  const injected = new Float32Array(injections.length * dim);
  const injectedAt = new Int32Array(injections.length);
  injections.forEach(({ sequence, position, vector }, i) => {
    const length = batch.lengths[sequence] ?? 0;
    const there = Number.isInteger(position) && position >= 0 && position < length;
    const fits = there && vector.length === dim && vector.every(Number.isFinite);
    if (!fits) {
      throw new NlaError({
        code: "model.inject",
        subject: `injection ${i}, at position ${position} of sequence ${sequence} (${length} tokens)`,
        found: `a vector of ${vector.length} elements${vector.every(Number.isFinite) ? "" : ", not all finite"}`,
        wanted: `${dim} finite elements, at a token of the sequence`,
        next: "Take the vector from the same model, at the layer of the NLA.",
      });
    }
    const after = injections[0]?.after ?? null;
    if ((injections[i]?.after ?? null) !== after) {
      throw new NlaError({
        code: "model.inject",
        subject: `injections 0 and ${i}`,
        found: `one after block ${after}, one after block ${injections[i]?.after ?? null}`,
        wanted: "one place for all vectors of a batch",
        next: "Run them in two batches.",
      });
    }
    // Two threads would write the same row, and which comes last is chance.
    const other = injections.findIndex((each) => each.sequence === sequence && each.position === position);
    if (other < i) {
      throw new NlaError({
        code: "model.inject",
        subject: `injections ${other} and ${i}`,
        found: `two vectors for position ${position} of sequence ${sequence}`,
        wanted: "at most one vector for a token",
        next: "Give each vector a token of its own.",
      });
    }
    injected.set(vector, i * dim);
    injectedAt[i] = sequence * batch.length + (batch.offsets[sequence] as number) + position;
  });
  return { injected, injectedAt };
}
