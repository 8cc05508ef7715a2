// What belongs to a checkpoint and where it lies: a folder in the released layout has all in it; a GGUF file has its tokenizer in its
// metadata, and its sidecar beside it, because its format has no place for a contract.
import { stat } from "node:fs/promises";
import path from "node:path";
import { openGguf } from "../data/gguf.js";
import { readModelSidecarFile, sidecarPathFor } from "../data/sidecar.js";
import type { ModelSidecar } from "../data/sidecar.js";
import { NlaError } from "../error.js";
import { isGguf } from "../model/index.js";
import { ggufTokenizerFiles } from "../text/gguf-tokenizer.js";
import { loadTokenizer, Tokenizer } from "../text/tokenizer.js";

const SIDECAR = "nla_meta.yaml";

/** The tokenizer of a folder, or of a GGUF file's metadata. @throws NlaError of both readers */
export async function loadModelTokenizer(directory: string): Promise<Tokenizer> {
  if (!isGguf(directory)) return await loadTokenizer(directory);
  const file = await openGguf(directory);
  try {
    return new Tokenizer(ggufTokenizerFiles(directory, file.metadata));
  } finally {
    await file.close();
  }
}

/**
 * The sidecar of a checkpoint: the one named, else the one in its folder; of a GGUF file `FILE.gguf.nla_meta.yaml`, else the
 * `nla_meta.yaml` in the same folder.
 *
 * @param contract a sidecar file, or a folder with one; it wins over the checkpoint's own
 * @throws NlaError `nla.directory`, `nla.role`, `sidecar.missing` naming the places looked at, and those of the reader
 */
export async function sidecarOfCheckpoint(
  checkpoint: string,
  role: "av" | "ar",
  contract?: string,
): Promise<{ readonly file: string; readonly sidecar: ModelSidecar }> {
  const what = role === "av" ? "verbalizer" : "reconstructor";
  const kind = await kindOf(checkpoint);
  if (kind === null || (kind === "file" && !isGguf(checkpoint))) {
    throw new NlaError({
      code: "nla.directory",
      subject: checkpoint,
      found: kind === null ? "nothing" : "a file",
      wanted: `the folder of a ${what}, or a .gguf file`,
      next: "Name a run folder, or the folders of a released pair.",
    });
  }
  const file = contract === undefined ? await ownSidecar(checkpoint, kind) : await sidecarPath(contract);
  const sidecar = await readModelSidecarFile(file);
  if (sidecar.role === null || sidecar.role === role) return { file, sidecar };
  throw new NlaError({
    code: "nla.role",
    subject: contract === undefined ? checkpoint : file,
    found: sidecar.role === "av" ? "a verbalizer (av)" : "a reconstructor (ar)",
    wanted: role === "av" ? "a verbalizer (av)" : "a reconstructor (ar)",
    next: "The two folders of the pair are probably swapped.",
  });
}

/** The sidecar that lies with a GGUF file, or null: `FILE.gguf.nla_meta.yaml`, else `nla_meta.yaml` in its folder. */
export async function ggufSidecar(file: string): Promise<string | null> {
  for (const place of [`${file}.${SIDECAR}`, path.join(path.dirname(file), SIDECAR)]) {
    if ((await kindOf(place)) === "file") return place;
  }
  return null;
}

async function ownSidecar(checkpoint: string, kind: "file" | "folder"): Promise<string> {
  if (kind === "folder") return await sidecarPathFor(checkpoint);
  const found = await ggufSidecar(checkpoint);
  if (found !== null) return found;
  throw new NlaError({
    code: "sidecar.missing",
    subject: checkpoint,
    found: `neither ${path.basename(checkpoint)}.${SIDECAR} nor ${SIDECAR} beside it`,
    wanted: "the sidecar of the checkpoint that the file was made of",
    next: "Copy the checkpoint's nla_meta.yaml to one of these names, or name it with --contract (--ar-contract for a reconstructor).",
  });
}

/** A named sidecar itself, or the one in a named folder. */
async function sidecarPath(named: string): Promise<string> {
  return (await kindOf(named)) === "folder" ? path.join(named, SIDECAR) : named;
}

async function kindOf(place: string): Promise<"file" | "folder" | null> {
  return stat(place).then(
    (found) => (found.isDirectory() ? "folder" : "file"),
    (thrown: NodeJS.ErrnoException) => {
      if (thrown.code === "ENOENT" || thrown.code === "ENOTDIR") return null;
      throw thrown;
    },
  );
}
