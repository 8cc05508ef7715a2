// Activations of documents of the world, made on the spot: rows for an evaluation that needs no data set.
import { keyedRandom } from "../data/python-random.js";
import { checkLayer } from "../model/index.js";
import { activationsOf } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import { worldCorpus, worldDocumentOf } from "../world/corpus.js";
import type { WorldDocument } from "../world/facts.js";
import type { EvalRow } from "./explained-rows.js";

/** Which tokens of which documents. */
export interface WorldRowsOptions {
  readonly layer: number;
  readonly documents: number;
  /** Tokens of each document. */
  readonly positions: number;
  /** Index of the first document. */
  readonly start: number;
  /** World; the tokens follow from it too. Defaults to 1. */
  readonly seed?: number;
  /** Which tokens of a document instead, counted without BOS. Defaults to a draw of `positions` of them. */
  readonly choose?: (document: WorldDocument) => readonly number[];
  readonly signal?: AbortSignal | undefined;
}

// Documents in one forward pass.
const PASS = 24;
// Before this the kind of most documents is not evident.
const FIRST_POSITION = 5;

/** Rows in the order of documents and tokens; positions count BOS. @throws NlaError `model.layer` and those of the model */
export async function worldRows(
  target: Target,
  { layer, documents, positions, start, seed = 1, choose, signal }: WorldRowsOptions,
): Promise<EvalRow[]> {
  const { dim, layers } = target.model.config;
  checkLayer(layer, layers);
  const rows: EvalRow[] = [];
  let part: { id: string; ids: number[] }[] = [];
  const flush = async () => {
    const activations = await activationsOf(
      target,
      layer,
      part.map(({ ids }) => ids),
      { signal },
    );
    part.forEach(({ id, ids }, i) => {
      const places = Array.from({ length: ids.length - FIRST_POSITION }, (_, k) => k + FIRST_POSITION);
      const drawn = choose
        ? choose(worldDocumentOf(id)).map((position) => position + 1)
        : keyedRandom(seed, `rows ${id}`).sample(places, Math.min(positions, places.length));
      for (const position of drawn.sort((a, b) => a - b)) {
        const vector = (activations[i] as Float32Array).slice(position * dim, (position + 1) * dim);
        rows.push({ vector, docId: id, position, text: target.tokenizer.decode(ids.slice(1, position + 1)) });
      }
    });
    part = [];
  };
  for await (const { id, text } of worldCorpus({ seed, start, length: documents })) {
    signal?.throwIfAborted();
    part.push({ id, ids: target.tokenizer.encode(text ?? "", { addSpecialTokens: true }) });
    if (part.length === PASS) await flush();
  }
  if (part.length > 0) await flush();
  return rows;
}
