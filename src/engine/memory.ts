// Tensors that outlive graphs: weights, optimizer state, caches. They are allocated together and freed together.
import { NlaError } from "../error.js";
import type { Device } from "./device.js";
import { BYTES, GGML_TYPE } from "./dtype.js";
import type { Dtype } from "./dtype.js";
import type { Pointer } from "./ggml.js";
import type { FileMapping } from "./mapping.js";

/** The extent of a tensor in ggml's order: fastest dimension first, always four. */
export type Extent = readonly [number, number, number, number];

/** What to allocate. */
export interface NativeSpec {
  readonly extent: Extent;
  readonly dtype: Dtype;
  readonly name: string;
  /** Whether an optimizer step may change it: ggml demands the mark. Defaults to false. */
  readonly parameter?: boolean;
  /** Its values lie here instead of in new memory; {@link canMap} has been asked. */
  readonly mapped?: { readonly file: FileMapping; readonly offset: number };
}

/** Whether a tensor can lie where it does in a mapped file: the processor must reach it, and elements must be aligned. */
export function canMap(
  device: Device,
  file: FileMapping,
  offset: number,
  extent: Extent,
  dtype: Dtype,
): boolean {
  if (device.info.kind !== "cpu") return false; // a device's own memory is elsewhere
  const aligned = offset % (dtype === "f32" ? 4 : 2) === 0; // blocks begin with a 16-bit scale; kernels load unaligned rows
  return (
    aligned && Number.isSafeInteger(offset) && offset >= 0 && offset + bytesOf(extent, dtype) <= file.bytes
  );
}

/**
 * @throws NlaError `engine.memory` where a device can never hold that much. Asked before allocating, because Linux hands
 *   out memory that it has not got and ends the process when it is touched.
 */
export function requireRoom(device: Device, subject: () => string, bytes: number): void {
  const { memoryBytes, name } = device.info;
  if (memoryBytes === null || bytes <= memoryBytes) return;
  throw new NlaError({
    code: "engine.memory",
    subject: `${subject()} on ${name}`,
    found: `${bytes.toLocaleString("en")} bytes needed`,
    wanted: `at most ${memoryBytes.toLocaleString("en")}, which is all its memory`,
    next: "Use a smaller model, batch or context, or a device with more memory.",
  });
}

/** Bytes of a tensor. */
export function bytesOf(extent: Extent, dtype: Dtype): number {
  return extent.reduce((a, b) => a * b, BYTES[dtype]);
}

const ALIGNMENT = 32; // of tensors in a buffer of ggml's CPU backend

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

const LARGE_BYTES = 2 ** 23; // below this, large pages would cost more memory than they save time

/**
 * Asks for large pages under a buffer that was not touched yet, where nlakit's kernels read it: walking through hundreds of
 * megabytes with pages of 4 KiB, a tenth of the time, and a fifth of the bandwidth, goes into finding them.
 */
export function askForLargePages({ kernels, library }: Device, buffer: Pointer, bytes: number): void {
  if (!kernels || bytes < LARGE_BYTES) return;
  const start = library.ggml.ggml_backend_buffer_get_base(buffer);
  if (start !== null) kernels.largePages(start, bytes);
}

/** Copies `data` into a tensor. The caller has checked the sizes. */
export function writeTensor(device: Device, tensor: Pointer, data: ArrayBufferView, offset = 0): void {
  const { profile } = device;
  const started = profile ? performance.now() : 0;
  device.library.ggml.tensorSet(tensor, data, offset, data.byteLength);
  profile?.host("writing inputs", (performance.now() - started) / 1000);
}

/** Copies a tensor into `into`. The caller has checked the sizes. */
export function readTensor(device: Device, tensor: Pointer, into: ArrayBufferView, offset = 0): void {
  const { profile } = device;
  const started = profile ? performance.now() : 0;
  device.library.ggml.tensorGet(tensor, into, offset, into.byteLength);
  profile?.host("reading results", (performance.now() - started) / 1000);
}

/** A block of device memory with named tensors in it. */
export class NativeMemory implements Disposable {
  readonly tensors: readonly Pointer[];
  readonly bytes: number;
  readonly #device: Device;
  #context: Pointer | null;
  #buffer: Pointer | null;
  readonly #mappings = new Map<FileMapping, Pointer>();
  readonly #spans: Pointer[] = []; // contexts

