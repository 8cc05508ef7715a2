// What the stages of one run share.
import type { MarkerChoice } from "../nla/start.js";
import type { Target } from "../nla/target.js";
import type { Device } from "../tensor/index.js";
import type { TrainConfig } from "./config-schema.js";
import type { Progress } from "./progress.js";
import type { RunFolder } from "./run-folder.js";

/** What a run needs besides its config. */
export interface RunOptions {
  readonly directory: string;
  /** A run whose data and warm start are taken over where `directory` has none yet. */
  readonly from?: string | undefined;
  readonly progress: Progress;
  readonly signal?: AbortSignal | undefined;
}

/** Everything that the stages of one run share. */
export interface RunContext extends RunOptions {
  readonly run: RunFolder;
  readonly config: TrainConfig;
  readonly device: Device;
  readonly target: Target;
  readonly marker: MarkerChoice;
}
