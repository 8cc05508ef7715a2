// Puts the rows of a training set in random order: by the seed and the set's id alone, as the reference does, so that both
// train on the same rows at the same step.
import { shuffledDatasetId } from "../data/dataset-id.js";
import { permuteParquet } from "../data/parquet-rearrange.js";
import { writeDatasetSidecar } from "../data/sidecar.js";
import { rowOrder } from "../data/split.js";
import { derivedSidecar, openDataFile } from "./data-file.js";

/** Options of {@link shuffleRows}. */
export interface ShuffleOptions {
  readonly file: string;
  /** Defaults to 42. */
  readonly seed?: number;
  readonly out: string;
}

/** What was shuffled. */
export interface Shuffled {
  readonly file: string;
  readonly datasetId: string;
  readonly rows: number;
}

/** Writes the rows of `file` in the order of `Random(sha256("{seed}|{dataset_id}"))`. @throws NlaError as {@link openDataFile} */
export async function shuffleRows({ file, seed = 42, out }: ShuffleOptions): Promise<Shuffled> {
  using source = await openDataFile(file);
  const { sidecar, parquet } = source;
  const rows = parquet.rowCount;
  await permuteParquet(file, out, rowOrder({ rowCount: rows, seed, datasetId: sidecar.datasetId }));
  const datasetId = shuffledDatasetId(sidecar.datasetId, seed);
  const changes = { datasetId, rowCount: rows, createdBy: "nlakit shuffle" };
  await writeDatasetSidecar(out, derivedSidecar(sidecar, changes));
  return { file: out, datasetId, rows };
}