  /** @throws NlaError `engine.memory` where the device has not that much */
  constructor(device: Device, specs: readonly NativeSpec[]) {
    const { ggml } = device.library;
    const { backend } = device;
    const own = specs.filter(({ mapped }) => !mapped);
    const bytes = own.reduce((sum, { extent, dtype }) => sum + bytesOf(extent, dtype), 0);
    requireRoom(device, () => `${specs.length} tensors`, bytes);
    this.#device = device;
    this.#context = ggml.init((specs.length + 1) * (Number(ggml.ggml_tensor_overhead()) + 64));
    this.tensors = specs.map(({ extent, dtype, name, parameter = false }) => {
      const tensor = ggml.ggml_new_tensor_4d(this.#context, GGML_TYPE[dtype], ...extent) as Pointer;
      ggml.ggml_set_name(tensor, name.slice(0, 63));
      if (parameter) ggml.ggml_set_param(tensor);
      return tensor;
    });
    // Placed first: what has a place is left out when the rest is allocated.
    specs.forEach(({ mapped }, i) => mapped && this.#place(this.tensors[i] as Pointer, mapped));
    const placed = own.reduce((sum, { extent, dtype }) => sum + aligned(bytesOf(extent, dtype)), 0);
    const spare = device.spare?.take(placed) ?? null;
    this.#buffer = spare ?? ggml.ggml_backend_alloc_ctx_tensors(this.#context, backend);
    if (this.#buffer === null && own.length > 0 && device.spare) {
      device.spare.clear(); // there may be room now
      this.#buffer = ggml.ggml_backend_alloc_ctx_tensors(this.#context, backend);
    }
    if (this.#buffer === null && own.length > 0) {
      ggml.ggml_free(this.#context);
      this.#context = null;
      for (const views of this.#mappings.values()) ggml.ggml_backend_buffer_free(views);
      throw new NlaError({
        code: "engine.memory",
        subject: `${specs.length} tensors on ${device.info.name}`,
        found: `no room for ${bytes.toLocaleString("en")} bytes`,
        wanted: "that much free memory",
        next: "Use a smaller model, batch or context, or a device with more memory.",
      });
    }
    this.bytes = this.#buffer === null ? 0 : Number(ggml.ggml_backend_buffer_get_size(this.#buffer));
    if (spare !== null) this.#fill(spare, (i) => !specs[i]?.mapped);
    else if (this.#buffer !== null) askForLargePages(device, this.#buffer, this.bytes);
  }

  /** Puts tensors one after another into a buffer that was freed, as ggml would into a new one. */
  #fill(buffer: Pointer, own: (i: number) => boolean): void {
    const { ggml } = this.#device.library;
    let at = ggml.ggml_backend_buffer_get_base(buffer) as unknown as bigint;
    for (const tensor of this.tensors.filter((_, i) => own(i))) {
      ggml.ggml_backend_tensor_alloc(buffer, tensor, at as unknown as Pointer);
      at += BigInt(aligned(Number(ggml.ggml_nbytes(tensor))));
    }
  }

  #place(tensor: Pointer, { file, offset }: NonNullable<NativeSpec["mapped"]>): void {
    const { ggml } = this.#device.library;
    let buffer = this.#mappings.get(file);
    if (!buffer) {
      buffer = ggml.ggml_backend_cpu_buffer_from_ptr(file.start, file.bytes) as Pointer;
      this.#mappings.set(file, buffer);
    }
    ggml.ggml_backend_tensor_alloc(buffer, tensor, (file.start + BigInt(offset)) as Pointer);
  }

  /**
   * One tensor over several that lie one after another in this memory, or null where they do not: alignment may keep them apart,
   * and what is mapped lies elsewhere. It is freed with them.
   */
  span(tensors: readonly Pointer[], extent: Extent, dtype: Dtype): Pointer | null {
    const { ggml } = this.#device.library;
    const [first] = tensors;
    if (first === undefined || this.#buffer === null) return null;
    const base = ggml.ggml_backend_buffer_get_base(this.#buffer) as unknown as bigint;
    const start = ggml.ggml_get_data(first) as unknown as bigint;
    let end = start;
    for (const tensor of tensors) {
      if ((ggml.ggml_get_data(tensor) as unknown as bigint) !== end) return null;
      end += BigInt(ggml.ggml_nbytes(tensor));
    }
    const inside = start >= base && end <= base + BigInt(this.bytes);
    if (!inside || end - start !== BigInt(bytesOf(extent, dtype))) return null;
    const context = ggml.init(Number(ggml.ggml_tensor_overhead()) + 64);
    this.#spans.push(context);
    const span = ggml.ggml_new_tensor_4d(context, GGML_TYPE[dtype], ...extent) as Pointer;
    ggml.ggml_backend_tensor_alloc(this.#buffer, span, start as unknown as Pointer);
    return span;
  }

  /** Sets every byte of one tensor to zero. */
  zero(tensor: Pointer): void {
    const { ggml } = this.#device.library;
    ggml.ggml_backend_tensor_memset(tensor, 0, 0, Number(ggml.ggml_nbytes(tensor)));
  }

  get disposed(): boolean {
    return this.#context === null;
  }

  [Symbol.dispose](): void {
    if (this.#context === null) return;
    const { ggml } = this.#device.library;
    const [buffer, context, bytes] = [this.#buffer, this.#context, this.bytes];
    const { spare } = this.#device;
    this.#buffer = null;
    this.#context = null;
    this.#device.release(() => {
      if (buffer !== null && spare) spare.keep(buffer, bytes);
      else if (buffer !== null) ggml.ggml_backend_buffer_free(buffer);
      for (const view of this.#mappings.values()) ggml.ggml_backend_buffer_free(view);
      for (const span of this.#spans) ggml.ggml_free(span);
      ggml.ggml_free(context);
    });
  }
}
