// Rollouts and what the verbalizer learns from them, one update at a time and on fixed samples, so that what must hold follows
// from calculus and not from luck. The loop around it is in grpo.test.ts.
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Explanation } from "../nla/verbalizer.js";
import { reconstructionScores } from "../nla/fidelity.js";
import { adamw } from "../tensor/index.js";
import { groupAdvantages, perTokenAdvantages } from "./advantage.js";
import { judgeOf } from "./judge.js";
import { policySamples, updatePolicy } from "./policy-update.js";
import type { KeptRollout } from "./policy-update.js";
import { rewardOptions, rolloutNumbers, rollOut, scoreExplanations } from "./rollout.js";
import type { Rollout } from "./rollout.js";
import { openTinyTraining, readPair, tinyConfig, writeWarmPair } from "./testing/tiny-training.js";
import type { TinyPair, TinyTraining } from "./testing/tiny-training.js";
import { logProbGraphs, policyTrainer } from "./verbalizer-step.js";

let tiny: TinyTraining;
let folder: string;
let warm: TinyPair; // never trained here
let kept: KeptRollout[];
let rollouts: Rollout[];
const settings = tinyConfig({ rl: { group: 4, max_new_tokens: 12 } }).rl;
const vectorsOf = (count: number) => tiny.rows.slice(0, count).map(({ vector }) => vector);

beforeAll(async () => {
  tiny = await openTinyTraining(4);
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-policy-"));
  await writeWarmPair(tiny, folder, { rows: tiny.rows.slice(0, 8), steps: 15 });
  warm = await readPair(tiny, folder);
  ({ rollouts } = await rollOut(warm.verbalizer, judgeOf([warm.reconstructor]), vectorsOf(8), settings, {
    seed: 7,
  }));
  const { advantages } = groupAdvantages(
    rollouts.map(({ reward }) => reward),
    { groupSize: 4 },
  );
  kept = rollouts.map((rollout, i) => ({
    rollout,
    advantages: perTokenAdvantages([advantages[i]!], [rollout.explanation.tokens.length])[0]!,
  }));
});
afterAll(async () => {
  warm[Symbol.dispose]();
  tiny[Symbol.dispose]();
  await rm(folder, { recursive: true });
});

function tokensOf(found: readonly Rollout[]): (readonly number[])[] {
  return found.map(({ explanation }) => explanation.tokens);
}

function explained(text: string | null, finish: "stop" | "length" = "stop"): Explanation {
  const numbers = { tokens: [5, 2], logProbs: [-1, -1], entropies: [1, 2] };
  return { text, finish, vector: 0, response: text ?? "", ...numbers };
}

function rolledOut(mse: number | null, reward: number): Rollout {
  const vector = tiny.rows[0]!.vector;
  return { explanation: explained(mse === null ? null : "x"), vector, failed: mse === null, mse, reward };
}

describe("rollOut", () => {
  it("gives the groups one after another, each sample of its own seed", async () => {
    expect(rollouts.map(({ explanation }) => explanation.vector)).toEqual(
      Array.from({ length: 32 }, (_, i) => Math.floor(i / 4)),
    );
    rollouts.forEach(({ vector, explanation }) => expect(vector).toBe(vectorsOf(8)[explanation.vector]));
    const again = await rollOut(warm.verbalizer, judgeOf([warm.reconstructor]), vectorsOf(8), settings, {
      seed: 7,
    });
    expect(tokensOf(again.rollouts)).toEqual(tokensOf(rollouts));
    const other = await rollOut(warm.verbalizer, judgeOf([warm.reconstructor]), vectorsOf(8), settings, {
      seed: 1_000_010,
    });
    expect(tokensOf(other.rollouts)).not.toEqual(tokensOf(rollouts));
    expect(new Set(tokensOf(rollouts).map(String)).size).toBeGreaterThan(8);
  });

  it("rewards with minus the error of the reconstruction", async () => {
    const good = rollouts.filter(({ failed }) => !failed);
    expect(good.length).toBeGreaterThan(16);
    const rebuilt = await warm.reconstructor.reconstruct(
      good.map(({ explanation }) => explanation.text as string),
    );
    good.forEach(({ mse, reward, vector }, i) => {
      expect(mse).toBeCloseTo(reconstructionScores(rebuilt[i]!, vector).mse, 5);
      expect(reward).toBe(-mse!);
    });
  });
});

