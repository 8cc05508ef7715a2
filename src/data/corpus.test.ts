// Corpora of every kind, on real files: what is read, in which order, under which id, and how each kind of bad input ends.
import { DuckDBInstance } from "@duckdb/node-api";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { sharedPath } from "../../test/shared.js";
import { NlaError } from "../error.js";
import { readCorpus, type CorpusDocument, type CorpusOptions } from "./corpus.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-corpus-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const shakespeare = sharedPath("assets/corpora/tinyshakespeare.txt");
const golden = sharedPath("golden/nla/pipeline/out/base.parquet");
let made = 0;

function write(name: string, content: string | Uint8Array): string {
  const file = path.join(scratch, String(made++), name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, content);
  return file;
}

function folderOf(files: Record<string, string>): string {
  const folder = path.join(scratch, String(made++));
  mkdirSync(folder);
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    writeFileSync(path.join(folder, name), content);
  }
  return folder;
}

async function writeParquet(name: string, select: string): Promise<string> {
  const file = path.join(scratch, String(made++), name);
  mkdirSync(path.dirname(file), { recursive: true });
  const instance = await DuckDBInstance.create(":memory:");
  const connection = await instance.connect();
  await connection.run(`COPY (${select}) TO '${file.replaceAll("'", "''")}' (FORMAT parquet)`);
  connection.closeSync();
  return file;
}

async function all(options: CorpusOptions): Promise<CorpusDocument[]> {
  const documents: CorpusDocument[] = [];
  for await (const document of readCorpus(options)) documents.push(document);
  return documents;
}

async function texts(options: CorpusOptions): Promise<(string | null)[]> {
  return (await all(options)).map(({ text }) => text);
}

async function failure(options: CorpusOptions): Promise<NlaError> {
  try {
    await all(options);
  } catch (error) {
    if (error instanceof NlaError) return error;
    throw error;
  }
  throw new Error("it was read to its end");
}

describe(".txt", () => {
  it("is one document by default, without its byte order mark", async () => {
    const file = write("a b.txt", "\uFEFFOne.\n\nTwo.\n");
    expect(await all({ path: file })).toEqual([
      { id: "a b:train:0", index: 0, text: "One.\n\nTwo.\n", messages: null },
    ]);
  });

  it("is cut at blank lines", async () => {
    const file = write("p.txt", "\n\nOne\r\nline.\r\n \t\r\nTwo.\n\n\n\nThree");
    expect(await texts({ path: file, cut: "paragraphs" })).toEqual(["One\nline.", "Two.", "Three"]);
  });

  it("is cut every n characters, never inside one", async () => {
    const file = write("c.txt", "ab🦊cdé🦊x");
    expect(await texts({ path: file, cut: { everyCharacters: 3 } })).toEqual(["ab🦊", "cdé", "🦊x"]);
    expect(await texts({ path: file, cut: { everyCharacters: 100 } })).toEqual(["ab🦊cdé🦊x"]);
  });

  it("keeps characters that straddle a read buffer", async () => {
    const text = `x${"🦊é".repeat(100_000)}`; // 600,001 bytes: some buffer ends inside a character
    const file = write("long.txt", text);
    expect((await texts({ path: file })).join("")).toBe(text);
    expect((await texts({ path: file, cut: { everyCharacters: 999 } })).join("")).toBe(text);
    expect((await texts({ path: file, cut: "paragraphs" })).join("")).toBe(text);
  });

  it.skipIf(shakespeare === null)("reads a real book by paragraph", async () => {
    const documents = await all({ path: shakespeare as string, cut: "paragraphs", split: "x" });
    expect(documents.length).toBe(7222);
    expect(documents[0]?.text).toBe("First Citizen:\nBefore we proceed any further, hear me speak.");
    expect(documents.at(-1)?.id).toBe("tinyshakespeare:x:7221");
  });
});

describe(".jsonl", () => {
  it("gives the text field, a named one, or chat messages", async () => {
    const messages = [{ role: "user", content: "hi" }];
    const file = write(
      "m.jsonl",
      `{"text": "a", "body": "b"}\n\n{"messages": ${JSON.stringify(messages)}, "body": "c"}`,
    );
    expect(await all({ path: file, name: "my/corpus", split: "en" })).toEqual([
      { id: "my/corpus:en:0", index: 0, text: "a", messages: null },
      { id: "my/corpus:en:1", index: 1, text: null, messages },
    ]);
    expect(await texts({ path: file, field: "body" })).toEqual(["b", "c"]);
  });

  it("keeps empty texts, so that numbers do not shift", async () => {
    const file = write("e.jsonl", '{"text": ""}\r\n{"text": "x"}\r\n');
    expect(await texts({ path: file })).toEqual(["", "x"]);
  });
});

