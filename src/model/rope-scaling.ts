// The frequencies of rotary embedding under scaling, as divisors of the unscaled ones.
import type { RopeConfig } from "./config.js";

/**
 * Divisor of each pair's frequency, [headDim / 2]; null where nothing is scaled.
 * Source: the llama3 rule as Hugging Face transformers states it: wavelengths above originalLength / lowFrequencyFactor are
 * divided by `factor`, those below originalLength / highFrequencyFactor are kept, those between are interpolated.
 */
export function frequencyDivisors({ theta, scaling }: RopeConfig, headDim: number): Float32Array | null {
  if (!scaling) return null;
  const pairs = headDim / 2;
  if (scaling.kind === "linear") return new Float32Array(pairs).fill(scaling.factor);
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
