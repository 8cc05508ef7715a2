// The whole pipeline against the reference's: the same documents, model and labels in, the same files out, byte for byte where
// bytes are defined and to 1e-4 in the vectors. One table entry per folder of golden values.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sharedPath } from "../../test/shared.js";
import { readCorpus } from "../data/corpus.js";
import { drawPositions } from "../data/positions.js";
import type { ParquetColumn } from "../data/parquet.js";
import { openParquet } from "../data/parquet.js";
import { readDatasetSidecar } from "../data/sidecar.js";
import type { DatasetSidecar } from "../data/sidecar.js";
import { readYaml } from "../data/yaml-read.js";
import { makeContract } from "../nla/contract.js";
import { chooseMarker } from "../nla/start.js";
import { loadTarget } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import { fillTemplate, parseTemplate } from "../nla/template.js";
import { Device } from "../tensor/index.js";
import { buildTrainingSet } from "./build.js";
import { documentTokens } from "./document-tokens.js";
import { extractActivations } from "./extract.js";
import { cleanLabel, isUsableLabel } from "./label-cleaning.js";
import { labelSet } from "./label-set.js";
import type { Labeller } from "./labels.js";
import { shuffleRows } from "./shuffle.js";
import { splitByDocument } from "./split.js";
import { openTrainingRows } from "./training-rows.js";

const GOLDEN = ["pipeline", "pipeline-llama", "pipeline-gemma3"];
const SETS = ["av_sft", "ar_sft", "rl"] as const;
const VECTOR = "activation_vector";
// What is ours to choose.
const OUR_OWN = ["createdAt", "createdBy", "gitCommit", "unknown", "extensions"] as const;

interface Config {
  base_model: string;
  layer_index: number;
  corpus: { name: string; split: string; start: number; length: number };
  stage0: { positions_per_doc: number; seed: number; extractor_kwargs: { max_length: number } };
  stage1: { av_sft_frac: number; ar_sft_frac: number; rl_frac: number; seed: number };
  shuffle: { seed: number };
}

interface GoldenDocument {
  doc_id: string;
  token_ids: number[];
  positions: number[];
}

function json<T>(file: string): T {
  return JSON.parse(readFileSync(file, "utf8")) as T;
}

/** Parsed YAML as plain objects. */
function plain(value: unknown): unknown {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]));
  if (Array.isArray(value)) return value.map(plain);
  return typeof value === "object" && value !== null && "value" in value ? value.value : value;
}

