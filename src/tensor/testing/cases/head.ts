// Rows for the output head: logits, cross-entropy, log-probabilities of tokens.
import * as ops from "../../ops/index.js";
import { constant, ids, variable } from "../op-case.js";
import type { OpCase } from "../op-case.js";
import { normals, uniforms } from "../random.js";
import * as reference from "../reference.js";

const [N, D, VOCABULARY] = [7, 5, 11];
const TARGETS = ids(3, 0, 10, 3, 7, 1, 10);
const h = variable([N, D]);
const w = variable([VOCABULARY, D]);
const weights = constant([N], (random, size) => uniforms(random, size, 0.1, 1));
// Tokens that are not trained, and a negative weight (an advantage).
const sparse = constant([N], (random, size) => normals(random, size).map((x, i) => (i % 3 === 0 ? 0 : x)));
/**
 * In bf16 a logit of size 2.2 moves by about 4e-3, a probability by as much relative to itself, and the two products of
 * the reverse pass round again. log p of likely tokens is small against that, hence the wider bound on values.
 */
const BF16 = { forward: 1e-2, gradient: 1.5e-2 };

const CHUNKS = [1, 3, 7, 1024];
const losses = [null, 2.5].flatMap((softcap) =>
  CHUNKS.flatMap((chunk): OpCase[] => {
    const told = `chunk ${chunk}${softcap === null ? "" : `, softcap ${softcap}`}`;
    return [
      {
        name: `crossEntropy, ${told}`,
        inputs: { h, w, targets: TARGETS, weights },
        build: (g, t) => ops.crossEntropy(g, t.h!, t.w!, t.targets!, t.weights!, { chunk, softcap }),
        reference: (v) => reference.crossEntropy(v.h!, v.w!, v.targets!, v.weights!, softcap),
        bf16: BF16,
      },
      {
        name: `tokenLogProbs, ${told}`,
        inputs: { h, w, targets: TARGETS },
        build: (g, t) => ops.tokenLogProbs(g, t.h!, t.w!, t.targets!, { chunk, softcap }),
        reference: (v) => reference.tokenLogProbs(v.h!, v.w!, v.targets!, softcap),
        bf16: BF16,
      },
    ];
  }),
);

const others: readonly OpCase[] = [
  {
    name: "crossEntropy with weights that are zero or negative",
    inputs: { h, w, targets: TARGETS, weights: sparse },
    build: (g, t) => ops.crossEntropy(g, t.h!, t.w!, t.targets!, t.weights!, { chunk: 3 }),
    reference: (v) => reference.crossEntropy(v.h!, v.w!, v.targets!, v.weights!, null),
  },
  {
    name: "crossEntropy with w tied to the embedding",
    inputs: { w, tokens: ids(4, 0, 4, 9, 2, 4, 10), targets: TARGETS, weights },
    build: (g, t) =>
      ops.crossEntropy(g, ops.gatherRows(g, t.w!, t.tokens!), t.w!, t.targets!, t.weights!, { chunk: 3 }),
    reference: (v) =>
      reference.crossEntropy(reference.gatherRows(v.w!, v.tokens!), v.w!, v.targets!, v.weights!, null),
    bf16: BF16,
  },
  {
    name: "tokenLogProbs with w tied to the embedding",
    inputs: { w, tokens: ids(4, 0, 4, 9, 2, 4, 10), targets: TARGETS },
    build: (g, t) => ops.tokenLogProbs(g, ops.gatherRows(g, t.w!, t.tokens!), t.w!, t.targets!, { chunk: 3 }),
    reference: (v) => reference.tokenLogProbs(reference.gatherRows(v.w!, v.tokens!), v.w!, v.targets!, null),
    bf16: BF16,
  },
  {
    name: "crossEntropy and tokenLogProbs of one head in one graph",
    inputs: { h, w, targets: TARGETS, weights },
    build: (g, t) =>
      ops.sub(
        g,
        ops.mean(g, ops.tokenLogProbs(g, t.h!, t.w!, t.targets!, { chunk: 3 })),
        ops.scale(g, ops.crossEntropy(g, t.h!, t.w!, t.targets!, t.weights!, { chunk: 4 }), 0.3),
      ),
    reference: (v) => {
      const logProbs = reference.tokenLogProbs(v.h!, v.w!, v.targets!, null);
      const loss = reference.crossEntropy(v.h!, v.w!, v.targets!, v.weights!, null);
      const mean = logProbs.data.reduce((a, b) => a + b, 0) / N;
      return { shape: [1], data: Float64Array.of(mean - 0.3 * loss.data[0]!) };
    },
  },
  {
    name: "crossEntropy, only h differentiated",
    inputs: { h, w: constant([VOCABULARY, D]), targets: TARGETS, weights },
    build: (g, t) => ops.crossEntropy(g, t.h!, t.w!, t.targets!, t.weights!, { chunk: 3 }),
    reference: (v) => reference.crossEntropy(v.h!, v.w!, v.targets!, v.weights!, null),
  },
  {
    name: "crossEntropy, only w differentiated",
    inputs: { h: constant([N, D]), w, targets: TARGETS, weights },
    build: (g, t) => ops.crossEntropy(g, t.h!, t.w!, t.targets!, t.weights!, { chunk: 3 }),
    reference: (v) => reference.crossEntropy(v.h!, v.w!, v.targets!, v.weights!, null),
  },
  {
    name: "tokenLogProbs, only w differentiated",
    inputs: { h: constant([N, D]), w, targets: TARGETS },
    build: (g, t) => ops.tokenLogProbs(g, t.h!, t.w!, t.targets!, { chunk: 3 }),
    reference: (v) => reference.tokenLogProbs(v.h!, v.w!, v.targets!, null),
  },
  {
    name: "logits",
    inputs: { h, w },
    build: (g, t) => ops.logits(g, t.h!, t.w!),
    reference: (v) => reference.logits(v.h!, v.w!, null),
    bf16: { forward: 4e-3, gradient: 4e-3 },
    bf16Exact: true,
  },
  {
    name: "logits with softcap",
    inputs: { h, w },
    build: (g, t) => ops.logits(g, t.h!, t.w!, { softcap: 2.5 }),
    reference: (v) => reference.logits(v.h!, v.w!, 2.5),
    bf16: BF16,
  },
];

export const headCases: readonly OpCase[] = [...losses, ...others];
