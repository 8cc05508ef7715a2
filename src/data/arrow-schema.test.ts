// The encoding is read back by a second, independent walk over the FlatBuffer, and compared with pyarrow's own entry.
import { DuckDBInstance } from "@duckdb/node-api";
import { describe, expect, it } from "vitest";

import { sharedPath } from "../../test/shared.js";
import { type ArrowField, encodeArrowSchema } from "./arrow-schema.js";

const golden = sharedPath("golden/nla/pipeline/out/av_sft.parquet");

/** Reads the message back to fields, by the FlatBuffer format alone. */
function decode(base64: string): { fields: ArrowField[]; version: number } {
  const bytes = Buffer.from(base64, "base64");
  expect(bytes.readUInt32LE(0)).toBe(0xffffffff);
  expect(bytes.byteLength).toBe(8 + bytes.readUInt32LE(4));
  const b = bytes.subarray(8);
  const slot = (table: number, i: number): number => {
    const vtable = table - b.readInt32LE(table);
    const place = 4 + 2 * i < b.readUInt16LE(vtable) ? b.readUInt16LE(vtable + 4 + 2 * i) : 0;
    return place === 0 ? 0 : table + place;
  };
  const follow = (at: number): number => at + b.readUInt32LE(at);
  const readText = (at: number): string => b.toString("utf8", at + 4, at + 4 + b.readUInt32LE(at));
  const readField = (table: number): ArrowField => {
    const children: ArrowField[] = [];
    const list = slot(table, 5) === 0 ? null : follow(slot(table, 5));
    const count = list === null ? 0 : b.readUInt32LE(list);
    for (let i = 0; i < count; i++) children.push(readField(follow((list ?? 0) + 4 + 4 * i)));
    const type = follow(slot(table, 3));
    const item = children[0]?.type as ArrowField["type"];
    const types: Record<number, () => ArrowField["type"]> = {
      2: () => ({ kind: "int", bits: b.readInt32LE(slot(type, 0)) as 32 | 64 }),
      3: () => ({ kind: "float", bits: b.readInt16LE(slot(type, 0)) === 1 ? 32 : 64 }),
      5: () => ({ kind: "utf8" }),
      6: () => ({ kind: "bool" }),
      12: () => ({ kind: "list", item }),
      13: () => ({ kind: "struct", fields: children }),
      16: () => ({ kind: "fixed-list", size: b.readInt32LE(slot(type, 0)), item }),
    };
    const read = types[b.readUInt8(slot(table, 2))];
    if (read === undefined) throw new Error(`type ${b.readUInt8(slot(table, 2))}`);
    return { name: readText(follow(slot(table, 0))), type: read() };
  };
  const message = b.readUInt32LE(0);
  const schema = follow(slot(message, 2));
  const list = follow(slot(schema, 1));
  const fields: ArrowField[] = [];
  for (let i = 0; i < b.readUInt32LE(list); i++) fields.push(readField(follow(list + 4 + 4 * i)));
  return { fields, version: b.readInt16LE(slot(message, 0)) };
}

const utf8 = { kind: "utf8" } as const;
const avColumns: ArrowField[] = [
  {
    name: "prompt",
    type: {
      kind: "list",
      item: {
        kind: "struct",
        fields: [
          { name: "role", type: utf8 },
          { name: "content", type: utf8 },
        ],
      },
    },
  },
  { name: "response", type: utf8 },
  { name: "activation_vector", type: { kind: "fixed-list", size: 24, item: { kind: "float", bits: 32 } } },
  { name: "n_raw_tokens", type: { kind: "int", bits: 64 } },
  { name: "activation_layer", type: { kind: "int", bits: 64 } },
  { name: "doc_id", type: utf8 },
  { name: "detokenized_text_truncated", type: utf8 },
];

describe("encodeArrowSchema", () => {
  it("is read back as the same fields", () => {
    const fields: ArrowField[] = [
      ...avColumns,
      { name: "ä\u{1F600}", type: { kind: "bool" } },
      { name: "", type: { kind: "float", bits: 64 } },
      { name: "i", type: { kind: "int", bits: 32 } },
      ...Array.from({ length: 60 }, (_, i) => ({ name: `column_${i}`, type: utf8 })),
    ];
    expect(decode(encodeArrowSchema(fields))).toEqual({ fields, version: 4 });
    expect(decode(encodeArrowSchema([]))).toEqual({ fields: [], version: 4 });
  });

  it.skipIf(golden === null)("says what pyarrow's entry for the same columns says", async () => {
    const connection = await (await DuckDBInstance.create(":memory:")).connect();
    const sql = `select value::varchar from parquet_kv_metadata('${golden}') where key = 'ARROW:schema'`;
    const theirs = (await connection.runAndReadAll(sql)).getRows()[0]?.[0] as string;
    expect(decode(theirs).fields).toEqual(avColumns);
    expect(decode(encodeArrowSchema(avColumns))).toEqual(decode(theirs));
  });
});
