// From a path to everything that is wrong with it: a sidecar, a data file, a checkpoint, a folder of data files, or a run folder with
// all of these.
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { removeStaleTemporaries } from "../data/files.js";
import { NlaError } from "../error.js";
import { isGguf } from "../model/index.js";
import { PAIR_FOLDERS } from "../nla/read.js";
import { loadTokenizer } from "../text/tokenizer.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { RUN_LAYOUT } from "../train/run-layout.js";
import { checkCheckpoint, exists } from "./check-checkpoint.js";
import type { CheckedCheckpoint } from "./check-checkpoint.js";
import { checkDataset } from "./check-dataset.js";
import type { CheckedDataset } from "./check-dataset.js";
import { checkGguf } from "./check-gguf.js";
import { checkSidecar } from "./check-sidecar.js";
import { Findings } from "./finding.js";
import type { Finding } from "./finding.js";

/** What a path was taken for. */
export type PathKind = "sidecar" | "dataset" | "checkpoint" | "GGUF file" | "data folder" | "run folder";

/** The result of a check. */
export interface Checked {
  readonly path: string;
  readonly kind: PathKind;
  /** Files and folders that were looked at. */
  readonly checked: readonly string[];
  readonly findings: readonly Finding[];
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
  } else {
    await checkFolder(target, { checked, findings, tokenizer });
  }
  return { path: target, kind, checked, findings: findings.list };
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
    if ((await parquetFiles(target)).length > 0) return "data folder";
  }
  throw new NlaError({
    code: "check.path",
    subject: target,
    found: found === null ? "nothing" : found.isDirectory() ? "a folder without any of them" : "another file",
    wanted:
      "a sidecar (.yaml), a .parquet file, a checkpoint (config.json), a .gguf file, a run folder, or a folder of .parquet files",
    next: "Check the path.",
  });
}

async function parquetFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  // Chunks of a labelling that was cut off have no sidecars, by design.
  return names.filter((name) => name.endsWith(".parquet") && !name.includes(".parquet.chunks")).sort();
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

/** The set that a file belongs to, by its name; null for base files and others that hold every document. */
function setOf(file: string): string | null {
  return /^(av_sft|ar_sft|rl|eval)(_raw|_explained|_shuf)?\.parquet$/.exec(path.basename(file))?.[1] ?? null;
}

function checkOverlap(sets: readonly CheckedDataset[], findings: Findings): void {
  const owner = new Map<string, CheckedDataset>();
  const told = new Set<string>();
  for (const each of sets) {
    const set = setOf(each.file);
    if (set === null) continue;
    let shared = 0;
    let other: CheckedDataset | null = null;
    for (const id of each.documents) {
      const first = owner.get(id);
      if (first === undefined) owner.set(id, each);
      else if (setOf(first.file) !== set) {
        shared++;
        other ??= first;
      }
    }
    if (other === null) continue;
    const pair = [set, setOf(other.file)].sort().join();
    if (told.has(pair)) continue;
    told.add(pair);
    findings.add("error", {
      code: "check.split-overlap",
      subject: `${other.file} and ${each.file}`,
      found: `${shared} documents in both`,
      wanted: "every document in one set: two positions of a document share their text",
      next: "Split by document again (`nla data split`) and build the sets anew.",
    });
  }
}

/** One document under two ids, in two sets: told by how far both are known to be the same. */
function checkEqualTexts(sets: readonly CheckedDataset[], findings: Findings): void {
  const owner = new Map<string, { id: string; levels: number; file: string; set: string }>();
  const shared = new Map<string, { pairs: Set<string>; files: string }>();
  for (const { file, openings } of sets) {
    const set = setOf(file);
    if (set === null) continue;
    for (const [id, hashes] of openings) {
      const levels = hashes.length;
      // The longest opening that both have decides: conversations may begin alike.
      const twin = hashes.findLast((hash, i) => {
        const first = owner.get(hash);
        const whole = first !== undefined && (i + 1 === levels || i + 1 === first.levels);
        return whole && first.id !== id && first.set !== set;
      });
      for (const hash of hashes) if (!owner.has(hash)) owner.set(hash, { id, levels, file, set });
      const other = twin === undefined ? undefined : owner.get(twin);
      if (other === undefined) continue;
      const pair = [set, other.set].sort().join();
      const known = shared.get(pair);
      const documents = [id, other.id].sort().join();
      if (known) known.pairs.add(documents);
      else shared.set(pair, { pairs: new Set([documents]), files: `${other.file} and ${file}` });
    }
  }
  for (const { pairs, files } of shared.values()) {
    findings.add("warning", {
      code: "check.equal-text",
      subject: files,
      found: `${pairs.size} texts in both, under other ids`,
      wanted: "every text in one set",
      next: "The corpus has documents twice: remove copies before extracting, or what is held out was trained on.",
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
