// Softmax and attention. The one place that attends: a fused kernel is chosen here and nowhere else.
import type { Graph } from "../graph.js";
import { extentOf, formatShape, shapeError } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { requireDtype, requireNumber } from "./check.js";
import { softcap } from "./elementwise.js";
import { partOf, permute, reshape } from "./layout.js";
import { matmul } from "./matmul.js";

/**
 * softmax(scale · x + mask) over the last dimension. x [..., rows, n]; mask [rows, n] or [batch, 1, rows, n], whose
 * -inf entries get probability 0. A row with nothing but -inf has no softmax: give padding rows themselves.
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.argument`
 */
export function softmax(g: Graph, x: Tensor, mask: Tensor | null = null, scale = 1): Tensor {
  if (mask) {
    const [maskN, maskRows, maskHeads, maskBatch] = extentOf(mask.shape, "softmax mask");
    const [n, rows, , batch] = extentOf(x.shape, "softmax");
    if (maskN !== n || maskRows !== rows || maskHeads !== 1 || (maskBatch !== 1 && maskBatch !== batch)) {
      throw shapeError(
        "softmax",
        [x.shape, mask.shape],
        `a mask [${rows}, ${n}] or [${batch}, 1, ${rows}, ${n}]`,
      );
    }
  }
  requireDtype("softmax", "f32", x, ...(mask ? [mask] : []));
  requireNumber("softmax", "scale", scale);
  if (mask) g.refuseGradient("softmax", mask);
  const y = g.emit("soft_max_ext", x.shape, "f32", x, mask, scale, 0);
  return g.record(y, [
    x,
    // ggml's allocator may place the result of the plain soft_max_ext_back over y, whose kernel then reads what it has
    // overwritten: silently wrong signs. In place on a copy of dy, which nobody else holds, it is right.
    (dy) =>
      g.emit("soft_max_ext_back_inplace", x.shape, "f32", g.emit("cont", dy.shape, "f32", dy), y, scale, 0),
  ]);
}

/** Settings of {@link attention}. */
export interface AttentionOptions {
  /** Additive mask [t, s] or [batch, 1, t, s], -inf where a query may not look. */
  readonly mask: Tensor;
  /** Factor on the scores. */
  readonly scale: number;
  /** Bound on the scores (Gemma 2), or null. Defaults to null. */
  readonly softcap?: number | null;
}

/**
 * Grouped-query attention, differentiable. q [batch, t, heads, headDim], k and v [batch, s, kvHeads, headDim]
 * -> [batch, t, heads · headDim]. Query head h looks at key head ⌊h · kvHeads / heads⌋.
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.argument`
 */
export function attention(g: Graph, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  const { batch, t, heads, headDim, s, kvHeads } = dimensions("attention", q, k, v);
  requireCap("attention", options);
  if (hasAttention(g, t, s)) return nativeAttention(g, q, k, v, options, batch);
  const group = heads / kvHeads;
  // The queries of a group are rows of one matrix: no broadcasting of keys, and so no sum over them in the gradient.
  const rows = reshape(g, permute(g, q, [0, 2, 1, 3]), [batch, kvHeads, group * t, headDim]);
  const keys = permute(g, k, [0, 2, 1, 3]); // [batch, kvHeads, s, headDim]
  const values = permute(g, v, [0, 2, 3, 1]); // [batch, kvHeads, headDim, s]
  let scores = reshape(g, matmul(g, rows, keys, { transposeB: true, compute: "f32" }), [batch, heads, t, s]);
  // softcap(scale · s) = scale · softcap at cap/scale of s, so that softmax can apply the scale in either case.
  if (options.softcap != null) scores = softcap(g, scores, options.softcap / options.scale);
  const p = reshape(g, softmax(g, scores, options.mask, options.scale), [batch, kvHeads, group * t, s]);
  const mixed = reshape(g, matmul(g, p, values, { transposeB: true, compute: "f32" }), [
    batch,
    heads,
    t,
    headDim,
  ]);
  return reshape(g, permute(g, mixed, [0, 2, 1, 3]), [batch, t, heads * headDim]);
}

/**
 * The same over a cache, for generation: no gradient, nothing materialised. q [batch, t, heads, headDim];
 * k, v [batch, kvHeads, s, headDim], f32 or f16 (views of a cache allowed); mask f16 [batch | 1, 1, t, s].
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.argument`
 */
export function cachedAttention(
  g: Graph,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions,
): Tensor {
  const [batch, t, heads, headDim] = q.shape as [number, number, number, number];
  const [kBatch, kvHeads, s, kDim] = k.shape as [number, number, number, number];
  const { mask, scale, softcap: cap = null } = options;
  const fits =
    q.shape.length === 4 &&
    k.shape.length === 4 &&
    kBatch === batch &&
    kDim === headDim &&
    heads % kvHeads === 0;
  const same = v.shape.length === 4 && v.shape.every((extent, i) => extent === k.shape[i]);
  const [maskBatch, maskHeads, maskRows, maskN] = mask.shape;
  const masked =
    mask.shape.length === 4 && (maskBatch === 1 || maskBatch === batch) && maskHeads === 1 && maskRows === t;
  if (!fits || !same || !masked || maskN !== s) {
    throw shapeError(
      "cachedAttention",
      [q.shape, k.shape, v.shape, mask.shape],
      "q [b, t, h, d], k and v [b, kv, s, d], mask [b, 1, t, s]",
    );
  }
  requireDtype("cachedAttention", "f32", q);
  requireDtype("cachedAttention", k.dtype === "f16" ? "f16" : "f32", k, v);
  requireDtype("cachedAttention", "f16", mask);
  requireNumber("cachedAttention", "scale", scale);
  requireCap("cachedAttention", options);
  g.refuseGradient("cachedAttention", q, k, v, mask);
  if (k.dtype === "f32" && hasAttention(g, t, s)) {
    const shape = [batch, t, heads * headDim];
    // A query or a few: the cache is read as it lies. More: they are a matrix.
    if (t < FEWEST_QUERIES) {
      const flags = flagsOf(HEADS_FIRST, cap);
      return g.emitKernel("attention_step", shape, [q, k, v, mask], { flags, value: scale });
    }
    const flags = flagsOf((g.compute === "bf16" ? ATTEND_BF16 : 0) | HEADS_FIRST, cap);
    const all = g.emitKernel("attention", [q.size + batch * heads * t], [q, k, v, mask], {
      flags,
      value: scale,
    });
    return partOf(g, all, 0, shape);
  }
  const queries =
    t === 1
      ? g.emit("reshape_4d", [batch, heads, 1, headDim], "f32", q, headDim, 1, heads, batch)
      : permute(g, q, [0, 2, 1, 3]);
  const y = g.emit(
    "flash_attn_ext",
    [batch, t, heads, headDim],
    "f32",
    queries,
    k,
    v,
    mask,
    scale,
    0,
    cap ?? 0,
  );
  return reshape(g, y, [batch, t, heads * headDim]);
}

