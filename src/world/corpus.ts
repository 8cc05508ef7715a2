// The world as a corpus of the pipeline: documents as texts with ids from which each can be made again, with all that is true of it.
import type { CorpusDocument } from "../data/corpus.js";
import { NlaError } from "../error.js";
import { documentsOf, worldDocument } from "./documents.js";
import type { WorldDocument } from "./facts.js";

/** How a config names the world of a seed in place of a corpus's path: `world:1`. */
const NAMED = /^world:(\d{1,15})$/;
const DOCUMENT_ID = /^world-(\d{1,15}):[^:]+:(\d{1,15})$/;

/** The seed of a world that is named in place of a path; null for anything else, which is a path. */
export function worldSeedOf(path: string): number | null {
  const seed = NAMED.exec(path)?.[1];
  return seed === undefined ? null : Number(seed);
}

/** What a world is called in document ids. */
export function worldName(seed: number): string {
  return `world-${seed}`;
}

/**
 * Documents `start` to `start + length - 1` as texts, with the ids `{name}:{split}:{index}` that {@link worldDocumentOf} reads.
 *
 * @throws NlaError of {@link documentsOf}
 */
export async function* worldCorpus({
  seed,
  split = "train",
  start = 0,
  length,
}: {
  readonly seed: number;
  readonly split?: string;
  readonly start?: number;
  readonly length: number;
}): AsyncGenerator<CorpusDocument, void, undefined> {
  for (const { words, index } of documentsOf({ seed, start, count: length })) {
    yield { id: `${worldName(seed)}:${split}:${index}`, index, text: words.join(" "), messages: null };
  }
}

/** True for the id of a document of the world. */
export function isWorldDocument(docId: string): boolean {
  return DOCUMENT_ID.test(docId);
}

/** The document of an id, with its truth. Throws NlaError `world.document` for an id of another corpus. */
export function worldDocumentOf(docId: string): WorldDocument {
  const [, seed, index] = DOCUMENT_ID.exec(docId) ?? [];
  if (seed !== undefined && index !== undefined) return worldDocument(Number(seed), Number(index));
  throw new NlaError({
    code: "world.document",
    subject: `the document ${docId}`,
    found: "an id that is not of the world",
    wanted: "an id such as world-1:train:7",
    next: "Claims can be checked only where the truth is known: use a corpus named world:SEED.",
  });
}
