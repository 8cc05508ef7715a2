// The claim checker: an explanation is cut into sentences, each is parsed by the table that labels are written from, and each claim is
// held against what is true at the token. Counting over many explanations, with intervals, is in evaluate/claims.ts.
import { claimOf } from "./claim-table.js";
import type { ParsedClaim } from "./claim-table.js";
import { truthAt } from "./facts.js";
import type { Category, FactSpan, WorldDocument } from "./facts.js";
import { checkPosition } from "./labels.js";

/** A sentence of an explanation, and the claim it makes, or null where it is not one. */
export interface Claim {
  readonly sentence: string;
  readonly claim: ParsedClaim | null;
}

/** `undecided`: the text has not shown it yet, or the wording names no value. */
export type Verdict = "true" | "false" | "undecided" | "unparsed";

/** A claim that was checked. */
export interface CheckedClaim {
  readonly sentence: string;
  readonly verdict: Verdict;
  readonly category: Category | null;
  readonly value: string | null;
  /** Tokens between the position and the evidence of the category's true fact; null where there is none. */
  readonly distance: number | null;
  /** The same claim was made before in this explanation. */
  readonly repeated: boolean;
}

// Explanations are a hundred tokens long; this stops a runaway text from filling a report.
const MAX_SENTENCES = 1000;

/** The sentences of an explanation. A sentence ends at a stop; a last one without stop is parsed as if cut off, so it is no claim. */
export function parseExplanation(text: string): Claim[] {
  const words = text.split(/\s+/).filter((word) => word !== "");
  const claims: Claim[] = [];
  let sentence: string[] = [];
  for (const word of words) {
    sentence.push(word);
    if (word !== ".") continue;
    claims.push(claimIn(sentence));
    sentence = [];
    if (claims.length === MAX_SENTENCES) return claims;
  }
  if (sentence.length > 0) claims.push(claimIn(sentence));
  return claims;
}

/**
 * Each claim's verdict at token `position` of a document, in order.
 *
 * True and false are about what the text has shown up to there. A claim about something that it shows only later is undecided; one about
 * something that the document never has is false.
 *
 * @throws NlaError `world.position` for a position outside the document
 */
export function checkClaims(
  claims: readonly Claim[],
  truth: WorldDocument,
  position: number,
): CheckedClaim[] {
  checkPosition(truth, position);
  const live = truthAt(truth, position);
  const seen = new Set<string>();
  return claims.map(({ sentence, claim }) => {
    if (claim === null) {
      return { sentence, verdict: "unparsed", category: null, value: null, distance: null, repeated: false };
    }
    const { category, value } = claim;
    const known = live.find((each) => each.category === category);
    const key = `${category} ${value}`;
    const repeated = seen.has(key);
    seen.add(key);
    return {
      sentence,
      verdict: verdictOf(claim, known, truth, position),
      category,
      value,
      distance: known ? position - known.from : null,
      repeated,
    };
  });
}

function verdictOf(
  { category, value }: ParsedClaim,
  known: FactSpan | undefined,
  { facts }: WorldDocument,
  position: number,
): Verdict {
  if (value === null) return "undecided";
  if (known) return known.value === value ? "true" : "false";
  return facts.some((each) => each.category === category && each.from > position) ? "undecided" : "false";
}

function claimIn(words: readonly string[]): Claim {
  const sentence = words.join(" ");
  return { sentence, claim: claimOf(sentence) };
}
