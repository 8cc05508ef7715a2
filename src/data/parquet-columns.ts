// Between DuckDB's column vectors and plain arrays, both ways, with every value checked on the way.
//
// Vectors go over as whole blocks of floats: item by item they would take most of the time of reading a file.
import {
  DuckDBArrayVector,
  DuckDBDoubleVector,
  DuckDBFloatVector,
  DuckDBListVector,
  DuckDBStructVector,
  type DuckDBVector,
  type DuckDBListValue,
  type DuckDBValue,
  listValue,
  structValue,
} from "@duckdb/node-api";

import { NlaError } from "../error.js";

/** What a column holds. `vector` is its width, 0 for a file without rows. */
export type ColumnType =
  "int64" | "int32" | "float32" | "float64" | "bool" | "string" | "messages" | { readonly vector: number };

/** One chat message. */
export interface Message {
  readonly role: string;
  readonly content: string;
}

/** A column's values: one per row, or for vectors one block [rows * width], row-major. */
export type ColumnValues =
  readonly string[] | readonly number[] | readonly boolean[] | readonly (readonly Message[])[] | Float32Array;

/** What a column is read or written as, and how to name it and its rows in an error. */
export interface ColumnContext {
  readonly from: number; // first row in the DuckDB vector
  readonly to: number; // row after the last
  readonly type: ColumnType;
  readonly subject: string;
  readonly label: (row: number) => string; // row counted from `from`
}

/** Rows `from` to `to` of a DuckDB vector as plain values. @throws NlaError `parquet.null`, `.width`, `.not-finite`, `.integer`. */
export function columnOf(vector: DuckDBVector, context: ColumnContext): ColumnValues {
  const { type } = context;
  if (typeof type === "object") return vectorsOf(vector as DuckDBListVector, type.vector, context);
  if (type === "messages") return messagesOf(vector as DuckDBListVector, context);
  const values: unknown[] = [];
  for (let i = context.from; i < context.to; i++) {
    const item = vector.getItem(i) as DuckDBValue;
    if (item === null) throw nullAt(context, i - context.from);
    values.push(typeof item === "bigint" ? toNumber(item, context, i - context.from) : item);
  }
  return values as readonly string[];
}

function nullAt({ subject, label }: ColumnContext, row: number): NlaError {
  return new NlaError({
    code: "parquet.null",
    subject,
    found: `null in ${label(row)}`,
    wanted: "a value in every row",
    next: "Write the file again without that row, or do not ask for this column.",
  });
}

function toNumber(value: bigint, { subject, label }: ColumnContext, row: number): number {
  const number = Number(value);
  if (Number.isSafeInteger(number)) return number;
  throw new NlaError({
    code: "parquet.integer",
    subject,
    found: `${value} in ${label(row)}`,
    wanted: "an integer below 2^53",
    next: "Positions, layers and counts are never that large: the file is damaged or the column is another one.",
  });
}

function vectorsOf(list: DuckDBListVector, width: number, context: ColumnContext): Float32Array {
  const { from, to } = context;
  const child = list.childVector;
  const floats = floatsOf(child);
  const out = new Float32Array((to - from) * width);
  for (let i = from; i < to; i++) {
    const row = i - from;
    if (!isValid(list, i)) throw nullAt(context, row);
    const length = list.getEntryLength(i);
    if (length !== width) throw widthError(context, row, length, width);
    const begin = list.getEntryOffset(i);
    for (let j = begin; hasNulls(child) && j < begin + length; j++) {
      if (!isValid(child, j)) throw nullAt(context, row);
    }
    out.set(floats.subarray(begin, begin + length), row * width); // float64 is rounded to float32 here
  }
  checkFinite(out, width, context);
  return out;
}

function widthError({ subject, label }: ColumnContext, row: number, found: number, wanted: number): NlaError {
  return new NlaError({
    code: "parquet.width",
    subject,
    found: `${found} values in ${label(row)}`,
    wanted: `${wanted}`,
    next: "The vectors must all come from one model; check the sidecar's d_model and the file.",
  });
}

/** @throws NlaError `parquet.not-finite` that names the first row and place of a NaN or an infinity. */
export function checkFinite(
  values: Float32Array,
  width: number,
  { subject, label }: Pick<ColumnContext, "subject" | "label">,
): void {
  for (let i = 0; i < values.length; i++) {
    if (Number.isFinite(values[i])) continue;
    throw new NlaError({
      code: "parquet.not-finite",
      subject,
      found: `${values[i]} at index ${i % width} of ${label(Math.floor(i / width))}`,
      wanted: "finite float32 values",
      next: "Extract that row again (in float32 if the model overflows in bf16 or f16), or drop it.",
    });
  }
}

