// Order of rows over epochs against the reference's data source, on the golden training sets.
import { readFileSync } from "node:fs";
import path from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import { describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { epochOrder, FIRST_ROW, takeRows, type RowCursor } from "./row-order.js";

const file = sharedPath("golden/nla/train/data_source.json");
const folder = sharedPath("golden/nla/pipeline/out");

interface Source {
  rollout_seed: number;
  batches: { asked: number; got: number; epoch: number; offset: number; rows: [string, number][] }[];
}

describeWith(file && folder, "rows come in the reference's order", () => {
  const golden = JSON.parse(readFileSync(file as string, "utf8")) as Record<string, Source>;
  const names = Object.keys(golden).filter((name) => !name.endsWith("rollout"));

  it("covers all sources", () => expect(names.length).toBe(4));

  it.each(names)("%s", async (name) => {
    const [set, shuffled] = name.split(" ");
    const rows = await readRows(path.join(folder as string, `${set}.parquet`));
    const { rollout_seed, batches } = golden[name]!;
    const order = { rowCount: rows.length, shuffle: shuffled === "shuffled", seed: rollout_seed };
    let cursor: RowCursor = FIRST_ROW;
    for (const batch of batches) {
      const taken = takeRows(cursor, batch.asked, order);
      expect(taken.rows.map((row) => rows[row])).toEqual(batch.rows);
      expect(taken.next).toEqual({ epoch: batch.epoch, offset: batch.offset });
      cursor = taken.next;
    }
  });
});

describe("row order", () => {
  const order = { rowCount: 10, shuffle: true, seed: 3 };

  it("is the same whether taken at once or in pieces", () => {
    const whole = takeRows(FIRST_ROW, 37, order);
    let cursor: RowCursor = FIRST_ROW;
    const pieces = [1, 9, 10, 0, 5, 12].flatMap((count) => {
      const { rows, next } = takeRows(cursor, count, order);
      cursor = next;
      return rows;
    });
    expect(pieces).toEqual(whole.rows);
    expect(cursor).toEqual(whole.next);
  });

  it("visits every row once an epoch, each epoch in another order", () => {
    const epochs = [0, 1, 2].map((epoch) => epochOrder(epoch, order));
    for (const rows of epochs) expect(rows.toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(new Set(epochs.map(String)).size).toBe(3);
  });

  it("stays at the end of an epoch until more is asked", () => {
    const { next } = takeRows(FIRST_ROW, 10, order);
    expect(next).toEqual({ epoch: 0, offset: 10 });
    expect(takeRows(next, 1, order).next).toEqual({ epoch: 1, offset: 1 });
  });

  it("refuses an empty set and cursors outside it", () => {
    expect(() => takeRows(FIRST_ROW, 1, { rowCount: 0 })).toThrow(/0 rows/);
    expect(() => takeRows({ epoch: 0, offset: 11 }, 1, order)).toThrow(/offset 11/);
    expect(() => takeRows({ epoch: -1, offset: 0 }, 1, order)).toThrow(/epoch -1/);
    expect(() => takeRows(FIRST_ROW, NaN, order)).toThrow(/NaN/);
  });
});

async function readRows(parquet: string): Promise<[string, number][]> {
  const connection = await (await DuckDBInstance.create(":memory:")).connect();
  const reader = await connection.runAndReadAll(
    `select doc_id, n_raw_tokens::integer from '${parquet.replaceAll("'", "''")}'`,
  );
  const rows = reader.getRowsJS() as [string, number][];
  connection.closeSync();
  return rows.map(([docId, tokens]) => [docId.split(":").at(-1)!, tokens]);
}
