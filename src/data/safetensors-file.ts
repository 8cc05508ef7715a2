// Safetensors files: an 8-byte header length, a JSON header, then the tensors' bytes. Read by position, never whole.
//
// A header comes from anywhere, so nothing in it is believed before it is checked against the file: lengths, offsets,
// dtypes, shapes. Several files that make one model are in safetensors.ts; the meaning of names is model/'s.
import { type FileHandle, open } from "node:fs/promises";
import { TextDecoder } from "node:util";

import { NlaError, messageOf } from "../error.js";
import { writeFileAtomic } from "./files.js";
import { bf16ToF32, f16ToF32 } from "./floats.js";
import { duplicateKey } from "./json-keys.js";

/** Dtypes that are stored and read here; the format has more (8-bit floats, unsigned), which no supported model uses. */
export type StoredDtype = "F32" | "F16" | "BF16" | "F64" | "I64" | "I32" | "I16" | "I8" | "U8" | "BOOL";

// prettier-ignore
const BYTES: Readonly<Record<StoredDtype, number>> = { F64: 8, I64: 8, F32: 4, I32: 4, F16: 2, BF16: 2, I16: 2, I8: 1, U8: 1, BOOL: 1 };

const MAX_HEADER_BYTES = 100_000_000; // the format's own limit; stops a forged length before memory is taken for it
const MAX_TENSORS = 1_000_000; // a 400B mixture of experts has about 100,000; a larger count is a forged header
const MAX_RANK = 8; // no layer has more axes than 5

/** One tensor as the header states it. `byteLength` is checked against dtype, shape and offsets. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  readonly byteLength: number;
  /** The file that holds it, and where it begins there. */
  readonly file: string;
  readonly begin: number;
}

/** Tensors on disk, of one file or of all shards together. `entries` are in the order of the file (then of the shards). */
export interface WeightsFile {
  readonly path: string;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  /** The tensor's bytes as stored, row-major, little-endian: a fresh array. */
  read(name: string): Promise<Uint8Array>;
  /** The tensor as float32 [product of shape]; F32, F16, BF16 exactly, F64 rounded. Refuses integers. */
  readF32(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}

/** A tensor to be written: `data` holds product(shape) values of `dtype`, row-major, little-endian. */
export interface TensorToWrite {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

type Located = TensorEntry;

/**
 * Opens one safetensors file and checks its whole header; the tensors' bytes are read on demand. Close it.
 *
 * @throws NlaError `safetensors.missing`, `.truncated`, `.header-too-large`, `.not-json`, `.header` (shape of the header or
 * of an entry), `.duplicate-name`, `.metadata`, `.dtype`, `.size` (dtype x shape against offsets), `.offsets`.
 */
export async function openSafetensors(path: string): Promise<WeightsFile> {
  const file = await openForReading(path);
  try {
    const { size } = await file.stat();
    const { header, dataStart } = await readHeader(file, path, size);
    const { entries, metadata } = checkHeader(header, path, dataStart, size);
    return new OneFile(path, file, entries, metadata);
  } catch (thrown) {
    await file.close();
    throw thrown;
  }
}

class OneFile implements WeightsFile {
  constructor(
    readonly path: string,
    private readonly file: FileHandle,
    readonly entries: ReadonlyMap<string, Located>,
    readonly metadata: Readonly<Record<string, string>>,
  ) {}

  async read(name: string): Promise<Uint8Array> {
    const { begin, byteLength } = entryOf(this, name) as Located;
    const bytes = new Uint8Array(byteLength);
    await readExactly(this.file, bytes, begin, this.path);
    return bytes;
  }

  async readF32(name: string): Promise<Float32Array> {
    return toF32(await this.read(name), entryOf(this, name), this.path);
  }

