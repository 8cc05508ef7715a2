// Learning rates at their turning points, and refusals.
import { describe, expect, it } from "vitest";
import { learningRateAt, stageRate, type Schedule } from "./schedule.js";

describe("learning rate", () => {
  it("rises linearly from the first update on, then stays", () => {
    const schedule: Schedule = { peak: 8, warmupSteps: 4 };
    expect([0, 1, 2, 3, 4, 500].map((step) => learningRateAt(step, schedule))).toEqual([2, 4, 6, 8, 8, 8]);
  });

  it("is constant by default", () => expect(learningRateAt(0, { peak: 3 })).toBe(3));

  it("falls linearly to the floor and stays there", () => {
    const schedule: Schedule = { shape: "linear", peak: 10, floor: 2, totalSteps: 8 };
    expect([0, 4, 8, 100].map((step) => learningRateAt(step, schedule))).toEqual([10, 6, 2, 2]);
  });

  it("falls by a cosine after the warm-up", () => {
    const schedule: Schedule = { shape: "cosine", peak: 1, floor: 0.1, warmupSteps: 2, totalSteps: 12 };
    expect(learningRateAt(2, schedule)).toBe(1);
    expect(learningRateAt(7, schedule)).toBeCloseTo(0.55, 12);
    expect(learningRateAt(4, schedule)).toBeCloseTo(0.1 + 0.45 * (1 + Math.cos(Math.PI / 5)), 12);
    expect(learningRateAt(12, schedule)).toBeCloseTo(0.1, 12);
    expect(learningRateAt(13, schedule)).toBeCloseTo(0.1, 12);
  });

  it("refuses what has no meaning", () => {
    expect(() => learningRateAt(-1, { peak: 1 })).toThrow(/step: found -1/);
    expect(() => learningRateAt(0.5, { peak: 1 })).toThrow(/step/);
    expect(() => learningRateAt(0, { peak: NaN })).toThrow(/peak: found NaN/);
    expect(() => learningRateAt(0, { peak: 1, floor: 2 })).toThrow(/floor: found 2/);
    expect(() => learningRateAt(0, { peak: 1, warmupSteps: -3 })).toThrow(/warmupSteps/);
    expect(() => learningRateAt(9, { shape: "cosine", peak: 1 })).toThrow(/totalSteps: found Infinity/);
    expect(() => learningRateAt(9, { shape: "linear", peak: 1, warmupSteps: 5, totalSteps: 5 })).toThrow(
      /totalSteps: found 5/,
    );
  });
});

function rates(steps: number, warmup: number): number[] {
  const stage = { schedule: "linear", warmup, steps } as const;
  return Array.from({ length: steps }, (_, step) => stageRate(step, stage, 8));
}

describe("stageRate", () => {
  it("rises over the warm-up and falls to the stage's end", () => {
    expect(rates(6, 2)).toEqual([4, 8, 8, 6, 4, 2]);
  });

  it("reaches its peak also in a stage shorter than the warm-up", () => {
    expect(rates(3, 20)).toEqual([4, 8, 8]);
    expect(rates(1, 20)).toEqual([8]);
  });
});
