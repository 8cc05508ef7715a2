// The tokenizer of a model: text to ids and back, chat prompts, and one more token where a model has no marker for injection.
//
// Encoding is the ecosystem's JavaScript library, decoding is decoder.ts; both are held to what transformers 4.57 gives.
// Nothing here knows the model: comparing the vocabulary with the embedding is the caller's work.
import { messageOf, NlaError } from "../error.js";
import {
  nextAddedId,
  plainSpecial,
  resolveTokens,
  type NamedTokens,
  type ResolvedTokens,
} from "./added-tokens.js";
import {
  chatTemplateOf,
  compileChatTemplate,
  templateNames,
  type ChatMessage,
  type ChatTemplate,
} from "./chat-template.js";
import { createDecoder, type TokenDecoder } from "./decoder.js";
import { createLibraryTokenizer, type LibraryTokenizer } from "./library.js";
import { readTokenizerFiles, writeTokenizerFiles, isObject, type TokenizerFiles } from "./tokenizer-files.js";

/** Options of {@link Tokenizer.encode}. */
export interface EncodeOptions {
  /** Adds what the model expects around a text (BOS). Off by default: the contract's neighbours are counted without it. */
  readonly addSpecialTokens?: boolean;
}

/** Options of {@link Tokenizer.renderChat}. */
export interface RenderChatOptions {
  /** Ends the text where the assistant's reply begins. */
  readonly addGenerationPrompt?: boolean;
  /** What a template that asks for today's date is told, `YYYY-MM-DD`; the one given at load by default. */
  readonly date?: string;
}

/** Options of {@link loadTokenizer}. */
export interface LoadOptions {
  /** The date for every {@link Tokenizer.renderChat} that names none. Never today's by itself. */
  readonly date?: string;
}

/** Loads the tokenizer of a Hugging Face directory. Throws the NlaErrors of tokenizer-files.ts and added-tokens.ts. */
export async function loadTokenizer(directory: string, options: LoadOptions = {}): Promise<Tokenizer> {
  return new Tokenizer(await readTokenizerFiles(directory), options);
}

/** A tokenizer equal to transformers' fast tokenizer of the same directory. Immutable. */
export class Tokenizer {
  /** Number of ids: highest id plus one. The embedding may have more rows, never fewer. */
  readonly size: number;
  readonly bosId: number | null;
  readonly eosId: number | null;
  readonly unkId: number | null;
  readonly padId: number | null;
  /** transformers' `all_special_ids`: the named tokens and `additional_special_tokens`, not every token flagged special. */
  readonly allSpecialIds: ReadonlySet<number>;
  /** Source of the chat template, or null. */
  readonly chatTemplate: string | null;
  /** Where the files were read. */
  readonly directory: string;

  readonly #files: TokenizerFiles;
  readonly #tokens: ResolvedTokens;
  readonly #library: LibraryTokenizer;
  readonly #decoder: TokenDecoder;
  readonly #skipped: ReadonlySet<string>;
  readonly #date: string | undefined;
  #compiled: ChatTemplate | null = null;

