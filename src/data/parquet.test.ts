// Every Parquet file of the golden pipelines is read and compared; then odd types, ranges, and each kind of bad file.
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";

import { describeWith, sharedPath } from "../../test/shared.js";
import { sqlText, withDuck } from "./duckdb.js";
import { type ChunkOptions, type ParquetChunk, openParquet } from "./parquet.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nla-parquet-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const pipelines = ["pipeline", "pipeline-gemma3", "pipeline-llama"].flatMap((name) => {
  const folder = sharedPath(`golden/nla/${name}`);
  return folder === null ? [] : [folder];
});

interface Expected {
  readonly row_groups: Readonly<Record<string, readonly number[]>>;
  readonly schemas: Readonly<Record<string, readonly (readonly [string, string, boolean])[]>>;
}

function parquetFilesBelow(folder: string): string[] {
  return (readdirSync(folder, { recursive: true }) as string[])
    .filter((name) => name.endsWith(".parquet"))
    .sort();
}

async function readAll(file: string, options: ChunkOptions = {}): Promise<ParquetChunk[]> {
  const source = await openParquet(file);
  const chunks: ParquetChunk[] = [];
  try {
    for await (const chunk of source.chunks(options)) chunks.push(chunk);
  } finally {
    source.close();
  }
  return chunks;
}

/** Writes `select` with DuckDB, which makes the odd types that our writer never writes. */
async function fileOf(name: string, select: string): Promise<string> {
  const file = path.join(scratch, name);
  await withDuck({}, null, (c) =>
    c.run(`COPY (${select}) TO ${sqlText(file)} (FORMAT parquet, ROW_GROUP_SIZE 2048)`),
  );
  return file;
}

describe.each(pipelines)("the golden files of %s", (pipeline) => {
  const expected = JSON.parse(readFileSync(path.join(pipeline, "expect.json"), "utf8")) as Expected;
  const files = parquetFilesBelow(path.join(pipeline, "out")).map((name) => `out/${name}`);

  it("are all there", () => {
    expect(files.length).toBeGreaterThanOrEqual(14);
  });

  it.each(files)("%s has the rows, columns and types that the reference wrote", async (name) => {
    const source = await openParquet(path.join(pipeline, name));
    const groups = expected.row_groups[name] as readonly number[];
    expect(source.rowCount).toBe(groups.reduce((a, b) => a + b, 0));
    const types = source.columns.map(({ name: column, type }) => [column, arrowName(type)]);
    expect(types).toEqual(expected.schemas[name]?.map(([column, type]) => [column, type]));
    let rows = 0;
    for await (const chunk of source.chunks({ rowsPerChunk: 7 })) {
      expect(chunk.start).toBe(rows);
      expect(chunk.rowCount).toBeLessThanOrEqual(7);
      if (source.vectorWidth !== null)
        expect(chunk.vectors().length).toBe(chunk.rowCount * source.vectorWidth);
      rows += chunk.rowCount;
    }
    source.close();
    expect(rows).toBe(source.rowCount);
  });
});

function arrowName(type: unknown): string {
  if (typeof type === "object")
    return `fixed_size_list<element: float>[${(type as { vector: number }).vector}]`;
  return type === "messages" ? "list<element: struct<role: string, content: string>>" : String(type);
}

const documents = sharedPath("golden/nla/pipeline/documents.json");

describeWith(documents, "the golden base file", () => {
  it("holds each document's positions in the order drawn", async () => {
    const drawn = JSON.parse(readFileSync(documents as string, "utf8")) as {
      doc_id: string;
      positions: number[];
    }[];
    const rows = (await readAll(path.join(documents as string, "../out/base.parquet"))).flatMap((chunk) =>
      chunk.strings("doc_id").map((doc, i) => [doc, (chunk.numbers("n_raw_tokens")[i] as number) - 1]),
    );
    expect(rows).toEqual(drawn.flatMap(({ doc_id, positions }) => positions.map((p) => [doc_id, p])));
  });

  it("reads prompts as messages, and legacy variable lists like fixed ones", async () => {
    const [av] = await readAll(path.join(documents as string, "../out/av_sft.parquet"), {
      columns: ["prompt"],
    });
    expect(av?.messages("prompt")[0]).toEqual([
      { role: "user", content: expect.stringContaining("<INJECT>") },
    ]);
    const [legacy] = await readAll(path.join(documents as string, "../side/legacy_list.parquet"));
    const [cast] = await readAll(path.join(documents as string, "../side/legacy_cast.parquet"));
    expect(legacy?.vectors()).toEqual(cast?.vectors());
  });
});

