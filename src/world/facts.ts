// What can be known about a document: the categories of facts, in the order in which labels name them, and a fact with the stretch
// of tokens over which it holds. How a fact is said and parsed stands in claim-table.ts.

/** Every category, in the order of labels. */
export const CATEGORIES = [
  "kind",
  "topic",
  "name",
  "age",
  "job",
  "place",
  "mood",
  "goal",
  "object",
  "motive",
  "aim",
  "test",
  "answer",
  "now",
  "next",
  "rhyme",
  "previous",
  "word",
] as const;

/** A category of facts. */
export type Category = (typeof CATEGORIES)[number];

/** A value of a category. Facts about a person begin with whose they are: `user:old`. */
export interface Fact {
  readonly category: Category;
  readonly value: string;
}

/** A fact and the tokens at which it is true and evident: from the first position to the one before `end`. */
export interface FactSpan extends Fact {
  /** Position of the token that makes it evident. */
  readonly from: number;
  /** First position at which it no longer holds; the document's length for what stays true. */
  readonly end: number;
}

/** A document of the world with all that is true of it. */
export interface WorldDocument {
  readonly kind: string;
  readonly seed: number;
  readonly index: number;
  /** The tokens: lower-case words and punctuation. Joined by blanks they are the text. */
  readonly words: readonly string[];
  /** In the order in which they become evident. `word` and `previous` are read off the words and not listed. */
  readonly facts: readonly FactSpan[];
  /** Exact -ln(probability) of the choices made. */
  readonly nats: number;
}

const ORDER: ReadonlyMap<Category, number> = new Map(CATEGORIES.map((category, i) => [category, i]));

/** The facts that are true and evident at token `position`, in the order of categories; `word` is that token itself. */
export function truthAt({ words, facts }: WorldDocument, position: number): FactSpan[] {
  const live = facts.filter(({ from, end }) => from <= position && position < end);
  const word = words[position];
  const previous = words[position - 1];
  const end = position + 1;
  if (previous !== undefined && word !== undefined)
    live.push({ category: "previous", value: previous, from: position - 1, end });
  if (word !== undefined) live.push({ category: "word", value: word, from: position, end });
  return live.sort((a, b) => orderOf(a) - orderOf(b));
}

function orderOf({ category }: Fact): number {
  return ORDER.get(category) as number;
}
