// What the model layer shows to the layers above.
export { attentionMask, packedRows, padBatch, pickRows } from "./batch.js";
export type { Batch, PadOptions } from "./batch.js";
export { Batcher } from "./batcher.js";
export type { BatcherLoad, BatcherOptions, BatchRequest, BatchResult } from "./batcher.js";
export { benchDecode, benchExtract, benchTrain } from "./bench.js";
export type { BenchOptions, BenchReport } from "./bench.js";
export type { BenchProfile, ProfileLine } from "./bench-profile.js";
export {
  checkDummies,
  copyModelFolder,
  isDummy,
  loadDecoder,
  openModelWeights,
  saveDecoder,
  saveDecoderLike,
  storedTensor,
} from "./checkpoint.js";
export type { SaveOptions } from "./checkpoint.js";
export { conformance } from "./conformance.js";
export type { ConformanceReport } from "./conformance.js";
export { writeGolden } from "./conformance-write.js";
export { relativeL2 } from "./conformance-findings.js";
export type { Check } from "./conformance-findings.js";
export { loadConfig, parseConfig, truncateConfig } from "./config.js";
export type { DecoderConfig, RopeConfig, RopeScaling } from "./decoder-config.js";
export { Decoder, randomParameters } from "./decoder.js";
export type { ParameterSource } from "./decoder.js";
export { finalNorm, forward } from "./forward.js";
export type { BatchInputs, ForwardOptions, InjectedRows, LowRank, Residuals, Weights } from "./forward.js";
export { generate } from "./generate.js";
export type { Generated, GenerateOptions } from "./generate.js";
export { declareBatch } from "./graph-inputs.js";
export type { DeclaredBatch } from "./graph-inputs.js";
export { Lora, LORA_TARGETS } from "./lora.js";
export type { LoraSettings } from "./lora.js";
export { adapterBase, adapterBaseName, hasAdapter, loadLora, readLora, saveLora } from "./lora-files.js";
export { checkStored } from "./finite.js";
export { convertToGguf, saveGguf } from "./gguf-save.js";
export type { GgufOptions } from "./gguf-save.js";
export { HOLDINGS } from "./storage.js";
export type { Holding } from "./storage.js";
export { isGguf, loadGgufConfig, readGgufValueHead } from "./weight-source.js";
export { EMBEDDING, FINAL_NORM, HEAD, parameterCount, parameterShapes } from "./parameters.js";
export type { Parts } from "./parameters.js";
export { checkLayer, headOf, injectionValues, lastRows, run } from "./run.js";
export type { Injection, RunOptions, RunResult } from "./run.js";
export type { Choice } from "./next-token.js";
export type { SamplingOptions } from "./sampling.js";
export { threadsFor } from "./threads.js";