// DuckDB's wrappers keep their block of values and their validity private, and offer single items only.
function floatsOf(vector: DuckDBVector): Float32Array | Float64Array {
  if (vector instanceof DuckDBFloatVector) return vector["items"];
  if (vector instanceof DuckDBDoubleVector) return vector["items"];
  throw new TypeError(`a vector column has a child of type ${String(vector.type)}`);
}

interface WithValidity {
  readonly validity: { readonly data: BigUint64Array | null; itemValid(index: number): boolean };
}

function isValid(vector: DuckDBVector, index: number): boolean {
  return (vector as unknown as WithValidity).validity.itemValid(index);
}

function hasNulls(vector: DuckDBVector): boolean {
  return (vector as unknown as WithValidity).validity.data !== null;
}

function messagesOf(list: DuckDBListVector, context: ColumnContext): readonly (readonly Message[])[] {
  const structs = list.childVector;
  if (!(structs instanceof DuckDBStructVector)) throw new TypeError("a column of messages without structs");
  const roles = structs.entryVectorAt(structs.type.entryNames.indexOf("role"));
  const contents = structs.entryVectorAt(structs.type.entryNames.indexOf("content"));
  const out: Message[][] = [];
  for (let i = context.from; i < context.to; i++) {
    const row = i - context.from;
    if (!isValid(list, i)) throw nullAt(context, row);
    const begin = list.getEntryOffset(i);
    out.push(
      Array.from({ length: list.getEntryLength(i) }, (_, j) => {
        const [role, content] = [roles.getItem(begin + j), contents.getItem(begin + j)];
        if (typeof role !== "string" || typeof content !== "string") throw nullAt(context, row);
        return { role, content };
      }),
    );
  }
  return out;
}

/**
 * Sets all rows of a DuckDB vector from `values`, rows `from` to `to` of them.
 * @throws NlaError `parquet.not-finite`, `.integer`, `.value` (a value of another kind).
 */
export function setColumn(vector: DuckDBVector, values: ColumnValues, context: ColumnContext): void {
  const { from, to, type } = context;
  if (typeof type === "object") {
    const block = (values as Float32Array).subarray(from * type.vector, to * type.vector);
    checkFinite(block, type.vector, context);
    floatsOf((vector as DuckDBArrayVector)["childData"]).set(block);
  } else {
    const convert = CONVERT[type];
    for (let i = from; i < to; i++) {
      const value = convert((values as readonly unknown[])[i]);
      if (value === undefined) throw valueError(context, i - from, (values as readonly unknown[])[i]);
      vector.setItem(i - from, value as never);
    }
  }
  vector.flush();
}

function valueError({ subject, label, type }: ColumnContext, row: number, value: unknown): NlaError {
  return new NlaError({
    code: "parquet.value",
    subject,
    found: `${typeof value === "number" ? value : JSON.stringify(value)?.slice(0, 80)} in ${label(row)}`,
    wanted: `${JSON.stringify(type)} (text without lone surrogates, whole numbers within the type)`,
    next: "Correct the rows before they are written.",
  });
}

const CONVERT: Readonly<Record<Exclude<ColumnType, object>, (value: unknown) => DuckDBValue | undefined>> = {
  int64: (value) => (Number.isSafeInteger(value) ? BigInt(value as number) : undefined),
  int32: (value) =>
    Number.isInteger(value) && (value as number) === ((value as number) | 0) ? (value as number) : undefined,
  float32: (value) => (typeof value === "number" ? value : undefined),
  float64: (value) => (typeof value === "number" ? value : undefined),
  bool: (value) => (typeof value === "boolean" ? value : undefined),
  string: (value) => (isText(value) ? value : undefined),
  messages: toMessages,
};

function toMessages(value: unknown): DuckDBListValue | undefined {
  if (!Array.isArray(value)) return undefined;
  const messages = value as readonly Partial<Message>[];
  if (!messages.every(({ role, content }) => isText(role) && isText(content))) return undefined;
  return listValue(
    messages.map(({ role, content }) => structValue({ role: role as string, content: content as string })),
  );
}

/** A string whose UTF-8 reads back as itself: a lone surrogate would silently become U+FFFD. */
function isText(value: unknown): value is string {
  return typeof value === "string" && !/\p{Surrogate}/u.test(value);
}
