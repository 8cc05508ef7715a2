// The tokenizer inside a GGUF file as the files of a Hugging Face folder. GGUF has lists (tokens, scores or merges, types) and the
// name of a pre-tokenizer; what that name means is in a table here, and other names are refused. The way back is gguf-fields.ts.
import { NlaError } from "../error.js";
import type { TokenizerFiles } from "./tokenizer-files.js";

/** What stands for a blank in SentencePiece's vocabularies. */
export const SPACE = "\u2581";
const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|";
const REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** How words are cut before byte-level BPE: by a pattern, or by GPT-2's own rule where it is null. */
interface Cut {
  readonly pattern: string | null;
  readonly nfc?: true;
  /** Texts begin with BOS unless the file says otherwise, and a word that is a token is not merged together. */
  readonly bos?: true;
  /** Blanks before punctuation go when ids become text, as the released tokenizers of that kind say. */
  readonly cleansUp?: true;
}

/** The cuts by GGUF's name. Where several names mean the same, the first is written. */
export const CUTS: Readonly<Record<string, Cut>> = {
  "gpt-2": { pattern: null, cleansUp: true },
  default: { pattern: null, cleansUp: true },
  qwen2: { pattern: `${CONTRACTIONS}\\p{N}${REST}`, nfc: true },
  "deepseek-r1-qwen": { pattern: `${CONTRACTIONS}\\p{N}${REST}`, nfc: true },
  "llama-bpe": { pattern: `${CONTRACTIONS}\\p{N}{1,3}${REST}`, bos: true, cleansUp: true },
  llama3: { pattern: `${CONTRACTIONS}\\p{N}{1,3}${REST}`, bos: true, cleansUp: true },
};

/** Keys of our own for what the format has no place for: whether blanks before punctuation go, and ids that are special, too. */
export const CLEAN_UP = "nlakit.tokenizer.clean_up_tokenization_spaces";
export const ADDITIONAL = "nlakit.tokenizer.additional_special_ids";

/** Token types of the format. */
export const TOKEN_TYPES = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** Names that converters give to rows of the embedding that no token has. */
const PADDING = /^\[PAD\d+\]$/;

/**
 * A file's tokenizer.
 *
 * @param file names the file in errors
 * @param metadata all of the file's
 * @throws NlaError `gguf.tokenizer` for a kind or pre-tokenizer that is not known, or lists that do not fit each other
 */
export function ggufTokenizerFiles(file: string, metadata: ReadonlyMap<string, unknown>): TokenizerFiles {
  const get = (key: string) => metadata.get(`tokenizer.ggml.${key}`);
  const fail = (found: string, wanted: string) =>
    new NlaError({
      code: "gguf.tokenizer",
      subject: file,
      found,
      wanted,
      next: "Load the model's own folder instead, which has a tokenizer.json.",
    });
  const tokens = get("tokens");
  if (!Array.isArray(tokens) || tokens.length === 0 || !tokens.every((each) => typeof each === "string")) {
    throw fail(
      tokens === undefined ? "no tokenizer.ggml.tokens" : "tokens that are not all texts",
      "a list of texts",
    );
  }
  const types = numbers(get("token_type"), tokens.length) ?? tokens.map(() => 1);
  const vocabulary = new Map<string, number>();
  for (const [at, token] of (tokens as string[]).entries()) {
    if (types[at] === TOKEN_TYPES.unused && PADDING.test(token)) continue;
    if (vocabulary.has(token))
      throw fail(`${JSON.stringify(token)} twice in tokenizer.ggml.tokens`, "each token once");
    vocabulary.set(token, at);
  }
  const kind = get("model");
  const id = (name: string) => {
    const value = get(`${name}_token_id`);
    return typeof value === "number" && value < tokens.length ? (tokens[value] as string) : undefined;
  };
  const added = tokens.flatMap((content: string, at) => {
    const special = types[at] === TOKEN_TYPES.control || types[at] === TOKEN_TYPES.unknown;
    if (!special && types[at] !== TOKEN_TYPES.userDefined) return [];
    return [
      { id: at, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special },
    ];
  });
  let model: Record<string, unknown>;
  let rules: Record<string, unknown>;
  let addBos: boolean;
  let cleansUp = false;
  const merges = () => {
    const stated = get("merges");
    const pairs = Array.isArray(stated) ? stated.map(pairOf) : [null];
    if (pairs.includes(null))
      throw fail("no list of merges", "tokenizer.ggml.merges, two tokens each with a blank between");
    return pairs as (readonly [string, string])[];
  };
  if (kind === "llama") {
    const scores = numbers(get("scores"), tokens.length);
    if (!scores) throw fail("no score for every token", "tokenizer.ggml.scores, one number for each token");
    model = {
      byte_fallback: true,
      fuse_unk: true,
      unk_token: id("unknown") ?? null,
      merges: mergesOf(vocabulary, scores),
    };
    rules = spaced(get("add_space_prefix") !== false);
    addBos = get("add_bos_token") !== false;
  } else if (kind === "gpt2") {
    const name = get("pre") ?? "default";
    const cut = typeof name === "string" && Object.hasOwn(CUTS, name) ? CUTS[name] : undefined;
    if (!cut)
      throw fail(`the pre-tokenizer ${JSON.stringify(name)}`, `one of ${Object.keys(CUTS).join(", ")}`);
    model = { byte_fallback: false, fuse_unk: false, unk_token: null, merges: merges() };
    model.ignore_merges = cut.bos === true;
    cleansUp = cut.cleansUp === true;
    rules = byteLevel(cut.pattern, cut.nfc === true);
    addBos = typeof get("add_bos_token") === "boolean" ? get("add_bos_token") === true : cut.bos === true;
  } else if (kind === "gemma4") {
    model = { byte_fallback: true, fuse_unk: true, unk_token: id("unknown") ?? null, merges: merges() };
    rules = { ...spaced(false), pre_tokenizer: NEWLINES_APART };
    addBos = true; // llama.cpp adds it whatever the file says
  } else {
    throw fail(`tokenizer.ggml.model ${JSON.stringify(kind) ?? "absent"}`, "llama, gpt2 or gemma4");
  }
  const around = {
    first: addBos ? id("bos") : undefined,
    last: get("add_eos_token") === true ? id("eos") : undefined,
  };
  const config: Record<string, unknown> = {
    clean_up_tokenization_spaces: metadata.get(CLEAN_UP) ?? cleansUp,
    tokenizer_class: "PreTrainedTokenizerFast",
  };
  const additional = numbers(metadata.get(ADDITIONAL))?.map((at) => tokens[at] as unknown) ?? [];
  if (!additional.every((content) => typeof content === "string"))
    throw fail(`${ADDITIONAL} of other tokens`, "ids of tokens");
  if (additional.length > 0) config.additional_special_tokens = additional;
  for (const [field, name] of [
    ["bos_token", "bos"],
    ["eos_token", "eos"],
    ["unk_token", "unknown"],
    ["pad_token", "padding"],
  ] as const) {
    const content = id(name);
    if (content !== undefined) config[field] = content;
  }
  const template = metadata.get("tokenizer.chat_template");
  if (typeof template === "string") config.chat_template = template;
  return {
    directory: file,
    rules: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: added,
      ...rules,
      post_processor:
        around.first || around.last ? surrounding(around, vocabulary) : (rules.post_processor ?? null),
      model: {
        type: "BPE",
        dropout: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        vocab: Object.fromEntries(vocabulary),
        ...model,
      },
    },
    config,
    specialTokensMap: {},
    templateFile: null,
  };
}

