// A data file with its sidecar: columns of its stage, row counts, every row. What a document may do in one file but not in two is
// check-sets.ts.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import path from "node:path";
import { listKindOf } from "../data/arrow-schema.js";
import { openParquet, DOC_COLUMN, VECTOR_COLUMN } from "../data/parquet.js";
import type { ParquetChunk, ParquetFile } from "../data/parquet.js";
import { datasetSidecarPath } from "../data/sidecar.js";
import type { DatasetSidecar } from "../data/sidecar.js";
import { extractExplanation } from "../nla/explanation.js";
import {
  EXPLANATION_PLACEHOLDER,
  fillTemplate,
  INJECTION_PLACEHOLDER,
  parseTemplate,
} from "../nla/template.js";
import { MARKER_PLACEHOLDER } from "../pipeline/build.js";
import {
  COUNT_COLUMN,
  LABEL_COLUMN,
  LAYER_COLUMN,
  PROMPT_COLUMN,
  RESPONSE_COLUMN,
  TEXT_COLUMN,
} from "../pipeline/columns.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { checkSidecar } from "./check-sidecar.js";
import type { Findings } from "./finding.js";

/** Columns that each stage's readers need. */
const COLUMNS: Readonly<Record<DatasetSidecar["stage"], readonly string[]>> = {
  base: [COUNT_COLUMN, VECTOR_COLUMN, LAYER_COLUMN, DOC_COLUMN],
  av_sft: [PROMPT_COLUMN, RESPONSE_COLUMN, VECTOR_COLUMN, DOC_COLUMN],
  ar_sft: [PROMPT_COLUMN, VECTOR_COLUMN, DOC_COLUMN],
  rl: [PROMPT_COLUMN, VECTOR_COLUMN, DOC_COLUMN],
};

/** What a data file turned out to hold. */
export interface CheckedDataset {
  readonly file: string;
  readonly sidecar: DatasetSidecar | null;
  /** The documents, as hashes: a corpus of millions has long names. */
  readonly documents: ReadonlySet<string>;
  /** Hashes of each document's first 200, 400, 800, ... characters, as far as some row has them. */
  readonly openings: ReadonlyMap<string, readonly string[]>;
  readonly rows: number;
}

const OPENING_CHARACTERS = [200, 400, 800, 1600, 3200];

/** Checks a Parquet file, every row of it. A tokenizer, if there is one, is compared with the sidecar. */
export async function checkDataset(
  file: string,
  findings: Findings,
  tokenizer: Tokenizer | null = null,
): Promise<CheckedDataset> {
  const withoutSidecar = await standsAlone(file, findings);
  const read = withoutSidecar ? null : await checkSidecar(datasetSidecarPath(file), findings, tokenizer);
  if (read?.kind === "nla_model") {
    findings.add("error", {
      code: "sidecar.kind",
      subject: datasetSidecarPath(file),
      found: '"nla_model"',
      wanted: '"nla_dataset", beside a data file',
      next: "Copy the file's own sidecar.",
    });
  }
  const sidecar = read?.kind === "nla_dataset" ? read : null;
  const documents = new Set<string>();
  const openings = new Map<string, readonly string[]>();
  const parquet = await findings.of(() => openParquet(file));
  if (parquet === null) return { file, sidecar, documents, openings, rows: 0 };
  try {
    checkShape(parquet, sidecar, findings);
    await findings.of(() => checkRows(parquet, sidecar, { documents, openings }, findings));
  } finally {
    parquet.close();
  }
  return { file, sidecar, documents, openings, rows: parquet.rowCount };
}

const SIDECARLESS: readonly (readonly [string, readonly string[]])[] = [
  ["recovered labels: text and explanation, for stage2.cache_from", [TEXT_COLUMN, LABEL_COLUMN]],
  ["bare vectors: of which model and layer is not known", [VECTOR_COLUMN]],
];

// Some files have no sidecar by design: those in a labelling's folder of chunks, and those with columns of no stage.
async function standsAlone(file: string, findings: Findings): Promise<boolean> {
  const sidecar = datasetSidecarPath(file);
  if (existsSync(sidecar)) return false;
  let found = "a chunk of a labelling: its sidecar is that of the whole file";
  if (!path.basename(path.dirname(file)).endsWith(".parquet.chunks")) {
    // What cannot be opened is told when its rows are checked.
    const parquet = await openParquet(file).catch(() => null);
    if (parquet === null) return false;
    parquet.close();
    const names = parquet.columns.map(({ name }) => name);
    const known = SIDECARLESS.find(([, columns]) => columns.join() === names.join());
    if (known === undefined) return false;
    [found] = known;
  }
  findings.notes.push({
    code: "check.no-sidecar",
    subject: file,
    found,
    next: "Fine as it is; nothing can be trained on it by itself.",
  });
  return true;
}

