// The entropy of the world, from the exact cost of every choice: what the best possible model would lose per token.
import { documentsOf } from "./documents.js";
import { KINDS } from "./kinds/index.js";

/** Entropy of one kind of document, or of all. */
export interface EntropyRow {
  readonly kind: string;
  readonly documents: number;
  /** Words and signs, without BOS and EOS. */
  readonly tokens: number;
  readonly longest: number;
  /** Nats per word or sign. */
  readonly natsPerToken: number;
  /** The same where the end of the document is predicted too, which costs nothing: what a loss over words and EOS is held against. */
  readonly natsPerTokenWithEnd: number;
}

interface Sums {
  documents: number;
  tokens: number;
  longest: number;
  nats: number;
}

/**
 * Entropy per kind and overall, over `count` documents of the stream. Every choice shows in the words, so no two ways lead to one text
 * and the sum of costs is the text's own entropy; the kind's own cost is in `all` and in each kind.
 *
 * @throws NlaError `world.seed`, `world.count` as {@link documentsOf}
 */
export function worldEntropy({ seed, count }: { readonly seed: number; readonly count: number }): {
  readonly kinds: readonly EntropyRow[];
  readonly all: EntropyRow;
} {
  const byKind = new Map<string, Sums>();
  const all: Sums = { documents: 0, tokens: 0, longest: 0, nats: 0 };
  for (const { kind, words, nats } of documentsOf({ seed, count })) {
    const sums = byKind.get(kind) ?? { documents: 0, tokens: 0, longest: 0, nats: 0 };
    byKind.set(kind, sums);
    for (const each of [sums, all]) {
      each.documents++;
      each.tokens += words.length;
      each.longest = Math.max(each.longest, words.length);
      each.nats += nats;
    }
  }
  const kinds = KINDS.flatMap(({ name }) => {
    const sums = byKind.get(name);
    return sums ? [rowOf(name, sums)] : [];
  });
  return { kinds, all: rowOf("all", all) };
}

function rowOf(kind: string, { documents, tokens, longest, nats }: Sums): EntropyRow {
  return {
    kind,
    documents,
    tokens,
    longest,
    natsPerToken: nats / tokens,
    natsPerTokenWithEnd: nats / (tokens + documents),
  };
}
