// Whole data files, rearranged: shards of one extraction joined, vectors of variable length written as fixed-size lists, and the control
// whose vectors belong to other rows. Values are carried over as they are; what is checked is that they belong together.
import { listKindOf } from "../data/arrow-schema.js";
import { activationShuffledDatasetId, baseDatasetId } from "../data/dataset-id.js";
import { withScratchFolder } from "../data/files.js";
import { carriedColumns, permuteParquet } from "../data/parquet-rearrange.js";
import type { ColumnValues } from "../data/parquet-columns.js";
import { writeParquet } from "../data/parquet-write.js";
import { openParquet, VECTOR_COLUMN } from "../data/parquet.js";
import { writeDatasetSidecar } from "../data/sidecar.js";
import { activationOrder } from "../data/split.js";
import { NlaError } from "../error.js";
import path from "node:path";
import { derivedSidecar, openDataFile } from "./data-file.js";
import type { DataFile } from "./data-file.js";

/** A file that was written. */
export interface Rearranged {
  readonly file: string;
  readonly datasetId: string;
  readonly rows: number;
}

/**
 * Joins shards of one extraction, in the order of their corpus slices.
 *
 * @throws NlaError `merge.one` for fewer than two, `merge.differs` where model, layer, width, corpus, positions or columns are not the
 *   same, `merge.gap` where slices leave a gap or overlap, those of `openDataFile` (a row count that a sidecar gets wrong among them)
 */
export async function mergeShards(files: readonly string[], out: string): Promise<Rearranged> {
  if (files.length < 2) throw mergeError("one", "merge", `${files.length} file`, "at least two shards");
  const shards: (DataFile & { readonly start: number; readonly length: number })[] = [];
  try {
    for (const file of files) {
      const shard = await openDataFile(file, { activations: true });
      shards.push({ ...shard, ...sliceOf(shard) });
    }
    shards.sort((a, b) => a.start - b.start);
    const [first] = shards as [(typeof shards)[number]];
    for (const [i, shard] of shards.entries()) {
      checkAlike(first, shard);
      const before = shards[i - 1];
      if (before === undefined || before.start + before.length === shard.start) continue;
      const found = `documents ${before.start} to ${before.start + before.length - 1} in ${before.parquet.path}, then ${shard.start} on`;
      const wanted = `document ${before.start + before.length} next: no gap, no overlap`;
      throw mergeError("gap", shard.parquet.path, found, wanted);
    }
    const columns = carriedColumns(first.parquet);
    const rows = await writeParquet(out, columns, rowsOf(shards), {});
    const length = shards.reduce((sum, shard) => sum + shard.length, 0);
    const { extraction } = first.sidecar;
    const slice = { start: first.start, length };
    const { baseModel, layerIndex: layer, corpus } = extraction;
    const datasetId = baseDatasetId({ baseModel, layer, corpus, slice });
    const corpusSlice = new Map(extraction.corpusSlice).set("start", slice.start).set("length", length);
    const parentDatasets = shards.map(({ sidecar }) => sidecar.datasetId);
    await writeDatasetSidecar(out, {
      ...derivedSidecar(first.sidecar, { datasetId, rowCount: rows, createdBy: "nlakit merge" }),
      extraction: { ...extraction, corpusSlice },
      parentDatasets,
    });
    return { file: out, datasetId, rows };
  } finally {
    for (const shard of shards) shard.parquet.close();
  }
}

async function* rowsOf(shards: readonly DataFile[]): AsyncGenerator<Readonly<Record<string, ColumnValues>>> {
  for (const { parquet, width } of shards)
    for await (const chunk of parquet.chunks({ width })) yield chunk.values;
}

function sliceOf({ sidecar, parquet }: DataFile): { start: number; length: number } {
  const { corpusSlice } = sidecar.extraction;
  const [start, length] = [corpusSlice.get("start"), corpusSlice.get("length")];
  if (typeof start === "number" && typeof length === "number") return { start, length };
  const found = `corpus_slice of ${[...corpusSlice.keys()].join(", ") || "nothing"}`;
  throw mergeError("slice", parquet.path, found, "start and length");
}

