// From a corpus to activations: draws positions in every document and writes the residual stream at them, raw. One pass over the
// corpus, one batch of documents in memory. Which activations a later stage gets is the split's work.
import { readCorpus } from "../data/corpus.js";
import type { CorpusDocument, CorpusOptions } from "../data/corpus.js";
import { baseDatasetId } from "../data/dataset-id.js";
import type { ColumnValues } from "../data/parquet-columns.js";
import { writeParquet } from "../data/parquet-write.js";
import { DOC_COLUMN, VECTOR_COLUMN } from "../data/parquet.js";
import { drawPositions } from "../data/positions.js";
import { createdAtNow, DEFAULT_FORMAT, DEFAULT_INJECTION, writeDatasetSidecar } from "../data/sidecar.js";
import { NlaError } from "../error.js";
import { checkLayer } from "../model/index.js";
import { activationsOf } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { activationColumns, AFTER_COLUMN, COUNT_COLUMN, LAYER_COLUMN, TEXT_COLUMN } from "./columns.js";
import { withStageFacts } from "./data-file.js";
import { documentTokens } from "./document-tokens.js";

/** Which tokens are read. */
export interface PositionOptions {
  /** Positions drawn in each document; a shorter one gives all it has. Defaults to 10. */
  readonly perDocument?: number;
  /** First position that may be drawn, from 0. Defaults to 50. */
  readonly minPosition?: number;
  /** Tokens that a document is cut to; the model's context if that is shorter. Defaults to 2048. */
  readonly maxLength?: number;
  /** Defaults to 42. */
  readonly seed?: number;
}

/** What has been done so far. */
export interface ExtractionProgress {
  readonly documents: number;
  readonly rows: number;
}

/** Options of {@link extractActivations}. */
export interface ExtractOptions {
  readonly target: Pick<Target, "name" | "model" | "tokenizer">;
  /** Block K whose output is taken. */
  readonly layer: number;
  readonly corpus: CorpusOptions;
  /** Documents that come from elsewhere than the files of `corpus`, which then only names them; ids as {@link readCorpus} makes them. */
  readonly documents?: AsyncIterable<CorpusDocument>;
  readonly positions?: PositionOptions;
  /** The Parquet file; its sidecar is written beside it. */
  readonly out: string;
  /** The target's name in the sidecar and in the dataset id. Defaults to `target.name`. */
  readonly baseModel?: string;
  /** Documents of one pass through the model. Defaults to 8. */
  readonly batchDocuments?: number;
  /** Precision of matrix products. Defaults to "f32". */
  readonly compute?: "f32" | "bf16";
  /** Whether the text up to each position is written too; labels are made from it. Defaults to true. */
  readonly debugText?: boolean;
  /** Characters of the text behind each position, in a column `text_after` of its own. Defaults to 0: no such column. */
  readonly textAfter?: number;
  /** MiB that the writer may hold before it spills to the disk. Defaults to 512. */
  readonly memoryLimitMb?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: ExtractionProgress) => void) | undefined;
}

/** What was extracted. */
export interface Extraction {
  readonly file: string;
  readonly datasetId: string;
  readonly layer: number;
  readonly width: number;
  /** Documents read. */
  readonly documents: number;
  /** Documents too short for any position: they have no rows. */
  readonly documentsWithoutRows: number;
  /** Documents with rows, but fewer than asked for. */
  readonly documentsWithFewerRows: number;
  readonly rows: number;
  /** Tokens that documents were cut to in fact. */
  readonly maxLength: number;
}

/**
 * Writes `base.parquet` and its sidecar (nla-facts 2.1 to 2.3, 2.7): per position `n_raw_tokens` (position + 1),
 * `detokenized_text_truncated`, `activation_vector` (raw, [width]), `activation_layer`, `doc_id`, and `text_after` if asked for.
 * Documents in their order, positions in the order drawn.
 *
 * @throws NlaError `model.layer`, `corpus.*`, `extract.positions` (settings that allow no position), `extract.no-rows` where every
 *   document is too short, `corpus.padding` for a document that spells the
 *   padding token, `extract.not-finite` for NaN or infinite activations, `disk.full`
 */
