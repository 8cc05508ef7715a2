// Explanations of a world whose truth is known, counted: precision, recall and F1 per category and overall, confabulated and unparsed
// shares, each with an interval that resamples documents. A claim is checked in world/claims.ts; nothing here reads text.
import { NlaError } from "../error.js";
import { checkClaims, parseExplanation } from "../world/claims.js";
import { CATEGORIES, truthAt } from "../world/facts.js";
import type { Category, WorldDocument } from "../world/facts.js";
import { bootstrapRatio } from "./bootstrap.js";
import type { BootstrapOptions, Interval, RatioRow } from "./bootstrap.js";

/** One explanation of one token. */
export interface ExplainedToken {
  readonly document: WorldDocument;
  readonly position: number;
  readonly explanation: string;
}

/** How well a category's facts were named. An interval is null where nothing was there to divide by. */
export interface CategoryScore {
  /** Claims that are true or false, each counted once per explanation. */
  readonly claims: number;
  /** Facts that were true and evident at the tokens. */
  readonly facts: number;
  /** True claims of all that are true or false. */
  readonly precision: Interval | null;
  /** True claims of all facts. */
  readonly recall: Interval | null;
  /** 2 true / (claims + facts), the harmonic mean of the two. */
  readonly f1: Interval | null;
}

/** The scores of a set of explanations. */
export interface ClaimScores {
  readonly explanations: number;
  readonly documents: number;
  readonly overall: CategoryScore;
  readonly categories: Readonly<Record<Category, CategoryScore>>;
  /** False claims of all sentences. */
  readonly confabulated: Interval;
  /** Sentences that are no claim, of all sentences. */
  readonly unparsed: Interval;
  /** Sentences that repeat a claim of the same explanation, of all sentences. */
  readonly repeated: Interval;
  /** Claims that the text decides only later, or that name no value, of all sentences. */
  readonly undecided: Interval;
  /** Sentences per explanation. */
  readonly sentences: Interval;
  /** Right claims of those that are true or false, by how far back the category's evidence lies. */
  readonly byDistance: readonly DistanceScore[];
}

/** Precision within a stretch of distances. */
export interface DistanceScore {
  readonly category: Category;
  /** Tokens since the evidence: from, and below `to` (null: without end). */
  readonly from: number;
  readonly to: number | null;
  readonly claims: number;
  readonly precision: Interval;
}

/** Where distances are cut: within a 12-word window, within three, and beyond. */
const DISTANCES = [0, 12, 36] as const;

interface Counted {
  readonly docId: string;
  readonly sentences: number;
  readonly unparsed: number;
  readonly repeated: number;
  readonly undecided: number;
  readonly tallies: ReadonlyMap<Category, Tally>;
  readonly decided: readonly { category: Category; right: boolean; distance: number | null }[];
}

interface Tally {
  right: number;
  wrong: number;
  facts: number;
}

/**
 * Scores explanations against the truth at their tokens.
 *
 * @throws NlaError `claims.rows` for no explanation, or none with a sentence; `world.position` for a token outside its document
 */
export function scoreClaims(rows: readonly ExplainedToken[], options: BootstrapOptions): ClaimScores {
  const counted = rows.map(count);
  const sentences = counted.reduce((sum, row) => sum + row.sentences, 0);
  if (sentences === 0) {
    throw new NlaError({
      code: "claims.rows",
      subject: "claims",
      found: `${rows.length} explanations with no sentence`,
      wanted: "at least one sentence",
      next: "Check what the verbalizer wrote; nothing can be counted in it.",
    });
  }
  const share = (of: (row: Counted) => number): Interval =>
    bootstrapRatio(
      counted
        .map((row) => ({ docId: row.docId, numerator: of(row), denominator: row.sentences }))
        .filter(({ denominator }) => denominator > 0), // an explanation without a sentence has no share of anything
      options,
    );
  return {
    explanations: rows.length,
    documents: new Set(counted.map(({ docId }) => docId)).size,
    overall: scoreOf(counted, CATEGORIES, options),
    categories: Object.fromEntries(
      CATEGORIES.map((category) => [category, scoreOf(counted, [category], options)]),
    ) as Record<Category, CategoryScore>,
    confabulated: share(wrongOf),
    unparsed: share((row) => row.unparsed),
    repeated: share((row) => row.repeated),
    undecided: share((row) => row.undecided),
    sentences: bootstrapRatio(
      counted.map((row) => ({ docId: row.docId, numerator: row.sentences, denominator: 1 })),
      options,
    ),
    byDistance: CATEGORIES.flatMap((category) => byDistance(counted, category, options)),
  };
}

