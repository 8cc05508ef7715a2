// How good a pair is on held-out activations while it is being trained: quick, greedy, and the same rows every time, so that
// the curve is of the pair and not of the draw. The full evaluation with intervals is evaluate/'s.
import { FidelityAccumulator } from "../nla/fidelity.js";
import type { Reconstructor } from "../nla/reconstructor.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import type { Json } from "./run-folder.js";

/** A held-out activation. */
export interface HeldOutRow {
  readonly vector: Float32Array;
  readonly docId: string;
  readonly position: number;
  /** The text up to the position, where the data set has it. */
  readonly text: string | null;
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

/** What was measured, and the explanations it was measured on. */
export interface HeldOutResult {
  /** As it goes into metrics.jsonl under `eval`. */
  readonly fields: {
    readonly n: number;
    readonly fve: number;
    readonly fve_meannorm: number;
    readonly variance: number;
    readonly shuffled_fve: number;
    /** Mean tokens of a response, its end included. */
    readonly length: number;
    /** Share without an explanation. They count as an empty text. */
    readonly failed: number;
  };
  readonly explanations: readonly {
    readonly text: string | null;
    readonly mse: number;
    readonly cosine: number;
  }[];
}

/**
 * Explains every row greedily and reconstructs it. The shuffled control scores each explanation against the activation of
 * another document.
 */
export async function measurePair(
  verbalizer: Verbalizer,
  reconstructor: Reconstructor,
  rows: readonly HeldOutRow[],
  { maxNewTokens, compute, batch = 128, signal }: HeldOutOptions,
): Promise<HeldOutResult> {
  const { dim, mseScale } = reconstructor.contract;
  const real = new FidelityAccumulator(dim, { mseScale });
  const shuffled = new FidelityAccumulator(dim, { mseScale });
  const explanations: { text: string | null; mse: number; cosine: number }[] = [];
  let tokens = 0;
  let failed = 0;
  const others = otherDocument(rows);
  for (let start = 0; start < rows.length; start += batch) {
    const part = rows.slice(start, start + batch);
    const vectors = part.map(({ vector }) => vector);
    const responses = await verbalizer.explain(vectors, { maxNewTokens, compute, signal });
    const texts = responses.map(({ text }) => text ?? "");
    const rebuilt = await reconstructor.reconstruct(texts, { compute, signal, batch });
    part.forEach(({ vector }, i) => {
      const prediction = rebuilt[i] as Float32Array;
      const { mse, cosine } = real.add(prediction, vector);
      shuffled.add(prediction, (rows[others[start + i] as number] as HeldOutRow).vector);
      const text = responses[i]?.text ?? null;
      explanations.push({ text, mse, cosine });
      tokens += responses[i]?.tokens.length ?? 0;
      if (text === null) failed++;
    });
  }
  const { fve, fveMeannorm, variance } = real.result();
  return {
    fields: {
      n: rows.length,
      fve,
      fve_meannorm: fveMeannorm,
      variance,
      shuffled_fve: shuffled.result().fve,
      length: tokens / rows.length,
      failed: failed / rows.length,
    },
    explanations,
  };
}

/** For each row the number of one of another document: the next that is, around the end. */
function otherDocument(rows: readonly HeldOutRow[]): number[] {
  return rows.map(({ docId }, i) => {
    for (let step = 1; step < rows.length; step++) {
      const j = (i + step) % rows.length;
      if (rows[j]?.docId !== docId) return j;
    }
    return (i + 1) % rows.length; // all of one document
  });
}

/** FVE of a reconstructor on the labels themselves: what the verbalizer could reach by copying them. */
export async function measureLabels(
  reconstructor: Reconstructor,
  rows: readonly HeldOutRow[],
  options: Pick<HeldOutOptions, "compute" | "signal">,
): Promise<{ n: number; fve: number; fve_meannorm: number; variance: number }> {
  const { dim, mseScale } = reconstructor.contract;
  const labelled = rows.filter(({ label }) => label !== null);
  const fidelity = new FidelityAccumulator(dim, { mseScale });
  const rebuilt = await reconstructor.reconstruct(
    labelled.map(({ label }) => label ?? ""),
    options,
  );
  labelled.forEach(({ vector }, i) => fidelity.add(rebuilt[i] as Float32Array, vector));
  const { rows: n, fve, fveMeannorm, variance } = fidelity.result();
  return { n, fve, fve_meannorm: fveMeannorm, variance };
}

/** Rows of samples.jsonl: the first `count` held-out activations as they are explained now. */
export function sampleRows(
  rows: readonly HeldOutRow[],
  { explanations }: HeldOutResult,
  count: number,
): Record<string, Json>[] {
  return rows.slice(0, count).map(({ docId, position, text }, i) => {
    const { text: explanation, mse, cosine } = explanations[i] as HeldOutResult["explanations"][number];
    // JSON has no NaN, and a zero reconstruction has no cosine.
    return {
      row: i,
      doc_id: docId,
      position,
      text,
      explanation,
      mse,
      cosine: Number.isNaN(cosine) ? null : cosine,
      reward: -mse,
    };
  });
}
