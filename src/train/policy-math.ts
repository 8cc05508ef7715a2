// The policy loss of GRPO in plain float64: what the graph version must equal, and the place where its formulas stand.
// Values only, no gradients, no tensors; slow on purpose.
//
// With r = exp(new - old) per response token, A the advantage, e and e' the clip widths:
//   policy   = max(-A r, -A clip(r, 1 - e, 1 + e'))
//   kl       = k1, k2 or k3 of new against the frozen reference
//   loss     = policy + klLossCoef * kl - entropyCoef * entropy
// averaged over the tokens of a sample and then over samples ("sample"), or over all tokens at once ("token").
import { NlaError } from "../error.js";

/**
 * Estimators of KL(new || reference) from one sampled token, with l = log new - log reference: k1 = l (unbiased, but as
 * a loss its gradient is zero in expectation), k2 = l^2 / 2, k3 = exp(-l) - 1 + l (never negative).
 */
export type KlEstimator = "k1" | "k2" | "k3";

/** One sample's response tokens; all lists have the response's length. */
export interface PolicySample {
  /** log-probabilities under the policy being trained. */
  readonly logProbs: readonly number[];
  /** Those at sampling time. */
  readonly oldLogProbs: readonly number[];
  readonly advantages: readonly number[];
  /** 1 for a trained token, 0 for one left out. */
  readonly lossMask: readonly number[];
  /** Those under the frozen warm-started verbalizer; needed if `klLossCoef` is not 0. */
  readonly referenceLogProbs?: readonly number[];
  /** Entropy of the policy at each token; needed if `entropyCoef` is not 0. */
  readonly entropies?: readonly number[];
}

/** Options of {@link policyLoss}. */
export interface PolicyLossOptions {
  /** Clip width below 1. Defaults to 0.2. */
  readonly epsClip?: number;
  /** Clip width above 1. Defaults to `epsClip`. */
  readonly epsClipHigh?: number;
  /** Defaults to `k3`. */
  readonly klLossType?: KlEstimator;
  /** Defaults to 0: no KL term. */
  readonly klLossCoef?: number;
  /** Defaults to 0: no entropy term. */
  readonly entropyCoef?: number;
  /** `sample`: mean over a sample's tokens, then over samples. `token`: mean over all tokens. Defaults to `sample`. */
  readonly average?: "sample" | "token";
  /** Divisor of the mean over samples, where this is one micro-batch of several. Defaults to the number of samples. */
  readonly globalBatchSize?: number;
}

/** The loss and its parts, each averaged in the same way. */
export interface PolicyLossValue {
  readonly loss: number;
  readonly metrics: {
    readonly policyLoss: number;
    readonly klLoss: number;
    readonly entropy: number;
    /** Share of tokens whose clipped term was the larger loss. */
    readonly clipFraction: number;
    /** Mean of old - new log-probability: how far the policy moved since sampling. */
    readonly driftKl: number;
  };
}

/** One token's KL estimate; see {@link KlEstimator}. */
export function klEstimate(logProb: number, referenceLogProb: number, estimator: KlEstimator): number {
  const l = logProb - referenceLogProb;
  if (estimator === "k1") return l;
  return estimator === "k2" ? (l * l) / 2 : Math.exp(-l) - 1 + l;
}

/** One token's clipped loss for a log-ratio (new - old), and whether the clipped term was taken. */
export function clippedLoss(
  logRatio: number,
  advantage: number,
  { epsClip = 0.2, epsClipHigh = epsClip }: Pick<PolicyLossOptions, "epsClip" | "epsClipHigh"> = {},
): { loss: number; clipped: boolean } {
  const ratio = Math.exp(logRatio);
  const free = -advantage * ratio;
  const bound = -advantage * Math.min(Math.max(ratio, 1 - epsClip), 1 + epsClipHigh);
  return { loss: Math.max(free, bound), clipped: bound > free };
}

/**
 * log-probability of one token and entropy of the distribution, softmax(logits / temperature).
 *
 * @param logits [vocab]
 */
export function tokenStatistics(
  logits: ArrayLike<number>,
  tokenId: number,
  { temperature = 1 }: { temperature?: number } = {},
): { logProb: number; entropy: number } {
  if (!Number.isSafeInteger(tokenId) || tokenId < 0 || tokenId >= logits.length) {
    throw sizeError("token id", String(tokenId), `0 to ${logits.length - 1}`);
  }
  if (!(temperature > 0)) throw sizeError("temperature", String(temperature), "a positive number");
  const scaled = Float64Array.from(logits, (logit) => logit / temperature);
  const top = scaled.reduce((a, b) => Math.max(a, b), -Infinity);
  const logSum = top + Math.log(scaled.reduce((sum, value) => sum + Math.exp(value - top), 0));
  const entropy = scaled.reduce((sum, value) => {
    const logP = value - logSum;
    return logP === -Infinity ? sum : sum - Math.exp(logP) * logP;
  }, 0);
  return { logProb: scaled[tokenId]! - logSum, entropy };
}

