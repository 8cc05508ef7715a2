// A tokenizer as the metadata of a GGUF file, so that llama.cpp, and whatever else reads such files, makes the same ids. GGUF knows kinds
// of tokenizers, not rules: what is none of them is refused, and what was written is read back and compared before it is given out.
// Flags of added tokens (lstrip, rstrip, normalized) have no place in the format; what else has none is under keys of our own.
import { NlaError } from "../error.js";
import {
  ADDITIONAL,
  CLEAN_UP,
  CUTS,
  ggufTokenizerFiles,
  mergesOf,
  SPACE,
  TOKEN_TYPES,
} from "./gguf-tokenizer.js";
import { isObject } from "./tokenizer-files.js";
import type { JsonObject } from "./tokenizer-files.js";
import { Tokenizer } from "./tokenizer.js";
import { TRIAL_TEXTS } from "./trial-texts.js";

/** A value of the metadata with its type, as data/gguf-write.ts takes it. */
export type TokenizerField =
  | { readonly type: "u32"; readonly value: number }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "i32[]" | "f32[]"; readonly value: readonly number[] }
  | { readonly type: "string[]"; readonly value: readonly string[] };

/** What the tokenizer alone does not say. */
export interface GgufTokenizerOptions {
  /** Rows of the embedding: rows without a token get a name. */
  readonly vocabulary: number;
  /** Ids that end a text, from the model's config. Defaults to the tokenizer's EOS. */
  readonly endIds?: readonly number[];
}

/** A tokenizer as fields. */
export interface GgufTokenizer {
  readonly fields: ReadonlyMap<string, TokenizerField>;
  /** What is lost, in words for people. */
  readonly notes: readonly string[];
}

const BYTE = /^<0x[0-9A-F]{2}>$/;

/**
 * The fields of a tokenizer.
 *
 * @throws NlaError `gguf.tokenizer` naming what GGUF cannot say: a kind other than BPE, a way of cutting words that llama.cpp has no
 *   name for, merges in an order that scores cannot give, more than three ends, or texts that would get other ids
 */
export function ggufTokenizerFields(tokenizer: Tokenizer, options: GgufTokenizerOptions): GgufTokenizer {
  const fields = new Map<string, TokenizerField>();
  const add = (name: string, field: TokenizerField) => fields.set(`tokenizer.ggml.${name}`, field);
  const { rules } = tokenizer.files;
  const { tokens, types } = tokensOf(tokenizer, options.vocabulary);
  const kind = kindOf(tokenizer);
  add("model", { type: "string", value: kind.model });
  if (kind.pre !== null) add("pre", { type: "string", value: kind.pre });
  add("tokens", { type: "string[]", value: tokens });
  const ranks = mergesIn(rules.model, tokenizer);
  if (kind.model === "llama") {
    add("scores", { type: "f32[]", value: scoresOf(tokens, ranks) });
    add("add_space_prefix", { type: "bool", value: kind.prefix });
  } else add("merges", { type: "string[]", value: ranks.map((pair) => pair.join(" ")) });
  if (kind.model === "gemma4") {
    // What is no normal token is never merged: bytes, too, which texts may spell.
    add("scores", { type: "f32[]", value: types.map((type) => (type === TOKEN_TYPES.normal ? 0 : -1000)) });
    add("add_space_prefix", { type: "bool", value: false });
  }
  const bytes = kind.model !== "gpt2";
  add("token_type", {
    type: "i32[]",
    value: types.map((type, id) => (bytes && BYTE.test(tokens[id] as string) ? TOKEN_TYPES.byte : type)),
  });
  const ids = specialIds(tokenizer, options);
  for (const [name, id] of ids) if (id !== null) add(`${name}_token_id`, { type: "u32", value: id });
  const { first, last } = surroundings(tokenizer);
  add("add_bos_token", { type: "bool", value: first });
  add("add_eos_token", { type: "bool", value: last });
  if (tokenizer.chatTemplate !== null) {
    fields.set("tokenizer.chat_template", { type: "string", value: tokenizer.chatTemplate });
  }
  const { config } = tokenizer.files;
  fields.set(CLEAN_UP, { type: "bool", value: config["clean_up_tokenization_spaces"] === true });
  const named = new Set([tokenizer.bosId, tokenizer.eosId, tokenizer.unkId, tokenizer.padId]);
  const additional = [...tokenizer.allSpecialIds].filter((id) => !named.has(id));
  if (additional.length > 0) fields.set(ADDITIONAL, { type: "i32[]", value: additional });
  return { fields, notes: compare(tokenizer, fields) };
}

function refused(tokenizer: Tokenizer, found: string, wanted: string): NlaError {
  return new NlaError({
    code: "gguf.tokenizer",
    subject: `the tokenizer of ${tokenizer.directory}`,
    found,
    wanted,
    next: "Write the file without a tokenizer (--no-tokenizer), and give programs the ids.",
  });
}

