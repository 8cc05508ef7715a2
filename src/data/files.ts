// Files and folders that are either the old one or the whole new one, whatever happens while they are written.
//
// Everything is written under a temporary name beside its target, flushed to the disk, and renamed. A folder that
// replaces another takes two renames; `removeStaleTemporaries` puts a folder back that a killed process left half way.
// Not a lock: two processes that write one path each write a whole file, and the last rename wins.
import { randomBytes } from "node:crypto";
import { constants, type Dirent } from "node:fs";
import { type FileHandle, lstat, mkdir, open, readdir, rename, rm, statfs } from "node:fs/promises";
import path from "node:path";

import { NlaError, messageOf } from "../error.js";

/** What a file can be written from. Pieces are written in order and never joined in memory. */
export type FileContent = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

// `.NAME.nla-new.PID.TAG` is being written; `.NAME.nla-old.PID.TAG` was moved aside while its successor takes its place.
const TEMPORARY = /^\.(.+)\.nla-(new|old)\.(\d+)\.([0-9a-f]+)$/;
const mine = new Set<string>(); // full paths of this process's temporaries in use

/** A fresh temporary path beside `target`. Random tag: process ids repeat between containers that share a disk. */
function temporaryBeside(target: string): string {
  const tag = randomBytes(6).toString("hex");
  return path.join(path.dirname(target), `.${path.basename(target)}.nla-new.${process.pid}.${tag}`);
}

/**
 * Writes `data` to `target` so that a reader sees the old content or all of the new, then returns.
 *
 * @throws NlaError `disk.full` (the old file is untouched, the temporary is gone); other failures as the system words them.
 */
export async function writeFileAtomic(target: string, data: FileContent): Promise<void> {
  const whole = typeof data === "string" ? new TextEncoder().encode(data) : data;
  const needed = whole instanceof Uint8Array ? whole.byteLength : null;
  await replaceFile(
    target,
    async (temporary) => {
      const handle = await open(temporary, "wx");
      try {
        if (whole instanceof Uint8Array) await writeAll(handle, whole);
        else for await (const piece of whole) await writeAll(handle, piece);
      } finally {
        await handle.close();
      }
    },
    { bytesNeeded: needed },
  );
}

/**
 * Lets `fill` write a file at a temporary path beside `target`, flushes it and renames it over `target`.
 * `bytesNeeded` is only for the error message. Throws like {@link writeFileAtomic}.
 */
export async function replaceFile(
  target: string,
  fill: (temporary: string) => Promise<void>,
  { bytesNeeded = null }: { bytesNeeded?: number | null } = {},
): Promise<void> {
  await withTemporary(target, bytesNeeded, async (temporary) => {
    await fill(temporary);
    await flush(temporary);
    await rename(temporary, target);
  });
  await flush(path.dirname(target));
}

/**
 * Lets `fill` write a folder at a temporary path beside `target`, flushes all of it and puts it in the place of
 * `target`, which may exist. Killed between its two renames, it leaves no `target` but a whole old and a whole new
 * folder: `removeStaleTemporaries(parent)`, called here first and by whoever opens such folders, brings one back.
 */
export async function writeDirectoryAtomic(
  target: string,
  fill: (temporary: string) => Promise<void>,
): Promise<void> {
  const parent = path.dirname(target);
  await removeStaleTemporaries(parent, { only: path.basename(target) });
  await withTemporary(target, null, async (temporary) => {
    await mkdir(temporary);
    await fill(temporary);
    await flushTree(temporary);
    if (!(await exists(target))) {
      await rename(temporary, target);
      return;
    }
    const aside = temporary.replace(/\.nla-new\.(\d+\.[0-9a-f]+)$/, ".nla-old.$1");
    mine.add(aside);
    try {
      await rename(target, aside);
      try {
        await rename(temporary, target);
      } catch (thrown) {
        await rename(aside, target);
        throw thrown;
      }
      await flush(parent);
      await rm(aside, { recursive: true, force: true });
    } finally {
      mine.delete(aside);
    }
  });
  await flush(parent);
}

/**
 * Gives `use` a private folder beside `target` for scratch files, and removes it afterwards. Named like the other
 * temporaries, so that {@link removeStaleTemporaries} finds what a killed process left.
 */
export async function withScratchFolder<T>(target: string, use: (folder: string) => Promise<T>): Promise<T> {
  return withTemporary(target, null, async (folder) => {
    await mkdir(folder);
    return use(folder);
  });
}

