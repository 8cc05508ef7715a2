// Reads Parquet through DuckDB: schema, and rows in chunks as arrays, with flat memory whatever the file's length.
//
// Columns are the reference's (docs: base, *_explained, av_sft, ar_sft, rl), but any file with columns of these kinds reads:
// vectors as fixed or variable lists of float16, float32 or float64, any integer width, any order, extra columns.
// A chunk that is handed out was checked: no null, no NaN, no infinity, one width. Writing is in parquet-write.ts.
import { open } from "node:fs/promises";
import path from "node:path";
import {
  type DuckDBDataChunk,
  type DuckDBInstance,
  DuckDBListType,
  DuckDBStructType,
  type DuckDBType,
  DuckDBTypeId,
} from "@duckdb/node-api";

import { NlaError, messageOf } from "../error.js";
import { type DuckOptions, duckError, openDuck, sqlName, sqlPath } from "./duckdb.js";
import { type ColumnType, type ColumnValues, type Message, columnOf } from "./parquet-columns.js";

export type { ColumnType, ColumnValues, Message } from "./parquet-columns.js";

/** The column of raw activations. */
export const VECTOR_COLUMN = "activation_vector";
/** The column that names a row's document. */
export const DOC_COLUMN = "doc_id";

const MAGIC = "PAR1";

/** A column of a file; `other` is a type that cannot be read here. `stored` is DuckDB's name of the type it has there. */
export interface ParquetColumn {
  readonly name: string;
  readonly type: ColumnType | "other";
  readonly stored: string;
}

/** Which rows and columns to read. */
export interface ChunkOptions {
  /** Defaults to every column that is not `other`. A null in a column that is read is an error. */
  readonly columns?: readonly string[];
  /** First row. Defaults to 0. */
  readonly start?: number;
  /** Row after the last. Defaults to the number of rows. */
  readonly end?: number;
  /** At most so many rows a chunk; chunks may be smaller. Defaults to 2048, DuckDB's own chunk. */
  readonly rowsPerChunk?: number;
  /** Width that the vectors must have. Defaults to the first row's. */
  readonly width?: number;
}

/** Rows `start` to `start + rowCount`, column by column. The accessors throw if the column is of another kind. */
export interface ParquetChunk {
  readonly start: number;
  readonly rowCount: number;
  readonly values: Readonly<Record<string, ColumnValues>>;
  strings(column: string): readonly string[];
  numbers(column: string): readonly number[];
  messages(column: string): readonly (readonly Message[])[];
  /** [rowCount * width], row-major. Defaults to `activation_vector`. */
  vectors(column?: string): Float32Array;
}

/** An open Parquet file. Several iterations may run at once. Close it. */
export interface ParquetFile {
  readonly path: string;
  readonly rowCount: number;
  readonly columns: readonly ParquetColumn[];
  /** Width of `activation_vector` in the first row; null without such a column or without rows. */
  readonly vectorWidth: number | null;
  /** The base64 Arrow schema that Arrow readers go by; null where the file has none. */
  readonly arrowSchema: string | null;
  chunks(options?: ChunkOptions): AsyncGenerator<ParquetChunk, void, undefined>;
  close(): void;
}

/**
 * Opens a Parquet file for reading.
 *
 * @throws NlaError `parquet.missing`, `.not-parquet`, `.truncated`, `.corrupt`. Iterating throws `.no-column`, `.column-type`,
 * `.range`, `.width`, `.not-finite`, `.null`, `.corrupt`, `.memory`.
 */