function tokensOf(tokenizer: Tokenizer, vocabulary: number): { tokens: string[]; types: number[] } {
  const { rules } = tokenizer.files;
  if (tokenizer.size > vocabulary) {
    throw refused(tokenizer, `${tokenizer.size} ids`, `at most ${vocabulary}, the rows of the embedding`);
  }
  if (rules.model.type !== "BPE") throw refused(tokenizer, `the kind ${rules.model.type}`, "BPE");
  const tokens: string[] = [];
  for (const [token, id] of Object.entries(rules.model["vocab"] as Record<string, number>))
    tokens[id] = token;
  const types = Array.from({ length: vocabulary }, () => TOKEN_TYPES.normal as number);
  for (const each of rules["added_tokens"] as readonly { id: number; content: string; special: boolean }[]) {
    tokens[each.id] = each.content;
    types[each.id] = each.special ? TOKEN_TYPES.control : TOKEN_TYPES.userDefined;
  }
  if (tokenizer.unkId !== null) types[tokenizer.unkId] = TOKEN_TYPES.unknown;
  const taken = new Set(tokens);
  for (let id = 0; id < vocabulary; id++) {
    if (tokens[id] !== undefined) continue;
    const name = `[PAD${id}]`;
    if (taken.has(name)) throw refused(tokenizer, `a token ${name} that is not id ${id}`, `no such token`);
    tokens[id] = name;
    types[id] = TOKEN_TYPES.unused;
  }
  return { tokens, types };
}

interface Kind {
  readonly model: "llama" | "gpt2" | "gemma4";
  readonly pre: string | null;
  /** Whether a blank is put before a text. */
  readonly prefix: boolean;
}

function kindOf(tokenizer: Tokenizer): Kind {
  const { rules } = tokenizer.files;
  const normalizers = parts(rules["normalizer"], "normalizers");
  const cuts = parts(rules["pre_tokenizer"], "pretokenizers");
  if (cuts.at(-1)?.["type"] === "ByteLevel") return byteLevel(tokenizer, normalizers, cuts);
  const fail = (found: string) =>
    refused(
      tokenizer,
      found,
      `blanks replaced by ${SPACE} and bytes for what has no token, as SentencePiece has it`,
    );
  if (rules.model["byte_fallback"] !== true) throw fail("a BPE of words, without bytes");
  const types = [...normalizers, ...cuts].map((each) => String(each["type"])).join(" ");
  const replaces = normalizers.some((each) => each["type"] === "Replace" && each["content"] === SPACE);
  const metaspace = cuts.find((each) => each["type"] === "Metaspace");
  if (!/^(Prepend |Strip )?(Replace( Split)?|Metaspace)$/.test(types) || (!replaces && !metaspace))
    throw fail(`the steps ${types || "none"}`);
  const scheme = metaspace?.["prepend_scheme"] ?? (metaspace?.["add_prefix_space"] === true ? "always" : "");
  const prefix =
    types.startsWith("Prepend") || (metaspace !== undefined && scheme !== "never" && scheme !== "");
  if (fromScores(tokenizer)) return { model: "llama", pre: null, prefix };
  if (prefix || !surroundings(tokenizer).first) {
    throw refused(
      tokenizer,
      "merges in an order that scores of tokens cannot give",
      "those of a SentencePiece vocabulary; or no blank before texts, and BOS",
    );
  }
  return { model: "gemma4", pre: null, prefix };
}

function byteLevel(
  tokenizer: Tokenizer,
  normalizers: readonly JsonObject[],
  cuts: readonly JsonObject[],
): Kind {
  const { rules } = tokenizer.files;
  const last = cuts.at(-1) as JsonObject;
  const types = normalizers.map((each) => String(each["type"])).join(" ");
  const split = cuts.length === 2 ? cuts[0] : undefined;
  const pattern = isObject(split?.["pattern"]) ? split["pattern"]["Regex"] : null;
  const whole = cuts.length === 1 && last["use_regex"] !== false;
  const cut =
    split?.["type"] === "Split" && split["behavior"] === "Isolated" && last["use_regex"] === false
      ? pattern
      : whole
        ? null
        : undefined;
  const ignores = rules.model["ignore_merges"] === true;
  const found = Object.entries(CUTS).find(
    ([, known]) =>
      known.pattern === cut &&
      (known.nfc === true ? types === "NFC" : types === "") &&
      (known.bos === true) === ignores,
  );
  if (found && last["add_prefix_space"] !== true) return { model: "gpt2", pre: found[0], prefix: false };
  const names = Object.keys(CUTS).join(", ");
  throw refused(
    tokenizer,
    `words cut by ${JSON.stringify(cut ?? cuts)}${types ? ` after ${types}` : ""}${ignores ? ", whole words not merged" : ""}`,
    `what llama.cpp calls one of ${names}`,
  );
}

