// The reward of one explanation: how well the reconstructor got the activation back from it, or a fixed penalty. Pure;
// the reconstruction itself is scored in nla/fidelity.ts.
import { NlaError } from "../error.js";

/** `-mse`: minus the squared error of directions. `-log-mse`: minus its natural logarithm. */
export type RewardKind = "-mse" | "-log-mse";

/** How a rollout ended: `stop` by its end token, `length` by the cap, `abort` from outside. */
export type FinishReason = "stop" | "length" | "abort";

// Errors below this count as this: the logarithm of an exact reconstruction is infinite.
const SMALLEST_MSE = 1e-8;

/**
 * What a failed explanation gets: as much as one whose reconstruction is orthogonal (mse 2), so that neither writing
 * nothing nor running into the cap is ever the better choice by design.
 */
export const FAILURE_REWARD: Readonly<Record<RewardKind, number>> = { "-mse": -2, "-log-mse": -Math.LN2 };

/** One finished rollout. */
export interface ScoredRollout {
  readonly finish: FinishReason;
  /** The extracted explanation, or null where there was none. An empty text is an explanation. */
  readonly explanation: string | null;
  /** mse of the reconstruction from it; null only where there is nothing to reconstruct from. */
  readonly mse: number | null;
}

/** Options of {@link rewardOf}. */
export interface RewardOptions {
  /** Defaults to `-mse`. */
  readonly kind?: RewardKind;
  /** Reward of a failure. Defaults to {@link FAILURE_REWARD} of the kind. */
  readonly failureReward?: number;
}

/**
 * True if the rollout gets the penalty: it did not end by itself, or holds no explanation. A truncated response fails
 * also where its explanation is complete; without that the length drifts to the cap.
 */
export function isFailed({ finish, explanation }: Pick<ScoredRollout, "finish" | "explanation">): boolean {
  return finish !== "stop" || explanation === null;
}

/** The reward of an mse: `-mse` or `-log(max(mse, 1e-8))`. Throws NlaError `reward.mse` unless it is finite and >= 0. */
export function rewardOfMse(mse: number, kind: RewardKind = "-mse"): number {
  if (!(Number.isFinite(mse) && mse >= 0)) {
    throw new NlaError({
      code: "reward.mse",
      subject: "reconstruction error",
      found: String(mse),
      wanted: "a finite number, 0 or more",
      next: "Stop and inspect the sample: a reward made of it would train as a bad explanation.",
    });
  }
  return kind === "-mse" ? -mse : -Math.log(Math.max(mse, SMALLEST_MSE));
}

/**
 * The reward of a rollout.
 *
 * @throws NlaError `reward.unscored` if a rollout that did not fail has no mse, `reward.mse` as {@link rewardOfMse}
 */
export function rewardOf(
  rollout: ScoredRollout,
  { kind = "-mse", failureReward = FAILURE_REWARD[kind] }: RewardOptions = {},
): number {
  if (isFailed(rollout)) return failureReward;
  if (rollout.mse === null) {
    throw new NlaError({
      code: "reward.unscored",
      subject: "finished explanation",
      found: "no reconstruction error",
      wanted: "one from the live reconstructor",
      next: "Score every rollout for which isFailed is false, empty explanations included.",
    });
  }
  return rewardOfMse(rollout.mse, kind);
}