export async function openParquet(file: string, options: DuckOptions = {}): Promise<ParquetFile> {
  const full = path.resolve(file); // never a URL, whatever the text looks like
  await checkFrame(full);
  const instance = await openDuck(options);
  try {
    const { columns, rowCount, arrowSchema } = await describe(instance, full);
    const vector = columns.find(({ name }) => name === VECTOR_COLUMN)?.type;
    const width = typeof vector === "object" && rowCount > 0 ? vector.vector : null;
    return {
      path: full,
      rowCount,
      columns,
      vectorWidth: width,
      arrowSchema,
      chunks: (chunkOptions = {}) =>
        readChunks(instance, { path: full, rowCount, columns, arrowSchema }, chunkOptions),
      close: () => instance.closeSync(),
    };
  } catch (thrown) {
    instance.closeSync();
    throw duckError(thrown, full, "parquet.corrupt");
  }
}

/** Checks the magic at both ends and the footer's length, which tells a cut file from one that never was Parquet. */
async function checkFrame(file: string): Promise<void> {
  const fail = (code: string, found: string, wanted: string, next: string, cause?: unknown): NlaError =>
    new NlaError({ code: `parquet.${code}`, subject: file, found, wanted, next, cause });
  const handle = await open(file, "r").catch((thrown: unknown) => {
    const next = "Check the path; the stage that writes this file may not have run.";
    throw fail("missing", messageOf(thrown), "a readable Parquet file", next, thrown);
  });
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw fail("not-parquet", "a folder", "a Parquet file", "Name a file in it.");
    const head = Buffer.alloc(4);
    const tail = Buffer.alloc(8);
    await handle.read(head, 0, 4, 0);
    if (stat.size < 12 || head.toString("latin1") !== MAGIC) {
      const found = `${stat.size} bytes that start with ${JSON.stringify(head.toString("latin1"))}`;
      throw fail(
        "not-parquet",
        found,
        `at least 12 bytes that start with "${MAGIC}"`,
        "Name a Parquet file.",
      );
    }
    await handle.read(tail, 0, 8, stat.size - 8);
    const footer = tail.readUInt32LE(0);
    if (tail.toString("latin1", 4) !== MAGIC || footer + 12 > stat.size) {
      const found = `${stat.size} bytes without a whole footer at their end`;
      throw fail("truncated", found, `a footer that ends with "${MAGIC}"`, "Write or fetch the file again.");
    }
  } finally {
    await handle.close();
  }
}

interface Described {
  readonly columns: readonly ParquetColumn[];
  readonly rowCount: number;
  readonly arrowSchema: string | null;
}

async function describe(instance: DuckDBInstance, file: string): Promise<Described> {
  const connection = await instance.connect();
  try {
    const source = `read_parquet(${sqlPath(file)})`;
    const count = await connection.runAndReadAll(
      `SELECT num_rows FROM parquet_file_metadata(${sqlPath(file)})`,
    );
    const rowCount = Number(count.getRows()[0]?.[0]);
    const notes = await connection.runAndReadAll(
      `SELECT decode(value) FROM parquet_kv_metadata(${sqlPath(file)}) WHERE decode(key) = 'ARROW:schema'`,
    );
    const arrowSchema = (notes.getRows()[0]?.[0] as string | undefined) ?? null;
    const empty = await connection.runAndReadAll(`SELECT * FROM ${source} LIMIT 0`);
    const names = empty.columnNames();
    const types = empty.columnTypes();
    const lists = names.filter((_, i) => kindOf(types[i] as DuckDBType) === "vector");
    const widths = new Map<string, number>();
    if (lists.length > 0 && rowCount > 0) {
      const lengths = lists.map((name) => `len(${sqlName(name)})`).join(", ");
      const [first] = (await connection.runAndReadAll(`SELECT ${lengths} FROM ${source} LIMIT 1`)).getRows();
      for (const [i, name] of lists.entries()) widths.set(name, Number(first?.[i] ?? 0));
    }
    const columns = names.map((name, i): ParquetColumn => {
      const kind = kindOf(types[i] as DuckDBType);
      const type = kind === "vector" ? { vector: widths.get(name) ?? 0 } : kind;
      return { name, type, stored: String(types[i]) };
    });
    return { columns, rowCount, arrowSchema };
  } finally {
    connection.closeSync();
  }
}

