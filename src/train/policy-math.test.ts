// KL estimators, clipping and the whole policy loss against the reference, in float64.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import {
  clippedLoss,
  crossEntropyLoss,
  klEstimate,
  policyLoss,
  tokenStatistics,
  type KlEstimator,
  type PolicySample,
} from "./policy-math.js";

const file = sharedPath("golden/nla/train/policy_loss.json");

interface Golden {
  kl: { log_probs: number[]; reference_log_probs: number[] } & Record<KlEstimator, number[]>;
  ratios: {
    log_ratio: number[];
    advantage: number;
    eps: number;
    eps_high: number;
    loss: number[];
    clipped: number[];
  }[];
  full: {
    token_ids: number[][];
    response_lengths: number[];
    loss_masks: number[][];
    advantages: number[][];
    old_log_probs: number[][];
    reference_log_probs: number[][];
    global_batch_size: number;
    logits: { shape: number[]; b64: string };
    cases: {
      case: string;
      settings: {
        use_kl_loss?: boolean;
        kl_loss_type?: KlEstimator;
        kl_loss_coef?: number;
        rollout_temperature?: number;
        calculate_per_token_loss?: boolean;
        loss_type?: string;
      };
      loss: number;
      log: Record<string, number>;
    }[];
  };
}

describeWith(file, "policy loss equals the reference's", () => {
  const golden = JSON.parse(readFileSync(file as string, "utf8")) as Golden;

  it.each(["k1", "k2", "k3"] as const)("KL %s", (estimator) => {
    const { log_probs, reference_log_probs } = golden.kl;
    for (const [i, logProb] of log_probs.entries()) {
      near(klEstimate(logProb, reference_log_probs[i]!, estimator), golden.kl[estimator][i]!);
    }
  });

  it("clipping", () => {
    expect(golden.ratios.length).toBe(6);
    for (const { log_ratio, advantage, eps, eps_high, loss, clipped } of golden.ratios) {
      for (const [i, logRatio] of log_ratio.entries()) {
        const one = clippedLoss(logRatio, advantage, { epsClip: eps, epsClipHigh: eps_high });
        near(one.loss, loss[i]!);
        expect(Number(one.clipped)).toBe(clipped[i]);
      }
    }
  });

  it.each(golden.full.cases.map((c) => [c.case, c] as const))(
    "whole loss: %s",
    (_, { settings, loss, log }) => {
      const { full } = golden;
      const samples = samplesOf(full, settings.rollout_temperature ?? 1);
      const perToken = settings.calculate_per_token_loss ?? false;
      // The reference logs sums over samples, or over tokens, and divides elsewhere.
      const count = perToken ? full.loss_masks.flat().reduce((a, b) => a + b, 0) : full.global_batch_size;
      const average = perToken ? "token" : "sample";
      if (settings.loss_type === "sft_loss") return near(crossEntropyLoss(samples, { average }), loss);
      const useKl = settings.use_kl_loss ?? true;
      const value = policyLoss(samples, {
        average,
        globalBatchSize: full.global_batch_size,
        klLossType: settings.kl_loss_type ?? "k1",
        klLossCoef: useKl ? (settings.kl_loss_coef ?? 0.01) : 0,
      });
      near(value.loss * (perToken ? count : 1), loss);
      near(value.loss * count, log.loss!);
      near(value.metrics.policyLoss * count, log.pg_loss!);
      near(value.metrics.entropy * count, log.entropy_loss!);
      near(value.metrics.clipFraction * count, log.pg_clipfrac!);
      near(value.metrics.driftKl * count, log.ppo_kl!);
      if (useKl) near(value.metrics.klLoss * count, log.kl_loss!);
    },
  );
});

describe("policy loss", () => {
  const sample: PolicySample = {
    logProbs: [-1, -2],
    oldLogProbs: [-1, -2],
    advantages: [1, 1],
    lossMask: [1, 1],
  };

  it("subtracts the entropy bonus", () => {
    const { loss } = policyLoss([{ ...sample, entropies: [2, 4] }], { entropyCoef: 0.1 });
    expect(loss).toBeCloseTo(-1 - 0.1 * 3, 12);
  });

  it("weights a short sample like a long one, unless averaged by token", () => {
    const short: PolicySample = { logProbs: [-1], oldLogProbs: [-1], advantages: [-2], lossMask: [1] };
    expect(policyLoss([sample, short]).loss).toBeCloseTo(0.5, 12);
    expect(policyLoss([sample, short], { average: "token" }).loss).toBeCloseTo(0, 12);
  });

  it("halves add up to the whole batch", () => {
    const other: PolicySample = { ...sample, advantages: [-3, 2], logProbs: [-0.5, -2.5] };
    const parts = [sample, other].map((s) => policyLoss([s], { globalBatchSize: 2 }).loss);
    expect(parts[0]! + parts[1]!).toBeCloseTo(policyLoss([sample, other]).loss, 12);
  });

  it("refuses lists that do not fit, naming them", () => {
    expect(() => policyLoss([{ ...sample, advantages: [1] }])).toThrow(
      /advantages of sample 0: found 1 values; wanted 2/,
    );
    expect(() => policyLoss([{ ...sample, lossMask: [0, 0] }])).toThrow(/no trained token/);
    expect(() => policyLoss([sample], { klLossCoef: 0.1 })).toThrow(/referenceLogProbs: found none/);
    expect(() => policyLoss([sample], { entropyCoef: 0.1 })).toThrow(/entropies: found none/);
    expect(() => policyLoss([])).toThrow(/0 samples/);
    expect(() => policyLoss([sample], { globalBatchSize: 0 })).toThrow(/globalBatchSize/);
  });

  it("survives logits of any size and refuses ids outside them", () => {
    expect(tokenStatistics([1e4, 0, -1e4], 0)).toEqual({ logProb: 0, entropy: 0 });
    expect(tokenStatistics([0, 0], 1).entropy).toBeCloseTo(Math.LN2, 12);
    expect(() => tokenStatistics([0, 0], 2)).toThrow(/token id: found 2/);
    expect(() => tokenStatistics([0, 0], 0, { temperature: 0 })).toThrow(/temperature/);
  });
});

// The sequences stand one after another in the logits; the row before a token predicts it.
function samplesOf(full: Golden["full"], temperature: number): PolicySample[] {
  const bytes = Buffer.from(full.logits.b64, "base64");
  const vocab = full.logits.shape[2]!;
  const logits = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  let start = 0;
  return full.token_ids.map((ids, i) => {
    const length = full.response_lengths[i]!;
    const statistics = ids.slice(-length).map((id, t) => {
      const row = start + ids.length - length + t - 1;
      return tokenStatistics(logits.subarray(row * vocab, (row + 1) * vocab), id, { temperature });
    });
    start += ids.length;
    return {
      logProbs: statistics.map(({ logProb }) => logProb),
      entropies: statistics.map(({ entropy }) => entropy),
      oldLogProbs: full.old_log_probs[i]!,
      referenceLogProbs: full.reference_log_probs[i]!,
      advantages: full.advantages[i]!,
      lossMask: full.loss_masks[i]!,
    };
  });
}

function near(found: number, wanted: number): void {
  expect(Math.abs(found - wanted), `${found} against ${wanted}`).toBeLessThanOrEqual(
    1e-5 * Math.max(Math.abs(wanted), 0.1),
  );
}
