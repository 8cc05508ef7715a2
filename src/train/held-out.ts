// How good a pair is on held-out activations while it is being trained: quick, greedy, and the same rows every time, so that
// the curve is of the pair and not of the draw. The numbers are those of `nla eval` (evaluate/), without its intervals.
import { evaluateRows } from "../evaluate/evaluation.js";
import { explainRows } from "../evaluate/explained-rows.js";
import type { EvalRow, ExplainedRow } from "../evaluate/explained-rows.js";
import { claimNumbers, isWorld } from "../evaluate/world-claims.js";
import type { ClaimNumbers } from "../evaluate/world-claims.js";
import { FidelityAccumulator, reconstructionScores } from "../nla/fidelity.js";
import type { Reconstructor } from "../nla/reconstructor.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import type { TrainConfig } from "./config-schema.js";
import { due } from "./loop.js";
import { FAILURE_REWARD, rewardOfMse } from "./reward.js";
import type { RewardOptions } from "./reward.js";
import type { Json } from "./run-folder.js";

/** A held-out activation. */
export interface HeldOutRow extends EvalRow {
  /** The label that the warm start would have been given, where there is one. */
  readonly label: string | null;
}

/** Options of {@link measurePair}. */
export interface HeldOutOptions {
  readonly maxNewTokens: number;
  readonly compute: "f32" | "bf16";
  /** Activations per pass. Defaults to 128. */
  readonly batch?: number;
  readonly signal?: AbortSignal | undefined;
}

/** An explanation of a held-out activation with its scores. */
export interface HeldOutExplanation {
  readonly text: string | null;
  /** null where there is no explanation, or one that the reconstructor cannot take. */
  readonly mse: number | null;
  /** null as `mse`, and where the reconstruction is zero: it has no direction. */
  readonly cosine: number | null;
}

/** What was measured, and the explanations it was measured on. */
export interface HeldOutResult {
  /** As it goes into metrics.jsonl under `eval`. */
  readonly fields: {
    readonly n: number;
    readonly fve: number;
    readonly fve_meannorm: number;
    /** Denominators of the two. */
    readonly variance: number;
    readonly variance_meannorm: number;
    /** FVE of each row with the explanation of another document's activation. */
    readonly shuffled_fve: number;
    /** Mean tokens of a response, its end included. */
    readonly length: number;
    /** Share without a reconstruction. They count as the mean activation: nothing explained. */
    readonly failed: number;
    /** How true and how complete they are, where the truth is known: on documents of the world. */
    readonly claims?: ClaimNumbers;
  };
  readonly explanations: readonly HeldOutExplanation[];
}

/**
 * Explains every row greedily and reconstructs it.
 *
 * @param rows of at least two documents
 * @throws NlaError of explainRows and evaluateRows
 */
export async function measurePair(
  verbalizer: Verbalizer,
  reconstructor: Reconstructor,
  rows: readonly HeldOutRow[],
  { batch = 128, ...options }: HeldOutOptions,
): Promise<HeldOutResult> {
  const { mseScale } = reconstructor.contract;
  const explained = await explainRows({ verbalizer, reconstructor }, rows, { ...options, batch });
  // One resample: nobody looks at the intervals here.
  const found = evaluateRows(explained, { mseScale, bootstrap: { resamples: 1 } });
  const { n, fve, fve_meannorm, variance, variance_meannorm, length, failed, controls } = found;
  const claims = isWorld(rows) ? claimNumbers(explained) : null;
  return {
    fields: {
      n,
      fve,
      fve_meannorm,
      variance,
      variance_meannorm,
      shuffled_fve: controls.shuffled.fve,
      length,
      failed,
      ...(claims ? { claims } : {}),
    },
    explanations: explained.map((row) => scored(row, mseScale)),
  };
}

/** Options of {@link observePair}. */
export interface ObserveOptions {
  /** Steps of the stage: its last one is always observed. */
  readonly steps: number;
  readonly log: Pick<TrainConfig["log"], "eval_every" | "sample_every" | "samples">;
  readonly maxNewTokens: number;
  /** What an explanation would be paid. Defaults to `-mse`. */
  readonly reward?: RewardOptions;
}

