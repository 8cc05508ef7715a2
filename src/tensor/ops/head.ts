// The output head and what is computed from it: cross-entropy and log-probabilities of given tokens. Logits are made in
// chunks of rows, so that [tokens, vocabulary] never exists as a whole: at 4,096 tokens and 128,000 entries it would be 2 GB.
import type { Graph } from "../graph.js";
import type { PackedMatrix } from "../packed.js";
import { shapeError } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { requireDtype, requireNumber } from "./check.js";
import { add, affine, mul, scale, softcap as softcapped, square } from "./elementwise.js";
import { concatRows, reshape, rowsView } from "./layout.js";
import { hasHeldKernel, isHeld, unpacked } from "./held.js";
import { linear, multiply, multiplyPlain, multiplyTransposed } from "./matmul.js";
import { hasStored, product, stored } from "./product.js";

/** Options of {@link crossEntropy} and {@link tokenLogProbs}. */
export interface HeadOptions {
  /** Bound on the logits (Gemma 2), or null. Defaults to null. */
  readonly softcap?: number | null;
  /** Rows per chunk. Defaults to 1024. */
  readonly chunk?: number;
}

// Below the smallest normal float32; keeps log finite where a probability underflows. log-probabilities saturate at -85.
const TINY = 1e-37;

interface HeadChunk {
  readonly rows: number;
  readonly h: Tensor; // [rows, d]
  readonly targets: Tensor; // [rows, 1]
  readonly start: number;
}

/**
 * logits = h · wᵀ, softcapped if the model does. h [n, d], w [vocabulary, d] -> [n, vocabulary]. To train, rather use
 * {@link crossEntropy} or {@link tokenLogProbs}, which never hold all logits.
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`
 */
export function logits(
  g: Graph,
  h: Tensor,
  w: Tensor | PackedMatrix,
  { softcap = null }: HeadOptions = {},
): Tensor {
  if (h.shape.length !== 2 || w.shape.length !== 2 || h.shape[1] !== w.shape[1]) {
    throw shapeError("logits", [h.shape, w.shape], "h [n, d] and w [vocabulary, d]");
  }
  const plain = linear(g, h, w);
  return softcap === null ? plain : softcapped(g, plain, softcap);
}

function capped(g: Graph, x: Tensor, softcap: number | null): { logits: Tensor; tanh: Tensor | null } {
  if (softcap === null) return { logits: x, tanh: null };
  requireCap(softcap);
  const tanh = g.emit("tanh", x.shape, "f32", g.emit("scale", x.shape, "f32", x, 1 / softcap));
  return { logits: g.emit("scale", x.shape, "f32", tanh, softcap), tanh };
}

/**
 * Cross-entropy of sparse targets, weighted and summed: Σ weight[i] · -log p(target[i]). Give weights that sum to one for
 * a mean, 0 where a token is not trained. Loss and gradients come from one sweep over the chunks.
 *
 * @param h hidden states [n, d]
 * @param w output matrix [vocabulary, d]
 * @param targets i32 input [n]
 * @param weights f32 [n]
 * @returns [1], nats
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.index`
 */
