// From tokens back to text: the decoder section of tokenizer.json, written out here because the tokenizer library differs from
// the Rust one that the reference runs (see the comment at each step).
//
// Works on token strings; ids, special tokens and clean-up of blanks are tokenizer.ts's.
import { NlaError } from "../error.js";
import { createLibraryDecoder } from "./library.js";
import { isObject, type JsonObject } from "./tokenizer-files.js";

/** Turns tokens into text, whole or token by token. */
export interface TokenDecoder {
  /** The text of the tokens, as transformers decodes them. */
  decode(tokens: readonly string[]): string;
  /**
   * One string per token; joined they read as the text. A character that several tokens make up stands at the last of them
   * (the others are ""), and bytes that never become a character are U+FFFD.
   */
  pieces(tokens: readonly string[]): string[];
}

/** One step: `whole` may change the number of strings, `each` keeps one string per token. */
interface Step {
  whole(tokens: string[]): string[];
  each(tokens: string[], fused: boolean): string[];
}

/** Builds the decoder of `config` (null: tokens joined by blanks). Throws `tokenizer.decoder` for a type nobody knows. */
export function createDecoder(config: unknown, subject: string): TokenDecoder {
  if (config === null || config === undefined) {
    return {
      decode: (tokens) => tokens.join(" "),
      pieces: (tokens) => tokens.map((token, i) => (i === 0 ? token : ` ${token}`)),
    };
  }
  const flat = flatten(config);
  const steps = flat.map((part) => createStep(part, subject));
  return {
    decode: (tokens) => steps.reduce((strings, step) => step.whole(strings), [...tokens]).join(""),
    pieces(tokens) {
      let fused = false;
      let strings = [...tokens];
      steps.forEach((step, i) => {
        strings = step.each(strings, fused);
        fused ||= isObject(flat[i]) && flat[i]["type"] === "Fuse";
      });
      return strings;
    },
  };
}

function flatten(config: unknown): unknown[] {
  if (!isObject(config) || config["type"] !== "Sequence") return [config];
  return Array.isArray(config["decoders"]) ? config["decoders"].flatMap(flatten) : [];
}

function createStep(config: unknown, subject: string): Step {
  const type = isObject(config) ? config["type"] : undefined;
  switch (type) {
    case "ByteLevel":
      return byteLevel;
    case "ByteFallback":
      return byteFallback;
    case "Fuse":
      return { whole: (tokens) => [tokens.join("")], each: (tokens) => tokens };
    case "Strip":
      return strip(config as JsonObject);
    case "Metaspace":
      return positional(metaspace(config as JsonObject));
    case "Replace":
      return replace(config as JsonObject);
    case "WordPiece":
      return library("WordPieceDecoder", config);
    case "BPEDecoder":
      return library("BPEDecoder", config);
    case "CTC":
      return library("CTCDecoder", config);
    default:
      throw new NlaError({
        code: "tokenizer.decoder",
        subject,
        found: `decoder type ${JSON.stringify(type) ?? "absent"}`,
        wanted:
          "ByteLevel, ByteFallback, Fuse, Strip, Metaspace, Replace, WordPiece, BPEDecoder, CTC or a Sequence of them",
        next: "Use a model with another tokenizer.",
      });
  }
}

function positional(map: (token: string, index: number) => string): Step {
  const each = (tokens: string[]) => tokens.map(map);
  return { whole: each, each };
}

function library(name: Parameters<typeof createLibraryDecoder>[0], config: unknown): Step {
  const decoder = createLibraryDecoder(name, config);
  const whole = (tokens: string[]) => decoder.decode_chain(tokens);
  return { whole, each: (tokens) => (whole(tokens).length === tokens.length ? whole(tokens) : tokens) };
}

const encoder = new TextEncoder();
const lossy = () => new TextDecoder("utf-8", { ignoreBOM: true });

/** GPT-2's table from printable characters to bytes: printable bytes stand for themselves, the others follow U+0100. */
const BYTE_OF_CHARACTER: ReadonlyMap<string, number> = (() => {
  const table = new Map<string, number>();
  let spare = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    table.set(String.fromCodePoint(printable ? byte : spare++), byte);
  }
  return table;
})();

