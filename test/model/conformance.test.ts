// Equality with Hugging Face transformers and peft on every golden folder, by the checks that `nla conformance` makes. The small
// copies in test/fixtures are run everywhere, the whole set where ../shared is.
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { openSafetensors, writeSafetensors } from "../../src/data/safetensors.js";
import { conformance, storedTensor } from "../../src/model/index.js";
import { Device } from "../../src/tensor/index.js";
import { sharedPath } from "../shared.js";

const BUNDLED = path.resolve(import.meta.dirname, "../../assets/aidreams260K");
const FIXTURES = path.resolve(import.meta.dirname, "../fixtures/golden/models");

const FOLDERS = [
  "llama-mha-tied",
  "llama3-gqa",
  "aidreams260K",
  "qwen2",
  "qwen2-yarn",
  "qwen2-lora",
  "qwen3",
  "gemma2",
  "gemma3",
  "gemma3-mm",
  "mistral",
];
const EVERYWHERE = [
  "hidden states, padded right",
  "logits of last tokens, padded left",
  "-log p of each target",
  "loss",
  "gradients",
  "gradient norm",
  "greedy tokens",
  "alone as in the batch",
];
// What the adapter's folder has no values for, and the bundled model's.
const ABSENT: Readonly<Record<string, readonly string[]>> = {
  "qwen2-lora": [
    "hidden states, padded right",
    "hidden states, padded left",
    "logits of last tokens, padded left",
    "an injected vector",
    "a pass that stops early",
    "greedy tokens",
    "parameters after AdamW steps",
    "config of transformers 5",
  ],
  aidreams260K: ["config of transformers 5"],
};

function report(directory: string, kernels = true, name = path.basename(directory)) {
  const device = Device.open({ threads: 1, kernels });
  const model = name === "aidreams260K" ? BUNDLED : null;
  return conformance(directory, device, { model }).finally(() => device[Symbol.dispose]());
}

describe.each(FOLDERS)("golden %s", (name) => {
  const directory = sharedPath(`golden/models/${name}`);
  const whole = directory !== null && !directory.startsWith(FIXTURES);
  test.skipIf(!whole).each([true, false])("every check, native kernels %s", async (kernels) => {
    const { checks, absent, passed } = await report(directory as string, kernels);
    expect(checks.filter((check) => !check.passed)).toEqual([]);
    expect(passed).toBe(true);
    expect(absent).toEqual(ABSENT[name] ?? []);
    expect(checks.length + absent.length).toBe(name === "qwen2-lora" ? 16 : 15);
  });
});

describe.each(FOLDERS)("small copy %s", (name) => {
  test("every check that it has values for", async () => {
    const { checks, passed } = await report(path.join(FIXTURES, name));
    expect(checks.filter((check) => !check.passed)).toEqual([]);
    expect(passed).toBe(true);
    const made = new Set(checks.map(({ check }) => check));
    const wanted = EVERYWHERE.filter((each) => !ABSENT[name]?.includes(each));
    expect(wanted.filter((each) => !made.has(each))).toEqual([]);
  });
});

/** The bundled model's folder with other tensors. */
async function changed(change: (name: string, values: Float32Array) => Float32Array): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), "nlakit-golden-"));
  const from = path.join(FIXTURES, "aidreams260K");
  await cp(from, directory, { recursive: true });
  const file = await openSafetensors(path.join(from, "golden.safetensors"));
  const tensors = [];
  for (const [name, { shape }] of file.entries)
    tensors.push(storedTensor(name, shape, "F32", change(name, await file.readF32(name))));
  await file.close();
  await writeSafetensors(path.join(directory, "golden.safetensors"), tensors);
  return directory;
}

describe("what is wrong fails by name", () => {
  test.each([
    ["hidden.block1", "hidden states, padded right", 1.0001],
    ["grad.model.norm.weight", "gradients", 1.001],
    ["logits", "logits, padded left", NaN],
  ])("%s: %s", async (tensor, check, factor) => {
    const directory = await changed((name, values) =>
      name === tensor ? values.map((x) => x * factor) : values,
    );
    const { checks, passed } = await report(directory, true, "aidreams260K");
    expect(passed).toBe(false);
    const failed = checks.filter((each) => !each.passed);
    expect(failed.map((each) => each.check)).toContain(check);
    expect(failed.every(({ worst }) => worst === tensor.replace("grad.", ""))).toBe(true);
    await rm(directory, { recursive: true });
  });

  test("another greedy token, another loss", async () => {
    const directory = await changed((_, values) => values);
    const file = path.join(directory, "golden.json");
    const json = JSON.parse(await readFile(file, "utf8")) as {
      loss: number;
      generation: { tokens: number[] }[];
    };
    json.loss += 1e-3;
    json.generation[1]!.tokens[3]! += 1;
    await writeFile(file, JSON.stringify(json));
    const { checks } = await report(directory, true, "aidreams260K");
    expect(checks.filter(({ passed }) => !passed)).toMatchObject([
      { check: "greedy tokens", error: 1, worst: "prompt 1" },
      { check: "loss", worst: "loss" },
    ]);
    await writeFile(file, JSON.stringify({ ...json, targets: "none" }));
    await expect(report(directory, true, "aidreams260K")).rejects.toMatchObject({
      code: "model.golden",
      found: expect.stringContaining("targets") as string,
    });
    await rm(directory, { recursive: true });
  });
});
