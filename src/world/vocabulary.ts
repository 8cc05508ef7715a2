// The closed vocabulary: special tokens, then every word of documents and claims. Ids are positions in this list, so a change of any
// word list makes another vocabulary, and a target trained on the old one does not fit.
import { claimWords } from "./claim-table.js";
import { documentWords } from "./words.js";

/** Special tokens, at ids 0 to 5. U+320E is the injection marker: a token from the start, so that no embedding has to grow. */
export const SPECIAL_TOKENS = ["<pad>", "<bos>", "<eos>", "<unk>", "\u320e", "<sep>"] as const;

/** Every token by id. */
export function worldVocabulary(): string[] {
  const words = new Set([...documentWords(), ...claimWords()]);
  return [...SPECIAL_TOKENS, ...[...words].sort()];
}
