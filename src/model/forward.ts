// The forward pass of a decoder as ops in a graph: embedding, blocks, last norm. One function for every family, driven by
// the config; it stops after any block and hands out the residual stream after any of them.
import { NlaError } from "../error.js";
import { Graph, ops, PackedMatrix } from "../tensor/index.js";
import type { RopeOptions } from "../tensor/ops/index.js";
import type { Tensor } from "../tensor/index.js";
import { mergesHeads } from "./decoder-config.js";
import type { DecoderConfig, RopeConfig } from "./decoder-config.js";
import { blockName, EMBEDDING, feedForwardModules, FINAL_NORM, HEAD, headMatrices } from "./parameters.js";
import { ropeMagnitude } from "./rope-scaling.js";

const {
  add,
  affine,
  attention,
  cachedAttention,
  canMerge,
  feedForward,
  gatherRows,
  geglu,
  hasFeedForward,
  linear,
  mergedAttention,
  mergedLinear,
  mul,
  normalizeRows,
  permute,
  replaceRows,
  reshape,
  rmsNorm,
  rope,
  scale,
  splitHeads,
  sqrt,
  square,
  sumLast,
  swiglu,
} = ops;

/** What the forward pass reads: tensors by Hugging Face name, and the rope divisors of each block. */
export interface Weights {
  readonly config: DecoderConfig;
  /** A parameter as it is stored, f32. */
  get(name: string): Tensor;
  /** A parameter for `linear`: f32, or a copy in bf16 or packed where there is one. */
  matrix(name: string): Tensor | PackedMatrix;
  /** Matrices as one, [Σ out, in], where they lie one after another and nothing is added to them; null: take each by itself. */
  merged(names: readonly string[]): Tensor | PackedMatrix | null;
  /** What an adapter adds to a linear map, named without `.weight`; null: nothing. */
  lowRank(module: string): LowRank | null;
  /** Frequency divisors of block k, or null. */
  divisors(k: number): Tensor | null;
}

/** A low-rank path beside a linear map: y = W·x + scale · B·(A·x), with a [rank, in] and b [out, rank], f32. */
export interface LowRank {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly scale: number;
}

/** The tensors that describe a batch to the graph. */
export interface BatchInputs {
  readonly rows: number;
  readonly length: number;
  /** i32 [rows · length] */
  readonly ids: Tensor;
  /** i32 [rows · length] */
  readonly positions: Tensor;
  /** Mask by window: f32 [length, length] or [rows, 1, length, length], or f16 [1 or rows, 1, length, length]. */
  mask(window: number | null): Tensor;
}

/** Vectors [k, dim] that enter the residual stream at batch rows [k]. */
export interface InjectedRows {
  readonly vectors: Tensor;
  readonly at: Tensor;
  /** null: they replace what enters block 0. k: each is added to the output of block k, at the length of what is there. */
  readonly after: number | null;
}

/** How one block attends: over the batch itself, or over a cache. With a table, q and key are still to be turned by it. */
export type Attend = (k: number, q: Tensor, key: Tensor, value: Tensor, table?: Tensor) => Tensor;

/** Options of {@link forward}. */
export interface ForwardOptions {
  /** Last block to compute; nothing beyond it enters the graph. Defaults to the last one. */
  readonly until?: number;
  readonly inject?: InjectedRows;
  /** Defaults to causal attention within the batch. */
  readonly attend?: Attend;
  /** Whether `attend` takes what {@link ops.splitHeads} gives, too: for one token per row. Defaults to false. */
  readonly takesParts?: boolean;
  /**
   * Given the keys and values of a block, [rows, length, kvHeads, headDim], where queries, keys and values come from one product: then
   * the batch attends within itself, and `attend`, which does both, is not called. Defaults to none.
   */
  readonly keep?: (k: number, key: Tensor, value: Tensor) => void;
}

/** The residual stream: what enters block 0, and what each block leaves. All [rows · length, dim]. */
export interface Residuals {
  readonly embedded: Tensor;
  readonly blocks: readonly Tensor[];
}

/**
 * Embedding and blocks.
 *
 * @throws NlaError of the ops where ids, vectors or masks do not fit
 */