/** What all shards have in common. */
const said = ({ sidecar: { extraction, stage }, parquet }: DataFile) => ({
  base_model: extraction.baseModel,
  layer_index: extraction.layerIndex,
  d_model: extraction.dModel,
  norm: extraction.norm,
  corpus: extraction.corpus,
  positions_per_doc: extraction.positionsPerDoc,
  stage,
  columns: carriedColumns(parquet)
    .map(({ name, type }) => `${name} ${JSON.stringify(type)}`)
    .join(", "),
});

function checkAlike(first: DataFile, shard: DataFile): void {
  const [wanted, found] = [said(first), said(shard)];
  for (const key of Object.keys(wanted) as (keyof typeof wanted)[]) {
    if (wanted[key] === found[key]) continue;
    const where = `${shard.parquet.path}: ${key}`;
    throw mergeError("differs", where, String(found[key]), `${wanted[key]}, as ${first.parquet.path} has`);
  }
}

function mergeError(code: string, subject: string, found: string, wanted: string): NlaError {
  const next = "Merge the shards of one extraction only: the same model, layer, corpus and seed.";
  return new NlaError({ code: `merge.${code}`, subject, found, wanted, next });
}

/**
 * Writes a file with its vectors as fixed-size lists, which Arrow readers can take without copying. Rows and sidecar stay the same.
 *
 * @throws NlaError `cast.fixed` where they are that already, `parquet.width` for vectors of unequal length
 */
export async function castVectors(file: string, out: string): Promise<Rearranged> {
  using source = await openDataFile(file);
  const { parquet, width, sidecar } = source;
  if (parquet.arrowSchema !== null && listKindOf(parquet.arrowSchema, VECTOR_COLUMN) === "fixed") {
    throw new NlaError({
      code: "cast.fixed",
      subject: `${file}: ${VECTOR_COLUMN}`,
      found: `a fixed-size list of ${width}`,
      wanted: "a list of variable length",
      next: "There is nothing to do.",
    });
  }
  const rows = await writeParquet(out, carriedColumns(parquet), rowsOf([source]));
  await writeDatasetSidecar(out, { ...sidecar, createdBy: "nlakit cast" });
  return { file: out, datasetId: sidecar.datasetId, rows };
}

/**
 * Writes the random-activation control: every row keeps its texts and takes the vector of another, in the reference's order
 * (key `{seed}|{dataset_id}|activ`). What a verbalizer gains over it, it owes to the activation.
 */
export async function shuffleActivations(
  file: string,
  { seed = 42, out }: { readonly seed?: number; readonly out: string },
): Promise<Rearranged> {
  using source = await openDataFile(file);
  const { parquet, sidecar, width } = source;
  const order = activationOrder({ rowCount: parquet.rowCount, seed, datasetId: sidecar.datasetId });
  const rows = await withScratchFolder(path.resolve(out), async (scratch) => {
    const permuted = path.join(scratch, "permuted.parquet");
    await permuteParquet(file, permuted, order);
    const vectors = await openParquet(permuted);
    try {
      return await writeParquet(out, carriedColumns(parquet), withVectorsOf(source, vectors, width));
    } finally {
      vectors.close();
    }
  });
  const datasetId = activationShuffledDatasetId(sidecar.datasetId, seed);
  const changes = { datasetId, rowCount: rows, createdBy: "nlakit control" };
  await writeDatasetSidecar(out, derivedSidecar(sidecar, changes));
  return { file: out, datasetId, rows };
}

async function* withVectorsOf(
  { parquet }: DataFile,
  permuted: Awaited<ReturnType<typeof openParquet>>,
  width: number,
): AsyncGenerator<Readonly<Record<string, ColumnValues>>> {
  const others = permuted.chunks({ columns: [VECTOR_COLUMN], width });
  let spare = new Float32Array(0); // the two files need not come in chunks of the same rows
  for await (const { values, rowCount } of parquet.chunks({ width })) {
    const vectors = new Float32Array(rowCount * width);
    for (let filled = 0; filled < vectors.length;) {
      if (spare.length === 0)
        spare = ((await others.next()).value as { vectors(): Float32Array }).vectors().slice();
      const part = spare.subarray(0, vectors.length - filled);
      vectors.set(part, filled);
      filled += part.length;
      spare = spare.subarray(part.length);
    }
    yield { ...values, [VECTOR_COLUMN]: vectors };
  }
}
