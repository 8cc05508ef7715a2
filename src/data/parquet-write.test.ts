// What is written reads back, twice the same bytes, atomically, with bounded memory; golden files survive the round trip.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";

import { sharedPath } from "../../test/shared.js";
import { sqlText, withDuck } from "./duckdb.js";
import type { ColumnValues } from "./parquet-columns.js";
import { type ColumnToWrite, writeParquet } from "./parquet-write.js";
import { openParquet } from "./parquet.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nla-parquet-write-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

type Rows = Record<string, ColumnValues>;

const columns: ColumnToWrite[] = [
  { name: "n_raw_tokens", type: "int64" },
  { name: "activation_vector", type: { vector: 3 } },
  { name: "doc_id", type: "string" },
  { name: "prompt", type: "messages" },
  { name: "weight", type: "float64" },
  { name: "small", type: "float32" },
  { name: "kept", type: "bool" },
  { name: "rank", type: "int32" },
];

function rows(start: number, count: number): Rows {
  const each = <T>(f: (row: number) => T): T[] => Array.from({ length: count }, (_, i) => f(start + i));
  return {
    n_raw_tokens: each((row) => row * 3 - 2 ** 50),
    activation_vector: Float32Array.from(each((row) => [row, Math.fround(Math.sin(row)), -0]).flat()),
    doc_id: each((row) =>
      row % 3 === 0 ? "" : `c:t:${row} é\u{1F600}\0 'quoted' "${"long ".repeat(row % 5)}`,
    ),
    prompt: each((row) =>
      Array.from({ length: row % 3 }, (_, i) => ({
        role: i === 0 ? "user" : "assistant",
        content: `m${row}`,
      })),
    ),
    weight: each((row) => row / 7),
    small: each((row) => Math.fround(row / 7)),
    kept: each((row) => row % 2 === 0),
    rank: each((row) => 7 - row),
  };
}

async function readBack(file: string): Promise<Rows> {
  const source = await openParquet(file);
  const all: Record<string, unknown[]> = {};
  for await (const { values } of source.chunks()) {
    for (const [name, part] of Object.entries(values))
      (all[name] ??= []).push(...(part as readonly unknown[]));
  }
  source.close();
  return Object.fromEntries(Object.entries(all)) as unknown as Rows;
}

const sha256 = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");

function* broken(): Generator<Rows> {
  yield rows(0, 4);
  throw new RangeError("no more rows");
}

