// Writes Parquet through DuckDB from a stream of chunks: flat memory, atomic, and the same rows give the same bytes.
//
// Rows wait in a bounded DuckDB table, which spills beside the output, until the stream ends; then one COPY writes them.
// So the disk needs room for the data twice. Snappy, like the reference's files, with the Arrow schema that lets Arrow
// readers see fixed-size lists. Rearranging existing files is in parquet-rearrange.ts.
import path from "node:path";
import {
  ARRAY,
  BIGINT,
  BOOLEAN,
  DOUBLE,
  type DuckDBAppender,
  type DuckDBConnection,
  DuckDBDataChunk,
  type DuckDBType,
  FLOAT,
  INTEGER,
  LIST,
  STRUCT,
  VARCHAR,
} from "@duckdb/node-api";

import { NlaError } from "../error.js";
import { type ArrowField, type ArrowType, encodeArrowSchema } from "./arrow-schema.js";
import { type DuckOptions, duckError, sqlName, sqlText, withDuck } from "./duckdb.js";
import { replaceFile, withScratchFolder } from "./files.js";
import { type ColumnValues, setColumn } from "./parquet-columns.js";
import { type ColumnType, DOC_COLUMN } from "./parquet.js";

/** A column to write. */
export interface ColumnToWrite {
  readonly name: string;
  readonly type: ColumnType;
}

/** How to write. */
export interface WriteOptions extends DuckOptions {
  /** Rows of a row group, rounded up to DuckDB's chunks of 2048. Defaults to 4096, as the reference's training sets. */
  readonly rowGroupSize?: number;
}

const MAX_WIDTH = 100_000; // DuckDB's arrays end there; the widest public model has 18,432
const BLOCK_BYTES = 16 * 2 ** 20; // the appender itself would hold back 204,800 rows, 3 GB at width 3584

/**
 * Writes rows to `file`, column by column, chunk by chunk; every chunk has all `columns`, of one length. Returns the number
 * of rows. The old file stays until the new one is whole.
 *
 * @throws NlaError `parquet.columns` (a schema that cannot be), `.rows` (columns of unequal length, or missing),
 * `.not-finite`, `.value`, `.memory`, `disk.full`; and whatever the stream throws.
 */
export async function writeParquet(
  file: string,
  columns: readonly ColumnToWrite[],
  chunks:
    Iterable<Readonly<Record<string, ColumnValues>>> | AsyncIterable<Readonly<Record<string, ColumnValues>>>,
  { rowGroupSize = 4096, ...duck }: WriteOptions = {},
): Promise<number> {
  const target = path.resolve(file);
  checkColumns(columns, target);
  let rows = 0;
  const stream = { error: null as unknown };
  await withScratchFolder(target, (spill) =>
    replaceFile(target, (temporary) =>
      withDuck(duck, spill, async (connection) => {
        const types = columns.map(({ name, type }) => `${sqlName(name)} ${sqlType(type)}`);
        await connection.run(`CREATE TABLE rows (${types.join(", ")})`);
        const appender = await connection.createAppender("rows");
        rows = await appendAll(appender, columns, watched(chunks, stream), target);
        const schema = encodeArrowSchema(columns.map(({ name, type }) => ({ name, type: arrowType(type) })));
        await copyTo(connection, "SELECT * FROM rows", temporary, { rowGroupSize, schema });
      }).catch((thrown: unknown) => {
        throw thrown === stream.error ? thrown : duckError(thrown, target, "parquet.write");
      }),
    ),
  );
  return rows;
}

/** `chunks`, with what they throw noted in `stream`: the caller's own error has to reach the caller as it is. */
async function* watched<T>(
  chunks: Iterable<T> | AsyncIterable<T>,
  stream: { error: unknown },
): AsyncGenerator<T, void, undefined> {
  try {
    yield* chunks;
  } catch (thrown) {
    stream.error = thrown;
    throw thrown;
  }
}

/** Copies a query's rows into a new Parquet file, with the Arrow schema if there is one. */
export async function copyTo(
  connection: DuckDBConnection,
  query: string,
  file: string,
  { rowGroupSize, schema }: { rowGroupSize: number; schema: string | null },
): Promise<void> {
  const options = [
    "FORMAT parquet",
    "COMPRESSION snappy",
    `ROW_GROUP_SIZE ${rowGroupSize}`,
    "USE_TMP_FILE false", // the caller's temporary already is one
    ...(schema === null ? [] : [`KV_METADATA {"ARROW:schema": ${sqlText(schema)}}`]),
  ];
  await connection.run(`COPY (${query}) TO ${sqlText(file)} (${options.join(", ")})`);
}

