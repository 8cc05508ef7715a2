// Rows of a Parquet file in another order, or only those of some documents, into a new file with flat memory.
//
// DuckDB's own sort keeps more than its memory limit of wide lists pinned (measured: 60,000 rows of width 3584 fail at
// 1 GiB), so the permutation is done here by buckets: rows are streamed once into scratch files by their new position,
// and each bucket, small enough for memory, is put in order and written. The disk needs room for the data three times.
import { type FileHandle, open, readFile } from "node:fs/promises";
import path from "node:path";

import { NlaError } from "../error.js";
import { encodeArrowSchema } from "./arrow-schema.js";
import { duckError, sqlName, sqlPath, withDuck } from "./duckdb.js";
import { replaceFile, withScratchFolder } from "./files.js";
import type { ColumnValues, Message } from "./parquet-columns.js";
import { type ColumnToWrite, type WriteOptions, arrowType, copyTo, writeParquet } from "./parquet-write.js";
import { DOC_COLUMN, type ParquetFile, openParquet } from "./parquet.js";

/** Options of {@link permuteParquet}. */
export interface PermuteOptions extends WriteOptions {
  /** MiB of rows put in order at a time. Defaults to 128. */
  readonly bucketMb?: number;
}

/**
 * Writes to `out` the rows of `file` in the order `order`: row i of `out` is row `order[i]` of `file`.
 *
 * @throws NlaError `parquet.order` (not a permutation of the rows), `parquet.column-type` (a column that cannot be carried
 * over), and what reading and writing throw.
 */
export async function permuteParquet(
  file: string,
  out: string,
  order: ArrayLike<number>,
  { bucketMb = 128, ...write }: PermuteOptions = {},
): Promise<void> {
  const source = await openParquet(file, write);
  try {
    const columns = carriedColumns(source);
    const newPlace = inverted(order, source);
    const bytesPerRow = await meanBytesPerRow(source, columns);
    const rowsPerBucket = Math.max(1, Math.floor((bucketMb * 2 ** 20) / bytesPerRow));
    await withScratchFolder(path.resolve(out), async (scratch) => {
      const buckets = new Buckets(scratch, columns, Math.ceil(source.rowCount / rowsPerBucket));
      try {
        for await (const { start, rowCount, values } of source.chunks()) {
          for (let row = 0; row < rowCount; row++) {
            const place = newPlace[start + row] as number;
            await buckets.add(Math.floor(place / rowsPerBucket), place, values, row);
          }
        }
        await writeParquet(out, columns, buckets.inOrder(), write);
      } finally {
        await buckets.close();
      }
    });
  } finally {
    source.close();
  }
}

/**
 * Writes to `out` the rows of `file` whose `doc_id` is in `docIds`, in their order. Returns the number of rows.
 *
 * @throws NlaError `parquet.no-column` without such a column, and what reading and writing throw.
 */
