// Opening run folders: new, the same, another config's, somebody else's; stages that run once and publish whole outputs.
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { NlaError } from "../error.js";
import { parseConfig } from "./config.js";
import { openRunFolder } from "./run-folder.js";
import { RUN_LAYOUT, rawFile, sidecarOf } from "./run-layout.js";

const config = parseConfig("{target: aidreams260K, layer: 2, corpus: {path: /a.txt}}");
let folder: string;
beforeEach(async () => void (folder = await mkdtemp(path.join(os.tmpdir(), "nla-run-"))));
afterEach(() => rm(folder, { recursive: true, force: true }));

async function rejection(promise: Promise<unknown>): Promise<NlaError> {
  return promise.then(
    () => Promise.reject(new Error("nothing was thrown")),
    (thrown: unknown) => (thrown instanceof NlaError ? thrown : Promise.reject(thrown)),
  );
}

describe("openRunFolder", () => {
  it("creates a folder that holds the whole config, and opens it again", async () => {
    const root = path.join(folder, "deep", "run");
    const run = await openRunFolder(root, config);
    expect(run.root).toBe(root);
    expect(parseConfig(await readFile(run.path(RUN_LAYOUT.config), "utf8"))).toEqual(config);
    expect((await readdir(root)).sort()).toEqual(["config.yaml", "run.lock"]);
    await run.close();
    await (await openRunFolder(root, structuredClone(config))).close();
    expect(await readdir(root)).toEqual(["config.yaml"]);
  });

  it("refuses a run of another config and names the keys with both values", async () => {
    const before = await writeRun(folder);
    const other = { ...config, layer: 3, rl: { ...config.rl, group: 4 } };
    const error = await rejection(openRunFolder(folder, other));
    expect(error).toMatchObject({
      code: "run.other-config",
      subject: folder,
      found: "a run with layer 2, rl.group 8",
      wanted: "a run with layer 3, rl.group 4",
    });
    expect(error.next).toContain("--run");
    expect((await readdir(folder)).sort()).toEqual(["config.yaml", "state.json"]);
    expect(
      await Promise.all(
        ["state.json", "config.yaml"].map((name) => readFile(path.join(folder, name), "utf8")),
      ),
    ).toEqual(before);
  });

  it("takes another config where the first one came to nothing", async () => {
    const first = await openRunFolder(folder, { ...config, layer: 99 });
    await expect(first.runStage("extract", () => Promise.reject(new Error("no layer 99")))).rejects.toThrow();
    await first.close();
    await (await openRunFolder(folder, config)).close();
    expect(parseConfig(await readFile(path.join(folder, "config.yaml"), "utf8"))).toEqual(config);
  });

  it("lists only the first keys of many", async () => {
    await writeRun(folder);
    const rl = {
      ...config.rl,
      steps: 1,
      prompts: 1,
      group: 2,
      kl_coef: 1,
      clip_range: 1,
      temperature: 2,
      top_p: 0.5,
    };
    expect((await rejection(openRunFolder(folder, { ...config, rl }))).found).toMatch(
      /rl\.steps 200, .* and 2 more$/,
    );
  });

  it("refuses a folder of other things, and a path that is a file", async () => {
    await writeFile(path.join(folder, "thesis.tex"), "");
    expect(await rejection(openRunFolder(folder, config))).toMatchObject({
      code: "run.foreign-folder",
      found: "no config.yaml, but thesis.tex",
    });
    expect(await rejection(openRunFolder(path.join(folder, "thesis.tex"), config))).toMatchObject({
      subject: path.join(folder, "thesis.tex"),
    });
    expect(await readdir(folder)).toEqual(["thesis.tex"]);
  });

  it("refuses a folder that is open", async () => {
    await using run = await openRunFolder(folder, config);
    expect(await rejection(openRunFolder(run.root, config))).toMatchObject({
      code: "run.locked",
      subject: folder,
    });
  });

  it("tells of damaged files and gives the lock back", async () => {
    await (await openRunFolder(folder, config)).close();
    const state = path.join(folder, RUN_LAYOUT.state);
    await writeFile(state, '{"version": 1, "stages"');
    expect(await rejection(openRunFolder(folder, config))).toMatchObject({
      code: "run.state-damaged",
      subject: state,
    });
    await writeFile(state, JSON.stringify({ version: 1, config_hash: "0", stages: [] }));
    expect(await rejection(openRunFolder(folder, config))).toMatchObject({
      found: "the state of a run with another config",
    });
    await writeFile(path.join(folder, RUN_LAYOUT.config), "a: [");
    expect(await rejection(openRunFolder(folder, config))).toMatchObject({ code: "run.config-damaged" });
    expect((await readdir(folder)).sort()).toEqual(["config.yaml", "state.json"]);
  });
});

