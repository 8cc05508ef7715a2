// The row logs: appended whole, cut back on resume, readable at any moment.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { appendFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { NlaError } from "../error.js";
import { encodeRow, openLog, readRows, withoutTiming } from "./metrics-log.js";
import type { LogRow } from "./metrics-log.js";

let folder: string;
let file: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-log-"));
  file = path.join(folder, "metrics.jsonl");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const row = (stage: string, step: number, more: Record<string, number> = {}): LogRow => ({
  stage,
  step,
  ...more,
});

async function write(stage: string, nextStep: number, steps: number[]): Promise<void> {
  await using log = await openLog(file, { stage, nextStep });
  for (const step of steps) await log.append(row(stage, step));
}

const places = async () => (await readRows(file)).map(({ stage, step }) => `${stage} ${step}`);

async function rejection(promise: Promise<unknown>): Promise<NlaError> {
  return promise.then(
    () => Promise.reject(new Error("nothing was thrown")),
    (thrown: unknown) => (thrown instanceof NlaError ? thrown : Promise.reject(thrown)),
  );
}

describe("openLog", () => {
  it("appends rows in the order of the calls, without waiting between them", async () => {
    const log = await openLog(file, { stage: "rl", nextStep: 0 });
    await Promise.all(Array.from({ length: 50 }, (_, step) => log.append(row("rl", step))));
    await log.flush();
    expect((await readRows(file)).map(({ step }) => step)).toEqual(
      Array.from({ length: 50 }, (_, step) => step),
    );
    await log.close();
  });

  it("cuts back to the resumed step of its stage and keeps the stages before", async () => {
    await write("ar_sft", 0, [0, 1, 2]);
    await write("rl", 0, [0, 1, 1, 2, 3]);
    await write("rl", 2, [2]);
    expect(await places()).toEqual(["ar_sft 0", "ar_sft 1", "ar_sft 2", "rl 0", "rl 1", "rl 1", "rl 2"]);
    await write("rl", 0, []);
    expect(await places()).toEqual(["ar_sft 0", "ar_sft 1", "ar_sft 2"]);
  });

  it("ends with the same bytes as a log that was never interrupted", async () => {
    await write("rl", 0, [0, 1, 2, 3, 4]);
    const whole = await readFile(file);
    await rm(file);
    await write("rl", 0, [0, 1, 2, 3]);
    await appendFile(file, '{"stage":"rl","step":4,"lo');
    await write("rl", 2, [2, 3, 4]);
    expect((await readFile(file)).equals(whole)).toBe(true);
  });

  it("drops a last line that is torn anywhere, even inside a character", async () => {
    const line = new TextEncoder().encode('{"stage":"rl","step":1,"text":"é😀"}\n');
    for (let length = 0; length <= line.length; length++) {
      await writeFile(file, `${encodeRow(row("rl", 0))}\n`);
      await appendFile(file, line.subarray(0, length));
      const wanted = length === line.length ? ["rl 0", "rl 1"] : ["rl 0"];
      expect(await places()).toEqual(wanted);
      await write("rl", 9, [9]);
      expect(await places()).toEqual([...wanted, "rl 9"]);
    }
  });

  it("tells of a damaged line before the last, and leaves the file as it is", async () => {
    const text = `${encodeRow(row("rl", 0))}\n{"stage":"rl"\n${encodeRow(row("rl", 2))}\n`;
    await writeFile(file, text);
    const error = await rejection(openLog(file, { stage: "rl", nextStep: 0 }));
    expect(error).toMatchObject({ code: "log.damaged", subject: `${file}, line 2` });
    await writeFile(file, "[1]\n");
    expect((await rejection(readRows(file))).found).toBe("no stage and step");
    await writeFile(file, Uint8Array.of(0xff, 0x0a));
    expect((await rejection(readRows(file))).code).toBe("log.damaged");
  });

  it("is empty where there is no file", async () => {
    expect(await readRows(file)).toEqual([]);
  });
});

/** A mounted 64 kB file system, or null where this user may not mount. */
function mountSmall(): string | null {
  const at = mkdtempSync(path.join(os.tmpdir(), "nla-log-small-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", at], { stdio: "pipe" });
    return at;
  } catch (thrown) {
    rmSync(at, { recursive: true });
    console.warn(`skipped: the full-disk test needs to mount a tmpfs (${String(thrown).split("\n")[0]})`);
    return null;
  }
}
const small = process.platform === "linux" ? mountSmall() : null;

describe.skipIf(small === null)("on a full disk", () => {
  afterAll(async () => {
    execFileSync("umount", [small as string]);
    await rm(small as string, { recursive: true });
  });

  it("says so, keeps the rows that are whole, and goes on when there is room", async () => {
    const full = path.join(small as string, "metrics.jsonl");
    const filler = path.join(small as string, "filler");
    await writeFile(filler, new Uint8Array(50_000));
    await using log = await openLog(full, { stage: "rl", nextStep: 0 });
    const text = "x".repeat(7_000);
    await log.append({ stage: "rl", step: 0, text });
    const error = await rejection(log.append({ stage: "rl", step: 1, text }));
    expect(error).toMatchObject({ code: "disk.full", subject: full });
    expect((await readFile(full, "utf8")).endsWith('"}\n')).toBe(true);
    await rm(filler);
    await log.append({ stage: "rl", step: 1, text });
    expect((await readRows(full)).map(({ step }) => step)).toEqual([0, 1]);
  });
});

describe("rows", () => {
  it("write numbers that are not finite as words", () => {
    const text = encodeRow(row("rl", 0, { loss: Number.NaN, norm: Infinity, kl: -Infinity }));
    expect(JSON.parse(text)).toEqual({
      stage: "rl",
      step: 0,
      loss: "NaN",
      norm: "Infinity",
      kl: "-Infinity",
    });
  });

  it.each([
    ["a time beside the metrics", { seconds_rollout: 1 }, "seconds_rollout at the top of the row"],
    ["a speed beside the metrics", { tokens_per_second: 1 }, "tokens_per_second at the top of the row"],
    ["a missing value", { loss: undefined }, "undefined"],
    ["a typed array", { norms: new Float32Array(2) }, "Float32Array"],
    ["a bigint", { params: 1n }, "BigInt"],
    ["a step that is no number", { step: Number.NaN }, "stage rl, step NaN"],
  ])("refuse %s", async (_, fields, found) => {
    await using log = await openLog(file, { stage: "rl", nextStep: 0 });
    const bad = { stage: "rl", step: 0, ...fields } as unknown as LogRow;
    expect(await rejection(log.append(bad))).toMatchObject({ code: "log.row", found });
    expect(await readFile(file, "utf8")).toBe("");
  });

  it("can be compared without what a clock measured", () => {
    const timed = { ...row("rl", 3, { loss: 1 }), timing: { seconds: 2, tokens_per_second: 5 } };
    expect(withoutTiming(timed)).toEqual({ stage: "rl", step: 3, loss: 1 });
  });
});
