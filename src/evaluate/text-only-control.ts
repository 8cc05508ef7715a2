// Explanations by a model that saw only text, for the same tokens as a pair's: as many claims as the pair made, or the very categories that the
// pair named with values of its own. They are scored, and reconstructed, as the pair's are. The model is text-only.ts.
import type { Nla } from "../nla/read.js";
import { wordingsOf } from "../world/claim-table.js";
import { parseExplanation } from "../world/claims.js";
import { worldDocumentOf } from "../world/corpus.js";
import { CATEGORIES } from "../world/facts.js";
import type { Category, WorldDocument } from "../world/facts.js";
import type { EvalRow, ExplainedRow } from "./explained-rows.js";
import { fitTextOnly } from "./text-only.js";
import type { TextOnly, TextOnlyOptions } from "./text-only.js";

/** Words that the short-sighted control sees. */
export const SHORT_WINDOW = 12;
/** The models that stand beside every pair, by what they see. */
export const TEXT_ONLY = [
  { window: SHORT_WINDOW, name: `text only, last ${SHORT_WINDOW} words` },
  { window: null, name: "text only, all of it" },
] as const;

/** A way of explaining, and what it said. */
export interface ControlRows {
  readonly name: string;
  readonly rows: readonly ExplainedRow[];
}

/**
 * What a model fitted to text alone says of the tokens that a pair explained: as many claims as the pair, and at the pair's categories.
 *
 * @param rows as the pair explained them, greedy
 * @throws as {@link fitTextOnly} and {@link explainByText}
 */
export async function readingsByText(
  nla: Pick<Nla, "reconstructor" | "verbalizer">,
  rows: readonly ExplainedRow[],
  { name, ...options }: TextOnlyOptions & { readonly name: string },
): Promise<ControlRows[]> {
  const model = await fitTextOnly(options);
  return [
    { name, rows: await explainByText(model, nla, rows, "surest") },
    { name: "  at the pair's categories", rows: await explainByText(model, nla, rows, "pair's categories") },
  ];
}

/** What it says: the facts that it is surest of, or of the categories that the pair named. */
export type TextOnlyChoice = "surest" | "pair's categories";

/**
 * Rows explained by a text-only model.
 *
 * @param rows as the pair explained them; positions count BOS
 * @returns the same rows with other explanations and what the pair's reconstructor makes of these
 * @throws NlaError `world.document` for a row of another corpus
 */
export async function explainByText(
  model: TextOnly,
  { reconstructor, verbalizer }: Pick<Nla, "reconstructor"> & Partial<Pick<Nla, "verbalizer">>,
  rows: readonly ExplainedRow[],
  choice: TextOnlyChoice,
): Promise<ExplainedRow[]> {
  const texts = rows.map((row) => textFor(model, row, row.explanation ?? "", choice));
  const rebuilt = await reconstructor.reconstructSome(texts.map((text) => (text === "" ? null : text)));
  return rows.map((row, i) => {
    const explanation = texts[i] as string;
    const tokens = verbalizer ? verbalizer.tokenizer.encode(explanation).length : 0;
    return {
      ...row,
      explanation: explanation === "" ? null : explanation,
      reconstruction: rebuilt[i] ?? null,
      tokens,
    };
  });
}

function textFor(
  model: TextOnly,
  { docId, position }: Pick<EvalRow, "docId" | "position">,
  pairs: string,
  choice: TextOnlyChoice,
): string {
  const document = worldDocumentOf(docId);
  const claims = parseExplanation(pairs);
  const best = (category: Category) => bestOf(model, document, position - 1, category);
  if (choice === "surest") {
    const sure = CATEGORIES.flatMap((category) => best(category) ?? [])
      .sort((a, b) => b.probability - a.probability)
      .slice(0, claims.length);
    return sentences(sure);
  }
  const named = new Set(claims.flatMap(({ claim }) => (claim ? [claim.category] : [])));
  return sentences([...named].flatMap((category) => best(category) ?? []));
}

interface Said {
  readonly category: Category;
  readonly value: string;
  readonly probability: number;
}

function bestOf(model: TextOnly, document: WorldDocument, position: number, category: Category): Said | null {
  const [first] = model.guesses(document, position, category);
  return first ? { category, ...first } : null;
}

/** Claims in the order of categories, each in its first wording. */
function sentences(said: readonly Said[]): string {
  return [...said]
    .sort((a, b) => CATEGORIES.indexOf(a.category) - CATEGORIES.indexOf(b.category))
    .map((fact) => wordingsOf(fact)[0] as string)
    .join(" ");
}
