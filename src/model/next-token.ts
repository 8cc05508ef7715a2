// From hidden states to chosen tokens: the head in a graph, and then either nlakit's kernel, which also draws and hands out one
// number per row, or the distributions in the graph and the choice per row on the host. The exponentials are the graph's in both,
// because there they are vectorised and on all threads; in JavaScript they cost a tenth of generation.
import { ops } from "../tensor/index.js";
import type { Graph, HostArray, Tensor } from "../tensor/index.js";
import { finalNorm, headMatrix } from "./forward.js";
import type { Weights } from "./forward.js";
import { argmax, draw, unsound } from "./sampling.js";
import type { SamplingOptions } from "./sampling.js";

/** A chosen token. */
export interface Choice {
  readonly token: number;
  /** log p(token) of the model itself, before temperature and cuts, nats. */
  readonly logProb: number;
  /** Entropy of the model's distribution, before temperature and cuts, nats. */
  readonly entropy: number;
}

/** The distributions over the next token of some rows, in a graph. */
export interface NextTokens {
  /** What a run of the graph gave, on the host. */
  read(): NextTokenRows;
}

/** The same with values: row-major [rows, vocabulary], and one expectation per row. */
export interface NextTokenRows {
  readonly vocabulary: number;
  readonly logits: Float32Array;
  /** At temperature 1. */
  readonly probabilities: Float32Array;
  /** Σ p · logit of each row, from which the entropy follows. */
  readonly expected: Float32Array;
  /** At the temperature asked for. */
  readonly tempered: Float32Array;
}

function headLogits(g: Graph, weights: Weights, x: Tensor): Tensor {
  const { logitSoftcap: softcap } = weights.config;
  return ops.logits(g, finalNorm(g, weights, x), headMatrix(weights), { softcap });
}

/**
 * Appends last norm, head and distributions to a graph.
 *
 * @param x the stream after the last block, [rows, dim]
 * @param temperature 0: the best token will be taken, and no distribution but the model's own is needed
 */
export function nextTokens(g: Graph, weights: Weights, x: Tensor, temperature: number): NextTokens {
  const logits = g.output(headLogits(g, weights, x));
  const probabilities = g.output(ops.softmax(g, logits));
  const expected = g.output(ops.sumLast(g, ops.mul(g, probabilities, logits)));
  const plain = temperature === 0 || temperature === 1;
  const tempered = plain ? null : g.output(ops.softmax(g, logits, null, 1 / temperature));
  return {
    read() {
      const p = probabilities.readF32();
      return {
        vocabulary: weights.config.vocabulary,
        logits: logits.readF32(),
        probabilities: p,
        expected: expected.readF32(),
        tempered: tempered?.readF32() ?? p,
      };
    },
  };
}

/** Whether {@link drawnTokens} can serve: nlakit's kernels are there, and no cut needs the whole distribution. */
export function canDraw(g: Graph, { topK = 0, topP = 1 }: SamplingOptions): boolean {
  return g.native && topK === 0 && topP >= 1;
}

/** Tokens that a graph chooses itself. */
export interface DrawnTokens {
  /** @param uniforms a number in [0, 1) per row */
  inputs(uniforms: Float64Array): Record<string, HostArray>;
  /** The choice of a row in the last run. @throws NlaError `model.not-finite` where its logits hold NaN or the like */
  read(): (row: number) => Choice;
}

/** Appends last norm, head and the choice to a graph. x and temperature as for {@link nextTokens}. */
export function drawnTokens(g: Graph, weights: Weights, x: Tensor, temperature: number): DrawnTokens {
  const rows = x.shape[0] as number;
  const uniform = g.input("uniform", [rows, 2]);
  const chosen = g.output(ops.chooseTokens(g, headLogits(g, weights, x), uniform, temperature));
  return {
    inputs(uniforms) {
      const parts = new Float32Array(2 * rows);
      uniforms.forEach((number, row) => {
        const most = Math.fround(number);
        parts[2 * row] = most;
        parts[2 * row + 1] = number - most;
      });
      return { uniform: parts };
    },
    read() {
      const values = chosen.readF32();
      return (row) => {
        const [token, logProb, entropy, weight] = values.subarray(4 * row, 4 * row + 4);
        const all = weight as number;
        if (!(all > 0 && all < Infinity)) throw unsound(`weights that add up to ${all}`);
        return { token: token as number, logProb: logProb as number, entropy: entropy as number };
      };
    },
  };
}

// Below this a float32 probability has lost digits or is 0; its logarithm then comes from the logits.
const SMALL = 1e-30;

/**
 * Chooses a token of one row.
 *
 * @param uniform a number in [0, 1)
 * @throws NlaError `model.not-finite` where the row holds NaN or the like
 */
export function chooseToken(
  rows: NextTokenRows,
  row: number,
  uniform: number,
  { temperature = 1, topK = 0, topP = 1 }: SamplingOptions,
): Choice {
  const { vocabulary } = rows;
  const of = (values: Float32Array) => values.subarray(row * vocabulary, (row + 1) * vocabulary);
  const logits = of(rows.logits);
  const probabilities = of(rows.probabilities);
  // Even where the best token is taken, the draw sees to it that the row is sound.
  const drawn = draw(of(rows.tempered), uniform, { topK, topP });
  const token = temperature === 0 ? argmax(logits) : drawn;
  const logit = logits[token] as number;
  let logProb = Math.log(probabilities[token] as number);
  if (!((probabilities[token] as number) > SMALL)) {
    const best = argmax(logits);
    logProb = logit - (logits[best] as number) + Math.log(probabilities[best] as number);
  }
  // H = log Z - Σ p · logit, and log Z = logit - log p of any token.
  return { token, logProb, entropy: logit - logProb - (rows.expected[row] as number) };
}