describe("writeParquet", () => {
  it("writes every kind of column so that it reads back the same, however the rows are cut into chunks", async () => {
    const whole = rows(0, 5000);
    const one = path.join(scratch, "one.parquet");
    const many = path.join(scratch, "many.parquet");
    expect(await writeParquet(one, columns, [whole])).toBe(5000);
    async function* pieces(): AsyncGenerator<Rows> {
      for (let start = 0; start < 5000; start += 333) yield rows(start, Math.min(333, 5000 - start));
      yield rows(0, 0);
    }
    expect(await writeParquet(many, columns, pieces())).toBe(5000);
    expect(sha256(many)).toBe(sha256(one));
    const back = await readBack(one);
    for (const { name } of columns) {
      expect(back[name], name).toEqual([...(whole[name] as readonly unknown[])]);
    }
  });

  it("gives the same bytes again, and other bytes for other rows", async () => {
    const [a, b, c] = ["a", "b", "c"].map((name) => path.join(scratch, `${name}.parquet`)) as [
      string,
      string,
      string,
    ];
    await writeParquet(a, columns, [rows(0, 100)]);
    await writeParquet(b, columns, [rows(0, 100)]);
    await writeParquet(c, columns, [rows(1, 100)]);
    expect(sha256(a)).toBe(sha256(b));
    expect(sha256(c)).not.toBe(sha256(a));
  });

  it("uses snappy, the row-group size asked for, and the Arrow schema entry", async () => {
    const file = path.join(scratch, "groups.parquet");
    await writeParquet(file, columns, [rows(0, 9000)], { rowGroupSize: 2048 });
    const facts = await withDuck({}, null, async (c) => {
      const groups = await c.runAndReadAll(
        `SELECT DISTINCT row_group_id, row_group_num_rows, compression FROM parquet_metadata(${sqlText(file)}) ORDER BY 1`,
      );
      const keys = await c.runAndReadAll(`SELECT key::VARCHAR FROM parquet_kv_metadata(${sqlText(file)})`);
      return { groups: groups.getRows().map(([, n, c]) => [Number(n), c]), keys: keys.getRows().flat() };
    });
    expect(facts.groups).toEqual([2048, 2048, 2048, 2048, 808].map((n) => [n, "SNAPPY"]));
    expect(facts.keys).toContain("ARROW:schema");
  });

  it("writes a file without rows", async () => {
    const file = path.join(scratch, "empty.parquet");
    expect(await writeParquet(file, columns, [])).toBe(0);
    const source = await openParquet(file);
    expect([source.rowCount, source.columns.length]).toEqual([0, columns.length]);
    source.close();
  });

  const ok = rows(0, 4);
  it.each<[string, string, ColumnToWrite[], Rows]>([
    [
      "NaN in a vector",
      "parquet.not-finite",
      columns,
      { ...ok, activation_vector: Float32Array.of(1, 2, 3, 4, NaN, 6, 7, 8, 9, 1, 1, 1) },
    ],
    ["a lone surrogate", "parquet.value", columns, { ...ok, doc_id: ["a", "b", "\ud800", "d"] }],
    ["a fraction as integer", "parquet.value", columns, { ...ok, n_raw_tokens: [1, 2, 3.5, 4] }],
    ["an int32 that is too large", "parquet.value", columns, { ...ok, rank: [1, 2, 2 ** 31, 4] }],
    [
      "null as text",
      "parquet.value",
      columns,
      { ...ok, doc_id: ["a", null, "c", "d"] as unknown as string[] },
    ],
    [
      "a message without content",
      "parquet.value",
      columns,
      { ...ok, prompt: [[], [], [{ role: "user" }], []] as never },
    ],
    ["columns of unequal length", "parquet.rows", columns, { ...ok, doc_id: ["a"] }],
    ["a missing column", "parquet.rows", [...columns, { name: "more", type: "string" }], ok],
    ["vectors of another width", "parquet.rows", columns, { ...ok, activation_vector: new Float32Array(11) }],
    ["text for vectors", "parquet.rows", columns, { ...ok, activation_vector: ["a", "b", "c", "d"] }],
    ["a column twice", "parquet.columns", [...columns, { name: "rank", type: "int32" }], ok],
    ["vectors of width 0", "parquet.columns", [{ name: "v", type: { vector: 0 } }], {}],
    ["no columns", "parquet.columns", [], {}],
  ])("refuses %s as %s; the old file stays", async (_what, code, schema, chunk) => {
    const here = path.join(scratch, "refused");
    mkdirSync(here, { recursive: true });
    writeFileSync(path.join(here, "a.parquet"), "old");
    await expect(writeParquet(path.join(here, "a.parquet"), schema, [chunk])).rejects.toMatchObject({ code });
    expect(readFileSync(path.join(here, "a.parquet"), "utf8")).toBe("old");
    expect(readdirSync(here)).toEqual(["a.parquet"]);
  });

  it("names row and document of what it refuses, counted over all chunks", async () => {
    const bad = { ...rows(4, 2), activation_vector: Float32Array.of(1, 2, 3, 4, Infinity, 6) };
    await expect(writeParquet(path.join(scratch, "x.parquet"), columns, [ok, bad])).rejects.toMatchObject({
      found: expect.stringMatching(/^Infinity at index 1 of row 5 \(doc_id c:t:5 /),
    });
  });

  it("passes on what the stream throws, and leaves nothing behind", async () => {
    const here = path.join(scratch, "broken");
    mkdirSync(here);
    await expect(writeParquet(path.join(here, "a.parquet"), columns, broken())).rejects.toThrow(
      "no more rows",
    );
    expect(readdirSync(here)).toEqual([]);
  });
});

describe("a full disk", () => {
  const small = path.join(scratch, "small");
  mkdirSync(small);
  let mounted = false;
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", small], { stdio: "pipe" });
    mounted = true;
  } catch (thrown) {
    console.warn(`skipped: the full-disk test needs to mount a tmpfs (${String(thrown).split("\n")[0]})`);
  }
  afterAll(() => {
    if (mounted) execFileSync("umount", [small]);
  });

  it.skipIf(!mounted)("is disk.full, and the old file stays", async () => {
    const file = path.join(small, "a.parquet");
    await writeParquet(file, columns, [rows(0, 10)]);
    const before = sha256(file);
    const wide: ColumnToWrite[] = [{ name: "v", type: { vector: 1000 } }];
    const noise = Float32Array.from({ length: 2000 * 1000 }, (_, i) => Math.sin(i * 12.9898) * 43758.5453);
    await expect(writeParquet(file, wide, [{ v: noise }])).rejects.toMatchObject({
      code: "disk.full",
      subject: file,
    });
    expect(sha256(file)).toBe(before);
    expect(readdirSync(small)).toEqual(["a.parquet"]);
  });
});

const goldenFiles = ["pipeline", "pipeline-gemma3", "pipeline-llama"].flatMap((name) => {
  const out = sharedPath(`golden/nla/${name}/out`);
  if (out === null) return [];
  const names = readdirSync(out, { recursive: true }) as string[];
  return names.filter((file) => file.endsWith(".parquet")).map((file) => path.join(out, file));
});

describe.skipIf(goldenFiles.length === 0)("the golden files", () => {
  it.each(goldenFiles)("%s survives a round trip through the writer", async (file) => {
    const source = await openParquet(file);
    const copy = path.join(scratch, "copy.parquet");
    async function* chunks(): AsyncGenerator<Rows> {
      for await (const { values } of source.chunks({ rowsPerChunk: 10 })) yield values;
    }
    await writeParquet(copy, source.columns as readonly ColumnToWrite[], chunks());
    source.close();
    const again = await openParquet(copy);
    expect(again.columns).toEqual(source.columns);
    again.close();
    expect(await readBack(copy)).toEqual(await readBack(file));
  });
});
