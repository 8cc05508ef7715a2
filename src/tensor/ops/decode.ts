// Ops of generation that only nlakit's own kernels have (native/decode.c): a key-value cache in the order in which it is read, one
// query per sequence over it, and the choice of a token. Where there are no kernels, `model/` composes all three of ggml's ops.
import type { Graph } from "../graph.js";
import { formatShape, shapeError } from "../shape.js";
import type { Shape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { requireDtype, requireNumber } from "./check.js";
import { asDtype } from "./layout.js";

/** Slots of a cache are a multiple of this: keys lie in groups of so many. */
export const SLOT_GROUP = 16;

// What a row of scores, or of weights, may have, a head, and all heads of a cache together: the kernels' scratch.
const LONGEST = 1_000_000;
const WIDEST_HEAD = 4_096;
const WIDEST = 16_384;
const KEYS = 1; // the kernel's flag

/** A token's key and value, f32 [sequences, kvHeads, d] or [sequences, 1, kvHeads, d]. */
export interface CachedToken {
  readonly key: Tensor;
  readonly value: Tensor;
  /** Cosines and sines [sequences, d], by which q and key are turned first; null: they are turned already. Defaults to null. */
  readonly table?: Tensor | null;
}

/** Options of {@link cacheAttention}. */
export interface CacheAttentionOptions {
  readonly scale: number;
  /** Bound on the scores (Gemma 2), or null. Defaults to null. */
  readonly softcap?: number | null;
  /** i32 input [sequences]: the first slot that each query sees. Defaults to 0 for all. */
  readonly first?: Tensor | null;
  /** Of the token at hand: the query sees it, too, and it is stored at its position. Defaults to none: it is in the cache. */
  readonly token?: CachedToken | null;
}

/**
 * Writes tokens into a cache. x f32 [sequences, length, kvHeads, d]; cache [sequences, kvHeads, slots, d], f32 or bf16; at an i32
 * input [sequences], the slot of each sequence's first token. Keys lie in another order than values: only {@link cacheAttention}
 * reads them.
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.index`
 */
export function storeTokens(g: Graph, cache: Tensor, x: Tensor, at: Tensor, what: "keys" | "values"): void {
  const [sequences, length, heads, d] = x.shape as [number, number, number, number];
  const [rows, kvHeads, slots, width] = cache.shape as [number, number, number, number];
  const fits =
    x.shape.length === 4 &&
    cache.shape.length === 4 &&
    rows === sequences &&
    kvHeads === heads &&
    width === d &&
    slots % SLOT_GROUP === 0 &&
    length <= slots &&
    at.size === sequences;
  if (!fits) {
    throw shapeError(
      "storeTokens",
      [x.shape, cache.shape, at.shape],
      `x [n, t, kv, d], a cache [n, kv, slots, d] with slots a multiple of ${SLOT_GROUP} and not below t, and slots [n]`,
    );
  }
  requireDtype("storeTokens", "f32", x);
  requireDtype("storeTokens", cache.dtype === "bf16" ? "bf16" : "f32", cache);
  g.boundIndices("storeTokens", at, slots - length + 1);
  g.refuseGradient("storeTokens", x);
  g.expand(g.emitKernelInPlace("store", cache, [x, at], what === "keys" ? KEYS : 0));
}

function perSequence({ shape }: Tensor): Shape {
  return shape.length === 4 && shape[1] === 1 ? [shape[0] as number, ...shape.slice(2)] : shape;
}

/**
 * One query per sequence over a cache that {@link storeTokens} wrote. q [sequences, heads, d] or [sequences, 1, heads, d]; keys and values [sequences, kvHeads,
 * slots, d]; positions an i32 input [sequences]: the last slot that each query sees -> [sequences, heads · d].
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.argument`, `tensor.index`
 */
export function cacheAttention(
  g: Graph,
  q: Tensor,
  keys: Tensor,
  values: Tensor,
  positions: Tensor,
  { scale, softcap = null, first = null, token = null }: CacheAttentionOptions,
): Tensor {
  const [sequences, heads, d] = perSequence(q) as [number, number, number];
  const [rows, kvHeads, slots, width] = keys.shape as [number, number, number, number];
  const fits =
    perSequence(q).length === 3 &&
    keys.shape.length === 4 &&
    rows === sequences &&
    width === d &&
    heads % kvHeads === 0 &&
    slots % SLOT_GROUP === 0 &&
    slots <= LONGEST &&
    d <= WIDEST_HEAD &&
    kvHeads * d <= WIDEST &&
    formatShape(values.shape) === formatShape(keys.shape) &&
    positions.size === sequences &&
    (first === null || first.size === sequences) &&
    [token?.key, token?.value].every(
      (x) => !x || formatShape(perSequence(x)) === formatShape([rows, kvHeads, d]),
    ) &&
    (!token?.table || (d % 2 === 0 && formatShape(token.table.shape) === formatShape([rows, d])));
  if (!fits) {
    throw shapeError(
      "cacheAttention",
      [q.shape, keys.shape, values.shape, positions.shape],
      `q [n, heads, d], keys and values [n, kv, slots, d] with heads a multiple of kv and slots one of ${SLOT_GROUP}, positions [n]; of a token key and value [n, kv, d], a table [n, d] of an even d`,
    );
  }
  const parts = token ? [token.key, token.value, ...(token.table ? [token.table] : [])] : [];
  requireDtype("cacheAttention", "f32", q, ...parts);
  requireDtype("cacheAttention", keys.dtype === "bf16" ? "bf16" : "f32", keys, values);
  requireNumber("cacheAttention", "scale", scale);
  if (softcap !== null) requireNumber("cacheAttention", "softcap", softcap, "a positive number", softcap > 0);
  for (const indices of first ? [positions, first] : [positions])
    g.boundIndices("cacheAttention", indices, slots);
  g.refuseGradient("cacheAttention", q, ...parts);
  const [capBits] = new Uint32Array(Float32Array.of(softcap ?? 0).buffer) as unknown as [number];
  const mixed = (dtype: "f32" | "bf16") =>
    g.emitKernel("cache_attention", [sequences, heads * d], [q, keys, values, positions, first, ...parts], {
      flags: capBits,
      value: scale,
      dtype,
    });
  return g.offer(mixed("f32"), asDtype("bf16"), () => mixed("bf16"));
}

/**
 * Chooses a token from each row of logits [rows, vocabulary]; uniform f32 [rows, 2], of which each row's sum is a number in [0, 1).
 * At temperature 0 it is the best token, the first of equals.
 *
 * @returns [rows, 4]: the token; its log-probability and the distribution's entropy, both at temperature 1, nats; and the sum of
 *   the weights, which is positive and finite where the logits are sound
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.argument`
 */
export function chooseTokens(g: Graph, logits: Tensor, uniform: Tensor, temperature: number): Tensor {
  const [rows, vocabulary] = logits.shape as [number, number];
  const fits = logits.shape.length === 2 && uniform.size === 2 * rows && vocabulary <= LONGEST;
  if (!fits)
    throw shapeError("chooseTokens", [logits.shape, uniform.shape], "logits [n, v] and numbers [n, 2]");
  requireDtype("chooseTokens", "f32", logits, uniform);
  requireNumber("chooseTokens", "temperature", temperature, "a number not below 0", temperature >= 0);
  g.refuseGradient("chooseTokens", logits, uniform);
  return g.emitKernel("choose_token", [rows, 4], [logits, uniform], { value: temperature });
}
