// How `nla eval` prints claims on documents of the world: true shares and complete shares, beside every control. What is counted is
// evaluate/claim-report.ts.
import type { Interval } from "../evaluate/bootstrap.js";
import type { ClaimLine, ClaimReport, WarmGate } from "../evaluate/claim-report.js";
import type { ClaimScores } from "../evaluate/claims.js";
import { FORMS } from "../evaluate/code-alarm.js";
import { CATEGORIES } from "../world/facts.js";
import type { Category } from "../world/facts.js";
import { table, wrap } from "./table.js";

const WIDTH = 100;

const right = (header: string) => ({ header, align: "right" as const });

function interval(of: Interval | null | undefined): string {
  return of ? `${of.value.toFixed(3)} (${of.low.toFixed(3)} to ${of.high.toFixed(3)})` : "-";
}

function plain(of: Interval | null | undefined, digits = 2): string {
  return of ? of.value.toFixed(digits) : "-";
}

/** The claims part of an evaluation as text. */
export function renderClaims({
  lines,
  full_label_fve,
  at_warm_categories,
  gate,
  code,
  equal_claims = [],
  equal_tokens = [],
  probes = [],
}: ClaimReport): string {
  const [pair] = lines;
  if (!pair) return "";
  const warm = lines.find(({ name }) => name === "warm start, greedy");
  const overall = table(
    [
      { header: "claims" },
      right("FVE"),
      right("precision"),
      right("recall"),
      right("F1"),
      right("claims"),
      right("tokens"),
      right("unparsed"),
    ],
    lines.map(({ name, fve, tokens, scores }) => [
      name,
      fve?.toFixed(3) ?? "",
      interval(scores?.overall.precision),
      interval(scores?.overall.recall),
      plain(scores?.overall.f1, 3),
      plain(scores?.sentences, 1),
      tokens?.toFixed(1) ?? "",
      scores ? `${(100 * scores.unparsed.value).toFixed(1)} %` : "-",
    ]),
  );
  const meaning =
    "Precision is the share of claims that are true, of those that the text decides; recall is the share of the facts true at a token that are named; " +
    "both over the same tokens, 95 % by bootstrap over documents. " +
    `The reconstructor reaches an FVE of ${full_label_fve.toFixed(3)} from the complete true label.` +
    (at_warm_categories
      ? ` At the warm start's mix of categories, greedy precision is ${at_warm_categories.trained.toFixed(3)}, against its own ${at_warm_categories.warm.toFixed(3)}: what is more than that comes from choosing what to say.`
      : "");
  const gated = gate ? wrap(gateText(gate), WIDTH).join("\n") : "";
  return [
    overall,
    equalText(equal_claims, "claims"),
    equalText(equal_tokens, "tokens"),
    code ? codeText(code) : "",
    wrap(meaning, WIDTH).join("\n"),
    gated,
    categoryTable(pair, warm, probes),
    distances(pair),
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

const MADE_EQUAL = {
  claims: {
    header: "at as many claims",
    how: "Of each token's two explanations the first claims alone, as many of both as the shorter one has.",
  },
  tokens: {
    header: "at equal length",
    how: "Of each token's two explanations the longer one alone is cut, after the claim that brings it nearest to the other's length.",
  },
} as const;

/** The pair and its warm start, explanations cut until they have as many claims, or tokens. */
function equalText(compared: NonNullable<ClaimReport["equal_claims"]>, by: keyof typeof MADE_EQUAL): string {
  if (compared.length === 0) return "";
  const { header, how } = MADE_EQUAL[by];
  const rows = compared.flatMap(({ name, claims, claims_warm = claims, trained, warm, gained }) => {
    const numbers = ({ fve, precision, recall, tokens }: typeof trained, said: number) =>
      [fve, precision, recall].map((value) => value.toFixed(3)).concat(said.toFixed(2), tokens.toFixed(1));
    const { fve, interval: fveRange } = gained.fve;
    const gain = [
      `${fve.toFixed(3)} (${fveRange.map((end) => end.toFixed(3)).join(" to ")})`,
      interval(gained.precision),
      interval(gained.recall),
      "",
      "",
    ];
    return [
      [`${name}: after RL`, ...numbers(trained, claims)],
      ["  warm start", ...numbers(warm, claims_warm)],
      ["  gained", ...gain],
    ];
  });
  const heads = [
    { header },
    right("FVE"),
    right("precision"),
    right("recall"),
    right("claims"),
    right("tokens"),
  ];
  return `${table(heads, rows)}\n${wrap(`${how} 95 % of the gain over documents.`, WIDTH).join("\n")}`;
}

/** What the same claims in other forms cost, and the alarm where fidelity comes from something else than what is claimed. */
function codeText({ forms, warm, alarms }: NonNullable<ClaimReport["code"]>): string {
  const rows = forms.map(({ form, fve, loss, interval: [low, high] }) => [
    `${form}: ${FORMS[form]}`,
    fve.toFixed(3),
    `${loss.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`,
    ...(warm.length > 0 ? [warm.find((each) => each.form === form)?.loss.toFixed(3) ?? "-"] : []),
  ]);
  const heads = [{ header: "the same claims" }, right("FVE"), right("FVE lost")];
  const body = table([...heads, ...(warm.length > 0 ? [right("warm start's")] : [])], rows);
  const verdict =
    alarms.length > 0
      ? `ALARM, this pair may speak a code of its own: ${alarms.join("; ")}.`
      : "No alarm: what comes back does so from what is claimed, however it is said.";
  return `${body}\n${wrap(verdict, WIDTH).join("\n")}`;
}

function gateText({ category, from, least, claims, precision, passed }: WarmGate): string {
  const found =
    claims === 0
      ? "it makes none"
      : `${claims} claims, ${interval(precision)} right: ${passed ? "pass" : "FAIL"}`;
  return `Gate of the warm start, before RL: greedy claims of ${category} or real at ${from} tokens and more since the text showed it, at least ${least.toFixed(2)} right. ${found}.`;
}

function categoryTable(
  { scores }: ClaimLine,
  warm: ClaimLine | undefined,
  probes: NonNullable<ClaimReport["probes"]>,
): string {
  if (!scores) return "";
  const rows = CATEGORIES.flatMap((category) => {
    const own = scores.categories[category];
    if (own.facts === 0) return [];
    const before = warm?.scores?.categories[category];
    return [
      [
        category as string,
        String(own.facts),
        String(own.claims),
        interval(own.precision),
        interval(own.recall),
        ...(warm ? [`${before?.claims ?? 0}`, plain(before?.precision), plain(before?.recall)] : []),
        ...(probes.length > 0 ? [probeCell(probes.find((each) => each.category === category))] : []),
      ],
    ];
  });
  const heads = [{ header: "greedy" }, right("facts"), right("claims"), right("precision"), right("recall")];
  const more = warm ? [right("warm: claims"), right("precision"), right("recall")] : [];
  const probed = probes.length > 0 ? [right("probe | shuffled")] : [];
  return table([...heads, ...more, ...probed], rows);
}

function probeCell(probe: NonNullable<ClaimReport["probes"]>[number] | undefined): string {
  return probe ? `${interval(probe.accuracy)} | ${probe.control.toFixed(2)}` : "-";
}

/** Facts that the text near the token no longer shows. */
const CARRIED: ReadonlySet<Category> = new Set([
  "test",
  "motive",
  "aim",
  "topic",
  "name",
  "age",
  "job",
  "place",
  "mood",
  "goal",
  "object",
]);

function distances({ scores }: { readonly scores: ClaimScores | null }): string {
  const found = (scores?.byDistance ?? []).filter(({ category }) => CARRIED.has(category));
  const categories = CATEGORIES.filter((category) => found.some((each) => each.category === category));
  if (categories.length === 0) return "";
  const froms = [...new Set(found.map(({ from }) => from))].sort((a, b) => a - b);
  const rows = categories.map((category) =>
    [category as string].concat(
      froms.map((from) => {
        const cell = found.find((each) => each.category === category && each.from === from);
        return cell ? `${interval(cell.precision)} of ${cell.claims}` : "-";
      }),
    ),
  );
  const heads = froms.map((from, i) => {
    const to = froms[i + 1];
    return right(to === undefined ? `${from} and more` : `${from} to ${to - 1}`);
  });
  return `Right claims by tokens since the text showed the fact:\n${table([{ header: "greedy" }, ...heads], rows)}`;
}