async function writeRun(root: string): Promise<string[]> {
  await using run = await openRunFolder(root, config);
  await run.runStage("extract", async () => ({ rows: 3 }));
  await run.runStage("split", async () => undefined);
  return [await readFile(run.path("state.json"), "utf8"), await readFile(run.path("config.yaml"), "utf8")];
}

describe("runStage", () => {
  it("runs once, and returns the same when it is skipped", async () => {
    let calls = 0;
    const stage = async () => ({ rows: ++calls, scale: 1.5 });
    const first = await openRunFolder(folder, config);
    expect(await first.runStage("extract", stage)).toEqual({ rows: 1, scale: 1.5 });
    expect(await first.runStage("extract", stage)).toEqual({ rows: 1, scale: 1.5 });
    await first.close();
    const second = await openRunFolder(folder, config);
    expect(second.doneStages()).toEqual(["extract"]);
    expect(await second.runStage("extract", stage)).toEqual({ rows: 1, scale: 1.5 });
    await second.close();
    expect(calls).toBe(1);
  });

  it("publishes what was written only when the stage ends", async () => {
    await using run = await openRunFolder(folder, config);
    await mkdir(run.path("data/splits"), { recursive: true });
    await writeFile(run.path("data/splits/kept"), "");
    const file = rawFile("rl");
    await run.runStage("split", async (stage) => {
      const output = await stage.output(file);
      await writeFile(output, "rows");
      await writeFile(sidecarOf(output), "kind: nla_dataset");
      expect(await readdir(run.path("data/splits"))).toEqual(["kept"]);
    });
    expect((await readdir(run.path("data/splits"))).sort()).toEqual([
      "kept",
      "rl_raw.parquet",
      "rl_raw.parquet.nla_meta.yaml",
    ]);
    expect((await readdir(folder)).sort()).toEqual(["config.yaml", "data", "run.lock", "state.json"]);
  });

  it("replaces a named folder as a whole", async () => {
    await using run = await openRunFolder(folder, config);
    await mkdir(run.path(RUN_LAYOUT.verbalizer));
    await writeFile(run.path("verbalizer/stale.safetensors"), "");
    await run.runStage("rl", async (stage) => {
      const output = await stage.output(RUN_LAYOUT.verbalizer);
      await mkdir(output);
      await writeFile(path.join(output, "config.json"), "{}");
    });
    expect(await readdir(run.path(RUN_LAYOUT.verbalizer))).toEqual(["config.json"]);
  });

  it("changes nothing when the stage fails, and runs it again", async () => {
    await using run = await openRunFolder(folder, config);
    const failing = run.runStage("extract", async (stage) => {
      await writeFile(await stage.output("data/base.parquet"), "half");
      throw new Error("no more corpus");
    });
    await expect(failing).rejects.toThrow("no more corpus");
    expect((await readdir(folder)).sort()).toEqual(["config.yaml", "run.lock"]);
    expect(run.doneStages()).toEqual([]);
    expect(await run.runStage("extract", async () => "ok")).toBe("ok");
  });

  it("finds no leftovers of an earlier attempt", async () => {
    await mkdir(path.join(folder, ".staging/extract"), { recursive: true });
    await writeFile(path.join(folder, ".staging/extract/old"), "");
    await using run = await openRunFolder(folder, config);
    await run.runStage("extract", async (stage) => {
      expect(await readdir(stage.staging)).toEqual([]);
    });
  });

  it("refuses a stage inside a stage, and results that JSON would change", async () => {
    await using run = await openRunFolder(folder, config);
    const nested = run.runStage("build", () => run.runStage("shuffle", async () => 1));
    expect((await rejection(nested)).code).toBe("run.stage-running");
    const bad = run.runStage("build", async () => ({ fve: Number.NaN }));
    expect(await rejection(bad)).toMatchObject({ code: "run.result", found: "result.fve = NaN" });
    expect(run.doneStages()).toEqual([]);
  });

  it("writes no time and no process number", async () => {
    expect(await writeRun(path.join(folder, "a"))).toEqual(await writeRun(path.join(folder, "b")));
  });
});
