// GGUF files: metadata by key, then tensors, as llama.cpp and the tools around it write them. Read by position, never whole.
//
// A file comes from anywhere: every count, length, type and offset is checked against the file's size before it is used, and
// the tensors must tile the data part. What the keys and names mean is model/'s.
import { type FileHandle, open } from "node:fs/promises";
import { NlaError, messageOf } from "../error.js";
import { dequantize, dtypeOfId, GGUF_TYPES, ggufBytes, OTHER_TYPES } from "./gguf-types.js";
import type { GgufDtype } from "./gguf-types.js";

/** A value of the metadata. 64-bit integers beyond 2^53 are bigints. */
export type GgufValue = number | bigint | boolean | string | readonly GgufValue[];

/** One tensor as the header states it. */
export interface GgufTensor {
  readonly name: string;
  readonly dtype: GgufDtype;
  /** Slowest dimension first, as in Hugging Face files: [out, in]. The file itself states them the other way round. */
  readonly shape: readonly number[];
  /** From the start of the file. */
  readonly begin: number;
  readonly byteLength: number;
}

/** An open file. */
export interface GgufFile {
  readonly path: string;
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /** The tensor's bytes as stored: a fresh array. */
  read(name: string): Promise<Uint8Array>;
  /** The tensor as float32, blocks unpacked. */
  readF32(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}

const MAX_HEADER_BYTES = 2 ** 29; // the largest vocabularies have 10 MB of tokens and merges
const MAX_TENSORS = 100_000;
const MAX_KEYS = 100_000;
const MAX_DEPTH = 4; // arrays of arrays are allowed by the format, and used by nobody
const MAX_RANK = 4;
const FIRST_BYTES = 2 ** 20;

/**
 * Opens a file and checks its whole header. Close it.
 *
 * @throws NlaError `gguf.missing`, `.magic`, `.version`, `.truncated`, `.header` (a count, length or text that cannot be),
 *   `.type` (of a value or a tensor), `.duplicate-name`, `.shape`, `.offsets`
 */
export async function openGguf(path: string): Promise<GgufFile> {
  let file: FileHandle;
  try {
    file = await open(path, "r");
  } catch (cause) {
    throw error(path, "missing", messageOf(cause), "a readable GGUF file", cause);
  }
  try {
    const { size } = await file.stat();
    const header = await readHeader(file, path, size);
    const parts = header.metadata.get("split.count");
    if (typeof parts === "number" && parts > 1)
      throw error(path, "split", `one of ${parts} parts of a model`, "a model in one file");
    return new OpenFile(path, file, header);
  } catch (thrown) {
    await file.close();
    throw thrown;
  }
}

interface Header {
  readonly version: number;
  readonly metadata: Map<string, GgufValue>;
  readonly tensors: Map<string, GgufTensor>;
}

class OpenFile implements GgufFile {
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;

  constructor(
    readonly path: string,
    private readonly file: FileHandle,
    header: Header,
  ) {
    this.version = header.version;
    this.metadata = header.metadata;
    this.tensors = header.tensors;
  }

  async read(name: string): Promise<Uint8Array> {
    const { begin, byteLength } = this.entry(name);
    const bytes = new Uint8Array(byteLength);
    await readExactly(this.file, bytes, begin, this.path);
    return bytes;
  }

  async readF32(name: string): Promise<Float32Array> {
    return dequantize(this.entry(name).dtype, await this.read(name));
  }

  async close(): Promise<void> {
    await this.file.close();
  }