export async function filterParquet(
  file: string,
  out: string,
  docIds: Iterable<string>,
  { rowGroupSize = 4096, ...duck }: WriteOptions = {},
): Promise<number> {
  const source = await openParquet(file, duck);
  const target = path.resolve(out);
  try {
    const columns = carriedColumns(source);
    if (!columns.some(({ name, type }) => name === DOC_COLUMN && type === "string")) {
      throw new NlaError({
        code: "parquet.no-column",
        subject: source.path,
        found: `the columns ${columns.map(({ name }) => name).join(", ")}`,
        wanted: `a text column "${DOC_COLUMN}"`,
        next: "Rows are chosen by document; write the file with its document ids.",
      });
    }
    let rows = 0;
    await withScratchFolder(target, (spill) =>
      replaceFile(target, (temporary) =>
        withDuck(duck, spill, async (connection) => {
          await connection.run("CREATE TABLE wanted (doc VARCHAR)");
          const appender = await connection.createAppender("wanted");
          for (const doc of docIds) {
            appender.appendVarchar(doc);
            appender.endRow();
          }
          appender.closeSync();
          // With the sides swapped the rows themselves would be hashed: all of them in memory, and out of order.
          await connection.run("SET disabled_optimizers = 'build_side_probe_side,join_order'");
          const selected = columns.map(({ name, type }) =>
            typeof type === "object"
              ? `CAST(${sqlName(name)} AS FLOAT[]) AS ${sqlName(name)}`
              : sqlName(name),
          );
          const query = [
            `SELECT ${selected.join(", ")} FROM read_parquet(${sqlPath(source.path)})`,
            `WHERE ${sqlName(DOC_COLUMN)} IN (SELECT doc FROM wanted)`,
          ].join(" ");
          const schema = encodeArrowSchema(
            columns.map(({ name, type }) => ({ name, type: arrowType(type) })),
          );
          await copyTo(connection, query, temporary, { rowGroupSize, schema });
          const count = `SELECT num_rows FROM parquet_file_metadata(${sqlPath(temporary)})`;
          rows = Number((await connection.runAndReadAll(count)).getRows()[0]?.[0]);
        }).catch((thrown: unknown) => {
          throw duckError(thrown, target, "parquet.write");
        }),
      ),
    );
    return rows;
  } finally {
    source.close();
  }
}

/** All columns of `source` as they will be written. @throws NlaError `parquet.column-type` for one that is none of ours. */
export function carriedColumns({ path: file, columns }: ParquetFile): readonly ColumnToWrite[] {
  return columns.map(({ name, type, stored }) => {
    if (type !== "other")
      return { name, type: typeof type === "object" ? { vector: Math.max(1, type.vector) } : type };
    throw new NlaError({
      code: "parquet.column-type",
      subject: `${file}: ${name}`,
      found: stored,
      wanted: "numbers, text, booleans, messages or vectors of floats",
      next: "Write the file again without this column.",
    });
  });
}

/** Where each row goes. @throws NlaError `parquet.order` unless `order` names every row once. */
function inverted(order: ArrayLike<number>, { path: file, rowCount }: ParquetFile): Float64Array {
  const place = new Float64Array(rowCount).fill(-1);
  const fail = (found: string): NlaError =>
    new NlaError({
      code: "parquet.order",
      subject: file,
      found,
      wanted: `each of the rows 0 to ${rowCount - 1} once`,
      next: "Make the order for this very file.",
    });
  if (order.length !== rowCount) throw fail(`an order of ${order.length} rows`);
  for (let i = 0; i < rowCount; i++) {
    const row = order[i] as number;
    if (!Number.isInteger(row) || row < 0 || row >= rowCount) throw fail(`row ${row} at place ${i}`);
    if (place[row] !== -1) throw fail(`row ${row} at the places ${place[row]} and ${i}`);
    place[row] = i;
  }
  return place;
}

async function meanBytesPerRow(source: ParquetFile, columns: readonly ColumnToWrite[]): Promise<number> {
  let rows = 0;
  let bytes = 0;
  const some = { end: Math.min(source.rowCount, 2048) };
  for await (const { rowCount, values } of source.chunks(some)) {
    rows += rowCount;
    for (let row = 0; row < rowCount; row++) bytes += encodeRow(columns, values, row, 0).byteLength;
  }
  return Math.max(1, bytes / Math.max(1, rows));
}

// A row in a scratch file: length of the rest, new place, length of the JSON, the JSON of its other values, the vectors.
const ROW_HEAD = 20;

function encodeRow(
  columns: readonly ColumnToWrite[],
  values: Readonly<Record<string, ColumnValues>>,
  row: number,
  place: number,
): Uint8Array {
  const plain: unknown[] = [];
  const vectors: Float32Array[] = [];
  for (const { name, type } of columns) {
    if (typeof type !== "object") plain.push(jsonable((values[name] as readonly unknown[])[row]));
    else vectors.push((values[name] as Float32Array).subarray(row * type.vector, (row + 1) * type.vector));
  }
  const json = Buffer.from(JSON.stringify(plain));
  const length = ROW_HEAD + json.byteLength + vectors.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const out = Buffer.alloc(length);
  out.writeUInt32LE(length, 0);
  out.writeDoubleLE(place, 4);
  out.writeUInt32LE(json.byteLength, 12);
  let at = ROW_HEAD + json.copy(out, ROW_HEAD);
  for (const vector of vectors) {
    at += Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).copy(out, at);
  }
  return out;
}

