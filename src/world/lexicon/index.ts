// All lists of words together, for the vocabulary: whatever a list holds is a word of the world.
import * as people from "./people.js";
import * as plans from "./plans.js";
import * as rhymes from "./rhymes.js";
import * as style from "./style.js";
import * as things from "./things.js";
import * as topics from "./topics.js";

/** Every word of the lexicon, each once, sorted by code unit. */
export function lexiconWords(): string[] {
  const words = new Set<string>();
  for (const list of [people, plans, rhymes, style, things, topics]) collect(list, words);
  return [...words].sort();
}

function collect(value: unknown, into: Set<string>): void {
  if (typeof value === "string") {
    for (const word of value.split(" ")) if (!word.startsWith("{")) into.add(word);
  } else if (typeof value === "object" && value !== null) {
    for (const part of Object.values(value)) collect(part, into);
  }
}