export async function extractActivations(options: ExtractOptions): Promise<Extraction> {
  const { target, layer, corpus, out, memoryLimitMb = 512, debugText = true, textAfter = 0 } = options;
  const { config } = target.model;
  const { baseModel = target.name } = options;
  checkLayer(layer, config.layers);
  const positions = resolvePositions(options.positions ?? {}, config.contextLength);
  const counts: Counts = { documents: 0, without: 0, fewer: 0, rows: 0, corpusName: "" };
  const columns = activationColumns(config.dim, { text: debugText });
  if (textAfter > 0) columns.push({ name: AFTER_COLUMN, type: "string" });
  const rows = await writeParquet(out, columns, chunksOf(options, positions, counts), { memoryLimitMb });
  const slice = { start: corpus.start ?? 0, length: corpus.length ?? counts.documents };
  const datasetId = baseDatasetId({ baseModel, layer, corpus: counts.corpusName, slice });
  await writeDatasetSidecar(out, {
    kind: "nla_dataset",
    datasetId,
    stage: "base",
    rowCount: rows,
    extraction: {
      baseModel,
      dModel: config.dim,
      layerIndex: layer,
      norm: "none",
      corpus: counts.corpusName,
      corpusSlice: new Map(Object.entries(slice)),
      positionsPerDoc: positions.perDocument,
    },
    keepDebugMetadata: debugText,
    tokens: null,
    templates: { av: null, ar: null },
    apiSummaries: null,
    parentDatasets: [],
    createdAt: createdAtNow(),
    createdBy: "nlakit extract",
    gitCommit: "",
    scales: null,
    injection: DEFAULT_INJECTION,
    format: DEFAULT_FORMAT,
    extensions: false,
    unknown: withStageFacts([], "extract", {
      seed: positions.seed,
      min_position: positions.minPosition,
      max_length: positions.maxLength,
      compute: options.compute ?? "f32",
    }),
  });
  return {
    file: out,
    datasetId,
    layer,
    width: config.dim,
    documents: counts.documents,
    documentsWithoutRows: counts.without,
    documentsWithFewerRows: counts.fewer,
    rows,
    maxLength: positions.maxLength,
  };
}

function resolvePositions(options: PositionOptions, contextLength: number): Required<PositionOptions> {
  const { perDocument = 10, minPosition = 50, seed = 42 } = options;
  const maxLength = Math.min(options.maxLength ?? 2048, contextLength);
  if (perDocument >= 1 && minPosition < maxLength) return { perDocument, minPosition, maxLength, seed };
  throw new NlaError({
    code: "extract.positions",
    subject: "positions to read",
    found: `${perDocument} per document, from position ${minPosition} on, in at most ${maxLength} tokens`,
    wanted: `at least one, from a position below ${maxLength} on`,
    next: `Lower min_position, or raise max_length (the model's context is ${contextLength} tokens).`,
  });
}

interface Counts {
  documents: number;
  without: number;
  fewer: number;
  rows: number;
  corpusName: string;
}

interface PlannedDocument {
  readonly id: string;
  readonly ids: readonly number[];
  readonly positions: readonly number[];
}

type Chunk = Record<string, ColumnValues>;

async function* chunksOf(
  options: ExtractOptions,
  positions: Required<PositionOptions>,
  counts: Counts,
): AsyncGenerator<Chunk> {
  const { target, corpus, batchDocuments = 8, signal, onProgress } = options;
  const { tokenizer } = target;
  const tokensOf = documentTokens(tokenizer, positions.maxLength);
  let batch: PlannedDocument[] = [];
  for await (const document of options.documents ?? readCorpus(corpus)) {
    signal?.throwIfAborted();
    counts.documents++;
    counts.corpusName = corpusName(document, corpus);
    const ids = tokensOf(document);
    checkPadding(document.id, ids, tokenizer);
    const drawn = drawPositions({
      ids,
      specialIds: tokenizer.allSpecialIds,
      seed: positions.seed,
      documentId: document.id,
      count: positions.perDocument,
      minPosition: positions.minPosition,
    });
    if (drawn.length === 0) counts.without++;
    else batch.push({ id: document.id, ids, positions: drawn });
    if (drawn.length > 0 && drawn.length < positions.perDocument) counts.fewer++;
    if (batch.length < Math.max(1, batchDocuments)) continue;
    yield await rowsOf(batch, options, counts);
    batch = [];
    onProgress?.({ documents: counts.documents, rows: counts.rows });
  }
  if (batch.length > 0) yield await rowsOf(batch, options, counts);
  if (counts.rows === 0) {
    throw new NlaError({
      code: "extract.no-rows",
      subject: corpus.path,
      found: `${counts.documents} documents, none with a token that may be read at or after position ${positions.minPosition}`,
      wanted: "at least one document that long",
      next: "Lower min_position, or cut the corpus into longer documents.",
    });
  }
  onProgress?.({ documents: counts.documents, rows: counts.rows });
}

