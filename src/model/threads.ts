// How many threads a model is worth. ggml's threads meet at a barrier after every node and spin there: for a model whose nodes
// take microseconds a second thread gains little on a quiet machine and costs a factor of ten on a busy one.
import { availableParallelism } from "node:os";
import { parameterCount } from "./parameters.js";
import type { DecoderConfig } from "./decoder-config.js";

// Measured: docs/performance.md, "Threads".
const SMALL = 2_000_000;

/** Threads for a model where nobody says: 1 below two million parameters, else every core of this process. */
export function threadsFor(config: DecoderConfig): number {
  return parameterCount(config) < SMALL ? 1 : availableParallelism();
}
