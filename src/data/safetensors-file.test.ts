// Real model files come back byte for byte, and every kind of damaged or hostile header is an error with its own code.
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";

import { sharedPath } from "../../test/shared.js";
import { NlaError } from "../error.js";
import {
  type StoredDtype,
  type TensorToWrite,
  openSafetensors,
  writeSafetensors,
} from "./safetensors-file.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nla-safetensors-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const bundled = path.resolve(import.meta.dirname, "../../assets/aidreams260K/model.safetensors");
const realFiles = [
  bundled,
  ...[
    "llama-mha-tied/model.safetensors",
    "llama3-gqa/model-00001-of-00003.safetensors",
    "llama3-gqa/model-00002-of-00003.safetensors",
    "llama3-gqa/model-00003-of-00003.safetensors",
    "llama-mha-tied/golden.safetensors",
  ].flatMap((name) => sharedPath(`golden/models/${name}`) ?? []),
];

async function allTensors(
  file: string,
): Promise<{ tensors: TensorToWrite[]; metadata: Record<string, string> }> {
  const weights = await openSafetensors(file);
  const tensors: TensorToWrite[] = [];
  for (const { name, dtype, shape } of weights.entries.values()) {
    tensors.push({ name, dtype, shape, data: await weights.read(name) });
  }
  await weights.close();
  return { tensors, metadata: weights.metadata };
}

describe("unchanged tensors", () => {
  it.each(realFiles)("of %s are written back byte for byte", async (file) => {
    const { tensors, metadata } = await allTensors(file);
    expect(tensors.length).toBeGreaterThan(1);
    const out = path.join(scratch, "copy.safetensors");
    await writeSafetensors(out, tensors, { metadata });
    expect(readFileSync(out).equals(readFileSync(file))).toBe(true);
  });
});

describe("values", () => {
  it("are float32 from F32, F16, BF16 and F64, and bytes for the rest", async () => {
    const file = path.join(scratch, "kinds.safetensors");
    const f64 = new Uint8Array(Float64Array.of(0.1, -2).buffer);
    await writeSafetensors(file, [
      { name: "scalar", dtype: "F32", shape: [], data: new Uint8Array(Float32Array.of(7.5).buffer) },
      { name: "half", dtype: "F16", shape: [2], data: Uint8Array.of(0x00, 0x3c, 0x00, 0xc0) },
      { name: "b", dtype: "BF16", shape: [1, 2], data: Uint8Array.of(0x80, 0x3f, 0x20, 0xc0) },
      { name: "d", dtype: "F64", shape: [2], data: f64 },
      { name: "none", dtype: "F32", shape: [0, 4], data: new Uint8Array(0) },
      { name: "ids", dtype: "I32", shape: [1], data: Uint8Array.of(5, 0, 0, 0) },
      { name: "0", dtype: "U8", shape: [3], data: Uint8Array.of(1, 2, 3) },
    ]);
    const weights = await openSafetensors(file);
    expect([...weights.entries.keys()]).toEqual(["scalar", "half", "b", "d", "none", "ids", "0"]);
    expect([...(await weights.readF32("scalar"))]).toEqual([7.5]);
    expect([...(await weights.readF32("half"))]).toEqual([1, -2]);
    expect([...(await weights.readF32("b"))]).toEqual([1, -2.5]);
    expect([...(await weights.readF32("d"))]).toEqual([Math.fround(0.1), -2]);
    expect((await weights.readF32("none")).length).toBe(0);
    expect([...(await weights.read("0"))]).toEqual([1, 2, 3]);
    await expect(weights.readF32("ids")).rejects.toMatchObject({
      code: "safetensors.not-float",
      found: "I32",
    });
    await expect(weights.read("layers.9.bias")).rejects.toMatchObject({ code: "safetensors.no-tensor" });
    await weights.close();
  });

  it("says which tensor, if the file shrinks after it was opened", async () => {
    const file = path.join(scratch, "shrinks.safetensors");
    await writeSafetensors(file, [{ name: "a", dtype: "U8", shape: [100], data: new Uint8Array(100) }]);
    const weights = await openSafetensors(file);
    truncateSync(file, 120);
    await expect(weights.read("a")).rejects.toMatchObject({ code: "safetensors.truncated" });
    await weights.close();
  });
});

/** A file of `header` (text, or anything to be made JSON), `dataBytes` zero bytes, optionally a forged header length. */
function forge(header: unknown, dataBytes: number, statedLength?: bigint): string {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(statedLength ?? BigInt(json.byteLength));
  const file = path.join(scratch, "forged.safetensors");
  writeFileSync(file, Buffer.concat([prefix, json, Buffer.alloc(dataBytes)]));
  return file;
}

const entry = (dtype: unknown, shape: unknown, offsets: unknown): object => ({
  t: { dtype, shape, data_offsets: offsets },
});
const two = (a: number[], b: number[]): object => ({
  a: { dtype: "U8", shape: [(a[1] as number) - (a[0] as number)], data_offsets: a },
  b: { dtype: "U8", shape: [(b[1] as number) - (b[0] as number)], data_offsets: b },
});

