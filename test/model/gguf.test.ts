// GGUF files against the golden values, mapped and unpacked, with blocks in products and made f32; what cannot be is refused.
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { openGguf } from "../../src/data/gguf.js";
import { openSafetensors } from "../../src/data/safetensors-file.js";
import { NlaError } from "../../src/error.js";
import { loadDecoder, run } from "../../src/model/index.js";
import { Device } from "../../src/tensor/index.js";

const GOLDEN = path.resolve(import.meta.dirname, "../fixtures/golden/models/gguf-llama");

function relative(a: Float32Array, b: Float32Array): number {
  let [error, norm] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    error += ((a[i] as number) - (b[i] as number)) ** 2;
    norm += (b[i] as number) ** 2;
  }
  return a.length === b.length ? Math.sqrt(error / norm) : Infinity;
}

const folder = await mkdtemp(path.join(tmpdir(), "gguf-"));
afterAll(() => rm(folder, { recursive: true }));

describe("a Llama in GGUF", () => {
  const { sequences } = JSON.parse(readFileSync(path.join(GOLDEN, "golden.json"), "utf8")) as {
    sequences: number[][];
  };

  // In the stored type, ggml rounds activations too: golden.json states how far rounding moves the logits (q8_0 4.96e-2).
  test.each([
    ["f16", "f32", true, 1e-5],
    ["f16", "f32", false, 1e-5],
    ["q8_0", "f32", true, 1e-5],
    ["q8_0", "f32", false, 1e-5],
    ["f16", "stored", true, 2e-3],
    ["q8_0", "stored", false, 4.96e-2],
    ["q8_0", "stored", true, 4.96e-2],
  ] as const)("%s held as %s, native kernels %s", async (type, holding, kernels, bound) => {
    const file = path.join(GOLDEN, `model-${type}.gguf`);
    using device = Device.open({ threads: 1, kernels });
    using model = await loadDecoder(file, device, {}, holding);
    const result = await run(model, sequences, { logits: "all", capture: [0, 2] });
    const golden = await openSafetensors(path.join(GOLDEN, "golden.safetensors"));
    expect(relative(result.logits!, await golden.readF32(`${type}.logits`))).toBeLessThan(bound);
    for (const k of [0, 2]) {
      const block = await golden.readF32(`${type}.hidden.block${k}`);
      expect(relative(result.blocks.get(k)!, block)).toBeLessThan(bound);
    }
    if (holding === "stored") expect(model.get("model.layers.0.mlp.up_proj.weight").dtype).toBe(type);
    await golden.close();
  });

  test("weights are unpacked in Hugging Face's order", async () => {
    const golden = await openSafetensors(path.join(GOLDEN, "golden.safetensors"));
    using device = Device.open({ threads: 1 });
    let seen = 0;
    for (const type of ["f16", "q8_0"]) {
      using model = await loadDecoder(path.join(GOLDEN, `model-${type}.gguf`), device, {}, "f32");
      for (const name of golden.entries.keys()) {
        const [, parameter] = new RegExp(`^${type}\\.weight\\.(.+)$`).exec(name) ?? [];
        if (parameter === undefined) continue;
        const own = model.parameters.tensors.get(parameter);
        if (!own) throw new Error(`golden weight ${name}`);
        expect(own.readF32()).toEqual(await golden.readF32(name));
        seen++;
      }
    }
    await golden.close();
    expect(seen).toBeGreaterThan(0);
  });

  test("2,500 damaged files are refused by name, or differ only in what a reader cannot know", async () => {
    const whole = await readFile(path.join(GOLDEN, "model-q8_0.gguf"));
    const file = path.join(folder, "damaged.gguf");
    const intact = await openGguf(path.join(GOLDEN, "model-q8_0.gguf"));
    const first = Math.min(...[...intact.tensors.values()].map(({ begin }) => begin));
    await intact.close();
    let seed = 7;
    const draw = (below: number) => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) % below;
    const counts = { refused: 0, loaded: 0 };
    for (let i = 0; i < 2500; i++) {
      const copy = Buffer.from(whole);
      let length = copy.length;
      if (i % 5 === 0) length = draw(whole.length);
      else if (i % 5 === 1) copy.writeBigUInt64LE(2n ** BigInt(draw(64)), draw(first - 8));
      else for (let n = 1 + draw(4); n > 0; n--) copy[draw(i % 5 === 2 ? 64 : first)] = draw(256);
      await writeFile(file, copy.subarray(0, length));
      try {
        const opened = await openGguf(file);
        for (const { byteLength, begin } of opened.tensors.values()) {
          expect(begin + byteLength).toBeLessThanOrEqual(length);
        }
        await opened.close();
        counts.loaded++;
      } catch (thrown) {
        if (!(thrown instanceof NlaError)) throw thrown;
        expect(thrown.code).toMatch(/^gguf\./);
        counts.refused++;
      }
    }
    console.log(counts);
    expect(counts.refused).toBeGreaterThan(900);
  }, 120_000);
});
