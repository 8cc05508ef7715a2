// The split by document, the order of rows and the dataset ids, against the reference's values.
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import {
  activationShuffledDatasetId,
  baseDatasetId,
  baseDatasetKey,
  explainedDatasetId,
  shuffledDatasetId,
  splitDatasetId,
  trainingDatasetId,
} from "./dataset-id.js";
import { activationOrder, compareCodePoints, rowOrder, splitDocuments } from "./split.js";

const folder = sharedPath("golden/nla/rng");
const pipeline = sharedPath("golden/nla/pipeline/expect.json");
const chain = "av_sft_Qwen2.5-7B-Instruct_L20_945b2c81__av_sft_raw__explained";

function golden<T>(name: string): T {
  return JSON.parse(readFileSync(path.join(folder as string, name), "utf8")) as T;
}

interface SplitRow {
  prefix: string;
  n: number;
  fractions: [number, number, number];
  seed?: number;
  sorted: string[];
  counts: number[];
  av_sft: string[];
  ar_sft: string[];
  rl: string[];
}

describeWith(folder, "splits equal the reference", () => {
  it("stage by stage, in order", () => {
    const { splits } = golden<{ splits: SplitRow[] }>("shuffles.json");
    expect(splits.length).toBe(25);
    for (const row of splits) {
      const [av_sft, ar_sft, rl] = row.fractions;
      const ids = Array.from({ length: row.n }, (_, i) => `${row.prefix}${i}`);
      const twice = [...ids, ...ids.toReversed()]; // rows repeat their document's id
      const parts = splitDocuments(twice, { seed: row.seed ?? 42, fractions: { av_sft, ar_sft, rl } });
      const tails = (stage: "av_sft" | "ar_sft" | "rl") =>
        parts[stage].map((id) => id.slice(row.prefix.length));
      const name = `${row.prefix} ${row.n} ${row.fractions.join("/")}`;
      expect([tails("av_sft"), tails("ar_sft"), tails("rl")], name).toEqual([row.av_sft, row.ar_sft, row.rl]);
    }
  });

  it("orders by code point, not by UTF-16 unit", () => {
    const { code_point_order } = golden<{ code_point_order: { ids: string[]; sorted: string[] } }>(
      "shuffles.json",
    );
    expect([...code_point_order.ids].sort(compareCodePoints)).toEqual(code_point_order.sorted);
    expect([...code_point_order.ids].sort()).not.toEqual(code_point_order.sorted);
  });

  it("names base datasets", () => {
    const { rows } = golden<{
      rows: {
        base_model: string;
        layer: number;
        corpus: string;
        slice: { start: number; length: number };
        hashed_text: string;
        dataset_id: string;
      }[];
    }>("identifiers.json");
    for (const { base_model: baseModel, layer, corpus, slice, hashed_text, dataset_id } of rows) {
      expect(baseDatasetKey({ baseModel, layer, corpus, slice })).toBe(hashed_text);
      expect(baseDatasetId({ baseModel, layer, corpus, slice })).toBe(dataset_id);
    }
  });
});

function expected(): { dataset_ids: Record<string, string>; split_doc_ids: Record<string, string[]> } {
  return JSON.parse(readFileSync(pipeline as string, "utf8"));
}

describeWith(pipeline, "the golden pipeline", () => {
  it("puts each document with rows where the reference put it", () => {
    const listed = expected().split_doc_ids;
    const ids = Object.values(listed).flat(); // documents too short for a position gave no row and are not split
    expect(ids.length).toBeGreaterThan(40);
    const parts = splitDocuments(ids, { seed: 42, fractions: { av_sft: 0.3, ar_sft: 0.3, rl: 0.4 } });
    for (const stage of ["av_sft", "ar_sft", "rl"] as const) {
      expect([...parts[stage]].sort()).toEqual([...(listed[stage] as string[])].sort());
    }
  });

  it("has the reference's dataset ids", () => {
    const ids = expected().dataset_ids;
    const base = baseDatasetId({
      baseModel: "tiny-qwen2",
      layer: 2,
      corpus: "wikitext-pieces",
      slice: { start: 0, length: 48 },
    });
    expect(base).toBe(ids["out/base.parquet"]);
    const raw = splitDatasetId(base, "av_sft");
    const explained = explainedDatasetId(raw);
    const trained = trainingDatasetId(explained, "av_sft");
    expect([raw, explained, trained, shuffledDatasetId(trained, 42)]).toEqual([
      ids["out/splits/av_sft_raw.parquet"],
      ids["out/splits/av_sft_explained.parquet"],
      ids["out/av_sft.parquet"],
      ids["out/av_sft_shuf.parquet"],
    ]);
    expect(activationShuffledDatasetId(trained, 42)).toBe(ids["side/av_sft_shuf_activations.parquet"]);
    expect(trainingDatasetId(splitDatasetId(base, "rl"), "rl")).toBe(ids["out/rl.parquet"]);
  });
});

describe("row orders", () => {
  it("are the published ones", () => {
    expect([...rowOrder({ rowCount: 10, seed: 42, datasetId: chain })]).toEqual([
      6, 2, 9, 1, 3, 8, 5, 4, 0, 7,
    ]);
    expect([...activationOrder({ rowCount: 10, seed: 42, datasetId: chain })]).toEqual([
      8, 5, 0, 1, 2, 4, 9, 6, 7, 3,
    ]);
  });

  it("refuse row counts that no file has", () => {
    for (const rowCount of [-1, 1.5, Number.NaN, 2 ** 33]) {
      expect(() => rowOrder({ rowCount, seed: 42, datasetId: chain })).toThrow(/whole number of rows/);
    }
  });
});

describe("splitDocuments", () => {
  it("gives the published order of twelve documents", () => {
    const ids = Array.from({ length: 12 }, (_, i) => `d:${i}`);
    const parts = splitDocuments(ids, { seed: 42, fractions: { av_sft: 0.25, ar_sft: 0.25, rl: 0.5 } });
    const order = [...parts.av_sft, ...parts.ar_sft, ...parts.rl].map((id) => Number(id.slice(2)));
    expect(order).toEqual([5, 3, 10, 6, 7, 4, 9, 11, 2, 0, 1, 8]);
    expect(parts.av_sft.length).toBe(3);
  });

  it("refuses fractions that do not add up, and no documents", () => {
    for (const [av_sft, ar_sft, rl] of [
      [0.3, 0.3, 0.3],
      [1.5, -0.5, 0],
      [Number.NaN, 0.5, 0.5],
    ] as const) {
      expect(() => splitDocuments(["a"], { seed: 1, fractions: { av_sft, ar_sft, rl } })).toThrow(/sum to 1/);
    }
    expect(() => splitDocuments([], { seed: 1, fractions: { av_sft: 0.3, ar_sft: 0.3, rl: 0.4 } })).toThrow(
      /0 documents/,
    );
  });
});
