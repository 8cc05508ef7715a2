// `nla check` of what is sound: every model, checkpoint, data file and folder of the golden set, and a run of each kind that nlakit makes
// itself. No finding; what is legal and worth saying is a note. Damage is check.test.ts.
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { runNla } from "./testing/run-nla.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-intact-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

interface Report {
  readonly checked: readonly string[];
  readonly findings: readonly object[];
  readonly notes: readonly { readonly code: string }[];
}

/** The codes of the notes, each once; whatever is found fails. */
async function notesOf(target: string): Promise<string[]> {
  const { code, out } = await runNla(["check", target, "--json"]);
  const { findings, notes } = JSON.parse(out) as Report;
  expect(findings, target).toEqual([]);
  expect(code).toBe(0);
  return [...new Set(notes.map((note) => note.code))].sort();
}

/** Everything in a folder that can be checked, relative to it. `transformers5` holds a checkpoint's small files only. */
function targetsIn(root: string): string[] {
  const entries = readdirSync(root, { recursive: true, withFileTypes: true });
  const places = entries.map((entry) => ({ entry, place: path.join(entry.parentPath, entry.name) }));
  const isTarget = ({ entry, place }: (typeof places)[number]) => {
    if (/sidecars|transformers5/.test(place)) return false;
    if (!entry.isDirectory()) return /\.(parquet|gguf)$|nla_meta\.yaml$/.test(entry.name);
    const inside = readdirSync(place);
    return inside.some((name) => /^(adapter_)?config\.json$|\.parquet$/.test(name));
  };
  return places
    .filter(isTarget)
    .map(({ place }) => path.relative(root, place))
    .sort();
}

/** What is noted where; everything else has no note. */
const NOTED: readonly (readonly [RegExp, readonly string[]])[] = [
  [/^models\/(?!aidreams260K|gguf|qwen2-lora)[^/]+$/, ["check.no-tokenizer"]],
  [/^nla\/critic\/[^/]+(\/vectors\.parquet)?$/, ["check.no-sidecar"]],
  [/\.parquet\.chunks/, ["check.no-sidecar"]],
  [/\/side\/recovered/, ["check.no-sidecar"]],
  [/\/legacy_list\.parquet$/, ["check.variable-list"]],
  [/\/pipeline\/side$/, ["check.no-sidecar", "check.variable-list"]],
  // One document of that corpus stands in it twice, and the split put the two into the warm-start sets.
  [/\/pipeline(-llama)?\/out(\/splits)?$/, ["check.equal-text"]],
];

const golden = sharedPath("golden");
const targets = golden === null ? [] : targetsIn(golden);

describeWith(golden, "golden files", () => {
  it.each(targets)("%s", async (name) => {
    const noted = NOTED.find(([pattern]) => pattern.test(name))?.[1] ?? [];
    expect(await notesOf(path.join(golden as string, name))).toEqual(noted);
  });

  it("are all there, in the copy as in the whole set", () => {
    const whole = existsSync(path.join(golden as string, "nla/pipeline"));
    expect(targets.length).toBeGreaterThan(whole ? 190 : 49);
  });
});

const critic = sharedPath("golden/nla/critic");
describeWith(critic, "as transformers 5 writes its small files", () => {
  it.each(["qwen2", "gemma3", "llama"])("%s", async (family) => {
    const folder = path.join(scratch, family);
    cpSync(path.join(critic as string, family, "trained"), folder, { recursive: true });
    cpSync(path.join(critic as string, family, "transformers5"), folder, { recursive: true });
    expect(await notesOf(folder)).toEqual([]);
  });
});

const pipeline = sharedPath("golden/nla/pipeline");
const at = (name: string) => path.join(pipeline as string, name);

/** Trains a config with few steps. */
async function train(config: string, run: string, ...set: string[]): Promise<void> {
  const sets = ["threads=1", "reconstructor.steps=4", "verbalizer.steps=4", "rl.steps=2", "rl.prompts=4"];
  const options = [...sets, "log.checkpoint_every=2", ...set].flatMap((each) => ["--set", each]);
  const { code, err } = await runNla(["train", path.resolve("configs", config), "--run", run, ...options]);
  expect(code, err).toBe(0);
}

describe("runs of our own", () => {
  const kinds: readonly (readonly [string, string, readonly string[]])[] = [
    ["quickstart", "quickstart.yaml", ["corpus.length=120"]],
    ["lora", "quickstart.yaml", ["corpus.length=120", "lora.rank=4"]],
    ["smallworld", "smallworld-short.yaml", ["corpus.length=80", "rl.max_new_tokens=8"]],
    ["smallworld-rl", "smallworld-rl.yaml", ["corpus.length=80", "rl.max_new_tokens=8"]],
  ];

  it.each(kinds)("%s: pair, data and every checkpoint", async (name, config, set) => {
    const run = path.join(scratch, name);
    await train(config, run, ...set);
    const { checked, findings, notes } = JSON.parse((await runNla(["check", run, "--json"])).out) as Report;
    expect([findings, notes]).toEqual([[], []]);
    const checkpoints = checked.filter((each) => each.includes("checkpoints"));
    expect(checkpoints.length).toBeGreaterThan(3);
    for (const each of [checkpoints[0] as string, `${run}/verbalizer`, `${run}/data`])
      expect(await notesOf(each)).toEqual([]);
  });

  it.each(["target", "verbalizer", "reconstructor", ""])("the bundled pair, %s", async (part) => {
    expect(await notesOf(path.resolve("assets/smallworld", part))).toEqual([]);
  });

  it("the bundled target", async () =>
    expect(await notesOf(path.resolve("assets/aidreams260K"))).toEqual([]));

  describe("nla data run", () => {
    const out = path.join(scratch, "pipeline");
    beforeAll(async () => {
      // One document a line, so that its id is the same everywhere.
      const words = readFileSync("assets/text/shakespeare.txt", "utf8");
      const lines = Array.from({ length: 40 }, (_, i) => words.slice(i * 400, (i + 1) * 400));
      writeFileSync(path.join(scratch, "c.jsonl"), lines.map((text) => JSON.stringify({ text })).join("\n"));
      const config = path.join(scratch, "pipeline.yaml");
      writeFileSync(
        config,
        `base_model: ${path.resolve("assets/aidreams260K")}
layer_index: 2
output_dir: ${out}
corpus: { name: c, split: train, text_column: text, start: 0, length: 40 }
stage0: { positions_per_doc: 3, seed: 42 }
`,
      );
      const args = ["--corpus", path.join(scratch, "c.jsonl"), "--stages", "0,1", "--threads", "1"];
      const { code, err } = await runNla(["data", "run", config, ...args]);
      expect(code, err).toBe(0);
    });
    it("stages 0 and 1, without labels", async () => expect(await notesOf(out)).toEqual([]));
  });

  it.skipIf(pipeline === null)("nla data run, all stages on the golden config", async () => {
    const out = path.join(scratch, "whole");
    const args = [
      "--override",
      `output_dir=${out}`,
      "--labels",
      at("provider_calls.jsonl"),
      "--threads",
      "1",
    ];
    const { code, err } = await runNla([
      "data",
      "run",
      at("config.yaml"),
      "--templates",
      at("out/ar_sft.parquet"),
      ...args,
    ]);
    expect(code, err).toBe(0);
    expect(await notesOf(out)).toEqual(["check.equal-text"]);
  });
});
