// Some rows of a data file as a person wants to see them: where each activation comes from, how long it is, and its texts.
// Not the table on the terminal (cli/data.ts).
import { NlaError } from "../error.js";
import { lengthOf } from "./statistics.js";
import { openTrainingRows } from "./training-rows.js";

/** One row to look at. */
export interface ShownRow {
  readonly row: number;
  readonly docId: string;
  readonly position: number;
  /** Length (L2) of the activation. */
  readonly norm: number;
  readonly text: string | null;
  readonly label: string | null;
}

/** Some rows of a file, and what the file is. */
export interface Shown {
  readonly file: string;
  readonly datasetId: string;
  readonly rowCount: number;
  readonly width: number;
  readonly rows: readonly ShownRow[];
}

/**
 * Rows `start` to `start + rows`, fewer at the end of the file.
 *
 * @throws NlaError `rows.index` for a start behind the last row, and those of opening and reading
 */
export async function readShown(
  file: string,
  { start = 0, rows: count = 10 }: { readonly start?: number; readonly rows?: number } = {},
): Promise<Shown> {
  using source = await openTrainingRows(file);
  const { rowCount, width, datasetId } = source;
  if (start >= rowCount) {
    throw new NlaError({
      code: "rows.index",
      subject: file,
      found: `row ${start} as the first to show`,
      wanted: `a row from 0 to ${rowCount - 1}`,
      next: "Start earlier.",
    });
  }
  const indices = Array.from({ length: Math.min(count, rowCount - start) }, (_, i) => start + i);
  const rows = (await source.rows(indices)).map(({ vector, docId, position, text, label }, i): ShownRow => ({
    row: start + i,
    docId,
    position,
    norm: lengthOf(vector, 0, width),
    text,
    label,
  }));
  return { file, datasetId, rowCount, width, rows };
}
