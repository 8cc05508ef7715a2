// What `nla eval` says of claims on documents of the world: the pair greedy and sampled, its warm start, and controls that do not have
// the activation. It runs the models for the controls; counting is claims.ts.
import { keyedRandom } from "../data/python-random.js";
import { FidelityAccumulator } from "../nla/fidelity.js";
import type { FveBaselines } from "../nla/fidelity.js";
import type { Nla } from "../nla/read.js";
import { Chooser } from "../world/chooser.js";
import { worldDocumentOf } from "../world/corpus.js";
import { CATEGORIES } from "../world/facts.js";
import type { Category } from "../world/facts.js";
import { labelAt } from "../world/labels.js";
import type { BootstrapOptions, Interval } from "./bootstrap.js";
import type { ClaimScores } from "./claims.js";
import { codeAlarms, formLosses } from "./code-alarm.js";
import type { CodeReport, FormLoss } from "./code-alarm.js";
import type { EqualClaims } from "./equal-claims.js";
import { explainRows } from "./explained-rows.js";
import type { EvalRow, ExplainedRow, ExplainRowsOptions } from "./explained-rows.js";
import { rowsOfOtherDocuments } from "./other-documents.js";
import { worldClaims } from "./world-claims.js";
import type { ProbeResult } from "./world-probes.js";

/** Claims of one way of explaining; null where it said nothing at all. */
export interface ClaimLine {
  readonly name: string;
  /** null for controls that are not reconstructed. */
  readonly fve: number | null;
  /** Tokens of a response; null where there is none. */
  readonly tokens: number | null;
  readonly scores: ClaimScores | null;
}

/** What has to hold of a warm start before RL is worth its time. */
export interface WarmGate {
  readonly category: Category;
  /** Tokens since the evidence, from. */
  readonly from: number;
  readonly least: number;
  /** Greedy claims of the warm start there; right ones of them null where there is none. */
  readonly claims: number;
  readonly precision: Interval | null;
  readonly passed: boolean;
}

/** The claims part of an evaluation. */
export interface ClaimReport {
  /** The pair first: greedy. */
  readonly lines: readonly ClaimLine[];
  /** FVE that this reconstructor reaches from the complete true label. */
  readonly full_label_fve: number;
  /** Precision that the pair and its warm start would have with the categories of the warm start; null without one. */
  readonly at_warm_categories: {
    readonly warm: number;
    readonly trained: number;
  } | null;
  /** The pair beside its warm start with as many claims each, greedy and sampled. Absent without one. */
  readonly equal_claims?: readonly EqualClaims[];
  /** The same with as many tokens each. */
  readonly equal_tokens?: readonly EqualClaims[];
  /** Absent without a warm start. */
  readonly gate?: WarmGate;
  /** Whether what comes back is in what is said. */
  readonly code?: CodeReport;
  /** Accuracy of linear probes of the target's activations, where they were asked for. */
  readonly probes?: readonly Pick<ProbeResult, "category" | "accuracy" | "control">[];
}

const GATE = { category: "test", from: 36, least: 0.95 } as const;

/** The gate of a warm start: its greedy claims of test or real, where the cue is long gone. */
export function warmGate(scores: ClaimScores): WarmGate {
  const found = scores.byDistance.find(
    ({ category, from }) => category === GATE.category && from === GATE.from,
  );
  const precision = found?.precision ?? null;
  return {
    ...GATE,
    claims: found?.claims ?? 0,
    precision,
    passed: precision !== null && precision.value >= GATE.least,
  };
}

/** Explained rows with a name and the FVE that they reach. */
export interface NamedRows {
  readonly name: string;
  readonly fve: number;
  readonly rows: readonly ExplainedRow[];
}

/** What a claim report is made of. */
export interface ClaimReportOptions extends Pick<ExplainRowsOptions, "maxNewTokens" | "signal"> {
  /** The pair, greedy. */
  readonly greedy: NamedRows;
  readonly others: readonly NamedRows[];
  /** Its warm start, greedy. */
  readonly warm: NamedRows | null;
  /** What saying the same otherwise costs the warm start. */
  readonly warmForms?: readonly FormLoss[];
  readonly baselines?: FveBaselines;
  readonly bootstrap: BootstrapOptions;
}

/**
 * Scores the claims of a pair and of controls: explanations of another document's activation held against this one's truth, and
 * explanations of the mean activation and of random directions.
 *
 * @throws NlaError `world.document` where rows are not of the world, and those of explaining
 */
