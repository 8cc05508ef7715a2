// The report and its charts: what stands in them, that nothing breaks out of its place, and logs that are half there.
import { describe, expect, it } from "vitest";
import type { Evaluation } from "./evaluation.js";
import { renderReport } from "./report.js";
import type { ReportData } from "./report.js";
import { chartSvg, escapeHtml, niceTicks, shortNumber, thinned } from "./svg.js";
import { sampleHistories, trainingCurves } from "./training-curves.js";
import type { Row } from "./training-curves.js";

const EVALUATION: Evaluation = {
  n: 100,
  documents: 20,
  fve: 0.4567,
  fve_meannorm: 0.5,
  variance: 0.73,
  variance_meannorm: 0.9,
  mse: 0.4,
  cosine: 0.8,
  length: 12.3,
  failed: 0.02,
  intervals: { fve: [0.41, 0.49], shuffled_fve: [-0.4, -0.2], difference: [0.6, 0.9] },
  controls: { shuffled: { fve: -0.3, cosine: 0.1 }, mean: { fve: -1e-17 } },
  by_position: [
    { from: 0, to: 8, n: 40, fve: 0.3, mse: 0.5 },
    { from: 4096, to: null, n: 60, fve: null, mse: 0.4 },
  ],
};

const METRICS: Row[] = [
  ...Array.from({ length: 40 }, (_, step) => ({
    stage: "av_sft",
    step,
    loss: 3,
    ...(step % 10 === 9
      ? {
          eval: { fve: step / 100, shuffled_fve: -0.5, length: 10, failed: 0 },
          loss_real: 2,
          loss_shuffled: 3,
        }
      : {}),
  })),
  ...Array.from({ length: 10 }, (_, step) => ({
    stage: "rl",
    step,
    reward_mean: -1,
    reward_std: 0.2,
    kl: step === 3 ? "NaN" : step / 100,
    entropy: 1,
    fve: 0.3,
    length: 11,
    failed: 0,
    ...(step === 9 ? { eval: { fve: 0.45, shuffled_fve: -0.3, length: 12, failed: 0 } } : {}),
  })),
];

const SAMPLES: Row[] = ["av_sft", "rl"].flatMap((stage) =>
  [0, 1].map((row) => ({
    stage,
    step: 9,
    row,
    text: `<script>${row}</script> & "more"`,
    explanation: stage === "rl" ? "says </td> this" : null,
    mse: 0.5,
    cosine: 0.75,
  })),
);

const data = (changes: Partial<ReportData> = {}): ReportData => ({
  name: "quick<start>",
  model: "aidreams260K",
  layer: 2,
  evaluation: EVALUATION,
  sampled: { ...EVALUATION, fve: 0.31 },
  metrics: METRICS,
  samples: SAMPLES,
  config: "target: <x>\n",
  ...changes,
});

/** Every element that is opened is closed, in order; throws where one is not. */
function checkNesting(html: string): number {
  const open: string[] = [];
  let elements = 0;
  for (const [tag, close, name, self] of html.matchAll(/<(\/?)([a-z][a-z0-9]*)(?:\s[^<>]*?)?(\/?)>/g)) {
    if (self || name === "meta") continue;
    if (close) expect(open.pop(), tag).toBe(name);
    else {
      open.push(name as string);
      elements++;
    }
  }
  expect(open).toEqual([]);
  return elements;
}

