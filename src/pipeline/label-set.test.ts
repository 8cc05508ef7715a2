// Labels on rows: what the labeller is asked, what is kept, and what stops a run.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeParquet } from "../data/parquet-write.js";
import { openParquet } from "../data/parquet.js";
import { readDatasetSidecar, writeDatasetSidecar } from "../data/sidecar.js";
import { labelSet } from "./label-set.js";
import { extractiveLabeller } from "./labels.js";
import type { Labeller, LabelRequest } from "./labels.js";
import { writeTestRows } from "./testing/dataset.js";
import { openTrainingRows } from "./training-rows.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-label-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const raw = path.join(scratch, "raw.parquet");
beforeAll(() => writeTestRows(raw, { rows: 50 }));
let next = 0;
const outFile = () => path.join(scratch, `labelled-${next++}.parquet`);

function labeller(answer: (requests: readonly LabelRequest[]) => (string | null)[]): Labeller {
  return { name: "test", settings: { rule: "a", limit: 3 }, label: (each) => Promise.resolve(answer(each)) };
}

describe("labelled rows", () => {
  it("are those that got a label, with everything else as it was", async () => {
    const asked: LabelRequest[] = [];
    const sizes: number[] = [];
    const progress: number[] = [];
    const odd = labeller((requests) => {
      sizes.push(requests.length);
      asked.push(...requests);
      return requests.map(({ position, docId }) => (position % 2 === 1 ? `${docId}@${position}` : null));
    });
    const onProgress = ({ dropped }: { dropped: number }) => progress.push(dropped);
    const labelled = await labelSet({ raw, labeller: odd, out: outFile(), chunkSize: 20, onProgress });
    expect(sizes).toEqual([20, 20, 10]);
    expect(progress).toEqual([10, 20, 25]);
    expect(asked[13]).toEqual({
      docId: "tests:train:1",
      position: 53,
      textBefore: "Text up to row 13",
      textAfter: "",
    });
    expect(labelled).toMatchObject({ rows: 25, dropped: 25, datasetId: "base_tests_L1_00000000__explained" });
    using before = await openTrainingRows(raw);
    using after = await openTrainingRows(labelled.file);
    const kept = await before.rows(Array.from({ length: 25 }, (_, i) => 2 * i + 1));
    const rows = await after.rows(Array.from({ length: 25 }, (_, i) => i));
    for (const [i, row] of rows.entries()) {
      expect(row).toEqual({ ...kept[i], label: `${row.docId}@${row.position}` });
    }
  });

  it("have the labeller and its settings in their sidecar, where the reference's readers do not stop at them", async () => {
    const full: Labeller = {
      ...labeller((requests) => requests.map(() => "x")),
      settings: { max_tokens: 300, temperature: 1, instruction_prompt: "Say {text}", retries: 10 },
    };
    const { file } = await labelSet({ raw, labeller: full, out: outFile() });
    const { apiSummaries, unknown, stage } = await readDatasetSidecar(file);
    expect(apiSummaries).toEqual({
      model: "test",
      maxTokens: 300,
      temperature: 1,
      instructionPrompt: "Say {text}",
    });
    expect(stage).toBe("base");
    expect(unknown).toEqual([
      {
        path: ["nlakit"],
        value: new Map([
          [
            "label",
            new Map<string, unknown>([
              ["labeller", "test"],
              ["retries", 10],
            ]),
          ],
        ]),
      },
    ]);
  });

  it("are made from the text behind the position too, whose column goes no further", async () => {
    const withAfter = path.join(scratch, "with-after.parquet");
    const parquet = await openParquet(raw);
    const types = parquet.columns.map(({ name, type }) => ({ name, type: type as "string" }));
    for await (const { values, rowCount } of parquet.chunks()) {
      const texts = Array.from({ length: rowCount }, (_, row) => `behind row ${row} and on`);
      const columns = [...types, { name: "text_after", type: "string" as const }];
      await writeParquet(withAfter, columns, [{ ...values, text_after: texts }]);
    }
    parquet.close();
    await writeDatasetSidecar(withAfter, await readDatasetSidecar(raw));
    const extractive = extractiveLabeller({ wordsBefore: 2, wordsAfter: 3 });
    const { file } = await labelSet({ raw: withAfter, labeller: extractive, out: outFile() });
    using rows = await openTrainingRows(file);
    expect((await rows.rows([41]))[0]?.label).toBe("Next: behind row 41. Now: row 41");
    const labelled = await openParquet(file);
    labelled.close();
    expect(labelled.columns.map(({ name }) => name)).toEqual([
      "n_raw_tokens",
      "detokenized_text_truncated",
      "activation_vector",
      "activation_layer",
      "doc_id",
      "api_explanation",
    ]);
  });
});

const refused = async (
  answer: (requests: readonly LabelRequest[]) => (string | null)[],
  expected: object,
) => {
  const out = outFile();
  await expect(labelSet({ raw, labeller: labeller(answer), out })).rejects.toMatchObject(expected);
  expect(existsSync(out)).toBe(false);
};

describe("labelling stops, and leaves no file,", () => {
  it("where no row gets a label", () => refused((all) => all.map(() => null), { code: "label.none" }));
  it("at a labeller that loses a row", () =>
    refused((all) => all.slice(1).map(() => "x"), { code: "label.count", found: "49 labels" }));
  it("at an error of the labeller, which is passed on", () =>
    refused(
      () => {
        throw new Error("out of credit");
      },
      { message: "out of credit" },
    ));

  it("at activations without text", async () => {
    const bare = path.join(scratch, "bare.parquet");
    await writeTestRows(bare, { rows: 5, without: ["detokenized_text_truncated"] });
    const out = outFile();
    const run = labelSet({ raw: bare, labeller: extractiveLabeller(), out });
    await expect(run).rejects.toMatchObject({
      code: "parquet.no-column",
      wanted: "also detokenized_text_truncated",
    });
  });

  it("when aborted", async () => {
    const controller = new AbortController();
    const out = outFile();
    const run = labelSet({
      raw,
      labeller: extractiveLabeller(),
      out,
      chunkSize: 5,
      signal: controller.signal,
      onProgress: () => controller.abort(new Error("stopped by hand")),
    });
    await expect(run).rejects.toThrow("stopped by hand");
    expect(existsSync(out)).toBe(false);
  });
});
