// From activations to a training set: prompts and responses put around labels, as the contract has them. Nothing is tokenised
// into the file; token ids are made at training, but every reconstructor prompt is tokenised here once to see that it ends as
// it must.
import type { ColumnValues, Message } from "../data/parquet-columns.js";
import { writeParquet } from "../data/parquet-write.js";
import type { ColumnToWrite } from "../data/parquet-write.js";
import type { ParquetChunk } from "../data/parquet.js";
import { DOC_COLUMN, VECTOR_COLUMN } from "../data/parquet.js";
import { writeDatasetSidecar } from "../data/sidecar.js";
import type { DatasetSidecar } from "../data/sidecar.js";
import { NlaError } from "../error.js";
import { reconstructorPrompt } from "../nla/contract.js";
import type { Contract } from "../nla/contract.js";
import { extractExplanation, wrapExplanation } from "../nla/explanation.js";
import { stripPython } from "../nla/python-text.js";
import { fillTemplate } from "../nla/template.js";
import type { Tokenizer } from "../text/tokenizer.js";
import {
  activationColumns,
  COUNT_COLUMN,
  LABEL_COLUMN,
  LAYER_COLUMN,
  PROMPT_COLUMN,
  RESPONSE_COLUMN,
  TEXT_COLUMN,
} from "./columns.js";
import { derivedSidecar, openDataFile } from "./data-file.js";
import type { DataFile } from "./data-file.js";
import { sidecarStageOf, trainingIdOf } from "./sets.js";
import type { SetName } from "./sets.js";

/** Stands in prompts where the marker belongs, so that a file does not depend on which character that is. */
export const MARKER_PLACEHOLDER = "<INJECT>";

/** Options of {@link buildTrainingSet}. */
export interface BuildOptions {
  /** Activations: labelled ones for `av_sft` and `ar_sft`, either kind for `rl` and `eval`. */
  readonly input: string;
  readonly set: SetName;
  readonly contract: Contract;
  /** The tokenizer of the pair, marker included: the suffix of every reconstructor prompt is checked with it. */
  readonly tokenizer: Tokenizer;
  readonly out: string;
  /** Whether each row keeps the text up to its position. Defaults to true. */
  readonly keepText?: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: { readonly rows: number; readonly total: number }) => void) | undefined;
}

/** What was built. */
export interface Built {
  readonly file: string;
  readonly datasetId: string;
  readonly set: SetName;
  readonly rows: number;
  /** Rows whose label would not come back out of its tags (it has a closing tag in it), which are left out. */
  readonly dropped: number;
}

/**
 * Writes a training set (nla-facts 2.2).
 *
 * `av_sft`: `prompt` (one user message with `<INJECT>` for the marker), `response` (the label, wrapped), the activation.
 * `ar_sft`: `prompt` (the filled template), the activation. `rl`: `prompt` (messages), the activation. `eval`: the same and
 * `api_explanation` if the input has it. Labels are stripped in the `tags` format, as they come out of a response.
 *
 * @throws NlaError `parquet.no-column` where labels or texts are missing, `build.contract` where the activations are of another
 *   layer or width than the contract, `template.suffix-merged` for a label that melts into the suffix, `build.none`, those of
 *   {@link openDataFile}
 */
export async function buildTrainingSet(options: BuildOptions): Promise<Built> {
  const { input, set, contract, out, keepText = true } = options;
  const labelled = set === "av_sft" || set === "ar_sft";
  const activation = activationColumns(contract.dim, { text: keepText });
  const columns = [...activation.map(({ name }) => name), ...(labelled ? [LABEL_COLUMN] : [])];
  using source = await openDataFile(input, { activations: true, columns });
  checkContract(source, contract);
  const withLabel = labelled || (set === "eval" && hasColumn(source, LABEL_COLUMN));
  const read = withLabel && !labelled ? [...columns, LABEL_COLUMN] : columns;
  const counts = { rows: 0, dropped: 0 };
  const chunks = builtChunks(source, read, { ...options, keepText }, counts);
  const rows = await writeParquet(out, columnsOf(set, activation, withLabel), chunks);
  const datasetId = trainingIdOf(source.sidecar.datasetId, set);
  const sidecar = trainingSidecar(source.sidecar, { ...options, keepText }, { datasetId, rowCount: rows });
  await writeDatasetSidecar(out, withLabel ? sidecar : { ...sidecar, apiSummaries: null });
  return { file: out, datasetId, set, rows, dropped: counts.dropped };
}

function trainingSidecar(
  parent: DatasetSidecar,
  { set, contract, tokenizer, keepText = true }: BuildOptions,
  changes: { readonly datasetId: string; readonly rowCount: number },
): DatasetSidecar {
  const { marker, templates, format, suffixIds } = contract;
  return derivedSidecar(parent, {
    ...changes,
    stage: sidecarStageOf(set),
    createdBy: "nlakit build",
    keepDebugMetadata: keepText,
    tokens: {
      injectionChar: marker.char,
      injectionTokenId: marker.tokenId,
      leftNeighborId: marker.left,
      rightNeighborId: marker.right,
      criticSuffixIds: set === "ar_sft" ? [...suffixIds] : null,
    },
    templates: { av: templates.verbalizer.raw, ar: templates.reconstructor.raw },
    injection: { kind: "replace" },
    format: { kind: format, end: format === "plain" ? tokenizer.eosId : null },
    extensions: true,
  });
}

function hasColumn({ parquet }: DataFile, wanted: string): boolean {
  return parquet.columns.some(({ name }) => name === wanted);
}

