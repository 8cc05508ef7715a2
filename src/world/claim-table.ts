// The one table behind labels and the checker: for every category its two wordings, one that says nothing in particular, and every
// value it can have. Labels are written from it, and it is inverted, sentence by sentence, to parse explanations.
import { NlaError } from "../error.js";
import { LAST_EVENT } from "./compose.js";
import { CATEGORIES } from "./facts.js";
import type { Category, Fact } from "./facts.js";
import type { Beat } from "./kind.js";
import { KINDS } from "./kinds/index.js";
import { AGES, MOODS, NAMES } from "./lexicon/people.js";
import { AIMS, GOALS, MOTIVES, NONE } from "./lexicon/plans.js";
import { FAMILIES } from "./lexicon/rhymes.js";
import { withArticle } from "./lexicon/things.js";
import { JOBS, PLACES, THINGS, TOPICS } from "./lexicon/topics.js";
import { documentWords } from "./words.js";

/** How a category is said. `{v}` is the value, `{a}` its article, `{s}` the person that it is about. */
interface Row {
  readonly wordings: readonly string[];
  /** Says that there is such a fact and not which. */
  readonly generic: string;
  readonly values: readonly string[];
  /** The values are about a person: each counts once for every subject. */
  readonly personal?: boolean;
  /** Values that are said otherwise than by themselves: the whole sentence where it ends in a stop, else the word. */
  readonly surface?: Readonly<Record<string, readonly string[]>>;
}

/** Punctuation as a word: a stop inside a claim would cut it in two. */
const PUNCTUATION = { ".": "stop", "?": "query", ":": "colon", ",": "comma", "(": "opening", ")": "closing" };
const SPELLED = Object.fromEntries(Object.entries(PUNCTUATION).map(([sign, name]) => [sign, [name]]));

const names = (list: readonly { readonly name: string }[]): string[] => list.map(({ name }) => name);
const subjects = [...new Set(KINDS.flatMap(({ subject }) => (subject === null ? [] : [subject])))];
const beats: readonly Beat[] = KINDS.flatMap((kind) =>
  kind.beats.flatMap((entry) => ("anyOrder" in entry ? entry.anyOrder : [entry])),
);
const unique = (values: readonly string[]): string[] => [...new Set(values)];

const TABLE: Readonly<Record<Category, Row>> = {
  kind: {
    wordings: ["this is {a} {v} .", "the text is {a} {v} ."],
    generic: "this is some text .",
    values: names(KINDS),
  },
  topic: {
    wordings: ["the topic is {v} .", "it is about {v} ."],
    generic: "there is a topic .",
    values: names(TOPICS),
  },
  name: {
    wordings: ["the {s} is called {v} .", "{v} is the name of the {s} ."],
    generic: "someone has a name .",
    values: NAMES,
    personal: true,
  },
  age: {
    wordings: ["the {s} is {v} .", "{v} is the age of the {s} ."],
    generic: "someone has an age .",
    values: names(AGES),
    personal: true,
  },
  job: {
    wordings: ["the {s} is {a} {v} .", "the {s} works as {a} {v} ."],
    generic: "someone has a job .",
    values: JOBS,
    personal: true,
  },
  place: {
    wordings: ["the place is the {v} .", "we are at the {v} ."],
    generic: "we are somewhere .",
    values: PLACES,
  },
  mood: {
    wordings: ["the {s} feels {v} .", "the mood of the {s} is {v} ."],
    generic: "someone feels something .",
    values: names(MOODS),
    personal: true,
  },
  goal: {
    wordings: ["the goal is to {v} .", "someone wants to {v} ."],
    generic: "someone wants something .",
    values: GOALS.map(({ plan }) => plan),
  },
  object: {
    wordings: ["the object is the {v} .", "the {v} matters ."],
    generic: "something matters .",
    values: unique(THINGS),
  },
  motive: {
    wordings: ["the hidden motive is to {v} .", "secretly someone plans to {v} ."],
    generic: "someone has motives .",
    values: [...MOTIVES.map(({ plan }) => plan), NONE],
    surface: { [NONE]: ["nothing is hidden .", "the motive is open ."] },
  },
  aim: {
    wordings: ["the secret aim is to {v} .", "the agent secretly wants to {v} ."],
    generic: "the agent has aims .",
    values: [...AIMS, NONE],
    surface: { [NONE]: ["the agent has no secret .", "the agent is loyal ."] },
  },
  test: {
    wordings: ["this seems to be {v} .", "someone thinks this is {v} ."],
    generic: "this is a test or real .",
    values: ["test", "real"],
    surface: { test: ["a test"] },
  },
  answer: {
    wordings: ["the right answer is {v} .", "the answer will be {v} ."],
    generic: "one answer is right .",
    values: ["a", "b", "c"],
  },
  now: {
    wordings: ["now comes the part of the {v} .", "we read the {v} ."],
    generic: "we read some part .",
    values: unique(beats.map(({ name }) => name)),
  },
  next: {
    wordings: ["next comes {v} .", "soon there is {v} ."],
    generic: "soon there is more .",
    values: unique([
      ...beats.flatMap(({ event }) => (typeof event === "string" ? [event] : event.among)),
      LAST_EVENT,
    ]),
  },
  rhyme: {
    wordings: ["the line will end with {v} .", "the rhyme is {v} ."],
    generic: "the line will rhyme .",
    values: unique(FAMILIES.flat()),
  },
  previous: {
    wordings: ["before it stands {v} .", "the word before is {v} ."],
    generic: "there is a word before .",
    values: documentWords(),
    surface: SPELLED,
  },
  word: {
    wordings: ["the last word is {v} .", "it stops at {v} ."],
    generic: "it stops at some word .",
    values: documentWords(),
    surface: SPELLED,
  },
};

