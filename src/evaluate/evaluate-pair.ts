// A pair's fidelity on held-out activations: the models' part (explained-rows.ts) and the numbers' (evaluation.ts) in one
// call. Reads and writes no files.
import type { Nla } from "../nla/read.js";
import { evaluateRows } from "./evaluation.js";
import type { EvaluateOptions, Evaluation } from "./evaluation.js";
import { explainRows } from "./explained-rows.js";
import type { EvalRow, ExplainRowsOptions } from "./explained-rows.js";

/** What to evaluate, and how. */
export interface EvaluatePairOptions extends ExplainRowsOptions, Omit<EvaluateOptions, "mseScale"> {
  readonly nla: Pick<Nla, "verbalizer" | "reconstructor">;
  /** Of at least two documents. */
  readonly rows: readonly EvalRow[];
}

/** Explains and reconstructs every row, and scores the pair. @throws NlaError of {@link explainRows}, {@link evaluateRows} */
export async function evaluatePair({ nla, rows, ...options }: EvaluatePairOptions): Promise<Evaluation> {
  const explained = await explainRows(nla, rows, options);
  return evaluateRows(explained, { ...options, mseScale: nla.reconstructor.contract.mseScale });
}