export function crossEntropy(
  g: Graph,
  h: Tensor,
  w: Tensor,
  targets: Tensor,
  weights: Tensor,
  options: HeadOptions = {},
): Tensor {
  const { softcap = null } = options;
  if (!hasHead(g, w, softcap) || !hasHeldKernel(g, w)) w = unpacked(g, w);
  const n = checkHead(g, "crossEntropy", h, w, targets);
  if (weights.shape.length !== 1 || weights.size !== n) {
    throw shapeError("crossEntropy", [h.shape, weights.shape], "one weight per row of h, [n]");
  }
  requireDtype("crossEntropy", "f32", weights);
  g.refuseGradient("crossEntropy", weights);
  if (hasHead(g, w, softcap)) return nativeCrossEntropy(g, h, w, targets, weights, options);
  const wantsGradient = g.recording && (h.requiresGrad || w.requiresGrad);
  const pieces: Tensor[] = [];
  let loss: Tensor | null = null;
  let dw: Tensor | null = null;
  for (const chunk of chunksOf(g, h, targets, options)) {
    const rowWeights = rowsView(g, weights, chunk.start, chunk.rows, 1); // [rows, 1]
    const head = capped(g, multiply(g, chunk.h, w, g.compute), softcap);
    const { probabilities, ofTarget } = targetProbabilities(g, head.logits, chunk);
    const logP = g.emit("log", [chunk.rows, 1], "f32", affine(g, ofTarget, 1, TINY));
    const part = g.emit("sum", [1], "f32", mul(g, logP, rowWeights));
    loss = g.expand(loss ? add(g, loss, part) : part);
    if (!wantsGradient) continue;
    const dLogits = logitGradient(g, probabilities, ofTarget, head.tanh, chunk);
    // The weight of a token is folded into the narrow side: h instead of the logits.
    if (w.requiresGrad) {
      const weighted = g.emit("mul", chunk.h.shape, "f32", chunk.h, rowWeights);
      const piece = weightGradient(g, dLogits, weighted);
      dw = g.expand(dw ? g.emit("add_inplace", w.shape, "f32", dw, piece) : piece);
    }
    if (h.requiresGrad) {
      const dh = multiplyPlain(g, dLogits, w, g.compute);
      pieces.push(g.expand(g.emit("mul", dh.shape, "f32", dh, rowWeights)));
    }
  }
  const result = scale(g, loss as Tensor, -1);
  const scaled = (gradient: Tensor, dy: Tensor) => (g.isSeed(dy) ? gradient : mul(g, gradient, dy));
  return g.record(
    result,
    [h, (dy) => scaled(concatRows(g, pieces), dy)],
    [w, (dy) => scaled(dw as Tensor, dy)],
  );
}

const AS_BF16 = 1; // the kernel's flag (native/rows.c)
// The kernel keeps the derivatives of a row of capped logits in its scratch.
const WIDEST_CAPPED = 1_000_000;

function hasHead(g: Graph, w: Tensor, softcap: number | null): boolean {
  if (softcap !== null) requireCap(softcap);
  return g.native && (softcap === null || (w.shape[0] as number) <= WIDEST_CAPPED);
}

function requireCap(softcap: number): void {
  requireNumber("head", "softcap", softcap, "a positive number", softcap > 0);
}

/** The same by nlakit's kernels: one of them turns a chunk of logits into the losses and, in place, into its own gradient. */
function nativeCrossEntropy(
  g: Graph,
  h: Tensor,
  w: Tensor,
  targets: Tensor,
  weights: Tensor,
  options: HeadOptions,
): Tensor {
  const { compute } = g;
  const value = options.softcap ?? 0;
  const pieces: Tensor[] = [];
  let loss: Tensor | null = null;
  let dw: Tensor | null = null;
  // Products in bf16 take the gradient in bf16 from where it lies: a copy of it would be the largest tensor of all.
  const aHoldsBf16 = hasStored(g);
  for (const chunk of chunksOf(g, hasStored(g) ? stored(g, h) : h, targets, options)) {
    const { rows } = chunk;
    const logits = product(g, chunk.h, w, { transposeB: true, compute });
    const losses = g.emitKernel(
      "cross_entropy",
      [rows],
      [logits, chunk.targets, rowsView(g, weights, chunk.start, rows, 1)],
      { flags: aHoldsBf16 ? AS_BF16 : 0, value },
    );
    const part = g.emit("sum", [1], "f32", losses);
    // Expanded before anything that reads the logits: from here on they hold their gradient.
    loss = g.expand(loss ? g.emit("add", [1], "f32", loss, part) : part);
    if (!g.recording) continue;
    if (w.requiresGrad) {
      dw = g.expand(product(g, logits, chunk.h, { transposeA: true, compute, base: dw, aHoldsBf16 }));
    }
    if (h.requiresGrad) pieces.push(g.expand(product(g, logits, w, { compute, aHoldsBf16 })));
  }
  const scaled = (gradient: Tensor, dy: Tensor) => (g.isSeed(dy) ? gradient : mul(g, gradient, dy));
  return g.record(
    loss as Tensor,
    [h, (dy) => scaled(concatRows(g, pieces), dy)],
    [w, (dy) => scaled(dw as Tensor, dy)],
  );
}