describe("odd files", () => {
  it("read: float64 vectors, int32 positions, extra and reordered columns", async () => {
    const file = await fileOf(
      "odd.parquet",
      `SELECT 'x' AS extra, range::INTEGER AS n_raw_tokens, [range + 0.1, 2.0]::DOUBLE[] AS activation_vector,
       'd:' || range AS doc_id, DATE '2026-01-01' AS day FROM range(5)`,
    );
    const source = await openParquet(file);
    expect(source.columns.map(({ type }) => type)).toEqual([
      "string",
      "int32",
      { vector: 2 },
      "string",
      "other",
    ]);
    const chunks: ParquetChunk[] = [];
    for await (const chunk of source.chunks()) chunks.push(chunk);
    source.close();
    expect(Object.keys(chunks[0]?.values ?? {})).toEqual([
      "extra",
      "n_raw_tokens",
      "activation_vector",
      "doc_id",
    ]);
    expect(chunks[0]?.numbers("n_raw_tokens")).toEqual([0, 1, 2, 3, 4]);
    expect([...(chunks[0]?.vectors() ?? [])].slice(0, 4)).toEqual([Math.fround(0.1), 2, Math.fround(1.1), 2]);
  });

  it("read: a range of rows across row groups, in order, and an empty range", async () => {
    const file = await fileOf(
      "long.parquet",
      "SELECT range AS n, [range, -range]::FLOAT[] AS v FROM range(10000)",
    );
    const chunks = await readAll(file, { start: 2040, end: 6001, columns: ["v", "n"], rowsPerChunk: 1000 });
    const numbers = chunks.flatMap((chunk) => chunk.numbers("n"));
    expect(numbers).toEqual(Array.from({ length: 3961 }, (_, i) => 2040 + i));
    expect(chunks.flatMap((chunk) => Array.from(chunk.vectors("v")))).toEqual(
      numbers.flatMap((n) => [n, -n]),
    );
    expect(await readAll(file, { start: 5, end: 5 })).toEqual([]);
  });

  it("read: an empty file, and a path that looks like a pattern or an injection", async () => {
    const empty = await fileOf(
      "empty.parquet",
      "SELECT 1 AS n, [1]::FLOAT[] AS activation_vector WHERE false",
    );
    const source = await openParquet(empty);
    expect([source.rowCount, source.vectorWidth]).toEqual([0, null]);
    source.close();
    expect(await readAll(empty)).toEqual([]);
    mkdirSync(path.join(scratch, "a[b]*?"));
    const odd = await fileOf("a[b]*?/it's.parquet", "SELECT 7::BIGINT AS n");
    expect((await readAll(odd))[0]?.numbers("n")).toEqual([7]);
  });

  it("read: several iterations of one file at once", async () => {
    const source = await openParquet(await fileOf("twice.parquet", "SELECT range AS n FROM range(5000)"));
    const [a, b] = [source.chunks({ rowsPerChunk: 100 }), source.chunks({ start: 4000, rowsPerChunk: 100 })];
    const firsts: number[] = [];
    for (let i = 0; i < 3; i++) {
      for (const iteration of [a, b]) {
        const { value } = await iteration.next();
        firsts.push((value as ParquetChunk).start);
      }
    }
    await a.return();
    await b.return();
    source.close();
    expect(firsts).toEqual([0, 4000, 100, 4096, 200, 4196]);
  });
});