function checkContract({ parquet, sidecar }: DataFile, contract: Contract): void {
  const { dModel, layerIndex } = sidecar.extraction;
  if (dModel === contract.dim && layerIndex === contract.layer) return;
  throw new NlaError({
    code: "build.contract",
    subject: parquet.path,
    found: `activations of width ${dModel} after block ${layerIndex}`,
    wanted: `width ${contract.dim} after block ${contract.layer}, as the contract says`,
    next: "Use the activations that the pair is for.",
  });
}

function columnsOf(set: SetName, activation: readonly ColumnToWrite[], withLabel: boolean): ColumnToWrite[] {
  const order = [VECTOR_COLUMN, COUNT_COLUMN, LAYER_COLUMN, DOC_COLUMN, TEXT_COLUMN];
  const provenance = order.flatMap((name) => activation.filter((column) => column.name === name));
  const prompt: ColumnToWrite = { name: PROMPT_COLUMN, type: set === "ar_sft" ? "string" : "messages" };
  return [
    prompt,
    ...(set === "av_sft" ? [{ name: RESPONSE_COLUMN, type: "string" as const }] : []),
    ...provenance,
    ...(set === "eval" && withLabel ? [{ name: LABEL_COLUMN, type: "string" as const }] : []),
  ];
}

async function* builtChunks(
  { parquet, width }: DataFile,
  columns: readonly string[],
  { set, contract, tokenizer, keepText = true, signal, onProgress }: BuildOptions,
  counts: { rows: number; dropped: number },
): AsyncGenerator<Record<string, ColumnValues>> {
  const content = fillTemplate(contract.templates.verbalizer, MARKER_PLACEHOLDER);
  const messages: readonly Message[] = [{ role: "user", content }];
  for await (const chunk of parquet.chunks({ columns, width })) {
    signal?.throwIfAborted();
    checkLayers(chunk, parquet.path, contract.layer);
    const labels = columns.includes(LABEL_COLUMN)
      ? chunk.strings(LABEL_COLUMN).map((label) => roundTrip(label, contract))
      : chunk.strings(DOC_COLUMN).map(() => "");
    const kept = labels.flatMap((label, row) => (label === null ? [] : [row]));
    counts.rows += kept.length;
    counts.dropped += chunk.rowCount - kept.length;
    const label = (row: number) => labels[row] as string;
    const vectors = new Float32Array(kept.length * width);
    kept.forEach((row, i) => {
      vectors.set(chunk.vectors().subarray(row * width, (row + 1) * width), i * width);
    });
    if (set === "ar_sft") for (const row of kept) checkSuffix(chunk, row, label(row), contract, tokenizer);
    yield {
      [PROMPT_COLUMN]:
        set === "ar_sft"
          ? kept.map((row) => fillTemplate(contract.templates.reconstructor, label(row)))
          : kept.map(() => messages),
      [RESPONSE_COLUMN]: kept.map((row) => wrapExplanation(label(row), { format: contract.format })),
      [VECTOR_COLUMN]: vectors,
      [COUNT_COLUMN]: kept.map((row) => chunk.numbers(COUNT_COLUMN)[row] as number),
      [LAYER_COLUMN]: kept.map(() => contract.layer),
      [DOC_COLUMN]: kept.map((row) => chunk.strings(DOC_COLUMN)[row] as string),
      [TEXT_COLUMN]: keepText ? kept.map((row) => chunk.strings(TEXT_COLUMN)[row] as string) : [],
      [LABEL_COLUMN]: kept.map(label),
    };
    onProgress?.({ rows: counts.rows, total: parquet.rowCount });
  }
  if (counts.rows > 0) return;
  throw new NlaError({
    code: "build.none",
    subject: parquet.path,
    found: `${counts.dropped} labels, every one with a closing tag in it`,
    wanted: "at least one label that can be wrapped",
    next: "Clean the labels, or use the plain format.",
  });
}

/** The label as it comes out of a response; null where it does not come out whole. */
function roundTrip(label: string, { format }: Contract): string | null {
  if (format === "plain") return label;
  const stripped = stripPython(label);
  return extractExplanation(wrapExplanation(label, { format }), { format }) === stripped ? stripped : null;
}

function checkLayers(chunk: ParquetChunk, file: string, layer: number): void {
  const row = chunk.numbers(LAYER_COLUMN).findIndex((value) => value !== layer);
  if (row === -1) return;
  throw new NlaError({
    code: "build.contract",
    subject: `${file}, row ${chunk.start + row}`,
    found: `an activation of layer ${chunk.numbers(LAYER_COLUMN)[row]}`,
    wanted: `layer ${layer}, as the contract and the sidecar say`,
    next: "Extract again: files of different layers were joined.",
  });
}

function checkSuffix(
  chunk: ParquetChunk,
  row: number,
  label: string,
  contract: Contract,
  tokenizer: Tokenizer,
): void {
  try {
    reconstructorPrompt(contract, tokenizer, label);
  } catch (thrown) {
    if (!(thrown instanceof NlaError) || thrown.code !== "template.suffix-merged") throw thrown;
    const { code, found, wanted, next } = thrown;
    const where = `row ${chunk.start + row} (${chunk.strings(DOC_COLUMN)[row]}), label ending in ${JSON.stringify(label.slice(-40))}`;
    throw new NlaError({
      code,
      subject: `reconstructor prompt of ${where}`,
      found,
      wanted,
      next,
      cause: thrown,
    });
  }
}
