// A corpus as a stream of numbered documents: a .txt, .jsonl or .parquet file, or a folder of them.
//
// Memory stays flat: one document, one read buffer, and for Parquet a few thousand rows. Tokenising and cutting to the context is
// the caller's work.
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { NlaError } from "../error.js";
import { readParquetColumn } from "./corpus-parquet.js";
import type { CorpusMessage, CorpusRow } from "./corpus-row.js";
import { readJsonLines, readTextFile, unreadable, type TextCut } from "./corpus-text.js";
import { compareCodePoints } from "./split.js";

export type { CorpusMessage } from "./corpus-row.js";
export type { TextCut } from "./corpus-text.js";

/** One document; exactly one of `text` and `messages` is not null. */
export interface CorpusDocument {
  /** `{name}:{split}:{index}`, which seeds the document's positions. */
  readonly id: string;
  /** Number in the whole corpus, from 0, whatever slice is read. */
  readonly index: number;
  readonly text: string | null;
  readonly messages: readonly CorpusMessage[] | null;
}

/** What to read and how. */
export interface CorpusOptions {
  /** A .txt, .jsonl or .parquet file, or a folder with such files. */
  readonly path: string;
  /** First part of every document id; the file's or folder's own name by default. */
  readonly name?: string;
  /** Second part of every document id. */
  readonly split?: string;
  /** Field or column with the text (or chat messages). By default `text`, and where there is none `messages`. */
  readonly field?: string;
  /** How .txt files become documents. */
  readonly cut?: TextCut;
  /** Reads folders inside the folder too. */
  readonly recursive?: boolean;
  /** First document of the slice. */
  readonly start?: number;
  /** Most documents of the slice; to the end by default. A shorter corpus gives fewer. */
  readonly length?: number;
}

const EXTENSIONS: readonly string[] = [".txt", ".jsonl", ".parquet"];

/**
 * Documents in order: files of a folder by name (of a recursive one by path), compared by code point; other kinds of file in a folder
 * are not part of the corpus. Each iteration reads anew. Iterating throws NlaError: `corpus.empty` where nothing but blanks was
 * found, `corpus.slice` where the slice starts behind the end, `corpus.extension`, `corpus.unreadable`, `corpus.utf8`,
 * `corpus.json`, `corpus.field`, `corpus.value`, `corpus.parquet`, `corpus.too_long`; the call itself throws
 * `corpus.argument` for a slice or cut that makes no sense.
 */
export function readCorpus(options: CorpusOptions): AsyncIterable<CorpusDocument> {
  const { start = 0, length, cut = "file" } = options;
  checkWhole("start", start, 0);
  if (length !== undefined) checkWhole("length", length, 1);
  if (typeof cut === "object") checkWhole("everyCharacters", cut.everyCharacters, 1);
  return { [Symbol.asyncIterator]: () => readDocuments(options) };
}

async function* readDocuments(options: CorpusOptions): AsyncGenerator<CorpusDocument> {
  const {
    name = nameOf(options.path),
    split = "train",
    start = 0,
    length = Number.POSITIVE_INFINITY,
  } = options;
  let index = 0;
  let anyContent = false;
  for (const file of await listFiles(options.path, options.recursive ?? false)) {
    for await (const row of readRows(file, options)) {
      if (index >= start) {
        anyContent ||= hasContent(row);
        yield { id: `${name}:${split}:${index}`, index, ...row };
      }
      index++;
      if (index >= start + length) {
        if (!anyContent) throw empty(options.path, `${index - start} documents, all of them blank`);
        return;
      }
    }
  }
  if (index > 0 && index <= start) {
    throw new NlaError({
      code: "corpus.slice",
      subject: options.path,
      found: `${index} documents`,
      wanted: `more than ${start}, where the slice starts`,
      next: "Start earlier, or use a longer corpus.",
    });
  }
  if (!anyContent)
    throw empty(options.path, index === 0 ? "0 documents" : `${index - start} documents, all of them blank`);
}

function readRows(file: string, { field, cut = "file" }: CorpusOptions): AsyncGenerator<CorpusRow> {
  switch (path.extname(file).toLowerCase()) {
    case ".txt":
      return readTextFile(file, cut);
    case ".jsonl":
      return readJsonLines(file, field);
    default:
      return readParquetColumn(file, field);
  }
}

async function listFiles(root: string, recursive: boolean): Promise<string[]> {
  if (await isDirectory(root)) {
    const names = await namesIn(root, "", recursive);
    const files = names.filter(isCorpusFile).sort(compareCodePoints);
    if (files.length > 0) return files.map((name) => path.join(root, name));
    const there = names.slice(0, 10).join(", ");
    throw empty(root, names.length === 0 ? "an empty folder" : `only other files (${there})`);
  }
  if (isCorpusFile(root)) return [root];
  throw new NlaError({
    code: "corpus.extension",
    subject: root,
    found: `extension "${path.extname(root)}"`,
    wanted: EXTENSIONS.join(", "),
    next: "Convert the file, or rename it if it is one of these.",
  });
}

/** Paths of the files below a folder, relative to it, with slashes. Links to folders are not followed: they may form a ring. */
async function namesIn(root: string, below: string, recursive: boolean): Promise<string[]> {
  const folder = path.join(root, below);
  const entries = await readdir(folder, { withFileTypes: true }).catch((cause: unknown) => {
    throw unreadable(folder, cause);
  });
  const names: string[] = [];
  for (const entry of entries) {
    const name = below === "" ? entry.name : `${below}/${entry.name}`;
    if (entry.isDirectory()) {
      if (recursive) names.push(...(await namesIn(root, name, true)));
    } else if (entry.isFile() || (entry.isSymbolicLink() && !(await isDirectory(path.join(root, name))))) {
      names.push(name);
    }
  }
  return names;
}

async function isDirectory(file: string): Promise<boolean> {
  const found = await stat(file).catch((cause: unknown) => {
    throw unreadable(file, cause);
  });
  if (found.isDirectory() || found.isFile()) return found.isDirectory();
  throw unreadable(file, "neither a file nor a folder");
}

function isCorpusFile(name: string): boolean {
  return EXTENSIONS.includes(path.extname(name).toLowerCase());
}

function nameOf(file: string): string {
  const base = path.basename(path.resolve(file));
  return isCorpusFile(base) ? base.slice(0, -path.extname(base).length) : base;
}

function hasContent({ text, messages }: CorpusRow): boolean {
  if (text !== null) return text.trim() !== "";
  return (messages ?? []).some(({ content }) => content.trim() !== "");
}

function empty(subject: string, found: string): NlaError {
  return new NlaError({
    code: "corpus.empty",
    subject,
    found,
    wanted: `at least one document with text, from files ending in ${EXTENSIONS.join(", ")}`,
    next: "Check the path, and whether the files hold what you expect.",
  });
}

function checkWhole(name: string, value: number, least: number): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new NlaError({
    code: "corpus.argument",
    subject: `corpus option ${name}`,
    found: String(value),
    wanted: `a whole number of at least ${least}`,
    next: `Correct ${name}.`,
  });
}
