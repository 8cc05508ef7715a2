// Parquet files of a corpus, streamed through DuckDB: one column, in the file's order, a few thousand rows in memory.
//
// Only reading of texts; activations and training sets have their own reader.
import { DuckDBInstance, JSDuckDBValueConverter } from "@duckdb/node-api";
import { messageOf, NlaError } from "../error.js";
import { chosenField, rowOfValue, type CorpusRow } from "./corpus-row.js";

const SETTINGS = {
  threads: "1", // a scan of several would hold a row group for each
  // Without these two the allocator kept twice as much as it used, growing over the first 200 MB of a file.
  allocator_flush_threshold: "1MB",
  allocator_bulk_deallocation_flush_threshold: "1MB",
};

/** Rows of a .parquet file from its text or messages column. Throws `corpus.field` with the columns that are there. */
export async function* readParquetColumn(
  file: string,
  column: string | undefined,
): AsyncGenerator<CorpusRow> {
  const instance = await DuckDBInstance.create(":memory:", SETTINGS);
  const connection = await instance.connect();
  try {
    const source = `read_parquet(${quoted(globless(file), "'")})`;
    const described = await attempt(file, () => connection.runAndReadAll(`DESCRIBE SELECT * FROM ${source}`));
    const names = described.getRows().map((row) => String(row[0]));
    const name = chosenField(names, column, file);
    const result = await attempt(file, () => connection.stream(`SELECT ${quoted(name, '"')} FROM ${source}`));
    let row = 0;
    for (;;) {
      const chunk = await attempt(file, () => result.fetchChunk());
      if (chunk === null || chunk.rowCount === 0) return;
      const values = chunk.convertColumnValues(0, JSDuckDBValueConverter);
      chunk.reset(); // its texts lie outside the heap, where the garbage collector does not see that there are many
      for (const value of values) yield rowOfValue(value, name, `${file}, row ${row++}`);
    }
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
}

async function attempt<T>(file: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    throw new NlaError({
      code: "corpus.parquet",
      subject: file,
      found: messageOf(cause).split("\n")[0] as string,
      wanted: "a whole Parquet file",
      next: "Check that the download is complete and the file is Parquet.",
      cause,
    });
  }
}

function quoted(text: string, mark: "'" | '"'): string {
  return mark + text.replaceAll(mark, mark + mark) + mark;
}

/** DuckDB reads `*`, `?` and `[` in a path as patterns; in brackets each stands for itself. */
function globless(file: string): string {
  return file.replaceAll(/[*?[]/g, (sign) => `[${sign}]`);
}