/**
 * Removes temporaries in `parent` whose process is dead, and puts back a folder that was moved aside by a process
 * that died before its successor took the place. Returns the names it removed or put back, sorted.
 * `only` restricts it to the temporaries of one target name. `exclusive` says that the caller holds a lock on `parent`: then
 * nobody else can be writing there, and process ids, which the system gives out again, need not be asked. A missing `parent`
 * is an empty one.
 */
export async function removeStaleTemporaries(
  parent: string,
  { only, exclusive = false }: { only?: string; exclusive?: boolean } = {},
): Promise<string[]> {
  const handled: string[] = [];
  for (const { name } of await entriesOf(parent)) {
    const match = TEMPORARY.exec(name);
    if (match === null || (only !== undefined && match[1] !== only)) continue;
    const full = path.join(parent, name);
    const pid = Number(match[3]);
    if (pid === process.pid ? mine.has(full) : !exclusive && isAlive(pid)) continue;
    const target = path.join(parent, match[1] ?? "");
    if (match[2] === "old" && !(await exists(target))) await rename(full, target);
    else await rm(full, { recursive: true, force: true });
    handled.push(name);
  }
  return handled.sort();
}

/** True if `thrown`, or an error that caused it, says that the disk, a quota or a size limit is exhausted. */
export function isDiskFull(thrown: unknown): boolean {
  for (let error = thrown; error instanceof Error; error = error.cause) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG") return true;
    // DuckDB passes on only the system's text.
    if (/no space left on device|disk quota exceeded|file too large/i.test(error.message)) return true;
  }
  return false;
}

async function withTemporary<T>(
  target: string,
  bytesNeeded: number | null,
  use: (temporary: string) => Promise<T>,
): Promise<T> {
  const temporary = temporaryBeside(target);
  mine.add(temporary);
  try {
    return await use(temporary);
  } catch (thrown) {
    if (!isDiskFull(thrown)) throw thrown;
    const free = await bytesFree(temporary);
    throw new NlaError({
      code: "disk.full",
      subject: target,
      found: `no room to write it (${systemMessage(thrown)}; ${free} bytes free in ${path.dirname(target)})`,
      wanted: bytesNeeded === null ? "room for the whole new content" : `${bytesNeeded} bytes`,
      next: "Nothing was replaced: what stood there before is untouched. Free some space and run it again.",
      cause: thrown,
    });
  } finally {
    await rm(temporary, { recursive: true, force: true });
    mine.delete(temporary);
  }
}

/** What the system said: a file in a folder that is written comes wrapped in an error of its own, about a temporary name. */
function systemMessage(thrown: unknown): string {
  let error = thrown;
  while (error instanceof NlaError && error.cause !== undefined) error = error.cause;
  return messageOf(error);
}

/** Bytes free beside a temporary once it is removed: while it stands, a full disk always says 0. */
async function bytesFree(temporary: string): Promise<number> {
  await rm(temporary, { recursive: true, force: true });
  const { bavail, bsize } = await statfs(path.dirname(temporary));
  return bavail * bsize;
}

async function writeAll(handle: FileHandle, data: Uint8Array): Promise<void> {
  for (let at = 0; at < data.byteLength;) {
    // A nearly full disk takes a part and says so only by the count; the next write then fails.
    const { bytesWritten } = await handle.write(data, at, data.byteLength - at);
    at += bytesWritten;
  }
}

async function flushTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory()) await flushTree(full);
    else if (entry.isFile()) await flush(full);
  }
  await flush(folder);
}

/** Flushes a file or folder. Windows refuses to open folders; there the rename alone has to do. */
async function flush(full: string): Promise<void> {
  if (process.platform === "win32" && (await lstat(full)).isDirectory()) return;
  const handle = await open(full, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function exists(full: string): Promise<boolean> {
  return (await lstatOrNull(full)) !== null;
}

async function lstatOrNull(full: string): Promise<Awaited<ReturnType<typeof lstat>> | null> {
  try {
    return await lstat(full);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw thrown;
  }
}

async function entriesOf(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw thrown;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0); // signal 0 asks, it does not signal
    return true;
  } catch (thrown) {
    return (thrown as NodeJS.ErrnoException).code !== "ESRCH"; // EPERM: alive, another user's
  }
}
