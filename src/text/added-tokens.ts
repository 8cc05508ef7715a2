// Added and special tokens: which strings are cut out of a text before the model sees it, which ids are special, and which
// of them are the named ones (bos, eos, unk, pad). The rules are those of transformers 4.57 at load.
//
// Pure functions over the parsed files.
import { NlaError } from "../error.js";
import { isObject, type JsonObject, type TokenizerFiles } from "./tokenizer-files.js";

/** One entry of `added_tokens`, with every flag set. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly single_word: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly normalized: boolean;
  readonly special: boolean;
}

/** The special tokens with a name, by content; those that are not set are absent. */
export type NamedTokens = Readonly<Partial<Record<TokenName, string>>>;

/** Named tokens in transformers' order. */
export const TOKEN_NAMES = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
] as const;
export type TokenName = (typeof TOKEN_NAMES)[number];

/** What {@link resolveTokens} found. */
export interface ResolvedTokens {
  /** Sorted by id. */
  readonly added: readonly AddedToken[];
  readonly named: NamedTokens;
  /** `additional_special_tokens`: in `all_special_ids` together with the named ones. */
  readonly additional: readonly string[];
  /** Highest id of model and added tokens, plus one. */
  readonly size: number;
}

const MAX_IDS = 2 ** 22; // sixteen times the largest real vocabulary; a forged id must not size an array

/**
 * Merges the three places where tokens are named. Added tokens come from tokenizer.json; `added_tokens_decoder` of the config
 * overrides their flags and may add more; a named special token that is only in the model's vocabulary becomes an added one, so
 * that it is found in a text and skipped in decoding. Throws NlaError: `tokenizer.vocabulary` for ids that are not whole numbers
 * or are taken twice, `tokenizer.special_missing` for a named token without an id, `tokenizer.single_word` for a flag that the
 * tokenizer library ignores.
 */
export function resolveTokens(files: TokenizerFiles): ResolvedTokens {
  const { rules, config } = files;
  const subject = `${files.directory}/tokenizer.json`;
  const vocabulary = modelVocabulary(rules.model["vocab"], subject);
  const byContent = new Map<string, AddedToken>();
  for (const entry of listOf(rules["added_tokens"])) {
    const token = addedToken(entry, isObject(entry) ? entry["id"] : undefined, subject);
    byContent.set(token.content, token);
  }
  for (const [id, entry] of Object.entries(
    isObject(config["added_tokens_decoder"]) ? config["added_tokens_decoder"] : {},
  )) {
    const token = addedToken(entry, Number(id), `${files.directory}/tokenizer_config.json`);
    byContent.set(token.content, { ...token, id: byContent.get(token.content)?.id ?? token.id });
  }
  const { named, additional } = namedTokens(files);
  for (const content of [...Object.values(named), ...additional]) {
    const present = byContent.get(content);
    const id = present?.id ?? vocabulary.idOf(content);
    if (id === undefined) throw missingSpecial(content, files);
    byContent.set(content, present === undefined ? plainSpecial(id, content) : { ...present, special: true });
  }
  const added = [...byContent.values()].sort((a, b) => a.id - b.id);
  refuseConflicts(added, vocabulary, subject);
  const size = added.reduce((most, token) => Math.max(most, token.id + 1), vocabulary.size);
  return { added, named, additional, size };
}

/** A special token as transformers makes it from a bare string: cut out before normalisation, blanks around it kept. */
export function plainSpecial(id: number, content: string): AddedToken {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
}

/**
 * The id that the Rust library gives the next added token when it loads the file. It is `size` unless the vocabulary has holes,
 * in which case a token at `size` would land elsewhere in Python.
 */
export function nextAddedId(rules: TokenizerFiles["rules"], added: readonly AddedToken[]): number {
  const vocab = rules.model["vocab"];
  const count = Array.isArray(vocab) ? vocab.length : Object.keys(vocab as object).length;
  const highest = added.reduce((most, token) => Math.max(most, token.id), -1);
  return highest >= count ? highest + 1 : count;
}

interface Vocabulary {
  readonly size: number;
  idOf(content: string): number | undefined;
  contentOf(id: number): string | undefined;
}