describe("bad rows", () => {
  const base = "'c:t:' || range AS doc_id, range AS n_raw_tokens";

  it.each<[string, string, string, RegExp, string]>([
    [
      "NaN",
      "parquet.not-finite",
      "['1', CASE WHEN range = 3 THEN 'nan' ELSE '0' END]::FLOAT[]",
      /^NaN at index 1 of row 3 \(doc_id c:t:3\)$/,
      "finite",
    ],
    [
      "infinity",
      "parquet.not-finite",
      "[CASE WHEN range = 2 THEN '-inf' ELSE '0' END, '1']::FLOAT[]",
      /^-Infinity at index 0 of row 2 \(doc_id c:t:2\)$/,
      "finite",
    ],
    [
      "a float64 beyond float32",
      "parquet.not-finite",
      "[1e300, 1]::DOUBLE[]",
      /^Infinity at index 0 of row 0/,
      "finite",
    ],
    [
      "another width",
      "parquet.width",
      "CASE WHEN range = 4 THEN [1, 2, 3] ELSE [1, 2] END::FLOAT[]",
      /^3 values in row 4 \(doc_id c:t:4\)$/,
      "2",
    ],
    [
      "a null vector",
      "parquet.null",
      "CASE WHEN range = 1 THEN NULL ELSE [1, 2] END::FLOAT[]",
      /^null in row 1 \(doc_id c:t:1\)$/,
      "a value",
    ],
    [
      "a null inside a vector",
      "parquet.null",
      "[1, CASE WHEN range = 1 THEN NULL ELSE 2 END]::FLOAT[]",
      /^null in row 1 /,
      "a value",
    ],
  ])("%s is %s and names row and document", async (name, code, vector, found, wanted) => {
    const file = await fileOf(
      `${name}.parquet`,
      `SELECT ${base}, ${vector} AS activation_vector FROM range(6)`,
    );
    const error = await readAll(file, { columns: ["activation_vector"] }).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code,
      found: expect.stringMatching(found),
      wanted: expect.stringContaining(wanted),
    });
    expect((error as { subject: string }).subject).toBe(`${file}: activation_vector`);
    // The other columns still read.
    expect((await readAll(file, { columns: ["doc_id"] }))[0]?.rowCount).toBe(6);
  });

  it("a width other than the caller's is an error from the first row on", async () => {
    const file = await fileOf(
      "w.parquet",
      `SELECT ${base}, [1, 2]::FLOAT[] AS activation_vector FROM range(2)`,
    );
    await expect(readAll(file, { width: 3 })).rejects.toMatchObject({ code: "parquet.width", wanted: "3" });
  });

  it("a null in a text column is an error, and so is an integer beyond 2^53", async () => {
    const file = await fileOf(
      "n.parquet",
      "SELECT CASE WHEN range < 2 THEN 'a' END AS doc_id, 2^60::BIGINT AS n FROM range(3)",
    );
    await expect(readAll(file, { columns: ["doc_id"] })).rejects.toMatchObject({ code: "parquet.null" });
    const big = await fileOf("b.parquet", "SELECT (1::BIGINT << 60) AS n");
    await expect(readAll(big)).rejects.toMatchObject({
      code: "parquet.integer",
      found: "1152921504606846976 in row 0",
    });
  });

  it("a missing column names those there; a column of another type says which", async () => {
    const file = await fileOf("c.parquet", "SELECT 1 AS a, DATE '2026-01-01' AS day");
    await expect(readAll(file, { columns: ["activation_vector"] })).rejects.toMatchObject({
      code: "parquet.no-column",
      found: "the columns a, day",
    });
    await expect(readAll(file, { columns: ["day"] })).rejects.toMatchObject({
      code: "parquet.column-type",
      found: "day as DATE",
    });
    const [chunk] = await readAll(file);
    expect(() => chunk?.vectors("a")).toThrow(expect.objectContaining({ code: "parquet.column-type" }));
    expect(() => chunk?.strings("b")).toThrow(expect.objectContaining({ code: "parquet.no-column" }));
  });

  it.each([
    { start: -1 },
    { end: 2 },
    { start: 1, end: 0 },
    { start: 0.5 },
    { rowsPerChunk: 0 },
    { end: Number.NaN },
  ])("the range %j is refused", async (range) => {
    const file = await fileOf("r.parquet", "SELECT 1 AS a");
    await expect(readAll(file, range)).rejects.toMatchObject({ code: "parquet.range" });
  });
});

describe("files that are no Parquet", () => {
  it.each([
    ["a text file", "parquet.not-parquet", Buffer.from("hello, I am no Parquet file")],
    ["an empty file", "parquet.not-parquet", Buffer.alloc(0)],
    ["a footer longer than the file", "parquet.truncated", Buffer.from("PAR1\xff\xff\xff\x7fPAR1", "latin1")],
    ["a footer of garbage", "parquet.corrupt", Buffer.from("PAR1garbage!\x08\x00\x00\x00PAR1", "latin1")],
  ])("%s is %s", async (name, code, bytes) => {
    const file = path.join(scratch, `${name}.parquet`);
    writeFileSync(file, bytes);
    await expect(openParquet(file)).rejects.toMatchObject({ code, subject: file });
  });

  it("a file cut at any length is truncated", async () => {
    const whole = readFileSync(await fileOf("whole.parquet", "SELECT range AS n FROM range(1000)"));
    const file = path.join(scratch, "cut.parquet");
    for (const length of [20, 500, whole.byteLength - 1]) {
      writeFileSync(file, whole.subarray(0, length));
      await expect(openParquet(file), String(length)).rejects.toMatchObject({ code: "parquet.truncated" });
    }
  });

  it("an absent file is missing and a folder is not Parquet", async () => {
    await expect(openParquet(path.join(scratch, "none"))).rejects.toMatchObject({ code: "parquet.missing" });
    await expect(openParquet(scratch)).rejects.toMatchObject({ code: "parquet.not-parquet" });
  });
});