/** Answers with the recorded completions, in order, and demands that each prompt is the recorded one. */
function replay(folder: string, template: string): Labeller {
  const calls = readFileSync(path.join(folder, "provider_calls.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { prompt: string; completion: string | null });
  const parsed = parseTemplate(template, "text");
  let next = 0;
  return {
    name: "fake-labeller-1",
    settings: { max_tokens: 77, temperature: 0.5, instruction_prompt: template },
    label: (requests) =>
      Promise.resolve(
        requests.map(({ textBefore }) => {
          const call = calls[next++];
          expect(fillTemplate(parsed, textBefore)).toBe(call?.prompt);
          const label = call?.completion ? cleanLabel(call.completion) : null;
          return label !== null && isUsableLabel(label) ? label : null;
        }),
      ),
  };
}

interface Table {
  readonly columns: readonly ParquetColumn[];
  readonly rows: readonly Record<string, unknown>[];
  readonly vectors: readonly Float32Array[];
}

async function tableOf(file: string): Promise<Table> {
  const parquet = await openParquet(file);
  const rows: Record<string, unknown>[] = [];
  const vectors: Float32Array[] = [];
  for await (const chunk of parquet.chunks()) {
    const width = chunk.vectors().length / chunk.rowCount;
    for (let row = 0; row < chunk.rowCount; row++) {
      const others = Object.entries(chunk.values).filter(([name]) => name !== VECTOR);
      rows.push(Object.fromEntries(others.map(([name, values]) => [name, values[row]])));
      vectors.push(chunk.vectors().slice(row * width, (row + 1) * width));
    }
  }
  parquet.close();
  return { columns: parquet.columns, rows, vectors };
}

function expectEqualTables(ours: Table, theirs: Table): void {
  expect(ours.columns.map(({ name, type }) => ({ name, type }))).toEqual(
    theirs.columns.map(({ name, type }) => ({ name, type })),
  );
  expect(ours.rows).toEqual(theirs.rows);
  ours.vectors.forEach((vector, row) => {
    const golden = theirs.vectors[row] as Float32Array;
    const error = Math.hypot(...vector.map((value, i) => value - (golden[i] as number)));
    expect(error / Math.hypot(...golden)).toBeLessThan(1e-4);
  });
}

function comparable(sidecar: DatasetSidecar): object {
  const kept = Object.entries(sidecar).filter(([key]) => !(OUR_OWN as readonly string[]).includes(key));
  return Object.fromEntries(kept);
}

describe.each(GOLDEN.map((name) => [name, sharedPath(`golden/nla/${name}`)] as const))("%s", (_, found) => {
  const folder = found ?? "";
  const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-pipeline-"));
  const out = (file: string) => path.join(scratch, file);
  const golden = (file: string) => path.join(folder, "out", file);
  let config: Config;
  let target: Target;
  let device: Device;

  beforeAll(async () => {
    if (found === null) return;
    config = plain(readYaml(readFileSync(path.join(folder, "config.yaml")), "config.yaml")) as Config;
    device = Device.open({ threads: 1 });
    target = await loadTarget(path.join(folder, config.base_model), device);
  });
  afterAll(() => {
    target?.[Symbol.dispose]();
    device?.[Symbol.dispose]();
    rmSync(scratch, { recursive: true, force: true });
  });

  const corpus = () => ({
    path: path.join(folder, "wikitext-pieces/train.jsonl"),
    name: config.corpus.name,
    split: config.corpus.split,
    start: config.corpus.start,
    length: config.corpus.length,
  });

  it.skipIf(found === null)("gives every document the same tokens and positions", async () => {
    const { stage0 } = config;
    const tokensOf = documentTokens(target.tokenizer, stage0.extractor_kwargs.max_length);
    const documents: GoldenDocument[] = [];
    for await (const document of readCorpus(corpus())) {
      const ids = tokensOf(document);
      const positions = drawPositions({
        ids,
        specialIds: target.tokenizer.allSpecialIds,
        seed: stage0.seed,
        documentId: document.id,
        count: stage0.positions_per_doc,
      });
      documents.push({ doc_id: document.id, token_ids: ids, positions });
    }
    expect(documents).toEqual(json<GoldenDocument[]>(path.join(folder, "documents.json")));
  });

  // One after the other: each stage reads what the one before wrote.
  it.skipIf(found === null)("extracts, splits, labels, builds and shuffles the same files", async () => {
    const { layer_index: layer, stage0, stage1, shuffle, base_model: baseModel } = config;
    const extracted = await extractActivations({
      target,
      layer,
      baseModel,
      corpus: corpus(),
      positions: {
        perDocument: stage0.positions_per_doc,
        maxLength: stage0.extractor_kwargs.max_length,
        seed: stage0.seed,
      },
      out: out("base.parquet"),
    });
    const { skipped, short } = printedCounts(folder);
    expect(extracted.documentsWithoutRows).toBe(skipped);
    expect(extracted.documentsWithFewerRows).toBe(short);

    const splits = await splitByDocument({
      base: out("base.parquet"),
      fractions: { av_sft: stage1.av_sft_frac, ar_sft: stage1.ar_sft_frac, rl: stage1.rl_frac, eval: 0 },
      seed: stage1.seed,
      out: (set) => out(`${set}_raw.parquet`),
    });
    expect(Object.keys(splits.sets).sort()).toEqual(["ar_sft", "av_sft", "rl"]);

    const reference = await readDatasetSidecar(golden("ar_sft.parquet"));
    const instruction = reference.apiSummaries?.instructionPrompt ?? "";
    const labeller = replay(folder, instruction);
    for (const set of ["av_sft", "ar_sft"]) {
      await labelSet({
        raw: out(`${set}_raw.parquet`),
        labeller,
        out: out(`${set}_explained.parquet`),
        chunkSize: 16,
      });
    }

    const { char } = chooseMarker(target.tokenizer);
    const contract = makeContract(
      {
        layer,
        dim: target.model.config.dim,
        char,
        verbalizerTemplate: reference.templates.av ?? "",
        reconstructorTemplate: reference.templates.ar ?? "",
        injectionScale: null,
        format: "tags",
      },
      target.tokenizer,
    );
    for (const set of SETS) {
      const input = out(set === "rl" ? "rl_raw.parquet" : `${set}_explained.parquet`);
      const file = out(`${set}.parquet`);
      await buildTrainingSet({ input, set, contract, tokenizer: target.tokenizer, out: file });
      await shuffleRows({ file, seed: shuffle.seed, out: out(`${set}_shuf.parquet`) });
    }

    const pairs: (readonly [string, string])[] = [["base.parquet", "base.parquet"]];
    for (const set of SETS) {
      const parts = set === "rl" ? ["_raw"] : ["_raw", "_explained"];
      for (const part of parts) pairs.push([`${set}${part}.parquet`, `splits/${set}${part}.parquet`]);
      for (const part of ["", "_shuf"]) pairs.push([`${set}${part}.parquet`, `${set}${part}.parquet`]);
    }
    for (const [ours, theirs] of pairs) {
      expectEqualTables(await tableOf(out(ours)), await tableOf(golden(theirs)));
      const sidecar = await readDatasetSidecar(out(ours));
      expect(comparable(sidecar), ours).toEqual(comparable(await readDatasetSidecar(golden(theirs))));
    }
    const ids = json<{ dataset_ids: Record<string, string> }>(path.join(folder, "expect.json")).dataset_ids;
    for (const [ours, theirs] of pairs) {
      expect((await readDatasetSidecar(out(ours))).datasetId).toBe(ids[`out/${theirs}`]);
    }
    await expectRowsReadBack(golden);
  });
});

function printedCounts(folder: string): { skipped: number; short: number } {
  const { printed } = json<{ printed: Record<string, string[]> }>(path.join(folder, "expect.json"));
  const text = (printed["run_pipeline 0"] ?? []).join("\n");
  const number = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0);
  return { skipped: number(/skipped (\d+) docs/), short: number(/short-sampled (\d+) docs/) };
}

/** The reference's own training sets give the labels that they were built from. */
async function expectRowsReadBack(golden: (file: string) => string): Promise<void> {
  for (const set of ["av_sft", "ar_sft"]) {
    using explained = await openTrainingRows(golden(`splits/${set}_explained.parquet`));
    using built = await openTrainingRows(golden(`${set}.parquet`));
    const indices = Array.from({ length: explained.rowCount }, (_, i) => i);
    const rows = await explained.rows(indices);
    expect(rows.every(({ label, text }) => label !== null && text !== null)).toBe(true);
    expect(await built.rows(indices)).toEqual(rows);
  }
  using rl = await openTrainingRows(golden("rl.parquet"));
  expect((await rl.rows([0]))[0]?.label).toBeNull();
}
