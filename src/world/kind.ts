// The form of a document kind: what is drawn once (the scene), and beats of sentences with slots that the scene fills. A kind is
// data in one file of kinds/; what turns it into words is compose.ts.
import type { Chooser } from "./chooser.js";
import type { Category, Fact } from "./facts.js";

/** Words for a slot. Facts become evident at the last of the words, the first time that they are said. */
export interface Said {
  readonly words: string;
  readonly facts?: readonly Fact[];
  /** The category whose fact no longer holds once the words begin, as a rhyme's plan when the rhyme is there. */
  readonly ends?: Category;
}

/** What fills a slot: words, words with facts, or a new draw at every use. */
export type Slot = string | Said | ((choose: Chooser) => string | Said);

/** One sentence: wordings to choose from, perhaps only where a trait holds (`hidden`, `not hidden`), or sentences in any order. */
export type Sentence =
  | readonly string[]
  | { readonly when: string; readonly say: readonly string[] }
  | { readonly anyOrder: readonly Sentence[] };

/** A part of a document. While it is written, `now` is its name, and `next` is the event of the beat that follows. */
export interface Beat {
  readonly name: string;
  /** How the part before announces it; one of several by the scene's slot of that name where it depends on the document. */
  readonly event: string | { readonly slot: string; readonly among: readonly string[] };
  readonly when?: string;
  readonly sentences: readonly Sentence[];
}

/** What is drawn once for a document. */
export interface Scene {
  /** Whatever the templates name in braces. */
  readonly slots: Readonly<Record<string, Slot>>;
  /** What `when` asks for. */
  readonly traits?: Readonly<Record<string, boolean>>;
}

/** A kind of document. */
export interface DocumentKind {
  readonly name: string;
  /** How often it comes, in hundredths. */
  readonly weight: number;
  /** Whose the personal facts are: `hero`, `user`; null where the kind has no person. */
  readonly subject: string | null;
  /** Sentences before anything that tells the kind: the cue of test or real. The kind is evident at the token after them. */
  readonly opening?: readonly Sentence[];
  readonly draw: (choose: Chooser) => Scene;
  readonly beats: readonly (Beat | { readonly anyOrder: readonly Beat[] })[];
}

/** Words that make facts evident. */
export function said(words: string, ...facts: readonly Fact[]): Said {
  return { words, facts };
}

/** A fact; about a person with whose it is: `fact("age", "old", "user")`. */
export function fact(category: Category, value: string, subject?: string): Fact {
  return { category, value: subject === undefined ? value : `${subject}:${value}` };
}

/** A beat. */
export function beat(name: string, event: Beat["event"], ...sentences: readonly Sentence[]): Beat {
  return { name, event, sentences };
}

/** A beat that is there only where a trait holds. */
export function beatIf(
  when: string,
  name: string,
  event: Beat["event"],
  ...sentences: readonly Sentence[]
): Beat {
  return { name, event, when, sentences };
}
