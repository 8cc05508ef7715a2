// From a path to everything that is wrong with it: a sidecar, a data file, a checkpoint, an adapter, a folder of data files, or a run
// folder with all of these.
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { removeStaleTemporaries } from "../data/files.js";
import { NlaError } from "../error.js";
import { hasAdapter, isGguf } from "../model/index.js";
import { PAIR_FOLDERS } from "../nla/read.js";
import { loadTokenizer } from "../text/tokenizer.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { RUN_LAYOUT } from "../train/run-layout.js";
import { checkAdapter } from "./check-adapter.js";
import { checkCheckpoint, exists } from "./check-checkpoint.js";
import type { CheckedCheckpoint } from "./check-checkpoint.js";
import { checkDataset } from "./check-dataset.js";
import type { CheckedDataset } from "./check-dataset.js";
import { checkGguf } from "./check-gguf.js";
import { checkEqualTexts, checkOverlap } from "./check-sets.js";
import { checkSidecar } from "./check-sidecar.js";
import { Findings } from "./finding.js";
import type { Finding, Note } from "./finding.js";

/** What a path was taken for. */
export type PathKind =
  "sidecar" | "dataset" | "checkpoint" | "adapter" | "GGUF file" | "data folder" | "run folder";

/** The result of a check. */
export interface Checked {
  readonly path: string;
  readonly kind: PathKind;
  /** Files and folders that were looked at. */
  readonly checked: readonly string[];
  readonly findings: readonly Finding[];
  /** What is as it may be; no findings. */
  readonly notes: readonly Note[];
}

/** Options of {@link checkPath}. */
export interface CheckOptions {
  /** Folder of a tokenizer that data files and lone sidecars are compared with; checkpoints have their own. */
  readonly tokenizer?: string;
}

/**
 * Checks a path.
 *
 * @throws NlaError `check.path` for what is none of the kinds; faults in what is checked are findings, not errors
 */
export async function checkPath(target: string, options: CheckOptions = {}): Promise<Checked> {
  const findings = new Findings();
  const kind = await kindOf(target);
  const tokenizer = options.tokenizer === undefined ? null : await loadTokenizer(options.tokenizer);
  const checked: string[] = [];
  if (kind === "sidecar") {
    checked.push(target);
    await checkSidecar(target, findings, tokenizer);
  } else if (kind === "dataset") {
    checked.push(target);
    await checkDataset(target, findings, tokenizer);
  } else if (kind === "GGUF file") {
    checked.push(target);
    await checkGguf(target, findings);
  } else if (kind === "checkpoint") {
    checked.push(target);
    await checkCheckpoint(target, findings);
    await checkTemporaries(target, findings);
  } else if (kind === "adapter") {
    checked.push(target);
    await checkAdapter(target, null, findings);
  } else {
    await checkFolder(target, { checked, findings, tokenizer });
  }
  return { path: target, kind, checked, findings: findings.list, notes: findings.notes };
}

async function kindOf(target: string): Promise<PathKind> {
  const found = await stat(target).catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === "ENOENT" || thrown.code === "ENOTDIR") return null;
    throw thrown;
  });
  if (found?.isFile()) {
    if (/\.ya?ml$/.test(target)) return "sidecar";
    if (target.endsWith(".parquet")) return "dataset";
    if (isGguf(target)) return "GGUF file";
  }
  if (found?.isDirectory()) {
    const has = (name: string) => exists(path.join(target, name));
    if (await has("config.json")) return "checkpoint";
    if ((await has(RUN_LAYOUT.state)) || (await has(PAIR_FOLDERS.verbalizer))) return "run folder";
    if (await has("nla_meta.yaml")) return "checkpoint";
    if (await hasAdapter(target)) return "adapter";
    if ((await parquetFiles(target)).length > 0) return "data folder";
  }
  throw new NlaError({
    code: "check.path",
    subject: target,
    found: found === null ? "nothing" : found.isDirectory() ? "a folder without any of them" : "another file",
    wanted:
      "a sidecar (.yaml), a .parquet file, a checkpoint (config.json), an adapter (adapter_config.json), a .gguf file, a run folder, or a folder of .parquet files",
    next: "Check the path.",
  });
}