function modelVocabulary(vocab: unknown, subject: string): Vocabulary {
  const entries: [string, unknown][] = Array.isArray(vocab)
    ? vocab.map((entry: unknown, id) => [Array.isArray(entry) ? String(entry[0]) : "", id]) // Unigram: [piece, score] by id
    : isObject(vocab)
      ? Object.entries(vocab)
      : [];
  if (entries.length === 0) throw badVocabulary(subject, "no vocabulary", "a token for each id");
  const ids = new Map<string, number>();
  const contents = new Map<number, string>();
  for (const [content, id] of entries) {
    if (!isTokenId(id))
      throw badVocabulary(subject, `id ${JSON.stringify(id)} for ${JSON.stringify(content)}`, wantedId);
    const other = contents.get(id);
    if (other !== undefined) {
      const found = `id ${id} for both ${JSON.stringify(other)} and ${JSON.stringify(content)}`;
      throw badVocabulary(subject, found, "one token for each id");
    }
    ids.set(content, id);
    contents.set(id, content);
  }
  let size = 0;
  for (const id of contents.keys()) size = Math.max(size, id + 1);
  return { size, idOf: (content) => ids.get(content), contentOf: (id) => contents.get(id) };
}

const wantedId = `whole numbers from 0 to ${MAX_IDS - 1}`;

function isTokenId(id: unknown): id is number {
  return Number.isInteger(id) && (id as number) >= 0 && (id as number) < MAX_IDS;
}

function badVocabulary(subject: string, found: string, wanted: string): NlaError {
  const next = "Download the tokenizer again.";
  return new NlaError({ code: "tokenizer.vocabulary", subject, found, wanted, next });
}

function addedToken(entry: unknown, id: unknown, subject: string): AddedToken {
  const content = isObject(entry) ? entry["content"] : undefined;
  if (!isObject(entry) || typeof content !== "string" || content === "" || !isTokenId(id)) {
    throw badVocabulary(
      subject,
      `added token ${JSON.stringify(entry)} with id ${String(id)}`,
      `content and an id, ${wantedId}`,
    );
  }
  if (entry["single_word"] === true) {
    throw new NlaError({
      code: "tokenizer.single_word",
      subject,
      found: `added token ${JSON.stringify(content)} with single_word true`,
      wanted: "added tokens that match anywhere",
      next: "Use another tokenizer: this flag is not supported, and ignoring it would give wrong ids.",
    });
  }
  const special = entry["special"] === true;
  return {
    id,
    content,
    single_word: false,
    lstrip: entry["lstrip"] === true,
    rstrip: entry["rstrip"] === true,
    normalized: typeof entry["normalized"] === "boolean" ? entry["normalized"] : !special,
    special,
  };
}

/** Named tokens are strings or objects with `content`; the map file counts only where the config has no entry. */
function namedTokens({ config, specialTokensMap }: TokenizerFiles): {
  named: NamedTokens;
  additional: string[];
} {
  const named: Partial<Record<TokenName, string>> = {};
  for (const name of TOKEN_NAMES) {
    const content = contentOf(name in config ? config[name] : specialTokensMap[name]);
    if (content !== null) named[name] = content;
  }
  const source: JsonObject = "additional_special_tokens" in config ? config : specialTokensMap;
  const additional = listOf(source["additional_special_tokens"])
    .map(contentOf)
    .filter((content) => content !== null);
  return { named, additional };
}

function contentOf(token: unknown): string | null {
  const content = isObject(token) ? token["content"] : token;
  return typeof content === "string" && content !== "" ? content : null;
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function missingSpecial(content: string, files: TokenizerFiles): NlaError {
  return new NlaError({
    code: "tokenizer.special_missing",
    subject: `${files.directory}/tokenizer_config.json`,
    found: `special token ${JSON.stringify(content)}, which tokenizer.json does not have`,
    wanted: "special tokens with an id",
    next: "Take both files from the same model.",
  });
}

function refuseConflicts(added: readonly AddedToken[], vocabulary: Vocabulary, subject: string): void {
  added.forEach(({ id, content }, i) => {
    const other = added[i - 1]?.id === id ? added[i - 1]?.content : vocabulary.contentOf(id);
    if (other === undefined || other === content) return;
    throw badVocabulary(
      subject,
      `id ${id} for both ${JSON.stringify(other)} and ${JSON.stringify(content)}`,
      "one token for each id",
    );
  });
}