describe(".parquet", () => {
  it("gives a column in the file's order, over several batches", async () => {
    const file = await writeParquet(
      "n.parquet",
      "SELECT 'document ' || i AS text, i AS n FROM range(10000) t(i)",
    );
    const found = await texts({ path: file });
    expect(found.length).toBe(10_000);
    expect(found).toEqual(Array.from({ length: 10_000 }, (_, i) => `document ${i}`));
  });

  it("gives chat messages from a list of structs", async () => {
    const file = await writeParquet("m.parquet", "SELECT [{'role': 'user', 'content': 'hi'}] AS messages");
    expect((await all({ path: file }))[0]?.messages).toEqual([{ role: "user", content: "hi" }]);
  });

  it("may have a name that DuckDB would take for a pattern, and any column name", async () => {
    const file = await writeParquet("it's.parquet", `SELECT 'x' AS "a ""b"""`);
    expect(await texts({ path: file, field: 'a "b"' })).toEqual(["x"]);
    const odd = path.join(path.dirname(file), "odd[1]?*.parquet");
    symlinkSync(file, odd);
    expect(await texts({ path: odd, field: 'a "b"' })).toEqual(["x"]);
  });

  it.skipIf(golden === null)("reads a column of the reference's own file", async () => {
    const found = await texts({ path: golden as string, field: "doc_id" });
    expect(found[0]).toBe("wikitext-pieces:train:0");
    expect(found.length).toBeGreaterThan(200);
  });
});

describe("a folder", () => {
  const files = {
    "b.txt": "second",
    "a.jsonl": '{"text": "first"}\n',
    "Ａ.txt": "fourth",
    "🦊.txt": "fifth",
    "c.txt": "third",
    "notes.md": "not read",
    "deep/z.txt": "below",
  };

  it("is read by name in code point order, and deeper only if asked", async () => {
    const folder = folderOf(files);
    expect(await texts({ path: folder })).toEqual(["first", "second", "third", "fourth", "fifth"]);
    expect(await texts({ path: folder, recursive: true })).toEqual([
      "first",
      "second",
      "third",
      "below",
      "fourth",
      "fifth",
    ]);
    expect((await all({ path: folder }))[4]).toMatchObject({
      id: `${path.basename(folder)}:train:4`,
      index: 4,
    });
  });

  it("does not follow a link that leads back into it", async () => {
    const folder = folderOf({ "a.txt": "once" });
    symlinkSync(folder, path.join(folder, "again"));
    expect(await texts({ path: folder, recursive: true })).toEqual(["once"]);
  });
});

const nineLines = (): string =>
  write("s.jsonl", Array.from({ length: 9 }, (_, i) => `{"text": "${i}"}`).join("\n"));

describe("a slice", () => {
  it("keeps the numbers of the whole corpus", async () => {
    const documents = await all({ path: nineLines(), start: 2, length: 3 });
    expect(documents.map(({ id, text }) => [id, text])).toEqual([
      ["s:train:2", "2"],
      ["s:train:3", "3"],
      ["s:train:4", "4"],
    ]);
    expect(await texts({ path: nineLines(), start: 7, length: 100 })).toEqual(["7", "8"]);
  });

  it("does not read behind its end, and can be read again", async () => {
    const broken = write("s.jsonl", '{"text": "good"}\nnot JSON\n');
    const corpus = readCorpus({ path: broken, length: 1 });
    for (let pass = 0; pass < 2; pass++) {
      const found: (string | null)[] = [];
      for await (const { text } of corpus) found.push(text);
      expect(found).toEqual(["good"]);
    }
  });

  it("that starts behind the end, or makes no sense, is refused", async () => {
    expect((await failure({ path: nineLines(), start: 9 })).message).toMatch(
      /found 9 documents; wanted more than 9/,
    );
    for (const bad of [
      { start: -1 },
      { length: 0 },
      { start: Number.NaN },
      { cut: { everyCharacters: 0 } },
    ]) {
      expect(() => readCorpus({ path: "x.txt", ...bad })).toThrow(/whole number/);
    }
  });
});

const fileWith = (bytes: number[], before = 300_000): Uint8Array => {
  const file = new Uint8Array(before + bytes.length + 5).fill(0x61);
  file[10] = 0x0a;
  file.set(bytes, before);
  return file;
};