/**
 * log p(target) of each row, differentiable with any gradient per row: for policy losses. The logits are computed again in
 * the reverse pass. Composed of ggml's ops, a probability below 1e-37 counts as that: no result is below -85.2.
 *
 * @returns [n], nats
 * @throws as {@link crossEntropy}
 */
export function tokenLogProbs(
  g: Graph,
  h: Tensor,
  w: Tensor,
  targets: Tensor,
  options: HeadOptions = {},
): Tensor {
  const { softcap = null } = options;
  if (!hasHead(g, w, softcap) || !hasHeldKernel(g, w)) w = unpacked(g, w);
  const n = checkHead(g, "tokenLogProbs", h, w, targets);
  if (hasHead(g, w, softcap)) return nativeLogProbs(g, h, w, targets, options);
  const parts = chunksOf(g, hasStored(g) ? stored(g, h) : h, targets, options).map((chunk) => {
    const head = capped(g, multiply(g, chunk.h, w, g.compute), softcap);
    const { ofTarget } = targetProbabilities(g, head.logits, chunk);
    return g.expand(g.emit("log", [chunk.rows, 1], "f32", affine(g, ofTarget, 1, TINY)));
  });
  const column = concatRows(g, parts);
  const result = g.emit("reshape_4d", [n], "f32", column, n, 1, 1, 1);

  let swept: { dh: Tensor; dw: Tensor | null } | null = null;
  const sweep = (dy: Tensor) => (swept ??= sweepBack(g, h, w, targets, dy, options));
  return g.record(result, [h, (dy) => sweep(dy).dh], [w, (dy) => sweep(dy).dw as Tensor]);
}

/** The same by nlakit's kernels: -log p is the cross-entropy of weight 1, and its gradient that of weight -dy. */
function nativeLogProbs(g: Graph, h: Tensor, w: Tensor, targets: Tensor, options: HeadOptions): Tensor {
  const { compute } = g;
  const value = options.softcap ?? 0;
  const aHoldsBf16 = hasStored(g);
  const logitsOf = (chunk: HeadChunk) => product(g, chunk.h, w, { transposeB: true, compute });
  const parts = chunksOf(g, hasStored(g) ? stored(g, h) : h, targets, options).map((chunk) =>
    g.expand(
      g.emitKernel("cross_entropy", [chunk.rows, 1], [logitsOf(chunk), chunk.targets, null], { value }),
    ),
  );
  const result = scale(g, reshape(g, concatRows(g, parts), [h.shape[0] as number]), -1);

  let swept: { dh: Tensor | null; dw: Tensor | null } | null = null;
  const sweep = (dy: Tensor) => (swept ??= back(scale(g, dy, -1)));
  const back = (rowWeights: Tensor) => {
    const pieces: Tensor[] = [];
    let dw: Tensor | null = null;
    for (const chunk of chunksOf(g, hasStored(g) ? stored(g, h) : h, targets, options)) {
      const { rows, start } = chunk;
      const logits = logitsOf(chunk);
      const weights = rowsView(g, rowWeights, start, rows, 1);
      const flags = aHoldsBf16 ? AS_BF16 : 0;
      // Expanded before anything that reads the logits: from here on they hold their gradient.
      g.expand(g.emitKernel("cross_entropy", [rows], [logits, chunk.targets, weights], { flags, value }));
      if (w.requiresGrad)
        dw = g.expand(product(g, logits, chunk.h, { transposeA: true, compute, base: dw, aHoldsBf16 }));
      if (h.requiresGrad) pieces.push(g.expand(product(g, logits, w, { compute, aHoldsBf16 })));
    }
    return { dh: pieces.length > 0 ? concatRows(g, pieces) : null, dw };
  };
  return g.record(result, [h, (dy) => sweep(dy).dh as Tensor], [w, (dy) => sweep(dy).dw as Tensor]);
}

