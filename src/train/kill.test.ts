// SIGKILL at random moments. A small "training" in a child process opens a run folder, runs stages, logs rows and writes
// checkpoints; it is killed again and again until it ends, and the folder must then be, byte for byte, that of a run that
// was never killed. In between, whatever is there must be whole.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PythonRandom } from "../data/python-random.js";
import { parseConfig, configHash } from "./config.js";
import { readRows, withoutTiming } from "./metrics-log.js";
import { compileSources, runScript } from "./testing/child-process.js";
import type { Compiled } from "./testing/child-process.js";
import { checkpointSteps, openCheckpoint } from "./training-state.js";

const CONFIG = "{target: aidreams260K, layer: 1, corpus: {path: /corpus.txt}}";
const STEPS = 24;

const trainer = `
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createHash } from "node:crypto";
import { parseConfig, configHash } from "./dist/train/config.js";
import { openRunFolder } from "./dist/train/run-folder.js";
import { openLog } from "./dist/train/metrics-log.js";
import { latestCheckpoint, pruneCheckpoints, saveCheckpoint } from "./dist/train/training-state.js";
const config = parseConfig(${JSON.stringify(CONFIG)});
console.log("begun");
const run = await openRunFolder(process.argv[2], config);
const wait = () => new Promise((resolve) => setTimeout(resolve, 1));
await run.runStage("extract", async (stage) => {
  for (let i = 0; i < 10; i++) {
    await writeFile(await stage.output("data/part" + i + ".bin"), Buffer.alloc(50_000, i));
    await wait();
  }
  return { rows: 10 };
});
for (const name of ["ar_sft", "rl"]) {
  await run.runStage(name, async (stage) => {
    const root = run.path("checkpoints");
    const place = { root, stage: name, configHash: configHash(config) };
    const latest = await latestCheckpoint(place);
    await pruneCheckpoints(place, { keep: 2 });
    let weights = latest ? await readFile(latest.directory + "/weights.bin") : Buffer.alloc(200_000, 1);
    let step = latest?.state.step ?? 0;
    const metrics = await openLog(run.path("metrics.jsonl"), { stage: name, nextStep: step });
    for (; step < ${STEPS}; step++) {
      weights = Buffer.from(weights.map((byte, i) => (byte * 31 + step + i) & 255));
      const loss = createHash("sha256").update(weights).digest("hex").slice(0, 8);
      await metrics.append({ stage: name, step, loss, timing: { seconds: performance.now() } });
      if ((step + 1) % 4 === 0) {
        await metrics.flush();
        const state = { stage: name, step: step + 1, data: { epoch: 0, offset: step }, seeds: { sample: 7 }, optimizers: {}, best: {} };
        await saveCheckpoint(place, state, (folder) => writeFile(folder + "/weights.bin", weights), { keep: 2 });
      }
      await wait();
    }
    await metrics.close();
    const folder = await stage.output(name === "rl" ? "verbalizer" : "checkpoints/" + name + "/final");
    await mkdir(folder);
    await writeFile(folder + "/weights.bin", weights);
    await writeFile(folder + "/config.json", "{}");
  });
}
await run.close();
console.log("finished");
`;

let compiled: Compiled;
let script: string;
beforeAll(async () => {
  compiled = await compileSources(["train/run-folder.ts", "train/metrics-log.ts", "train/training-state.ts"]);
  script = await compiled.script("trainer.mjs", trainer);
});
afterAll(() => compiled?.remove());

/** Every file of a folder with its hash; of logs the rows without their timing. */
async function contents(folder: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    const full = path.join(entry.parentPath, entry.name);
    const name = path.relative(folder, full);
    if (entry.isDirectory()) found[name] = "folder";
    else if (name.endsWith(".jsonl")) found[name] = JSON.stringify((await readRows(full)).map(withoutTiming));
    else
      found[name] = createHash("sha256")
        .update(await readFile(full))
        .digest("hex");
  }
  return found;
}

/** What must hold at any moment: outputs are there whole or not at all, the newest checkpoint opens, logs can be read. */
async function checkWhole(folder: string): Promise<void> {
  const names = await readdir(folder);
  if (names.includes("state.json")) {
    const state = JSON.parse(await readFile(path.join(folder, "state.json"), "utf8")) as {
      stages: { name: string }[];
    };
    expect(["extract", "ar_sft", "rl"].slice(0, state.stages.length)).toEqual(
      state.stages.map(({ name }) => name),
    );
    for (let i = 0; i < 10; i++) {
      const part = await readFile(path.join(folder, `data/part${i}.bin`));
      expect(part.equals(Buffer.alloc(50_000, i))).toBe(true);
    }
  }
  if (names.includes("verbalizer")) {
    expect((await readdir(path.join(folder, "verbalizer"))).sort()).toEqual(["config.json", "weights.bin"]);
  }
  const root = path.join(folder, "checkpoints");
  for (const stage of ["ar_sft", "rl"]) {
    const newest = (await checkpointSteps({ root, stage })).at(-1);
    if (newest !== undefined) {
      const place = { root, stage, configHash: configHash(parseConfig(CONFIG)) };
      expect((await openCheckpoint(place, newest)).files).toEqual(["weights.bin"]);
    }
  }
  await readRows(path.join(folder, "metrics.jsonl"));
}

