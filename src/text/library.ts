// The one door to the tokenizer library: the parts of it that are used, with types, and its pre-tokenizers put right.
//
// The library's own declarations do not resolve under Node's module rules (they import without extensions), so what is used of
// it is declared here; a test encodes with every kind.
import * as library from "@huggingface/tokenizers";
import { isObject } from "./tokenizer-files.js";

/** What is used of the library's tokenizer. */
export interface LibraryTokenizer {
  readonly pre_tokenizer: unknown;
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
  const tokenizer = new Tokenizer(
    { ...rules, normalizer: rules["normalizer"] ?? null, pre_tokenizer: preTokenizer },
    eosToken === undefined ? {} : { eos_token: eosToken },
  );
  cutAtMetaspaces(tokenizer.pre_tokenizer, preTokenizer);
  return tokenizer;
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

interface MetaspaceStep {
  replacement: string;
  pre_tokenize_text(text: string, options?: unknown): string[];
}

/**
 * Makes Metaspace pre-tokenizers cut the text before each mark, as the Rust library does unless `split` is false. The JavaScript
 * one never cuts, so that byte-pair merges could cross words.
 */
function cutAtMetaspaces(step: unknown, config: unknown): void {
  if (!isObject(config)) return;
  if (Array.isArray(config["pretokenizers"])) {
    const { tokenizers } = step as { tokenizers: unknown[] };
    config["pretokenizers"].forEach((part, i) => cutAtMetaspaces(tokenizers[i], part));
    return;
  }
  if (config["type"] !== "Metaspace" || config["split"] === false) return;
  const metaspace = step as MetaspaceStep;
  const uncut = metaspace.pre_tokenize_text.bind(metaspace);
  metaspace.pre_tokenize_text = (text, options) =>
    uncut(text, options).flatMap((part) => cutBefore(metaspace.replacement, part));
}

function cutBefore(mark: string, text: string): string[] {
  return text
    .split(mark)
    .map((word, i) => (i === 0 ? word : mark + word))
    .filter((word) => word !== "");
}