/** dh and dw for a gradient per row: d log p(t) / d logits = onehot(t) - p. */
function sweepBack(g: Graph, h: Tensor, w: Tensor, targets: Tensor, dy: Tensor, options: HeadOptions) {
  const { softcap = null } = options;
  const pieces: Tensor[] = [];
  let dw: Tensor | null = null;
  for (const chunk of chunksOf(g, h, targets, options)) {
    const rowGradient = scale(g, rowsView(g, dy, chunk.start, chunk.rows, 1), -1);
    const head = capped(g, multiply(g, chunk.h, w, g.compute), softcap);
    const { probabilities, ofTarget } = targetProbabilities(g, head.logits, chunk);
    const dLogits = logitGradient(g, probabilities, ofTarget, head.tanh, chunk);
    const dh = multiplyPlain(g, dLogits, w, g.compute);
    pieces.push(g.expand(g.emit("mul", dh.shape, "f32", dh, rowGradient)));
    if (!w.requiresGrad) continue;
    const piece = weightGradient(g, dLogits, g.emit("mul", chunk.h.shape, "f32", chunk.h, rowGradient));
    dw = g.expand(dw ? g.emit("add_inplace", w.shape, "f32", dw, piece) : piece);
  }
  return { dh: concatRows(g, pieces), dw };
}

function checkHead(g: Graph, op: string, h: Tensor, w: Tensor, targets: Tensor): number {
  const [n, d] = h.shape;
  const fits = h.shape.length === 2 && w.shape.length === 2 && w.shape[1] === d && targets.shape.length === 1;
  if (!fits || n === undefined || targets.size !== n) {
    throw shapeError(op, [h.shape, w.shape, targets.shape], "h [n, d], w [vocabulary, d] and targets [n]");
  }
  if (!isHeld(w) || w.requiresGrad) requireDtype(op, "f32", h, w);
  requireDtype(op, "f32", h);
  g.boundIndices(op, targets, w.shape[0] as number);
  return n;
}

function chunksOf(g: Graph, h: Tensor, targets: Tensor, { chunk = 1024 }: HeadOptions): HeadChunk[] {
  requireNumber("head", "chunk", chunk, "a positive integer", Number.isInteger(chunk) && chunk > 0);
  const [n, d] = h.shape as [number, number];
  return Array.from({ length: Math.ceil(n / chunk) }, (_, i) => {
    const start = i * chunk;
    const rows = Math.min(chunk, n - start);
    return { start, rows, h: rowsView(g, h, start, rows, d), targets: rowsView(g, targets, start, rows, 1) };
  });
}

function targetProbabilities(g: Graph, x: Tensor, { rows, targets }: HeadChunk) {
  const vocabulary = x.shape[1] as number;
  const p = g.emit("soft_max", x.shape, "f32", x);
  // As [rows, vocabulary, 1], one "row" per entry, get_rows and set_rows address a single probability of each token.
  const probabilities = g.emit("reshape_4d", [rows, vocabulary, 1], "f32", p, 1, vocabulary, rows, 1);
  const picked = g.emit("get_rows", [rows, 1, 1], "f32", probabilities, targets);
  return { probabilities, ofTarget: g.emit("reshape_4d", [rows, 1], "f32", picked, 1, rows, 1, 1) };
}

/** p - onehot(target), written over p; times 1 - tanh² where logits are softcapped. */
function logitGradient(
  g: Graph,
  p: Tensor,
  ofTarget: Tensor,
  tanh: Tensor | null,
  { rows, targets }: HeadChunk,
): Tensor {
  const vocabulary = p.shape[1] as number;
  const minusOne = g.emit("reshape_4d", [rows, 1, 1], "f32", affine(g, ofTarget, 1, -1), 1, 1, rows, 1);
  const written = g.emit("set_rows", p.shape, "f32", p, minusOne, targets);
  const d = g.emit("reshape_4d", [rows, vocabulary], "f32", written, vocabulary, rows, 1, 1);
  return tanh ? mul(g, d, affine(g, square(g, tanh), -1, 1)) : d;
}

/** dLogitsᵀ · h: [vocabulary, d]. */
function weightGradient(g: Graph, dLogits: Tensor, h: Tensor): Tensor {
  return multiplyTransposed(g, dLogits, h, g.compute);
}
