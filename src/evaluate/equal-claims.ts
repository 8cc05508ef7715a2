// A pair beside its warm start at an equal number of claims: of each activation's two explanations only as many sentences as the shorter has,
// the first ones of both. More claims give more recall and more fidelity by themselves; what is left here is not that. Or at equal length,
// since some claims take more words than others. On documents of the world, whose sentences are claims.
import type { Nla } from "../nla/read.js";
import { parseExplanation } from "../world/claims.js";
import { bootstrapRatioGain } from "./bootstrap.js";
import type { BootstrapOptions, GainRow, Interval } from "./bootstrap.js";
import { claimCounts } from "./claims.js";
import type { ClaimCounts } from "./claims.js";
import { evaluateRows, fveGain } from "./evaluation.js";
import type { Gain } from "./evaluation.js";
import type { ExplainedRow } from "./explained-rows.js";
import { explainedTokens } from "./world-claims.js";

/** What one of the two comes to. */
export interface CutNumbers {
  readonly fve: number;
  readonly precision: number;
  readonly recall: number;
  /** Of the text, without what ends a response. */
  readonly tokens: number;
}

/** The comparison of one way of decoding. */
export interface EqualClaims {
  readonly name: string;
  /** Sentences per explanation, the same number in both. */
  readonly claims: number;
  /** Those of the warm start, where lengths were made equal and not these numbers. */
  readonly claims_warm?: number;
  readonly trained: CutNumbers;
  readonly warm: CutNumbers;
  /** Trained less warm, 95 % over the same resamples of documents. */
  readonly gained: {
    readonly fve: Gain;
    readonly precision: Interval;
    readonly recall: Interval;
  };
}

/** A pair with what it said. */
export interface SaidBy {
  readonly nla: Pick<Nla, "reconstructor">;
  readonly rows: readonly ExplainedRow[];
}

/**
 * Compares two pairs on the same activations, each read by its own reconstructor. An explanation that is missing has no sentence, and then the
 * other one is left with none.
 *
 * @param by what is made equal: the number of claims; or the number of tokens, by leaving the longer explanation with as many of its first
 *   sentences as come nearest to the length of the shorter one. Defaults to claims
 * @returns null where no two explanations have a claim that the text decides
 * @throws NlaError `world.document` for rows of another corpus, and those of the models
 */
export async function atEqualClaims(
  name: string,
  trained: SaidBy,
  warm: SaidBy,
  bootstrap: BootstrapOptions,
  by: "claims" | "tokens" = "claims",
): Promise<EqualClaims | null> {
  const sentences = ({ rows }: SaidBy) =>
    rows.map(({ explanation }) => parseExplanation(explanation ?? "").map(({ sentence }) => sentence));
  const [after, before] = [sentences(trained), sentences(warm)];
  const lengthOf = (text: string) => trained.nla.reconstructor.tokenizer.encode(text).length;
  const counts = after.map((said, i): readonly [number, number] => {
    const other = before[i] ?? [];
    const fewest = Math.min(said.length, other.length);
    return by === "claims" ? [fewest, fewest] : atEqualLength(said, other, lengthOf);
  });
  const cutTrained = await cut(trained, after, (i) => counts[i]?.[0] ?? 0);
  const cutWarm = await cut(warm, before, (i) => counts[i]?.[1] ?? 0);
  const [trainedCounts, warmCounts] = [cutTrained, cutWarm].map((rows) => claimCounts(explainedTokens(rows)));
  const pairs = (trainedCounts as ClaimCounts[]).map((each, i) => ({
    docId: each.docId,
    after: each,
    before: (warmCounts as ClaimCounts[])[i] as ClaimCounts,
  }));
  const gain = (of: "claims" | "facts") =>
    bootstrapRatioGain(
      withBoth(
        pairs.map(({ docId, after: a, before: b }) => ({
          docId,
          after: { numerator: a.right, denominator: a[of] },
          before: { numerator: b.right, denominator: b[of] },
        })),
      ),
      bootstrap,
    );
  if (!pairs.some(({ after: a, before: b }) => a.claims > 0 && b.claims > 0)) return null;
  const mseScale = trained.nla.reconstructor.contract.mseScale;
  const scoring = { mseScale, bootstrap };
  const numbers = ({ nla }: SaidBy, rows: readonly ExplainedRow[], of: readonly ClaimCounts[]) => ({
    fve: evaluateRows(rows, { mseScale, bootstrap: { ...bootstrap, resamples: 1 } }).fve,
    precision: ratio(of, "claims"),
    recall: ratio(of, "facts"),
    tokens:
      rows.reduce(
        (sum, { explanation }) => sum + nla.reconstructor.tokenizer.encode(explanation ?? "").length,
        0,
      ) / rows.length,
  });
  return {
    name,
    claims: counts.reduce((sum, [count]) => sum + count, 0) / counts.length,
    ...(by === "tokens"
      ? { claims_warm: counts.reduce((sum, [, count]) => sum + count, 0) / counts.length }
      : {}),
    trained: numbers(trained, cutTrained, trainedCounts as ClaimCounts[]),
    warm: numbers(warm, cutWarm, warmCounts as ClaimCounts[]),
    gained: {
      fve: fveGain(cutTrained, cutWarm, scoring),
      precision: gain("claims"),
      recall: gain("facts"),
    },
  };
}

/** How many of its first sentences each is left with, so that their lengths come nearest to each other; the shorter one is left whole. */
function atEqualLength(
  a: readonly string[],
  b: readonly string[],
  lengthOf: (text: string) => number,
): readonly [number, number] {
  const [lengthA, lengthB] = [a, b].map((said) => lengthOf(said.join(" "))) as [number, number];
  const nearest = (said: readonly string[], length: number) => {
    const away = Array.from({ length: said.length + 1 }, (_, k) =>
      Math.abs(lengthOf(said.slice(0, k).join(" ")) - length),
    );
    return away.indexOf(Math.min(...away));
  };
  if (lengthA > lengthB) return [nearest(a, lengthB), b.length];
  return [a.length, lengthB > lengthA ? nearest(b, lengthA) : b.length];
}

/** Rows with the first sentences of their explanations alone, reconstructed anew where something was cut. */
async function cut(
  { nla, rows }: SaidBy,
  sentences: readonly (readonly string[])[],
  countOf: (i: number) => number,
): Promise<ExplainedRow[]> {
  const kept = rows.map(({ explanation }, i) => {
    const said = sentences[i] as readonly string[];
    return said.length === countOf(i) ? explanation : said.slice(0, countOf(i)).join(" ");
  });
  const anew = kept.map((text, i) => (text === rows[i]?.explanation || text === "" ? null : text));
  const rebuilt = await nla.reconstructor.reconstructSome(anew);
  return rows.map((row, i) => {
    const text = kept[i] ?? null;
    if (text === row.explanation) return row;
    return { ...row, explanation: text, reconstruction: rebuilt[i] ?? null };
  });
}

function ratio(of: readonly ClaimCounts[], by: "claims" | "facts"): number {
  return of.reduce((sum, { right }) => sum + right, 0) / of.reduce((sum, each) => sum + each[by], 0);
}

/** Rows of documents in which both have something to divide by: a resample of others alone would have no ratio. */
function withBoth(rows: readonly GainRow[]): GainRow[] {
  const sums = new Map<string, [number, number]>();
  for (const { docId, after, before } of rows) {
    const [a, b] = sums.get(docId) ?? [0, 0];
    sums.set(docId, [a + after.denominator, b + before.denominator]);
  }
  return rows.filter(({ docId }) => sums.get(docId)?.every((sum) => sum > 0));
}