describe("a bad corpus", () => {
  it("that is empty says so", async () => {
    for (const empty of [
      write("e.txt", " \n"),
      write("e.jsonl", "\n\n"),
      write("e.jsonl", '{"text": " "}'),
    ]) {
      expect((await failure({ path: empty })).code).toBe("corpus.empty");
    }
    const parquet = await writeParquet("e.parquet", "SELECT 'x' AS text WHERE false");
    expect((await failure({ path: parquet })).message).toMatch(/found 0 documents/);
    expect((await failure({ path: folderOf({}) })).message).toMatch(/an empty folder/);
    expect((await failure({ path: folderOf({ "a.md": "x" }) })).message).toMatch(
      /only other files \(a\.md\)/,
    );
    const blank = write("b.jsonl", '{"text": ""}\n{"text": "x"}');
    expect((await failure({ path: blank, length: 1 })).message).toMatch(/1 documents, all of them blank/);
  });

  it("without the field names the fields that are there", async () => {
    const file = write("f.jsonl", '{"text": "a"}\n{"body": "b", "n": 1}');
    const error = await failure({ path: file });
    expect(error.code).toBe("corpus.field");
    expect(error.message).toMatch(
      /f\.jsonl, line 2: found the fields "body", "n"; wanted "text" or "messages"/,
    );
    const parquet = await writeParquet("f.parquet", "SELECT 1 AS a, 'x' AS b");
    expect((await failure({ path: parquet, field: "text" })).message).toMatch(
      /f\.parquet: found the fields "a", "b"; wanted "text"/,
    );
  });

  it("with something else in the field says what", async () => {
    const cases: [string, RegExp][] = [
      ['{"text": null}', /"text" is null/],
      ['{"text": 7}', /"text" is a number/],
      ['{"messages": [{"role": "user", "content": ["part"]}]}', /message 0 of "messages" .*content a list/],
      ['{"messages": [{"content": "x"}]}', /role absent/],
    ];
    for (const [line, message] of cases) {
      const error = await failure({ path: write("v.jsonl", `{"text": "fine"}\n${line}`) });
      expect([error.code, error.subject.endsWith("line 2")]).toEqual(["corpus.value", true]);
      expect(error.message).toMatch(message);
    }
    const parquet = await writeParquet("v.parquet", "SELECT unnest(['x', NULL]) AS text");
    expect((await failure({ path: parquet })).message).toMatch(/v\.parquet, row 1: found "text" is null/);
  });

  it("with bytes that are no UTF-8 names the file and the offset", async () => {
    const invalid = [
      [0xff],
      [0xc3, 0x28],
      [0xe0, 0x80, 0x80],
      [0xed, 0xa0, 0x80],
      [0xf4, 0x90, 0x80, 0x80],
      [0x80],
    ];
    for (const bytes of invalid) {
      for (const cut of ["file", "paragraphs", { everyCharacters: 50 }] as const) {
        const error = await failure({ path: write("u.txt", fileWith(bytes)), cut });
        expect(error.code).toBe("corpus.utf8");
        expect(error.found).toContain("at offset 300000,");
      }
    }
    const line = Buffer.concat([
      Buffer.from('{"text": "a"}\n{"text": "'),
      Uint8Array.of(0xff),
      Buffer.from('"}\n'),
    ]);
    expect((await failure({ path: write("u.jsonl", line) })).message).toMatch(
      /u\.jsonl: found byte 0xff at offset 24,/,
    );
    const cut = Uint8Array.of(0x61, 0xf0, 0x9f);
    expect((await failure({ path: write("cut.txt", cut) })).message).toMatch(/byte 0xf0 at offset 1/);
  });

  it("with a line that is no JSON object names file and line", async () => {
    for (const line of ["{", "[1]", "7", "null", '{"text": "x"} trailing']) {
      const error = await failure({ path: write("j.jsonl", `{"text": "a"}\n\n${line}\n`) });
      expect([error.code, error.subject.endsWith("j.jsonl, line 3")]).toEqual(["corpus.json", true]);
    }
  });

  it("that is not there, no file, or of no known kind is refused", async () => {
    expect((await failure({ path: path.join(scratch, "no.txt") })).code).toBe("corpus.unreadable");
    expect((await failure({ path: "/dev/null" })).code).toBe("corpus.unreadable");
    const folder = folderOf({ "a.txt": "x" });
    symlinkSync(path.join(folder, "nowhere"), path.join(folder, "dangling.txt"));
    expect((await failure({ path: folder })).code).toBe("corpus.unreadable");
    const error = await failure({ path: write("x.csv", "a,b") });
    expect(error.message).toMatch(/extension "\.csv"; wanted \.txt, \.jsonl, \.parquet/);
  });

  it("whose Parquet file is cut off or something else is refused", async () => {
    expect((await failure({ path: write("p.parquet", "PAR1 not really") })).code).toBe("corpus.parquet");
    expect((await failure({ path: write("p.parquet", "") })).code).toBe("corpus.parquet");
  });

  it("with a line beyond every record is refused before it fills memory", async () => {
    const file = write("l.jsonl", Buffer.alloc(66 * 2 ** 20, 0x61));
    expect((await failure({ path: file })).message).toMatch(
      /l\.jsonl, line 1: found more than 67108864 bytes/,
    );
  });
});
