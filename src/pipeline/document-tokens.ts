// The token ids of a document as extraction sees it: with special tokens, cut to a length as transformers cuts. A long text is
// cut before it is encoded, because a tokenizer without pre-tokenizer takes 15 seconds per megabyte.
//
// Why cutting the text first keeps the ids: it is cut only between a visible ASCII character and a blank (U+0020) where no
// piece of the vocabulary has those two side by side. No token can then cover the cut, so merges (BPE) and best paths (Unigram)
// on its left depend on nothing to its right. Normalisers in use change neither of the two characters, and the words
// of pre-tokenizers in use end before a blank without looking past it. If the part gives too few ids, a longer one is taken.
import type { CorpusDocument } from "../data/corpus.js";
import { NlaError } from "../error.js";
import type { Tokenizer } from "../text/tokenizer.js";

// Texts have 3 to 5 characters a token; with twice that, one try is enough.
const CHARACTERS_PER_TOKEN = 8;

/**
 * A function from documents to ids, at most `maxLength` of them.
 *
 * A text gets the special tokens of the tokenizer, which count; an end token stays at the end of a cut text. A conversation is
 * rendered by the chat template, which writes its own, and cut at the end.
 *
 * @throws NlaError `extract.length` where `maxLength` leaves no room beside the special tokens; the function throws those of
 *   the tokenizer, `chat.missing` above all
 */
export function documentTokens(
  tokenizer: Tokenizer,
  maxLength: number,
): (document: Pick<CorpusDocument, "text" | "messages">) => number[] {
  const { before, after } = specialsAround(tokenizer);
  const room = maxLength - before.length - after.length;
  if (!(room >= 1)) {
    throw new NlaError({
      code: "extract.length",
      subject: "longest document",
      found: `${maxLength} tokens`,
      wanted: `at least ${before.length + after.length + 1}: the tokenizer adds ${before.length + after.length}`,
      next: "Raise max_length.",
    });
  }
  const cut = textCutter(tokenizer);
  const firstIds = (text: string, count: number): number[] => {
    for (let characters = count * CHARACTERS_PER_TOKEN; ; characters *= 2) {
      const part = cut(text, characters);
      const ids = tokenizer.encode(part);
      if (ids.length >= count || part.length === text.length) return ids.slice(0, count);
    }
  };
  return ({ text, messages }) =>
    text === null
      ? firstIds(tokenizer.renderChat(messages ?? []), maxLength)
      : [...before, ...firstIds(text, room), ...after];
}

/** Ids that the tokenizer puts around a text. */
function specialsAround(tokenizer: Tokenizer): { before: number[]; after: number[] } {
  const plain = tokenizer.encode("a");
  const whole = tokenizer.encode("a", { addSpecialTokens: true });
  for (let start = 0; start + plain.length <= whole.length; start++) {
    if (plain.every((id, i) => whole[start + i] === id)) {
      return { before: whole.slice(0, start), after: whole.slice(start + plain.length) };
    }
  }
  throw new NlaError({
    code: "extract.special-tokens",
    subject: tokenizer.directory,
    found: `the tokens [${whole.join(", ")}] for "a" with special tokens`,
    wanted: `[${plain.join(", ")}] with others before or after them`,
    next: "Check the post-processor in tokenizer.json.",
  });
}

/** A function that gives the first part of a text, of at least so many UTF-16 units, or the whole text if it is not much longer. */
function textCutter(tokenizer: Tokenizer): (text: string, least: number) => string {
  let joined: ReadonlySet<string> | null = null;
  return (text, least) => {
    if (text.length <= 2 * least) return text;
    joined ??= joinedToBlank(tokenizer);
    for (let end = text.indexOf(" ", least); end !== -1; end = text.indexOf(" ", end + 1)) {
      const last = text.charAt(end - 1);
      // A normaliser may change the case.
      if (/[!-~]/.test(last) && !joined.has(last.toLowerCase()) && !joined.has(last.toUpperCase())) {
        return text.slice(0, end);
      }
    }
    return text;
  };
}

/** Characters that some piece of the vocabulary has directly before a blank. */
function joinedToBlank(tokenizer: Tokenizer): ReadonlySet<string> {
  const joined = new Set<string>();
  const ids = Array.from({ length: tokenizer.size }, (_, id) => id);
  for (const piece of tokenizer.pieces(ids)) {
    for (let at = piece.indexOf(" ", 1); at !== -1; at = piece.indexOf(" ", at + 1)) {
      joined.add(piece.charAt(at - 1));
    }
  }
  return joined;
}
