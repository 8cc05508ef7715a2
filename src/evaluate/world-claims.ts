// Explanations of documents of the world, held against the truth: what `nla eval` and the training log show beside FVE. Counting is
// claims.ts; here are the rows of a data set as tokens of documents, and the controls.
import { isWorldDocument, worldDocumentOf } from "../world/corpus.js";
import { CATEGORIES } from "../world/facts.js";
import type { BootstrapOptions } from "./bootstrap.js";
import { scoreClaims } from "./claims.js";
import type { ClaimScores, ExplainedToken } from "./claims.js";
import type { EvalRow } from "./explained-rows.js";

/** A row with what was said of it. */
export interface SaidRow extends Pick<EvalRow, "docId" | "position"> {
  readonly explanation: string | null;
}

/** True where every row is a token of a document of the world, so that claims can be checked. */
export function isWorld(rows: readonly Pick<EvalRow, "docId">[]): boolean {
  return rows.length > 0 && rows.every(({ docId }) => isWorldDocument(docId));
}

/**
 * Rows as tokens of documents; a missing explanation says nothing. Positions of rows count BOS, those of documents do not.
 *
 * @throws NlaError `world.document` for a row of another corpus
 */
export function explainedTokens(rows: readonly SaidRow[]): ExplainedToken[] {
  return rows.map(({ docId, position, explanation }) => ({
    document: worldDocumentOf(docId),
    position: position - 1,
    explanation: explanation ?? "",
  }));
}

/** The scores of explanations of the world; null where none of them has a sentence. */
export function worldClaims(rows: readonly SaidRow[], options: BootstrapOptions): ClaimScores | null {
  const tokens = explainedTokens(rows);
  return tokens.some(({ explanation }) => explanation.trim() !== "") ? scoreClaims(tokens, options) : null;
}

/** Claims in short, without intervals, as they are logged while a pair is trained. */

export type ClaimNumbers = {
  readonly precision: number | null;
  readonly recall: number | null;
  readonly f1: number | null;
  /** Sentences per explanation. */
  readonly claims: number;
  readonly unparsed: number;
  /** By category: right ones of those decided, of the facts there are, and claims per explanation. */
  readonly categories: Readonly<
    Record<string, { precision: number | null; recall: number | null; said: number }>
  >;
};

/** {@link worldClaims} in short. */
export function claimNumbers(rows: readonly SaidRow[]): ClaimNumbers | null {
  const scores = worldClaims(rows, { seed: 0, resamples: 1 });
  if (!scores) return null;
  const { overall, sentences, unparsed, categories } = scores;
  return {
    precision: overall.precision?.value ?? null,
    recall: overall.recall?.value ?? null,
    f1: overall.f1?.value ?? null,
    claims: sentences.value,
    unparsed: unparsed.value,
    categories: Object.fromEntries(
      CATEGORIES.map((category) => {
        const { precision, recall, claims } = categories[category];
        const said = claims / rows.length;
        return [category, { precision: precision?.value ?? null, recall: recall?.value ?? null, said }];
      }),
    ),
  };
}