function checkShape(parquet: ParquetFile, sidecar: DatasetSidecar | null, findings: Findings): void {
  const { path: file, rowCount, vectorWidth, columns } = parquet;
  if (rowCount === 0) {
    findings.add("error", {
      code: "data.empty",
      subject: file,
      found: "0 rows",
      wanted: "at least one",
      next: "Check the stage before: its corpus, its shares, its labels.",
    });
  }
  const { arrowSchema } = parquet;
  if (vectorWidth !== null && (arrowSchema === null || listKindOf(arrowSchema, VECTOR_COLUMN) !== "fixed")) {
    findings.notes.push({
      code: "check.variable-list",
      subject: `${file}: ${VECTOR_COLUMN}`,
      found: arrowSchema === null ? "no Arrow schema" : "a list of variable length, the older layout",
      next: "Every reader takes it; pyarrow's older gathers overflow on such lists above 4 GiB. `nla data cast` writes it anew.",
    });
  }
  if (sidecar === null) return;
  const { extraction, stage } = sidecar;
  const contradiction = (key: string, found: string, wanted: string) =>
    findings.add("error", {
      code: "data.contradiction",
      subject: `${datasetSidecarPath(file)}: ${key}`,
      found,
      wanted: `${wanted}, as the Parquet file has`,
      next: "The two files are not of one run: copy both again, or write them again.",
    });
  if (sidecar.rowCount !== rowCount) contradiction("row_count", String(sidecar.rowCount), String(rowCount));
  if (rowCount > 0 && vectorWidth !== extraction.dModel)
    contradiction("extraction.d_model", String(extraction.dModel), String(vectorWidth ?? "no vectors"));
  const missing = COLUMNS[stage].filter((name) => !columns.some((column) => column.name === name));
  if (missing.length > 0) {
    findings.add("error", {
      code: "parquet.no-column",
      subject: file,
      found: `the columns ${columns.map(({ name }) => name).join(", ")}`,
      wanted: `also ${missing.join(", ")}, for stage ${stage}`,
      next: "The sidecar is of another file, or a stage is missing.",
    });
  }
}

// A fault that every row has is one finding, with the first row as its example.
class RowFaults {
  readonly #first = new Map<string, { row: number; found: string; count: number }>();

  add(code: string, row: number, found: string): void {
    const known = this.#first.get(code);
    if (known) known.count++;
    else this.#first.set(code, { row, found, count: 1 });
  }

  report(file: string, findings: Findings): void {
    for (const [code, { row, found, count }] of this.#first) {
      const [severity, wanted, next] = ROW_RULES[code] as (typeof ROW_RULES)[string];
      const subject = count === 1 ? `${file}, row ${row}` : `${file}, ${count} rows, row ${row} first`;
      findings.add(severity, { code: `check.${code}`, subject, found, wanted, next });
    }
  }
}

const ROW_RULES: Readonly<Record<string, readonly ["error" | "warning", string, string]>> = {
  "zero-vector": ["error", "an activation", "Extract again; a zero vector has no direction to reconstruct."],
  layer: [
    "error",
    "the layer that the sidecar states",
    "Files of different layers were joined: extract again.",
  ],
  position: ["error", "a whole number from 1 on", "Extract again."],
  "duplicate-row": [
    "warning",
    "every position of a document once",
    "A file was joined with itself, or the corpus has a document twice.",
  ],
  prompt: [
    "error",
    "the sidecar's template, filled",
    "Sidecar and file are of two builds: build the set again.",
  ],
  response: ["error", "an explanation between its tags", "Build the set again from cleaned labels."],
  "empty-label": ["error", "text", "Label these rows again, or leave them out."],
};

