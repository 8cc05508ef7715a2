// What is in a folder, in a form that two folders can be compared by: every file's hash, and of logs the rows without times.
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { readRows, withoutTiming } from "../../src/train/metrics-log.js";

/** sha256 of a file, in hex. */
export async function sha256(file: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(file))
    .digest("hex");
}

/** Every file and folder by its path, in order: a file's sha256, "folder", or the rows of a .jsonl file without `timing`. */
export async function contents(folder: string): Promise<Record<string, unknown>> {
  const found: [string, unknown][] = [];
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    const full = path.join(entry.parentPath, entry.name);
    const name = path.relative(folder, full).split(path.sep).join("/");
    if (entry.isDirectory()) found.push([name, "folder"]);
    else if (name.endsWith(".jsonl")) found.push([name, (await readRows(full)).map(withoutTiming)]);
    else found.push([name, await sha256(full)]);
  }
  return Object.fromEntries(found.sort(([a], [b]) => (a < b ? -1 : 1)));
}
