// A model behind the server: decoder, tokenizer and the running batch that all requests share; a request's text, ids or embeddings in,
// tokens and text out.
import { Batcher } from "../model/index.js";
import type { BatcherOptions, Decoder } from "../model/index.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { Embeds } from "./embeds.js";
import { publicName } from "./http-error.js";

/** What a request is continued from: token ids, or rows in their place. */
export type Prompt = { readonly ids: readonly number[] } | { readonly embeds: Embeds };

/** How it is continued. */
export interface CompletionOptions {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly maxNewTokens: number;
  readonly seed: number;
  readonly stopStrings: readonly string[];
  readonly stopTokens: readonly number[];
  readonly ignoreEos: boolean;
  readonly skipSpecialTokens: boolean;
  /** Whether the text keeps what stopped it. */
  readonly keepStop: boolean;
  readonly signal: AbortSignal;
  /** Called with all that there is after each token. */
  readonly onProgress?: (progress: Progress) => void;
}

/** A completion so far. */
export interface Progress {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly logProbs: readonly number[];
}

/** A finished completion. */
export interface Completion extends Progress {
  readonly promptTokens: number;
  /** `matched`: the token or text that stopped it. */
  readonly finish: { readonly type: "stop"; readonly matched: number | string } | { readonly type: "length" };
}

/** One model of the server. It borrows the decoder. */
export class ServedModel implements AsyncDisposable {
  /** Of a path the last part: clients see it. */
  readonly name: string;
  readonly decoder: Decoder;
  readonly tokenizer: Tokenizer;
  readonly batcher: Batcher;
  readonly stopTokens: readonly number[];

  constructor(name: string, decoder: Decoder, tokenizer: Tokenizer, options: BatcherOptions = {}) {
    this.name = publicName(name);
    this.decoder = decoder;
    this.tokenizer = tokenizer;
    this.batcher = new Batcher(decoder, options);
    const ends = new Set(decoder.config.eosIds);
    if (tokenizer.eosId !== null) ends.add(tokenizer.eosId);
    this.stopTokens = [...ends];
  }

  /** Continues one prompt. @throws NlaError as `Batcher.submit` */
  async complete(prompt: Prompt, options: CompletionOptions): Promise<Completion> {
    const { stopStrings, skipSpecialTokens, onProgress, keepStop } = options;
    const stops = [...options.stopTokens, ...(options.ignoreEos ? [] : this.stopTokens)];
    const decode = (tokens: readonly number[]) => this.tokenizer.decode(tokens, { skipSpecialTokens });
    const logProbs: number[] = [];
    let matched: string | null = null;
    const { ids, inject } = this.#input(prompt);
    const { tokens } = await this.batcher.submit({
      ids,
      inject,
      temperature: options.temperature,
      topK: options.topK,
      topP: options.topP,
      maxNewTokens: options.maxNewTokens,
      seed: options.seed,
      stopTokens: stops,
      signal: options.signal,
      onToken: ({ logProb }, sofar) => {
        logProbs.push(logProb);
        if (stopStrings.length === 0 && !onProgress) return false;
        const ended = stops.includes(sofar.at(-1) as number);
        const text = decode(ended && !keepStop ? sofar.slice(0, -1) : sofar);
        matched = stopStrings.find((each) => each !== "" && text.includes(each)) ?? null;
        onProgress?.({
          text: matched === null ? text : cut(text, matched, keepStop),
          tokens: sofar,
          logProbs,
        });
        return matched !== null;
      },
    });
    const last = tokens.at(-1) as number;
    const byToken = matched === null && stops.includes(last);
    const text = decode(byToken && !keepStop ? tokens.slice(0, -1) : tokens);
    return {
      text: matched === null ? text : cut(text, matched, keepStop),
      tokens,
      logProbs,
      promptTokens: ids.length,
      finish:
        matched !== null
          ? { type: "stop", matched }
          : byToken
            ? { type: "stop", matched: last }
            : { type: "length" },
    };
  }

  #input(prompt: Prompt) {
    if ("ids" in prompt) return { ids: prompt.ids, inject: [] };
    // Every row is replaced, so that the ids say nothing.
    const ids = prompt.embeds.map(() => 0);
    return { ids, inject: prompt.embeds.map((vector, position) => ({ position, vector })) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.batcher.drain();
  }
}

function cut(text: string, stop: string, keep: boolean): string {
  return text.slice(0, text.indexOf(stop) + (keep ? stop.length : 0));
}

/** The part of a text that further tokens will not change: a cut character shows as U+FFFD until it is whole. */
export function settled(text: string): string {
  return text.replace(/\uFFFD+$/, "");
}