const SCALARS = new Map<DuckDBTypeId, Exclude<ColumnType, object>>([
  [DuckDBTypeId.BIGINT, "int64"],
  [DuckDBTypeId.UBIGINT, "int64"],
  [DuckDBTypeId.UINTEGER, "int64"],
  [DuckDBTypeId.INTEGER, "int32"],
  [DuckDBTypeId.SMALLINT, "int32"],
  [DuckDBTypeId.USMALLINT, "int32"],
  [DuckDBTypeId.TINYINT, "int32"],
  [DuckDBTypeId.UTINYINT, "int32"],
  [DuckDBTypeId.FLOAT, "float32"],
  [DuckDBTypeId.DOUBLE, "float64"],
  [DuckDBTypeId.BOOLEAN, "bool"],
  [DuckDBTypeId.VARCHAR, "string"],
]);

function kindOf(type: DuckDBType): Exclude<ColumnType, object> | "vector" | "other" {
  if (!(type instanceof DuckDBListType)) return SCALARS.get(type.typeId) ?? "other";
  const { valueType } = type;
  if (valueType.typeId === DuckDBTypeId.FLOAT || valueType.typeId === DuckDBTypeId.DOUBLE) return "vector";
  if (!(valueType instanceof DuckDBStructType)) return "other";
  const isText = (name: string): boolean =>
    valueType.entryTypes[valueType.entryNames.indexOf(name)]?.typeId === DuckDBTypeId.VARCHAR;
  return isText("role") && isText("content") ? "messages" : "other";
}

/** The SQL that reads a column in the type that parquet-columns.ts expects. */
function selected({ name, type }: ParquetColumn): string {
  if (type === "int64" || type === "int32") return `CAST(${sqlName(name)} AS BIGINT) AS ${sqlName(name)}`;
  if (type === "float32") return `CAST(${sqlName(name)} AS DOUBLE) AS ${sqlName(name)}`;
  return sqlName(name);
}

interface Source extends Described {
  readonly path: string;
}

async function* readChunks(
  instance: DuckDBInstance,
  source: Source,
  { columns: wanted, start = 0, end = source.rowCount, rowsPerChunk = 2048, width }: ChunkOptions,
): AsyncGenerator<ParquetChunk, void, undefined> {
  checkRange(source, start, end, rowsPerChunk);
  const columns = chosen(source, wanted);
  const hasVectors = columns.some(({ type }) => typeof type === "object");
  const labelled = columns.some(({ name }) => name === DOC_COLUMN);
  // Read beside the vectors even if not asked for: an error about a row has to say which document it is of.
  const doc = source.columns.find(({ name, type }) => name === DOC_COLUMN && type === "string");
  const read = hasVectors && !labelled && doc !== undefined ? [...columns, doc] : columns;
  const whole = start === 0 && end === source.rowCount;
  const sql = [
    `SELECT ${read.map(selected).join(", ")} FROM read_parquet(${sqlPath(source.path)}`,
    whole ? ")" : `, file_row_number = true) WHERE file_row_number >= ${start} AND file_row_number < ${end}`,
  ].join("");
  const connection = await instance.connect();
  try {
    const result = await connection.stream(sql).catch((thrown: unknown) => {
      throw duckError(thrown, source.path, "parquet.corrupt");
    });
    for (let row = start; row < end;) {
      const chunk = await result.fetchChunk().catch((thrown: unknown) => {
        throw duckError(thrown, source.path, "parquet.corrupt");
      });
      if (chunk === null || chunk.rowCount === 0) {
        const cause = new Error(`${row - start} rows of ${end - start}`);
        throw duckError(cause, source.path, "parquet.corrupt");
      }
      for (let from = 0; from < chunk.rowCount; from += rowsPerChunk) {
        const to = Math.min(chunk.rowCount, from + rowsPerChunk);
        yield toChunk(chunk, columns, read, { from, to, start: row + from, path: source.path, width });
      }
      row += chunk.rowCount;
    }
  } finally {
    connection.closeSync();
  }
}

