// The report of a run as one HTML file: how faithful the pair is and how it became so, with what its activations were said
// to be on the way. Pure: everything it shows comes in; it asks for nothing from anywhere.
import type { ClaimReport } from "./claim-report.js";
import type { Evaluation } from "./evaluation.js";
import { CLAIM_STYLE, claimsSection, markedExplanation } from "./report-claims.js";
import { REPORT_STYLE } from "./report-style.js";
import { decimal, optional, percent, plainZero, rangeText, tableHtml } from "./report-text.js";
import { trainingSection } from "./report-training.js";
import { escapeHtml } from "./svg.js";
import { sampleHistories, trainingCurves } from "./training-curves.js";
import type { Row, SampleHistory } from "./training-curves.js";

/** What a report shows. */
export interface ReportData {
  /** The run's name. */
  readonly name: string;
  /** The target's, and the layer. */
  readonly model: string;
  readonly layer: number;
  /** Greedy, and at temperature 1. */
  readonly evaluation: Evaluation;
  readonly sampled: Evaluation | null;
  /** Rows of metrics.jsonl and samples.jsonl. */
  readonly metrics: readonly Row[];
  readonly samples: readonly Row[];
  /** The resolved config as text; null where there is none. */
  readonly config: string | null;
  /** Claims held against the truth; null or absent where it is not known. */
  readonly claims?: ClaimReport | null;
}

/** The report as HTML. */
export function renderReport(data: ReportData): string {
  const curves = trainingCurves(data.metrics);
  const { name, model, layer } = data;
  const title = `${name}: fidelity of a Natural Language Autoencoder`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>
${REPORT_STYLE}
${data.claims ? CLAIM_STYLE : ""}
</style>
</head>
<body>
<main>
<h1>${escapeHtml(name)}</h1>
<p class="lead">A Natural Language Autoencoder of ${escapeHtml(model)}, reading the output of block ${layer}.</p>
${[headline(data.evaluation), numbers(data), claimsSection(curves, data.claims ?? null), trainingSection(curves, data.evaluation), readings(sampleHistories(data.samples)), positions(data.evaluation), configuration(data.config)].filter((part) => part !== "").join("\n")}
</main>
</body>
</html>
`;
}

function headline({ fve, intervals, controls, n, documents }: Evaluation): string {
  const [low, high] = intervals.difference;
  const other = `Explanations of <em>other</em> activations give ${percent(controls.shuffled.fve)}`;
  const points = `${decimal(100 * low, 1)} to ${decimal(100 * high, 1)} points`;
  const verdict =
    low > 0
      ? `${other}, ${points} less: what is recovered comes from what each explanation says about its own activation.`
      : `${other}; the difference, ${points}, is not clearly above zero, so these explanations cannot be said to carry anything about their own activation.`;
  return `<p class="key">${percent(fve)} <small>of the variance explained, ${percent(intervals.fve[0])} to ${percent(intervals.fve[1])}</small></p>
<p>On ${n} activations of ${documents} documents that were never in training, each activation is turned into text and the text alone back into an activation. ${verdict}</p>`;
}

function numbers({ evaluation, sampled }: ReportData): string {
  const rows = [
    evaluationCells("greedy", evaluation),
    ...(sampled ? [evaluationCells("sampled, T = 1", sampled)] : []),
    [
      "control: shuffled activations",
      decimal(evaluation.controls.shuffled.fve, 3),
      rangeText(evaluation.intervals.shuffled_fve),
      "",
      optional(evaluation.controls.shuffled.cosine, 3),
      "",
      "",
    ],
    [
      "control: the mean activation",
      plainZero(evaluation.controls.mean.fve),
      "by construction",
      "",
      "",
      "",
      "",
    ],
  ];
  const header = ["", "FVE", "95 % interval", "FVE, mean direction", "cosine", "tokens", "failed"];
  return `<h2>How faithful the explanations are</h2>
${tableHtml(header, rows)}
<p>FVE, the fraction of variance explained, is 1 − mse / variance over activations brought to one length: 0 is what guessing the mean activation gives, 1 is perfect. The variance is ${decimal(evaluation.variance, 4)} around the mean and ${decimal(evaluation.variance_meannorm, 4)} around the best constant direction, the denominator of the second FVE; the mean squared error is ${decimal(evaluation.mse, 4)}. A cosine has no such zero and cannot be compared between models.</p>
<p>An explanation that was cut off, or that the reconstructor cannot take, is counted as failed and as having explained nothing. Intervals are percentiles of a bootstrap over whole documents: they cover which documents were drawn, not how training might have gone with another seed. The shuffled control scores each activation against the explanation of an activation from another document.</p>`;
}

function evaluationCells(name: string, each: Evaluation): string[] {
  return [
    name,
    decimal(each.fve, 3),
    rangeText(each.intervals.fve),
    decimal(each.fve_meannorm, 3),
    optional(each.cosine, 3),
    decimal(each.length, 1),
    percent(each.failed),
  ];
}

const STAGE_NAMES: Readonly<Record<string, string>> = {
  av_sft: "warm start",
  rl: "RL",
  ar_sft: "reconstructor",
};

function readings(histories: readonly SampleHistory[]): string {
  if (histories.length === 0) return "";
  const parts = histories.map(({ row, text, docId, position, readings }) => {
    const rows = readings.map(({ stage, step, explanation, cosine }) => [
      `${STAGE_NAMES[stage] ?? stage} ${step}`,
      explanation === null
        ? null
        : (markedExplanation(docId, position, explanation) ?? escapeHtml(explanation)),
      optional(cosine, 2),
    ]);
    const body = rows
      .map(
        ([at, said, cosine]) =>
          `<tr><td class="step">${escapeHtml(at as string)}</td><td class="said">${said === null || said === undefined ? '<span class="none">no explanation</span>' : said}</td><td class="n">${cosine}</td></tr>`,
      )
      .join("");
    const passage = text === null ? "" : `<div class="passage">${escapeHtml(text)}</div>`;
    return `<h3>Held-out activation ${escapeHtml(row)}</h3>${passage}
<div class="wide"><table><thead><tr><th>step</th><th>explanation</th><th class="n">cosine</th></tr></thead><tbody>${body}</tbody></table></div>`;
  });
  return `<h2>The same activations at several checkpoints</h2>
<p>The text before each position, up to the token whose activation is read, and what the verbalizer said about it as training went on. It never sees the text.</p>
${parts.join("\n")}`;
}

function positions({ by_position }: Evaluation): string {
  if (by_position.length === 0) return "";
  const rows = by_position
    .map(({ from, to, n, fve, mse }) => {
      const bar = `<span class="bar" style="width:${(100 * Math.max(0, Math.min(1, fve ?? 0))).toFixed(1)}%"></span>`;
      const name = to === null ? `${from} and later` : to === from + 1 ? `${from}` : `${from} to ${to - 1}`;
      return `<tr><td>${name}</td><td class="n">${n}</td><td class="n">${decimal(mse, 3)}</td><td class="n">${optional(fve, 3)}</td><td style="width:40%">${bar}</td></tr>`;
    })
    .join("");
  return `<h2>By position in the document</h2>
<p>Each row's variance is that of its activations around the mean of all.</p>
<div class="wide"><table><thead><tr><th>token</th><th class="n">activations</th><th class="n">mse</th><th class="n">FVE</th><th></th></tr></thead><tbody>${rows}</tbody></table></div>`;
}

function configuration(config: string | null): string {
  if (config === null) return "";
  return `<h2>Configuration</h2>
<details><summary>The whole config of the run, defaults included</summary><pre>${escapeHtml(config)}</pre></details>`;
}
