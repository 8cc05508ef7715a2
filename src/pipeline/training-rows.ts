// Rows of a data file by number, for training loops: whatever the file's stage, a row is a vector, where it comes from, and the
// texts that there are. Meant for runs of neighbouring rows (a shuffled file read in order); a few blocks stay in memory.
import { DOC_COLUMN, VECTOR_COLUMN } from "../data/parquet.js";
import type { ParquetChunk } from "../data/parquet.js";
import { NlaError } from "../error.js";
import { COUNT_COLUMN, TEXT_COLUMN } from "./columns.js";
import { openDataFile } from "./data-file.js";
import type { DataFile } from "./data-file.js";
import { labelColumn } from "./label-column.js";
import type { LabelColumn } from "./label-column.js";

// At width 3584 a block is 15 MB. A batch that straddles two blocks and a reader of evaluation rows beside it need three.
const BLOCK_ROWS = 1024;
const BLOCKS_KEPT = 3;

/** One row. */
export interface Row {
  /** Raw activation, [width]. */
  readonly vector: Float32Array;
  readonly docId: string;
  /** Index of the token, from 0. */
  readonly position: number;
  /** The document up to and with the token; null where the file has no such column. */
  readonly text: string | null;
  /** The explanation, without what is wrapped around it; null where the file has none. */
  readonly label: string | null;
}

/** The texts of a row that can be left out of reading. */
export type RowText = "text" | "label";

/** An open file of rows. Close it. */
export interface TrainingRows extends Disposable {
  readonly rowCount: number;
  /** Width of the vectors. */
  readonly width: number;
  readonly datasetId: string;
  /** Rows by number, in the order asked for; a number may come twice. @throws NlaError `rows.index`, `rows.label`, `parquet.*` */
  rows(indices: readonly number[]): Promise<Row[]>;
  close(): void;
}

/**
 * Opens a data file of any stage for reading by row.
 *
 * @param texts which texts to read, if the file has them. Defaults to both.
 * @throws NlaError as {@link openDataFile}
 */
export async function openTrainingRows(
  file: string,
  texts: readonly RowText[] = ["text", "label"],
): Promise<TrainingRows> {
  const source = await openDataFile(file, { columns: [COUNT_COLUMN, DOC_COLUMN] });
  try {
    return new BlockReader(source, texts);
  } catch (thrown) {
    source[Symbol.dispose]();
    throw thrown;
  }
}

class BlockReader implements TrainingRows {
  readonly rowCount: number;
  readonly width: number;
  readonly datasetId: string;
  readonly #source: DataFile;
  readonly #columns: readonly string[];
  readonly #hasText: boolean;
  readonly #label: LabelColumn | null;
  // Least recently used first. Promises, so that two callers wait for one reading.
  readonly #blocks = new Map<number, Promise<Row[]>>();

  constructor(source: DataFile, texts: readonly RowText[]) {
    const { parquet, sidecar, width } = source;
    this.rowCount = parquet.rowCount;
    this.width = width;
    this.datasetId = sidecar.datasetId;
    this.#source = source;
    this.#hasText = texts.includes("text") && parquet.columns.some(({ name }) => name === TEXT_COLUMN);
    this.#label = texts.includes("label") ? labelColumn(source) : null;
    this.#columns = [
      VECTOR_COLUMN,
      COUNT_COLUMN,
      DOC_COLUMN,
      ...(this.#hasText ? [TEXT_COLUMN] : []),
      ...(this.#label ? [this.#label.name] : []),
    ];
  }

  async rows(indices: readonly number[]): Promise<Row[]> {
    for (const index of indices) this.#check(index);
    const rows: Row[] = [];
    for (const index of indices) {
      const number = Math.floor(index / BLOCK_ROWS);
      const block = await this.#block(number);
      rows.push(block[index - number * BLOCK_ROWS] as Row);
    }
    return rows;
  }

  #check(index: number): void {
    if (Number.isInteger(index) && index >= 0 && index < this.rowCount) return;
    throw new NlaError({
      code: "rows.index",
      subject: this.#source.parquet.path,
      found: `row ${index}`,
      wanted: `a row from 0 to ${this.rowCount - 1}`,
      next: "Check that the run folder and its training set belong together.",
    });
  }

  #block(number: number): Promise<Row[]> {
    const block = this.#blocks.get(number) ?? this.#read(number);
    this.#blocks.delete(number);
    this.#blocks.set(number, block);
    for (const oldest of this.#blocks.keys()) {
      if (this.#blocks.size <= BLOCKS_KEPT) break;
      this.#blocks.delete(oldest);
    }
    block.catch(() => this.#blocks.delete(number)); // a failed reading is tried again
    return block;
  }

  async #read(number: number): Promise<Row[]> {
    const start = number * BLOCK_ROWS;
    const end = Math.min(this.rowCount, start + BLOCK_ROWS);
    const rows: Row[] = [];
    const options = { columns: this.#columns, width: this.width, start, end };
    for await (const chunk of this.#source.parquet.chunks(options)) rows.push(...this.#rowsOf(chunk));
    return rows;
  }

  #rowsOf(chunk: ParquetChunk): Row[] {
    const vectors = chunk.vectors();
    const counts = chunk.numbers(COUNT_COLUMN);
    const documents = chunk.strings(DOC_COLUMN);
    const texts = this.#hasText ? chunk.strings(TEXT_COLUMN) : null;
    const labels = this.#label && chunk.strings(this.#label.name);
    return documents.map((docId, row) => ({
      // A copy: a row that is kept must not keep its whole block.
      vector: vectors.slice(row * this.width, (row + 1) * this.width),
      docId,
      position: (counts[row] as number) - 1,
      text: texts?.[row] ?? null,
      label: labels === null ? null : this.#unwrap(labels[row] as string, chunk.start + row),
    }));
  }

  #unwrap(value: string, row: number): string {
    const label = this.#label?.unwrap(value) ?? null;
    if (label !== null) return label;
    throw new NlaError({
      code: "rows.label",
      subject: `${this.#source.parquet.path}, row ${row}`,
      found: `${this.#label?.name} ${JSON.stringify(value.slice(0, 60))}`,
      wanted: `a text wrapped as the sidecar says (${this.#label?.wrapping})`,
      next: "The file and its sidecar are not of one run, or the rows were edited.",
    });
  }

  close(): void {
    this.#blocks.clear();
    this.#source[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
