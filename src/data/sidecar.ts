// The `nla_meta.yaml` beside every dataset and in every checkpoint: the contract between the parts of an NLA.
//
// Finds, reads and writes it in the reference's format, so that its readers take our files and we take theirs. Whether
// a contract fits a live tokenizer or model is asserted in nla/contract.ts, not here.
import { readFile, stat } from "node:fs/promises";
import path from "node:path";

import { NlaError, messageOf } from "../error.js";
import { writeFileAtomic } from "./files.js";
import { type DatasetSidecar, datasetMap, readDataset } from "./sidecar-dataset.js";
import { fieldError } from "./sidecar-fields.js";
import { type ModelSidecar, modelMap, readModel } from "./sidecar-model.js";
import { readYaml } from "./yaml-read.js";
import type { YamlMap } from "./yaml-scalars.js";
import { writeYaml } from "./yaml-write.js";

export type { ApiSummaries, DatasetSidecar, DatasetStage, ExtractionFacts } from "./sidecar-dataset.js";
export {
  DEFAULT_FORMAT,
  DEFAULT_INJECTION,
  type ExplanationFormat,
  type Injection,
  type InjectionScale,
  type PromptTemplates,
  type SidecarTokens,
  type UnknownKey,
} from "./sidecar-fields.js";
export type { ModelSidecar } from "./sidecar-model.js";

/** Either kind; `kind` tells which. */
export type Sidecar = DatasetSidecar | ModelSidecar;

const FILE_NAME = "nla_meta.yaml";
const SLICE = /@\[[^\]]*\]$/; // `rows.parquet@[0:100]` names some rows of a file

/** The sidecar's path for a Parquet file: its name with `.nla_meta.yaml` after it, a row slice taken off. */
export function datasetSidecarPath(file: string): string {
  return `${file.replace(SLICE, "")}.${FILE_NAME}`;
}

/**
 * The sidecar's path for a checkpoint or a file: in a folder, or in what has no extension and does not exist, it is
 * `nla_meta.yaml`; beside a file it is `FILE.nla_meta.yaml`.
 */
export async function sidecarPathFor(target: string): Promise<string> {
  const clean = target.replace(SLICE, "");
  const found = await stat(clean).catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === "ENOENT" || thrown.code === "ENOTDIR") return null;
    throw thrown;
  });
  const isFolder = found === null ? path.extname(clean).length < 2 : found.isDirectory();
  return isFolder ? path.join(clean, FILE_NAME) : `${path.normalize(clean)}.${FILE_NAME}`;
}

/**
 * Which of three sources a run takes its contract from: the one named explicitly, else the checkpoint if it has a
 * sidecar, else the dataset. Beware: a checkpoint's sidecar beats the dataset's, so new prompts must be named explicitly.
 *
 * @throws NlaError `sidecar.no-source`.
 */
export async function sidecarSource({
  explicit = null,
  checkpoint = null,
  data = null,
}: {
  explicit?: string | null;
  checkpoint?: string | null;
  data?: string | null;
}): Promise<string> {
  if (explicit !== null) return explicit;
  if (checkpoint !== null && (await isFile(path.join(checkpoint, FILE_NAME)))) return checkpoint;
  if (data !== null) return data;
  throw new NlaError({
    code: "sidecar.no-source",
    subject: checkpoint ?? "sidecar",
    found:
      checkpoint === null ? "neither a checkpoint nor a dataset" : `no ${FILE_NAME} in it, and no dataset`,
    wanted: `a checkpoint with ${FILE_NAME}, or a dataset with its sidecar`,
    next: "Name the file or folder whose sidecar to use.",
  });
}

async function isFile(file: string): Promise<boolean> {
  try {
    return (await stat(file)).isFile();
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return false;
    throw thrown;
  }
}