describe("renderReport", () => {
  it("shows the numbers with intervals and controls, and asks for nothing", () => {
    const html = renderReport(data());
    for (const text of [
      "45.7\u00a0%",
      "0.410 to 0.490",
      "\u22120.300",
      "by construction",
      "0.310",
      "0.7300",
      "0.9000",
      "60.0 to 90.0 points",
    ]) {
      expect(html).toContain(text);
    }
    expect(html).not.toMatch(/src=|href=|url\(|@import|https?:|<script/);
    expect(checkNesting(html)).toBeGreaterThan(100);
  });

  it("keeps text in its place, whatever it holds", () => {
    const html = renderReport(data());
    expect(html).toContain("&lt;script&gt;0&lt;/script&gt; &amp; &quot;more&quot;");
    expect(html).toContain("says &lt;/td&gt; this");
    expect(html).toContain("quick&lt;start&gt;");
    expect(html).toContain("target: &lt;x&gt;");
  });

  it("says so where the control is not beaten", () => {
    const intervals = { ...EVALUATION.intervals, difference: [-0.01, 0.2] as const };
    const html = renderReport(data({ evaluation: { ...EVALUATION, intervals } }));
    expect(html).toContain("not clearly above zero");
    expect(renderReport(data())).not.toContain("not clearly above zero");
  });

  it("draws what there is: no log, no samples, no config, a run that is still in its warm start", () => {
    const bare = renderReport(data({ metrics: [], samples: [], config: null, sampled: null }));
    expect(bare).not.toContain("<svg");
    expect(bare).not.toContain("checkpoints");
    expect(bare).not.toContain("Configuration");
    checkNesting(bare);
    const warm = renderReport(data({ metrics: METRICS.filter(({ stage }) => stage === "av_sft") }));
    expect(warm).toContain("<svg");
    expect(warm).not.toContain("KL from");
    expect(warm).not.toContain("warm start ends");
    checkNesting(warm);
  });

  it("is the same for the same data", () => {
    expect(renderReport(data())).toBe(renderReport(data()));
  });
});

describe("trainingCurves", () => {
  const curves = trainingCurves(METRICS);

  it("counts steps from 1 and leaves a gap where a number was not finite", () => {
    expect(curves.curve("rl", "kl").slice(2, 5)).toEqual([
      { x: 3, y: 0.02 },
      { x: 4, y: null },
      { x: 5, y: 0.04 },
    ]);
    expect(curves.curve("av_sft", "eval.fve").map(({ x }) => x)).toEqual([10, 20, 30, 40]);
    expect(curves.curve("rl", "no.such")).toEqual([]);
  });

  it("gives each stage half of the shared axis", () => {
    expect(curves.steps).toEqual({ warm: 40, rl: 10 });
    expect(curves.both("eval.fve").map(({ x, where }) => [x, where])).toEqual([
      [0.25, "warm start step 10"],
      [0.5, "warm start step 20"],
      [0.75, "warm start step 30"],
      [1, "warm start step 40"],
      [2, "RL step 10"],
    ]);
    expect(curves.ticks).toContainEqual({ x: 0.5, text: "20" });
    expect(curves.ticks).toContainEqual({ x: 2, text: "10" });
  });
});

describe("sampleHistories", () => {
  it("follows each activation, its first and last reading always there", () => {
    const rows: Row[] = Array.from({ length: 50 }, (_, step) => ({
      stage: "rl",
      step,
      row: 7,
      text: "a",
      explanation: `${step}`,
    }));
    const [history] = sampleHistories(rows, { readings: 4 });
    expect(history?.row).toBe("7");
    expect(history?.readings.map(({ explanation }) => explanation)).toEqual(["0", "16", "33", "49"]);
    expect(history?.readings[0]).toMatchObject({ step: 1, cosine: null, mse: null });
    expect(sampleHistories(SAMPLES).map(({ readings }) => readings.length)).toEqual([2, 2]);
    expect(sampleHistories([])).toEqual([]);
  });
});

describe("charts", () => {
  it.each([
    [0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]],
    [-0.93, 0.7, [-1, -0.5, 0, 0.5, 1]],
    [3, 3, [3, 4]],
    [0, 0, [0, 0.2]],
    [0, 870, [0, 200, 400, 600, 800, 1000]],
    [1e-5, 4e-5, [1e-5, 2e-5, 3e-5, 4e-5]],
  ])("have round ticks around %d to %d", (low, high, ticks) => {
    const found = niceTicks(low, high);
    expect(found[0]).toBeLessThanOrEqual(low);
    expect(found.at(-1)).toBeGreaterThanOrEqual(high);
    expect(found).toEqual(ticks);
  });

  it("write numbers short", () => {
    expect([0, 0.1234, -2, 12345, 1e-5, 1e7].map(shortNumber)).toEqual([
      "0",
      "0.123",
      "\u22122",
      "12300",
      "1.0e-5",
      "1.0e+7",
    ]);
    expect(escapeHtml(`<a b="c">'&`)).toBe("&lt;a b=&quot;c&quot;&gt;&#39;&amp;");
  });

  it("average what they have no room for, gaps apart", () => {
    const points = Array.from({ length: 1000 }, (_, x) => ({ x, y: x % 10 === 0 ? null : x }));
    const thin = thinned(points, 100);
    expect(thin.length).toBe(100);
    expect(thin[3]).toEqual({ x: 34.5, y: 35 });
    expect(thinned([{ x: 1, y: null }], 100)).toEqual([{ x: 1, y: null }]);
  });

  it("break the line at a gap and stay inside their frame", () => {
    const points = [1, 2, null, 4, 5].map((y, x) => ({ x, y }));
    const svg = chartSvg({
      label: "a",
      xLabel: "step",
      series: [{ name: "s", colour: "red", points, look: "dots", band: [1, 1, 1, 1, 1] }],
    });
    expect(svg?.match(/<path d="([^"]*)"/)?.[1]?.match(/M/g)?.length).toBe(2);
    expect(svg?.match(/<circle/g)?.length).toBe(4);
    for (const [, cx, cy] of svg?.matchAll(/cx="([\d.-]+)" cy="([\d.-]+)"/g) ?? []) {
      expect(Number(cx)).toBeGreaterThanOrEqual(56);
      expect(Number(cx)).toBeLessThanOrEqual(704);
      expect(Number(cy)).toBeGreaterThanOrEqual(20);
      expect(Number(cy)).toBeLessThanOrEqual(260);
    }
    expect(svg).not.toContain("NaN");
  });

  it("are none where there is no number, and one point where there is one", () => {
    expect(
      chartSvg({
        label: "a",
        xLabel: "x",
        series: [{ name: "s", colour: "red", points: [{ x: 1, y: null }] }],
      }),
    ).toBeNull();
    const one = chartSvg({
      label: "a",
      xLabel: "x",
      series: [{ name: "s", colour: "red", points: [{ x: 1, y: 2 }], look: "dots" }],
    });
    expect(one).toContain("<circle");
    expect(one).not.toContain("NaN");
  });
});
