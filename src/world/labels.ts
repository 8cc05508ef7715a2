// Labels: what a warm start is told about a token. True facts written as claims, with dials that take facts away, make some wrong or
// vague, and keep the label short. The wordings are those of claim-table.ts, so that full labels parse back without loss.
import { NlaError } from "../error.js";
import { alternativesTo, genericWording, wordingsOf } from "./claim-table.js";
import type { Chooser, Odds } from "./chooser.js";
import { truthAt } from "./facts.js";
import type { Category, Fact, WorldDocument } from "./facts.js";

/** The dials of a label. Probabilities are fractions of whole numbers. */
export interface LabelDials {
  /** Keeps a fact; all by default. */
  readonly keep?: Odds;
  /** Keeps a fact of these categories, instead of `keep`. */
  readonly keepOf?: Partial<Readonly<Record<Category, Odds>>>;
  /** Puts another value of the category in the place of the true one; never by default. */
  readonly garble?: Odds;
  /** Says only that there is such a fact; never by default. Not said of a garbled one. */
  readonly generic?: Odds;
  /** At most so many claims, drawn from those kept, in the order of categories. No limit by default. */
  readonly most?: number;
  /** Says its claims in a random order instead of that of categories; never by default. */
  readonly reordered?: Odds;
}

const ALWAYS: Odds = [1, 1];
const NEVER: Odds = [0, 1];

/**
 * The label of token `position`: sentences that end in a stop, joined by blanks. Never empty: where nothing was kept it names the last word.
 *
 * @throws NlaError `world.position` for a position outside the document, `world.dials` for a limit below 1
 */
export function labelAt(
  document: WorldDocument,
  position: number,
  choose: Chooser,
  {
    keep = ALWAYS,
    keepOf = {},
    garble = NEVER,
    generic = NEVER,
    most = Infinity,
    reordered = NEVER,
  }: LabelDials = {},
): string {
  checkPosition(document, position);
  if (!(most >= 1)) {
    throw new NlaError({
      code: "world.dials",
      subject: "the most claims of a label",
      found: String(most),
      wanted: "at least 1",
      next: "A label says something; leave the limit out for all facts.",
    });
  }
  const kept: Fact[] = truthAt(document, position).filter(({ category }) =>
    choose.chance(keepOf[category] ?? keep),
  );
  const facts =
    kept.length <= most
      ? kept
      : choose
          .sample([...kept.keys()], most)
          .sort((a, b) => a - b)
          .map((i) => kept[i] as Fact);
  const said =
    facts.length > 0 ? facts : [{ category: "word" as const, value: document.words[position] as string }];
  const sentences = said.map((fact) => sentenceOf(fact, choose, { garble, generic }));
  // Drawn last, so that such a label differs from the ordered one in its order alone.
  return (choose.chance(reordered) ? choose.sample(sentences) : sentences).join(" ");
}

/** Throws NlaError `world.position` unless the document has a token there. */
export function checkPosition({ words, index }: WorldDocument, position: number): void {
  if (Number.isInteger(position) && position >= 0 && position < words.length) return;
  throw new NlaError({
    code: "world.position",
    subject: `a position in document ${index}`,
    found: String(position),
    wanted: `a whole number from 0 to ${words.length - 1}`,
    next: "Positions count the document's tokens from 0, without BOS.",
  });
}

function sentenceOf(
  fact: Fact,
  choose: Chooser,
  { garble, generic }: { garble: Odds; generic: Odds },
): string {
  if (choose.chance(garble)) {
    const value = choose.pick(alternativesTo(fact));
    return choose.pick(wordingsOf({ category: fact.category, value }));
  }
  if (choose.chance(generic)) return genericWording(fact.category);
  return choose.pick(wordingsOf(fact));
}
