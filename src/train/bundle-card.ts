// The card of the bundle: what it is, how it was made, its numbers with their controls. Text only; the numbers come from bundle.ts.
import type { Interval } from "../evaluate/bootstrap.js";
import type { FormLoss } from "../evaluate/code-alarm.js";
import { CATEGORIES } from "../world/facts.js";
import type { BundleCard, Measured } from "./bundle.js";
import { renderConfig } from "./config.js";
import type { TrainConfig } from "./config.js";

const three = (value: number) => value.toFixed(3);

function measured({ value, interval }: Measured): string {
  return `${three(value)} (${three(interval[0])} to ${three(interval[1])})`;
}

function interval(of: Interval | null | undefined): string {
  return of ? `${three(of.value)} (${three(of.low)} to ${three(of.high)})` : "-";
}

function line(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}

function tableOf(header: readonly string[], rows: readonly (readonly string[])[]): string {
  return [line(header), line(header.map(() => "---")), ...rows.map(line)].join("\n");
}

/** The warm start's gate and the alarm for a private code, where they were measured: cards of before have neither. */
function warningsOf({ gate, code }: BundleCard["claims"]): string {
  const gated = gate
    ? `Gate of the warm start: its greedy claims of ${gate.category} or real, ${gate.from} tokens and more after the cue, at least ${gate.least.toFixed(2)} right: ${interval(gate.precision)} of ${gate.claims}, ${gate.passed ? "pass" : "FAIL"}.\n\n`
    : "";
  const coded = code
    ? `The same claims said otherwise cost FVE: ${losses(code.forms)}${code.warm.length > 0 ? ` (the warm start: ${losses(code.warm)})` : ""}. ${code.alarms.length > 0 ? `ALARM: ${code.alarms.join("; ")}` : "No alarm for a code of the pair's own"}.\n\n`
    : "";
  return `${gated}${coded}`;
}

function losses(forms: readonly FormLoss[]): string {
  return forms.map(({ form, loss }) => `${form} ${three(loss)}`).join(", ");
}

/** The pair and its warm start with as many claims each; cards of before have none. */
function equalTable({ equal_claims: compared = [] }: BundleCard["claims"]): string {
  if (compared.length === 0) return "";
  const rows = compared.flatMap(({ name, claims, trained, warm, gained }) => {
    const numbers = ({ fve, precision, recall, tokens }: typeof trained) =>
      [fve, precision, recall].map(three).concat(claims.toFixed(1), tokens.toFixed(1));
    const [fve, precision, recall] = [
      measured({ value: gained.fve.fve, interval: gained.fve.interval }),
      interval(gained.precision),
      interval(gained.recall),
    ];
    return [
      [`${name}, after RL`, ...numbers(trained)],
      [`${name}, warm start`, ...numbers(warm)],
      [`${name}, gained`, fve, precision, recall, "", ""],
    ];
  });
  const header = ["at as many claims", "FVE", "precision", "recall", "claims each", "tokens"];
  return `\nOf each token's two explanations only as many sentences as the shorter one has, the first of both:\n\n${tableOf(header, rows)}\n`;
}

/** The card as Markdown. */
export function renderCard(card: BundleCard, config: TrainConfig): string {
  const { claims, probes, target, fve } = card;
  const [greedy] = claims.lines;
  const warm = claims.lines.find(({ name }) => name === "warm start, greedy");
  const lines = claims.lines.map(({ name, fve: reached, tokens, scores }) => [
    // The second of two lines about one control is indented, which a Markdown table does not show.
    name.replace(/^ +/, "the same, "),
    reached === null ? "-" : three(reached),
    interval(scores?.overall.precision),
    interval(scores?.overall.recall),
    scores ? scores.sentences.value.toFixed(1) : "-",
    tokens === null ? "-" : tokens.toFixed(1),
    scores ? `${(100 * scores.unparsed.value).toFixed(1)} %` : "-",
  ]);
  const categories = CATEGORIES.flatMap((category) => {
    const own = greedy?.scores?.categories[category];
    if (!own || own.facts === 0) return [];
    const probe = probes.find((each) => each.category === category);
    const before = warm?.scores?.categories[category];
    return [
      [
        category,
        String(own.facts),
        String(own.claims),
        interval(own.precision),
        interval(own.recall),
        before ? `${before.claims}: ${interval(before.precision)}` : "-",
        probe ? `${interval(probe.accuracy)}; shuffled ${probe.control.toFixed(2)}` : "-",
      ],
    ];
  });
  const gates = probes.flatMap(({ gate, category }) => {
    if (!gate) return [];
    const range = gate.to === null ? `${gate.from} tokens and more` : `below ${gate.to} tokens`;
    return [
      [
        category,
        range,
        gate.least.toFixed(2),
        interval(gate.accuracy),
        gate.control.toFixed(2),
        gate.passed ? "pass" : "FAIL",
      ],
    ];
  });
  return `# Smallworld: a target and an NLA of it

A Llama of 0.9 million parameters that was trained on documents of Smallworld (docs/world.md), and the verbalizer and reconstructor that
read the output of its block ${config.layer}. All in BF16. Made by the steps of \`npm run smallworld\` on ${card.made}, on ${card.machine}, one seed.

It is here to show and to test the tools on facts that are known. The target was trained with a future loss that makes it carry what its
document is about (docs/target.md), so nothing here says what larger models carry by themselves.

## Target

${target.steps} steps; held-out loss ${three(target.loss)} nats per token, the least possible ${three(target.bound)}. Linear probes at the NLA's layer, on held-out documents:

${tableOf(["gate", "tokens since the text showed it", "wanted", "found (95 %)", "shuffled labels", ""], gates)}

## NLA

${card.rows.documents} documents that were in no training set, ${card.rows.positions} tokens each; intervals resample documents (95 %).
FVE greedy ${measured(fve.greedy)}, at T=1 ${measured(fve.sampled)}, of the warm start (greedy) ${measured(fve.warm)}, with another document's explanation ${measured(card.shuffled_fve)}.
The reconstructor reaches ${three(claims.full_label_fve)} from the complete true label.

${tableOf(["claims", "FVE", "precision", "recall", "claims each", "tokens", "unparsed"], lines)}
${
  claims.at_warm_categories
    ? `\nAt the warm start's mix of categories the trained pair's precision is ${three(claims.at_warm_categories.trained)}, the warm start's ${three(claims.at_warm_categories.warm)}: the rest of the gain is choosing what to say.\n`
    : ""
}${equalTable(claims)}
${warningsOf(claims)}By category, greedy, beside the warm start (claims: precision) and a linear probe of the same layer (accuracy where the fact holds):

${tableOf(["fact", "facts", "claims", "precision", "recall", "warm start", "probe"], categories)}

The log of both trainings is in training/. The config of the NLA:

\`\`\`yaml
${renderConfig(config).trimEnd()}
\`\`\`
`;
}