describe("a hostile header", () => {
  it.each<[string, string, unknown, number, bigint?]>([
    ["length beyond the file", "truncated", {}, 4, 1000n],
    ["length of 2^63 bytes", "header-too-large", {}, 4, 2n ** 63n],
    ["length over the limit", "header-too-large", {}, 4, 100_000_001n],
    ["not JSON", "not-json", "{oops", 4],
    ["not UTF-8", "not-json", "{}", 0, 3n],
    ["a list", "header", [1], 0],
    ["null", "header", "null", 0],
    ["an entry that is a number", "header", { t: 5 }, 4],
    ["no shape", "header", { t: { dtype: "U8", data_offsets: [0, 4] } }, 4],
    ["a negative axis", "header", entry("U8", [-4], [0, 4]), 4],
    ["a fractional axis", "header", entry("U8", [1.5], [0, 4]), 4],
    ["an axis of 1e300", "header", entry("U8", [1e300], [0, 4]), 4],
    ["axes whose product overflows", "size", entry("F32", [2 ** 40, 2 ** 40], [0, 4]), 4],
    ["200 axes", "header", entry("U8", Array(200).fill(1), [0, 1]), 1],
    ["a negative offset", "offsets", entry("U8", [4], [-4, 0]), 4],
    ["offsets back to front", "offsets", entry("U8", [4], [4, 0]), 4],
    ["three offsets", "offsets", entry("U8", [4], [0, 2, 4]), 4],
    ["offsets that are text", "offsets", entry("U8", [4], ["0", "4"]), 4],
    ["end beyond the file", "truncated", entry("U8", [400], [0, 400]), 4],
    ["bytes after the last tensor", "offsets", entry("U8", [4], [0, 4]), 5],
    ["overlapping tensors", "offsets", two([0, 4], [2, 6]), 6],
    ["the same bytes twice", "offsets", two([0, 4], [0, 4]), 4],
    ["a gap", "offsets", two([0, 4], [6, 8]), 8],
    ["a start past zero", "offsets", entry("U8", [4], [4, 8]), 8],
    ["a size that contradicts dtype and shape", "size", entry("F32", [2], [0, 4]), 4],
    ["an unknown dtype", "dtype", entry("F8_E4M3", [4], [0, 4]), 4],
    ["a dtype from the prototype", "dtype", entry("toString", [4], [0, 4]), 4],
    ["a dtype that is a number", "dtype", entry(3, [4], [0, 4]), 4],
    [
      "a name twice",
      "duplicate-name",
      `{"t":${JSON.stringify({ dtype: "U8", shape: [4], data_offsets: [0, 4] })},"\\u0074":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`,
      4,
    ],
    ["metadata that is not strings", "metadata", { __metadata__: { layers: 4 } }, 0],
    ["metadata that is a list", "metadata", { __metadata__: ["pt"] }, 0],
  ])("with %s is refused as safetensors.%s", async (_what, code, header, dataBytes, stated) => {
    const file = forge(header, dataBytes, stated);
    if (_what === "not UTF-8") writeFileSync(file, Buffer.from([3, 0, 0, 0, 0, 0, 0, 0, 0x22, 0xff, 0x22]));
    const error = await openSafetensors(file).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(NlaError);
    expect((error as NlaError).code).toBe(`safetensors.${code}`);
    expect((error as NlaError).subject).toContain(file);
  });

  it("of 20 MB of nested brackets is refused, not a crash", async () => {
    await expect(openSafetensors(forge("[".repeat(20_000_000), 0))).rejects.toMatchObject({
      code: "safetensors.not-json",
    });
  });

  it("may name a tensor __proto__ without harm", async () => {
    const header = '{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}';
    const weights = await openSafetensors(forge(header, 1));
    expect([...weights.entries.keys()]).toEqual(["__proto__"]);
    await weights.close();
  });
});

describe("a damaged file", () => {
  it("is truncated at any length, and says how many bytes are there", async () => {
    const whole = readFileSync(bundled);
    for (const length of [0, 7, 8, 100, 5000, whole.byteLength - 1]) {
      const file = path.join(scratch, "cut.safetensors");
      writeFileSync(file, whole.subarray(0, length));
      await expect(openSafetensors(file), String(length)).rejects.toMatchObject({
        code: "safetensors.truncated",
      });
    }
    const message = await openSafetensors(path.join(scratch, "cut.safetensors")).catch(
      (e: Error) => e.message,
    );
    expect(message).toContain(`${whole.byteLength - 1} bytes`);
    expect(message).toContain(`at least ${whole.byteLength} bytes`);
  });

  it("that is absent or a folder is safetensors.missing or a read error, not a hang", async () => {
    await expect(openSafetensors(path.join(scratch, "none"))).rejects.toMatchObject({
      code: "safetensors.missing",
    });
    await expect(openSafetensors(scratch)).rejects.toThrow();
  });
});

function tensor(name: string, dtype: StoredDtype, shape: number[], bytes: number): TensorToWrite {
  return { name, dtype, shape, data: new Uint8Array(bytes) };
}

describe("writeSafetensors", () => {
  it.each([
    ["size", [tensor("a", "F32", [2], 4)]],
    ["size", [tensor("a", "F32", [-1], 4)]],
    ["duplicate-name", [tensor("a", "U8", [1], 1), tensor("a", "U8", [1], 1)]],
    ["duplicate-name", [tensor("__metadata__", "U8", [1], 1)]],
  ])("refuses what could not be read again (safetensors.%s)", async (code, tensors) => {
    const file = path.join(scratch, "refused.safetensors");
    await expect(writeSafetensors(file, tensors)).rejects.toMatchObject({ code: `safetensors.${code}` });
  });
});