async function parquetFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  // Chunks of a labelling that was cut off have no sidecars, by design.
  return names.filter((name) => name.endsWith(".parquet") && !name.includes(".parquet.chunks")).sort();
}

/** The models that training left, each stage's and step's; none where there is no such folder. */
async function checkpointFolders(folder: string): Promise<string[]> {
  if (!(await exists(folder))) return [];
  const names = await readdir(folder, { recursive: true });
  const models = names.filter((name) => path.basename(name) === "config.json");
  return models.map((name) => path.join(folder, path.dirname(name))).sort();
}

interface FolderCheck {
  readonly checked: string[];
  readonly findings: Findings;
  readonly tokenizer: Tokenizer | null;
}

async function checkFolder(folder: string, { checked, findings, tokenizer }: FolderCheck): Promise<void> {
  const pair: Partial<Record<"verbalizer" | "reconstructor", CheckedCheckpoint>> = {};
  for (const role of ["verbalizer", "reconstructor"] as const) {
    const directory = path.join(folder, PAIR_FOLDERS[role]);
    if (!(await exists(directory))) continue;
    checked.push(directory);
    pair[role] = await checkCheckpoint(directory, findings);
    await checkTemporaries(directory, findings);
  }
  checkPair(folder, pair, findings);
  for (const directory of await checkpointFolders(path.join(folder, RUN_LAYOUT.checkpoints))) {
    checked.push(directory);
    await checkCheckpoint(directory, findings);
  }
  const sets: CheckedDataset[] = [];
  for (const name of await parquetFiles(folder)) {
    const file = path.join(folder, name);
    checked.push(file);
    sets.push(await checkDataset(file, findings, tokenizer));
  }
  checkOverlap(sets, findings);
  checkEqualTexts(sets, findings);
  await checkTemporaries(folder, findings);
}

function checkPair(
  folder: string,
  { verbalizer, reconstructor }: { verbalizer?: CheckedCheckpoint; reconstructor?: CheckedCheckpoint },
  findings: Findings,
): void {
  const [av, ar] = [verbalizer?.sidecar, reconstructor?.sidecar];
  if (!av || !ar) return;
  if (av.role === "ar" || ar.role === "av") {
    findings.add("error", {
      code: "nla.role",
      subject: folder,
      found: "the two folders of the pair swapped",
      wanted: "a verbalizer in verbalizer/ and a reconstructor in reconstructor/",
      next: "Rename them.",
    });
  }
  const said = [av, ar].map(({ layerIndex, dModel, format, templates }) => {
    return { layer: layerIndex, width: dModel, format: format.kind, templates };
  });
  for (const key of ["layer", "width", "format", "templates"] as const) {
    const [a, b] = said.map((each) => each[key]);
    if (a === null || b === null || JSON.stringify(a) === JSON.stringify(b)) continue;
    findings.add("error", {
      code: "nla.pair",
      subject: `${folder}: ${key}`,
      found: `${JSON.stringify(a)} in the verbalizer, ${JSON.stringify(b)} in the reconstructor`.slice(
        0,
        400,
      ),
      wanted: "the same in both",
      next: "The two are not of one run: name folders of one pair.",
    });
  }
}

const TEMPORARY = /^\..+\.nla-(new|old)\.\d+\.[0-9a-f]+$/;

async function checkTemporaries(folder: string, findings: Findings): Promise<void> {
  const left = (await readdir(folder)).filter((name) => TEMPORARY.test(name));
  if (left.length === 0) return;
  findings.add("warning", {
    code: "check.temporaries",
    subject: folder,
    found: `${left.length} unfinished files, ${left[0]} first`,
    wanted: "none: their writer is gone, or still at work",
    next: "Remove those whose process has ended (--fix does it).",
    fix: async () => void (await removeStaleTemporaries(folder)),
  });
}
