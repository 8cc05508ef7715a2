// A whole evaluation with an untrained pair, from a parquet file of the bundled target's activations.
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { activationsOf, loadTarget } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import { TARGET, untrainedPair } from "../nla/testing/untrained-pair.js";
import type { Nla } from "../nla/read.js";
import { Device } from "../tensor/index.js";
import { evaluatePair } from "./evaluate-pair.js";
import { explainRows } from "./explained-rows.js";
import type { EvalRow } from "./explained-rows.js";
import { readHeldOutRows } from "./held-out-rows.js";
import { writeHeldOutRows } from "./testing/held-out-file.js";

let device: Device;
let target: Target;
let nla: Nla;
let folder: string;
let rows: EvalRow[];
const file = () => path.join(folder, "eval.parquet");
beforeAll(async () => {
  device = Device.open({ threads: 1 });
  target = await loadTarget(TARGET, device);
  nla = untrainedPair(target);
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-evaluate-"));
  const file = path.join(folder, "eval.parquet");
  await writeHeldOutRows(file, target, 2);
  rows = await readHeldOutRows(file, { width: 64 });
});
afterAll(async () => {
  nla[Symbol.dispose]();
  target[Symbol.dispose]();
  device[Symbol.dispose]();
  await rm(folder, { recursive: true });
});

describe("readHeldOutRows", () => {
  it("gives activations with their document, position and text", async () => {
    const { docId, position, text, vector } = rows[5] as EvalRow;
    expect(docId).toMatch(/^story:eval:\d+$/);
    const ids = target.tokenizer.encode(text as string, { addSpecialTokens: true });
    expect(ids.length).toBe(position + 1);
    const [activations] = await activationsOf(target, 2, [ids]);
    const last = (activations as Float32Array).slice(-64);
    vector.forEach((value, i) => expect(value).toBeCloseTo(last[i]!, 4));
  });

  it("spreads fewer rows evenly over the file", async () => {
    const some = await readHeldOutRows(file(), { width: 64, rows: 7 });
    expect(some).toEqual(Array.from({ length: 7 }, (_, i) => rows[Math.floor((i * rows.length) / 7)]));
    expect(new Set(some.map(({ docId }) => docId)).size).toBeGreaterThan(3);
    expect((await readHeldOutRows(file(), { width: 64, rows: 1000 })).length).toBe(rows.length);
  });

  it("refuses a file that is not there, and activations of another width", async () => {
    await expect(readHeldOutRows(`${file()}.no`, { width: 64 })).rejects.toMatchObject({
      code: "parquet.missing",
    });
    await expect(readHeldOutRows(file(), { width: 32 })).rejects.toMatchObject({ code: "parquet.width" });
  });
});

describe("evaluatePair", () => {
  it("scores every row, the same each time and whatever the size of a pass", async () => {
    const options = { nla, rows, maxNewTokens: 30, bootstrap: { seed: 4, resamples: 100 } };
    const seen: number[] = [];
    const found = await evaluatePair({ ...options, batch: 7, onProgress: (done) => seen.push(done) });
    expect(found.n).toBe(rows.length);
    expect(seen.at(-1)).toBe(rows.length);
    expect(seen[0]).toBe(7);
    expect(found.failed).toBeLessThan(1);
    expect(Math.abs(found.controls.mean.fve)).toBeLessThan(1e-9);
    expect(found.intervals.fve[0]).toBeLessThanOrEqual(found.fve);
    expect(found.by_position.reduce((sum, { n }) => sum + n, 0)).toBe(rows.length);
    const again = await evaluatePair(options);
    expect(again.fve).toBeCloseTo(found.fve, 5);
    expect(again.length).toBe(found.length);
  });

  it("counts what was cut off as failed, and says nothing of cosine where all was", async () => {
    const found = await evaluatePair({ nla, rows, maxNewTokens: 1, bootstrap: { resamples: 10 } });
    expect(found).toMatchObject({ failed: 1, cosine: null, length: 1 });
    expect(Math.abs(found.fve)).toBeLessThan(1e-9);
  });

  it("samples by seed", async () => {
    const options = { temperature: 1, maxNewTokens: 20 };
    const texts = async (seed: number) => {
      const explained = await explainRows(nla, rows.slice(0, 12), { ...options, seed });
      return explained.map(({ explanation }) => explanation);
    };
    expect(await texts(1)).toEqual(await texts(1));
    expect(await texts(2)).not.toEqual(await texts(1));
  });

  it("stops when it is told to", async () => {
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(evaluatePair({ nla, rows, signal })).rejects.toThrow("enough");
  });
});
