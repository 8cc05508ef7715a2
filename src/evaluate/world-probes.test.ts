// Probes over the world on a target with random weights: what it must know (the word that it is at) is found, what it cannot know
// (test or real, long after the cue) is not, and the same call gives the same figures.
import { afterAll, describe, expect, it } from "vitest";
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { Decoder, parseConfig, randomParameters, saveDecoder } from "../model/index.js";
import { loadTarget } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import { Device } from "../tensor/index.js";
import { writeWorldTokenizer } from "../world/tokenizer-folder.js";
import { worldVocabulary } from "../world/vocabulary.js";
import { bestLayer, probeWorld } from "./world-probes.js";

const device = Device.open({ threads: 1 });
afterAll(() => device[Symbol.dispose]());

async function untrained(): Promise<Target & AsyncDisposable> {
  const folder = await mkdtemp(path.join(os.tmpdir(), "nla-probe-"));
  const json = {
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: 64,
    intermediate_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    num_key_value_heads: 2,
    vocab_size: worldVocabulary().length,
    max_position_embeddings: 128,
    rope_theta: 10000,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
    bos_token_id: 1,
    eos_token_id: 2,
    torch_dtype: "float32",
  };
  using model = new Decoder(device, parseConfig(json, "test"), randomParameters(1, 0.3));
  await saveDecoder(folder, model);
  await writeWorldTokenizer(folder);
  const target = await loadTarget(folder, device);
  return {
    ...target,
    [Symbol.asyncDispose]: async () => {
      target[Symbol.dispose]();
      await rm(folder, { recursive: true });
    },
  };
}

describe("probeWorld", () => {
  const options = { layers: [0, 1], documents: 150, positions: 6, resamples: 100 };

  it("finds the word, not the cue, and is the same each time", async () => {
    await using target = await untrained();
    const steps: number[] = [];
    const results = await probeWorld(target, { ...options, onProgress: (done) => steps.push(done) });
    const of = (layer: number, category: string) =>
      results.find((each) => each.layer === layer && each.category === category)!;
    for (const layer of [0, 1]) {
      const word = of(layer, "word");
      // Most of its values are met once or never in 720 rows, so the interval is what can be asked for.
      expect(word.accuracy.low).toBeGreaterThan(word.majority + 0.1);
      expect(word.accuracy.low).toBeGreaterThan(word.control + 0.1);
      const test = of(layer, "test");
      expect(test.classes).toBe(2);
      expect(test.trainRows).toBeGreaterThan(2 * test.testRows);
      // Chance is a half, give or take three standard errors of the 20 held-out documents that have a cue.
      expect(Math.abs(test.control - 0.5)).toBeLessThan(0.33);
      expect(Math.abs(test.accuracy.value - 0.5)).toBeLessThan(0.33);
      expect(test.accuracy.low).toBeLessThanOrEqual(test.accuracy.value);
      expect(test.accuracy.high).toBeGreaterThanOrEqual(test.accuracy.value);
      const rows = test.byDistance.reduce((sum, each) => sum + each.rows, 0);
      expect(rows).toBeGreaterThan(0);
      expect(rows).toBeLessThanOrEqual(test.testRows);
    }
    // Of a model that has learnt nothing only what stands beside the token can pass.
    const gates = results.flatMap(({ layer, gate }) => (layer === 1 && gate ? [gate] : []));
    expect(gates.map(({ category }) => category)).toContain("job");
    for (const { category, accuracy, least, passed } of gates) {
      expect(passed).toBe(accuracy.value >= least);
      if (category === "test") expect(passed).toBe(false);
    }
    expect(of(1, "word").gate).toBeNull();
    expect([0, 1]).toContain(bestLayer(results));
    expect(bestLayer(results.filter(({ category }) => category === "word"))).toBeNull();
    expect(steps.at(-1)).toBe(150 + 2 * 18);
    expect(steps).toEqual([...steps].sort((a, b) => a - b));
    const again = await probeWorld(target, { ...options, layers: [1] });
    expect(again).toEqual(results.filter(({ layer }) => layer === 1));
  }, 180_000);

  it("refuses a target of another vocabulary, a layer that is not there, too few documents", async () => {
    using other = await loadTarget("aidreams260K", device);
    await expect(probeWorld(other, options)).rejects.toMatchObject({ code: "probe.target" });
    await expect(probeWorld(other, { ...options, layers: [4] })).rejects.toMatchObject({
      code: "model.layer",
    });
    await expect(probeWorld(other, { ...options, documents: 9 })).rejects.toMatchObject({
      code: "probe.documents",
    });
  });
});
