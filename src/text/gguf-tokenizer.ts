// The tokenizer inside a GGUF file as the files of a Hugging Face folder. GGUF has lists (tokens, scores or merges, types) and the
// name of a pre-tokenizer; what that name means is in a table here, and other names are refused.
import { NlaError } from "../error.js";
import type { TokenizerFiles } from "./tokenizer-files.js";

const SPACE = "\u2581";
const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|";
const REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** How words are cut before byte-level BPE, by GGUF's name; null: GPT-2's own rule. */
const CUTS: Readonly<
  Record<string, { readonly pattern: string | null; readonly nfc?: true; readonly bos?: true }>
> = {
  default: { pattern: null },
  "gpt-2": { pattern: null },
  qwen2: { pattern: `${CONTRACTIONS}\\p{N}${REST}`, nfc: true },
  "deepseek-r1-qwen": { pattern: `${CONTRACTIONS}\\p{N}${REST}`, nfc: true },
  "llama-bpe": { pattern: `${CONTRACTIONS}\\p{N}{1,3}${REST}`, bos: true },
  llama3: { pattern: `${CONTRACTIONS}\\p{N}{1,3}${REST}`, bos: true },
};

// Token types of the format.
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;

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
  const vocabulary = new Map<string, number>();
  tokens.forEach((token: string, id) => vocabulary.has(token) || vocabulary.set(token, id));
  if (vocabulary.size !== tokens.length)
    throw fail("a token twice in tokenizer.ggml.tokens", "each token once");
  const types = numbers(get("token_type"), tokens.length) ?? tokens.map(() => 1);
  const kind = get("model");
  const id = (name: string) => {
    const value = get(`${name}_token_id`);
    return typeof value === "number" && value < tokens.length ? (tokens[value] as string) : undefined;
  };
  const added = tokens.flatMap((content: string, at) => {
    const special = types[at] === CONTROL || types[at] === UNKNOWN;
    if (!special && types[at] !== USER_DEFINED) return [];
    return [
      { id: at, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special },
    ];
  });
  let model: Record<string, unknown>;
  let rules: Record<string, unknown>;
  let addBos: boolean;
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
    const merges = get("merges");
    if (
      !Array.isArray(merges) ||
      !merges.every((each) => typeof each === "string" && /^\S+ \S+$/u.test(each))
    ) {
      throw fail("no list of merges", "tokenizer.ggml.merges, two tokens each with a blank between");
    }
    model = {
      byte_fallback: false,
      fuse_unk: false,
      unk_token: null,
      merges: merges.map((each: string) => each.split(" ")),
    };
    model.ignore_merges = cut.bos === true;
    rules = byteLevel(cut.pattern, cut.nfc === true);
    addBos = typeof get("add_bos_token") === "boolean" ? get("add_bos_token") === true : cut.bos === true;
  } else {
    throw fail(`tokenizer.ggml.model ${JSON.stringify(kind) ?? "absent"}`, "llama or gpt2");
  }
  const bos = id("bos");
  const config: Record<string, unknown> = {
    clean_up_tokenization_spaces: false,
    tokenizer_class: "PreTrainedTokenizerFast",
  };
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
        addBos && bos !== undefined
          ? beginning(bos, vocabulary.get(bos) as number)
          : (rules.post_processor ?? null),
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

function numbers(value: unknown, length: number): number[] | null {
  if (!Array.isArray(value) || value.length !== length) return null;
  return value.every((each) => typeof each === "number") ? (value as number[]) : null;
}

/** SentencePiece's BPE merges what gives the best-scored token: so merges are all pairs that give one, by its score. */
function mergesOf(vocabulary: ReadonlyMap<string, number>, scores: readonly number[]): [string, string][] {
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

function beginning(content: string, id: number): Record<string, unknown> {
  const special = { SpecialToken: { id: content, type_id: 0 } };
  return {
    type: "TemplateProcessing",
    single: [special, { Sequence: { id: "A", type_id: 0 } }],
    pair: [
      special,
      { Sequence: { id: "A", type_id: 0 } },
      { SpecialToken: { id: content, type_id: 1 } },
      { Sequence: { id: "B", type_id: 1 } },
    ],
    special_tokens: { [content]: { id: content, ids: [id], tokens: [content] } },
  };
}
