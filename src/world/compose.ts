// From a document kind and a chooser to words and facts: beats in order, wordings drawn, slots filled, and for every fact the token
// at which it becomes evident and the one at which it ends. No kind is known here.
import { NlaError } from "../error.js";
import type { Chooser } from "./chooser.js";
import type { Category, Fact, FactSpan } from "./facts.js";
import type { Beat, DocumentKind, Said, Scene, Sentence, Slot } from "./kind.js";

/** What {@link compose} makes: the words and all facts but `word` and `previous`. */
export interface Composed {
  readonly words: string[];
  readonly facts: FactSpan[];
}

// The third token tells the kinds without an opening apart: "the fox went", "the plow belongs", "long ago the".
const KIND_EVIDENT = 2;
const END = "the end";

/** Writes one document of a kind. Throws NlaError `world.kind` where its file names a slot or trait that its scene lacks. */
export function compose(kind: DocumentKind, choose: Chooser): Composed {
  return new Composition(kind, kind.draw(choose), choose).write();
}

/** The event of the last beat's `next`. */
export const LAST_EVENT = END;

interface OpenFact extends Fact {
  readonly from: number;
  end: number;
}

class Composition {
  readonly #words: string[] = [];
  readonly #facts: OpenFact[] = [];
  readonly #kind: DocumentKind;
  readonly #scene: Scene;
  readonly #choose: Chooser;

  constructor(kind: DocumentKind, scene: Scene, choose: Chooser) {
    this.#kind = kind;
    this.#scene = scene;
    this.#choose = choose;
  }

  write(): Composed {
    const { name, opening } = this.#kind;
    const plan = this.#plan();
    for (const [i, { name: now, sentences }] of plan.entries()) {
      const from = this.#words.length;
      if (i === 0 && opening !== undefined) this.#sentences(opening);
      if (i === 0) this.#know({ category: "kind", value: name }, opening ? this.#words.length : KIND_EVIDENT);
      this.#sentences(sentences);
      const end = this.#words.length;
      const following = plan[i + 1];
      this.#facts.push({ category: "now", value: now, from, end });
      this.#facts.push({ category: "next", value: following ? this.#event(following) : END, from, end });
    }
    const length = this.#words.length;
    for (const each of this.#facts) each.end = Math.min(each.end, length);
    return { words: this.#words, facts: this.#facts.sort((a, b) => a.from - b.from) };
  }

  #plan(): Beat[] {
    return this.#kind.beats.flatMap((entry) => {
      if (!("anyOrder" in entry)) return this.#holds(entry.when) ? [entry] : [];
      return this.#choose.sample(entry.anyOrder.filter(({ when }) => this.#holds(when)));
    });
  }

  #event({ event }: Beat): string {
    if (typeof event === "string") return event;
    const slot = this.#slot(event.slot);
    if (typeof slot === "string") return slot;
    throw this.#fault(`the event {${event.slot}}`, "a slot of plain words");
  }

  #sentences(sentences: readonly Sentence[]): void {
    for (const sentence of sentences) {
      if (isWordings(sentence)) this.#template(this.#choose.pick(sentence));
      else if ("anyOrder" in sentence) this.#sentences(this.#choose.sample(sentence.anyOrder));
      else if (this.#holds(sentence.when)) this.#template(this.#choose.pick(sentence.say));
    }
  }

  #template(template: string): void {
    for (const { text, slot } of partsOf(template)) {
      if (!slot) {
        this.#words.push(text);
        continue;
      }
      const value = this.#slot(text);
      const filled = typeof value === "function" ? value(this.#choose) : value;
      if (typeof filled === "string") this.#words.push(...filled.split(" "));
      else this.#said(filled);
    }
  }

  #said({ words, facts = [], ends }: Said): void {
    if (ends !== undefined) this.#end(ends);
    this.#words.push(...words.split(" "));
    for (const each of facts) this.#know(each, this.#words.length - 1);
  }

  #know({ category, value }: Fact, from: number): void {
    const known = this.#facts.some((each) => each.category === category && each.end === Infinity);
    if (!known) this.#facts.push({ category, value, from, end: Infinity });
  }

  #end(category: Category): void {
    for (const each of this.#facts) {
      if (each.category === category && each.end === Infinity) each.end = this.#words.length;
    }
  }

  #holds(when: string | undefined): boolean {
    if (when === undefined) return true;
    const negated = when.startsWith("not ");
    const trait = this.#scene.traits?.[negated ? when.slice(4) : when];
    if (trait === undefined) throw this.#fault(`when: "${when}"`, "a trait of its scene");
    return trait !== negated;
  }

  #slot(name: string): Slot {
    const slot = this.#scene.slots[name];
    if (slot === undefined) throw this.#fault(`{${name}}`, "a slot of its scene");
    return slot;
  }

  #fault(found: string, wanted: string): NlaError {
    return new NlaError({
      code: "world.kind",
      subject: `document kind ${this.#kind.name}`,
      found,
      wanted,
      next: "Put it into what the kind's draw returns.",
    });
  }
}

/** A word of a template: itself, or the name of a slot. */
export interface TemplatePart {
  readonly text: string;
  readonly slot: boolean;
}

// Templates are few and literal in the kinds' files; parsing each once keeps writing fast.
const parsed = new Map<string, readonly TemplatePart[]>();

/** The words and slots of a template such as `the {job} came .` */
export function partsOf(template: string): readonly TemplatePart[] {
  const known = parsed.get(template);
  if (known) return known;
  const parts = template
    .split(" ")
    .map((word) =>
      word.startsWith("{") ? { text: word.slice(1, -1), slot: true } : { text: word, slot: false },
    );
  parsed.set(template, parts);
  return parts;
}

/** True for a sentence that is a plain list of wordings. */
export function isWordings(sentence: Sentence): sentence is readonly string[] {
  return Array.isArray(sentence);
}
