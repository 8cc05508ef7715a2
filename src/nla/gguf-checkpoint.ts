// A checkpoint as one GGUF file, and back as a folder: a target, a verbalizer, or a reconstructor, its tokenizer inside and its sidecar beside.
// How weights are written is model/'s, how a tokenizer is said is text/'s.
import { stat } from "node:fs/promises";
import path from "node:path";
import { writeDirectoryAtomic, writeFileAtomic } from "../data/files.js";
import { formatSidecar, readModelSidecarFile, writeModelSidecar } from "../data/sidecar.js";
import type { ModelSidecar } from "../data/sidecar.js";
import { NlaError } from "../error.js";
import { convertToGguf, isGguf, loadDecoder, openModelWeights, saveDecoder } from "../model/index.js";
import type { Holding } from "../model/index.js";
import { Device } from "../tensor/index.js";
import { ggufTokenizerFields } from "../text/gguf-fields.js";
import { ggufSidecar, loadModelTokenizer } from "./checkpoint-place.js";
import { RECONSTRUCTOR_PARTS, saveValueHead, valueHeadOf } from "./pair-files.js";

/** Options of {@link convertCheckpoint}. */
export interface ConvertOptions {
  /** The type of the matrices. Defaults to `"stored"`: as they are. */
  readonly holding?: Holding | undefined;
  /** Whether the tokenizer is written. Defaults to true. */
  readonly tokenizer?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What was written. */
export interface Converted {
  readonly file: string;
  readonly bytes: number;
  readonly role: "target" | "av" | "ar";
  /** The sidecar's place; null for a target. */
  readonly sidecar: string | null;
  /** What is not as it was, in words for people. */
  readonly notes: readonly string[];
}

/**
 * Writes a checkpoint as a GGUF file, its sidecar as `FILE.gguf.nla_meta.yaml`, one tensor in memory at a time.
 *
 * @param from a folder in Hugging Face or released layout, or a GGUF file
 * @throws NlaError `gguf.tokenizer` and those of {@link convertToGguf}, `gguf.name` for another ending, `contract.value-head`
 */
export async function convertCheckpoint(
  from: string,
  to: string,
  options: ConvertOptions = {},
): Promise<Converted> {
  if (!isGguf(to) || path.resolve(from) === path.resolve(to)) {
    throw new NlaError({
      code: "gguf.name",
      subject: to,
      found: isGguf(to) ? "the file that is to be read" : "another ending",
      wanted: "the path of a new file that ends in .gguf",
      next: "Readers know these files by their name.",
    });
  }
  const sidecar = await sidecarWith(from);
  const role = sidecar?.role ?? ((await hasValueHead(from)) ? "ar" : sidecar === null ? "target" : "av");
  const parts = role === "ar" ? RECONSTRUCTOR_PARTS : {};
  const source = await openModelWeights(from, parts);
  const { config } = source;
  await source.close();
  const written =
    options.tokenizer === false
      ? null
      : ggufTokenizerFields(await loadModelTokenizer(from), {
          vocabulary: config.vocabulary,
          endIds: config.eosIds,
        });
  await convertToGguf(from, to, {
    parts,
    holding: options.holding ?? "stored",
    signal: options.signal,
    valueHead: role === "ar" ? await valueHeadOf(from, config.dim) : null,
    ...(written === null ? {} : { tokenizer: written.fields }),
  });
  const beside = sidecar === null ? null : `${to}.nla_meta.yaml`;
  if (sidecar !== null && beside !== null) await writeFileAtomic(beside, formatSidecar(sidecar));
  return {
    file: to,
    bytes: (await stat(to)).size,
    role,
    sidecar: beside,
    notes: written?.notes ?? ["no tokenizer: whoever loads the file has to be given token ids"],
  };
}

/**
 * Writes a checkpoint as a folder in Hugging Face or released layout, its matrices unpacked: from a GGUF file what trains, and what
 * Python reads. An adapter is merged.
 *
 * @param to a folder that is not there yet
 * @throws NlaError `convert.exists`, and those of the loaders and writers
 */
export async function unpackCheckpoint(
  from: string,
  to: string,
  { dtype = "F32" }: { readonly dtype?: "F32" | "F16" | "BF16" } = {},
): Promise<Converted> {
  if (await isThere(to)) {
    throw new NlaError({
      code: "convert.exists",
      subject: to,
      found: "something there already",
      wanted: "the path of a new folder",
      next: "Choose another path, or remove what is there.",
    });
  }
  const sidecar = await sidecarWith(from);
  const role = sidecar?.role ?? ((await hasValueHead(from)) ? "ar" : sidecar === null ? "target" : "av");
  const tokenizer = await loadModelTokenizer(from);
  using device = Device.open({ threads: 1 });
  using model = await loadDecoder(from, device, role === "ar" ? RECONSTRUCTOR_PARTS : {}, "f32");
  await model.merge();
  const head = role === "ar" ? await valueHeadOf(from, model.config.dim) : null;
  await writeDirectoryAtomic(to, async (folder) => {
    await saveDecoder(folder, model, { dtype });
    await tokenizer.save(folder);
    if (head) await saveValueHead(folder, head, model.config.dim, dtype);
    if (sidecar) await writeModelSidecar(folder, sidecar);
  });
  return {
    file: to,
    bytes: (await stat(path.join(to, "model.safetensors"))).size,
    role,
    sidecar: sidecar === null ? null : path.join(to, "nla_meta.yaml"),
    notes: [],
  };
}

async function sidecarWith(from: string): Promise<ModelSidecar | null> {
  if (isGguf(from)) {
    const beside = await ggufSidecar(from);
    return beside === null ? null : await readModelSidecarFile(beside);
  }
  const inside = path.join(from, "nla_meta.yaml");
  return (await isThere(inside)) ? await readModelSidecarFile(inside) : null;
}

async function hasValueHead(from: string): Promise<boolean> {
  return !isGguf(from) && (await isThere(path.join(from, "value_head.safetensors")));
}

async function isThere(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    (thrown: NodeJS.ErrnoException) => {
      if (thrown.code === "ENOENT" || thrown.code === "ENOTDIR") return false;
      throw thrown;
    },
  );
}
