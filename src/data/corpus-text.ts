// Text files of a corpus, streamed: UTF-8 checked byte by byte, cut into lines or documents, JSON lines parsed.
//
// What a row of a corpus is, is in corpus-row.ts; which files are read, and the numbering, in corpus.ts.
import { createReadStream } from "node:fs";
import { messageOf, NlaError } from "../error.js";
import { rowOfRecord, type CorpusRow } from "./corpus-row.js";

/** How a .txt file becomes documents: whole, at blank lines, or every n characters (code points; the last is shorter). */
export type TextCut = "file" | "paragraphs" | { readonly everyCharacters: number };

const CHUNK_BYTES = 256 * 1024;
const MAX_LINE_BYTES = 64 * 2 ** 20; // no record is that long; stops a file without line ends from filling memory
const MAX_DOCUMENT_CHARACTERS = 2 ** 28; // half of the longest string that the engine holds

/** Documents of a .txt file, by `cut`. A byte order mark at the start is not text. */
export async function* readTextFile(file: string, cut: TextCut): AsyncGenerator<CorpusRow> {
  if (cut === "file") {
    const parts: string[] = [];
    let length = 0;
    for await (const part of decodedChunks(file)) {
      length = grown(length + part.length, file);
      parts.push(part);
    }
    yield { text: parts.join(""), messages: null };
  } else if (cut === "paragraphs") {
    yield* readParagraphs(file);
  } else {
    yield* readStretches(file, cut.everyCharacters);
  }
}

/** Rows of a .jsonl file, one object a line; blank lines are no rows. Throws `corpus.json` with file and line. */
export async function* readJsonLines(file: string, field: string | undefined): AsyncGenerator<CorpusRow> {
  for await (const { number, text } of readLines(file)) {
    if (text.trim() === "") continue;
    const where = `${file}, line ${number}`;
    let record: unknown;
    try {
      record = JSON.parse(text);
    } catch (cause) {
      throw badJson(where, messageOf(cause), cause);
    }
    if (typeof record !== "object" || record === null || Array.isArray(record)) {
      throw badJson(where, `${text.slice(0, 40)}`);
    }
    yield rowOfRecord(record as Record<string, unknown>, field, where);
  }
}

/** An error for a file that cannot be read. */
export function unreadable(file: string, cause: unknown): NlaError {
  return new NlaError({
    code: "corpus.unreadable",
    subject: file,
    found: messageOf(cause),
    wanted: "a file that can be read to its end",
    next: "Check the path, its permissions, and whether the download is complete.",
    cause,
  });
}

async function* readParagraphs(file: string): AsyncGenerator<CorpusRow> {
  let lines: string[] = [];
  let length = 0;
  for await (const { text } of readLines(file)) {
    if (text.trim() !== "") {
      length = grown(length + text.length, file);
      lines.push(text);
      continue;
    }
    if (lines.length > 0) yield { text: lines.join("\n"), messages: null };
    lines = [];
    length = 0;
  }
  if (lines.length > 0) yield { text: lines.join("\n"), messages: null };
}

async function* readStretches(file: string, characters: number): AsyncGenerator<CorpusRow> {
  let waiting = "";
  for await (const part of decodedChunks(file)) {
    waiting += part;
    let start = 0;
    let end = unitsOf(waiting, start, characters);
    while (end !== null) {
      yield { text: waiting.slice(start, end), messages: null };
      start = end;
      end = unitsOf(waiting, start, characters);
    }
    waiting = waiting.slice(start);
    grown(waiting.length, file);
  }
  if (waiting !== "") yield { text: waiting, messages: null };
}

/** Index after `characters` code points from `start`, or null if the text is shorter. Never inside a pair. */
function unitsOf(text: string, start: number, characters: number): number | null {
  let index = start;
  for (let left = characters; left > 0; left--) {
    if (index >= text.length) return null;
    index += (text.codePointAt(index) as number) > 0xffff ? 2 : 1;
  }
  return index;
}

interface Line {
  /** From 1. */
  readonly number: number;
  /** Without its line end (\n or \r\n). */
  readonly text: string;
}

