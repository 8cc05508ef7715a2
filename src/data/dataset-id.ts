// The `dataset_id` of a file: a name that says by which steps it was made, and from what.
//
// The reference seeds its row shuffles with these, so they must be equal letter for letter. Nothing here reads a file.
import { createHash } from "node:crypto";
import type { SplitStage } from "./split.js";

/** What a base dataset was extracted from. */
export interface BaseDataset {
  /** Name or path as the user gave it; the id keeps what follows the last slash. */
  readonly baseModel: string;
  /** Layer K: the output of block K. */
  readonly layer: number;
  readonly corpus: string;
  /** Documents `start` to `start + length - 1`. */
  readonly slice: { readonly start: number; readonly length: number };
}

/** The text whose sha256 goes into {@link baseDatasetId}: `model|layer|corpus|` and the slice as Python prints a dict. */
export function baseDatasetKey({ baseModel, layer, corpus, slice }: BaseDataset): string {
  return `${baseModel}|${layer}|${corpus}|{'start': ${slice.start}, 'length': ${slice.length}}`;
}

/** Id of an extraction: `base_{model tail}_L{layer}_{first 8 hex digits of the key's sha256}`. */
export function baseDatasetId(dataset: BaseDataset): string {
  const tail = dataset.baseModel.slice(dataset.baseModel.lastIndexOf("/") + 1);
  const digest = createHash("sha256").update(baseDatasetKey(dataset), "utf8").digest("hex");
  return `base_${tail}_L${dataset.layer}_${digest.slice(0, 8)}`;
}

/** Id of one stage's part of a split. */
export function splitDatasetId(parent: string, stage: SplitStage): string {
  return `${parent}__${stage}_raw`;
}

/** Id of a file whose rows have been labelled. */
export function explainedDatasetId(parent: string): string {
  return `${parent}__explained`;
}

/** Id of a training set: the stage takes the place of `base`. */
export function trainingDatasetId(parent: string, stage: SplitStage): string {
  return `${stage}_${parent.replace(/^base_/, "")}`;
}

/** Id of a file whose rows were shuffled. */
export function shuffledDatasetId(parent: string, seed: number | bigint): string {
  return `${parent}__shuf${seed}`;
}

/** Id of the random-activation control: rows in place, vectors permuted. */
export function activationShuffledDatasetId(parent: string, seed: number | bigint): string {
  return `${parent}__shuf_activations${seed}`;
}
