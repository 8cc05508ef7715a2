// The words that documents are written with: those of the lexicon and those that stand in the kinds' templates. Together with the
// words of claims they are the closed vocabulary.
import { isWordings, partsOf } from "./compose.js";
import type { Beat, Sentence } from "./kind.js";
import { KINDS } from "./kinds/index.js";
import { lexiconWords } from "./lexicon/index.js";

/** Every word and sign a document can have, each once, sorted by code unit. */
export function documentWords(): string[] {
  const words = new Set(lexiconWords());
  for (const { opening = [], beats } of KINDS) {
    const all: readonly Beat[] = beats.flatMap((entry) => ("anyOrder" in entry ? entry.anyOrder : [entry]));
    for (const template of templatesOf([...opening, ...all.flatMap(({ sentences }) => sentences)])) {
      for (const { text, slot } of partsOf(template)) if (!slot) words.add(text);
    }
  }
  return [...words].sort();
}

function templatesOf(sentences: readonly Sentence[]): string[] {
  return sentences.flatMap((sentence) => {
    if (isWordings(sentence)) return [...sentence];
    return "anyOrder" in sentence ? templatesOf(sentence.anyOrder) : [...sentence.say];
  });
}
