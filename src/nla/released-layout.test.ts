// Variants of the released layout, as folders and as GGUF files: sharded verbalizers, the dummy tensors of the megatron-compatible
// export, heads in the wrong half, a tokenizer that pads left, injection after a block. What is sound gives the same numbers, what is not
// is named.
import { cp, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { openWeights, saveWeights } from "../data/safetensors.js";
import type { TensorToWrite } from "../data/safetensors.js";
import { Device } from "../tensor/index.js";
import { convertCheckpoint } from "./gguf-checkpoint.js";
import { loadReconstructor, loadVerbalizer } from "./pair-files.js";

const golden = sharedPath("golden/nla/critic/qwen2/init-megatron") === null ? null : sharedPath("golden/nla");
const at = (name: string) => path.join(golden as string, name);
const TEXTS = ["a lighthouse keeper and the weather", "one"];

let device: Device;
let scratch: string;
beforeAll(async () => {
  device = Device.open({ threads: 1 });
  scratch = await mkdtemp(path.join(os.tmpdir(), "nla-layout-"));
});
afterAll(async () => {
  device[Symbol.dispose]();
  await rm(scratch, { recursive: true });
});

async function copyOf(from: string, name: string): Promise<string> {
  const to = path.join(scratch, name);
  await cp(at(from), to, { recursive: true });
  return to;
}

async function edit(file: string, change: (text: string) => string): Promise<void> {
  const text = await readFile(file, "utf8");
  const changed = change(text);
  expect(changed, `the edit of ${file} changes something`).not.toBe(text);
  await rm(file);
  await writeFile(file, changed);
}

async function predictions(place: string): Promise<Float32Array[]> {
  using model = (await loadReconstructor(place, device)).model;
  return await model.reconstruct(TEXTS);
}

async function greedy(place: string): Promise<readonly number[]> {
  using verbalizer = (await loadVerbalizer(place, device, { layer: 1 })).model;
  const vector = Float32Array.from({ length: verbalizer.contract.dim }, (_, i) => Math.sin(i));
  return (await verbalizer.explain([vector], { maxNewTokens: 12 }))[0]!.tokens;
}

/** A folder's tensors in the given files, with an index. */
async function shard(folder: string, files: number, extra: readonly TensorToWrite[] = []): Promise<void> {
  const weights = await openWeights(folder);
  const tensors: TensorToWrite[] = [...extra];
  for (const [name, { dtype, shape }] of weights.entries)
    tensors.push({ name, dtype, shape, data: await weights.read(name) });
  await weights.close();
  await rm(path.join(folder, "model.safetensors"));
  const names = tensors.map(({ name }) => name);
  const size = Math.ceil(names.length / files);
  const layout = Array.from({ length: files }, (_, i) => ({
    name: `model-0000${i + 1}-of-0000${files}.safetensors`,
    metadata: { format: "pt" },
    tensors: names.slice(i * size, (i + 1) * size),
  }));
  const index = { metadata: {}, order: names };
  if (files === 1) await saveWeights(folder, tensors);
  else await saveWeights(folder, tensors, { shards: { files: layout, index } });
}

describeWith(golden, "the released layout", () => {
  it("the dummy norm and head of the megatron-compatible export, in a file of their own, are not read", async () => {
    const compatible = await predictions(at("critic/qwen2/init-megatron"));
    expect(compatible).toEqual(await predictions(at("critic/qwen2/init")));
  });

  it("nor where the index has them among the shards; other values there are named", async () => {
    const folder = await copyOf("critic/qwen2/init-megatron", "dummies");
    await rename(path.join(folder, "model.safetensors"), path.join(folder, "model-00001.safetensors"));
    await edit(path.join(folder, "model.safetensors.index.json"), (text) =>
      text.replaceAll('"model.safetensors"', '"model-00001.safetensors"'),
    );
    const weights = await openWeights(folder);
    expect([...weights.entries.keys()]).toEqual(
      expect.arrayContaining(["model.norm.weight", "lm_head.weight"]),
    );
    const { begin, file } = weights.entries.get("model.norm.weight")!;
    await weights.close();
    expect(await predictions(folder)).toEqual(await predictions(at("critic/qwen2/init")));
    const bytes = await readFile(file);
    bytes[begin] = 0x40;
    await rm(file);
    await writeFile(file, bytes);
    await expect(loadReconstructor(folder, device)).rejects.toMatchObject({
      code: "model.weights",
      subject: expect.stringContaining("tensor model.norm.weight") as string,
      found: "trained values",
    });
  });

  it("a sharded verbalizer is the same, also as GGUF; without one of its shards it is named", async () => {
    const folder = await copyOf("actor/qwen2/av", "sharded");
    const whole = await greedy(folder);
    await shard(folder, 3);
    expect(await greedy(folder)).toEqual(whole);
    const file = path.join(scratch, "sharded.gguf");
    await convertCheckpoint(folder, file);
    using unpacked = (await loadVerbalizer(file, device, { layer: 1, holding: "f32" })).model;
    const vector = Float32Array.from({ length: unpacked.contract.dim }, (_, i) => Math.sin(i));
    expect((await unpacked.explain([vector], { maxNewTokens: 12 }))[0]!.tokens).toEqual(whole);
    await rm(path.join(folder, "model-00002-of-00003.safetensors"));
    const missing = { code: "safetensors.shard-missing" };
    const named = expect.stringContaining("model-00002-of-00003.safetensors") as string;
    await expect(loadVerbalizer(folder, device, { layer: 1 })).rejects.toMatchObject({
      ...missing,
      found: named,
    });
    await expect(convertCheckpoint(folder, file)).rejects.toMatchObject(missing);
  });

  it("a verbalizer whose weights hold a value head is refused by that tensor's name", async () => {
    const folder = await copyOf("actor/qwen2/av", "headed");
    const head = {
      name: "value_head.weight",
      dtype: "F32",
      shape: [24, 24],
      data: new Uint8Array(24 * 24 * 4),
    };
    await shard(folder, 1, [head as TensorToWrite]);
    await expect(loadVerbalizer(folder, device, { layer: 1 })).rejects.toMatchObject({
      code: "model.weights",
      found: expect.stringContaining("value_head.weight first") as string,
    });
  });

  it("a value head beside a verbalizer is not read", async () => {
    const folder = await copyOf("actor/qwen2/av", "beside");
    const whole = await greedy(folder);
    await cp(at("critic/qwen2/trained/value_head.safetensors"), path.join(folder, "value_head.safetensors"));
    expect(await greedy(folder)).toEqual(whole);
  });

  it("a tokenizer that pads left changes nothing: prompts are padded here, on the right", async () => {
    const folder = await copyOf("critic/qwen2/trained", "left");
    await edit(path.join(folder, "tokenizer_config.json"), (text) =>
      text.replace('"padding_side": "right"', '"padding_side": "left"'),
    );
    expect(await predictions(folder)).toEqual(await predictions(at("critic/qwen2/trained")));
  });

  it("injection after a block is read from the sidecar beside a GGUF file", async () => {
    const folder = await copyOf("actor/qwen2/av", "after");
    const file = path.join(scratch, "after.gguf");
    await convertCheckpoint(folder, file);
    const replaced = await greedy(file);
    await edit(`${file}.nla_meta.yaml`, (text) => `${text}injection:\n  kind: add-normed\n`);
    using verbalizer = (await loadVerbalizer(file, device, { layer: 1 })).model;
    expect(verbalizer.injectedAfter).toBe(1);
    expect(await greedy(file)).not.toEqual(replaced);
    // A verbalizer of another kind of injection than is known is none.
    await edit(`${file}.nla_meta.yaml`, (text) => text.replace("add-normed", "concatenate"));
    await expect(loadVerbalizer(file, device, { layer: 1 })).rejects.toMatchObject({
      code: expect.stringMatching(/^sidecar\./) as string,
    });
  });
});