describe("a run that is killed", () => {
  it("ends with the bytes of one that was never killed", async () => {
    const whole = path.join(compiled.folder, "whole");
    const begun = performance.now();
    const reference = await runScript(script, [whole]);
    expect(reference.output).toContain("finished");
    const duration = performance.now() - begun;
    const expected = await contents(whole);
    expect(Object.keys(expected)).toContain("verbalizer/weights.bin");
    expect(
      Object.keys(expected).filter((name) => name.startsWith(".") || name.startsWith("run.lock")),
    ).toEqual([]);

    const random = new PythonRandom(20);
    let kills = 0;
    for (let trial = 0; kills < 20; trial++) {
      expect(trial, "too few of the kills hit a running process").toBeLessThan(30);
      const folder = path.join(compiled.folder, `killed-${trial}`);
      for (;;) {
        // Short enough that a run is killed several times, and no two kills at the same moment.
        const { signal, output } = await runScript(script, [folder], random.random() * duration * 0.6);
        if (signal === null) {
          expect(output).toContain("finished");
          break;
        }
        // Before it has made its folder there is nothing yet that a kill could damage.
        if (!existsSync(folder)) continue;
        kills += 1;
        await checkWhole(folder);
      }
      expect(await contents(folder)).toEqual(expected);
      await rm(folder, { recursive: true });
    }
  }, 240_000);
});

// Nothing but publishing, so that most kills fall between the first rename of a stage and its mark in state.json.
const publisher = `
import { writeFile } from "node:fs/promises";
import { parseConfig } from "./dist/train/config.js";
import { openRunFolder } from "./dist/train/run-folder.js";
console.log("begun");
const run = await openRunFolder(process.argv[2], parseConfig(${JSON.stringify(CONFIG)}));
for (let i = 0; ; i++) {
  await run.runStage("stage" + i, async (stage) => {
    for (let j = 0; j < 12; j++) await writeFile(await stage.output("out/" + i + "/deep/" + j), "whole");
    await stage.output("flat/x"); // makes the folder that all stages share
    for (let j = 0; j < 12; j++) await writeFile(await stage.output("flat/" + i + "-" + j), "whole");
  });
}
`;

describe("a stage that is marked as done", () => {
  it("has all its outputs in place", async () => {
    const file = await compiled.script("publisher.mjs", publisher);
    const folder = path.join(compiled.folder, "published");
    const random = new PythonRandom(5);
    let before = 0;
    for (let kill = 0; kill < 12 || before <= 20; kill++) {
      expect(kill, "too few stages for the kills to mean anything").toBeLessThan(100);
      const { signal, output } = await runScript(file, [folder], 60 + random.random() * 150);
      expect(signal, output).toBe("SIGKILL");
      if (before === 0 && !existsSync(path.join(folder, "state.json"))) continue; // killed in its first stage
      const text = await readFile(path.join(folder, "state.json"), "utf8");
      const { stages } = JSON.parse(text) as { stages: unknown[] };
      expect(stages.length).toBeGreaterThanOrEqual(before);
      before = stages.length;
      for (let i = 0; i < stages.length; i++) {
        for (let j = 0; j < 12; j++) {
          expect(await readFile(path.join(folder, `out/${i}/deep/${j}`), "utf8")).toBe("whole");
          expect(await readFile(path.join(folder, `flat/${i}-${j}`), "utf8")).toBe("whole");
        }
      }
    }
  }, 120_000);
});

const contender = `
import { acquireRunLock } from "./dist/train/run-lock.js";
import { open, readdir, rm, writeFile } from "node:fs/promises";
const [folder, startAt, refusals] = process.argv.slice(2);
while (Date.now() < Number(startAt)); // all at once
try {
  const lock = await acquireRunLock(folder + "/run.lock");
  const guard = await open(folder + "/inside", "wx"); // fails where two are inside
  await guard.close();
  if (refusals === "die") process.kill(process.pid, "SIGKILL");
  // Inside until every other one has been turned away, however slow the machine is.
  while ((await readdir(folder)).filter((name) => name.startsWith("refused")).length < Number(refusals)) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await rm(folder + "/inside");
  await lock.release();
  console.log("held");
} catch (thrown) {
  console.log(thrown.code === "run.locked" ? "refused" : thrown.stack);
  await writeFile(folder + "/refused-" + process.pid, "");
}
`;

describe("starters of one run folder", () => {
  it("let exactly one in, even over the lock of a killed process", async () => {
    const file = await compiled.script("contender.mjs", contender);
    for (let round = 0; round < 4; round++) {
      const folder = path.join(compiled.folder, `race-${round}`);
      await mkdir(folder);
      if (round % 2 === 1) {
        const dead = await runScript(file, [folder, "0", "die"]);
        expect(dead.signal, dead.output).toBe("SIGKILL");
        expect(await readdir(folder)).toEqual(["inside", "run.lock"]);
        await rm(path.join(folder, "inside"));
      }
      const startAt = String(Date.now() + 1_000); // all have started by then
      const ended = await Promise.all(
        Array.from({ length: 6 }, () => runScript(file, [folder, startAt, "5"])),
      );
      const outputs = ended.map(({ output }) => output.trim()).sort();
      expect(outputs).toEqual(["held", ...Array<string>(5).fill("refused")]);
      expect((await readdir(folder)).filter((name) => !name.startsWith("refused"))).toEqual([]);
    }
  }, 120_000);
});
