// Where everything in a run folder lies. The folder is the interface between training, the commands and other tools, so
// each path stands here once; docs/run-folder.md describes the contents. Data files have the reference pipeline's names.

/** The four sets that documents are split into. */
export const DATA_SETS = ["ar_sft", "av_sft", "rl", "eval"] as const;
export type DataSet = (typeof DATA_SETS)[number];

/** The stages that leave training checkpoints. */
export const TRAINING_STAGES = ["ar_sft", "av_sft", "rl"] as const;
export type TrainingStage = (typeof TRAINING_STAGES)[number];

/** All stages of a run, in their order. */
export const STAGES = [
  "extract",
  "split",
  "label",
  "build",
  "shuffle",
  ...TRAINING_STAGES,
  "evaluate",
] as const;
export type Stage = (typeof STAGES)[number];

/** Paths relative to the run folder. */
export const RUN_LAYOUT = {
  /** The whole config, defaults included. */
  config: "config.yaml",
  /** Which stages are done, and what they returned. */
  state: "state.json",
  /** A folder of claims while a process works here; absent otherwise. */
  lock: "run.lock",
  /** What the stage at work has written so far; absent between stages. */
  staging: ".staging",
  /** One row per training step and evaluation. */
  metrics: "metrics.jsonl",
  /** Explanations with their scores, at intervals. */
  samples: "samples.jsonl",
  /** Activations and training sets, parquet with sidecars. */
  data: "data",
  /** Activations of every document. */
  base: "data/base.parquet",
  /** Training checkpoints, by stage. */
  checkpoints: "checkpoints",
  /** The warm-started pair, Hugging Face folders: where RL starts, and what its KL divergence is measured from. */
  warmReconstructor: "checkpoints/ar_sft/final",
  warmVerbalizer: "checkpoints/av_sft/final",
  /** The finished pair, Hugging Face folders in the released layout. */
  reconstructor: "reconstructor",
  verbalizer: "verbalizer",
  /** Fidelity on held-out documents. */
  evaluation: "eval.json",
} as const;

/** A set of activations after the split by document. */
export function rawFile(set: DataSet): string {
  return `data/splits/${set}_raw.parquet`;
}

/** A set with its labels. */
export function explainedFile(set: DataSet): string {
  return `data/splits/${set}_explained.parquet`;
}

/** A set as the training loops read it: prompts in place, in document order. */
export function trainingFile(set: DataSet): string {
  return `data/${set}.parquet`;
}

/** A training set, its rows shuffled. */
export function shuffledFile(set: DataSet): string {
  return `data/${set}_shuf.parquet`;
}

/** The sidecar of a data file. */
export function sidecarOf(file: string): string {
  return `${file}.nla_meta.yaml`;
}
