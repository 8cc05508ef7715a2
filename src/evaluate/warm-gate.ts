// The gate of a warm start: whether its greedy claims of test or real are right where the cue is far, before reinforcement learning is
// worth its time. A warm start that is at chance there was stopped too early; RL sharpens what is read and finds nothing new.
import type { ClaimScores, DistanceScore } from "./claims.js";

/** What is asked for: the share of right claims of that category at that many tokens from the cue and more. */
export const WARM_GATE = { category: "test", from: 36, least: 0.95 } as const;

/** What was found, and whether it is enough. */
export interface WarmGateResult extends Pick<DistanceScore, "claims" | "precision"> {
  readonly passed: boolean;
}

/** Holds a warm start's scores against the gate; null where it makes no such claim at that distance. */
export function judgeWarmStart(scores: ClaimScores | null): WarmGateResult | null {
  const { category, from, least } = WARM_GATE;
  const found = scores?.byDistance.find((each) => each.category === category && each.from === from);
  if (!found) return null;
  const { claims, precision } = found;
  return { claims, precision, passed: precision.value >= least };
}