function checkRange({ path, rowCount }: Source, start: number, end: number, rowsPerChunk: number): void {
  const sound = [start, end, rowsPerChunk].every(Number.isSafeInteger);
  if (sound && start >= 0 && start <= end && end <= rowCount && rowsPerChunk >= 1) return;
  throw new NlaError({
    code: "parquet.range",
    subject: path,
    found: `rows ${start} to ${end}, ${rowsPerChunk} a chunk`,
    wanted: `0 <= start <= end <= ${rowCount} and at least 1 row a chunk`,
    next: "Correct the range.",
  });
}

function chosen({ path, columns }: Source, wanted: readonly string[] | undefined): readonly ParquetColumn[] {
  if (wanted === undefined) return columns.filter(({ type }) => type !== "other");
  return wanted.map((name) => {
    const column = columns.find((candidate) => candidate.name === name);
    if (column !== undefined && column.type !== "other") return column;
    throw new NlaError({
      code: column === undefined ? "parquet.no-column" : "parquet.column-type",
      subject: path,
      found:
        column === undefined
          ? `the columns ${columns.map((c) => c.name).join(", ")}`
          : `${name} as ${column.stored}`,
      wanted: column === undefined ? `a column "${name}"` : "numbers, text, messages or vectors of floats",
      next: "Check that this is the file of the stage you mean.",
    });
  });
}

interface Slice {
  readonly from: number;
  readonly to: number;
  readonly start: number;
  readonly path: string;
  readonly width: number | undefined;
}

function toChunk(
  chunk: DuckDBDataChunk,
  columns: readonly ParquetColumn[],
  read: readonly ParquetColumn[],
  { from, to, start, path: file, width }: Slice,
): ParquetChunk {
  const docs = read.findIndex(({ name }) => name === DOC_COLUMN);
  const label = (row: number): string => {
    const doc = docs === -1 ? null : chunk.getColumnVector(docs).getItem(from + row);
    return `row ${start + row}${typeof doc === "string" ? ` (${DOC_COLUMN} ${doc})` : ""}`;
  };
  const values: Record<string, ColumnValues> = {};
  for (const [i, { name, type }] of columns.entries()) {
    const wanted = typeof type === "object" ? { vector: width ?? type.vector } : (type as ColumnType);
    values[name] = columnOf(chunk.getColumnVector(i), {
      from,
      to,
      type: wanted,
      subject: `${file}: ${name}`,
      label,
    });
  }
  const get = <T extends ColumnValues>(column: string, is: (v: ColumnValues) => v is T, kind: string): T => {
    const found = Object.hasOwn(values, column) ? values[column] : undefined;
    if (found !== undefined && is(found)) return found;
    throw new NlaError({
      code: found === undefined ? "parquet.no-column" : "parquet.column-type",
      subject: `${file}: ${column}`,
      found: found === undefined ? `a chunk of ${Object.keys(values).join(", ")}` : "values of another kind",
      wanted: `a column of ${kind}`,
      next: `Ask for it in "columns", or check the file's schema.`,
    });
  };
  return {
    start,
    rowCount: to - from,
    values,
    strings: (column) => get(column, isListOf<string>("string"), "text"),
    numbers: (column) => get(column, isListOf<number>("number"), "numbers"),
    messages: (column) => get(column, isListOf<readonly Message[]>("object"), "messages"),
    vectors: (column = VECTOR_COLUMN) => get(column, (v) => v instanceof Float32Array, "vectors"),
  };
}

function isListOf<T>(kind: string): (values: ColumnValues) => values is ColumnValues & readonly T[] {
  return (values): values is ColumnValues & readonly T[] =>
    Array.isArray(values) && values.every((value) => typeof value === kind);
}
