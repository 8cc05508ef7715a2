// Group-relative advantages of GRPO: how much better an explanation is than its siblings of the same activation. Pure;
// not the reward (train/reward.ts) and not the loss (train/policy-math.ts).
//
//   advantage_i = (r_i - mean(group)) / (std(group) + 1e-6),  std with n - 1 in the denominator, in float32
import { NlaError } from "../error.js";

const EPSILON = 1e-6;

/** Options of {@link groupAdvantages}. */
export interface AdvantageOptions {
  /** Explanations per activation. */
  readonly groupSize: number;
  /** Divide by the group's standard deviation. Defaults to true. */
  readonly divideByStd?: boolean;
  /** Leave out groups whose rewards are all equal: they teach nothing and dilute the batch mean. Defaults to false. */
  readonly dropZeroVariance?: boolean;
}

/** One activation's group. */
export interface RewardGroup {
  readonly mean: number;
  /** Standard deviation with n - 1. */
  readonly std: number;
  /** False if it was left out by `dropZeroVariance`. */
  readonly kept: boolean;
}

/**
 * Advantages of a rollout batch, groups contiguous.
 *
 * @param rewards [groups * groupSize]
 * @returns advantages [groups * groupSize] (0 in groups left out) and what was seen of each group
 * @throws NlaError `advantage.count` if the rewards do not divide into groups, `advantage.group-size` for groups of one
 *   (no spread to divide by), `advantage.reward` for a reward that is not finite. The Python stack answers these with
 *   one group over the whole batch and with NaN.
 */
export function groupAdvantages(
  rewards: ArrayLike<number>,
  { groupSize, divideByStd = true, dropZeroVariance = false }: AdvantageOptions,
): { advantages: Float32Array; groups: RewardGroup[] } {
  if (!Number.isSafeInteger(groupSize) || groupSize < 2) {
    throw new NlaError({
      code: "advantage.group-size",
      subject: "advantages",
      found: `groups of ${groupSize}`,
      wanted: "at least 2 explanations per activation",
      next: "Set the number of samples per prompt to 2 or more (8 is usual).",
    });
  }
  if (rewards.length === 0 || rewards.length % groupSize !== 0) {
    throw new NlaError({
      code: "advantage.count",
      subject: "advantages",
      found: `${rewards.length} rewards`,
      wanted: `a positive multiple of the group size ${groupSize}`,
      next: "Give every sample of every group a reward, failed ones their penalty.",
    });
  }
  const advantages = new Float32Array(rewards.length);
  const groups: RewardGroup[] = [];
  for (let start = 0; start < rewards.length; start += groupSize) {
    const group = Float32Array.from({ length: groupSize }, (_, i) =>
      finiteReward(rewards[start + i]!, start + i),
    );
    // All equal is decided on the rewards themselves: a rounded mean gives equal rewards a tiny spread.
    const allEqual = group.every((reward) => reward === group[0]);
    const mean = allEqual ? group[0]! : Math.fround(sumOf(group) / groupSize);
    const centred = group.map((reward) => reward - mean);
    // Around the mean of the centred rewards, which rounding leaves a little off 0; it matters in nearly equal groups.
    const rest = Math.fround(sumOf(centred) / groupSize);
    const std = Math.fround(Math.sqrt(sumOf(centred.map((c) => (c - rest) ** 2)) / (groupSize - 1)));
    const kept = !(dropZeroVariance && allEqual);
    groups.push({ mean, std, kept });
    if (kept) advantages.set(divideByStd ? centred.map((c) => c / (std + EPSILON)) : centred, start);
  }
  return { advantages, groups };
}

/** The advantage of every response token: that of its sample, repeated. [samples][responseLength] */
export function perTokenAdvantages(
  advantages: ArrayLike<number>,
  responseLengths: readonly number[],
): Float32Array[] {
  if (advantages.length !== responseLengths.length) {
    throw new NlaError({
      code: "advantage.count",
      subject: "advantages per token",
      found: `${advantages.length} advantages for ${responseLengths.length} responses`,
      wanted: "one per response",
      next: "Pass both lists in the order of the rollout.",
    });
  }
  return responseLengths.map((length, i) => new Float32Array(length).fill(advantages[i]!));
}

function sumOf(values: Float32Array): number {
  return values.reduce((sum, value) => sum + value, 0);
}

function finiteReward(reward: number, index: number): number {
  if (Number.isFinite(reward)) return reward;
  throw new NlaError({
    code: "advantage.reward",
    subject: `reward of sample ${index}`,
    found: String(reward),
    wanted: "a finite number",
    next: "One such reward would make its whole group NaN: find the reconstruction that produced it.",
  });
}
