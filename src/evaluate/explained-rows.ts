// Held-out activations, explained and reconstructed: the part of an evaluation that runs the models. What the numbers come
// to is computed in evaluation.ts, without a model.
import type { Nla } from "../nla/read.js";

/** A held-out activation. */
export interface EvalRow {
  /** [dim], raw. */
  readonly vector: Float32Array;
  readonly docId: string;
  /** Index of its token in the document, from 0. */
  readonly position: number;
  /** The document up to and with that token, where the data set has it. */
  readonly text: string | null;
}

/** A row with what the pair made of it. */
export interface ExplainedRow extends EvalRow {
  /** null where there is none: cut off, or no closed tags. */
  readonly explanation: string | null;
  /** [dim]; null without an explanation, or with one that the reconstructor cannot take. */
  readonly reconstruction: Float32Array | null;
  /** Tokens of the response, its end included. */
  readonly tokens: number;
}

/** Options of {@link explainRows}. */
export interface ExplainRowsOptions {
  /** 0 is greedy. Defaults to 0. */
  readonly temperature?: number;
  /** Cap on a response; what reaches it counts as failed in the plain format. Defaults to 200. */
  readonly maxNewTokens?: number;
  /** Row i is sampled with seed + i. Defaults to 0. */
  readonly seed?: number;
  /** Activations per pass. Defaults to 64. */
  readonly batch?: number;
  readonly compute?: "f32" | "bf16";
  readonly signal?: AbortSignal | undefined;
  /** Called after each pass with the rows that are done. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** Explains every row once and reconstructs it. @throws NlaError for vectors of another width or not finite */
export async function explainRows(
  { verbalizer, reconstructor }: Pick<Nla, "verbalizer" | "reconstructor">,
  rows: readonly EvalRow[],
  options: ExplainRowsOptions = {},
): Promise<ExplainedRow[]> {
  const {
    temperature = 0,
    maxNewTokens = 200,
    seed = 0,
    batch = 64,
    compute = "f32",
    signal,
    onProgress,
  } = options;
  const explained: ExplainedRow[] = [];
  for (let start = 0; start < rows.length; start += batch) {
    const part = rows.slice(start, start + batch);
    const explanations = await verbalizer.explain(
      part.map(({ vector }) => vector),
      { temperature, maxNewTokens, seed: seed + start, compute, signal },
    );
    const texts = explanations.map(({ text }) => text);
    const rebuilt = await reconstructor.reconstructSome(texts, { compute, signal });
    part.forEach((row, i) => {
      const tokens = explanations[i]?.tokens.length ?? 0;
      explained.push({ ...row, explanation: texts[i] ?? null, reconstruction: rebuilt[i] ?? null, tokens });
    });
    onProgress?.(explained.length, rows.length);
  }
  return explained;
}