  async close(): Promise<void> {
    await this.file.close();
  }
}

/** The entry `name` of `weights`. @throws NlaError `safetensors.no-tensor` that names the nearest ones there. */
export function entryOf(weights: WeightsFile, name: string): TensorEntry {
  const entry = weights.entries.get(name);
  if (entry !== undefined) return entry;
  const tail = name.split(".").slice(-2).join(".");
  const alike = [...weights.entries.keys()].filter((other) => other.endsWith(tail)).slice(0, 5);
  throw new NlaError({
    code: "safetensors.no-tensor",
    subject: weights.path,
    found: `${weights.entries.size} tensors${alike.length > 0 ? `, alike: ${alike.join(", ")}` : ""}`,
    wanted: `a tensor "${name}"`,
    next: "Check that the weights belong to this model's config.json.",
  });
}

function toF32(bytes: Uint8Array, { dtype, name }: TensorEntry, path: string): Float32Array {
  const { buffer } = bytes; // fresh and at offset 0, so every view is aligned
  if (dtype === "F32") return new Float32Array(buffer);
  if (dtype === "BF16") return bf16ToF32(new Uint16Array(buffer));
  if (dtype === "F16") return f16ToF32(new Uint16Array(buffer));
  if (dtype === "F64") return Float32Array.from(new Float64Array(buffer));
  throw new NlaError({
    code: "safetensors.not-float",
    subject: `${path}: ${name}`,
    found: dtype,
    wanted: "F32, F16, BF16 or F64",
    next: "Read it with read(), which gives the bytes as they are.",
  });
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (thrown) {
    throw new NlaError({
      code: "safetensors.missing",
      subject: path,
      found: messageOf(thrown),
      wanted: "a readable safetensors file",
      next: "Check the path, and that the download is complete.",
      cause: thrown,
    });
  }
}

async function readExactly(
  file: FileHandle,
  into: Uint8Array,
  position: number,
  path: string,
): Promise<void> {
  for (let done = 0; done < into.byteLength;) {
    // One read call takes at most 2 GiB on Linux, so large embeddings need several.
    const want = Math.min(into.byteLength - done, 2 ** 30);
    const { bytesRead } = await file.read(into, done, want, position + done);
    if (bytesRead === 0)
      throw truncated(path, `the file ends at byte ${position + done}`, position + into.byteLength);
    done += bytesRead;
  }
}

function truncated(path: string, found: string, bytesWanted: number): NlaError {
  return new NlaError({
    code: "safetensors.truncated",
    subject: path,
    found,
    wanted: `at least ${bytesWanted} bytes`,
    next: "Is the download or copy complete? Fetch the file again.",
  });
}

async function readHeader(
  file: FileHandle,
  path: string,
  size: number,
): Promise<{ header: unknown; dataStart: number }> {
  if (size < 8) throw truncated(path, `${size} bytes`, 8);
  const prefix = new Uint8Array(8);
  await readExactly(file, prefix, 0, path);
  const stated = new DataView(prefix.buffer).getBigUint64(0, true);
  if (stated > BigInt(MAX_HEADER_BYTES)) {
    throw new NlaError({
      code: "safetensors.header-too-large",
      subject: path,
      found: `a header of ${stated} bytes`,
      wanted: `at most ${MAX_HEADER_BYTES}`,
      next: "This is not a safetensors file, or its first bytes are damaged.",
    });
  }
  const length = Number(stated);
  if (8 + length > size)
    throw truncated(path, `a header of ${length} bytes in a file of ${size}`, 8 + length);
  const bytes = new Uint8Array(length);
  await readExactly(file, bytes, 8, path);
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    const header: unknown = JSON.parse(text);
    const twice = duplicateKey(text);
    if (twice !== null)
      throw headerError(path, "duplicate-name", `the key "${twice}" twice`, "each name once");
    return { header, dataStart: 8 + length };
  } catch (thrown) {
    if (thrown instanceof NlaError) throw thrown;
    throw headerError(path, "not-json", messageOf(thrown), "a header of UTF-8 JSON", thrown);
  }
}

function headerError(path: string, what: string, found: string, wanted: string, cause?: unknown): NlaError {
  return new NlaError({
    code: `safetensors.${what}`,
    subject: path,
    found,
    wanted,
    next: "The file is damaged or was not written as safetensors. Fetch or export it again.",
    ...(cause === undefined ? {} : { cause }),
  });
}

function checkHeader(
  header: unknown,
  path: string,
  dataStart: number,
  size: number,
): { entries: Map<string, Located>; metadata: Record<string, string> } {
  if (!isRecord(header))
    throw headerError(path, "header", JSON.stringify(header).slice(0, 60), "a JSON object");
  const { __metadata__: metadata = {}, ...tensors } = header;
  if (!isRecord(metadata) || !Object.values(metadata).every((value) => typeof value === "string")) {
    throw headerError(
      path,
      "metadata",
      `__metadata__ ${JSON.stringify(metadata).slice(0, 80)}`,
      "strings by name",
    );
  }
  const names = Object.keys(tensors);
  if (names.length > MAX_TENSORS) {
    throw headerError(path, "header", `${names.length} tensors`, `at most ${MAX_TENSORS}`);
  }
  const located = names.map((name) => checkEntry(name, tensors[name], path, dataStart));
  located.sort((a, b) => a.begin - b.begin || a.byteLength - b.byteLength);
  checkContiguous(located, path, dataStart, size);
  return {
    entries: new Map(located.map((entry) => [entry.name, entry])),
    metadata: metadata as Record<string, string>,
  };
}

function checkEntry(name: string, raw: unknown, path: string, dataStart: number): Located {
  const subject = `${path}: ${name}`;
  if (!isRecord(raw))
    throw headerError(subject, "header", JSON.stringify(raw), "{dtype, shape, data_offsets}");
  const { dtype, shape, data_offsets: offsets } = raw;
  if (typeof dtype !== "string" || !Object.hasOwn(BYTES, dtype)) {
    throw headerError(
      subject,
      "dtype",
      `dtype ${JSON.stringify(dtype)}`,
      `one of ${Object.keys(BYTES).join(", ")}`,
    );
  }
  if (!isCounts(shape) || shape.length > MAX_RANK) {
    throw headerError(
      subject,
      "header",
      `shape ${JSON.stringify(shape)}`,
      `up to ${MAX_RANK} whole numbers >= 0`,
    );
  }
  if (!isCounts(offsets) || offsets.length !== 2 || (offsets[0] as number) > (offsets[1] as number)) {
    throw headerError(
      subject,
      "offsets",
      `data_offsets ${JSON.stringify(offsets)}`,
      "[begin, end], 0 <= begin <= end",
    );
  }
  const [begin, end] = offsets as [number, number];
  const byteLength = sizeOf(dtype as StoredDtype, shape);
  if (byteLength !== end - begin) {
    const found = `${end - begin} bytes for ${dtype} [${shape.join(", ")}]`;
    throw headerError(subject, "size", found, `${byteLength} bytes`);
  }
  return { name, dtype: dtype as StoredDtype, shape, byteLength, file: path, begin: dataStart + begin };
}

/** Bytes of a dense tensor. Beyond 2^53 the product is inexact, but far larger than any offsets it is compared with. */
function sizeOf(dtype: StoredDtype, shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, BYTES[dtype]);
}

