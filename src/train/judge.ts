// Who judges explanations in reinforcement learning: the live reconstructor alone, or with further ones that are frozen. A word that only one of
// them understands is then worth less than one that all do. Errors only; what an error is worth is reward.ts's.
import { NlaError } from "../error.js";
import { reconstructionScores } from "../nla/fidelity.js";
import type { Reconstructor } from "../nla/reconstructor.js";

/** Gives texts the error of the activation that comes back from them. */
export interface Judge {
  /**
   * @param texts null: no explanation
   * @param vectors the raw activation of each text
   * @returns null for those without, and for those that one of the reconstructors cannot take
   */
  errors(
    texts: readonly (string | null)[],
    vectors: readonly Float32Array[],
    signal?: AbortSignal,
  ): Promise<(number | null)[]>;
}

// Explanations that a reconstructor scores in one pass.
const BATCH = 256;

/**
 * A judge of one reconstructor or several.
 *
 * @param how several errors become one by their mean, or by taking the largest. Defaults to `mean`.
 * @throws NlaError `judge.mismatch` where they are not of the same layer and width
 */
export function judgeOf(
  [live, ...others]: readonly [Reconstructor, ...Reconstructor[]],
  how: "mean" | "worst" = "mean",
): Judge {
  for (const { contract } of others) {
    const { layer, dim } = live.contract;
    if (contract.layer === layer && contract.dim === dim) continue;
    throw new NlaError({
      code: "judge.mismatch",
      subject: "a reconstructor of rl.judges",
      found: `layer ${contract.layer}, width ${contract.dim}`,
      wanted: `layer ${layer}, width ${dim}, as the pair has`,
      next: "Name reconstructors that were trained on the same target and layer.",
    });
  }
  const { mseScale } = live.contract;
  return {
    async errors(texts, vectors, signal) {
      const all: (number | null)[][] = [];
      for (const reconstructor of [live, ...others]) {
        const rebuilt = await reconstructor.reconstructSome(texts, { batch: BATCH, signal });
        all.push(
          rebuilt.map(
            (each, i) => each && reconstructionScores(each, vectors[i] as Float32Array, { mseScale }).mse,
          ),
        );
      }
      return texts.map((_, i) => {
        const errors = all.map((of) => of[i] as number | null);
        if (errors.some((error) => error === null)) return null;
        const known = errors as number[];
        return how === "worst" ? Math.max(...known) : known.reduce((a, b) => a + b, 0) / known.length;
      });
    },
  };
}
