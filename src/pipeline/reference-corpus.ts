// Where the corpus of a reference config lies on this machine. There its name is one for `datasets.load_dataset`; here it is a file,
// a folder of the split's files, or a folder with a file per split, as that function takes local folders too.
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { NlaError } from "../error.js";
import type { ReferenceConfig } from "./reference-config.js";

const EXTENSIONS = [".jsonl", ".parquet", ".txt"];

async function kindOf(file: string): Promise<"file" | "folder" | null> {
  const found = await stat(file).catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === "ENOENT" || thrown.code === "ENOTDIR") return null;
    throw thrown;
  });
  if (found === null) return null;
  return found.isDirectory() ? "folder" : "file";
}

/** A relative path as a program in the working directory sees it, or else beside `file`; null where neither is there. */
export async function findBeside(name: string, file: string): Promise<string | null> {
  for (const each of [path.resolve(name), path.resolve(path.dirname(file), name)]) {
    if ((await kindOf(each)) !== null) return each;
  }
  return null;
}

/**
 * The corpus as a path for `readCorpus`.
 *
 * @param configFile the config's own path; a corpus may lie beside it
 * @throws NlaError `pipeline.corpus` where nothing is there, or several files could be the split
 */
export async function corpusPathOf(
  { corpus: { name, split } }: Pick<ReferenceConfig, "corpus">,
  configFile: string,
): Promise<string> {
  const found = await findBeside(name, configFile);
  if (found === null) {
    throw corpusError(name, "nothing of that name here or beside the config");
  }
  if ((await kindOf(found)) === "file") return found;
  if ((await kindOf(path.join(found, split))) === "folder") return path.join(found, split);
  const names = (await readdir(found)).filter((each) => EXTENSIONS.includes(path.extname(each)));
  const named = names.filter((each) => path.parse(each).name === split);
  const [only] = named;
  if (named.length === 1 && only !== undefined) return path.join(found, only);
  const parts = names.filter((each) => each.startsWith(`${split}-`));
  if (named.length === 0 && (names.length === parts.length || names.length === 1) && names.length > 0)
    return found;
  throw corpusError(name, `${names.length} files in ${found}: ${names.slice(0, 5).join(", ") || "none"}`);
}

function corpusError(name: string, found: string): NlaError {
  return new NlaError({
    code: "pipeline.corpus",
    subject: `corpus.name ${name}`,
    found,
    wanted: `a ${EXTENSIONS.join(", ")} file, or a folder with one file per split`,
    next: "Download the corpus and name it with --corpus PATH; document ids keep the config's name.",
  });
}