async function checkRows(
  parquet: ParquetFile,
  sidecar: DatasetSidecar | null,
  { documents, openings }: { documents: Set<string>; openings: Map<string, readonly string[]> },
  findings: Findings,
): Promise<void> {
  const faults = new RowFaults();
  const names = new Set(parquet.columns.map(({ name }) => name));
  const positions = new Set<string>();
  const prompts = promptRule(sidecar);
  const norms = { least: Infinity, most: 0 };
  for await (const chunk of parquet.chunks()) {
    if (names.has(VECTOR_COLUMN)) vectorRows(chunk, faults, norms);
    if (names.has(LAYER_COLUMN) && sidecar !== null) {
      const { layerIndex } = sidecar.extraction;
      chunk.numbers(LAYER_COLUMN).forEach((layer, row) => {
        if (layer !== layerIndex) faults.add("layer", chunk.start + row, `layer ${layer}`);
      });
    }
    if (names.has(DOC_COLUMN)) documentRows(chunk, names.has(COUNT_COLUMN), { faults, documents, positions });
    if (names.has(DOC_COLUMN) && names.has(TEXT_COLUMN)) openingRows(chunk, openings);
    if (names.has(LABEL_COLUMN)) {
      chunk.strings(LABEL_COLUMN).forEach((label, row) => {
        if (label.trim() === "") faults.add("empty-label", chunk.start + row, JSON.stringify(label));
      });
    }
    if (names.has(PROMPT_COLUMN) && prompts !== null) {
      const type = parquet.columns.find(({ name }) => name === PROMPT_COLUMN)?.type;
      for (let row = 0; row < chunk.rowCount; row++) {
        const prompt =
          type === "string"
            ? (chunk.strings(PROMPT_COLUMN)[row] as string)
            : (chunk.messages(PROMPT_COLUMN)[row]?.at(-1)?.content ?? "");
        if (!prompts(prompt)) faults.add("prompt", chunk.start + row, JSON.stringify(prompt.slice(0, 80)));
      }
    }
    if (names.has(RESPONSE_COLUMN) && sidecar !== null) {
      const format = sidecar.format.kind;
      chunk.strings(RESPONSE_COLUMN).forEach((response, row) => {
        if (!extractExplanation(response, { format }))
          faults.add("response", chunk.start + row, JSON.stringify(response.slice(0, 80)));
      });
    }
  }
  faults.report(parquet.path, findings);
  // Raw activations never all have one length; whitened or normalised ones do.
  if (parquet.rowCount > 1 && norms.most > 0 && norms.most / norms.least < 1 + 1e-3) {
    findings.add("error", {
      code: "check.normalised",
      subject: parquet.path,
      found: `vectors that all have length ${norms.most.toPrecision(4)}`,
      wanted: "raw activations, whose lengths differ",
      next: "Extract again without normalising: training scales vectors itself.",
    });
  }
}

function vectorRows(chunk: ParquetChunk, faults: RowFaults, norms: { least: number; most: number }): void {
  const all = chunk.vectors();
  const width = all.length / chunk.rowCount;
  for (let row = 0; row < chunk.rowCount; row++) {
    let squares = 0;
    for (let i = row * width; i < (row + 1) * width; i++) squares += (all[i] as number) ** 2;
    const norm = Math.sqrt(squares);
    norms.least = Math.min(norms.least, norm);
    norms.most = Math.max(norms.most, norm);
    if (norm === 0) faults.add("zero-vector", chunk.start + row, "zeros only");
  }
}

function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("base64").slice(0, 16);
}

function openingRows(chunk: ParquetChunk, openings: Map<string, readonly string[]>): void {
  const texts = chunk.strings(TEXT_COLUMN);
  chunk.strings(DOC_COLUMN).forEach((id, row) => {
    const text = texts[row] as string;
    const lengths = OPENING_CHARACTERS.filter((length) => text.length >= length);
    const key = hashOf(id);
    if (lengths.length <= (openings.get(key)?.length ?? 0)) return;
    openings.set(
      key,
      lengths.map((length) => hashOf(text.slice(0, length))),
    );
  });
}

function documentRows(
  chunk: ParquetChunk,
  counted: boolean,
  { faults, documents, positions }: { faults: RowFaults; documents: Set<string>; positions: Set<string> },
): void {
  const counts = counted ? chunk.numbers(COUNT_COLUMN) : [];
  chunk.strings(DOC_COLUMN).forEach((id, row) => {
    documents.add(hashOf(id));
    const count = counts[row];
    if (count === undefined) return;
    if (!(count >= 1)) faults.add("position", chunk.start + row, `n_raw_tokens ${count}`);
    const key = hashOf(`${id}|${count}`);
    if (positions.has(key)) faults.add("duplicate-row", chunk.start + row, `${id} at token ${count} again`);
    positions.add(key);
  });
}

/** Whether a prompt is the template, filled; null where the sidecar's templates cannot say. */
function promptRule(sidecar: DatasetSidecar | null): ((prompt: string) => boolean) | null {
  const { av = null, ar = null } = sidecar?.templates ?? {};
  try {
    if (sidecar?.stage === "ar_sft") {
      if (ar === null) return null;
      const { before, after } = parseTemplate(ar, EXPLANATION_PLACEHOLDER);
      return (prompt) =>
        prompt.startsWith(before) && prompt.endsWith(after) && prompt.length >= before.length + after.length;
    }
    if (av === null) return null;
    const wanted = fillTemplate(parseTemplate(av, INJECTION_PLACEHOLDER), MARKER_PLACEHOLDER);
    return (prompt) => prompt === wanted;
  } catch {
    return null; // the template has its own finding
  }
}
