// Data files of one folder against each other: what one may hold and two may not. Each for itself is check-dataset.ts.
import path from "node:path";
import type { CheckedDataset } from "./check-dataset.js";
import type { Findings } from "./finding.js";

// Both are trained on and neither is measured on; rewards are measured on rl, fidelity on eval.
const WARM_START_PAIR = "ar_sft,av_sft";

/** The set that a file belongs to, by its name; null for base files and others that hold every document. */
function setOf(file: string): string | null {
  return /^(av_sft|ar_sft|rl|eval)(_raw|_explained|_shuf)?\.parquet$/.exec(path.basename(file))?.[1] ?? null;
}

/** A document in two sets. */
export function checkOverlap(sets: readonly CheckedDataset[], findings: Findings): void {
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

/**
 * One text under two ids, in two sets: told by how far both are known to be the same. A document is what has one id, by the
 * contract, so no rule of it is broken; but what is measured on a copy was trained on.
 */
export function checkEqualTexts(sets: readonly CheckedDataset[], findings: Findings): void {
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
  for (const [between, { pairs, files }] of shared) {
    const facts = {
      code: "check.equal-text",
      subject: files,
      found: `${pairs.size} texts in both, under other ids`,
    };
    if (between === WARM_START_PAIR) {
      const next =
        "Nothing is measured on either set. To have every text once, remove copies before extracting.";
      findings.notes.push({ ...facts, next });
      continue;
    }
    findings.add("warning", {
      ...facts,
      wanted: "every text in one set",
      next: "The corpus has documents twice: remove copies before extracting, or what is held out was trained on.",
    });
  }
}
