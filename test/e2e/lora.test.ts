// `nla train` with adapters: only they are trained, through all stages, the run ends with merged models, and a run that was stopped within a stage
// ends with the bytes of one that was not.
import { access, readdir } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openWeights } from "../../src/data/safetensors.js";
import { RUN_LAYOUT } from "../../src/train/run-layout.js";
import { buildCommand, REPOSITORY, writeTinyConfig } from "./built-command.js";
import type { BuiltCommand } from "./built-command.js";
import { contents } from "./folder-contents.js";

const SET = ["lora.rank=4", "lora.rslora=true", "lora.target_modules=[q_proj, down_proj]"].flatMap((each) => [
  "--set",
  each,
]);

const WARM = { verbalizer: RUN_LAYOUT.warmVerbalizer, reconstructor: RUN_LAYOUT.warmReconstructor };

let nla: BuiltCommand;
let config: string;
beforeAll(async () => {
  nla = await buildCommand();
  config = await writeTinyConfig(nla.folder);
  expect(await nla.run(["train", config, "--run", "whole", ...SET])).toMatchObject({ code: 0 });
}, 240_000);
afterAll(() => nla?.[Symbol.asyncDispose]());

async function valuesOf(folder: string) {
  const weights = await openWeights(folder);
  const values = new Map<string, Float32Array>();
  for (const name of weights.entries.keys()) values.set(name, await weights.readF32(name));
  await weights.close();
  return values;
}

it("changes the adapted matrices alone, and leaves models that need no adapter", async () => {
  const target = await valuesOf(path.join(REPOSITORY, "assets/aidreams260K"));
  for (const [role, layers] of [
    ["verbalizer", 4],
    ["reconstructor", 3],
  ] as const) {
    const folder = path.join(nla.folder, "whole", role);
    await expect(access(path.join(folder, "adapter_config.json"))).rejects.toThrow("ENOENT");
    await access(path.join(nla.folder, "whole", WARM[role], "adapter_config.json"));
    const changed = [];
    for (const [name, values] of await valuesOf(folder)) {
      const before = target.get(name)!;
      if (values.subarray(0, before.length).some((x, i) => x !== before[i])) changed.push(name);
    }
    const wanted = Array.from({ length: layers }, (_, k) => [
      `model.layers.${k}.mlp.down_proj.weight`,
      `model.layers.${k}.self_attn.q_proj.weight`,
    ]).flat();
    expect(changed.sort()).toEqual(wanted);
  }
});

it("goes on from a checkpoint with its adapter to the same bytes", async () => {
  for (const [stage, step] of [
    ["ar_sft", 3],
    ["av_sft", 4],
    ["rl", 3],
  ] as const) {
    const run = path.join(nla.folder, "stopped");
    let pressed = false;
    const { code } = await nla.run(["train", config, "--run", run, ...SET, "--json"], {
      onProgress(event, child) {
        if (pressed || event["stage"] !== stage || (event["step"] as number) < step) return;
        pressed = true;
        child.kill("SIGINT");
      },
    });
    expect(code).toBe(130);
    const files = await readdir(path.join(run, "checkpoints"), { recursive: true });
    expect(files.filter((file) => file.endsWith("adapter_model.safetensors")).length).toBeGreaterThan(0);
  }
  expect(await nla.run(["train", config, "--run", "stopped", ...SET])).toMatchObject({ code: 0 });
  expect(await contents(path.join(nla.folder, "stopped"))).toEqual(
    await contents(path.join(nla.folder, "whole")),
  );
}, 240_000);
