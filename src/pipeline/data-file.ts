// A data file together with its sidecar: opened only if the two agree, and the sidecar of what is made from it. The one place
// where stages check their input, so that a file that was cut, swapped or transformed stops here and not in training.
import { openParquet } from "../data/parquet.js";
import type { ParquetFile } from "../data/parquet.js";
import { VECTOR_COLUMN } from "../data/parquet.js";
import { createdAtNow, datasetSidecarPath, readDatasetSidecar } from "../data/sidecar.js";
import type { DatasetSidecar, UnknownKey } from "../data/sidecar.js";
import type { YamlMap, YamlScalar, YamlValue } from "../data/yaml-scalars.js";
import { YamlFloat } from "../data/yaml-scalars.js";
import { NlaError } from "../error.js";

/** An open data file that its sidecar describes. */
export interface DataFile extends Disposable {
  readonly parquet: ParquetFile;
  readonly sidecar: DatasetSidecar;
  /** Width of the vectors. */
  readonly width: number;
}

/** What a stage demands of its input. */
export interface DataFileDemands {
  /** Refuses training sets, which would be wrapped twice. Defaults to false. */
  readonly activations?: boolean;
  /** Columns that have to be there. */
  readonly columns?: readonly string[];
}

/**
 * Opens a Parquet file with its sidecar.
 *
 * @throws NlaError `parquet.*`, `sidecar.*`; `data.contradiction` where the sidecar says another number of rows or another
 *   width, `data.norm` for vectors that are not raw, `data.stage`, `data.empty`, `parquet.no-column`
 */
export async function openDataFile(file: string, demands: DataFileDemands = {}): Promise<DataFile> {
  const parquet = await openParquet(file);
  try {
    const sidecar = await readDatasetSidecar(file);
    checkColumns(parquet, new Set([VECTOR_COLUMN, ...(demands.columns ?? [])]));
    checkSidecar(parquet, sidecar, demands.activations ?? false);
    return { parquet, sidecar, width: sidecar.extraction.dModel, [Symbol.dispose]: () => parquet.close() };
  } catch (thrown) {
    parquet.close();
    throw thrown;
  }
}

function checkColumns({ path, columns }: ParquetFile, wanted: ReadonlySet<string>): void {
  const missing = [...wanted].filter((name) => !columns.some((column) => column.name === name));
  if (missing.length === 0) return;
  throw new NlaError({
    code: "parquet.no-column",
    subject: path,
    found: `the columns ${columns.map(({ name }) => name).join(", ")}`,
    wanted: `also ${missing.join(", ")}`,
    next: "Check that this is the file of the stage you mean; it may have been written without its text.",
  });
}

function checkSidecar(parquet: ParquetFile, sidecar: DatasetSidecar, activations: boolean): void {
  const { extraction, rowCount, stage } = sidecar;
  const subject = datasetSidecarPath(parquet.path);
  if (parquet.rowCount === 0) {
    throw new NlaError({
      code: "data.empty",
      subject: parquet.path,
      found: "0 rows",
      wanted: "at least one row",
      next: "Check the stage before: its corpus, its fractions, its labels.",
    });
  }
  if (rowCount !== parquet.rowCount) {
    throw contradiction(subject, `${rowCount} rows`, `${parquet.rowCount}, as the Parquet file has`);
  }
  if (parquet.vectorWidth !== extraction.dModel) {
    const wanted = `${parquet.vectorWidth ?? "no vectors"}, as the Parquet file has`;
    throw contradiction(subject, `d_model ${extraction.dModel}`, wanted);
  }
  if (extraction.norm !== "none") {
    throw new NlaError({
      code: "data.norm",
      subject,
      found: `vectors of norm ${JSON.stringify(extraction.norm)}`,
      wanted: '"none": raw activations, which training scales itself',
      next: "Extract again; a transformation of the vectors cannot be undone here.",
    });
  }
  if (activations && stage !== "base") {
    throw new NlaError({
      code: "data.stage",
      subject: parquet.path,
      found: `a training set (${stage})`,
      wanted: "activations: extracted, split or labelled ones (stage base)",
      next: "Name the file from before it was built; prompts must not be wrapped twice.",
    });
  }
}

function contradiction(subject: string, found: string, wanted: string): NlaError {
  return new NlaError({
    code: "data.contradiction",
    subject,
    found,
    wanted,
    next: "The two files are not of one run: copy both again, or write them again.",
  });
}

/** What a stage changes of its input's sidecar. */
export type SidecarChanges = Pick<DatasetSidecar, "datasetId" | "rowCount" | "createdBy"> &
  Partial<DatasetSidecar>;

/** The sidecar of what was made from one file. */
export function derivedSidecar(parent: DatasetSidecar, changes: SidecarChanges): DatasetSidecar {
  return {
    ...parent,
    parentDatasets: [parent.datasetId],
    createdAt: createdAtNow(),
    gitCommit: "",
    ...changes,
  };
}

// Everything of ours that the reference's sidecars have no place for stands in one mapping under this key at the top level,
// where its readers ignore what they do not know (inside `extraction` or `api_summaries` they would stop).
const OWN_KEY = "nlakit";

/** Settings of a stage, as they go into a sidecar. */
export type StageFacts = Readonly<Record<string, string | number | boolean | null>>;

/** `unknown` with `nlakit: {stage: facts}` added. */
export function withStageFacts(
  unknown: readonly UnknownKey[],
  stage: string,
  facts: StageFacts,
): readonly UnknownKey[] {
  const own = unknown.find(({ path }) => path.length === 1 && path[0] === OWN_KEY)?.value;
  const map = new Map<YamlScalar, YamlValue>(own instanceof Map ? (own as YamlMap) : []);
  const values = Object.entries(facts).map(([key, value]): [YamlScalar, YamlValue] => [
    key,
    typeof value === "number" && !Number.isSafeInteger(value) ? new YamlFloat(value) : value,
  ]);
  map.set(stage, new Map(values));
  const others = unknown.filter(({ path }) => path.length !== 1 || path[0] !== OWN_KEY);
  return [...others, { path: [OWN_KEY], value: map }];
}
