// A run whose reconstructor reads claims in other orders: its labels say the same in another order, those of the verbalizer and of the held-out
// documents are the very same. The labeller itself is world-labels.test.ts.
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openTrainingRows } from "../pipeline/training-rows.js";
import { configSchema } from "./config-schema.js";
import { openProgress } from "./progress.js";
import { trainingFile } from "./run-layout.js";
import { train } from "./run.js";

const few = { steps: 1, batch: 8, micro_batch: 8 };
let folder: string;

async function made(name: string, reordered: number): Promise<void> {
  const config = configSchema.parse({
    target: "smallworld",
    layer: 2,
    corpus: { path: "world:1", start: 7_000_000, length: 30 },
    positions: { per_document: 4, min_position: 5, max_length: 128 },
    splits: { ar_sft: 0.4, av_sft: 0.4, rl: 0, eval: 0.2 },
    labels: { kind: "world", keep: 0.8, most: 12, reordered },
    reconstructor: few,
    verbalizer: few,
    rl: { steps: 0 },
    log: { eval_rows: 8 },
    threads: 1,
  });
  const progress = openProgress({ stream: { write: () => true }, clock: () => 0, json: true, env: {} });
  await train(config, { directory: path.join(folder, name), progress });
}

async function labelsOf(name: string, set: "ar_sft" | "av_sft" | "eval"): Promise<string[][]> {
  using rows = await openTrainingRows(path.join(folder, name, trainingFile(set)));
  const all = await rows.rows(Array.from({ length: rows.rowCount }, (_, i) => i));
  return all.map(({ label }) => (label ?? "").split(/(?<= \.) /));
}

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-reordered-"));
  await made("ordered", 0);
  await made("reordered", 1);
}, 120_000);
afterAll(() => rm(folder, { recursive: true }));

describe("labels.reordered", () => {
  it("moves the claims of the reconstructor's labels and changes none", async () => {
    const [ordered, reordered] = [await labelsOf("ordered", "ar_sft"), await labelsOf("reordered", "ar_sft")];
    expect(reordered).toHaveLength(ordered.length);
    expect(reordered.map((label) => label.toSorted())).toEqual(ordered.map((label) => label.toSorted()));
    const moved = reordered.filter((label, i) => label.join() !== ordered[i]?.join());
    expect(moved.length).toBeGreaterThan(0.8 * ordered.length); // a label of one claim has one order
  });

  it.each(["av_sft", "eval"] as const)("leaves those of %s as they are", async (set) => {
    expect(await labelsOf("reordered", set)).toEqual(await labelsOf("ordered", set));
  });
});
