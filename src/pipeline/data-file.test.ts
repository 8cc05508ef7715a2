// What stops at the door of every stage: a file that is not what its sidecar says, or not what the stage works on.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeParquet } from "../data/parquet-write.js";
import { parseSidecar, formatSidecar, readDatasetSidecar, writeDatasetSidecar } from "../data/sidecar.js";
import { derivedSidecar, openDataFile, withStageFacts } from "./data-file.js";
import { activationNorms } from "./statistics.js";
import { writeTestRows } from "./testing/dataset.js";
import type { TestRows } from "./testing/dataset.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-data-file-"));
const sound = path.join(scratch, "sound.parquet");
beforeAll(() => writeTestRows(sound, { rows: 20 }));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe("a data file", () => {
  it("opens if its sidecar describes it", async () => {
    using file = await openDataFile(sound, { activations: true, columns: ["doc_id"] });
    expect(file.width).toBe(4);
    expect(file.sidecar.rowCount).toBe(20);
  });

  const facts = {
    baseModel: "tests",
    dModel: 4,
    layerIndex: 1,
    norm: "none",
    corpus: "tests",
    corpusSlice: new Map([["start", 0]]),
    positionsPerDoc: 10,
  };
  const training = { stage: "rl" as const, templates: { av: "({injection_char})", ar: null } };
  const tokens = {
    injectionChar: "x",
    injectionTokenId: 3,
    leftNeighborId: 1,
    rightNeighborId: 2,
    criticSuffixIds: null,
  };
  const cases: [string, string, RegExp, TestRows][] = [
    [
      "another number of rows",
      "data.contradiction",
      /19 rows; wanted 20/,
      { rows: 20, sidecar: { rowCount: 19 } },
    ],
    [
      "another width",
      "data.contradiction",
      /d_model 5; wanted 4/,
      { rows: 20, sidecar: { extraction: { ...facts, dModel: 5 } } },
    ],
    [
      "vectors that are not raw",
      "data.norm",
      /"unit"/,
      { rows: 20, sidecar: { extraction: { ...facts, norm: "unit" } } },
    ],
    ["a training set", "data.stage", /\(rl\)/, { rows: 20, sidecar: { ...training, tokens } }],
    ["no rows", "data.empty", /0 rows/, { rows: 0 }],
    ["no vectors", "parquet.no-column", /activation_vector/, { rows: 20, without: ["activation_vector"] }],
    ["no documents", "parquet.no-column", /doc_id/, { rows: 20, without: ["doc_id"] }],
  ];
  it.each(cases)("is refused with %s", async (name, code, message, rows) => {
    const file = path.join(scratch, `${name}.parquet`);
    await writeTestRows(file, rows);
    const opened = openDataFile(file, { activations: true, columns: ["doc_id"] });
    await expect(opened).rejects.toMatchObject({ code, message: expect.stringMatching(message) as string });
  });

  it("is refused without a sidecar", async () => {
    const file = path.join(scratch, "alone.parquet");
    await writeParquet(
      file,
      [{ name: "activation_vector", type: { vector: 2 } }],
      [{ activation_vector: new Float32Array(4) }],
    );
    await expect(openDataFile(file)).rejects.toMatchObject({ code: "sidecar.missing" });
  });

  it("with NaN in a vector stops where the row is read, named", async () => {
    const file = path.join(scratch, "nan.parquet");
    // Our own writer refuses NaN, so the file is made as another program would, with a list of doubles.
    const source = await readDatasetSidecar(sound);
    const columns = [
      { name: "doc_id", type: "string" as const },
      { name: "value", type: "float64" as const },
    ];
    const plain = path.join(scratch, "plain.parquet");
    await writeParquet(plain, columns, [{ doc_id: ["tests:train:0", "tests:train:1"], value: [1, NaN] }]);
    const { openDuck, sqlPath, sqlText } = await import("../data/duckdb.js");
    const duck = await openDuck({});
    const connection = await duck.connect();
    const query = `SELECT doc_id, [value, 1, 2, 3]::DOUBLE[] AS activation_vector FROM read_parquet(${sqlPath(plain)})`;
    await connection.run(`COPY (${query}) TO ${sqlText(file)} (FORMAT parquet)`);
    connection.closeSync();
    duck.closeSync();
    await writeDatasetSidecar(file, { ...source, rowCount: 2 });
    await expect(activationNorms(file)).rejects.toMatchObject({
      code: "parquet.not-finite",
      found: "NaN at index 0 of row 1 (doc_id tests:train:1)",
    });
  });
});

describe("sidecars of derived files", () => {
  it("keep what stages noted, in one mapping at the top level", async () => {
    const base = await readDatasetSidecar(sound);
    const once = withStageFacts([], "extract", { seed: 42, compute: "f32" });
    const twice = withStageFacts(once, "label", { labeller: "extractive", temperature: 0.5 });
    const changes = { datasetId: "b", rowCount: 20, createdBy: "a test", unknown: twice };
    const text = formatSidecar(derivedSidecar(base, changes));
    expect(text).toContain(
      "nlakit:\n  extract:\n    seed: 42\n    compute: f32\n  label:\n    labeller: extractive\n    temperature: 0.5\n",
    );
    const read = parseSidecar(new TextEncoder().encode(text), "test");
    expect(read.unknown.map(({ path }) => path)).toEqual([["nlakit"]]);
    const thrice = withStageFacts(read.unknown, "build", { set: "rl" });
    const kept = thrice[0]!.value as Map<string, unknown>;
    expect([...kept.keys()]).toEqual(["extract", "label", "build"]);
  });
});
