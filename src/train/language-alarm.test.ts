// The training's alarm: silent while language holds, loud where fidelity rises and language or facts are lost.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { languageAlarm, measuredBefore } from "./language-alarm.js";
import type { Measured } from "./language-alarm.js";

const measured = (fve: number, recall: number, unparsed: number): Measured => ({
  fve,
  claims: { precision: 0.8, recall, f1: 0.4, claims: 4, unparsed, categories: {} },
});

describe("the alarm of a training", () => {
  let folder: string;
  beforeAll(async () => void (folder = await mkdtemp(path.join(os.tmpdir(), "nla-alarm-"))));
  afterAll(() => rm(folder, { recursive: true }));

  it("goes off as in the collapse run, and not as in a sound one", () => {
    const before = measured(0.48, 0.32, 0);
    expect(languageAlarm(before, measured(0.68, 0.38, 0.006))).toBeNull();
    const late = languageAlarm(before, measured(0.63, 0.218, 0.222));
    expect(late).toMatch(/^ALARM: FVE rose from 0\.480 to 0\.630 while 22\.2 % of sentences are no claims/);
    expect(late).toMatch(/recall fell to 0\.218 from 0\.320/);
    expect(languageAlarm(before, measured(0.58, 0.2, 0.01))).toMatch(/recall fell/);
    // A pair that is merely bad has no code.
    expect(languageAlarm(before, measured(0.3, 0.2, 0.01))).toBeNull();
    expect(languageAlarm(null, measured(0.63, 0.2, 0.5))).toBeNull();
    expect(languageAlarm(before, { fve: 0.63 })).toBeNull();
  });

  it("compares with the last measurement of the warm start", async () => {
    const file = path.join(folder, "metrics.jsonl");
    expect(await measuredBefore(file)).toBeNull();
    const rows = [
      { stage: "av_sft", step: 9, eval: measured(0.3, 0.2, 0) },
      { stage: "av_sft", step: 19, eval: measured(0.48, 0.32, 0) },
      { stage: "av_sft", step: 20, loss: 1 },
      { stage: "rl", step: 9, eval: measured(0.6, 0.4, 0.1) },
    ];
    await writeFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    expect(await measuredBefore(file)).toEqual(measured(0.48, 0.32, 0));
  });
});