export async function reportClaims(
  nla: Pick<Nla, "verbalizer" | "reconstructor">,
  { greedy, others, warm, bootstrap, warmForms = [], ...options }: ClaimReportOptions,
): Promise<ClaimReport> {
  const { rows } = greedy;
  const line = ({ name, fve, rows: said }: NamedRows): ClaimLine => ({
    name,
    fve,
    tokens: average(said.map(({ tokens }) => tokens)),
    scores: worldClaims(said, bootstrap),
  });
  const donors = rowsOfOtherDocuments(
    rows.map(({ docId }) => docId),
    { seed: bootstrap.seed },
  );
  const elsewhere = rows.map((row, i) => ({
    ...row,
    explanation: (rows[donors[i] as number] as ExplainedRow).explanation,
  }));
  const control = async (name: string, vectorOf: (row: EvalRow, i: number) => Float32Array) => {
    const replaced = rows.map((row, i) => ({ ...row, vector: vectorOf(row, i) }));
    const said = await explainRows(nla, replaced, options);
    return { name, fve: null, tokens: null, scores: worldClaims(said, bootstrap) };
  };
  const mean = meanOf(rows);
  const random = keyedRandom(bootstrap.seed, "random activations");
  const lines: ClaimLine[] = [line(greedy), ...others.map(line)];
  if (warm) lines.push(line(warm));
  lines.push(
    {
      name: "another document's activation",
      fve: null,
      tokens: null,
      scores: worldClaims(elsewhere, bootstrap),
    },
    await control("the mean activation", () => mean),
    await control("a random direction", ({ vector }) => vector.map(() => gaussian(random))),
  );
  const forms = await formLosses(nla, rows, bootstrap);
  const trainedScores = lines[0]?.scores ?? null;
  const warmScores = warm ? worldClaims(warm.rows, bootstrap) : null;
  return {
    lines,
    ...(warmScores ? { gate: warmGate(warmScores) } : {}),
    code: {
      forms,
      warm: warmForms,
      alarms: codeAlarms(forms, warmForms, trainedScores?.unparsed ?? { value: 0, low: 0 }),
    },
    full_label_fve: await fullLabelFve(nla, rows, options),
    at_warm_categories: trainedScores && warmScores ? reweighted(trainedScores, warmScores) : null,
  };
}

/** Both precisions with the warm start's mix of categories, over the categories that both name at least ten times. */
function reweighted(trained: ClaimScores, warm: ClaimScores): ClaimReport["at_warm_categories"] {
  const shared = CATEGORIES.filter(
    (category: Category) =>
      Math.min(trained.categories[category].claims, warm.categories[category].claims) >= 10,
  );
  const total = shared.reduce((sum, category) => sum + warm.categories[category].claims, 0);
  if (total === 0) return null;
  const of = ({ categories }: ClaimScores) =>
    shared.reduce(
      (sum, category) =>
        sum + (warm.categories[category].claims / total) * (categories[category].precision?.value ?? 0),
      0,
    );
  return { warm: of(warm), trained: of(trained) };
}

async function fullLabelFve(
  { reconstructor }: Pick<Nla, "reconstructor">,
  rows: readonly EvalRow[],
  { signal }: Pick<ExplainRowsOptions, "signal">,
): Promise<number> {
  const { dim, mseScale } = reconstructor.contract;
  const labels = rows.map(({ docId, position }) => {
    const document = worldDocumentOf(docId);
    return labelAt(document, position - 1, new Chooser(document.index, position));
  });
  const rebuilt = await reconstructor.reconstructSome(labels, { signal });
  const fidelity = new FidelityAccumulator(dim, { mseScale });
  rows.forEach(({ vector }, i) => {
    const prediction = rebuilt[i];
    if (prediction) fidelity.add(prediction, vector);
  });
  return fidelity.result().fve;
}

function meanOf(rows: readonly EvalRow[]): Float32Array {
  const mean = new Float32Array((rows[0] as EvalRow).vector.length);
  for (const { vector } of rows)
    vector.forEach((value, i) => (mean[i] = (mean[i] as number) + value / rows.length));
  return mean;
}

function average(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** A normal deviate (Box and Muller 1958). */
function gaussian(random: { random(): number }): number {
  return Math.sqrt(-2 * Math.log(1 - random.random())) * Math.cos(2 * Math.PI * random.random());
}
