// Rewards of pairs and of whole rollouts against the reference, and refusals.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { sharedPath } from "../../test/shared.js";
import { extractExplanation } from "../nla/explanation.js";
import { reconstructionScores } from "../nla/fidelity.js";
import {
  FAILURE_REWARD,
  isFailed,
  rewardOf,
  rewardOfMse,
  type FinishReason,
  type RewardKind,
} from "./reward.js";

const file = sharedPath("golden/nla/train/reward.json");
const critic = sharedPath("golden/nla/critic/qwen2/expect.json");

interface Kind {
  failed_extraction: number;
  pairs: { prediction: number[]; gold: number[]; reward: number }[];
  rollouts: { response: string; status: string; original_of_critic_row: number; reward: number }[];
}
const FINISH: Record<string, FinishReason> = {
  completed: "stop",
  truncated: "length",
  failed: "abort",
  aborted: "abort",
};

describe.skipIf(file === null || critic === null).each([
  ["minus_mse", "-mse"],
  ["minus_log_mse", "-log-mse"],
] as [string, RewardKind][])("rewards equal the reference's: %s", (key, kind) => {
  const golden = (JSON.parse(readFileSync(file as string, "utf8")) as Record<string, Kind>)[key]!;

  it("of a failure", () => expect(FAILURE_REWARD[kind]).toBe(golden.failed_extraction));

  it("of pairs", () => {
    expect(golden.pairs.length).toBe(7);
    for (const { prediction, gold, reward } of golden.pairs) {
      const { mse } = reconstructionScores(Float32Array.from(prediction), Float32Array.from(gold));
      // The logarithm multiplies float32's error in the mse by 1 / mse; these pairs have mse >= 0.2, or 2e-9 (clamped).
      expect(Math.abs(rewardOfMse(mse, kind) - reward)).toBeLessThanOrEqual(
        1e-5 * Math.max(1, Math.abs(reward)),
      );
    }
  });

  it("of rollouts", () => {
    expect(golden.rollouts.length).toBe(9);
    for (const { response, status, reward } of golden.rollouts) {
      const rollout = { finish: FINISH[status]!, explanation: extractExplanation(response) };
      // What the reconstructor gave is in the reward itself; here it is undone and put through our rule.
      const mse = isFailed(rollout) ? null : kind === "-mse" ? -reward : Math.exp(-reward);
      const penalised = reward === golden.failed_extraction;
      expect(isFailed(rollout), response).toBe(penalised);
      expect(rewardOf({ ...rollout, mse }, { kind })).toBeCloseTo(reward, 12);
    }
  });
});

describe("rewards", () => {
  it("penalise truncation also where the explanation is complete", () => {
    expect(rewardOf({ finish: "length", explanation: "done", mse: 0.1 })).toBe(-2);
  });

  it("score an empty explanation", () => {
    expect(rewardOf({ finish: "stop", explanation: "", mse: 0.5 })).toBe(-0.5);
  });

  it("take another penalty", () => {
    expect(rewardOf({ finish: "stop", explanation: null, mse: null }, { failureReward: -5 })).toBe(-5);
  });

  it("stop at an mse that is no error and at one that is missing", () => {
    for (const mse of [NaN, Infinity, -0.1])
      expect(() => rewardOfMse(mse)).toThrow(/finite number, 0 or more/);
    expect(() => rewardOf({ finish: "stop", explanation: "x", mse: null })).toThrow(
      /no reconstruction error/,
    );
  });

  it("do not go to infinity for an exact reconstruction", () => {
    expect(rewardOfMse(0, "-log-mse")).toBeCloseTo(18.420680743952367, 12);
  });
});
