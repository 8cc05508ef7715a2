// Writing GGUF files, version 3, little-endian, as gguf.ts reads them.
import { NlaError } from "../error.js";
import { writeFileAtomic } from "./files.js";
import { GGUF_TYPES, ggufBytes } from "./gguf-types.js";
import type { GgufDtype } from "./gguf-types.js";

/** A value with the type it is to have in the file. */
export type GgufField =
  | { readonly type: "u32" | "i32" | "f32"; readonly value: number }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "u32[]" | "i32[]" | "f32[]"; readonly value: readonly number[] }
  | { readonly type: "bool[]"; readonly value: readonly boolean[] }
  | { readonly type: "string[]"; readonly value: readonly string[] };

/** A tensor to be written; shape slowest dimension first. */
export interface GgufTensorToWrite {
  readonly name: string;
  readonly dtype: GgufDtype;
  readonly shape: readonly number[];
  /** The bytes, or what makes them when their turn comes, so that one tensor at a time is in memory. */
  readonly data: Uint8Array | (() => Promise<Uint8Array>);
}

const ALIGNMENT = 32; // what readers assume where the file does not say
const TYPE_IDS: Readonly<Record<string, number>> = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8 };
const ARRAY = 9;

/** Bytes that grow. */
class Writer {
  readonly #parts: Uint8Array[] = [];
  length = 0;

  bytes(part: Uint8Array): void {
    this.#parts.push(part);
    this.length += part.byteLength;
  }

  number(width: 1 | 4 | 8, write: (view: DataView) => void): void {
    const part = new Uint8Array(width);
    write(new DataView(part.buffer));
    this.bytes(part);
  }

  u32(value: number): void {
    this.number(4, (view) => view.setUint32(0, value, true));
  }

  u64(value: number): void {
    this.number(8, (view) => view.setBigUint64(0, BigInt(value), true));
  }

  string(text: string): void {
    const encoded = new TextEncoder().encode(text);
    this.u64(encoded.byteLength);
    this.bytes(encoded);
  }

  value(type: string, value: unknown): void {
    if (type === "string") this.string(value as string);
    else if (type === "bool") this.bytes(Uint8Array.of(value === true ? 1 : 0));
    else if (type === "f32") this.number(4, (view) => view.setFloat32(0, value as number, true));
    else this.number(4, (view) => view.setInt32(0, value as number, true)); // the same bits for u32
  }

  field({ type, value }: GgufField): void {
    if (!type.endsWith("[]")) {
      this.u32(TYPE_IDS[type] as number);
      this.value(type, value);
      return;
    }
    const element = type.slice(0, -2);
    this.u32(ARRAY);
    this.u32(TYPE_IDS[element] as number);
    this.u64((value as readonly unknown[]).length);
    for (const each of value as readonly unknown[]) this.value(element, each);
  }

  pad(): void {
    this.bytes(new Uint8Array((ALIGNMENT - (this.length % ALIGNMENT)) % ALIGNMENT));
  }

  whole(): Uint8Array {
    const all = new Uint8Array(this.length);
    let at = 0;
    for (const part of this.#parts) {
      all.set(part, at);
      at += part.byteLength;
    }
    return all;
  }
}

/**
 * Writes a file, atomically: metadata and tensors in the order given.
 *
 * @throws NlaError `gguf.size` where data does not fit dtype and shape, `gguf.duplicate-name`, `disk.full`
 */
export async function writeGguf(
  path: string,
  metadata: ReadonlyMap<string, GgufField>,
  tensors: readonly GgufTensorToWrite[],
): Promise<void> {
  const header = new Writer();
  header.u32(0x46554747);
  header.u32(3);
  header.u64(tensors.length);
  header.u64(metadata.size);
  for (const [key, field] of metadata) {
    header.string(key);
    header.field(field);
  }
  const seen = new Set<string>();
  let offset = 0;
  for (const { name, dtype, shape, data } of tensors) {
    const bytes = bytesOf(dtype, shape);
    if ((shape.at(-1) ?? 0) % GGUF_TYPES[dtype].values !== 0 || shape.length === 0) {
      const wanted = `a multiple of ${GGUF_TYPES[dtype].values}`;
      throw refused(
        path,
        "size",
        `rows of ${shape.at(-1) ?? 0} values for ${name}`,
        `${wanted}, for ${dtype}`,
      );
    }
    if (typeof data !== "function") checkSize(path, { name, dtype, shape }, data);
    if (seen.has(name)) throw refused(path, "duplicate-name", `the tensor "${name}" twice`, "each name once");
    seen.add(name);
    header.string(name);
    header.u32(shape.length);
    for (const extent of [...shape].reverse()) header.u64(extent);
    header.u32(GGUF_TYPES[dtype].id);
    header.u64(offset);
    offset = Math.ceil((offset + bytes) / ALIGNMENT) * ALIGNMENT;
  }
  header.pad();
  await writeFileAtomic(path, pieces(path, header.whole(), tensors));
}

async function* pieces(
  path: string,
  header: Uint8Array,
  tensors: readonly GgufTensorToWrite[],
): AsyncGenerator<Uint8Array> {
  yield header;
  for (const tensor of tensors) {
    const data = typeof tensor.data === "function" ? await tensor.data() : tensor.data;
    checkSize(path, tensor, data);
    yield data;
    yield new Uint8Array((ALIGNMENT - (data.byteLength % ALIGNMENT)) % ALIGNMENT);
  }
}

function bytesOf(dtype: GgufDtype, shape: readonly number[]): number {
  return ggufBytes(
    dtype,
    shape.reduce((a, b) => a * b, 1),
  );
}

function checkSize(
  path: string,
  { name, dtype, shape }: Pick<GgufTensorToWrite, "name" | "dtype" | "shape">,
  { byteLength }: Uint8Array,
): void {
  const wanted = bytesOf(dtype, shape);
  if (byteLength === wanted) return;
  const room = `${wanted} bytes of ${dtype} [${shape.join(", ")}]`;
  throw refused(path, "size", `${byteLength} bytes for ${name}`, room);
}

function refused(path: string, what: string, found: string, wanted: string): NlaError {
  return new NlaError({
    code: `gguf.${what}`,
    subject: path,
    found,
    wanted,
    next: "This is a mistake in what was to be written.",
  });
}
