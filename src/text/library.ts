// The one door to the tokenizer library: the parts of it that are used, with types, and its pre-tokenizers put right.
//
// The library's own declarations do not resolve under Node's module rules (they import without extensions), so what is used of
// it is declared here; a test encodes with every kind.
import * as library from "@huggingface/tokenizers";
import { isObject } from "./tokenizer-files.js";
import type { JsonObject } from "./tokenizer-files.js";

/** What is used of the library's tokenizer. */
export interface LibraryTokenizer {
  readonly pre_tokenizer: unknown;
  readonly model: { fuse_unk: boolean; _call(words: string[]): string[] };
  encode(
    text: string,
    options: { add_special_tokens: boolean },
  ): { ids: (number | undefined)[]; tokens: string[] };
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
}

/** A step of decoding: strings in, strings out. */
export interface LibraryDecoder {
  decode_chain(tokens: string[]): string[];
}

type DecoderName = "WordPieceDecoder" | "BPEDecoder" | "CTCDecoder" | "ReplaceDecoder";

const { Tokenizer, ...others } = library as unknown as {
  Tokenizer: new (rules: object, config: object) => LibraryTokenizer;
} & Record<DecoderName, new (config: unknown) => LibraryDecoder>;

/** One of the library's decoders that need no correction. Throws what the library throws on a bad config. */
export function createLibraryDecoder(name: DecoderName, config: unknown): LibraryDecoder {
  return new others[name](config);
}

/**
 * The library's tokenizer over the rules of tokenizer.json. Of the config it gets nothing but `eosToken`: the config's flags are for
 * Python's slow tokenizers, and the library would apply them here. Throws what the library throws on bad rules.
 */
export function createLibraryTokenizer(
  rules: Readonly<Record<string, unknown>>,
  eosToken?: string,
): LibraryTokenizer {
  const preTokenizer = withPrependScheme(rules["pre_tokenizer"] ?? null);
  const model = rules["model"];
  const wordLevel = isObject(model) && model["type"] === "WordLevel" ? model : null;
  const tokenizer = new Tokenizer(
    {
      ...rules,
      model: wordLevel ? asWordPiece(wordLevel) : model,
      normalizer: rules["normalizer"] ?? null,
      pre_tokenizer: preTokenizer,
    },
    eosToken === undefined ? {} : { eos_token: eosToken },
  );
  correct(tokenizer.pre_tokenizer, preTokenizer);
  fuseWithinWords(tokenizer.model);
  if (wordLevel) keepWordsWhole(tokenizer.model, wordLevel);
  return tokenizer;
}

/** What a word-level model without a name for it calls an unknown word. */
const UNKNOWN_WORD = "<unk>";

/** A whole-word vocabulary for the library, which has no such model: as pieces of words, to be found whole only. */
function asWordPiece(model: JsonObject): JsonObject {
  const { vocab, unk_token = UNKNOWN_WORD } = model;
  return { type: "WordPiece", vocab, unk_token, continuing_subword_prefix: "" };
}

/** A word is a token or unknown. Pieces are not looked for: they would take the square of a long word's length. */
function keepWordsWhole(
  model: LibraryTokenizer["model"],
  { vocab, unk_token = UNKNOWN_WORD }: JsonObject,
): void {
  const known = new Set(Object.keys(vocab as object));
  model._call = (words) => words.map((word) => (known.has(word) ? word : (unk_token as string)));
}

/** Old files say `add_prefix_space: false` where new ones say `prepend_scheme: "never"`; the library reads only the latter. */
function withPrependScheme(config: unknown): unknown {
  if (!isObject(config)) return config;
  if (Array.isArray(config["pretokenizers"])) {
    return { ...config, pretokenizers: config["pretokenizers"].map(withPrependScheme) };
  }
  const never = config["prepend_scheme"] === undefined && config["add_prefix_space"] === false;
  return config["type"] === "Metaspace" && never ? { ...config, prepend_scheme: "never" } : config;
}

interface PreTokenizerStep {
  pattern: RegExp;
  replacement: string;
  tokenizers: unknown[];
  pre_tokenize_text(text: string, options?: unknown): string[];
}

/**
 * GPT-2's words. The library writes blanks as JavaScript's `\s`, which has U+FEFF and lacks U+0085; Rust's is White_Space.
 * (It rewrites the patterns that stand in tokenizer.json itself, so those need nothing.)
 */
const BYTE_LEVEL_WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** Words and runs of other signs. The library's `\w` knows ASCII only and would cut every accented word. */
const WORDS_OR_SIGNS =
  /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}\p{White_Space}]+/gu;

/** Puts right the pre-tokenizers that differ from the Rust library, which the reference runs. */
function correct(built: unknown, config: unknown): void {
  if (!isObject(config)) return;
  const step = built as PreTokenizerStep;
  const { type, pretokenizers, split } = config;
  if (Array.isArray(pretokenizers)) {
    pretokenizers.forEach((part, i) => correct(step.tokenizers[i], part));
  } else if (type === "ByteLevel") {
    step.pattern = BYTE_LEVEL_WORDS;
  } else if (type === "Whitespace") {
    step.pre_tokenize_text = (text) => text.match(WORDS_OR_SIGNS) ?? [];
  } else if (type === "Metaspace" && split !== false) {
    // Rust cuts the text before each mark unless `split` is false; the library never does, so that merges could cross words.
    const uncut = step.pre_tokenize_text.bind(step);
    step.pre_tokenize_text = (text, options) =>
      uncut(text, options).flatMap((part) => cutBefore(step.replacement, part));
  }
}

/** Rust fuses neighbouring unknown tokens within a word of the pre-tokenizer; the library also did it from word to word. */
function fuseWithinWords(model: LibraryTokenizer["model"]): void {
  if (!model.fuse_unk) return;
  const fused = model._call.bind(model);
  model._call = (words) => words.flatMap((word) => fused([word]));
}

function cutBefore(mark: string, text: string): string[] {
  return text
    .split(mark)
    .map((word, i) => (i === 0 ? word : mark + word))
    .filter((word) => word !== "");
}
