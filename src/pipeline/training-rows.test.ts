// Rows by number: over the edges of blocks, in any order, at the same time, and with the label taken out of its wrapping.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readDatasetSidecar, writeDatasetSidecar } from "../data/sidecar.js";
import { writeTestRows } from "./testing/dataset.js";
import { openTrainingRows } from "./training-rows.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-rows-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const file = path.join(scratch, "rows.parquet");
const ROWS = 6000; // six blocks, of which three are kept
const label = (row: number) => `label ${row}\n`;
beforeAll(() => writeTestRows(file, { rows: ROWS, label }));

describe("rows", () => {
  it("come in the order asked for, whichever blocks they are in", async () => {
    using source = await openTrainingRows(file);
    expect(source).toMatchObject({ rowCount: ROWS, width: 4, datasetId: "base_tests_L1_00000000" });
    const indices = [1023, 1024, 5999, 0, 0, 3000, 1025, 4500, 2];
    for (let repeat = 0; repeat < 2; repeat++) {
      const rows = await source.rows(indices);
      for (const [i, row] of indices.entries()) {
        expect(rows[i]).toEqual({
          vector: Float32Array.from([row, row + 1 / 8, row + 2 / 8, row + 3 / 8]),
          docId: `tests:train:${Math.floor(row / 10)}`,
          position: (row % 10) + 50,
          text: `Text up to row ${row}`,
          label: label(row),
        });
      }
    }
    expect(await source.rows([])).toEqual([]);
  });

  it("can be asked for by several callers at once", async () => {
    using source = await openTrainingRows(file);
    const asked = Array.from({ length: 12 }, (_, i) => [(i * 997) % ROWS, (i * 1999 + 7) % ROWS]);
    const answers = await Promise.all(asked.map((indices) => source.rows(indices)));
    expect(answers.map((rows) => rows.map(({ vector }) => vector[0]))).toEqual(asked);
  });

  it("do not keep their block alive or share memory", async () => {
    using source = await openTrainingRows(file);
    const [a, b] = await source.rows([1, 2]);
    expect(a!.vector.buffer.byteLength).toBe(16);
    expect(a!.vector.buffer).not.toBe(b!.vector.buffer);
  });

  it("have no texts where none are asked for or there", async () => {
    using vectors = await openTrainingRows(file, []);
    expect((await vectors.rows([7]))[0]).toMatchObject({ text: null, label: null });
    const bare = path.join(scratch, "bare.parquet");
    await writeTestRows(bare, { rows: 5, without: ["detokenized_text_truncated"] });
    using source = await openTrainingRows(bare);
    expect((await source.rows([4]))[0]).toMatchObject({ text: null, label: null, position: 54 });
  });

  it.each([-1, ROWS, 0.5, NaN])("refuse number %s", async (index) => {
    using source = await openTrainingRows(file);
    await expect(source.rows([0, index])).rejects.toMatchObject({ code: "rows.index" });
    expect(await source.rows([0])).toHaveLength(1);
  });
});

// Columns of the same kind under another name: the sidecar says how to read them.
const rename = async (name: string, column: "prompt" | "response", value: (row: number) => string) => {
  const made = path.join(scratch, name);
  await writeTestRows(made, { rows: 3, label: value, labelColumn: column });
  const sidecar = await readDatasetSidecar(made);
  await writeDatasetSidecar(made, {
    ...sidecar,
    templates: { av: null, ar: "Notes: <n>{explanation}</n>" },
  });
  return openTrainingRows(made);
};

describe("labels in prompts and responses", () => {
  it("come out of responses", async () => {
    using rows = await rename(
      "response.parquet",
      "response",
      (row) => `<explanation>\n ${row} \n</explanation>`,
    );
    expect((await rows.rows([2]))[0]?.label).toBe("2");
  });

  it("come out of reconstructor prompts as they are", async () => {
    using rows = await rename("prompt.parquet", "prompt", (row) => `Notes: <n> ${row} </n>`);
    expect((await rows.rows([2]))[0]?.label).toBe(" 2 ");
  });

  it("that are not wrapped as the sidecar says are an error that names the row", async () => {
    using prompts = await rename("bad-prompt.parquet", "prompt", (row) =>
      row === 1 ? "Notes: <n></" : "Notes: <n></n>",
    );
    await expect(prompts.rows([0])).rejects.toThrow(/row 1: found prompt "Notes: <n><\/"/);
    using responses = await rename("bad-response.parquet", "response", () => "no tags");
    await expect(responses.rows([0])).rejects.toMatchObject({ code: "rows.label" });
  });
});
