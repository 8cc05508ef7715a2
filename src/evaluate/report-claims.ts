// The informativeness part of a report on documents of the world: how true and how complete explanations became over training, by
// category, what the controls say, and an explanation with each claim marked. Empty for other corpora.
import { checkClaims, parseExplanation } from "../world/claims.js";
import type { Verdict } from "../world/claims.js";
import { isWorldDocument, worldDocumentOf } from "../world/corpus.js";
import { CATEGORIES } from "../world/facts.js";
import type { Interval } from "./bootstrap.js";
import type { ClaimReport } from "./claim-report.js";
import { FORMS } from "./code-alarm.js";
import type { FormLoss } from "./code-alarm.js";
import { decimal, percent, tableHtml } from "./report-text.js";
import { chartSvg, escapeHtml } from "./svg.js";
import type { TrainingCurves } from "./training-curves.js";

const SMALL = { width: 230, height: 150 };

const VERDICTS: Readonly<Record<Verdict, { readonly sign: string; readonly title: string }>> = {
  true: { sign: "✓", title: "true" },
  false: { sign: "✗", title: "false" },
  undecided: { sign: "?", title: "not decided by the text so far" },
  unparsed: { sign: "~", title: "no claim" },
};

/** Styles of marked claims. */
export const CLAIM_STYLE = `
.claim { border-bottom: 2px solid var(--rule); } .claim b { font: 12px ui-sans-serif, system-ui, sans-serif; margin-right: .15em; }
.claim.true { border-color: var(--d); } .claim.true b { color: var(--d); }
.claim.false { border-color: var(--b); } .claim.false b { color: var(--b); }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 0 1.2rem; } .small figure { margin: .6rem 0; min-width: 0; }
`.trim();

/** An explanation as HTML, each claim marked; null where the truth is not known. @param position counts BOS */
export function markedExplanation(docId: unknown, position: unknown, text: string): string | null {
  if (typeof docId !== "string" || typeof position !== "number" || !isWorldDocument(docId)) return null;
  const document = worldDocumentOf(docId);
  if (!(position >= 1 && position <= document.words.length)) return null; // a log of another version's world
  return checkClaims(parseExplanation(text), document, position - 1)
    .map(({ sentence, verdict }) => {
      const { sign, title } = VERDICTS[verdict];
      return `<span class="claim ${verdict}" title="${title}"><b>${sign}</b>${escapeHtml(sentence)}</span>`;
    })
    .join(" ");
}

function swatch(name: string, colour: string): string {
  return `<span class="name"><span class="swatch" style="background:${colour}"></span>${name}</span>`;
}

/** The section; empty without claims. */
export function claimsSection(curves: TrainingCurves, claims: ClaimReport | null): string {
  if (!claims) return "";
  const axis = {
    marks: curves.steps.warm > 0 && curves.steps.rl > 0 ? [{ x: 1, text: "warm start ends" }] : [],
    xTicks: curves.ticks,
    include: [0],
  };
  const series = (prefix: string) => [
    {
      name: "precision",
      points: curves.both(`${prefix}.precision`),
      colour: "var(--d)",
      look: "dots" as const,
    },
    { name: "recall", points: curves.both(`${prefix}.recall`), colour: "var(--c)", look: "dots" as const },
  ];
  const overall = chartSvg({
    ...axis,
    label: "Precision, recall and variance explained over training",
    xLabel: "step of the verbalizer's warm start, then of reinforcement learning",
    series: [
      { name: "FVE", points: curves.both("eval.fve"), colour: "var(--a)", look: "dots" },
      ...series("eval.claims"),
    ],
  });
  const said = new Set(
    CATEGORIES.filter((category) =>
      curves.both(`eval.claims.categories.${category}.said`).some(({ y }) => (y ?? 0) >= 0.05),
    ),
  );
  const small = CATEGORIES.filter((category) => said.has(category)).flatMap((category) => {
    const svg = chartSvg({
      ...axis,
      xTicks: [],
      label: `${category}: precision and recall over training`,
      xLabel: "",
      size: SMALL,
      series: series(`eval.claims.categories.${category}`),
    });
    return svg === null
      ? []
      : [`<figure><figcaption><b>${escapeHtml(category)}</b></figcaption>${svg}</figure>`];
  });
  const legend = swatch("precision", "var(--d)") + swatch("recall", "var(--c)");
  const figures =
    overall === null
      ? ""
      : `<figure><figcaption><b>Precision, recall and variance explained over training, greedy</b> ${swatch("FVE", "var(--a)")}${legend}</figcaption>${overall}</figure>
<figure><figcaption><b>By category</b> ${legend}</figcaption></figure><div class="small">${small.join("\n")}</div>`;
  return `<h2>How informative the explanations are</h2>
<p>These documents come from a program that knows all that is true of them, so every claim is held against the truth: precision is the share of claims that are true, recall the share of true facts that are named.</p>
${figures}
${controlTable(claims)}
${equalSections(claims)}
${codeSection(claims)}
${categoryTable(claims)}`;
}