export function forward(
  g: Graph,
  weights: Weights,
  batch: BatchInputs,
  options: ForwardOptions = {},
): Residuals {
  const { config } = weights;
  const { until = config.layers - 1, inject } = options;
  const merged = mergedHeads(g, weights, batch, options);
  const attend = options.attend ?? attendWithin(g, weights, batch);
  let x = gatherRows(g, weights.get(EMBEDDING), batch.ids); // [n, dim]
  if (config.embeddingScale !== 1) x = scale(g, x, config.embeddingScale);
  // After the scale: an injected vector stands in the residual stream as it is.
  if (inject?.after === null) x = replaceRows(g, x, inject.vectors, inject.at);
  else if (inject && inject.after > until) throw injectedTooLate(inject.after, until);
  const embedded = x;
  const blocks: Tensor[] = [];
  for (let k = 0; k <= until; k++) {
    x = block(g, weights, k, x, batch.positions, { attend, merged });
    if (inject?.after === k) x = addNormed(g, x, inject);
    blocks.push(x);
  }
  return { embedded, blocks };
}

// Far below any activation: a zero vector adds nothing instead of NaN.
const SMALLEST_LENGTH = 1e-9;

/** h + |h| · v/|v| in the rows that are named: the norm-matched addition of community-made verbalizers. */
function addNormed(g: Graph, x: Tensor, { vectors, at }: InjectedRows): Tensor {
  const h = gatherRows(g, x, at);
  const length = sqrt(g, sumLast(g, square(g, h))); // [k, 1]
  const direction = normalizeRows(g, vectors, 1, SMALLEST_LENGTH ** 2);
  return replaceRows(g, x, add(g, h, mul(g, direction, length)), at);
}

function injectedTooLate(after: number, until: number): NlaError {
  return new NlaError({
    code: "model.inject",
    subject: `an injection after block ${after}`,
    found: `a pass that ends with block ${until}`,
    wanted: "a pass that goes beyond it",
    next: "Capture a later block, or take a model that has more.",
  });
}

/** The norm after the last block, where the model has it. */
export function finalNorm(g: Graph, weights: Weights, x: Tensor): Tensor {
  return norm(g, weights, x, FINAL_NORM);
}

/** The output matrix [vocabulary, dim] for {@link ops.logits}: the head's own, or the embedding where they are tied. */
export function headMatrix(weights: Weights): Tensor | PackedMatrix {
  return weights.matrix(weights.config.tied ? EMBEDDING : HEAD);
}

function norm(g: Graph, weights: Weights, x: Tensor, name: string): Tensor {
  const { normEps, gainOffset } = weights.config;
  const gain = weights.get(name);
  return rmsNorm(g, x, gainOffset === 0 ? gain : affine(g, gain, 1, gainOffset), normEps);
}

/** The one linear map of a block, added to `onto`: every projection goes through it, so an adapter is added here and nowhere else. */
function project(
  g: Graph,
  weights: Weights,
  x: Tensor,
  name: string,
  { bias = false, onto = null }: { readonly bias?: boolean; readonly onto?: Tensor | null } = {},
): Tensor {
  const plain = linear(g, x, weights.matrix(`${name}.weight`), onto);
  const y = bias ? add(g, plain, weights.get(`${name}.bias`)) : plain;
  const low = weights.lowRank(name);
  // Scaled between the two: there are fewest elements.
  return low ? add(g, y, linear(g, scale(g, linear(g, x, low.a), low.scale), low.b)) : y;
}

/** Attention of block k over its normed input, [n, dim] -> [n, heads · headDim]; null: not merged. */
type MergedHeads = (k: number, h: Tensor) => Tensor | null;

interface Attention {
  readonly attend: Attend;
  /** Tried before `attend`. */
  readonly merged: MergedHeads | null;
}

function block(
  g: Graph,
  weights: Weights,
  k: number,
  x: Tensor,
  positions: Tensor,
  { attend, merged }: Attention,
): Tensor {
  const { config } = weights;
  const name = (rest: string) => blockName(k, rest);
  const n = x.shape[0] as number;

  const h = norm(g, weights, x, name("input_layernorm.weight"));
  const heads = (part: "q" | "k" | "v", count: number) =>
    reshape(g, project(g, weights, h, name(`self_attn.${part}_proj`), { bias: config.attentionBias }), [
      n,
      count,
      config.headDim,
    ]);
  const turned = (part: "q" | "k", count: number) => {
    const flat = heads(part, count);
    const ready = config.qkNorm ? norm(g, weights, flat, name(`self_attn.${part}_norm.weight`)) : flat;
    return rope(g, ready, positions, ropeOptions(weights, k));
  };
  const mixed =
    merged?.(k, h) ??
    attend(k, turned("q", config.heads), turned("k", config.kvHeads), heads("v", config.kvHeads));
  const { postNorms } = config;
  const attended = project(g, weights, mixed, name("self_attn.o_proj"), { onto: postNorms ? null : x });
  if (!postNorms) x = attended;
  else x = add(g, x, norm(g, weights, attended, name("post_attention_layernorm.weight")));

  const before = postNorms ? "pre_feedforward_layernorm.weight" : "post_attention_layernorm.weight";
  const f = norm(g, weights, x, name(before));
  const fed = fedForward(g, weights, k, f, postNorms ? null : x);
  return postNorms ? add(g, x, norm(g, weights, fed, name("post_feedforward_layernorm.weight"))) : fed;
}