  constructor(files: TokenizerFiles, { date }: LoadOptions = {}) {
    const subject = `${files.directory}/tokenizer.json`;
    const tokens = resolveTokens(files);
    this.directory = files.directory;
    this.chatTemplate = chatTemplateOf(files);
    this.size = tokens.size;
    this.#files = files;
    this.#tokens = tokens;
    this.#date = date;
    this.#library = libraryFor(files, tokens, subject);
    this.#decoder = createDecoder(files.rules["decoder"], subject);
    this.#skipped = new Set(tokens.added.filter((token) => token.special).map((token) => token.content));
    const idOf = (content: string | undefined): number | null =>
      content === undefined ? null : (this.#library.token_to_id(content) ?? null);
    this.bosId = idOf(tokens.named.bos_token);
    this.eosId = idOf(tokens.named.eos_token);
    this.unkId = idOf(tokens.named.unk_token);
    this.padId = idOf(tokens.named.pad_token);
    this.allSpecialIds = new Set(
      [...Object.values(tokens.named), ...tokens.additional].map((content) => idOf(content) as number),
    );
  }

  /**
   * Ids of a text. Special tokens spelled in it are recognised, as in transformers. Throws `tokenizer.encode` where the
   * vocabulary has no token for a part of it and no unknown token either.
   */
  encode(text: string, { addSpecialTokens = false }: EncodeOptions = {}): number[] {
    const { ids, tokens } = this.#library.encode(text, { add_special_tokens: addSpecialTokens });
    const missing = ids.findIndex((id) => id === undefined);
    if (missing !== -1) {
      throw new NlaError({
        code: "tokenizer.encode",
        subject: this.directory,
        found: `token ${JSON.stringify(tokens[missing])} without an id`,
        wanted: "a vocabulary that covers the text, or an unknown token",
        next: "Check that tokenizer.json is complete.",
      });
    }
    return ids as number[];
  }

  /**
   * Text of ids as transformers 4.57 decodes them: special tokens left out unless asked for, blanks before punctuation removed if
   * the tokenizer's `clean_up_tokenization_spaces` says so, cut characters as U+FFFD. Ids from `size` up (padding rows of an
   * embedding) have no text. Throws `tokenizer.id` for what is not a whole number from 0.
   */
  decode(
    ids: readonly number[],
    { skipSpecialTokens = true }: { readonly skipSpecialTokens?: boolean } = {},
  ): string {
    const tokens: string[] = [];
    for (const id of ids) {
      const token = this.#tokenOf(id);
      if (token === undefined || (skipSpecialTokens && this.#skipped.has(token))) continue;
      tokens.push(token);
    }
    const text = this.#decoder.decode(tokens);
    return this.#files.config["clean_up_tokenization_spaces"] === true ? cleanUp(text) : text;
  }

  /**
   * One string per id, special tokens by their names; joined they read as the text before clean-up of blanks. A character of several
   * tokens stands at the last of them. An id without a token is `<id 151700>`. Throws as {@link decode} does.
   */
  pieces(ids: readonly number[]): string[] {
    const tokens = ids.map((id) => this.#tokenOf(id));
    const known = this.#decoder.pieces(tokens.filter((token) => token !== undefined));
    let next = 0;
    return tokens.map((token, i) => (token === undefined ? `<id ${ids[i]}>` : (known[next++] as string)));
  }

  /**
   * The messages as text by the model's chat template, with the variables that transformers passes. Throws `chat.missing` without
   * a template, and the errors of {@link ChatTemplate.render}.
   */
  renderChat(
    messages: readonly ChatMessage[],
    { addGenerationPrompt = false, date = this.#date }: RenderChatOptions = {},
  ): string {
    this.#compiled ??= this.#compile();
    const { named, additional } = this.#tokens;
    return this.#compiled.render(
      {
        ...named,
        ...(additional.length > 0 ? { additional_special_tokens: additional } : {}),
        messages,
        tools: null,
        documents: null,
        add_generation_prompt: addGenerationPrompt,
      },
      date === undefined ? {} : { date },
    );
  }

  /**
   * A copy of this tokenizer with one more special token, at id `size`, and that id. It is skipped in decoding and cut out of a text
   * wherever it is spelled, but is not one of `allSpecialIds`. Throws `tokenizer.added` for a token that is empty or there
   * already, or where Python would give it another id (a vocabulary with holes).
   */
  withAddedToken(content: string): { tokenizer: Tokenizer; id: number } {
    const { rules, config } = this.#files;
    const id = this.size;
    const taken = this.#library.token_to_id(content);
    const inPython = nextAddedId(rules, this.#tokens.added);
    if (content === "" || taken !== undefined || inPython !== id) {
      throw new NlaError({
        code: "tokenizer.added",
        subject: `${this.directory}, added token ${JSON.stringify(content)}`,
        found:
          content === ""
            ? "no characters"
            : taken !== undefined
              ? `the same token at id ${taken}`
              : `a vocabulary with holes: its next id is ${inPython}, its size ${id}`,
        wanted: `a new token at id ${id}`,
        next: "Choose another string, or use the token that is there.",
      });
    }
    const { id: _, ...flags } = plainSpecial(id, content);
    const decoderOf = config["added_tokens_decoder"];
    const files: TokenizerFiles = {
      ...this.#files,
      rules: { ...rules, added_tokens: [...this.#tokens.added, plainSpecial(id, content)] },
      config: { ...config, added_tokens_decoder: { ...(isObject(decoderOf) ? decoderOf : {}), [id]: flags } },
    };
    return { tokenizer: new Tokenizer(files, this.#date === undefined ? {} : { date: this.#date }), id };
  }

  /** The files with every added token in tokenizer.json, wherever it was named: for writing them in another format. */
  get files(): TokenizerFiles {
    const { rules } = this.#files;
    return { ...this.#files, rules: { ...rules, added_tokens: this.#tokens.added } };
  }

  /** Writes tokenizer.json, tokenizer_config.json and chat_template.jinja, for this package and for transformers. */
  async save(directory: string): Promise<void> {
    await writeTokenizerFiles(this.#files, directory);
  }

  #tokenOf(id: number): string | undefined {
    if (Number.isInteger(id) && id >= 0) return this.#library.id_to_token(id);
    throw new NlaError({
      code: "tokenizer.id",
      subject: this.directory,
      found: `token id ${id}`,
      wanted: `whole numbers from 0 to ${this.size - 1}`,
      next: "Check where the ids come from.",
    });
  }

  #compile(): ChatTemplate {
    const subject = `chat template of ${this.directory}`;
    if (this.chatTemplate !== null) return compileChatTemplate(this.chatTemplate, subject);
    const names = templateNames(this.#files);
    throw new NlaError({
      code: "chat.missing",
      subject,
      found: names.length === 0 ? "none" : `templates named ${names.join(", ")}, none of them "default"`,
      wanted: "chat_template.jinja, or chat_template in tokenizer_config.json",
      next: "Use a plain prompt for this model, or add the template of its chat version.",
    });
  }
}

function libraryFor(files: TokenizerFiles, tokens: ResolvedTokens, subject: string): LibraryTokenizer {
  try {
    return createLibraryTokenizer(
      {
        ...files.rules,
        added_tokens: tokens.added,
        decoder: null, // decoder.ts decodes
        post_processor: postProcessorOf(files, tokens.named),
      },
      tokens.named.eos_token,
    );
  } catch (cause) {
    throw new NlaError({
      code: "tokenizer.unusable",
      subject,
      found: messageOf(cause),
      wanted: "rules that the tokenizer library knows",
      next: "Download the tokenizer again; if it is whole, its kind is not supported.",
      cause,
    });
  }
}

/** Classes that rebuild their post-processor from add_bos_token and add_eos_token, whatever tokenizer.json says. */
const REBUILT = /^(Llama|CodeLlama|Gemma)Tokenizer(Fast)?$/;

function postProcessorOf({ rules, config }: TokenizerFiles, { bos_token, eos_token }: NamedTokens): unknown {
  const stored = rules["post_processor"] ?? null;
  if (typeof config["tokenizer_class"] !== "string" || !REBUILT.test(config["tokenizer_class"]))
    return stored;
  const bos = config["add_bos_token"] === false ? undefined : bos_token;
  const eos = config["add_eos_token"] === true ? eos_token : undefined;
  const single = [...specialItem(bos), { Sequence: { id: "A", type_id: 0 } }, ...specialItem(eos)];
  return { type: "TemplateProcessing", single, pair: single, special_tokens: {} };
}

function specialItem(id: string | undefined): object[] {
  return id === undefined ? [] : [{ SpecialToken: { id, type_id: 0 } }];
}

/** transformers' `clean_up_tokenization`: blanks before punctuation and English contractions go, in this order. */
function cleanUp(text: string): string {
  return text
    .replaceAll(" .", ".")
    .replaceAll(" ?", "?")
    .replaceAll(" !", "!")
    .replaceAll(" ,", ",")
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}
