// Attention over what one product made of a block's input: queries, keys and values side by side in one tensor, turned where they lie
// and read where they lie. Only with nlakit's own kernels; elsewhere `model/` makes the three of them by themselves. The same numbers.
import type { Graph } from "../graph.js";
import { PackedMatrix } from "../packed.js";
import { shapeError, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { hasAttention, kernelSettings, requireCap } from "./attention.js";
import type { AttentionOptions } from "./attention.js";
import { requireDtype } from "./check.js";
import { asDtype, partOf } from "./layout.js";
import { hasProduct, hasStored, packedProduct, product, productOnto } from "./product.js";
import { checkRope, ropeTable, turnInPlace } from "./rope.js";
import type { RopeOptions } from "./rope.js";

/** Settings of {@link mergedAttention}. */
export interface MergedAttentionOptions extends AttentionOptions {
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** i32 input [n]. */
  readonly positions: Tensor;
  readonly rope: RopeOptions;
  /** Given the turned keys and the values, views [batch, t, kvHeads, headDim] that {@link storeTokens} reads as they lie. Defaults to none. */
  readonly keep?: (key: Tensor, value: Tensor) => void;
}

/** Whether {@link mergedLinear} of a matrix that is not packed, and {@link mergedAttention}, are there for n tokens, `length` of them in a row. */
export function canMerge(g: Graph, n: number, length: number): boolean {
  return hasProduct(g, n) && hasAttention(g, length, length);
}

/**
 * x · [w₁; w₂; ...]ᵀ for weights that lie one after another: x [n, k], merged [Σ out, k], which is the memory of the `parts`
 * [out, k], or a packed copy of it without gradients -> [n, Σ out]. Gradients flow to the parts. Only where {@link canMerge}.
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`
 */
export function mergedLinear(
  g: Graph,
  x: Tensor,
  merged: Tensor | PackedMatrix,
  parts: readonly Tensor[],
): Tensor {
  if (merged instanceof PackedMatrix) return packedProduct(g, x, merged);
  const [out, k] = merged.shape as [number, number];
  const rows = parts.reduce((sum, { shape }) => sum + (shape[0] as number), 0);
  if (x.shape.length !== 2 || x.shape[1] !== k || rows !== out || parts.some(({ shape }) => shape[1] !== k)) {
    const shapes = [x.shape, merged.shape, ...parts.map(({ shape }) => shape)];
    throw shapeError("mergedLinear", shapes, "x [n, k], a weight [out, k] and its parts, out in sum");
  }
  requireDtype("mergedLinear", "f32", x);
  requireDtype("mergedLinear", merged.dtype === "bf16" ? "bf16" : "f32", merged);
  const { compute } = g;
  let swept: Tensor | null = null;
  const sweep = (dy: Tensor) => (swept ??= product(g, dy, x, { transposeA: true, compute }));
  let start = 0;
  const gradients = parts.map((part) => {
    const from = start;
    start += sizeOf(part.shape);
    return [part, (dy: Tensor) => partOf(g, sweep(dy), from, part.shape)] as const;
  });
  return g.record(
    product(g, x, merged, { transposeB: true, compute }),
    [x, (dy, sum) => productOnto(g, sum, dy, merged, { compute })],
    ...gradients,
  );
}

// The largest gradient of one head's keys that the kernel adds up in its scratch, so that it can leave it in bf16 (native/attention.c).
const SUMMED = 2 ** 17;

type Parts = Pick<MergedAttentionOptions, "batch" | "heads" | "kvHeads" | "headDim" | "positions" | "rope">;

/** The cosines and sines of qkv's positions. @throws as `rope` does */
function tableOf(g: Graph, qkv: Tensor, { heads, kvHeads, headDim, positions, rope }: Parts) {
  const [n, all] = [qkv.shape[0] as number, heads + 2 * kvHeads];
  const split = g.emit("reshape_4d", [n, all, headDim], "f32", qkv, headDim, all, n, 1);
  checkRope(g, split, positions, rope);
  return { split, table: ropeTable(g, positions, headDim, rope) };
}

/** Views of heads [batch, t, count, headDim] from the `first` on. */
function partsOf(g: Graph, split: Tensor, { batch, heads, kvHeads, headDim }: Parts, t: number) {
  const head = headDim * 4;
  const row = (heads + 2 * kvHeads) * head;
  return (first: number, count: number) => {
    const strides = [head, row, row * t, first * head];
    return g.emit("view_4d", [batch, t, count, headDim], "f32", split, headDim, count, t, batch, ...strides);
  };
}

/**
 * For generation, one token of each of n sequences: views q [n, 1, heads, headDim], key and value [n, 1, kvHeads, headDim] of
 * qkv [n, (heads + 2 · kvHeads) · headDim], not turned, and the table by which {@link cacheAttention} turns them; nothing else reads
 * such views as they lie. No gradient.
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.argument`, `tensor.index`, `tensor.gradient`
 */
export function splitHeads(
  g: Graph,
  qkv: Tensor,
  options: Omit<Parts, "batch">,
): { readonly q: Tensor; readonly key: Tensor; readonly value: Tensor; readonly table: Tensor } {
  const { heads, kvHeads, headDim } = options;
  if (qkv.shape.length !== 2 || qkv.shape[1] !== (heads + 2 * kvHeads) * headDim) {
    throw shapeError("splitHeads", [qkv.shape], `[n, (${heads} + 2 · ${kvHeads}) · ${headDim}]`);
  }
  requireDtype("splitHeads", "f32", qkv);
  g.refuseGradient("splitHeads", qkv);
  const parts = { ...options, batch: qkv.shape[0] as number };
  const { split, table } = tableOf(g, qkv, parts);
  const part = partsOf(g, split, parts, 1);
  return { q: part(0, heads), key: part(heads, kvHeads), value: part(heads + kvHeads, kvHeads), table };
}

/**
 * Causal attention with rotary embedding, as {@link attention} and {@link rope} compute it, over queries, keys and values side by
 * side: qkv [batch · t, (heads + 2 · kvHeads) · headDim] -> [batch · t, heads · headDim]. Queries and keys are turned as the kernel reads
 * them, their gradients turned back as it writes those; with `keep` in qkv itself, which nothing else may then read, and without
 * gradients. Only where {@link canMerge}.
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.argument`, `tensor.index`
 */
export function mergedAttention(g: Graph, qkv: Tensor, options: MergedAttentionOptions): Tensor {
  const { batch, heads, kvHeads, headDim } = options;
  const all = heads + 2 * kvHeads;
  const n = qkv.shape[0] as number;
  const t = n / batch;
  if (qkv.shape.length !== 2 || qkv.shape[1] !== all * headDim || heads % kvHeads !== 0 || t % 1 !== 0) {
    throw shapeError(
      "mergedAttention",
      [qkv.shape],
      `[${batch} · t, (${heads} + 2 · ${kvHeads}) · ${headDim}]`,
    );
  }
  requireDtype("mergedAttention", "f32", qkv);
  requireDtype("mergedAttention", options.mask.dtype === "f16" ? "f16" : "f32", options.mask);
  requireCap("mergedAttention", options);
  const settings = kernelSettings(g, options, [batch, heads, t, t]);
  // What is kept is turned first, where it lies; else the kernel turns queries and keys as it reads them.
  const { split, table } = tableOf(g, qkv, options);
  const { keep } = options;
  const part = partsOf(g, keep ? turnInPlace(g, split, table, heads + kvHeads) : split, options, t);
  const [key, value] = [part(heads, kvHeads), part(heads + kvHeads, kvHeads)];
  if (keep) {
    g.refuseGradient("mergedAttention that keeps keys", qkv);
    keep(key, value);
  }
  const operands = [part(0, heads), key, value, options.mask];
  const size = n * heads * headDim;
  const sums = size + n * heads;
  const halves = hasStored(g) && (heads * headDim) % 2 === 0;
  const mixed = g.emitKernel(
    "attention",
    [halves ? sums + size / 2 : sums],
    keep ? operands : [...operands, table],
    settings,
  );
  const y = g.record(partOf(g, mixed, 0, [n, heads * headDim]), [
    qkv,
    (dy) => {
      const back = (dtype: "f32" | "bf16") =>
        g.emitKernel("attention_back", qkv.shape, [dy, ...operands, mixed, table], { ...settings, dtype });
      if (t * headDim > SUMMED) return back("f32");
      return g.offer(back("f32"), asDtype("bf16"), () => back("bf16"));
    },
  ]);
  return halves ? g.offer(y, asDtype("bf16"), () => g.viewBf16(mixed, sums, y.shape)) : y;
}
