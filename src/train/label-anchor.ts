// The supervised anchor of reinforcement learning: a few labels of the warm start in every step, so that what words mean is not left to the two
// models alone. Their cross-entropy is a part of the verbalizer's step, and the reconstructor reads them like explanations. With it the run
// learns from the truth too, which plain RL does not.
import type { Verbalizer } from "../nla/verbalizer.js";
import { responseEncoder } from "./label-response.js";
import { labelStream } from "./label-stream.js";
import type { WarmRows } from "./label-stream.js";
import type { RegressionRow } from "./reconstructor-step.js";
import { responseBatches, responseShape } from "./response-batch.js";
import type { ResponseBatch } from "./response-batch.js";
import type { Trainer } from "./trainer.js";
import { labelLoss } from "./verbalizer-step.js";
import type { LabelRow, RolloutRow } from "./verbalizer-step.js";

/** Settings of {@link labelAnchor}. */
export interface LabelAnchorOptions {
  /** Labels in every step, for each model. */
  readonly rows: number;
  /** What their mean cross-entropy counts beside the policy loss. */
  readonly weight: number;
  readonly microBatch: number;
  /** Steps already done. */
  readonly steps: number;
  readonly compute: "f32" | "bf16";
}

/** One step's labels. */
export interface AnchoredStep {
  /** Adds the gradients of the verbalizer's labels to its trainer: to be run within its step. */
  learn(): Promise<void>;
  /** Mean cross-entropy of the verbalizer's labels when they were last learnt; NaN before. */
  loss(): number;
  /** The reconstructor's labels. */
  readonly regression: readonly RegressionRow[];
}

/** The labels of step after step, and the graphs of their loss. */
export interface LabelAnchor extends Disposable {
  next(): Promise<AnchoredStep>;
}

/**
 * An anchor on a verbalizer's trainer.
 *
 * @param trainer what its gradients are added to; freed after the anchor
 * @throws NlaError `rows.empty` where there are no labels, and those of `responseEncoder`
 */
export function labelAnchor(
  verbalizer: Verbalizer,
  trainer: Pick<Trainer<ResponseBatch<RolloutRow>>, "joined">,
  labels: { readonly verbalizer: WarmRows; readonly reconstructor: WarmRows },
  { rows, weight, microBatch, steps, compute }: LabelAnchorOptions,
): LabelAnchor {
  const streamV = labelStream(labels.verbalizer, rows, steps);
  const streamR = labelStream(labels.reconstructor, rows, steps);
  const encode = responseEncoder(verbalizer);
  const graphs = trainer.joined<ResponseBatch<LabelRow>>({
    device: verbalizer.model.device,
    compute,
    build: (g, micro) => labelLoss(g, verbalizer, micro),
    shapeOf: responseShape,
  });
  return {
    async next() {
      const taken = (await streamV.next()).map(({ vector, label }): LabelRow => {
        return { vector, response: encode(label), weight: weight / rows };
      });
      const batches = responseBatches(verbalizer, taken, microBatch);
      const regression = (await streamR.next()).map(({ vector, label }) => ({ vector, text: label }));
      let loss = NaN;
      return {
        async learn() {
          loss = (await graphs.run(batches)).loss / weight;
        },
        loss: () => loss,
        regression,
      };
    },
    [Symbol.dispose]: () => graphs[Symbol.dispose](),
  };
}
