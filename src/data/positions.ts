// Which token positions of a document are read: drawn by (seed, document id) alone, exactly as the reference draws them.
//
// Sharding, order and batch size therefore never change them. Tokenising and truncating the document is the caller's work.
import { NlaError } from "../error.js";
import { keyedRandom } from "./python-random.js";

/** Arguments of {@link drawPositions}. */
export interface PositionDraw {
  /** The document's token ids with special tokens, already cut to the context. */
  readonly ids: ArrayLike<number>;
  /** Ids that are never read: the tokenizer's `allSpecialIds` (not every token that is flagged special). */
  readonly specialIds: ReadonlySet<number>;
  readonly seed: number | bigint;
  /** `{corpus}:{split}:{index}`. */
  readonly documentId: string;
  /** How many positions to draw; a document with fewer candidates gives them all. */
  readonly count: number;
  /** First index that may be read; the reference has 50, so that each vector has some context behind it. */
  readonly minPosition?: number;
}

/**
 * Indices into `ids` (0-based), in the order drawn, not sorted: `random.sample` over the candidates at or after
 * `minPosition` that are not special, with `Random(sha256("{seed}|{documentId}"))` (nla-facts 2.7).
 * An empty list means that the document has no candidate. Throws NlaError `positions.argument` for a count or first
 * position that is not a whole number from 0.
 */
export function drawPositions({
  ids,
  specialIds,
  seed,
  documentId,
  count,
  minPosition = 50,
}: PositionDraw): number[] {
  for (const [name, value] of [
    ["count", count],
    ["minPosition", minPosition],
  ] as const) {
    if (Number.isSafeInteger(value) && value >= 0) continue;
    throw new NlaError({
      code: "positions.argument",
      subject: `positions of ${documentId}`,
      found: `${name} ${value}`,
      wanted: "a whole number of at least 0",
      next: `Set ${name} to a whole number.`,
    });
  }
  const candidates: number[] = [];
  for (let i = minPosition; i < ids.length; i++) {
    if (!specialIds.has(ids[i] as number)) candidates.push(i);
  }
  return keyedRandom(seed, documentId).sample(candidates, Math.min(count, candidates.length));
}