/**
 * The whole policy loss of a batch.
 *
 * @throws NlaError `policy.size` for lists of unequal lengths, a sample without a trained token, or a missing list that
 *   a coefficient needs
 */
export function policyLoss(
  samples: readonly PolicySample[],
  options: PolicyLossOptions = {},
): PolicyLossValue {
  const { klLossType = "k3", klLossCoef = 0, entropyCoef = 0 } = options;
  const average = averager(samples, options);
  const policy = average(
    (s, t) => clippedLoss(s.logProbs[t]! - s.oldLogProbs[t]!, s.advantages[t]!, options).loss,
  );
  const clipFraction = average((s, t) =>
    Number(clippedLoss(s.logProbs[t]! - s.oldLogProbs[t]!, s.advantages[t]!, options).clipped),
  );
  const driftKl = average((s, t) => s.oldLogProbs[t]! - s.logProbs[t]!);
  const klLoss =
    klLossCoef === 0
      ? 0
      : average((s, t) =>
          klEstimate(s.logProbs[t]!, listed(s.referenceLogProbs, s, "referenceLogProbs")[t]!, klLossType),
        );
  const entropy =
    entropyCoef === 0 && samples.some((s) => s.entropies === undefined)
      ? NaN
      : average((s, t) => listed(s.entropies, s, "entropies")[t]!);
  const bonus = entropyCoef === 0 ? 0 : entropyCoef * entropy;
  return {
    loss: policy + klLossCoef * klLoss - bonus,
    metrics: { policyLoss: policy, klLoss, entropy, clipFraction, driftKl },
  };
}

/** Cross-entropy of the trained tokens, averaged like {@link policyLoss}: the warm start's loss. */
export function crossEntropyLoss(
  samples: readonly Pick<PolicySample, "logProbs" | "lossMask">[],
  options: Pick<PolicyLossOptions, "average" | "globalBatchSize"> = {},
): number {
  return averager(samples, options)((s, t) => -s.logProbs[t]!);
}

type Masked = Pick<PolicySample, "logProbs" | "lossMask">;

// The mean over trained tokens as the options say, for any quantity per token.
function averager<S extends Masked>(
  samples: readonly S[],
  {
    average = "sample",
    globalBatchSize = samples.length,
  }: Pick<PolicyLossOptions, "average" | "globalBatchSize">,
): (value: (sample: S, token: number) => number) => number {
  if (samples.length === 0) throw sizeError("policy batch", "0 samples", "at least 1");
  if (!(globalBatchSize > 0))
    throw sizeError("globalBatchSize", String(globalBatchSize), "a positive number");
  const counts = samples.map((sample, i) => trainedTokens(sample, i));
  return (value) => {
    const sums = samples.map((sample) =>
      sample.lossMask.reduce((sum, keep, t) => (keep === 0 ? sum : sum + value(sample, t)), 0),
    );
    if (average === "token") return total(sums) / total(counts);
    return total(sums.map((sum, i) => sum / counts[i]!)) / globalBatchSize;
  };
}

function trainedTokens(sample: Masked, index: number): number {
  const length = sample.logProbs.length;
  for (const [name, list] of Object.entries(sample)) {
    if (list !== undefined && list.length !== length) {
      throw sizeError(
        `${name} of sample ${index}`,
        `${list.length} values`,
        `${length}, one per log-probability`,
      );
    }
  }
  const count = sample.lossMask.reduce((sum, keep) => sum + (keep === 0 ? 0 : 1), 0);
  if (count === 0) throw sizeError(`lossMask of sample ${index}`, "no trained token", "at least 1");
  return count;
}

function listed(list: readonly number[] | undefined, sample: Masked, name: string): readonly number[] {
  if (list) return list;
  throw sizeError(name, "none", `${sample.logProbs.length} values: their coefficient is not 0`);
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

function sizeError(subject: string, found: string, wanted: string): NlaError {
  return new NlaError({
    code: "policy.size",
    subject,
    found,
    wanted,
    next: "Correct the batch before the update.",
  });
}
