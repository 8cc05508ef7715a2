// The state of the two trainers of a pair between a checkpoint and a step: moments in files, counters in the checkpoint's state. What the
// trainers learn from is the stage's own (grpo.ts, continue-labels.ts).
import type { ResumePoint } from "./loop.js";
import type { RegressionBatch } from "./reconstructor-step.js";
import type { ResponseBatch } from "./response-batch.js";
import type { Trainer } from "./trainer.js";
import { countersOf } from "./warm-start.js";
import type { Storage } from "./warm-start.js";

/** The trainers of a verbalizer and of its reconstructor. */
export interface PairTrainers {
  readonly verbalizer: Pick<Trainer<ResponseBatch>, "save" | "restore" | "counters">;
  readonly reconstructor: Pick<Trainer<RegressionBatch>, "save" | "restore" | "counters">;
}

/** Takes both optimizers back from a checkpoint; without one they stay as they begin. @throws NlaError `train.moments` */
export async function restoreTrainers(
  { verbalizer, reconstructor }: PairTrainers,
  resumed: ResumePoint | null,
): Promise<void> {
  if (!resumed) return;
  const { directory, state } = resumed;
  const { optimizers } = state;
  await verbalizer.restore(directory, "verbalizer-optimizer", countersOf(optimizers.verbalizer));
  await reconstructor.restore(directory, "reconstructor-optimizer", countersOf(optimizers.reconstructor));
}

/** Writes the pair and both optimizers into a checkpoint's folder. */
export async function saveTrainers(
  { verbalizer, reconstructor }: PairTrainers,
  storage: Storage,
  directory: string,
): Promise<void> {
  await storage.save(directory);
  await verbalizer.save(directory, "verbalizer-optimizer");
  await reconstructor.save(directory, "reconstructor-optimizer");
}
