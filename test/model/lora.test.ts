// Adapters: what they compute, how they train, their files, and what is refused. Equality with peft is in conformance.test.ts.
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openSafetensors, writeSafetensors } from "../../src/data/safetensors.js";
import { loadDecoder, Lora, saveDecoder, storedTensor } from "../../src/model/index.js";
import {
  declareBatch,
  EMBEDDING,
  finalNorm,
  forward,
  generate,
  padBatch,
  run,
} from "../../src/model/index.js";
import type { Decoder } from "../../src/model/index.js";
import { loadLora, saveLora } from "../../src/model/lora-files.js";
import { adamw, Device, GradientSums, Graph, ops } from "../../src/tensor/index.js";
import type { Tensor } from "../../src/tensor/index.js";
import { relativeL2 } from "../../src/model/index.js";
import { someIds, tinyConfig, tinyModel } from "./tiny.js";

const SETTINGS = { rank: 3, alpha: 5, rsLora: true };
const sequences = [someIds(9, 61, 1), someIds(5, 61, 2)];

/** A and B of a size that shows in the output. */
function filled(
  device: Device,
  settings: { rank: number; alpha: number; targets?: readonly string[] } = SETTINGS,
) {
  let i = 0;
  const lora = new Lora(device, tinyConfig(), settings);
  for (const tensor of lora.parameters.tensors.values())
    tensor.write(Float32Array.from({ length: tensor.size }, () => 0.1 * Math.sin(i++ * 1.7)));
  return lora;
}

/** The loss of both sequences in a graph that trains what is trainable. */
function lossGraph(model: Decoder) {
  const batch = padBatch(sequences, { maxLength: 96 });
  const g = new Graph(model.device);
  const declared = declareBatch(g, batch);
  const hidden = finalNorm(g, model, forward(g, model, declared).blocks.at(-1) as Tensor);
  const n = batch.rows * batch.length;
  const targets = g.input("targets", [n], "i32");
  const loss = g.output(ops.crossEntropy(g, hidden, model.get(EMBEDDING), targets, g.input("weights", [n])));
  const sums = new GradientSums(model.trainable);
  sums.accumulate(g, g.backward(loss));
  g.compile();
  return {
    g,
    sums,
    async loss() {
      sums.clear();
      await g.run({
        ...declared.values(batch),
        targets: Int32Array.from({ length: n }, (_, i) => (i * 7) % 61),
        weights: new Float32Array(n).fill(1 / n),
      });
      return loss.readF32()[0] as number;
    },
    [Symbol.dispose]() {
      g[Symbol.dispose]();
      sums[Symbol.dispose]();
    },
  };
}

