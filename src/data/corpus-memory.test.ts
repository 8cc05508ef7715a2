// Reading a corpus takes no memory that grows with it: the peak of resident memory over a file and over one many times larger.
//
// In a file of its own because the test runner gives each file a process, and other tests' memory would blur the peaks.
import { DuckDBInstance } from "@duckdb/node-api";
import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { readCorpus, type CorpusOptions } from "./corpus.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-corpus-memory-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const MB = 2 ** 20;
// The Greek letters make every text two bytes a unit in memory: a reader that kept them would hold 90 MB at least.
const TEXT = "Words of a document that goes on for a while, αβγδ and on. ".repeat(16);

function writeLines(name: string, bytes: number, line: (i: number) => string): string {
  const file = path.join(scratch, name);
  const handle = openSync(file, "w");
  let written = 0;
  for (let i = 0; written < bytes; i++) written += writeSync(handle, line(i));
  closeSync(handle);
  return file;
}

/** Documents read, and the most resident memory during it (bytes). */
async function peakOf(options: CorpusOptions): Promise<{ documents: number; peak: number }> {
  let peak = process.memoryUsage.rss();
  let documents = 0;
  for await (const { text } of readCorpus(options)) {
    if (text === null || text === "") throw new Error("a document without text");
    if (++documents % 200 === 0) peak = Math.max(peak, process.memoryUsage.rss());
  }
  return { documents, peak };
}

/** How much higher memory goes for the larger corpus than for the smaller one, read just before (MB). */
async function extraPeak(
  smaller: CorpusOptions,
  larger: CorpusOptions,
): Promise<{ documents: number; extra: number }> {
  const before = await peakOf(smaller);
  const { documents, peak } = await peakOf(larger);
  return { documents, extra: (peak - before.peak) / MB };
}

const jsonLine = (i: number): string => `${JSON.stringify({ id: i, text: `${i} ${TEXT}` })}\n`;

const paragraph = (i: number): string => `${i} ${TEXT}\n\n`;

const parquetOf = (rows: number): string => path.join(scratch, `rows-${rows}.parquet`);

describe("memory", () => {
  it("stays flat over 50 MB of JSON lines", async () => {
    const small = writeLines("small.jsonl", 5 * MB, jsonLine);
    const large = writeLines("large.jsonl", 50 * MB, jsonLine);
    expect(statSync(large).size).toBeGreaterThan(50 * MB);
    const { documents, extra } = await extraPeak({ path: small }, { path: large });
    expect(documents).toBeGreaterThan(40_000);
    expect(extra).toBeLessThan(40);
  });

  it("stays flat over 50 MB of text, by paragraph and by stretch", async () => {
    const small = writeLines("small.txt", 5 * MB, paragraph);
    const large = writeLines("large.txt", 50 * MB, paragraph);
    for (const cut of ["paragraphs", { everyCharacters: 1000 }] as const) {
      const { documents, extra } = await extraPeak({ path: small, cut }, { path: large, cut });
      expect(documents).toBeGreaterThan(40_000);
      expect(extra).toBeLessThan(40);
    }
  });

  it("is the same for 150 MB of Parquet as for 50 MB", async () => {
    // The smaller file is this large because DuckDB itself takes some 60 MB before memory levels off.
    const instance = await DuckDBInstance.create(":memory:", { memory_limit: "300MB" });
    const connection = await instance.connect();
    for (const rows of [55_000, 165_000]) {
      // No two texts are equal, so that the file cannot shrink to a dictionary.
      const select = `SELECT i || ' ' || repeat(md5(i::VARCHAR), 30) || 'αβγδ' AS text FROM range(${rows}) t(i)`;
      const format = "FORMAT parquet, COMPRESSION uncompressed, ROW_GROUP_SIZE 4096";
      await connection.run(`COPY (${select}) TO '${parquetOf(rows)}' (${format})`);
    }
    connection.closeSync();
    instance.closeSync();
    expect(statSync(parquetOf(165_000)).size).toBeGreaterThan(150 * MB);
    const { documents, extra } = await extraPeak({ path: parquetOf(55_000) }, { path: parquetOf(165_000) });
    expect(documents).toBe(165_000);
    expect(extra).toBeLessThan(40);
  });
});