/** A step, or the steps of a sequence. */
function parts(step: unknown, list: string): JsonObject[] {
  if (!isObject(step)) return [];
  if (step["type"] !== "Sequence") return [step];
  return ((step[list] ?? []) as unknown[]).flatMap((each) => parts(each, list));
}

function mergesIn(model: JsonObject, tokenizer: Tokenizer): [string, string][] {
  const merges = model["merges"];
  if (!Array.isArray(merges)) throw refused(tokenizer, "no merges", "a list of merges");
  return merges.map((merge: unknown) => (typeof merge === "string" ? merge.split(" ") : merge)) as [
    string,
    string,
  ][];
}

/** The earlier a token can be merged, the better its score; what no merge gives has the worst. */
function scoresOf(tokens: readonly string[], ranks: readonly (readonly [string, string])[]): number[] {
  const first = new Map<string, number>();
  for (const [rank, pair] of ranks.entries()) {
    const token = pair.join("");
    if (!first.has(token)) first.set(token, rank);
  }
  return tokens.map((token) => -(first.get(token) ?? ranks.length));
}

/** Whether scores say the same as the merges: each pair of tokens that makes a token is a merge, which is all that SentencePiece has. */
function fromScores(tokenizer: Tokenizer): boolean {
  const { rules } = tokenizer.files;
  const vocabulary = new Map(Object.entries(rules.model["vocab"] as Record<string, number>));
  const merges = new Set(mergesIn(rules.model, tokenizer).map((pair) => pair.join("\u0000")));
  const scores = Array.from({ length: tokenizer.size }, () => 0);
  return mergesOf(vocabulary, scores).every((pair) => merges.has(pair.join("\u0000")));
}

function specialIds(
  tokenizer: Tokenizer,
  { endIds = [] }: GgufTokenizerOptions,
): [name: string, id: number | null][] {
  const eos = tokenizer.eosId ?? endIds[0] ?? null;
  const others = endIds.filter((id) => id !== eos);
  if (others.length > 2) {
    throw refused(tokenizer, `${others.length + 1} ids that end a text`, "at most three");
  }
  return [
    ["bos", tokenizer.bosId],
    ["eos", eos],
    ["eot", others[0] ?? null],
    ["eom", others[1] ?? null],
    ["unknown", tokenizer.unkId],
    ["padding", tokenizer.padId],
  ];
}

/** What is put around a text. Seen from what comes out, because four places of the files can ask for it. */
function surroundings(tokenizer: Tokenizer): { first: boolean; last: boolean } {
  const bare = tokenizer.encode("a");
  const all = tokenizer.encode("a", { addSpecialTokens: true });
  const first = all.length > bare.length && all[0] === tokenizer.bosId;
  const last = all.length > bare.length && all.at(-1) === tokenizer.eosId;
  if (all.length === bare.length + Number(first) + Number(last)) return { first, last };
  throw refused(tokenizer, `${all.length - bare.length} tokens around a text`, "BOS before it, EOS after it");
}

/**
 * What is read back must make the same ids and texts of ordinary texts and of a chat.
 *
 * @returns a note where texts that spell special tokens get other ids
 */
function compare(tokenizer: Tokenizer, fields: ReadonlyMap<string, TokenizerField>): string[] {
  const values = new Map([...fields].map(([key, { value }]) => [key, value]));
  const again = new Tokenizer(ggufTokenizerFiles(tokenizer.directory, values));
  const differ = (text: string) => {
    const [ours, theirs] = [tokenizer, again].map((each) => {
      const ids = each.encode(text, { addSpecialTokens: true });
      return JSON.stringify([ids, each.decode(ids), each.decode(ids, { skipSpecialTokens: false })]);
    });
    return ours !== theirs;
  };
  const chat = [{ role: "user", content: "Hello, is this the same?" }] as const;
  const rendered = (each: Tokenizer) => each.renderChat(chat, { addGenerationPrompt: true });
  const texts = [...TRIAL_TEXTS, ...(tokenizer.chatTemplate === null ? [] : [rendered(tokenizer)])];
  const wrong = texts.filter(differ);
  if (wrong.length > 0) {
    throw refused(
      tokenizer,
      `other ids or texts for ${wrong.length} of ${texts.length} texts, ${JSON.stringify(wrong[0])} first`,
      "the same in the GGUF file",
    );
  }
  const added = tokenizer.files.rules["added_tokens"] as readonly { content: string }[];
  const lost = added.filter(({ content }) => differ(`one${content}two ${content}`));
  if (lost.length === 0) return [];
  const [first] = lost as [{ content: string }];
  return [
    `${lost.length} of ${added.length} special tokens are cut out of a text otherwise than before, ${first.content} for one: a GGUF file does not say whether blanks around them belong to them`,
  ];
}
