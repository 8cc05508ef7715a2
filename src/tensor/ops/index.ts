// Every op, for `import * as ops` or by name.
export { cachedAttention, attention, softmax } from "./attention.js";
export type { AttentionOptions } from "./attention.js";
export { cacheAttention, chooseTokens, SLOT_GROUP, storeTokens } from "./decode.js";
export type { CacheAttentionOptions } from "./decode.js";
export { geglu, geluTanh, silu, swiglu } from "./activation.js";
export {
  add,
  affine,
  clamp,
  div,
  exp,
  log,
  minimum,
  mul,
  neg,
  relu,
  scale,
  sigmoid,
  softcap,
  sqrt,
  square,
  sub,
  tanh,
} from "./elementwise.js";
export { crossEntropy, logits, tokenLogProbs } from "./head.js";
export type { HeadOptions } from "./head.js";
export { concatRows, gatherRows, permute, replaceRows, reshape, transpose } from "./layout.js";
export { linear, matmul } from "./matmul.js";
export { feedForward, hasFeedForward } from "./feed-forward.js";
export type { FeedForwardMatrices, FeedForwardOptions } from "./feed-forward.js";
export { canMerge, mergedAttention, mergedLinear, splitHeads } from "./merged-attention.js";
export type { MergedAttentionOptions } from "./merged-attention.js";
export { normalizeRows, rmsNorm } from "./norm.js";
export { mean, sum, sumLast } from "./reduce.js";
export { rope } from "./rope.js";
export type { RopeOptions } from "./rope.js";