/** A merge's two tokens. The first is never empty, so that a blank at its beginning belongs to it. */
function pairOf(merge: unknown): readonly [string, string] | null {
  const [, left, right] = (typeof merge === "string" && /^(.[^ ]*) (.+)$/su.exec(merge)) || [];
  return left === undefined || right === undefined ? null : [left, right];
}

function numbers(value: unknown, length?: number): number[] | null {
  if (!Array.isArray(value) || (length !== undefined && value.length !== length)) return null;
  return value.every((each) => typeof each === "number") ? (value as number[]) : null;
}

/** Newlines and what is between them, as llama.cpp cuts texts for its BPE over whole characters. */
const NEWLINES_APART = {
  type: "Split",
  pattern: { Regex: "[^\\n]+|[\\n]+" },
  behavior: "Isolated",
  invert: false,
};

/** SentencePiece's BPE merges what gives the best-scored token: so merges are all pairs that give one, by its score. */
export function mergesOf(
  vocabulary: ReadonlyMap<string, number>,
  scores: readonly number[],
): [string, string][] {
  const found: {
    readonly pair: [string, string];
    readonly score: number;
    readonly ids: readonly [number, number];
  }[] = [];
  for (const [token, at] of vocabulary) {
    const letters = [...token];
    for (let cut = 1; cut < letters.length; cut++) {
      const pair: [string, string] = [letters.slice(0, cut).join(""), letters.slice(cut).join("")];
      const [left, right] = [vocabulary.get(pair[0]), vocabulary.get(pair[1])];
      if (left === undefined || right === undefined) continue;
      found.push({ pair, score: scores[at] as number, ids: [left, right] });
    }
  }
  found.sort((a, b) => b.score - a.score || a.ids[0] - b.ids[0] || a.ids[1] - b.ids[1]);
  return found.map(({ pair }) => pair);
}

/** Blanks as U+2581, one put before the text or not. */
function spaced(prefix: boolean): Record<string, unknown> {
  const replace = { type: "Replace", pattern: { String: " " }, content: SPACE };
  const back = [
    { type: "Replace", pattern: { String: SPACE }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
  ];
  const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
  return {
    normalizer: prefix
      ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: SPACE }, replace] }
      : replace,
    pre_tokenizer: null,
    decoder: { type: "Sequence", decoders: prefix ? [...back, strip] : back },
  };
}

function byteLevel(pattern: string | null, nfc: boolean): Record<string, unknown> {
  const bytes = {
    type: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: false,
    use_regex: pattern === null,
  };
  return {
    normalizer: nfc ? { type: "NFC" } : null,
    pre_tokenizer:
      pattern === null
        ? bytes
        : {
            type: "Sequence",
            pretokenizers: [
              { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false },
              bytes,
            ],
          },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    post_processor: null,
  };
}

/** A text with BOS before it, EOS after it, or both. */
function surrounding(
  { first, last }: { readonly first: string | undefined; readonly last: string | undefined },
  vocabulary: ReadonlyMap<string, number>,
): Record<string, unknown> {
  const ends = (type: number) => {
    const special = (content: string | undefined) =>
      content === undefined ? [] : [{ SpecialToken: { id: content, type_id: type } }];
    return [...special(first), { Sequence: { id: type === 0 ? "A" : "B", type_id: type } }, ...special(last)];
  };
  const tokens = [first, last].filter((content) => content !== undefined);
  return {
    type: "TemplateProcessing",
    single: ends(0),
    pair: [...ends(0), ...ends(1)],
    special_tokens: Object.fromEntries(
      tokens.map((content) => [content, { id: content, ids: [vocabulary.get(content)], tokens: [content] }]),
    ),
  };
}
