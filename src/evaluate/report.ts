// The report of a run as one HTML file: how faithful the pair is and how it became so, with what its activations were said
// to be on the way. Pure: everything it shows comes in; it asks for nothing from anywhere.
import type { Evaluation, Range } from "./evaluation.js";
import { REPORT_STYLE } from "./report-style.js";
import { chartSvg, escapeHtml } from "./svg.js";
import type { Chart, Series } from "./svg.js";
import { sampleHistories, trainingCurves } from "./training-curves.js";
import type { Row, SampleHistory, TrainingCurves } from "./training-curves.js";

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
}

const COLOURS = { main: "var(--a)", control: "var(--b)", second: "var(--c)", third: "var(--d)" };
const SMALL = { width: 360, height: 210 };

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
</style>
</head>
<body>
<main>
<h1>${escapeHtml(name)}</h1>
<p class="lead">A Natural Language Autoencoder of ${escapeHtml(model)}, reading the output of block ${layer}.</p>
${[headline(data.evaluation), numbers(data), training(curves, data), readings(sampleHistories(data.samples)), positions(data.evaluation), configuration(data.config)].filter((part) => part !== "").join("\n")}
</main>
</body>
</html>
`;
}

function headline({ fve, intervals, controls, n, documents }: Evaluation): string {
  const [low, high] = intervals.difference;
  const verdict =
    low > 0
      ? `Explanations of <em>other</em> activations recover ${percent(controls.shuffled.fve)}, so what is recovered comes from what each explanation says about its own activation (the difference is ${percent(low)} to ${percent(high)}).`
      : `Explanations of <em>other</em> activations recover ${percent(controls.shuffled.fve)}; the difference (${percent(low)} to ${percent(high)}) is not clearly above zero, so these explanations cannot be said to carry anything about their own activation.`;
  return `<p class="key">${percent(fve)} <small>of the variance explained, ${percent(intervals.fve[0])} to ${percent(intervals.fve[1])}</small></p>
<p>On ${n} activations of ${documents} documents that were never in training, each activation is turned into text and the text alone back into an activation. ${verdict}</p>`;
}

function numbers({ evaluation, sampled }: ReportData): string {
  const row = (name: string, each: Evaluation): string[] => [
    name,
    each.fve.toFixed(3),
    range(each.intervals.fve),
    each.fve_meannorm.toFixed(3),
    optional(each.cosine, 3),
    each.length.toFixed(1),
    percent(each.failed),
  ];
  const rows = [
    row("greedy", evaluation),
    ...(sampled ? [row("sampled, T = 1", sampled)] : []),
    [
      "control: shuffled activations",
      evaluation.controls.shuffled.fve.toFixed(3),
      range(evaluation.intervals.shuffled_fve),
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
<p>FVE, the fraction of variance explained, is 1 − mse / variance over activations brought to one length: 0 is what guessing the mean activation gives, 1 is perfect. The variance is ${evaluation.variance.toFixed(4)} around the mean and ${evaluation.variance_meannorm.toFixed(4)} around the best constant direction, the denominator of the second FVE; the mean squared error is ${evaluation.mse.toFixed(4)}. A cosine has no such zero and cannot be compared between models.</p>
<p>An explanation that was cut off, or that the reconstructor cannot take, is counted as failed and as having explained nothing. Intervals are percentiles of a bootstrap over whole documents: they cover which documents were drawn, not how training might have gone with another seed. The shuffled control scores each activation against the explanation of an activation from another document.</p>`;
}

