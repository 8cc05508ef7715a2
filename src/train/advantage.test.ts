// Group advantages against the reference where it is sound, and refusals where it is a trap.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { groupAdvantages, perTokenAdvantages } from "./advantage.js";

const file = sharedPath("golden/nla/train/grpo.json");

interface Golden {
  rows: {
    case: string;
    rewards: (number | "NaN")[];
    n_samples_per_prompt: number;
    divide_by_std: boolean;
    advantages: (number | "NaN")[];
  }[];
  per_token: { advantages: number[]; response_lengths: number[]; returns: number[][] };
}

// The reference's answers to these are NaN or one group over the whole batch.
const TRAPS: Record<string, RegExp> = {
  "groups of one": /groups of 1; wanted at least 2/,
  "seven rewards where eight were expected": /7 rewards; wanted a positive multiple of the group size 4/,
  "a NaN reward": /reward of sample 1: found NaN/,
};

describeWith(file, "advantages equal the reference's", () => {
  const golden = JSON.parse(readFileSync(file as string, "utf8")) as Golden;

  it("covers all cases", () => {
    expect(golden.rows.length).toBe(18);
    expect(Object.keys(TRAPS).every((name) => golden.rows.some((row) => row.case === name))).toBe(true);
  });

  it.each(golden.rows.map((row) => [`${row.case}, ${row.divide_by_std}`, row] as const))("%s", (_, row) => {
    const compute = () =>
      groupAdvantages(row.rewards.map(Number), {
        groupSize: row.n_samples_per_prompt,
        divideByStd: row.divide_by_std,
      });
    const trap = TRAPS[row.case];
    if (trap) return expect(compute).toThrow(trap);
    const { advantages } = compute();
    for (const [i, wanted] of row.advantages.entries()) {
      expect(Math.abs(advantages[i]! - Number(wanted))).toBeLessThanOrEqual(
        1e-5 * Math.max(1, Math.abs(Number(wanted))),
      );
    }
  });

  it("per token", () => {
    const { advantages, response_lengths, returns } = golden.per_token;
    expect(perTokenAdvantages(advantages, response_lengths)).toEqual(
      returns.map((row) => Float32Array.from(row)),
    );
  });
});

describe("advantages", () => {
  it("leave out groups without variance on request, and say which", () => {
    const rewards = [-0.3, -0.3, -0.3, -1, -2, -3];
    const { advantages, groups } = groupAdvantages(rewards, { groupSize: 3, dropZeroVariance: true });
    expect(groups.map(({ kept }) => kept)).toEqual([false, true]);
    expect(advantages.slice(0, 3)).toEqual(new Float32Array(3));
    expect(advantages[3]).toBeGreaterThan(0.99);
    expect(groupAdvantages(rewards, { groupSize: 3 }).groups[0]!.kept).toBe(true);
  });

  it("give equal rewards exactly 0, whatever their rounding", () => {
    for (const reward of [-0.1, -0.3, -1.7, 1e-3]) {
      expect([
        ...groupAdvantages(
          Array.from({ length: 7 }, () => reward),
          { groupSize: 7 },
        ).advantages,
      ]).toEqual(Array.from({ length: 7 }, () => 0));
    }
  });

  it("refuse an empty batch and unequal lists", () => {
    expect(() => groupAdvantages([], { groupSize: 4 })).toThrow(/0 rewards/);
    expect(() => groupAdvantages([1, 2], { groupSize: NaN })).toThrow(/groups of NaN/);
    expect(() => groupAdvantages([1, Infinity], { groupSize: 2 })).toThrow(/sample 1: found Infinity/);
    expect(() => perTokenAdvantages([1], [3, 2])).toThrow(/1 advantages for 2 responses/);
  });
});
