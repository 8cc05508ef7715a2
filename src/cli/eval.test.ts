// `nla eval` on a run folder with an untrained pair, held-out activations and a log: the table, the JSON and the report.
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeHeldOutRows } from "../evaluate/testing/held-out-file.js";
import { loadTarget } from "../nla/target.js";
import { TARGET, writeUntrainedPair } from "../nla/testing/untrained-pair.js";
import { Device } from "../tensor/index.js";
import { runNla } from "./testing/run-nla.js";

let run: string;
let rows: number;
beforeAll(async () => {
  run = await mkdtemp(path.join(os.tmpdir(), "nla-eval-"));
  using device = Device.open({ threads: 1 });
  await writeUntrainedPair(run, device);
  await mkdir(path.join(run, "data"));
  using target = await loadTarget(TARGET, device);
  rows = await writeHeldOutRows(path.join(run, "data", "eval.parquet"), target, 2);
  const metrics = [
    { stage: "av_sft", step: 0, loss: 3, eval: { fve: -0.5, shuffled_fve: -0.6, length: 20, failed: 0.1 } },
    {
      stage: "rl",
      step: 0,
      loss: 0.1,
      fve: 0.1,
      kl: 0,
      entropy: 1.2,
      length: 19,
      failed: 0,
      reward_mean: -1,
      reward_std: 0.3,
    },
    {
      stage: "rl",
      step: 1,
      loss: 0.1,
      fve: 0.2,
      kl: 0.1,
      entropy: 1.1,
      length: 18,
      failed: 0,
      reward_mean: -0.9,
      reward_std: 0.2,
      eval: { fve: 0.2, shuffled_fve: -0.7, length: 17, failed: 0 },
    },
  ];
  const samples = [
    {
      stage: "rl",
      step: 1,
      row: 0,
      text: "Once <upon> a",
      explanation: "a & b",
      mse: 0.5,
      cosine: 0.75,
      reward: -0.5,
    },
  ];
  await writeFile(path.join(run, "metrics.jsonl"), lines(metrics));
  await writeFile(path.join(run, "samples.jsonl"), lines(samples));
});
afterAll(() => rm(run, { recursive: true }));

const lines = (rows: readonly unknown[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
const evaluate = (...args: string[]) =>
  runNla(["eval", run, "--threads", "1", "--max-new-tokens", "30", "--resamples", "50", ...args]);

describe("nla eval", () => {
  it("gives the documented keys, the same twice", async () => {
    const { code, out } = await evaluate("--json");
    expect(code).toBe(0);
    const report = JSON.parse(out) as Record<string, unknown>;
    expect(Object.keys(report)).toEqual([
      "model",
      "layer",
      "n",
      "documents",
      "fve",
      "fve_meannorm",
      "variance",
      "variance_meannorm",
      "mse",
      "cosine",
      "length",
      "failed",
      "intervals",
      "controls",
      "by_position",
      "sampled",
      "warm_start",
      "claims",
    ]);
    expect(report).toMatchObject({
      n: rows,
      documents: 6,
      controls: { shuffled: { fve: expect.any(Number) }, mean: { fve: expect.closeTo(0, 9) } },
      intervals: { fve: [expect.any(Number), expect.any(Number)] },
      sampled: { fve: expect.any(Number), controls: { shuffled: { fve: expect.any(Number) } } },
    });
    expect(Object.keys((report["by_position"] as object[])[0] as object)).toEqual([
      "from",
      "to",
      "n",
      "fve",
      "mse",
    ]);
    expect((await evaluate("--json")).out).toBe(out);
  });

  it("takes the run's activations anew from a model, which is the same if the model is", async () => {
    const stored = JSON.parse((await evaluate("--json", "--rows", "12")).out) as Record<string, number>;
    const anew = JSON.parse((await evaluate("--json", "--rows", "12", "--model", TARGET)).out) as Record<
      string,
      number
    >;
    expect(stored["n"]).toBe(12);
    expect(anew["n"], JSON.stringify(anew)).toBe(12);
    expect(anew["variance"]).toBeCloseTo(stored["variance"] as number, 4);
  });

  it("prints a table and what it means", async () => {
    const { code, out } = await evaluate("--rows", "12");
    expect(code).toBe(0);
    expect(out).toMatch(/12 held-out activations of \d documents, output of block 2 of aidreams260K/);
    expect(out).toMatch(/greedy +-?\d\.\d{3} +-?\d\.\d{3} to -?\d\.\d{3}/);
    expect(out).toMatch(/mean activation +0\.000 +by construction/);
    expect(out).toContain("0 is what the mean gives, 1 is perfect");
  });

  it("writes a report that asks for nothing from anywhere", async () => {
    const file = path.join(run, "report.html");
    const { code, out } = await evaluate("--rows", "12", "--report", file);
    expect(code).toBe(0);
    expect(out).toContain(`report written to ${file}`);
    const html = await readFile(file, "utf8");
    expect(html).toContain("Once &lt;upon&gt; a");
    expect(html).toContain("a &amp; b");
    expect(html).toContain("<svg");
    expect(html).not.toMatch(/src=|href=|url\(|@import|https?:/);
  });

  it("refuses a folder without held-out activations, and one without a pair", async () => {
    const other = await mkdtemp(path.join(os.tmpdir(), "nla-eval-"));
    try {
      const empty = await runNla(["eval", other, "--json"]);
      expect(empty.code).toBe(1);
      expect(JSON.parse(empty.out)).toMatchObject({ error: { code: "nla.directory" } });
      using device = Device.open({ threads: 1 });
      await writeUntrainedPair(other, device);
      const pair = await runNla(["eval", other, "--json", "--threads", "1"]);
      expect(JSON.parse(pair.out)).toMatchObject({ error: { code: "parquet.missing" } });
    } finally {
      await rm(other, { recursive: true });
    }
  });
});
