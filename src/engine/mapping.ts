// Files mapped into memory: the system reads a page when it is touched, and drops it again when memory is short.
import koffi from "koffi";
import { closeSync, fstatSync, openSync } from "node:fs";
import { NlaError } from "../error.js";
import type { Pointer } from "./ggml.js";

/** A whole file in memory, read only. Its pages are the file's: nothing may write there. */
export interface FileMapping extends Disposable {
  readonly start: Pointer;
  readonly bytes: number;
  /**
   * Asked before every computation that reads it: touching a page beyond the file's end ends the process, and one that was written to
   * has other weights. What happens while a computation runs is not seen.
   *
   * @throws NlaError `model.file-changed`
   */
  requireUnchanged(): void;
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

/**
 * Maps a file, or gives null where the system does not: then read it. The file is held open until the mapping is freed.
 *
 * @throws the system's error for a file that cannot be opened
 */
export function mapFile(path: string): FileMapping | null {
  const calls = systemCalls();
  if (!calls) return null;
  const file = openSync(path, "r");
  let kept = false;
  try {
    const { size: bytes, mtimeMs: written } = fstatSync(file);
    if (bytes === 0) return null;
    const start = calls.mmap(null, bytes, READ, PRIVATE, file, 0);
    if (start === null || BigInt.asIntN(64, start) === -1n) return null;
    kept = true;
    let mapped = true;
    return {
      start,
      bytes,
      requireUnchanged: () => {
        const now = fstatSync(file);
        if (now.size !== bytes) throw fileChanged(path, now.size, bytes);
        if (now.mtimeMs === written) return;
        const [since, before] = [now.mtimeMs, written].map((time) => new Date(time).toISOString());
        throw changed(path, `written to at ${since}`, `the file of ${before}, which is mapped`);
      },
      [Symbol.dispose]: () => {
        if (!mapped) return;
        mapped = false;
        calls.munmap(start, bytes);
        closeSync(file);
      },
    };
  } finally {
    if (!kept) closeSync(file);
  }
}

/** @param found bytes that the file has now */
export function fileChanged(path: string, found: number, wanted: number): NlaError {
  const [now, then] = [found, wanted].map((bytes) => `${bytes.toLocaleString("en")} bytes`) as [
    string,
    string,
  ];
  return changed(path, now, `${then}, as when it was opened`);
}

function changed(path: string, found: string, wanted: string): NlaError {
  return new NlaError({
    code: "model.file-changed",
    subject: path,
    found,
    wanted,
    next: "A model's file must stay as it is while the model is in use: replace it by renaming, then load it anew.",
  });
}
