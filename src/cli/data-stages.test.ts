// Each stage of the pipeline by itself, on what the reference's stage before it wrote: its output is the reference's next file, row for
// row, vectors and sidecar included. All of them in one go is data-run.test.ts.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { openParquet } from "../data/parquet.js";
import type { ParquetColumn } from "../data/parquet.js";
import { readDatasetSidecar } from "../data/sidecar.js";
import { parseReferenceConfig } from "../pipeline/reference-config.js";
import { runNla } from "./testing/run-nla.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-data-stages-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const GOLDEN = ["pipeline", "pipeline-llama", "pipeline-gemma3"];
const SETS = ["av_sft", "ar_sft", "rl"] as const;
const LABELLED = ["av_sft", "ar_sft"] as const;
const VECTOR = "activation_vector";

interface Table {
  readonly columns: readonly Pick<ParquetColumn, "name" | "type">[];
  readonly rows: readonly object[];
  readonly vectors: readonly Float32Array[];
}

async function tableOf(file: string): Promise<Table> {
  const parquet = await openParquet(file);
  const rows: object[] = [];
  const vectors: Float32Array[] = [];
  for await (const chunk of parquet.chunks()) {
    const width = chunk.vectors().length / chunk.rowCount;
    for (let row = 0; row < chunk.rowCount; row++) {
      const others = Object.entries(chunk.values).filter(([name]) => name !== VECTOR);
      rows.push(Object.fromEntries(others.map(([name, values]) => [name, values[row]])));
      vectors.push(chunk.vectors().slice(row * width, (row + 1) * width));
    }
  }
  const columns = parquet.columns.map(({ name, type }) => ({ name, type }));
  parquet.close();
  return { columns, rows, vectors };
}

/** Our file against the reference's; `bound` is the error of a vector relative to its norm. */
async function expectSame(ours: string, theirs: string, bound = 0): Promise<void> {
  const [a, b] = [await tableOf(ours), await tableOf(theirs)];
  expect(a.columns, ours).toEqual(b.columns);
  expect(a.rows, ours).toEqual(b.rows);
  expect(b.rows.length).toBeGreaterThan(0);
  for (const [row, vector] of a.vectors.entries()) {
    const wanted = b.vectors[row] as Float32Array;
    const error = Math.hypot(...vector.map((value, i) => value - (wanted[i] as number)));
    expect(error / Math.hypot(...wanted), `${ours}, row ${row}`).toBeLessThanOrEqual(bound);
  }
  const [mine, reference] = [await readDatasetSidecar(ours), await readDatasetSidecar(theirs)];
  for (const key of ["datasetId", "stage", "rowCount", "extraction", "tokens", "templates"] as const)
    expect(mine[key], `${ours} ${key}`).toEqual(reference[key]);
  for (const key of ["apiSummaries", "parentDatasets"] as const)
    expect(mine[key], `${ours} ${key}`).toEqual(reference[key]);
}

it("label: records without the prompt that they answer are refused", async () => {
  const args = ["data", "label", "raw.parquet", "--labels", "calls.jsonl", "--out", "explained.parquet"];
  const { code, err } = await runNla(args);
  expect(code).toBe(2);
  expect(err).toContain("--labels alone");
});

async function nla(...args: readonly (string | number)[]): Promise<void> {
  const { code, out, err } = await runNla([...args.map(String), "--json"]);
  expect(code, out + err).toBe(0);
}

for (const name of GOLDEN) {
  const found = sharedPath(`golden/nla/${name}`);
  describeWith(found, name, () => stagesOf(name, found as string));
}

function stagesOf(name: string, folder: string): void {
  const golden = (file: string) => path.join(folder, "out", file);
  const given = (file: string) => path.join(folder, file);
  const out = (file: string) => path.join(scratch, name, file);
  const config = parseReferenceConfig(readFileSync(given("config.yaml")), "config.yaml");
  const { baseModel, corpus, extract, split, shuffle } = config;

  it("extract: documents to activations", async () => {
    const source = ["--corpus", given(`${corpus.name}/train.jsonl`), "--name", corpus.name];
    const range = ["--split", corpus.split, "--start", corpus.start, "--length", corpus.length];
    const drawn = ["--per-document", extract.perDocument, "--seed", extract.seed];
    const cut = ["--max-length", extract.maxLength, "--threads", 1];
    const target = ["--model", baseModel, "--layer", config.layer];
    const file = out("base.parquet");
    const before = process.cwd();
    process.chdir(folder); // the id of a dataset has its model's name in it, as it was given
    try {
      await nla("data", "extract", ...target, ...source, ...range, ...drawn, ...cut, "--out", file);
    } finally {
      process.chdir(before);
    }
    await expectSame(file, golden("base.parquet"), 1e-4);
  });

  it("split: the reference's activations to its three sets", async () => {
    const sets = ["--av-sft", split.av_sft, "--ar-sft", split.ar_sft, "--rl", split.rl, "--eval", 0];
    const shares = [...sets, "--seed", split.seed];
    await nla("data", "split", golden("base.parquet"), ...shares, "--out", out("splits"));
    for (const set of SETS)
      await expectSame(out(`splits/${set}_raw.parquet`), golden(`splits/${set}_raw.parquet`));
  });

  it.each(LABELLED)("label: the reference's %s_raw with recorded labels", async (set) => {
    const recorded = ["--labels", given("provider_calls.jsonl"), "--templates", golden(`${set}.parquet`)];
    const file = out(`${set}_explained.parquet`);
    await nla("data", "label", golden(`splits/${set}_raw.parquet`), ...recorded, "--out", file);
    await expectSame(file, golden(`splits/${set}_explained.parquet`));
  });

  it.each(SETS)("build: the reference's split to its %s", async (set) => {
    const { templates } = await readDatasetSidecar(golden("av_sft.parquet"));
    const prompts = [
      "--verbalizer-template",
      templates.av ?? "",
      "--reconstructor-template",
      templates.ar ?? "",
    ];
    const input = golden(`splits/${set}_${set === "rl" ? "raw" : "explained"}.parquet`);
    const file = out(`${set}.parquet`);
    await nla("data", "build", input, "--set", set, "--model", given(baseModel), ...prompts, "--out", file);
    await expectSame(file, golden(`${set}.parquet`));
  });

  it.each(SETS)("shuffle: the reference's %s in its order", async (set) => {
    const file = out(`${set}_shuf.parquet`);
    await nla("data", "shuffle", golden(`${set}.parquet`), "--seed", shuffle.seed, "--out", file);
    await expectSame(file, golden(`${set}_shuf.parquet`));
  });
}
