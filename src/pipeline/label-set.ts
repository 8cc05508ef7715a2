// Adds a label to every row of a file of activations: the texts that the warm start learns from. What a label says is the
// labeller's work (labels.ts); here are only rows, in chunks, and the count of those that got none.
import type { ColumnValues } from "../data/parquet-columns.js";
import { writeParquet } from "../data/parquet-write.js";
import type { ParquetChunk } from "../data/parquet.js";
import { DOC_COLUMN, VECTOR_COLUMN } from "../data/parquet.js";
import { explainedDatasetId } from "../data/dataset-id.js";
import { writeDatasetSidecar } from "../data/sidecar.js";
import type { ApiSummaries } from "../data/sidecar.js";
import { NlaError } from "../error.js";
import {
  activationColumns,
  AFTER_COLUMN,
  COUNT_COLUMN,
  LABEL_COLUMN,
  LAYER_COLUMN,
  TEXT_COLUMN,
} from "./columns.js";
import { derivedSidecar, openDataFile, withStageFacts } from "./data-file.js";
import type { DataFile } from "./data-file.js";
import type { Labeller, LabelRequest } from "./labels.js";

/** What has been done so far. */
export interface LabelProgress {
  /** Rows read. */
  readonly rows: number;
  readonly total: number;
  readonly dropped: number;
}

/** Options of {@link labelSet}. */
export interface LabelOptions {
  /** Activations with their text. */
  readonly raw: string;
  readonly labeller: Labeller;
  readonly out: string;
  /** Rows that the labeller gets at a time, at most. Defaults to 256. */
  readonly chunkSize?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: LabelProgress) => void) | undefined;
}

/** What was labelled. */
export interface Labelled {
  readonly file: string;
  readonly datasetId: string;
  readonly rows: number;
  /** Rows without a label, which are left out. */
  readonly dropped: number;
}

/**
 * Writes the rows of `raw` with a column `api_explanation` more. Without a column `text_after` the labeller sees no text
 * behind the positions; the column itself is not carried on.
 *
 * @throws NlaError `parquet.no-column` for activations without text, `label.count` for a labeller that gives another number of
 *   labels than asked for, `label.none` where no row got one, those of {@link openDataFile}, and what the labeller throws
 */
export async function labelSet(options: LabelOptions): Promise<Labelled> {
  const { raw, labeller, out } = options;
  const columns = [COUNT_COLUMN, TEXT_COLUMN, VECTOR_COLUMN, LAYER_COLUMN, DOC_COLUMN];
  using source = await openDataFile(raw, { activations: true, columns });
  const counts = { rows: 0, dropped: 0 };
  const written = [
    ...activationColumns(source.width, { text: true }),
    { name: LABEL_COLUMN, type: "string" as const },
  ];
  const rows = await writeParquet(out, written, labelled(source, columns, options, counts));
  const datasetId = explainedDatasetId(source.sidecar.datasetId);
  const { apiSummaries, others } = summariesOf(labeller);
  const sidecar = derivedSidecar(source.sidecar, {
    datasetId,
    rowCount: rows,
    createdBy: "nlakit label",
    apiSummaries,
    unknown: withStageFacts(source.sidecar.unknown, "label", { labeller: labeller.name, ...others }),
  });
  await writeDatasetSidecar(out, sidecar);
  return { file: out, datasetId, rows, dropped: counts.dropped };
}

async function* labelled(
  { parquet, width }: DataFile,
  columns: readonly string[],
  { labeller, chunkSize = 256, signal, onProgress }: LabelOptions,
  counts: { rows: number; dropped: number },
): AsyncGenerator<Record<string, ColumnValues>> {
  const hasAfter = parquet.columns.some(({ name }) => name === AFTER_COLUMN);
  const read = hasAfter ? [...columns, AFTER_COLUMN] : columns;
  for await (const chunk of parquet.chunks({ columns: read, rowsPerChunk: chunkSize, width })) {
    signal?.throwIfAborted();
    const labels = await labelsOf(labeller, requestsOf(chunk, hasAfter), signal);
    const kept = labels.flatMap((label, row) => (label === null ? [] : [row]));
    counts.rows += chunk.rowCount;
    counts.dropped += chunk.rowCount - kept.length;
    const vectors = new Float32Array(kept.length * width);
    kept.forEach((row, i) => {
      vectors.set(chunk.vectors().subarray(row * width, (row + 1) * width), i * width);
    });
    const numbers = (column: string) => kept.map((row) => chunk.numbers(column)[row] as number);
    const strings = (column: string) => kept.map((row) => chunk.strings(column)[row] as string);
    yield {
      [COUNT_COLUMN]: numbers(COUNT_COLUMN),
      [TEXT_COLUMN]: strings(TEXT_COLUMN),
      [VECTOR_COLUMN]: vectors,
      [LAYER_COLUMN]: numbers(LAYER_COLUMN),
      [DOC_COLUMN]: strings(DOC_COLUMN),
      [LABEL_COLUMN]: kept.map((row) => labels[row] as string),
    };
    onProgress?.({ rows: counts.rows, total: parquet.rowCount, dropped: counts.dropped });
  }
  if (counts.dropped < counts.rows) return;
  throw new NlaError({
    code: "label.none",
    subject: parquet.path,
    found: `no label for any of ${counts.rows} rows from the labeller ${labeller.name}`,
    wanted: "at least one",
    next: "Look at a few of its answers: the instruction, the length limit, or the texts do not fit.",
  });
}

function requestsOf(chunk: ParquetChunk, hasAfter: boolean): LabelRequest[] {
  const documents = chunk.strings(DOC_COLUMN);
  const counts = chunk.numbers(COUNT_COLUMN);
  const before = chunk.strings(TEXT_COLUMN);
  const after = hasAfter ? chunk.strings(AFTER_COLUMN) : [];
  return documents.map((docId, row) => ({
    docId,
    position: (counts[row] as number) - 1,
    textBefore: before[row] as string,
    textAfter: after[row] ?? "",
  }));
}

async function labelsOf(
  labeller: Labeller,
  requests: readonly LabelRequest[],
  signal: AbortSignal | undefined,
): Promise<(string | null)[]> {
  const labels = await labeller.label(requests, signal ? { signal } : {});
  if (labels.length === requests.length) return labels;
  throw new NlaError({
    code: "label.count",
    subject: `labeller ${labeller.name}`,
    found: `${labels.length} labels`,
    wanted: `${requests.length}, one per request`,
    next: "This is a fault of the labeller: it must give null where it has no label.",
  });
}

// The reference's api_summaries has exactly these keys; its reader stops at others, which therefore go elsewhere.
function summariesOf({ name, settings }: Labeller): {
  apiSummaries: ApiSummaries;
  others: Labeller["settings"];
} {
  const { max_tokens, temperature, instruction_prompt, ...others } = settings;
  return {
    apiSummaries: {
      model: name,
      maxTokens: typeof max_tokens === "number" ? max_tokens : null,
      temperature: typeof temperature === "number" ? temperature : null,
      instructionPrompt: typeof instruction_prompt === "string" ? instruction_prompt : null,
    },
    others,
  };
}
