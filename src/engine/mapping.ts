// Files mapped into memory: the system reads a page when it is touched, and drops it again when memory is short.
import koffi from "koffi";
import { closeSync, fstatSync, openSync } from "node:fs";
import type { Pointer } from "./ggml.js";

/** A whole file in memory, read only. Its pages are the file's: nothing may write there. */
export interface FileMapping extends Disposable {
  readonly start: Pointer;
  readonly bytes: number;
}

const READ = 1; // PROT_READ
const PRIVATE = 2; // MAP_PRIVATE, the same number on Linux and macOS

interface System {
  readonly mmap: (
    at: null,
    bytes: number,
    access: number,
    flags: number,
    file: number,
    from: number,
  ) => Pointer;
  readonly munmap: (at: Pointer, bytes: number) => number;
}

let system: System | null | undefined;

function systemCalls(): System | null {
  if (system !== undefined) return system;
  const name = { linux: "libc.so.6", darwin: "libSystem.B.dylib" }[process.platform as string];
  if (name === undefined) return (system = null);
  try {
    const library = koffi.load(name);
    system = {
      mmap: library.func("void* mmap(void*, size_t, int, int, int, int64_t)") as System["mmap"],
      munmap: library.func("int munmap(void*, size_t)") as System["munmap"],
    };
  } catch {
    system = null; // another C library (musl): files are read instead, and doctor has nothing to say about it
  }
  return system;
}

/** Maps a file, or gives null where the system does not: then read it. @throws the system's error for a file that cannot be opened */
export function mapFile(path: string): FileMapping | null {
  const calls = systemCalls();
  if (!calls) return null;
  const file = openSync(path, "r");
  try {
    const bytes = fstatSync(file).size;
    if (bytes === 0) return null;
    const start = calls.mmap(null, bytes, READ, PRIVATE, file, 0);
    if (start === null || BigInt.asIntN(64, start) === -1n) return null;
    let mapped = true;
    return {
      start,
      bytes,
      [Symbol.dispose]: () => {
        if (mapped) calls.munmap(start, bytes);
        mapped = false;
      },
    };
  } finally {
    closeSync(file); // the mapping outlives it
  }
}
