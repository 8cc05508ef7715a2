// Large pieces of memory that were freed, kept for the next to come: the cache and the packed weights of a generation are allocated anew for
// each batch of prompts, and the system fills every new page with zeros first, a tenth of the time that 64 short samples take.
import type { Ggml, Pointer } from "./ggml.js";

const KEPT_FROM_BYTES = 2 ** 23; // smaller ones the allocator keeps by itself
const KEPT_BYTES = 2 ** 28; // in all; of larger ones, pages are a small part of what is computed with them
const LEAST_FILLED = 0.75; // of a buffer by what takes it

/** Freed buffers of one CPU device. */
export class SpareBuffers {
  readonly #ggml: Ggml;
  // The oldest first.
  readonly #buffers: { readonly buffer: Pointer; readonly bytes: number }[] = [];
  #open = true;

  constructor(ggml: Ggml) {
    this.#ggml = ggml;
  }

  /** A buffer of at least so many bytes and not many more, or null. What it holds is anything. */
  take(bytes: number): Pointer | null {
    const fits = (each: { readonly bytes: number }) =>
      each.bytes >= bytes && bytes >= each.bytes * LEAST_FILLED;
    const at = this.#buffers.findIndex(fits);
    return at < 0 ? null : (this.#buffers.splice(at, 1)[0]?.buffer ?? null);
  }

  /** Takes over a buffer that nothing uses any more. */
  keep(buffer: Pointer, bytes: number): void {
    this.#buffers.push({ buffer, bytes });
    if (bytes < KEPT_FROM_BYTES || !this.#open) this.#free(this.#buffers.length - 1);
    while (this.#buffers.reduce((sum, each) => sum + each.bytes, 0) > KEPT_BYTES) this.#free(0);
  }

  /** Frees what is kept: the device is closing, or memory is short. */
  clear({ closing = false }: { readonly closing?: boolean } = {}): void {
    if (closing) this.#open = false;
    while (this.#buffers.length > 0) this.#free(0);
  }

  #free(at: number): void {
    for (const { buffer } of this.#buffers.splice(at, 1)) this.#ggml.ggml_backend_buffer_free(buffer);
  }
}
