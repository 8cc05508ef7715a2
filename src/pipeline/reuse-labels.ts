// Labels of sets that were built before: put on fresh activations of the same positions, or taken out as a cache of texts. No labelling
// model is asked. Positions are matched exactly; texts are matched by stage 2 (recorded-labels.ts), not here.
import { writeParquet } from "../data/parquet-write.js";
import { DOC_COLUMN } from "../data/parquet.js";
import type { ParquetChunk } from "../data/parquet.js";
import { NlaError } from "../error.js";
import { COUNT_COLUMN, LABEL_COLUMN, TEXT_COLUMN } from "./columns.js";
import { openDataFile } from "./data-file.js";
import type { DataFile } from "./data-file.js";
import { labelColumn } from "./label-column.js";
import { labelSet } from "./label-set.js";
import type { Labelled } from "./label-set.js";

/** Options of {@link joinLabels}. */
export interface JoinOptions {
  /** Activations without labels. */
  readonly raw: string;
  /** A labelled or built set, in any order, with the same documents and positions. */
  readonly prior: string;
  readonly out: string;
  /** The prompt that the prior's reconstructor rows were built with. Defaults to that of its sidecar. */
  readonly reconstructorTemplate?: string;
  /** Share of the fresh rows that has to be found. Defaults to 0.95, as the reference demands. */
  readonly least?: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Writes the rows of `raw` with the labels of `prior`, by document and position; rows without one are left out.
 *
 * @throws NlaError `join.match-rate` where fewer than `least` match, `reuse.no-labels`, `rows.label` for a prompt or response that is
 *   not wrapped as the template says, and those of `labelSet`
 */
export async function joinLabels(options: JoinOptions): Promise<Labelled & { readonly matched: number }> {
  const { raw, prior, out, reconstructorTemplate, least = 0.95, signal } = options;
  const labels = new Map<string, string>();
  using source = await openDataFile(prior, { columns: [COUNT_COLUMN, DOC_COLUMN] });
  await eachLabel(source, [COUNT_COLUMN, DOC_COLUMN], reconstructorTemplate, (chunk, row, label) => {
    labels.set(keyOf(chunk.strings(DOC_COLUMN)[row], chunk.numbers(COUNT_COLUMN)[row]), label);
  });
  const share = await matched(raw, labels);
  if (share < least) {
    throw new NlaError({
      code: "join.match-rate",
      subject: `${raw} and ${prior}`,
      found: `${(100 * share).toFixed(1)}% of the fresh rows have a label there`,
      wanted: `at least ${100 * least}%`,
      next: "The earlier set is of other documents, another seed or another tokenizer. By text instead of position: `nla data recover`, then cache_from in the config.",
    });
  }
  const { apiSummaries, datasetId } = source.sidecar;
  const labelled = await labelSet({
    raw,
    out,
    signal,
    labeller: {
      name: apiSummaries?.model ?? "unknown",
      settings: {
        max_tokens: apiSummaries?.maxTokens ?? null,
        temperature: apiSummaries?.temperature ?? null,
        instruction_prompt: apiSummaries?.instructionPrompt ?? null,
        joined_from: datasetId,
      },
      label: (requests) =>
        Promise.resolve(
          requests.map(({ docId, position }) => labels.get(keyOf(docId, position + 1)) ?? null),
        ),
    },
  });
  return { ...labelled, matched: share };
}

/** Options of {@link recoverLabels}. */
export interface RecoverOptions {
  /** A built set that kept its texts. */
  readonly built: string;
  readonly out: string;
  /** Defaults to that of the sidecar. */
  readonly reconstructorTemplate?: string;
}

/**
 * Writes texts and their labels, two columns, as `cache_from` of a pipeline config takes them. There is no sidecar: the rows are no
 * activations.
 *
 * @throws NlaError `parquet.no-column` for a set built without its texts, `reuse.no-labels`, `rows.label`
 */
export async function recoverLabels(options: RecoverOptions): Promise<{ file: string; rows: number }> {
  const { built, out, reconstructorTemplate } = options;
  using source = await openDataFile(built, { columns: [TEXT_COLUMN] });
  const texts: string[] = [];
  const labels: string[] = [];
  await eachLabel(source, [TEXT_COLUMN], reconstructorTemplate, (chunk, row, label) => {
    texts.push(chunk.strings(TEXT_COLUMN)[row] as string);
    labels.push(label);
  });
  const columns = [TEXT_COLUMN, LABEL_COLUMN].map((name) => ({ name, type: "string" as const }));
  const rows = await writeParquet(out, columns, [{ [TEXT_COLUMN]: texts, [LABEL_COLUMN]: labels }]);
  return { file: out, rows };
}

function keyOf(docId: string | undefined, count: number | undefined): string {
  return `${count}|${docId}`;
}

async function matched(raw: string, labels: ReadonlyMap<string, string>): Promise<number> {
  using source = await openDataFile(raw, { activations: true, columns: [COUNT_COLUMN, DOC_COLUMN] });
  let found = 0;
  for await (const chunk of source.parquet.chunks({ columns: [COUNT_COLUMN, DOC_COLUMN] })) {
    const counts = chunk.numbers(COUNT_COLUMN);
    found += chunk.strings(DOC_COLUMN).filter((id, row) => labels.has(keyOf(id, counts[row]))).length;
  }
  return found / source.parquet.rowCount;
}

async function eachLabel(
  source: DataFile,
  columns: readonly string[],
  template: string | undefined,
  take: (chunk: ParquetChunk, row: number, label: string) => void,
): Promise<void> {
  const { parquet } = source;
  const column = labelColumn(source, template);
  if (column === null) {
    throw new NlaError({
      code: "reuse.no-labels",
      subject: parquet.path,
      found: `the columns ${parquet.columns.map(({ name }) => name).join(", ")}`,
      wanted: "labels: api_explanation, a response, or a reconstructor's prompt",
      next: "Name an av_sft or ar_sft set, or a labelled file; rl sets have no labels.",
    });
  }
  for await (const chunk of parquet.chunks({ columns: [...columns, column.name] })) {
    chunk.strings(column.name).forEach((value, row) => {
      const label = column.unwrap(value);
      if (label !== null) return take(chunk, row, label);
      throw new NlaError({
        code: "rows.label",
        subject: `${parquet.path}, row ${chunk.start + row}`,
        found: `${column.name} ${JSON.stringify(value.slice(0, 60))}`,
        wanted: `a text wrapped as the template says (${column.wrapping})`,
        next: "Give the template that the set was built with; its sidecar has it.",
      });
    });
  }
}
