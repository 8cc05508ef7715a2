// How `nla eval` prints claims on documents of the world: true shares and complete shares, beside every control. What is counted is
// evaluate/claim-report.ts.
import type { Interval } from "../evaluate/bootstrap.js";
import type { ClaimLine, ClaimReport } from "../evaluate/claim-report.js";
import type { ClaimScores } from "../evaluate/claims.js";
import { judgeWarmStart, WARM_GATE } from "../evaluate/warm-gate.js";
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
export function renderClaims({ lines, full_label_fve, at_warm_categories }: ClaimReport): string {
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
  return [
    overall,
    wrap(meaning, WIDTH).join("\n"),
    categoryTable(pair, warm),
    distances(pair),
    warm ? renderWarmGate(warm) : "",
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

function categoryTable({ scores }: ClaimLine, warm: ClaimLine | undefined): string {
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
      ],
    ];
  });
  const heads = [{ header: "greedy" }, right("facts"), right("claims"), right("precision"), right("recall")];
  const more = warm ? [right("warm: claims"), right("precision"), right("recall")] : [];
  return table([...heads, ...more], rows);
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

/** The warm start's gate with what was found; "" where it makes no such claim at that distance and there is nothing to judge. */
export function renderWarmGate({ scores }: Pick<ClaimLine, "scores">): string {
  const gate = judgeWarmStart(scores);
  if (!gate) return "";
  const wanted = `right at ${WARM_GATE.from} tokens and more in at least ${WARM_GATE.least.toFixed(2)}`;
  return `Gate of a warm start, test or real ${wanted}: ${gate.passed ? "pass" : "FAIL"}, ${interval(gate.precision)} of ${gate.claims} claims.`;
}

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