  private entry(name: string): GgufTensor {
    const entry = this.tensors.get(name);
    if (entry) return entry;
    throw error(this.path, "no-tensor", `${this.tensors.size} tensors`, `one named "${name}"`);
  }
}

async function readExactly(file: FileHandle, into: Uint8Array, from: number, path: string): Promise<void> {
  for (let done = 0; done < into.byteLength;) {
    const want = Math.min(into.byteLength - done, 2 ** 30);
    const { bytesRead } = await file.read(into, done, want, from + done);
    if (bytesRead === 0) {
      throw error(
        path,
        "truncated",
        `the file ends at byte ${from + done}`,
        `${from + into.byteLength} bytes`,
      );
    }
    done += bytesRead;
  }
}

/** Thrown where the header goes on beyond the bytes that were read, not beyond the file. */
class NeedsMore extends Error {}

async function readHeader(file: FileHandle, path: string, size: number): Promise<Header> {
  for (let length = Math.min(FIRST_BYTES, size); ; length = Math.min(length * 8, size)) {
    const bytes = new Uint8Array(length);
    await readExactly(file, bytes, 0, path);
    try {
      return parseHeader(new Reader(bytes, size, path));
    } catch (thrown) {
      if (!(thrown instanceof NeedsMore)) throw thrown;
      if (length >= MAX_HEADER_BYTES) {
        throw error(
          path,
          "header",
          `over ${length} bytes`,
          `a header of at most ${MAX_HEADER_BYTES} bytes`,
          thrown,
        );
      }
    }
  }
}

/** Walks through the header's bytes. */
class Reader {
  at = 0;
  readonly #view: DataView;
  readonly #text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  constructor(
    private readonly bytes: Uint8Array,
    readonly size: number,
    readonly path: string,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Moves on by `count` bytes and gives where they begin. */
  take(count: number): number {
    const from = this.at;
    if (from + count > this.size) {
      throw error(
        this.path,
        "truncated",
        `${this.size} bytes`,
        `${count} more at byte ${from} of the header`,
      );
    }
    if (from + count > this.bytes.byteLength) throw new NeedsMore();
    this.at += count;
    return from;
  }

  u32(): number {
    return this.#view.getUint32(this.take(4), true);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.take(8), true);
  }

  /** A count of things of at least `least` bytes each: more than the file can hold is refused before memory is taken. */
  count(what: string, least: number, most = Number.MAX_SAFE_INTEGER): number {
    const stated = this.u64();
    const room = Math.floor((this.size - this.at) / least);
    if (stated > BigInt(Math.min(room, most))) {
      throw error(
        this.path,
        "header",
        `${stated} ${what} at byte ${this.at - 8}`,
        `at most ${Math.min(room, most)}`,
      );
    }
    return Number(stated);
  }

  string(): string {
    const length = this.count("bytes of text", 1, MAX_HEADER_BYTES);
    const from = this.take(length);
    try {
      return this.#text.decode(this.bytes.subarray(from, from + length));
    } catch (cause) {
      throw error(this.path, "header", `text at byte ${from} that is not UTF-8`, "UTF-8", cause);
    }
  }

  value(type: number, key: string, depth = 0): GgufValue {
    const view = this.#view;
    switch (type) {
      case 0:
        return view.getUint8(this.take(1));
      case 1:
        return view.getInt8(this.take(1));
      case 2:
        return view.getUint16(this.take(2), true);
      case 3:
        return view.getInt16(this.take(2), true);
      case 4:
        return view.getUint32(this.take(4), true);
      case 5:
        return view.getInt32(this.take(4), true);
      case 6:
        return view.getFloat32(this.take(4), true);
      case 7:
        return this.boolean(key);
      case 8:
        return this.string();
      case 9:
        return this.array(key, depth);
      case 10:
        return narrow(view.getBigUint64(this.take(8), true));
      case 11:
        return narrow(view.getBigInt64(this.take(8), true));
      case 12:
        return view.getFloat64(this.take(8), true);
      default:
        throw error(`${this.path}: ${key}`, "type", `a value of type ${type}`, "one of 0 to 12");
    }
  }

  private boolean(key: string): boolean {
    const byte = this.#view.getUint8(this.take(1));
    if (byte > 1) throw error(`${this.path}: ${key}`, "header", `${byte} for a truth value`, "0 or 1");
    return byte === 1;
  }

  private array(key: string, depth: number): GgufValue[] {
    if (depth >= MAX_DEPTH) {
      throw error(`${this.path}: ${key}`, "header", "arrays within arrays", `at most ${MAX_DEPTH} deep`);
    }
    const type = this.u32();
    const least = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8][type];
    if (least === undefined) {
      throw error(`${this.path}: ${key}`, "type", `an array of type ${type}`, "one of 0 to 12");
    }
    const count = this.count(`values of ${key}`, least);
    const values: GgufValue[] = [];
    for (let i = 0; i < count; i++) values.push(this.value(type, key, depth + 1));
    return values;
  }
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function parseHeader(reader: Reader): Header {
  const { path } = reader;
  const magic = reader.u32();
  if (magic !== 0x46554747) {
    throw error(path, "magic", `first bytes 0x${magic.toString(16).padStart(8, "0")}`, "GGUF");
  }
  const version = reader.u32();
  if (version !== 2 && version !== 3) {
    const swapped = version === 0x02000000 || version === 0x03000000;
    throw error(
      path,
      "version",
      swapped ? "a big-endian file" : `version ${version}`,
      "version 2 or 3, little-endian",
    );
  }
  const tensorCount = reader.count("tensors", 24, MAX_TENSORS);
  const keyCount = reader.count("keys", 13, MAX_KEYS);
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < keyCount; i++) {
    const key = reader.string();
    if (metadata.has(key)) throw error(path, "duplicate-name", `the key "${key}" twice`, "each key once");
    metadata.set(key, reader.value(reader.u32(), key));
  }
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || alignment < 8 || alignment > 65_536 || alignment & (alignment - 1)) {
    throw error(path, "header", `general.alignment ${String(alignment)}`, "a power of two from 8 to 65536");
  }
  const stated: GgufTensor[] = [];
  for (let i = 0; i < tensorCount; i++) stated.push(tensorInfo(reader, alignment));
  const dataStart = Math.ceil(reader.at / alignment) * alignment;
  return { version, metadata, tensors: placed(stated, dataStart, alignment, reader) };
}