describe("an adapter", () => {
  let device: Device;
  let folder: string;
  beforeAll(async () => {
    device = Device.open({ threads: 1 });
    folder = await mkdtemp(path.join(tmpdir(), "nlakit-lora-"));
  });
  afterAll(async () => {
    device[Symbol.dispose]();
    await rm(folder, { recursive: true });
  });

  test("adds nothing before it is trained, and the same as its merged matrices after", async () => {
    using plain = tinyModel(device);
    using model = tinyModel(device);
    const logits = async (of: Decoder) => (await run(of, sequences, { logits: "all" })).logits!;
    const before = await logits(plain);
    model.attach(new Lora(device, model.config, SETTINGS));
    expect(await logits(model)).toEqual(before);
    model.detach();
    model.attach(filled(device));
    const adapted = await logits(model);
    expect(relativeL2(adapted, before)).toBeGreaterThan(0.05);
    const greedy = { maxNewTokens: 6, temperature: 0 };
    const tokens = await generate(model, sequences, greedy);
    await model.merge();
    expect(model.lora).toBeNull();
    expect(relativeL2(await logits(model), adapted)).toBeLessThan(3e-6);
    expect((await generate(model, sequences, greedy)).map((each) => each.tokens)).toEqual(
      tokens.map((each) => each.tokens),
    );
  });

  test("alone is trained: gradients as finite differences have them, the base as it was", async () => {
    using model = tinyModel(device);
    const base = model.get("model.layers.1.mlp.up_proj.weight").readF32();
    const lora = filled(device);
    model.attach(lora);
    expect([...model.trainable.keys()]).toHaveLength(2 * 7 * 3);
    using training = lossGraph(model);
    await training.loss();
    // All of them before anything is moved: every run replaces the sums.
    const gradients = new Map([...training.sums.sums.tensors].map(([name, sum]) => [name, sum.readF32()]));
    for (const [name, parameter] of model.trainable) {
      const gradient = gradients.get(name)!;
      const start = parameter.readF32();
      // Along the gradient itself, where a difference is largest against rounding.
      const norm = Math.hypot(...gradient);
      const step = 4e-3;
      const at = async (sign: number) => {
        parameter.write(start.map((x, i) => x + (sign * step * gradient[i]!) / norm));
        return training.loss();
      };
      const slope = ((await at(1)) - (await at(-1))) / (2 * step);
      parameter.write(start);
      expect(Math.abs(slope / norm - 1), name).toBeLessThan(3e-3);
    }
    await training.loss();
    const optimizer = adamw();
    using state = optimizer.init(training.sums);
    const first = await training.loss();
    for (let i = 0; i < 5; i++) {
      await optimizer.update(state, 1e-2);
      await training.loss();
    }
    expect(await training.loss()).toBeLessThan(first - 0.05);
    expect(model.get("model.layers.1.mlp.up_proj.weight").readF32()).toEqual(base);
  });

  test("trains on a base in bf16", async () => {
    using model = tinyModel(device);
    model.attach(filled(device));
    const gradients = async () => {
      using training = lossGraph(model);
      await training.loss();
      return new Map([...training.sums.sums.tensors].map(([name, sum]) => [name, sum.readF32()]));
    };
    const exact = await gradients();
    model.makeHalf();
    for (const [name, values] of await gradients())
      expect(relativeL2(values, exact.get(name)!), name).toBeLessThan(0.1);
  });

  test("has the scale alpha/rank or alpha/√rank", () => {
    using plain = new Lora(device, tinyConfig(), { rank: 4, alpha: 6 });
    using rs = new Lora(device, tinyConfig(), { rank: 4, alpha: 6, rsLora: true, targets: ["q_proj"] });
    expect([plain.scale, rs.scale]).toEqual([1.5, 3]);
    expect([...rs.modules.keys()]).toEqual([0, 1, 2].map((k) => `model.layers.${k}.self_attn.q_proj`));
  });

  test("comes back from its folder, alone with its base and beside it", async () => {
    using model = tinyModel(device);
    const saved = path.join(folder, "whole");
    model.attach(filled(device, { ...SETTINGS, targets: ["q_proj", "down_proj"] }));
    await saveDecoder(saved, model);
    using back = await loadDecoder(saved, device);
    expect(back.lora?.settings).toEqual({ ...SETTINGS, targets: ["down_proj", "q_proj"] });
    const { logits } = await run(model, sequences, { logits: "all" });
    expect((await run(back, sequences, { logits: "all" })).logits).toEqual(logits);
    const alone = path.join(folder, "alone");
    await saveLora(alone, model.lora!, model.config, "../whole");
    using both = await loadDecoder(alone, device);
    expect((await run(both, sequences, { logits: "all" })).logits).toEqual(logits);
    const file = await openSafetensors(path.join(alone, "adapter_model.safetensors"));
    expect([...file.entries.keys()][0]).toBe("base_model.model.model.layers.0.mlp.down_proj.lora_A.weight");
    await file.close();
  });

  test("made by peft is written back as it was: every tensor, and every option that is set", async () => {
    const made = path.resolve(import.meta.dirname, "../fixtures/golden/models/qwen2-lora");
    using model = await loadDecoder(made, device);
    const again = path.join(folder, "again");
    await saveLora(again, model.lora!, model.config, "../qwen2");
    const weights = await Promise.all(
      [again, made].map((of) => readFile(path.join(of, "adapter_model.safetensors"))),
    );
    expect(weights[0]!.equals(weights[1]!)).toBe(true);
    const [ours, theirs] = await Promise.all(
      [again, made].map(async (of) => {
        const text = await readFile(path.join(of, "adapter_config.json"), "utf8");
        return JSON.parse(text) as Record<string, unknown>;
      }),
    );
    for (const [key, value] of Object.entries(ours!)) expect(value, key).toEqual(theirs![key]);
  });

  describe("is refused", () => {
    let good: string;
    beforeAll(async () => {
      good = path.join(folder, "good");
      using lora = filled(device, { ...SETTINGS, targets: ["q_proj"] });
      await saveLora(good, lora, tinyConfig());
    });

    async function broken(change: Record<string, unknown>): Promise<string> {
      const directory = await mkdtemp(path.join(folder, "broken-"));
      await cp(good, directory, { recursive: true });
      const file = path.join(directory, "adapter_config.json");
      const json = JSON.parse(await readFile(file, "utf8")) as object;
      await writeFile(file, JSON.stringify({ ...json, ...change }));
      return directory;
    }

    test.each([
      ["peft_type", "IA3"],
      ["bias", "all"],
      ["use_dora", true],
      ["modules_to_save", ["lm_head"]],
      ["rank_pattern", { q_proj: 4 }],
      ["fan_in_fan_out", true],
      ["init_lora_weights", "pissa"],
      ["an_option_of_tomorrow", 3],
      ["target_modules", ["q_proj", "query_key_value"]],
      ["target_modules", "(q_proj"],
      ["r", "eight"],
    ])("option %s: %j", async (key, value) => {
      await expect(loadLora(await broken({ [key]: value }), device, tinyConfig())).rejects.toMatchObject({
        code: "model.lora",
        subject: expect.stringContaining(key) as string,
      });
    });

    test.each([
      [{ r: 4 }, /lora_A.weight: found \[3, 32\]; wanted \[4, 32\]/],
      [{ target_modules: ["q_proj", "v_proj"] }, /self_attn\.v_proj: found no matrices/],
      [{ target_modules: ["v_proj"] }, /v_proj: found no matrices/],
      [{ target_modules: ".*layers.[01].*q_proj" }, /layers\.2\.self_attn\.q_proj: found matrices/],
    ])("config %j", async (change, message) => {
      await expect(loadLora(await broken(change), device, tinyConfig())).rejects.toThrow(message);
    });

    test.each([
      ["base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight", [3, 32], 0],
      ["base_model.model.model.embed_tokens.lora_embedding_A", [3, 61], 0],
      ["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", [3, 31], 0],
      ["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", [3, 32], NaN],
    ])("tensor %s of shape %j with %s", async (name, shape, value) => {
      const directory = await broken({});
      const from = path.join(directory, "adapter_model.safetensors");
      const file = await openSafetensors(from);
      const tensors = await Promise.all(
        [...file.entries].map(async ([each, entry]) =>
          storedTensor(each, entry.shape, "F32", await file.readF32(each)),
        ),
      );
      await file.close();
      const size = shape.reduce((a, b) => a * b, 1);
      const other = storedTensor(name, shape, "F32", new Float32Array(size).fill(value));
      await writeSafetensors(from, [...tensors.filter((each) => each.name !== name), other]);
      await expect(loadLora(directory, device, tinyConfig())).rejects.toMatchObject({
        code: "model.lora",
        subject: expect.stringContaining(name) as string,
      });
    });
  });
});
