// The part of the report about training: charts of what was logged at each step.
import type { Evaluation } from "./evaluation.js";
import { rangeText } from "./report-text.js";
import { chartSvg, escapeHtml } from "./svg.js";
import type { Chart, Series } from "./svg.js";
import type { TrainingCurves } from "./training-curves.js";

const COLOURS = { main: "var(--a)", control: "var(--b)", second: "var(--c)", third: "var(--d)" };
const SMALL = { width: 360, height: 210 };

/** How the numbers moved while the pair was trained; empty without a log. */
export function trainingSection(curves: TrainingCurves, { fve, intervals }: Evaluation): string {
  const { warm, rl } = curves.steps;
  const shared = {
    marks: warm > 0 && rl > 0 ? [{ x: 1, text: "warm start ends" }] : [],
    xTicks: curves.ticks,
    xLabel: "step of the verbalizer's warm start, then of reinforcement learning",
  };
  const figures: string[] = [];
  figures.push(
    drawn("Variance explained over training", {
      ...shared,
      include: [0],
      final: {
        low: intervals.fve[0],
        value: fve,
        high: intervals.fve[1],
        text: `final: ${fve.toFixed(3)}, 95 % ${rangeText(intervals.fve)}`,
      },
      series: [
        { name: "rollouts", points: curves.along("rl", "fve"), colour: COLOURS.second, look: "thin" },
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
    drawn("Length of explanations, tokens", {
      ...shared,
      xLabel: "step of either stage",
      size: SMALL,
      include: [0],
      series: [
        { name: "rollouts", points: curves.along("rl", "length"), colour: COLOURS.second, look: "thin" },
        { name: "held out", points: curves.both("eval.length"), colour: COLOURS.main, look: "dots" },
      ],
    }),
    drawn("Reward, mean and one standard deviation", {
      xLabel: "step of reinforcement learning",
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
    drawn("KL from the warm start, nats per token", {
      xLabel: "step of reinforcement learning",
      size: SMALL,
      include: [0],
      series: [{ name: "KL", points: curves.curve("rl", "kl"), colour: COLOURS.control }],
    }),
    drawn("Entropy of the verbalizer, nats per token", {
      xLabel: "step of reinforcement learning",
      size: SMALL,
      include: [0],
      series: [{ name: "entropy", points: curves.curve("rl", "entropy"), colour: COLOURS.third }],
    }),
    drawn("Share of explanations that failed", {
      ...shared,
      xLabel: "step of either stage",
      size: SMALL,
      include: [0],
      series: [
        { name: "rollouts", points: curves.along("rl", "failed"), colour: COLOURS.second, look: "thin" },
        { name: "held out", points: curves.both("eval.failed"), colour: COLOURS.main, look: "dots" },
      ],
    }),
    drawn("Warm start: loss with real and shuffled activations", {
      xLabel: "step of the warm start",
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
    drawn("Reconstructor's warm start: variance explained from labels", {
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

function drawn(title: string, chart: Omit<Chart, "label">): string {
  const svg = chartSvg({ ...chart, label: title });
  return svg === null ? "" : figure(title, chart.series, svg);
}

function figure(title: string, series: readonly Series[], svg: string): string {
  const legend = series
    .filter(({ points }) => points.some(({ y }) => y !== null))
    .map(
      ({ name, colour }) =>
        `<span class="name"><span class="swatch" style="background:${colour}"></span>${escapeHtml(name)}</span>`,
    );
  const shown = legend.length > 1 ? ` ${legend.join("")}` : "";
  return `<figure><figcaption><b>${escapeHtml(title)}</b>${shown}</figcaption>${svg}</figure>`;
}