/** @returns with `begin` counted from the data part */
function tensorInfo(reader: Reader, alignment: number): GgufTensor {
  const name = reader.string();
  const subject = `${reader.path}: ${name}`;
  const rank = reader.u32();
  if (rank < 1 || rank > MAX_RANK) throw error(subject, "shape", `${rank} dimensions`, `1 to ${MAX_RANK}`);
  const extents = Array.from({ length: rank }, () => reader.u64());
  const size = extents.reduce((product, n) => product * n, 1n);
  if (size < 1n || size > 2n ** 48n) {
    throw error(
      subject,
      "shape",
      `the extents ${extents.join(", ")}`,
      "positive ones of at most 2^48 values",
    );
  }
  const id = reader.u32();
  const dtype = dtypeOfId(id);
  if (dtype === null) {
    const known = Object.keys(GGUF_TYPES).join(", ");
    throw error(subject, "type", `type ${OTHER_TYPES[id] ?? id}`, `one of ${known}`);
  }
  const offset = reader.u64();
  const shape = extents.map(Number).reverse();
  const { values } = GGUF_TYPES[dtype];
  if ((shape.at(-1) as number) % values !== 0) {
    throw error(subject, "shape", `rows of ${shape.at(-1)} in ${dtype}`, `rows of a multiple of ${values}`);
  }
  if (offset % BigInt(alignment) !== 0n) {
    throw error(subject, "offsets", `offset ${offset}`, `a multiple of ${alignment}`);
  }
  if (offset > BigInt(reader.size)) {
    throw error(subject, "truncated", `${reader.size} bytes`, `over ${offset}, where the tensor begins`);
  }
  return { name, dtype, shape, begin: Number(offset), byteLength: ggufBytes(dtype, Number(size)) };
}

/** Tensors must follow each other with nothing between them but the padding, and end with the file. */
function placed(
  stated: readonly GgufTensor[],
  dataStart: number,
  alignment: number,
  { path, size }: Reader,
): Map<string, GgufTensor> {
  const tensors = new Map<string, GgufTensor>();
  let end = 0;
  for (const tensor of [...stated].sort((a, b) => a.begin - b.begin)) {
    const { name, begin, byteLength } = tensor;
    if (tensors.has(name))
      throw error(path, "duplicate-name", `the tensor "${name}" twice`, "each name once");
    const wanted = Math.ceil(end / alignment) * alignment;
    if (begin !== wanted) throw error(`${path}: ${name}`, "offsets", `offset ${begin}`, `offset ${wanted}`);
    end = begin + byteLength;
    tensors.set(name, { ...tensor, begin: dataStart + begin });
  }
  if (dataStart + end > size && stated.length > 0) {
    throw error(path, "truncated", `${size} bytes`, `${dataStart + end} bytes`);
  }
  if (size > Math.ceil((dataStart + end) / alignment) * alignment) {
    throw error(path, "offsets", `${size - dataStart - end} bytes after the last tensor`, "padding at most");
  }
  return tensors;
}

const NEXT: Readonly<Record<string, string>> = {
  type: "Convert the model to one of these types.",
  split: "Join the parts with llama.cpp's `llama-gguf-split --merge`, or take a file that is whole.",
};

function error(subject: string, what: string, found: string, wanted: string, cause?: unknown): NlaError {
  return new NlaError({
    code: `gguf.${what}`,
    subject,
    found,
    wanted,
    next: NEXT[what] ?? "Is the download complete? Fetch the file again.",
    ...(cause === undefined ? {} : { cause }),
  });
}
