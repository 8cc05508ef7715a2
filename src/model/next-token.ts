// From hidden states to chosen tokens: the head and its distributions in a graph, and the choice per row on the host. The
// exponentials are the graph's, because there they are vectorised and on all threads; in JavaScript they cost a tenth of
// generation.
import { ops } from "../tensor/index.js";
import type { Graph, Tensor } from "../tensor/index.js";
import type { Decoder } from "./decoder.js";
import { finalNorm } from "./forward.js";
import { headOf } from "./run.js";
import { argmax, draw } from "./sampling.js";
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

/**
 * Appends last norm, head and distributions to a graph.
 *
 * @param x the stream after the last block, [rows, dim]
 * @param temperature 0: the best token will be taken, and no distribution but the model's own is needed
 */
export function nextTokens(g: Graph, model: Decoder, x: Tensor, temperature: number): NextTokens {
  const { vocabulary, logitSoftcap: softcap } = model.config;
  const logits = g.output(ops.logits(g, finalNorm(g, model, x), headOf(model), { softcap }));
  const probabilities = g.output(ops.softmax(g, logits));
  const expected = g.output(ops.sumLast(g, ops.mul(g, probabilities, logits)));
  const plain = temperature === 0 || temperature === 1;
  const tempered = plain ? null : g.output(ops.softmax(g, logits, null, 1 / temperature));
  return {
    read() {
      const p = probabilities.readF32();
      return {
        vocabulary,
        logits: logits.readF32(),
        probabilities: p,
        expected: expected.readF32(),
        tempered: tempered?.readF32() ?? p,
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