describe("scoreExplanations", () => {
  it("gives the penalty to what was cut off, is missing, or does not fit the reconstructor", async () => {
    const long = "the sea ".repeat(100);
    expect(warm.reconstructor.accepts(long)).toBe(false);
    const given = [
      explained("the king"),
      explained("the king", "length"),
      explained(null),
      explained(long),
      explained(""),
    ];
    const found = await scoreExplanations(judgeOf([warm.reconstructor]), given, vectorsOf(1), {
      reward: "mse",
      failed_penalty: -3,
    });
    expect(found.map(({ failed }) => failed)).toEqual([false, true, true, true, false]);
    expect(found.map(({ reward }) => reward === -3)).toEqual([false, true, true, true, false]);
    expect(found.map(({ mse }) => mse === null)).toEqual([false, true, true, true, false]);
  });

  it("gives the penalty to more sentences than may be, counting stops that stand alone", async () => {
    const given = [explained("a . b ."), explained("a . b . c ."), explained("a.b.c.d.")];
    const found = await scoreExplanations(judgeOf([warm.reconstructor]), given, vectorsOf(1), {
      ...settings,
      max_sentences: 2,
    });
    expect(found.map(({ failed }) => failed)).toEqual([false, true, false]);
  });

  it("takes the logarithm where it is asked to", async () => {
    const given = [explained("the king"), explained(null)];
    const [plain] = await scoreExplanations(judgeOf([warm.reconstructor]), given, vectorsOf(1), settings);
    const [log, failed] = await scoreExplanations(judgeOf([warm.reconstructor]), given, vectorsOf(1), {
      reward: "log_mse",
      failed_penalty: -0.7,
    });
    expect(log!.mse).toBe(plain!.mse);
    expect(log!.reward).toBeCloseTo(-Math.log(plain!.mse!), 12);
    expect(failed!.reward).toBe(-0.7);
    expect(rewardOptions({ reward: "log_mse", failed_penalty: -0.7 })).toEqual({
      kind: "-log-mse",
      failureReward: -0.7,
    });
  });

  it("sums up a step, a failed explanation as nothing explained", () => {
    const numbers = rolloutNumbers([rolledOut(0.25, -0.25), rolledOut(null, -2)], 0.5);
    expect(numbers).toEqual({
      reward_mean: -1.125,
      reward_std: 0.875,
      fve: 0.25,
      variance: 0.5,
      entropy: 1.5,
      length: 2,
      failed: 0.5,
      truncated: 0,
    });
  });
});

/** A fresh copy of the warm verbalizer, updated on the samples of all tests. */
async function updated(
  keys: {
    klCoef?: number;
    clipRange?: number;
    learningRate?: number;
    updates?: number;
    compute?: "f32" | "bf16";
    rounds?: number;
    microBatch?: number;
  } = {},
) {
  const {
    klCoef = 0,
    clipRange = 0.2,
    learningRate = 1e-3,
    updates = 1,
    compute = "f32",
    rounds = 1,
    microBatch = 8,
  } = keys;
  using pair = await readPair(tiny, folder);
  using reference = logProbGraphs(warm.verbalizer, compute);
  const samples = await policySamples(kept, warm.verbalizer, reference, microBatch);
  using trainer = policyTrainer(pair.verbalizer, adamw(), compute, { clipRange, klCoef });
  const options = { learningRate, microBatch, updates, clipRange };
  const reports = [];
  for (let i = 0; i < rounds; i++)
    reports.push(await updatePolicy(trainer, pair.verbalizer, samples, options));
  // What the policy is now, without another step.
  using graphs = logProbGraphs(pair.verbalizer, compute);
  const now = await policySamples(kept, pair.verbalizer, graphs, microBatch);
  const moved = now.map(({ advantages, oldLogProbs, referenceLogProbs }) => {
    const change = referenceLogProbs.reduce((sum, value, i) => sum + value - oldLogProbs[i]!, 0);
    return { advantage: advantages[0]!, change: change / oldLogProbs.length };
  });
  return { reports, samples, moved };
}

