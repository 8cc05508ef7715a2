// `nla probe` and `nla world train` on the command line: a short training, its table and JSON, and what they refuse.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { runNla } from "./testing/run-nla.js";

const CONFIG = `
model: { dim: 16, layers: 2, heads: 2, ffn: 32 }
held_out: { documents: 6 }
steps: 2
batch: 4
micro_batch: 4
future: { layer: 0 }
`;

describe("nla world train, nla probe", () => {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), "nla-probe-"));
    await writeFile(path.join(folder, "tiny.yaml"), CONFIG);
  });
  afterAll(() => rm(folder, { recursive: true }));

  it("train a target and print what is present in it", async () => {
    const run = path.join(folder, "run");
    const trained = await runNla(["world", "train", path.join(folder, "tiny.yaml"), "--run", run, "--json"]);
    expect(trained.code).toBe(0);
    const { target } = JSON.parse(trained.out) as { target: string };
    expect(target).toBe(path.join(run, "target"));
    const flags = ["--documents", "60", "--positions", "4", "--threads", "1"];
    const table = await runNla(["probe", "--model", target, ...flags]);
    expect(table.code).toBe(0);
    expect(table.out).toMatch(/fact +values +rows +commonest +block 0 +block 1/);
    expect(table.out).toMatch(/\nkind +\d+ +\d+ +0\.\d\d +\d\.\d\d \(\d\.\d\d to \d\.\d\d\) \| \d\.\d\d/);
    expect(table.out).toMatch(/\njob +all +0\.70 +FAIL \d\.\d\d/);
    expect(table.out).toMatch(/fact +0 to 11/);
    const json = await runNla(["probe", "--model", target, "--layers", "1", ...flags, "--json"]);
    const { results } = JSON.parse(json.out) as { results: { layer: number; category: string }[] };
    expect(new Set(results.map(({ layer }) => layer))).toEqual(new Set([1]));
    expect(results.map(({ category }) => category)).toContain("word");
  });

  it("name what is wrong", async () => {
    const unknown = await runNla([
      "world",
      "train",
      path.join(folder, "tiny.yaml"),
      "--set",
      "futur.weight=1",
    ]);
    expect(unknown.code).toBe(1);
    expect(unknown.err).toMatch(/futur/);
    const layers = await runNla(["probe", "--model", "aidreams260K", "--layers", "x"]);
    expect(layers.code).toBe(2);
    expect(layers.err).toMatch(/--layers/);
    const other = await runNla(["probe", "--model", "aidreams260K"]);
    expect(other.code).toBe(1);
    expect(other.err).toMatch(/world's tokenizer/);
  });
});