async function* readLines(file: string): AsyncGenerator<Line> {
  let number = 0;
  let offset = 0; // of the first byte of the current line
  let waiting: Uint8Array[] = [];
  let waitingBytes = 0;
  const finish = (last: Uint8Array): Line => {
    const bytes = waiting.length === 0 ? last : Buffer.concat([...waiting, last]);
    const text = decode(bytes, offset, file);
    offset += bytes.length + 1;
    waiting = [];
    waitingBytes = 0;
    number++;
    const content = number === 1 ? text.replace(/^\uFEFF/, "") : text;
    return { number, text: content.endsWith("\r") ? content.slice(0, -1) : content };
  };
  for await (const chunk of readBytes(file)) {
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end !== -1; end = chunk.indexOf(0x0a, start)) {
      yield finish(chunk.subarray(start, end));
      start = end + 1;
    }
    const rest = chunk.subarray(start);
    if (rest.length === 0) continue;
    waiting.push(rest);
    waitingBytes += rest.length;
    if (waitingBytes > MAX_LINE_BYTES) {
      throw tooLong(
        `${file}, line ${number + 1}`,
        `more than ${MAX_LINE_BYTES} bytes`,
        `${MAX_LINE_BYTES} bytes`,
      );
    }
  }
  if (waitingBytes > 0) yield finish(new Uint8Array(0));
}

async function* decodedChunks(file: string): AsyncGenerator<string> {
  let offset = 0; // of the first byte that is not decoded yet
  let waiting: Uint8Array = new Uint8Array(0);
  for await (const chunk of readBytes(file)) {
    const bytes = waiting.length === 0 ? chunk : Buffer.concat([waiting, chunk]);
    const end = bytes.length - unfinished(bytes);
    const text = decode(bytes.subarray(0, end), offset, file);
    yield offset === 0 ? text.replace(/^\uFEFF/, "") : text;
    offset += end;
    waiting = bytes.subarray(end);
  }
  if (waiting.length > 0) throw notUtf8(file, offset, waiting[0] as number);
}

async function* readBytes(file: string): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of createReadStream(file, { highWaterMark: CHUNK_BYTES })) yield chunk as Buffer;
  } catch (cause) {
    throw unreadable(file, cause);
  }
}

function decode(bytes: Uint8Array, offset: number, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    const at = firstInvalid(bytes); // the decoder does not say where
    throw notUtf8(file, offset + at, bytes[at] as number);
  }
}

/** How many bytes at the end begin a character that is not complete. */
function unfinished(bytes: Uint8Array): number {
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back] as number;
    if (byte < 0x80) return 0;
    if (byte >= 0xc0) return back < lengthOf(byte) ? back : 0;
  }
  return 0;
}

function lengthOf(lead: number): number {
  return lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
}

/** Index of the first byte that begins no valid UTF-8 character (RFC 3629), or the length. */
function firstInvalid(bytes: Uint8Array): number {
  let i = 0;
  while (i < bytes.length) {
    const lead = bytes[i] as number;
    const length = lengthOf(lead);
    if ((lead >= 0x80 && lead < 0xc2) || lead > 0xf4) return i;
    for (let k = 1; k < length; k++) {
      const byte = bytes[i + k];
      if (byte === undefined || (byte & 0xc0) !== 0x80) return i;
    }
    const second = bytes[i + 1] ?? 0;
    const overlong = (lead === 0xe0 && second < 0xa0) || (lead === 0xf0 && second < 0x90);
    const outside = (lead === 0xed && second > 0x9f) || (lead === 0xf4 && second > 0x8f); // surrogates, above U+10FFFF
    if (overlong || outside) return i;
    i += length;
  }
  return i;
}

function notUtf8(file: string, offset: number, byte: number): NlaError {
  return new NlaError({
    code: "corpus.utf8",
    subject: file,
    found: `byte 0x${byte.toString(16).padStart(2, "0")} at offset ${offset}, which begins no UTF-8 character`,
    wanted: "UTF-8 text",
    next: "Convert the file to UTF-8, or repair it at that offset.",
  });
}

function badJson(where: string, found: string, cause?: unknown): NlaError {
  return new NlaError({
    code: "corpus.json",
    subject: where,
    found,
    wanted: "one JSON object per line",
    next: "Correct the line, or convert the file to JSON lines.",
    cause,
  });
}

function grown(length: number, file: string): number {
  if (length <= MAX_DOCUMENT_CHARACTERS) return length;
  throw tooLong(
    file,
    `a document of more than ${MAX_DOCUMENT_CHARACTERS} characters`,
    `${MAX_DOCUMENT_CHARACTERS} characters`,
  );
}

function tooLong(subject: string, found: string, limit: string): NlaError {
  return new NlaError({
    code: "corpus.too_long",
    subject,
    found,
    wanted: `at most ${limit}`,
    next: 'Cut the file into smaller documents: cut "paragraphs", or every so many characters.',
  });
}