describe("policySamples", () => {
  it("gives each sample its own reference: on the policy that sampled, what generation said", async () => {
    const { samples } = await updated();
    expect(samples.length).toBe(kept.length);
    const total = samples.reduce((sum, { weight }) => sum + weight, 0);
    expect(total).toBeCloseTo(1, 12);
    for (const { oldLogProbs, referenceLogProbs, response } of samples) {
      expect(referenceLogProbs.length).toBe(response.length);
      oldLogProbs.forEach((old, i) => expect(Math.abs(old - referenceLogProbs[i]!)).toBeLessThan(1e-4));
    }
  });
});

describe("updatePolicy", () => {
  it.each(["f32", "bf16"] as const)(
    "starts on the policy: no KL and nothing clipped (%s)",
    async (compute) => {
      const { reports } = await updated({ compute, klCoef: 0.01 });
      expect(Math.abs(reports[0]!.kl)).toBeLessThan(1e-9);
      expect(reports[0]!.clipFraction).toBe(0);
      expect(reports[0]!.gradientNorm).toBeGreaterThan(0.01);
    },
  );

  it("makes the better samples of a group likelier and the worse ones less likely", async () => {
    // The gradient of the loss on the policy is -Σ w A ∇ log p, and AdamW's first step goes down each coordinate of it: for a
    // small step Σ w A Δ log p is positive whatever the samples.
    const { moved, reports } = await updated({ learningRate: 1e-4 });
    const along = moved.reduce((sum, { advantage, change }) => sum + (advantage * change) / moved.length, 0);
    expect(along).toBeGreaterThan(1e-3);
    expect(Math.abs(reports[0]!.loss)).toBeLessThan(1e-3); // -Σ w A, and advantages of a group add up to 0
    const mean = (of: typeof moved) => of.reduce((sum, { change }) => sum + change, 0) / of.length;
    expect(mean(moved.filter(({ advantage }) => advantage > 0))).toBeGreaterThan(
      mean(moved.filter(({ advantage }) => advantage < 0)) + 1e-3,
    );
  });

  it("is the same whatever the micro-batches", async () => {
    const [whole, parts] = [await updated({ microBatch: 32 }), await updated({ microBatch: 5 })];
    expect(parts.reports[0]!.gradientNorm / whole.reports[0]!.gradientNorm - 1).toBeCloseTo(0, 5);
    expect(parts.reports[0]!.loss).toBeCloseTo(whole.reports[0]!.loss, 5);
  });

  it("clips from the second update on the same samples: the policy goes less far than without", async () => {
    const options = { learningRate: 3e-4, updates: 8 };
    const [narrow, wide] = [
      await updated({ ...options, clipRange: 0.05 }),
      await updated({ ...options, clipRange: 1 }),
    ];
    expect(narrow.reports[0]!.clipFraction).toBeGreaterThan(0.1);
    expect(narrow.reports[0]!.clipFraction).toBeGreaterThan(wide.reports[0]!.clipFraction);
    const distance = ({ moved }: typeof narrow) => {
      return moved.reduce((sum, { change }) => sum + Math.abs(change) / moved.length, 0);
    };
    expect(distance(narrow)).toBeLessThan(0.8 * distance(wide));
    // The KL that is reported is the one before the first of them.
    expect(Math.abs(narrow.reports[0]!.kl)).toBeLessThan(1e-9);
  });

  it("stays closer to the frozen verbalizer with a KL coefficient than without", async () => {
    const options = { learningRate: 2e-4, rounds: 8, clipRange: 1 };
    const [free, held] = [await updated(options), await updated({ ...options, klCoef: 5 })];
    const last = ({ reports }: typeof free) => reports.at(-1)!.kl;
    expect(last(free)).toBeGreaterThan(0.02);
    expect(last(held)).toBeLessThan(0.5 * last(free));
    expect(free.reports.map(({ kl }) => kl >= 0)).toEqual(free.reports.map(() => true));
  });
});