function checkColumns(columns: readonly ColumnToWrite[], file: string): void {
  const names = columns.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  const bad = columns.find(
    ({ type }) =>
      typeof type === "object" &&
      !(Number.isInteger(type.vector) && type.vector >= 1 && type.vector <= MAX_WIDTH),
  );
  if (twice === undefined && bad === undefined && names.length > 0) return;
  throw new NlaError({
    code: "parquet.columns",
    subject: file,
    found:
      bad === undefined ? `the columns [${names.join(", ")}]` : `${bad.name} as ${JSON.stringify(bad.type)}`,
    wanted: `at least one column, each name once, vectors of width 1 to ${MAX_WIDTH}`,
    next: "Correct the list of columns.",
  });
}

async function appendAll(
  appender: DuckDBAppender,
  columns: readonly ColumnToWrite[],
  chunks:
    Iterable<Readonly<Record<string, ColumnValues>>> | AsyncIterable<Readonly<Record<string, ColumnValues>>>,
  file: string,
): Promise<number> {
  const width = columns.reduce((sum, { type }) => sum + (typeof type === "object" ? type.vector : 16), 0);
  const rowsPerBlock = Math.max(1, Math.min(2048, Math.floor(BLOCK_BYTES / (4 * width))));
  // One chunk for everything: each holds room for 2048 rows, and only the garbage collector would free it.
  const block = DuckDBDataChunk.create(columns.map(({ type }) => duckType(type)));
  let total = 0;
  for await (const chunk of chunks) {
    const count = checkedRows(chunk, columns, file, total);
    const docs = chunk[DOC_COLUMN];
    for (let from = 0; from < count; from += rowsPerBlock) {
      const to = Math.min(count, from + rowsPerBlock);
      block.reset();
      block.rowCount = to - from;
      const first = total + from;
      const label = (row: number): string => {
        const doc = Array.isArray(docs) ? ` (${DOC_COLUMN} ${String(docs[from + row])})` : "";
        return `row ${first + row}${doc}`;
      };
      for (const [i, { name, type }] of columns.entries()) {
        const context = { from, to, type, subject: `${file}: ${name}`, label };
        setColumn(block.getColumnVector(i), chunk[name] as ColumnValues, context);
      }
      appender.appendDataChunk(block);
      appender.flushSync();
    }
    total += count;
  }
  appender.closeSync();
  return total;
}

/** Number of rows of `chunk`, once all columns agree on it. */
function checkedRows(
  chunk: Readonly<Record<string, ColumnValues>>,
  columns: readonly ColumnToWrite[],
  file: string,
  before: number,
): number {
  const counts = columns.map(({ name, type }) => {
    const values = Object.hasOwn(chunk, name) ? chunk[name] : undefined;
    if (values === undefined) return null;
    if (typeof type !== "object") return Array.isArray(values) ? values.length : null;
    return values instanceof Float32Array ? values.length / type.vector : null;
  });
  const [first] = counts;
  if (typeof first === "number" && Number.isInteger(first) && counts.every((count) => count === first))
    return first;
  throw new NlaError({
    code: "parquet.rows",
    subject: `${file}: the chunk after row ${before}`,
    found: columns.map(({ name }, i) => `${name}: ${counts[i] ?? "missing or of another kind"}`).join(", "),
    wanted: "the same whole number of rows in every column",
    next: "Give each chunk all columns, vectors as one Float32Array [rows * width].",
  });
}

const MESSAGES = 'STRUCT("role" VARCHAR, "content" VARCHAR)[]';

function sqlType(type: ColumnType): string {
  if (typeof type === "object") return `FLOAT[${type.vector}]`;
  return {
    int64: "BIGINT",
    int32: "INTEGER",
    float32: "FLOAT",
    float64: "DOUBLE",
    bool: "BOOLEAN",
    string: "VARCHAR",
    messages: MESSAGES,
  }[type];
}

function duckType(type: ColumnType): DuckDBType {
  if (typeof type === "object") return ARRAY(FLOAT, type.vector);
  const messages = LIST(STRUCT({ role: VARCHAR, content: VARCHAR }));
  return {
    int64: BIGINT,
    int32: INTEGER,
    float32: FLOAT,
    float64: DOUBLE,
    bool: BOOLEAN,
    string: VARCHAR,
    messages,
  }[type];
}

const utf8 = { kind: "utf8" } as const;
const messageFields: readonly ArrowField[] = [
  { name: "role", type: utf8 },
  { name: "content", type: utf8 },
];

/** The Arrow type that Arrow readers should see for a column. */
export function arrowType(type: ColumnType): ArrowType {
  if (typeof type === "object")
    return { kind: "fixed-list", size: type.vector, item: { kind: "float", bits: 32 } };
  const types: Readonly<Record<Exclude<ColumnType, object>, ArrowType>> = {
    int64: { kind: "int", bits: 64 },
    int32: { kind: "int", bits: 32 },
    float32: { kind: "float", bits: 32 },
    float64: { kind: "float", bits: 64 },
    bool: { kind: "bool" },
    string: utf8,
    messages: { kind: "list", item: { kind: "struct", fields: messageFields } },
  };
  return types[type];
}