function interval(of: Interval | null | undefined): string {
  return of ? `${decimal(of.value, 3)} (${decimal(of.low, 3)} to ${decimal(of.high, 3)})` : "–";
}

function controlTable({ lines, full_label_fve, at_warm_categories }: ClaimReport): string {
  const rows = lines.map(({ name, fve, tokens, scores }) => [
    name,
    fve === null ? "" : decimal(fve, 3),
    interval(scores?.overall.precision),
    interval(scores?.overall.recall),
    scores ? decimal(scores.sentences.value, 1) : "–",
    tokens === null ? "" : decimal(tokens, 1),
    scores ? percent(scores.unparsed.value) : "–",
  ]);
  const choosing = at_warm_categories
    ? ` With the warm start's mix of categories the trained pair's precision is ${decimal(at_warm_categories.trained, 3)}, the warm start's ${decimal(at_warm_categories.warm, 3)}: what is gained beyond that comes from choosing what to say.`
    : "";
  return `<h3>Beside the controls</h3>
${tableHtml(["", "FVE", "precision", "recall", "claims", "tokens", "unparsed"], rows)}
<p>Explanations of another document's activation, of the mean activation and of random directions are held against this token's truth: what they reach is what can be said without reading. The reconstructor reaches an FVE of ${decimal(full_label_fve, 3)} from the complete true label.${choosing} A rising share of unparsed sentences is language turning into a private code.</p>`;
}

/** The pair beside its warm start, both cut to as many claims at each token, and to equal length. */
function equalSections({ equal_claims = [], equal_tokens = [] }: ClaimReport): string {
  const claims = equalSection(
    equal_claims,
    "At an equal number of claims",
    "Who says more has more recall by that alone. Here each token's two explanations are cut to as many claims as the shorter one has, the first ones of both.",
  );
  const tokens = equalSection(
    equal_tokens,
    "At equal length",
    "Some claims take more words than others. Here the longer of each token's two explanations is cut after the claim that brings it nearest to the other's length.",
  );
  return `${claims}${tokens}`;
}

function equalSection(
  compared: NonNullable<ClaimReport["equal_claims"]>,
  title: string,
  how: string,
): string {
  if (compared.length === 0) return "";
  const rows = compared.flatMap(({ name, claims, claims_warm = claims, trained, warm, gained }) => {
    const numbers = ({ fve, precision, recall, tokens }: typeof trained, said: number) => [
      ...[fve, precision, recall].map((value) => decimal(value, 3)),
      decimal(said, 2),
      decimal(tokens, 1),
    ];
    const [low, high] = gained.fve.interval;
    const fve = `${decimal(gained.fve.fve, 3)} (${decimal(low, 3)} to ${decimal(high, 3)})`;
    return [
      [`${name}: trained`, ...numbers(trained, claims)],
      [`${name}: warm start`, ...numbers(warm, claims_warm)],
      [`${name}: gained`, fve, interval(gained.precision), interval(gained.recall), "", ""],
    ];
  });
  return `<h3>${title}</h3>
${tableHtml(["", "FVE", "precision", "recall", "claims", "tokens"], rows)}
<p>${how}</p>`;
}

function lossText(of: FormLoss | undefined): string {
  return of ? decimal(of.loss, 3) : "–";
}

/** The same claims in other forms, and the alarm. */
function codeSection({ code }: ClaimReport): string {
  if (!code) return "";
  const rows = code.forms.map(({ form, fve, loss, interval: [low, high] }) => [
    `${form}: ${FORMS[form]}`,
    decimal(fve, 3),
    `${decimal(loss, 3)} (${decimal(low, 3)} to ${decimal(high, 3)})`,
    lossText(code.warm.find((each) => each.form === form)),
  ]);
  const verdict =
    code.alarms.length > 0
      ? `<p><b>Alarm: this pair may speak a code of its own.</b> ${escapeHtml(code.alarms.join("; "))}.</p>`
      : "<p>No alarm: what comes back does so from what is claimed, however it is said.</p>";
  return `<h3>The same claims, said otherwise</h3>
${tableHtml(["", "FVE", "FVE lost", "warm start's loss"], rows)}
${verdict}`;
}

function categoryTable({ lines, probes = [] }: ClaimReport): string {
  const scores = lines[0]?.scores;
  if (!scores) return "";
  const warm = lines.find(({ name }) => name.startsWith("warm start, greedy"))?.scores;
  const rows = CATEGORIES.flatMap((category) => {
    const own = scores.categories[category];
    if (own.facts === 0) return [];
    const before = warm?.categories[category];
    const counts = [String(own.facts), String(own.claims)];
    return [
      [String(category)].concat(
        counts,
        interval(own.precision),
        interval(own.recall),
        interval(before?.precision),
        ...(probes.length > 0 ? [interval(probes.find((each) => each.category === category)?.accuracy)] : []),
      ),
    ];
  });
  return `<h3>By category, greedy</h3>
${tableHtml(["fact", "facts", "claims", "precision", "recall", "warm start's precision", ...(probes.length > 0 ? ["linear probe"] : [])], rows)}`;
}
