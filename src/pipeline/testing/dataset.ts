// Small data files for tests of the stages: activations that can be told apart, with or without labels, and a sidecar that
// says so. Not part of the package.
import type { ColumnToWrite } from "../../data/parquet-write.js";
import { writeParquet } from "../../data/parquet-write.js";
import { DEFAULT_FORMAT, DEFAULT_INJECTION, writeDatasetSidecar } from "../../data/sidecar.js";
import type { DatasetSidecar } from "../../data/sidecar.js";
import { activationColumns, LABEL_COLUMN } from "../columns.js";

/** What a test file holds. */
export interface TestRows {
  readonly rows: number;
  readonly width?: number;
  readonly layer?: number;
  /** Document of each row. Defaults to ten rows a document. */
  readonly docId?: (row: number) => string;
  /** Vector of each row. Defaults to values that name the row. */
  readonly vector?: (row: number) => readonly number[];
  /** Label of each row; without it there is no such column. */
  readonly label?: (row: number) => string;
  /** Name of the label's column. Defaults to `api_explanation`. */
  readonly labelColumn?: string;
  /** Changes to the sidecar, for files that contradict it. */
  readonly sidecar?: Partial<DatasetSidecar>;
  /** Columns left out. */
  readonly without?: readonly string[];
}

/** Writes `file` and its sidecar. */
export async function writeTestRows(file: string, options: TestRows): Promise<void> {
  const { rows, width = 4, layer = 1, label, labelColumn = LABEL_COLUMN, without = [] } = options;
  const { docId = (row) => `tests:train:${Math.floor(row / 10)}` } = options;
  const { vector = (row) => Array.from({ length: width }, (_, i) => row + i / 8) } = options;
  const numbers = Array.from({ length: rows }, (_, row) => row);
  const columns: ColumnToWrite[] = [
    ...activationColumns(width, { text: true }),
    ...(label ? [{ name: labelColumn, type: "string" as const }] : []),
  ].filter(({ name }) => !without.includes(name));
  await writeParquet(file, columns, [
    {
      n_raw_tokens: numbers.map((row) => (row % 10) + 51),
      detokenized_text_truncated: numbers.map((row) => `Text up to row ${row}`),
      activation_vector: Float32Array.from(numbers.flatMap(vector)),
      activation_layer: numbers.map(() => layer),
      doc_id: numbers.map(docId),
      ...(label && { [labelColumn]: numbers.map(label) }),
    },
  ]);
  await writeDatasetSidecar(file, {
    kind: "nla_dataset",
    datasetId: "base_tests_L1_00000000",
    stage: "base",
    rowCount: rows,
    extraction: {
      baseModel: "tests",
      dModel: width,
      layerIndex: layer,
      norm: "none",
      corpus: "tests",
      corpusSlice: new Map([
        ["start", 0],
        ["length", Math.ceil(rows / 10)],
      ]),
      positionsPerDoc: 10,
    },
    keepDebugMetadata: true,
    tokens: null,
    templates: { av: null, ar: null },
    apiSummaries: null,
    parentDatasets: [],
    createdAt: "2026-01-01T00:00:00+00:00",
    createdBy: "a test",
    gitCommit: "",
    scales: null,
    injection: DEFAULT_INJECTION,
    format: DEFAULT_FORMAT,
    extensions: false,
    unknown: [],
    ...options.sidecar,
  });
}