/** A token with a character outside the table is an added one: all of it is taken as UTF-8, as in Rust. */
function bytesOf(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTE_OF_CHARACTER.get(character);
    if (byte === undefined) return encoder.encode(token);
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/**
 * All bytes are decoded at once. The library starts anew at each added token and drops characters outside its table, so an added
 * token such as a circled digit lost its letters.
 */
const byteLevel: Step = {
  whole: (tokens) => [lossy().decode(Buffer.concat(tokens.map(bytesOf)))],
  each: (tokens) => streamed(tokens.map(bytesOf)),
};

/** Decodes byte strings one after the other; bytes left over at the end show at the last. */
function streamed(chunks: readonly Uint8Array[]): string[] {
  const decoder = lossy();
  return chunks.map((bytes, i) => decoder.decode(bytes, { stream: i < chunks.length - 1 }));
}

function fallbackByte(token: string): number | null {
  const digits = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
  return digits === undefined ? null : Number.parseInt(digits, 16);
}

/**
 * A run of byte tokens is one string if it is valid UTF-8; if it is not, EVERY byte of the run is U+FFFD, complete characters
 * before the cut included. The library replaces only the broken bytes, and swallows a byte order mark.
 */
const byteFallback: Step = {
  whole(tokens) {
    return byteRuns(tokens).flatMap((run) => {
      if (typeof run === "string") return [run];
      try {
        return [new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(run))];
      } catch {
        return run.map(() => "\uFFFD"); // not a failure: what the Rust decoder gives for such a run
      }
    });
  },
  each(tokens) {
    return byteRuns(tokens).flatMap((run) =>
      typeof run === "string" ? [run] : streamed(run.map((byte) => Uint8Array.of(byte))),
    );
  },
};

function byteRuns(tokens: readonly string[]): (string | number[])[] {
  const runs: (string | number[])[] = [];
  for (const token of tokens) {
    const byte = fallbackByte(token);
    const last = runs.at(-1);
    if (byte === null) runs.push(token);
    else if (Array.isArray(last)) last.push(byte);
    else runs.push([byte]);
  }
  return runs;
}

/** In the first token every mark goes, not only the first one (the library takes one); with `never` they are all blanks. */
function metaspace(config: JsonObject): (token: string, index: number) => string {
  const mark = typeof config["replacement"] === "string" ? config["replacement"] : "\u2581";
  const prepends = config["prepend_scheme"] !== "never" && config["add_prefix_space"] !== false;
  return (token, index) => token.replaceAll(mark, () => (index === 0 && prepends ? "" : " "));
}

function replace(config: JsonObject): Step {
  const pattern = isObject(config["pattern"]) ? config["pattern"] : {};
  const content = typeof config["content"] === "string" ? config["content"] : "";
  const literal = pattern["String"];
  // A function as replacement, because "$" in a replacement string has a meaning that the content does not mean.
  if (typeof literal === "string") return positional((token) => token.replaceAll(literal, () => content));
  return library("ReplaceDecoder", config);
}

function strip(config: JsonObject): Step {
  const content = typeof config["content"] === "string" ? config["content"] : " ";
  const start = Number(config["start"] ?? 0);
  const stop = Number(config["stop"] ?? 0);
  const one = (token: string): string => stripEnd(stripStart(token, content, start), content, stop);
  return {
    whole: (tokens) => tokens.map(one),
    each(tokens, fused) {
      if (!fused) return tokens.map(one);
      const strings = [...tokens]; // after Fuse the edges are those of the whole text, over however many tokens
      for (let i = 0, left = start; i < strings.length && left > 0; i++) {
        const before = strings[i] as string;
        const after = stripStart(before, content, left);
        strings[i] = after;
        if (after !== "") break;
        left -= before.length;
      }
      for (let i = strings.length - 1, left = stop; i >= 0 && left > 0; i--) {
        const before = strings[i] as string;
        const after = stripEnd(before, content, left);
        strings[i] = after;
        if (after !== "") break;
        left -= before.length;
      }
      return strings;
    },
  };
}

function stripStart(text: string, content: string, most: number): string {
  let cut = 0;
  while (cut < most && cut < text.length && text[cut] === content) cut++;
  return text.slice(cut);
}

function stripEnd(text: string, content: string, most: number): string {
  let cut = 0;
  while (cut < most && cut < text.length && text[text.length - 1 - cut] === content) cut++;
  return text.slice(0, text.length - cut);
}