// Flags of the kernels (native/attention.c).
const ATTEND_BF16 = 1;
const HEADS_FIRST = 2;
// Fewer queries than this are not worth packing the keys.
const FEWEST_QUERIES = 8;
// Beyond it a row of scores does not fit the kernel's scratch.
const LONGEST = 65_536;

/** Whether the kernels attend from t queries to s keys. */
export function hasAttention(g: Graph, t: number, s: number): boolean {
  return g.native && t <= LONGEST && s <= LONGEST;
}

/** The cap as a float whose two lowest bits make room for flags: rounded to 2^-22 of itself. The caps of Gemma 2 are exact. */
function flagsOf(flags: number, cap: number | null): number {
  const [bits] = new Uint32Array(Float32Array.of(cap ?? 0).buffer) as unknown as [number];
  const rounded = Math.min(bits + 2, LARGEST_BITS);
  return ((rounded & ~3) | flags) >>> 0;
}
const LARGEST_BITS = 0x7f7fffff; // of a finite float

/** Attention in one kernel each way. The forward one also gives the logarithms of the rows' sums, which the reverse one needs. */
function nativeAttention(
  g: Graph,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { mask, scale, softcap: cap = null }: AttentionOptions,
  batch: number,
): Tensor {
  const [, t, heads, headDim] = q.shape as [number, number, number, number];
  requireDtype("attention", "f32", q, k, v, mask);
  const settings = kernelSettings(g, { mask, scale, softcap: cap }, [batch, heads, t, k.shape[1] as number]);
  const all = g.emitKernel("attention", [q.size + batch * heads * t], [q, k, v, mask], settings);
  let swept: Tensor | null = null;
  const sweep = (dy: Tensor) =>
    (swept ??= g.emitKernel("attention_back", [q.size + 2 * k.size], [dy, q, k, v, mask, all], settings));
  return g.record(
    partOf(g, all, 0, [batch, t, heads * headDim]),
    [q, (dy) => partOf(g, sweep(dy), 0, q.shape)],
    [k, (dy) => partOf(g, sweep(dy), q.size, k.shape)],
    [v, (dy) => partOf(g, sweep(dy), q.size + k.size, v.shape)],
  );
}

/**
 * For ops: what the kernels take beside tensors.
 *
 * @param scores the shape of what is masked
 * @throws NlaError `tensor.shape`, `tensor.argument`, `tensor.gradient`
 */
export function kernelSettings(
  g: Graph,
  { mask, scale, softcap: cap = null }: AttentionOptions,
  scores: readonly [batch: number, heads: number, t: number, s: number],
): { readonly flags: number; readonly value: number } {
  requireMask(mask, scores);
  requireNumber("attention", "scale", scale);
  g.refuseGradient("attention", mask);
  return { flags: flagsOf(g.compute === "bf16" ? ATTEND_BF16 : 0, cap), value: scale };
}

/** @param scores the shape of what is masked: [batch, heads, t, s] */
function requireMask(mask: Tensor, scores: readonly [number, number, number, number]): void {
  const [batch, , t, s] = scores;
  const [keys, queries, heads, rows] = extentOf(mask.shape, "attention mask");
  if (keys !== s || queries !== t || heads !== 1 || (rows !== 1 && rows !== batch)) {
    throw shapeError("attention", [scores, mask.shape], `a mask [${t}, ${s}] or [${batch}, 1, ${t}, ${s}]`);
  }
}

/** @throws NlaError `tensor.argument` for a cap that makes no sense */
export function requireCap(op: string, { softcap: cap = null, scale }: AttentionOptions): void {
  if (cap === null) return;
  requireNumber(op, "softcap", cap, "a positive number", cap > 0);
  requireNumber(op, "scale", scale, "a positive number, beside a softcap", scale > 0);
}

function dimensions(op: string, q: Tensor, k: Tensor, v: Tensor) {
  const [batch, t, heads, headDim] = q.shape as [number, number, number, number];
  const [kBatch, s, kvHeads, kDim] = k.shape as [number, number, number, number];
  const fits =
    q.shape.length === 4 &&
    k.shape.length === 4 &&
    kBatch === batch &&
    kDim === headDim &&
    heads % kvHeads === 0;
  if (!fits || formatShape(k.shape) !== formatShape(v.shape)) {
    throw shapeError(
      op,
      [q.shape, k.shape, v.shape],
      "q [batch, t, heads, d], k and v [batch, s, kvHeads, d], heads a multiple of kvHeads",
    );
  }
  return { batch, t, heads, headDim, s, kvHeads };
}