/** The tensors must tile the data part of the file: no gap, no overlap, nothing after the last. */
function checkContiguous(located: readonly Located[], path: string, dataStart: number, size: number): void {
  let end = dataStart;
  for (const { name, begin, byteLength } of located) {
    if (begin !== end) {
      const found = `offset ${begin - dataStart}, ${begin < end ? "inside another tensor" : "after a gap"}`;
      throw headerError(`${path}: ${name}`, "offsets", found, `offset ${end - dataStart}`);
    }
    end += byteLength;
  }
  if (end > size) throw truncated(path, `${size} bytes`, end);
  if (end < size) throw headerError(path, "offsets", `${size - end} bytes after the last tensor`, "none");
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

/**
 * Writes `tensors`, in the order given, to one file, atomically. Written from an opened file's entries in their order
 * with its metadata, the bytes are those of the reference writers: compact JSON, header padded with blanks to 8 bytes.
 *
 * @throws NlaError `safetensors.size` (data does not fit dtype x shape), `.duplicate-name`, `disk.full`.
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  { metadata = {} }: { metadata?: Readonly<Record<string, string>> } = {},
): Promise<void> {
  await writeFileAtomic(path, [headerBytes(path, tensors, metadata), ...tensors.map(({ data }) => data)]);
}

function headerBytes(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  // Written entry by entry: an object would move names like "0" to the front.
  const parts: string[] = [];
  if (Object.keys(metadata).length > 0) parts.push(`"__metadata__":${JSON.stringify(metadata)}`);
  const seen = new Set(["__metadata__"]);
  let begin = 0;
  for (const { name, dtype, shape, data } of tensors) {
    if (seen.has(name))
      throw headerError(path, "duplicate-name", `the name "${name}" twice`, "each name once");
    seen.add(name);
    const wanted = sizeOf(dtype, shape);
    if (!isCounts(shape) || data.byteLength !== wanted) {
      const found = `${data.byteLength} bytes for ${dtype} [${shape.join(", ")}]`;
      throw headerError(`${path}: ${name}`, "size", found, `${wanted} bytes`);
    }
    const end = begin + data.byteLength;
    parts.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [begin, end] })}`);
    begin = end;
  }
  const json = new TextEncoder().encode(`{${parts.join(",")}}`);
  const length = Math.ceil(json.byteLength / 8) * 8;
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, 8);
  return bytes;
}
