// Permuting and filtering: every value in its new place, with buckets far smaller than the file, and bad orders refused.
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { sharedPath } from "../../test/shared.js";
import { sqlText, withDuck } from "./duckdb.js";
import { filterParquet, permuteParquet } from "./parquet-rearrange.js";
import { writeParquet } from "./parquet-write.js";
import { openParquet } from "./parquet.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nla-parquet-rearrange-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const ROWS = 7000;
const WIDTH = 5;
const source = path.join(scratch, "in.parquet");

beforeAll(async () => {
  const all = Array.from({ length: ROWS }, (_, row) => row);
  await writeParquet(
    source,
    [
      { name: "n", type: "int64" },
      { name: "activation_vector", type: { vector: WIDTH } },
      { name: "doc_id", type: "string" },
      { name: "prompt", type: "messages" },
      { name: "x", type: "float64" },
    ],
    [
      {
        n: all,
        activation_vector: Float32Array.from(all.flatMap((row) => [row, -row, row / 3, 0, -0])),
        doc_id: all.map((row) => `doc ${row % 40} é "\n`),
        prompt: all.map((row) => [{ role: "user", content: `p${row}` }]),
        x: all.map((row) => [row / 7, NaN, -0, Infinity][row % 4] as number),
      },
    ],
  );
});

interface Row {
  readonly n: number;
  readonly doc: string;
  readonly prompt: string;
  readonly x: number;
  readonly vector: readonly number[];
}

async function rowsOf(file: string): Promise<Row[]> {
  const opened = await openParquet(file);
  const out: Row[] = [];
  for await (const chunk of opened.chunks()) {
    const vectors = chunk.vectors();
    for (let i = 0; i < chunk.rowCount; i++) {
      out.push({
        n: chunk.numbers("n")[i] as number,
        doc: chunk.strings("doc_id")[i] as string,
        prompt: chunk.messages("prompt")[i]?.[0]?.content as string,
        x: chunk.numbers("x")[i] as number,
        vector: [...vectors.subarray(i * WIDTH, (i + 1) * WIDTH)],
      });
    }
  }
  opened.close();
  return out;
}

async function keysOf(file: string): Promise<string[]> {
  const opened = await openParquet(file);
  const keys: string[] = [];
  for await (const chunk of opened.chunks()) {
    const positions = chunk.numbers("n_raw_tokens");
    keys.push(...chunk.strings("doc_id").map((doc, i) => `${doc}@${positions[i]}`));
  }
  opened.close();
  return keys;
}

describe("permuteParquet", () => {
  it.each([128, 0.05])("moves whole rows, with buckets of %d MiB", async (bucketMb) => {
    const order = Array.from({ length: ROWS }, (_, i) => (i * 1009 + 17) % ROWS);
    const out = path.join(scratch, "out.parquet");
    await permuteParquet(source, out, order, { bucketMb });
    const before = await rowsOf(source);
    expect(await rowsOf(out)).toEqual(order.map((row) => before[row]));
    expect(readdirSync(scratch).filter((name) => name.startsWith("."))).toEqual([]);
  });

  it("gives the same bytes whatever the bucket, and the source's bytes for the order there is", async () => {
    const same = Int32Array.from({ length: ROWS }, (_, i) => i);
    const [a, b] = [path.join(scratch, "a.parquet"), path.join(scratch, "b.parquet")];
    await permuteParquet(source, a, same);
    await permuteParquet(source, b, same, { bucketMb: 0.1 });
    expect(readFileSync(a).equals(readFileSync(source))).toBe(true);
    expect(readFileSync(b).equals(readFileSync(source))).toBe(true);
  });

  it("can replace its own source", async () => {
    const own = path.join(scratch, "own.parquet");
    await filterParquet(source, own, ['doc 3 é "\n', 'doc 1 é "\n']);
    const before = await rowsOf(own);
    await permuteParquet(
      own,
      own,
      before.map((_, i) => before.length - 1 - i),
    );
    expect(await rowsOf(own)).toEqual(before.reverse());
  });

  it.each([
    ["too short", [0, 1], /an order of 2 rows/],
    ["a row twice", Array.from({ length: ROWS }, (_, i) => (i === 9 ? 4 : i)), /row 4 at the places 4 and 9/],
    ["a row beyond the end", Array.from({ length: ROWS }, (_, i) => i + 1), /row 7000 at place 6999/],
    ["a fraction", Array.from({ length: ROWS }, () => 0.5), /row 0.5 at place 0/],
  ])("refuses an order with %s", async (_what, order, found) => {
    const out = path.join(scratch, "never.parquet");
    await expect(permuteParquet(source, out, order)).rejects.toMatchObject({
      code: "parquet.order",
      found: expect.stringMatching(found),
    });
    expect(readdirSync(scratch)).not.toContain("never.parquet");
  });

  const pipeline = sharedPath("golden/nla/pipeline/out");
  it.skipIf(pipeline === null)("turns the golden av_sft into the reference's shuffled file", async () => {
    const [from, to] = ["av_sft", "av_sft_shuf"].map((name) =>
      path.join(pipeline as string, `${name}.parquet`),
    );
    const [before, after] = [await keysOf(from as string), await keysOf(to as string)];
    const out = path.join(scratch, "shuffled.parquet");
    await permuteParquet(
      from as string,
      out,
      after.map((row) => before.indexOf(row)),
    );
    const both = await withDuck({}, null, async (c) => {
      const differing = `(SELECT * FROM ${sqlText(out)} EXCEPT ALL SELECT * FROM ${sqlText(to as string)})`;
      return (await c.runAndReadAll(`SELECT count(*) FROM ${differing}`)).getRows()[0]?.[0];
    });
    expect(await keysOf(out)).toEqual(after);
    expect(Number(both)).toBe(0);
  });
});

describe("filterParquet", () => {
  it("keeps the rows of the documents named, in their order, and says how many", async () => {
    const out = path.join(scratch, "filtered.parquet");
    const docs = new Set(['doc 3 é "\n', 'doc 39 é "\n', "doc of nobody"]);
    const count = await filterParquet(source, out, docs);
    const expected = (await rowsOf(source)).filter(({ doc }) => docs.has(doc));
    expect(count).toBe(expected.length);
    expect(await rowsOf(out)).toEqual(expected);
  });

  it("keeps order and bytes when nearly every document is named", async () => {
    const all = [...new Set((await rowsOf(source)).map(({ doc }) => doc))];
    const out = path.join(scratch, "all.parquet");
    expect(await filterParquet(source, out, all)).toBe(ROWS);
    expect(await rowsOf(out)).toEqual(await rowsOf(source));
  });

  it("may leave nothing", async () => {
    const out = path.join(scratch, "none.parquet");
    expect(await filterParquet(source, out, [])).toBe(0);
    expect(await rowsOf(out)).toEqual([]);
  });

  it("needs document ids", async () => {
    const bare = path.join(scratch, "bare.parquet");
    await writeParquet(bare, [{ name: "n", type: "int64" }], [{ n: [1] }]);
    await expect(filterParquet(bare, path.join(scratch, "x"), [])).rejects.toMatchObject({
      code: "parquet.no-column",
      found: "the columns n",
    });
  });
});