function training(curves: TrainingCurves, { evaluation }: ReportData): string {
  const marks =
    curves.rlSteps > 0 && curves.warmSteps > 0 ? [{ x: curves.warmSteps, text: "warm start ends" }] : [];
  const figures: string[] = [];
  const add = (title: string, chart: Omit<Chart, "label">): string => {
    const svg = chartSvg({ ...chart, label: title });
    return svg === null ? "" : figure(title, chart.series, svg);
  };
  figures.push(
    add("Variance explained over training", {
      xLabel: "step: warm start of the verbalizer, then reinforcement learning",
      marks,
      include: [0],
      final: {
        low: evaluation.intervals.fve[0],
        value: evaluation.fve,
        high: evaluation.intervals.fve[1],
        text: `final: ${evaluation.fve.toFixed(3)}, 95 % ${range(evaluation.intervals.fve)}`,
      },
      series: [
        { name: "rollouts", points: curves.curve("rl", "fve"), colour: COLOURS.second, look: "thin" },
        {
          name: "shuffled control",
          points: curves.both("eval.shuffled_fve"),
          colour: COLOURS.control,
          look: "dots",
        },
        { name: "held out", points: curves.both("eval.fve"), colour: COLOURS.main, look: "dots" },
      ],
    }),
  );
  const spread = curves.curve("rl", "reward_std").map(({ y }) => y ?? 0);
  const rewards = curves.curve("rl", "reward_mean");
  const small = [
    add("Length of explanations, tokens", {
      xLabel: "step",
      marks,
      size: SMALL,
      include: [0],
      series: [
        { name: "rollouts", points: curves.curve("rl", "length"), colour: COLOURS.second, look: "thin" },
        { name: "held out", points: curves.both("eval.length"), colour: COLOURS.main, look: "dots" },
      ],
    }),
    add("Reward, mean and one standard deviation", {
      xLabel: "step",
      size: SMALL,
      series: [
        {
          name: "reward",
          points: rewards,
          colour: COLOURS.main,
          ...(spread.length === rewards.length && rewards.length <= 300 ? { band: spread } : {}),
        },
      ],
    }),
    add("KL from the warm start, nats per token", {
      xLabel: "step",
      size: SMALL,
      include: [0],
      series: [{ name: "KL", points: curves.curve("rl", "kl"), colour: COLOURS.control }],
    }),
    add("Entropy of the verbalizer, nats per token", {
      xLabel: "step",
      size: SMALL,
      include: [0],
      series: [{ name: "entropy", points: curves.curve("rl", "entropy"), colour: COLOURS.third }],
    }),
    add("Share of explanations that failed", {
      xLabel: "step",
      size: SMALL,
      include: [0],
      series: [
        { name: "rollouts", points: curves.curve("rl", "failed"), colour: COLOURS.second, look: "thin" },
        { name: "held out", points: curves.both("eval.failed"), colour: COLOURS.main, look: "dots" },
      ],
    }),
    add("Warm start: loss with real and shuffled activations", {
      xLabel: "step",
      size: SMALL,
      series: [
        { name: "real", points: curves.curve("av_sft", "loss_real"), colour: COLOURS.main, look: "dots" },
        {
          name: "shuffled",
          points: curves.curve("av_sft", "loss_shuffled"),
          colour: COLOURS.control,
          look: "dots",
        },
      ],
    }),
    add("Reconstructor's warm start: variance explained from labels", {
      xLabel: "step of its own",
      size: SMALL,
      include: [0],
      series: [
        { name: "held out", points: curves.curve("ar_sft", "eval.fve"), colour: COLOURS.main, look: "dots" },
      ],
    }),
  ].filter((each) => each !== "");
  const shown = figures.filter((each) => each !== "");
  if (shown.length + small.length === 0) return "";
  return `<h2>How it was trained</h2>
<p>The verbalizer first learns to repeat labels made from the text around a position; reinforcement learning then rewards whatever lets the reconstructor get the activation back.</p>
${shown.join("\n")}
<div class="pair">
${small.join("\n")}
</div>`;
}

function figure(title: string, series: readonly Series[], svg: string): string {
  const legend = series
    .filter(({ points }) => points.some(({ y }) => y !== null))
    .map(
      ({ name, colour }) => `<span class="swatch" style="background:${colour}"></span>${escapeHtml(name)}`,
    );
  const shown = legend.length > 1 ? ` ${legend.join("")}` : "";
  return `<figure><figcaption><b>${escapeHtml(title)}</b>${shown}</figcaption>${svg}</figure>`;
}

const STAGE_NAMES: Readonly<Record<string, string>> = {
  av_sft: "warm start",
  rl: "RL",
  ar_sft: "reconstructor",
};

function readings(histories: readonly SampleHistory[]): string {
  if (histories.length === 0) return "";
  const parts = histories.map(({ row, text, readings }) => {
    const rows = readings.map(({ stage, step, explanation, cosine }) => [
      `${STAGE_NAMES[stage] ?? stage} ${step}`,
      explanation,
      optional(cosine, 2),
    ]);
    const body = rows
      .map(
        ([at, said, cosine]) =>
          `<tr><td class="step">${escapeHtml(at as string)}</td><td class="said">${said === null || said === undefined ? '<span class="none">no explanation</span>' : escapeHtml(said)}</td><td class="n">${cosine}</td></tr>`,
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
      return `<tr><td>${name}</td><td class="n">${n}</td><td class="n">${mse.toFixed(3)}</td><td class="n">${optional(fve, 3)}</td><td style="width:40%">${bar}</td></tr>`;
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

function tableHtml(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = (row: readonly string[], tag: string) =>
    row.map((cell, i) => `<${tag}${i === 0 ? "" : ' class="n"'}>${escapeHtml(cell)}</${tag}>`).join("");
  const body = rows.map((row) => `<tr>${cells(row, "td")}</tr>`).join("");
  return `<div class="wide"><table><thead><tr>${cells(header, "th")}</tr></thead><tbody>${body}</tbody></table></div>`;
}

function percent(value: number): string {
  return `${(100 * value).toFixed(1)} %`.replace("-", "−");
}

function range([low, high]: Range): string {
  return `${low.toFixed(3)} to ${high.toFixed(3)}`;
}

function optional(value: number | null, digits: number): string {
  return value === null ? "–" : value.toFixed(digits);
}

/** 0 without a sign where rounding left a trace of one. */
function plainZero(value: number): string {
  return (Math.abs(value) < 5e-4 ? 0 : value).toFixed(3);
}