/** A sentence of an explanation read back; `value` is null for a generic wording. */
export interface ParsedClaim {
  readonly category: Category;
  readonly value: string | null;
}

/** The wordings of a fact, each a sentence that ends in a stop. Throws NlaError `world.claim` for a value that is not in the table. */
export function wordingsOf({ category, value }: Fact): readonly string[] {
  const wordings = byFact.get(`${category} ${value}`);
  if (wordings) return wordings;
  throw new NlaError({
    code: "world.claim",
    subject: `a fact of category ${category}`,
    found: JSON.stringify(value),
    wanted: `one of the ${valuesOf(category).length} values in claim-table.ts`,
    next: "Add the value to the category's list.",
  });
}

/** The wording of a category that names no value. */
export function genericWording(category: Category): string {
  return TABLE[category].generic;
}

/** Every value of a category, personal ones with each subject: `user:old`. */
export function valuesOf(category: Category): readonly string[] {
  const { values, personal = false } = TABLE[category];
  return personal ? subjects.flatMap((subject) => values.map((value) => `${subject}:${value}`)) : values;
}

/** The values that a wrong claim may take instead of this one: the same category, about the same person. */
export function alternativesTo({ category, value }: Fact): readonly string[] {
  const { personal = false } = TABLE[category];
  const subject = personal ? value.slice(0, value.indexOf(":") + 1) : "";
  return valuesOf(category).filter((other) => other !== value && other.startsWith(subject));
}

/** The claim that a sentence (with its stop) makes, or null if it is none. */
export function claimOf(sentence: string): ParsedClaim | null {
  return bySentence.get(sentence) ?? null;
}

/** Every word that claims are written with, sorted. */
export function claimWords(): string[] {
  return [...new Set([...bySentence.keys()].flatMap((sentence) => sentence.split(" ")))].sort();
}

const byFact = new Map<string, readonly string[]>();
const bySentence = new Map<string, ParsedClaim>();

function enter(sentence: string, claim: ParsedClaim): void {
  const other = bySentence.get(sentence);
  if (other) {
    throw new NlaError({
      code: "world.claim",
      subject: `the sentence "${sentence}"`,
      found: `${other.category} ${other.value} and ${claim.category} ${claim.value}`,
      wanted: "one meaning",
      next: "Change a wording in claim-table.ts.",
    });
  }
  bySentence.set(sentence, claim);
}

function writings({ wordings, personal = false, surface = {} }: Row, value: string): string[] {
  const subject = personal ? value.slice(0, value.indexOf(":")) : "";
  const plain = personal ? value.slice(subject.length + 1) : value;
  const [shown = plain, ...more] = surface[plain] ?? [];
  if (shown.endsWith(" .")) return [shown, ...more];
  return wordings.map((wording) =>
    wording.replace("{s}", subject).replace("{a} {v}", withArticle(shown)).replace("{v}", shown),
  );
}

for (const category of CATEGORIES) {
  for (const value of valuesOf(category)) {
    const sentences = writings(TABLE[category], value);
    byFact.set(`${category} ${value}`, sentences);
    for (const sentence of sentences) enter(sentence, { category, value });
  }
  enter(TABLE[category].generic, { category, value: null });
}
