// The split by document: no document in two sets, the reference's split where nothing is held out, and files that add up.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { readDatasetSidecar } from "../data/sidecar.js";
import { splitDocuments } from "../data/split.js";
import { SET_NAMES } from "./sets.js";
import type { SetName } from "./sets.js";
import { setsOf, splitByDocument } from "./split.js";
import { writeTestRows } from "./testing/dataset.js";
import { openTrainingRows } from "./training-rows.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-split-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const documents = (count: number) => Array.from({ length: count }, (_, i) => `tests:train:${i}`);
const FRACTIONS = { ar_sft: 0.24, av_sft: 0.24, rl: 0.47, eval: 0.05 };

describe("sets of documents", () => {
  it("are the reference's where nothing is held out", () => {
    const fractions = { ar_sft: 0.3, av_sft: 0.3, rl: 0.4 };
    const sets = setsOf(documents(101), { fractions: { ...fractions, eval: 0 }, seed: 7 });
    expect(sets).toEqual({ ...splitDocuments(documents(101), { fractions, seed: 7 }), eval: [] });
  });

  it("are the reference's split of what is not held out", () => {
    const sets = setsOf(documents(200), { fractions: FRACTIONS, seed: 7 });
    const rest = documents(200).filter((id) => !sets.eval.includes(id));
    const { eval: held, ...others } = sets;
    expect(held).toHaveLength(10);
    const fractions = { ar_sft: 0.24 / 0.95, av_sft: 0.24 / 0.95, rl: 0.47 / 0.95 };
    expect(others).toEqual(splitDocuments(rest, { fractions, seed: 7 }));
  });

  it("share no document and lose none", () => {
    for (const count of [30, 101, 998]) {
      const sets = setsOf(documents(count), { fractions: FRACTIONS, seed: 42 });
      const all = SET_NAMES.flatMap((set) => sets[set]);
      expect(new Set(all).size).toBe(all.length);
      expect(all.sort()).toEqual(documents(count).sort());
    }
  });

  it("depend on the seed and not on the order of the rows", () => {
    const options = { fractions: FRACTIONS, seed: 1 };
    expect(setsOf(documents(100).reverse(), options)).toEqual(setsOf(documents(100), options));
    expect(setsOf(documents(100), { ...options, seed: 2 })).not.toEqual(setsOf(documents(100), options));
  });

  it("hold out at least one document if any shall be", () => {
    expect(setsOf(documents(10), { fractions: FRACTIONS, seed: 1 }).eval).toHaveLength(1);
  });

  it("leave a set of share 0 empty, whatever rounding leaves over", () => {
    const fractions = { ar_sft: 0.5, av_sft: 0.5, rl: 0, eval: 0 };
    const sets = setsOf(documents(11), { fractions, seed: 1 });
    expect([sets.ar_sft.length, sets.av_sft.length, sets.rl.length]).toEqual([5, 5, 0]);
    const none = { ar_sft: 0, av_sft: 0, rl: 0, eval: 1 };
    expect(setsOf(documents(3), { fractions: none, seed: 1 }).eval).toHaveLength(3);
  });

  it.each([
    ["a sum above 1", { ...FRACTIONS, eval: 0.1 }, "split.fractions"],
    ["a negative share", { ar_sft: -0.1, av_sft: 0.5, rl: 0.5, eval: 0.1 }, "split.fractions"],
    ["NaN", { ...FRACTIONS, rl: NaN }, "split.fractions"],
    ["too few documents for a share", { ar_sft: 0.1, av_sft: 0.4, rl: 0.5, eval: 0 }, "split.too-few"],
  ])("refuse %s", (_, fractions, code) => {
    expect(() => setsOf(documents(5), { fractions, seed: 1 })).toThrow(
      expect.objectContaining({ code }) as Error,
    );
  });

  it("refuse no documents", () => {
    expect(() => setsOf([], { fractions: FRACTIONS, seed: 1 })).toThrow(/no document|0 documents/);
  });
});

describe("files", () => {
  it("hold the rows of their documents, in the order of the base file", async () => {
    const base = path.join(scratch, "base.parquet");
    // Rows of a document do not lie together.
    await writeTestRows(base, { rows: 400, docId: (row) => `tests:train:${row % 40}` });
    const out = (set: SetName) => path.join(scratch, `${set}.parquet`);
    const split = await splitByDocument({ base, fractions: FRACTIONS, seed: 3, out });
    const expected = setsOf(documents(40), { fractions: FRACTIONS, seed: 3 });
    expect(split).toMatchObject({ documents: 40, unused: 0 });
    for (const set of SET_NAMES) {
      using rows = await openTrainingRows(out(set));
      const all = await rows.rows(Array.from({ length: rows.rowCount }, (_, i) => i));
      const order = all.map(({ vector }) => vector[0] as number);
      expect(order).toEqual(
        Array.from({ length: 400 }, (_, row) => row).filter((row) =>
          expected[set].includes(`tests:train:${row % 40}`),
        ),
      );
      const sidecar = await readDatasetSidecar(out(set));
      expect(sidecar).toMatchObject({
        datasetId: `base_tests_L1_00000000__${set}_raw`,
        stage: "base",
        rowCount: all.length,
        parentDatasets: ["base_tests_L1_00000000"],
      });
      expect(split.sets[set]).toEqual({
        file: out(set),
        datasetId: sidecar.datasetId,
        documents: expected[set].length,
        rows: all.length,
      });
    }
  });

  it("are not written for a set of share 0", async () => {
    const base = path.join(scratch, "small.parquet");
    await writeTestRows(base, { rows: 110 });
    const out = (set: SetName) => path.join(scratch, `small-${set}.parquet`);
    const fractions = { ar_sft: 0.5, av_sft: 0.5, rl: 0, eval: 0 };
    const split = await splitByDocument({ base, fractions, out });
    expect(Object.keys(split.sets).sort()).toEqual(["ar_sft", "av_sft"]);
    expect(split.unused).toBe(1);
    expect(existsSync(out("rl"))).toBe(false);
  });
});