/** The feed-forward layer of block k over its normed input, added to `onto`: whole, unless an adapter has a part in it. */
function fedForward(g: Graph, weights: Weights, k: number, f: Tensor, onto: Tensor | null): Tensor {
  const { activation } = weights.config;
  const [gateName, upName, downName] = feedForwardModules(k);
  const matrices = {
    gate: weights.matrix(`${gateName}.weight`),
    up: weights.matrix(`${upName}.weight`),
    down: weights.matrix(`${downName}.weight`),
  };
  const adapted = [gateName, upName, downName].some((module) => weights.lowRank(module) !== null);
  if (!adapted && hasFeedForward(g, f.shape[0] as number, matrices)) {
    const merged = weights.merged([`${gateName}.weight`, `${upName}.weight`]);
    return feedForward(g, f, matrices, {
      activation,
      onto,
      merged: merged instanceof PackedMatrix ? null : merged,
    });
  }
  const gate = project(g, weights, f, gateName);
  const up = project(g, weights, f, upName);
  const gated = activation === "silu" ? swiglu(g, gate, up) : geglu(g, gate, up);
  return project(g, weights, gated, downName, { onto });
}

function ropeOptions(weights: Weights, k: number): RopeOptions {
  const settings = weights.config.rope[k] as RopeConfig;
  return {
    theta: settings.theta,
    frequencyDivisors: weights.divisors(k),
    magnitude: ropeMagnitude(settings),
  };
}

/**
 * Causal attention among the tokens of the batch with queries, keys and values from one product: the input is read once, its
 * gradient made once, and both are packed once. Not for families whose queries get a bias or a norm before they are turned.
 */
function mergedHeads(
  g: Graph,
  weights: Weights,
  batch: BatchInputs,
  { attend, takesParts = false, keep }: ForwardOptions,
): MergedHeads | null {
  const { config } = weights;
  const { rows, length, positions } = batch;
  if ((attend && !takesParts && !keep) || !mergesHeads(config) || !g.native) return null;
  return (k, h) => {
    const names = headMatrices(k);
    const matrix = weights.merged(names);
    // What is packed is multiplied with any number of rows, and steps over a cache are not attention within the batch.
    const ready = matrix instanceof PackedMatrix && takesParts;
    if (!matrix || !(ready || canMerge(g, rows * length, length))) return null;
    const parts = names.map((name) => weights.get(name));
    const qkv = mergedLinear(g, h, matrix, parts);
    const { heads, kvHeads, headDim } = config;
    const options = { heads, kvHeads, headDim, positions, rope: ropeOptions(weights, k) };
    if (attend && takesParts) {
      const { q, key, value, table } = splitHeads(g, qkv, options);
      return attend(k, q, key, value, table);
    }
    return mergedAttention(g, qkv, {
      ...options,
      batch: rows,
      mask: batch.mask(config.windows[k] ?? null),
      scale: config.attentionScale,
      softcap: config.attentionSoftcap,
      ...(keep ? { keep: (key: Tensor, value: Tensor) => keep(k, key, value) } : {}),
    });
  };
}

/** Causal attention among the tokens of the batch. q, key, value [n, heads, headDim] -> [n, heads · headDim]. */
export function attendWithin(g: Graph, weights: Weights, { rows, length, mask }: BatchInputs): Attend {
  const { config } = weights;
  return (k, q, key, value) => {
    const split = (x: Tensor) => reshape(g, x, [rows, length, x.shape[1] as number, config.headDim]);
    const byHead = (x: Tensor) => permute(g, split(x), [0, 2, 1, 3]);
    const options = {
      mask: mask(config.windows[k] ?? null),
      scale: config.attentionScale,
      softcap: config.attentionSoftcap,
    };
    const mixed =
      options.mask.dtype === "f16"
        ? cachedAttention(g, split(q), byHead(key), byHead(value), options)
        : attention(g, split(q), split(key), split(value), options);
    return reshape(g, mixed, [rows * length, config.heads * config.headDim]);
  };
}
