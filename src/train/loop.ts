// The frame that the three training stages share: resume, step, log, checkpoint, stop. What a step does is the caller's.
import { performance } from "node:perf_hooks";
import { openLog } from "./metrics-log.js";
import type { JsonLog } from "./metrics-log.js";
import type { Progress } from "./progress.js";
import type { Json } from "./run-folder.js";
import { latestCheckpoint, pruneCheckpoints, saveCheckpoint } from "./training-state.js";
import type { Checkpoint, CheckpointPlace, TrainingState } from "./training-state.js";

/** Where a stage's rows, checkpoints and progress go. */
export interface LoopOutputs {
  readonly place: CheckpointPlace;
  readonly metricsFile: string;
  readonly samplesFile: string;
  readonly progress: Progress;
  readonly checkpointEvery: number;
  readonly keepCheckpoints: number;
  readonly signal?: AbortSignal | undefined;
}

/** What one step hands to the log and to whoever watches. */
export interface StepLog {
  /** Fields of the row in metrics.jsonl. */
  readonly row: Readonly<Record<string, Json>>;
  /** Seconds of the step's parts, by name; the whole is added. `evaluate` does not count for tokens per second. */
  readonly seconds?: Readonly<Record<string, number>>;
  /** Tokens that went through a model. */
  readonly tokens: number;
  /** Key numbers for the live line. */
  readonly numbers: Readonly<Record<string, number>>;
  /** Rows of samples.jsonl. */
  readonly samples?: readonly Readonly<Record<string, Json>>[];
}

/** A training stage. */
export interface TrainingLoop {
  readonly steps: number;
  /** Runs step number `step`, from 0. */
  step(step: number): Promise<StepLog>;
  /** Writes everything that the next step depends on into a folder. */
  save(directory: string): Promise<void>;
  /** The rest of it, as numbers. */
  state(): Pick<TrainingState, "data" | "seeds" | "optimizers" | "best">;
}

/** Whether something that happens `every` so many steps, and after the last one, happens after step `step`. */
export function due(step: number, every: number, steps: number): boolean {
  return step % every === every - 1 || step === steps - 1;
}

/** A checkpoint to go on from. */
export type ResumePoint = Checkpoint;

/** The newest checkpoint of a stage, if there is one. */
export function resumePoint({ place }: LoopOutputs): Promise<Checkpoint | null> {
  return latestCheckpoint(place);
}

/**
 * Runs the steps that are left, with a checkpoint every so often, at the end, and where the signal stops it. After a kill
 * the same call goes on from the newest checkpoint, and what it writes is what an undisturbed run would have written.
 *
 * @param from steps already done
 * @throws the signal's reason after saving; whatever a step throws
 */
export async function runLoop(loop: TrainingLoop, from: number, outputs: LoopOutputs): Promise<void> {
  const { place, progress, signal } = outputs;
  const start = { stage: place.stage, nextStep: from };
  await using metrics = await openLog(outputs.metricsFile, start);
  await using samples = await openLog(outputs.samplesFile, start);
  const retention = {
    keep: outputs.keepCheckpoints,
    scheduled: (step: number) => step % outputs.checkpointEvery === 0 || step === loop.steps,
  };
  await pruneCheckpoints(place, retention); // a kill may have come between a checkpoint and the removal of older ones
  const live = progress.stage(place.stage, { total: loop.steps, from });
  let done = from;
  let saved = from;
  const checkpoint = async () => {
    await metrics.flush(); // a checkpoint must not be ahead of the log
    await samples.flush();
    const state = { stage: place.stage, step: done, ...loop.state() };
    await saveCheckpoint(place, state, (folder) => loop.save(folder), retention);
    saved = done;
  };
  try {
    while (done < loop.steps) {
      signal?.throwIfAborted();
      const begun = performance.now();
      const report = await loop.step(done);
      const seconds = (performance.now() - begun) / 1000;
      await logStep(metrics, samples, place.stage, done, report, seconds);
      done++;
      live.report({ step: done, tokens: report.tokens, numbers: report.numbers });
      if (retention.scheduled(done)) await checkpoint();
    }
    live.end("done");
  } catch (thrown) {
    live.end("stopped");
    // Only what was stopped between steps is whole: a fault on the way down may have come in the middle of one.
    if (signal?.aborted && thrown === signal.reason && done > saved) await checkpoint();
    throw thrown;
  }
}

async function logStep(
  metrics: JsonLog,
  samples: JsonLog,
  stage: string,
  step: number,
  report: StepLog,
  seconds: number,
): Promise<void> {
  const parts = Object.entries(report.seconds ?? {}).map(
    ([name, value]) => [`seconds_${name}`, value] as const,
  );
  const working = seconds - (report.seconds?.evaluate ?? 0);
  const timing = { seconds, ...Object.fromEntries(parts), tokens_per_second: report.tokens / working };
  for (const row of report.samples ?? []) await samples.append({ stage, step, ...row });
  await metrics.append({ stage, step, ...report.row, timing });
}
