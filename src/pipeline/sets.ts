// The four sets that documents go to, with the ids that their files carry. Three are the reference's; `eval` is ours: documents
// that no stage trains on. Its files have the columns and the sidecar stage of `rl`, so that readers of those take them.
import { splitDatasetId, trainingDatasetId } from "../data/dataset-id.js";
import type { SplitStage } from "../data/split.js";
import type { DatasetStage } from "../data/sidecar.js";

/** A set of documents. */
export type SetName = SplitStage | "eval";

/** All sets, in the order in which they are written. */
export const SET_NAMES: readonly SetName[] = ["ar_sft", "av_sft", "rl", "eval"];

/** Dataset id of a set after the split. */
export function splitIdOf(parent: string, set: SetName): string {
  return set === "eval" ? `${parent}__eval_raw` : splitDatasetId(parent, set);
}

/** Dataset id of a training set (or of the evaluation set). */
export function trainingIdOf(parent: string, set: SetName): string {
  return set === "eval" ? `eval_${parent.replace(/^base_/, "")}` : trainingDatasetId(parent, set);
}

/** The stage in a built set's sidecar. */
export function sidecarStageOf(set: SetName): DatasetStage {
  return set === "eval" ? "rl" : set;
}