// JSON has no NaN, no infinities and no negative zero, which a float column may hold.
const jsonable = (value: unknown): unknown =>
  typeof value === "number" && (!Number.isFinite(value) || Object.is(value, -0))
    ? { n: String(value === 0 ? "-0" : value) }
    : value;
const fromJson = (value: unknown): unknown =>
  typeof value === "object" && value !== null && "n" in value ? Number(value.n) : value;

class Buckets {
  private readonly handles: (FileHandle | null)[];
  private readonly pending: Uint8Array[][];
  private pendingBytes = 0;

  constructor(
    private readonly folder: string,
    private readonly columns: readonly ColumnToWrite[],
    count: number,
  ) {
    this.handles = Array.from({ length: count }, () => null);
    this.pending = Array.from({ length: count }, () => []);
  }

  async add(
    bucket: number,
    place: number,
    values: Readonly<Record<string, ColumnValues>>,
    row: number,
  ): Promise<void> {
    const bytes = encodeRow(this.columns, values, row, place);
    this.pending[bucket]?.push(bytes);
    this.pendingBytes += bytes.byteLength;
    if (this.pendingBytes > 64 * 2 ** 20) await this.flush();
  }

  private async flush(): Promise<void> {
    for (const [i, rows] of this.pending.entries()) {
      if (rows.length === 0) continue;
      const handle = (this.handles[i] ??= await open(this.file(i), "wx"));
      await handle.writeFile(Buffer.concat(rows));
      this.pending[i] = [];
    }
    this.pendingBytes = 0;
  }

  private file(bucket: number): string {
    return path.join(this.folder, `bucket-${bucket}`);
  }

  /** All rows by their new place. Call once, after the last `add`. */
  async *inOrder(): AsyncGenerator<Record<string, ColumnValues>> {
    await this.flush();
    for (const [i, handle] of this.handles.entries()) {
      await handle?.close();
      this.handles[i] = null;
      const bytes = await readFile(this.file(i));
      const rows: { place: number; at: number }[] = [];
      for (let at = 0; at < bytes.byteLength; at += bytes.readUInt32LE(at)) {
        rows.push({ place: bytes.readDoubleLE(at + 4), at });
      }
      rows.sort((a, b) => a.place - b.place);
      for (let from = 0; from < rows.length; from += 2048) {
        yield decodeRows(bytes, rows.slice(from, from + 2048), this.columns);
      }
    }
  }

  async close(): Promise<void> {
    for (const handle of this.handles) await handle?.close();
  }
}

function decodeRows(
  bytes: Buffer,
  rows: readonly { at: number }[],
  columns: readonly ColumnToWrite[],
): Record<string, ColumnValues> {
  const plain = rows.map(({ at }) => {
    const start = at + ROW_HEAD;
    return JSON.parse(bytes.toString("utf8", start, start + bytes.readUInt32LE(at + 12))) as unknown[];
  });
  const ends = rows.map(({ at }) => at + ROW_HEAD + bytes.readUInt32LE(at + 12)); // where the next vector begins
  const values: Record<string, ColumnValues> = {};
  let next = 0;
  for (const { name, type } of columns) {
    if (typeof type === "object") {
      const block = new Float32Array(rows.length * type.vector);
      const raw = Buffer.from(block.buffer);
      for (let i = 0; i < rows.length; i++) {
        const begin = ends[i] as number;
        bytes.copy(raw, i * 4 * type.vector, begin, begin + 4 * type.vector);
        ends[i] = begin + 4 * type.vector;
      }
      values[name] = block;
    } else {
      const column = next++;
      values[name] = plain.map((row) => fromJson(row[column])) as readonly (readonly Message[])[];
    }
  }
  return values;
}
