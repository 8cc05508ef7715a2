// Documents of the world by seed and index. Each is made from (seed, index) alone, so any stretch of the stream can be made anywhere,
// in any order, in the memory of one document.
import { NlaError } from "../error.js";
import { Chooser } from "./chooser.js";
import { compose } from "./compose.js";
import type { WorldDocument } from "./facts.js";
import type { DocumentKind } from "./kind.js";
import { KINDS } from "./kinds/index.js";

/** Which documents. */
export interface WorldOptions {
  /** 0 to 2^53 - 1. */
  readonly seed: number;
  /** Index of the first document; 0 by default. */
  readonly start?: number;
  /** How many; without end by default. */
  readonly count?: number;
  /** Only documents of this kind: those of the same index in a world that has no other. */
  readonly kind?: string;
}

/**
 * The documents `start` to `start + count - 1` of a seed's world, one at a time.
 *
 * @throws NlaError `world.seed`, `world.count` or `world.kind_unknown` for options out of range, before the first document
 */
export async function* worldDocuments(options: WorldOptions): AsyncGenerator<WorldDocument, void, undefined> {
  yield* documentsOf(options);
}

/** As {@link worldDocuments}, without waiting: for loops that are synchronous anyway. */
export function* documentsOf({
  seed,
  start = 0,
  count = Infinity,
  kind,
}: WorldOptions): Generator<WorldDocument, void, undefined> {
  if (!(count >= 0) || (Number.isFinite(count) && !Number.isSafeInteger(count))) {
    throw new NlaError({
      code: "world.count",
      subject: "the number of documents",
      found: String(count),
      wanted: "a whole number",
      next: "Leave it out for a stream without end.",
    });
  }
  for (let i = 0; i < count; i++) {
    yield worldDocument(seed, start + i, kind === undefined ? {} : { kind });
  }
}

/** One document. Throws as {@link worldDocuments} does. */
export function worldDocument(
  seed: number,
  index: number,
  { kind: name }: { readonly kind?: string } = {},
): WorldDocument {
  const choose = new Chooser(seed, index);
  const kind = name === undefined ? choose.weighted(KINDS) : kindNamed(name);
  const { words, facts } = compose(kind, choose);
  return { kind: kind.name, seed, index, words, facts, nats: choose.nats };
}

/** The kind of that name. Throws NlaError `world.kind_unknown`. */
export function kindNamed(name: string): DocumentKind {
  const kind = KINDS.find((each) => each.name === name);
  if (kind) return kind;
  throw new NlaError({
    code: "world.kind_unknown",
    subject: "a kind of document",
    found: JSON.stringify(name),
    wanted: KINDS.map((each) => each.name).join(", "),
    next: "Choose one of these, or leave it out for all of them.",
  });
}
