// The frequencies of rotary embedding under scaling, as divisors of the unscaled ones, and the factor on cos and sin.
import type { RopeConfig, RopeScaling } from "./decoder-config.js";

/**
 * Divisor of each pair's frequency, [headDim / 2]; null where nothing is scaled.
 * Source: the llama3 rule as Hugging Face transformers states it: wavelengths above originalLength / lowFrequencyFactor are
 * divided by `factor`, those below originalLength / highFrequencyFactor are kept, those between are interpolated.
 */
export function frequencyDivisors({ theta, scaling }: RopeConfig, headDim: number): Float32Array | null {
  if (!scaling) return null;
  const pairs = headDim / 2;
  if (scaling.kind === "linear") return new Float32Array(pairs).fill(scaling.factor);
  if (scaling.kind === "yarn") return yarnDivisors(scaling, theta, headDim);
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalLength } = scaling;
  return Float32Array.from({ length: pairs }, (_, i) => {
    const frequency = theta ** ((-2 * i) / headDim);
    const turns = (originalLength * frequency) / (2 * Math.PI); // turns within the original length
    if (turns < low) return factor;
    if (turns > high) return 1;
    const smooth = (turns - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

/**
 * Divisors between 1 (pairs that turn often) and `factor` (pairs that turn seldom), with a linear ramp over the pair number.
 * Source: Peng et al. 2023 (YaRN), section 3.2, with the rounding of the bounds that transformers applies.
 */
function yarnDivisors(
  { factor, originalLength, fastTurns, slowTurns, truncate }: Extract<RopeScaling, { kind: "yarn" }>,
  theta: number,
  headDim: number,
): Float32Array {
  // The pair that turns `turns` times within the original length, as a real number.
  const pairOf = (turns: number) =>
    (headDim * Math.log(originalLength / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const first = truncate ? Math.floor(pairOf(fastTurns)) : pairOf(fastTurns);
  const last = truncate ? Math.ceil(pairOf(slowTurns)) : pairOf(slowTurns);
  const low = Math.max(first, 0);
  const high = Math.min(last, headDim - 1);
  const width = high === low ? 0.001 : high - low; // a step, where both bounds are one pair
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const scaled = Math.min(1, Math.max(0, (i - low) / width));
    return 1 / (scaled / factor + (1 - scaled));
  });
}

/** Factor on cos and sin: 1 but for YaRN. */
export function ropeMagnitude({ scaling }: RopeConfig): number {
  if (scaling?.kind !== "yarn") return 1;
  return scaling.magnitude ?? (scaling.factor <= 1 ? 1 : 0.1 * Math.log(scaling.factor) + 1);
}