/** What stands before `:{split}:{index}` in a document's id. */
function corpusName({ id, index }: CorpusDocument, { split = "train" }: CorpusOptions): string {
  return id.slice(0, id.length - `:${split}:${index}`.length);
}

async function rowsOf(
  batch: readonly PlannedDocument[],
  options: ExtractOptions,
  counts: Counts,
): Promise<Chunk> {
  const { target, layer, compute = "f32", debugText = true, textAfter = 0, signal } = options;
  const { dim } = target.model.config;
  // What follows the last position read does not change it.
  const needed = batch.map(({ ids, positions }) => ids.slice(0, Math.max(...positions) + 1));
  const activations = await activationsOf(target, layer, needed, { compute, signal });
  const rows = batch.flatMap(({ id, ids, positions }, document) =>
    positions.map((position) => ({ id, ids, position, document })),
  );
  const vectors = new Float32Array(rows.length * dim);
  rows.forEach(({ id, position, document }, row) => {
    const vector = (activations[document] as Float32Array).subarray(position * dim, (position + 1) * dim);
    checkFinite(vector, `position ${position} of ${id}`, layer);
    vectors.set(vector, row * dim);
  });
  counts.rows += rows.length;
  const { tokenizer } = target;
  return {
    [COUNT_COLUMN]: rows.map(({ position }) => position + 1),
    ...(debugText && {
      [TEXT_COLUMN]: rows.map(({ ids, position }) => tokenizer.decode(ids.slice(0, position + 1))),
    }),
    [VECTOR_COLUMN]: vectors,
    [LAYER_COLUMN]: rows.map(() => layer),
    [DOC_COLUMN]: rows.map(({ id }) => id),
    ...(textAfter > 0 && {
      [AFTER_COLUMN]: rows.map(({ ids, position }) => textBehind(tokenizer, ids, position, textAfter)),
    }),
  };
}

function checkFinite(vector: ArrayLike<number>, subject: string, layer: number): void {
  for (let i = 0; i < vector.length; i++) {
    if (Number.isFinite(vector[i])) continue;
    throw new NlaError({
      code: "extract.not-finite",
      subject,
      found: `${vector[i]} at index ${i} of the activation after block ${layer}`,
      wanted: "finite numbers",
      next: "The weights are damaged or overflow: check the download, and compute in f32.",
    });
  }
}

// Tokens before the position that are decoded with those behind it: a decoder drops the blank at the start of a text, so the
// text behind has to be decoded in the middle of one.
const CONTEXT_TOKENS = 16;

/** Up to `characters` of what follows a position. */
function textBehind(
  tokenizer: Tokenizer,
  ids: readonly number[],
  position: number,
  characters: number,
): string {
  const start = Math.max(0, position + 1 - CONTEXT_TOKENS);
  const before = tokenizer.decode(ids.slice(start, position + 1));
  const decoded = (tokens: number): string[] => {
    const end = position + 1 + tokens;
    const both = tokenizer.decode(ids.slice(start, end));
    // They differ where the position cuts a character, or where clean-up took a blank at the seam.
    const behind = both.startsWith(before)
      ? both.slice(before.length)
      : tokenizer.decode(ids.slice(position + 1, end));
    return [...behind];
  };
  let text = decoded(characters);
  // A token has at least one character, unless it is a byte: a character has at most four.
  if (text.length < characters) text = decoded(4 * characters);
  return text.slice(0, characters).join("");
}

// In training that token is masked, so a vector that attended to one is of a text that no set can hold. A tokenizer without a padding
// token of its own takes another's (end, unknown), which texts may have.
function checkPadding(id: string, ids: readonly number[], tokenizer: Tokenizer): void {
  const { padId, eosId, unkId, bosId } = tokenizer;
  if (padId === null || [eosId, unkId, bosId].includes(padId) || !ids.includes(padId)) return;
  throw new NlaError({
    code: "corpus.padding",
    subject: `document ${id}`,
    found: `the padding token (${padId}) at token ${ids.indexOf(padId)}`,
    wanted: "text that does not spell it",
    next: "Take the document out of the corpus, or the token's text out of the document.",
  });
}
