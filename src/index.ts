// The public names of nlakit: load a target and an NLA, read, train, evaluate. Everything else is reached by commands.
export { NlaError } from "./error.js";
export type { ErrorParts } from "./error.js";
export { Device, listDevices } from "./tensor/index.js";
export type { DeviceInfo } from "./tensor/index.js";
export { generate, loadDecoder, run, saveDecoder, saveDecoderLike } from "./model/index.js";
export type {
  Decoder,
  DecoderConfig,
  Generated,
  GenerateOptions,
  RunOptions as ForwardOptions,
  RunResult,
} from "./model/index.js";
export { activationsOf, loadTarget } from "./nla/target.js";
export type { Target } from "./nla/target.js";
export { loadNla, read } from "./nla/read.js";
export type { LoadNlaOptions, Nla, Reading, ReadOptions, TokenReading } from "./nla/read.js";
export { convertCheckpoint } from "./nla/gguf-checkpoint.js";
export type { Converted, ConvertOptions } from "./nla/gguf-checkpoint.js";
export { loadReconstructor, loadVerbalizer, saveReconstructor, saveVerbalizer } from "./nla/pair-files.js";
export type { Contract } from "./nla/contract.js";
export { Verbalizer } from "./nla/verbalizer.js";
export type { Explanation, ExplainOptions } from "./nla/verbalizer.js";
export { Reconstructor } from "./nla/reconstructor.js";
export { fve, reconstructionScores } from "./nla/fidelity.js";
export type { FveBaselines, ReconstructionScores } from "./nla/fidelity.js";
export { evaluatePair } from "./evaluate/evaluate-pair.js";
export type { Evaluation } from "./evaluate/evaluation.js";
export type { EvalRow } from "./evaluate/explained-rows.js";
export { loadConfig } from "./train/config.js";
export type { TrainConfig } from "./train/config.js";
export { openProgress } from "./train/progress.js";
export type { Progress } from "./train/progress.js";
export { train } from "./train/run.js";
export type { RunOptions } from "./train/run-context.js";
