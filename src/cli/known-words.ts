// A sentence of the user's own for a model of a closed vocabulary: which of its words the model does not have, and the nearest it has.
import { editDistance } from "../train/config-keys.js";
import { documentWords } from "../world/words.js";

/** A word that is not in the vocabulary, and the known ones that are spelled most like it. */
export interface UnknownWord {
  readonly word: string;
  readonly nearest: readonly string[];
}

const OFFERED = 3;
const MAX_LENGTH = 40; // the work is quadratic, and no known word is longer

/** Words and signs of a text as the world's tokenizer cuts it: lower case, punctuation apart. */
export function wordsIn(text: string): string[] {
  return text.toLowerCase().match(/[\p{L}\p{N}\p{M}]+|[^\s\p{L}\p{N}\p{M}]/gu) ?? [];
}

/** The words of a text that documents of the world do not have, each once, in order. */
export function unknownWords(text: string): UnknownWord[] {
  const known = documentWords();
  const vocabulary = new Set(known);
  const letters = known.filter((word) => /^[a-z]+$/.test(word));
  return [...new Set(wordsIn(text))]
    .filter((word) => !vocabulary.has(word))
    .map((word) => {
      const given = word.slice(0, MAX_LENGTH);
      const nearest = letters
        .map((each) => ({ each, distance: editDistance(given, each) }))
        .filter(({ distance }) => distance < Math.max(2, given.length))
        .sort((a, b) => a.distance - b.distance || (a.each < b.each ? -1 : 1))
        .slice(0, OFFERED)
        .map(({ each }) => each);
      return { word, nearest };
    });
}
