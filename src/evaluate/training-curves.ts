// The rows of metrics.jsonl and samples.jsonl as the report draws them: curves over the steps of a run, and the readings of
// one activation over its checkpoints. Tolerant of fields it does not know, and of logs of runs that are not finished.
import { niceTicks } from "./svg.js";
import type { Point } from "./svg.js";

/** A row of a log: `stage`, `step` and whatever was logged. */
export type Row = Readonly<Record<string, unknown>> & { readonly stage: string; readonly step: number };

/** Curves of one run. */
export interface TrainingCurves {
  /** Steps of the verbalizer's warm start and of reinforcement learning; 0 where there were none. */
  readonly steps: { readonly warm: number; readonly rl: number };
  /** A field of a stage's rows over its own steps: `curve("rl", "kl")`, `curve("ar_sft", "eval.fve")`. */
  curve(stage: string, field: string): Point[];
  /**
   * The same on an axis that both stages share: each has half of it, so that a short one can be seen beside a long one.
   * The warm start goes from 0 to 1, reinforcement learning to 2.
   */
  along(stage: "av_sft" | "rl", field: string): Point[];
  /** A field of both on that axis, as one curve. */
  both(field: string): Point[];
  /** Ticks of that axis. */
  readonly ticks: readonly { readonly x: number; readonly text: string }[];
}

/** A number that a log holds; null for what is none, or not finite and so spelled out. */
function numberIn(row: Row, field: string): number | null {
  let value: unknown = row;
  for (const key of field.split("."))
    value = (value as Readonly<Record<string, unknown>> | null | undefined)?.[key];
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function has(row: Row, field: string): boolean {
  let value: unknown = row;
  for (const key of field.split(".")) {
    if (typeof value !== "object" || value === null || !(key in value)) return false;
    value = (value as Readonly<Record<string, unknown>>)[key];
  }
  return true;
}

/** The curves of a run's metrics. Steps are counted from 1: a row's numbers are of after its step. */
export function trainingCurves(rows: readonly Row[]): TrainingCurves {
  const stepsOf = (stage: string) =>
    rows.reduce((steps, row) => (row.stage === stage ? Math.max(steps, row.step + 1) : steps), 0);
  const steps = { warm: stepsOf("av_sft"), rl: stepsOf("rl") };
  const curve = (stage: string, field: string): Point[] =>
    rows.flatMap((row) =>
      row.stage === stage && has(row, field) ? [{ x: row.step + 1, y: numberIn(row, field) }] : [],
    );
  const along = (stage: "av_sft" | "rl", field: string): Point[] => {
    const [start, length, name] = stage === "rl" ? [1, steps.rl, "RL"] : [0, steps.warm, "warm start"];
    return curve(stage, field).map(({ x, y }) => ({ x: start + x / length, y, where: `${name} step ${x}` }));
  };
  return {
    steps,
    curve,
    along,
    both: (field) => [...along("av_sft", field), ...along("rl", field)],
    ticks: [...halfTicks(0, steps.warm), ...halfTicks(1, steps.rl)],
  };
}

function halfTicks(start: number, length: number): { x: number; text: string }[] {
  if (length === 0) return [];
  return niceTicks(0, length, 5)
    .filter((step) => step > 0 && step <= length && Number.isInteger(step))
    .map((step) => ({ x: start + step / length, text: String(step) }));
}

/** What one activation was said to be, as training went on. */
export interface SampleHistory {
  /** The held-out row's name. */
  readonly row: string;
  /** End of the text before the position. */
  readonly text: string | null;
  /** Which token of which document it is, where the log says so. */
  readonly docId: unknown;
  readonly position: unknown;
  readonly readings: readonly {
    readonly stage: string;
    readonly step: number;
    readonly explanation: string | null;
    readonly cosine: number | null;
    readonly mse: number | null;
  }[];
}

/**
 * The histories of samples.jsonl: activation by activation in the log's order, each with at most `readings` of its
 * readings, the first and the last always and the others evenly between.
 */
export function sampleHistories(
  rows: readonly Row[],
  { activations = 6, readings = 6 }: { readonly activations?: number; readonly readings?: number } = {},
): SampleHistory[] {
  const histories = new Map<string, Row[]>();
  for (const row of rows) {
    const name = String(row["row"]);
    const history = histories.get(name);
    if (history) history.push(row);
    else histories.set(name, [row]);
  }
  return [...histories].slice(0, activations).map(([name, all]) => ({
    row: name,
    text: textIn(all.at(-1), "text"),
    docId: all.at(-1)?.["doc_id"],
    position: all.at(-1)?.["position"],
    readings: evenly(all, readings).map((row) => ({
      stage: row.stage,
      step: row.step + 1,
      explanation: textIn(row, "explanation"),
      cosine: numberIn(row, "cosine"),
      mse: numberIn(row, "mse"),
    })),
  }));
}

function textIn(row: Row | undefined, field: string): string | null {
  const value = row?.[field];
  return typeof value === "string" ? value : null;
}

function evenly<T>(items: readonly T[], count: number): T[] {
  if (items.length <= count) return [...items];
  if (count < 2) return items.slice(-1);
  return Array.from(
    { length: count },
    (_, i) => items[Math.round((i * (items.length - 1)) / (count - 1))] as T,
  );
}
