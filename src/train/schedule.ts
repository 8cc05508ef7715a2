// Learning rates as pure functions of the step, so that a resumed run needs no state of its own. Not the optimizer.
import { NlaError } from "../error.js";

/** A learning-rate schedule. */
export interface Schedule {
  /** After the warm-up: `constant` stays, `linear` and `cosine` fall to `floor` at `totalSteps`. Defaults to `constant`. */
  readonly shape?: "constant" | "linear" | "cosine";
  /** The rate after the warm-up. */
  readonly peak: number;
  /** Where the decay ends; it stays there. Defaults to 0. */
  readonly floor?: number;
  /** Steps of linear rise: step i gets peak * (i + 1) / warmupSteps, so the first update is not lost. Defaults to 0. */
  readonly warmupSteps?: number;
  /** Steps of the whole run; needed unless the shape is `constant`. */
  readonly totalSteps?: number;
}

/**
 * The learning rate of update number `step`, counted from 0.
 *
 * With t = (step - warmupSteps) / (totalSteps - warmupSteps), cut to 0..1, the decays are
 * floor + (peak - floor) * (1 - t) and floor + (peak - floor) * (1 + cos(pi t)) / 2.
 *
 * @throws NlaError `schedule.option` for a negative step or rate, a floor above the peak, or a decay that has no end
 */
export function learningRateAt(step: number, schedule: Schedule): number {
  const { shape = "constant", peak, floor = 0, warmupSteps = 0, totalSteps = Infinity } = schedule;
  demand(Number.isSafeInteger(step) && step >= 0, "step", step, "a whole number, 0 or more");
  demand(Number.isFinite(peak) && peak >= 0, "peak", peak, "a finite rate, 0 or more");
  demand(floor >= 0 && floor <= peak, "floor", floor, `between 0 and the peak ${peak}`);
  demand(
    Number.isSafeInteger(warmupSteps) && warmupSteps >= 0,
    "warmupSteps",
    warmupSteps,
    "a whole number, 0 or more",
  );
  if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps;
  if (shape === "constant") return peak;
  demand(
    Number.isSafeInteger(totalSteps) && totalSteps > warmupSteps,
    "totalSteps",
    totalSteps,
    `a whole number above warmupSteps ${warmupSteps} for a ${shape} decay`,
  );
  const t = Math.min(1, (step - warmupSteps) / (totalSteps - warmupSteps));
  const left = shape === "linear" ? 1 - t : (1 + Math.cos(Math.PI * t)) / 2;
  return floor + (peak - floor) * left;
}

/**
 * The rate of step `step` of a stage as its config states it. A warm-up as long as the stage, or longer, ends before its last
 * step, so that the peak is reached.
 */
export function stageRate(
  step: number,
  {
    schedule,
    warmup,
    steps,
  }: {
    readonly schedule: "constant" | "linear" | "cosine";
    readonly warmup: number;
    readonly steps: number;
  },
  peak: number,
): number {
  const warmupSteps = Math.min(warmup, Math.max(0, steps - 1));
  return learningRateAt(step, { shape: schedule, peak, warmupSteps, totalSteps: steps });
}

function demand(holds: boolean, name: string, found: number, wanted: string): void {
  if (holds) return;
  throw new NlaError({
    code: "schedule.option",
    subject: `learning-rate schedule, ${name}`,
    found: String(found),
    wanted,
    next: "Correct the schedule in the config.",
  });
}
