// Checksums of a bundle's model files, on its card: a flipped bit in weights gives other numbers and no error, so it has to be looked for.
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { NlaError, messageOf } from "../error.js";

const FOLDERS = ["target", "verbalizer", "reconstructor"] as const;
const NUMBERS = "card.json";

/** sha256 of every file of the three models, by path with forward slashes. */
export async function checksumsOf(bundle: string): Promise<Record<string, string>> {
  const sums: Record<string, string> = {};
  for (const folder of FOLDERS) {
    for (const name of (await readdir(path.join(bundle, folder))).sort()) {
      const bytes = await readFile(path.join(bundle, folder, name));
      sums[`${folder}/${name}`] = createHash("sha256").update(bytes).digest("hex");
    }
  }
  return sums;
}

/**
 * Checks a bundle against its card; a folder without a card, or with one that has no checksums, passes.
 *
 * @throws NlaError `bundle.card` for a card that cannot be read, `bundle.damaged` for a file that is missing or has other bytes
 */
export async function checkBundle(bundle: string): Promise<void> {
  const file = path.join(bundle, NUMBERS);
  const text = await readFile(file, "utf8").catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === "ENOENT") return null;
    throw thrown;
  });
  if (text === null) return;
  let files: Readonly<Record<string, string>>;
  try {
    ({ files = {} } = JSON.parse(text) as { files?: Record<string, string> });
  } catch (cause) {
    throw new NlaError({
      code: "bundle.card",
      subject: file,
      found: messageOf(cause),
      wanted: "the JSON that nlakit wrote",
      next: "Install the package anew, or make the bundle with `npm run smallworld`.",
      cause,
    });
  }
  for (const [name, sum] of Object.entries(files)) {
    const bytes = await readFile(path.join(bundle, name)).catch((thrown: NodeJS.ErrnoException) => {
      if (thrown.code === "ENOENT") return null;
      throw thrown;
    });
    const found = bytes && createHash("sha256").update(bytes).digest("hex");
    if (found === sum) continue;
    throw new NlaError({
      code: "bundle.damaged",
      subject: path.join(bundle, name),
      found: bytes ? `${bytes.length} bytes with sha256 ${found?.slice(0, 12)}` : "no such file",
      wanted: `the file of the card, sha256 ${sum.slice(0, 12)}`,
      next: "Install the package anew, or make the bundle with `npm run smallworld`.",
    });
  }
}
