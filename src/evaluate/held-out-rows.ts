// The held-out activations of a run, from its parquet file: all of them, or some spread evenly over the file.
import { DOC_COLUMN, openParquet, VECTOR_COLUMN } from "../data/parquet.js";
import type { ParquetChunk } from "../data/parquet.js";
import { NlaError } from "../error.js";
import type { EvalRow } from "./explained-rows.js";

const COUNT_COLUMN = "n_raw_tokens";
const TEXT_COLUMN = "detokenized_text_truncated";

/** Which rows. */
export interface HeldOutRowsOptions {
  /** At most so many, evenly spread over the file and so over its documents. Defaults to all. */
  readonly rows?: number;
  /** Width that the activations must have. */
  readonly width: number;
}

/**
 * Reads held-out activations. Memory is that of the rows that are kept.
 *
 * @throws NlaError of the parquet reader: `parquet.missing`, `.no-column`, `.width`, `.not-finite`; `evaluate.rows` for an
 *   empty file, `evaluate.position` for a row of no tokens
 */
export async function readHeldOutRows(file: string, { rows, width }: HeldOutRowsOptions): Promise<EvalRow[]> {
  const parquet = await openParquet(file);
  try {
    const { rowCount } = parquet;
    if (rowCount === 0) {
      throw new NlaError({
        code: "evaluate.rows",
        subject: file,
        found: "no rows",
        wanted: "held-out activations",
        next: "Hold out some documents (splits.eval) and train again.",
      });
    }
    const texts = parquet.columns.some(({ name }) => name === TEXT_COLUMN);
    const columns = [VECTOR_COLUMN, DOC_COLUMN, COUNT_COLUMN, ...(texts ? [TEXT_COLUMN] : [])];
    const wanted = Math.min(rows ?? rowCount, rowCount);
    const kept: EvalRow[] = [];
    for await (const chunk of parquet.chunks({ columns, width })) {
      for (let i = 0; i < chunk.rowCount; i++) {
        const next = Math.floor((kept.length * rowCount) / wanted);
        if (kept.length < wanted && chunk.start + i === next)
          kept.push(rowOf(chunk, i, { width, texts, file }));
      }
    }
    return kept;
  } finally {
    parquet.close();
  }
}

function rowOf(
  chunk: ParquetChunk,
  i: number,
  { width, texts, file }: { width: number; texts: boolean; file: string },
): EvalRow {
  const tokens = chunk.numbers(COUNT_COLUMN)[i] as number;
  if (tokens < 1) {
    throw new NlaError({
      code: "evaluate.position",
      subject: `${file}, row ${chunk.start + i}`,
      found: `${COUNT_COLUMN} ${tokens}`,
      wanted: "the number of tokens up to and with the activation's, at least 1",
      next: "Extract the activations again.",
    });
  }
  return {
    vector: chunk.vectors().slice(i * width, (i + 1) * width),
    docId: chunk.strings(DOC_COLUMN)[i] as string,
    position: tokens - 1,
    text: texts ? (chunk.strings(TEXT_COLUMN)[i] as string) : null,
  };
}