function wrongOf({ tallies }: Counted): number {
  return [...tallies.values()].reduce((sum, { wrong }) => sum + wrong, 0);
}

/** One explanation's claims and facts. */
export interface ClaimCounts {
  readonly docId: string;
  /** True claims. */
  readonly right: number;
  /** Claims that are true or false, each counted once. */
  readonly claims: number;
  /** Facts that were true and evident at the token. */
  readonly facts: number;
}

/** The counts that precision and recall are ratios of, explanation by explanation. @throws NlaError `world.position` */
export function claimCounts(rows: readonly ExplainedToken[]): ClaimCounts[] {
  return sumsOver(rows.map(count), CATEGORIES);
}

function count({ document, position, explanation }: ExplainedToken): Counted {
  const tallies = new Map<Category, Tally>();
  const tallyOf = (category: Category): Tally => {
    const tally = tallies.get(category) ?? { right: 0, wrong: 0, facts: 0 };
    tallies.set(category, tally);
    return tally;
  };
  for (const { category } of truthAt(document, position)) tallyOf(category).facts++;
  const checked = checkClaims(parseExplanation(explanation), document, position);
  const decided: { category: Category; right: boolean; distance: number | null }[] = [];
  let [unparsed, repeated, undecided] = [0, 0, 0];
  for (const claim of checked) {
    if (claim.category === null) unparsed++;
    else if (claim.repeated) repeated++;
    else if (claim.verdict === "undecided") undecided++;
    else {
      const right = claim.verdict === "true";
      tallyOf(claim.category)[right ? "right" : "wrong"]++;
      decided.push({ category: claim.category, right, distance: claim.distance });
    }
  }
  const docId = `${document.seed}/${document.kind}/${document.index}`;
  return { docId, sentences: checked.length, unparsed, repeated, undecided, tallies, decided };
}

function scoreOf(
  counted: readonly Counted[],
  categories: readonly Category[],
  options: BootstrapOptions,
): CategoryScore {
  const rows = sumsOver(counted, categories);
  const ratio = (of: (row: (typeof rows)[number]) => Omit<RatioRow, "docId">): Interval | null => {
    // Documents without any of it would make resamples that divide by nothing.
    const pairs = rows.map((row) => ({ docId: row.docId, ...of(row) })).filter((row) => row.denominator > 0);
    return pairs.length === 0 ? null : bootstrapRatio(pairs, options);
  };
  return {
    claims: rows.reduce((sum, { claims }) => sum + claims, 0),
    facts: rows.reduce((sum, { facts }) => sum + facts, 0),
    precision: ratio(({ right, claims }) => ({ numerator: right, denominator: claims })),
    recall: ratio(({ right, facts }) => ({ numerator: right, denominator: facts })),
    f1: ratio(({ right, claims, facts }) => ({ numerator: 2 * right, denominator: claims + facts })),
  };
}

function sumsOver(counted: readonly Counted[], categories: readonly Category[]): ClaimCounts[] {
  return counted.map(({ docId, tallies }) => {
    const sum = { docId, right: 0, claims: 0, facts: 0 };
    for (const category of categories) {
      const { right, wrong, facts } = tallies.get(category) ?? { right: 0, wrong: 0, facts: 0 };
      sum.right += right;
      sum.claims += right + wrong;
      sum.facts += facts;
    }
    return sum;
  });
}

function byDistance(
  counted: readonly Counted[],
  category: Category,
  options: BootstrapOptions,
): DistanceScore[] {
  return DISTANCES.flatMap((from, i) => {
    const to = DISTANCES[i + 1] ?? null;
    const rows = counted.flatMap(({ docId, decided }) =>
      decided
        .filter((claim) => claim.category === category && claim.distance !== null)
        .filter(({ distance }) => distance! >= from && (to === null || distance! < to))
        .map(({ right }) => ({ docId, numerator: right ? 1 : 0, denominator: 1 })),
    );
    if (rows.length === 0) return [];
    return [{ category, from, to, claims: rows.length, precision: bootstrapRatio(rows, options) }];
  });
}