/**
 * What a step shows of a pair: `fields` for metrics.jsonl where a measurement is due, `samples` for samples.jsonl where those
 * are, else null. In f32, and not abortable: the step is done, and its row must be whole.
 */
export async function observePair(
  verbalizer: Verbalizer,
  reconstructor: Reconstructor,
  rows: readonly HeldOutRow[],
  step: number,
  { steps, log, maxNewTokens, reward = {} }: ObserveOptions,
): Promise<{ fields: HeldOutResult["fields"] | null; samples: Record<string, Json>[] | null }> {
  const options = { maxNewTokens, compute: "f32" } as const;
  const measured = due(step, log.eval_every, steps)
    ? await measurePair(verbalizer, reconstructor, rows, options)
    : null;
  const fields = measured && measured.fields;
  if (!due(step, log.sample_every, steps)) return { fields, samples: null };
  const shown = rows.slice(0, log.samples);
  const explanations =
    measured?.explanations ?? (await explainHeldOut(verbalizer, reconstructor, shown, options));
  return { fields, samples: sampleRows(shown, { explanations }, log.samples, reward) };
}

/** Precision and recall for the progress line, where they are known. */
export function claimProgress({ claims }: HeldOutResult["fields"]): { precision?: number; recall?: number } {
  const { precision, recall } = claims ?? {};
  return typeof precision === "number" && typeof recall === "number" ? { precision, recall } : {};
}

/** Explains rows without measuring them: any number, of any documents. */
export async function explainHeldOut(
  verbalizer: Verbalizer,
  reconstructor: Reconstructor,
  rows: readonly HeldOutRow[],
  { batch = 128, ...options }: HeldOutOptions,
): Promise<HeldOutExplanation[]> {
  const explained = await explainRows({ verbalizer, reconstructor }, rows, { ...options, batch });
  return explained.map((row) => scored(row, reconstructor.contract.mseScale));
}

function scored(
  { explanation, reconstruction, vector }: ExplainedRow,
  mseScale: number | null,
): HeldOutExplanation {
  if (reconstruction === null) return { text: explanation, mse: null, cosine: null };
  const { mse, cosine } = reconstructionScores(reconstruction, vector, { mseScale });
  return { text: explanation, mse, cosine: Number.isNaN(cosine) ? null : cosine };
}

/** FVE of a reconstructor on the labels themselves: what the verbalizer could reach by copying them. */
export async function measureLabels(
  reconstructor: Reconstructor,
  rows: readonly HeldOutRow[],
  options: Pick<HeldOutOptions, "compute" | "signal">,
): Promise<Pick<HeldOutResult["fields"], "n" | "fve" | "fve_meannorm" | "variance" | "variance_meannorm">> {
  const { dim, mseScale } = reconstructor.contract;
  const labelled = rows.flatMap(({ label, vector }) => (label === null ? [] : [{ label, vector }]));
  const fidelity = new FidelityAccumulator(dim, { mseScale });
  const rebuilt = await reconstructor.reconstruct(
    labelled.map(({ label }) => label),
    options,
  );
  labelled.forEach(({ vector }, i) => fidelity.add(rebuilt[i] as Float32Array, vector));
  const { rows: n, fve, fveMeannorm, variance, varianceMeannorm } = fidelity.result();
  return { n, fve, fve_meannorm: fveMeannorm, variance, variance_meannorm: varianceMeannorm };
}

/** Rows of samples.jsonl: the first `count` held-out activations as they are explained now, with what RL would pay for it. */
export function sampleRows(
  rows: readonly HeldOutRow[],
  { explanations }: Pick<HeldOutResult, "explanations">,
  count: number,
  { kind = "-mse", failureReward = FAILURE_REWARD[kind] }: RewardOptions = {},
): Record<string, Json>[] {
  return rows.slice(0, count).map(({ docId, position, text }, i) => {
    const { text: explanation, mse, cosine } = explanations[i] as HeldOutExplanation;
    const reward = mse === null ? failureReward : rewardOfMse(mse, kind);
    return { row: i, doc_id: docId, position, text, explanation, mse, cosine, reward };
  });
}