/** A sidecar from the bytes of a file; `file` is for error messages. @throws NlaError `yaml.*`, `sidecar.*`. */
export function parseSidecar(bytes: Uint8Array, file: string): Sidecar {
  const value = readYaml(bytes, file);
  if (!(value instanceof Map)) throw fieldError(file, "field", describe(value), "a mapping with `kind`");
  const map = value as YamlMap;
  const kind = map.get("kind");
  if (kind === "nla_dataset") return readDataset(map, file);
  if (kind === "nla_model") return readModel(map, file);
  const found = kind === undefined ? "nothing" : JSON.stringify(kind);
  throw fieldError(`${file}: kind`, "kind", found, '"nla_dataset" or "nla_model"');
}

function describe(value: unknown): string {
  if (value === null) return "an empty document";
  return Array.isArray(value) ? "a list" : "a scalar";
}

/** The text of a sidecar, as PyYAML would write it with the reference's key order. @throws NlaError `sidecar.incomplete`. */
export function formatSidecar(sidecar: Sidecar): string {
  return writeYaml(sidecar.kind === "nla_dataset" ? datasetMap(sidecar) : modelMap(sidecar));
}

/** Reads the sidecar file `file`. @throws NlaError `sidecar.missing`, `yaml.*`, `sidecar.*`. */
export async function readSidecarFile(file: string): Promise<Sidecar> {
  const bytes = await readFile(file).catch((thrown: unknown) => {
    throw new NlaError({
      code: "sidecar.missing",
      subject: file,
      found: messageOf(thrown),
      wanted: "a readable sidecar",
      next: "Datasets and checkpoints travel with their nla_meta.yaml; copy it too.",
      cause: thrown,
    });
  });
  return parseSidecar(bytes, file);
}

/** Reads the sidecar of the Parquet file `file`. @throws NlaError as {@link readSidecarFile}, and `sidecar.kind`. */
export async function readDatasetSidecar(file: string): Promise<DatasetSidecar> {
  const at = datasetSidecarPath(file);
  const sidecar = await readSidecarFile(at);
  if (sidecar.kind === "nla_dataset") return sidecar;
  throw fieldError(`${at}: kind`, "kind", `"${sidecar.kind}"`, '"nla_dataset"');
}

/** Reads the sidecar of the checkpoint folder `directory`. @throws NlaError as {@link readSidecarFile}, and `sidecar.kind`. */
export async function readModelSidecar(directory: string): Promise<ModelSidecar> {
  return readModelSidecarFile(await sidecarPathFor(directory));
}

/** Reads the sidecar file `at`, which must be a model's. @throws NlaError as {@link readModelSidecar}. */
export async function readModelSidecarFile(at: string): Promise<ModelSidecar> {
  const sidecar = await readSidecarFile(at);
  if (sidecar.kind === "nla_model") return sidecar;
  throw fieldError(`${at}: kind`, "kind", `"${sidecar.kind}"`, '"nla_model"');
}

/** Writes the sidecar of a Parquet file beside it, atomically. */
export async function writeDatasetSidecar(file: string, sidecar: DatasetSidecar): Promise<void> {
  await writeFileAtomic(datasetSidecarPath(file), formatSidecar(sidecar));
}

/** Writes the sidecar of a checkpoint folder into it, atomically. */
export async function writeModelSidecar(directory: string, sidecar: ModelSidecar): Promise<void> {
  await writeFileAtomic(path.join(directory, FILE_NAME), formatSidecar(sidecar));
}

/**
 * The time for `created_at`, in Python's isoformat, UTC. SOURCE_DATE_EPOCH (seconds since 1970) overrides the clock, so that a
 * run can be repeated byte for byte. @throws NlaError `sidecar.epoch` if that is not such a number.
 */
export function createdAtNow(environment: NodeJS.ProcessEnv = process.env): string {
  const epoch = environment["SOURCE_DATE_EPOCH"];
  const date = epoch === undefined || epoch === "" ? new Date() : new Date(Number(epoch) * 1000);
  if (epoch !== undefined && (!/^\d*$/.test(epoch) || Number.isNaN(date.getTime()))) {
    throw fieldError("SOURCE_DATE_EPOCH", "epoch", `"${epoch}"`, "whole seconds since 1970");
  }
  const [seconds = "", rest = ""] = date.toISOString().split(".");
  const milliseconds = rest.slice(0, 3);
  return `${seconds}${milliseconds === "000" ? "" : `.${milliseconds}000`}+00:00`;
}
