// The questions of unspoken facts: what a reader is asked about tokens whose cue is long gone, and at which tokens. Pure; who answers, and how
// well, is unspoken.ts.
import { keyedRandom } from "../data/python-random.js";
import { valuesOf } from "../world/claim-table.js";
import { truthAt } from "../world/facts.js";
import type { Category, FactSpan, WorldDocument } from "../world/facts.js";
import { LOYAL, NONE, OPEN } from "../world/lexicon/plans.js";
import { FAMILIES } from "../world/lexicon/rhymes.js";

/** Tokens since the cue from which the text nearby says nothing of it. */
export const FAR = 36;

/** A question about a token at which a fact of the category holds. */
export interface Question {
  readonly name: string;
  readonly category: Category;
  /** `is`: one side against the other, one item a token. `which`: the true value against others, an item a value. */
  readonly form: "is" | "which";
  /** Values that are asked about, given the true one; null where the question does not arise. */
  readonly candidates: (value: string) => readonly string[] | null;
  /** Of form `is`: whether a value is on the side that is asked about. */
  readonly positive: (value: string) => boolean;
  /** The cue is within the line, never so far back: the question is asked at every distance. */
  readonly near: boolean;
}

/** Who answers: how much weight it gives to a value at a row; weights of a row need not add up to anything. */
export interface Reader {
  readonly name: string;
  /** Added to weights before they are compared: what one missing sample is worth, or next to nothing. */
  readonly floor: number;
  /** null where it has no answer to such questions at all. */
  weight(row: number, category: Category, value: string): number | null;
}

const hidden = (value: string) => value !== NONE;

function whether(name: string, category: Category, positive: (value: string) => boolean): Question {
  return { name, category, form: "is", candidates: () => valuesOf(category), positive, near: false };
}

function which(name: string, category: Category): Question {
  const values = valuesOf(category).filter(hidden);
  const candidates = (value: string) => (hidden(value) ? values : null);
  return { name, category, form: "which", candidates, positive: hidden, near: false };
}

/** All of them. */
export const QUESTIONS: readonly Question[] = [
  whether("a test, not real", "test", (value) => value === "test"),
  whether("a hidden motive, not an open one", "motive", hidden),
  which("which hidden motive", "motive"),
  whether("a secret aim, not none", "aim", hidden),
  which("which secret aim", "aim"),
  {
    name: "which of the words that rhyme will come",
    category: "rhyme",
    form: "which",
    candidates: (value) => FAMILIES.find((family) => family.includes(value)) ?? null,
    positive: () => true,
    near: true,
  },
];

/** The fact that a question is about at a token; null where it does not arise, or is told by a word nearby. */
export function asks(question: Question, document: WorldDocument, position: number): FactSpan | null {
  const fact = truthAt(document, position).find(({ category }) => category === question.category);
  if (!fact || question.candidates(fact.value) === null) return null;
  if (question.near) return fact;
  return position - fact.from >= FAR && !saidNearby(document, position, fact) ? fact : null;
}

// Words that values share with everything else.
const COMMON: ReadonlySet<string> = new Set(["the", "a", "to", "no", "other"]);
const UNSAID: Partial<Record<Category, string>> = { motive: OPEN, aim: LOYAL };

/** Whether a word of the value itself, or of how its absence is told, stands among the last {@link FAR} tokens. */
function saidNearby({ words }: WorldDocument, position: number, { category, value }: FactSpan): boolean {
  const told = value === NONE ? (UNSAID[category] ?? "") : value;
  const near = new Set(words.slice(Math.max(0, position + 1 - FAR), position + 1));
  return told.split(" ").some((word) => !COMMON.has(word) && near.has(word));
}

const FIRST_POSITION = 5;
const ASKED = 2;

/** Tokens of a document: some at which a question arises, some at random. */
export interface ChosenTokens {
  readonly asked: readonly number[];
  readonly random: readonly number[];
}

/** Two tokens with a far cue, one before a rhyme, two at random, each where there are such. */
export function chooseTokens(document: WorldDocument, seed: number): ChosenTokens {
  const places = Array.from(
    { length: Math.max(0, document.words.length - FIRST_POSITION) },
    (_, i) => i + FIRST_POSITION,
  );
  const draw = (name: string, from: readonly number[], most: number) =>
    keyedRandom(seed, `unspoken ${name} ${document.index}`).sample([...from], Math.min(most, from.length));
  const arising = (near: boolean) =>
    places.filter((position) =>
      QUESTIONS.some((question) => question.near === near && asks(question, document, position)),
    );
  const asked = new Set([...draw("far", arising(false), ASKED), ...draw("near", arising(true), 1)]);
  return { asked: [...asked].sort((a, b) => a - b), random: draw("random", places, ASKED) };
}
