// Matrices held in blocks: the blocks of ggml unpacked as ggml does, products and their gradient, and whole models.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { dequantize, GGUF_TYPES } from "../../src/data/gguf-types.js";
import type { GgufDtype } from "../../src/data/gguf-types.js";
import { openGguf } from "../../src/data/gguf.js";
import { loadDecoder, run, saveGguf } from "../../src/model/index.js";
import { requireMemory } from "../../src/model/storage.js";
import { targetDirectory, loadTarget } from "../../src/nla/target.js";
import { ggufTokenizerFiles } from "../../src/text/gguf-tokenizer.js";
import { loadTokenizer, Tokenizer } from "../../src/text/tokenizer.js";
import { Arena, BLOCKS, BYTES, Device, Graph, ops, quantizeRows } from "../../src/tensor/index.js";
import type { BlockDtype } from "../../src/tensor/index.js";

const folder = await mkdtemp(path.join(tmpdir(), "quantized-"));
afterAll(() => rm(folder, { recursive: true }));

/** Even between -1 and 1. Waves would nearly cancel in the sums, and leave nothing but rounding. */
function noise(length: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

function relative(a: Float32Array, b: Float32Array): number {
  let [error, norm] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    error += ((a[i] as number) - (b[i] as number)) ** 2;
    norm += (b[i] as number) ** 2;
  }
  return a.length === b.length ? Math.sqrt(error / norm) : Infinity;
}

const TYPES = Object.keys(BLOCKS) as BlockDtype[];

test.each(TYPES)(
  "%s: rows unpacked here are those of ggml, products and gradients use them",
  async (dtype) => {
    const [out, into] = [48, 512];
    const values = noise(out * into, 37);
    const blocks = quantizeRows(dtype, values, into);
    const unpacked = dequantize(dtype.toUpperCase() as GgufDtype, blocks);
    expect(GGUF_TYPES[dtype.toUpperCase() as GgufDtype].bytes).toBe(BLOCKS[dtype].bytes);
    expect(blocks.byteLength).toBe(out * into * BYTES[dtype]);
    expect(relative(unpacked, values)).toBeLessThan(dtype.startsWith("q4") ? 0.12 : 0.06);
    for (const kernels of [true, false]) {
      using device = Device.open({ threads: 1, kernels });
      using arena = new Arena(device, "w", { w: { shape: [out, into], dtype } });
      arena.get("w").write(blocks);
      using rows = new Graph(device, { recording: false });
      const gathered = rows.output(ops.gatherRows(rows, arena.get("w"), rows.input("ids", [out], "i32")));
      rows.compile();
      await rows.run({ ids: Int32Array.from({ length: out }, (_, i) => i) });
      expect(relative(gathered.readF32(), unpacked)).toBeLessThan(1e-6);
      for (const n of [1, 9, 200]) {
        using x = new Arena(device, "x", { x: { shape: [n, into], parameter: true } });
        const given = noise(n * into, 11);
        x.get("x").write(given);
        using g = new Graph(device, {});
        const y = g.output(ops.linear(g, x.get("x"), arena.get("w")));
        const dx = g.backward(ops.sum(g, y)).get(x.get("x"));
        if (!dx) throw new Error("no gradient");
        g.output(dx);
        g.compile();
        await g.run({});
        const wanted = new Float32Array(n * out);
        const columns = new Float32Array(n * into);
        for (let i = 0; i < n; i++) {
          for (let j = 0; j < out; j++) {
            let sum = 0;
            for (let k = 0; k < into; k++)
              sum += (given[i * into + k] as number) * (unpacked[j * into + k] as number);
            wanted[i * out + j] = sum;
          }
          for (let k = 0; k < into; k++) {
            for (let j = 0; j < out; j++) columns[i * into + k]! += unpacked[j * into + k] as number;
          }
        }
        expect(relative(y.readF32(), wanted)).toBeLessThan(2e-2); // ggml rounds the rows of x to blocks too
        expect(relative(dx.readF32(), columns)).toBeLessThan(1e-5);
      }
    }
  },
);

test("blocks that do not divide a row are refused before ggml sees them", () => {
  using device = Device.open({ threads: 1 });
  expect(() => quantizeRows("q4_k", new Float32Array(64), 64)).toThrow(/256/);
  expect(() => new Arena(device, "w", { w: { shape: [2, 48], dtype: "q8_0" } })).toThrow(/48/);
});

test("a model held smaller gives nearly the same logits; written as GGUF and read, the very same", async () => {
  using device = Device.open({ threads: 1 });
  const directory = targetDirectory("aidreams260K");
  using whole = await loadDecoder(directory, device);
  const ids = [1, 403, 407, 261, 378, 432];
  const exact = (await run(whole, [ids], { logits: "all" })).logits!;
  for (const [holding, bound] of [
    ["f16", 2e-3],
    ["bf16", 2e-2],
    ["q8_0", 3e-2],
    ["q4_k_m", 0.3],
    ["q4_0", 0.4],
  ] as const) {
    using small = await loadDecoder(directory, device, {}, holding);
    const { logits } = await run(small, [ids], { logits: "all" });
    const error = relative(logits!, exact);
    console.log(`${holding}: ${error.toExponential(1)}`);
    expect(error).toBeGreaterThan(0);
    expect(error).toBeLessThan(bound);
    const file = path.join(folder, `${holding}.gguf`);
    await saveGguf(file, whole, { holding });
    using read = await loadDecoder(file, device);
    expect(relative((await run(read, [ids], { logits: "all" })).logits!, logits!)).toBeLessThan(1e-6);
  }
});

test("a GGUF target brings its tokenizer", async () => {
  const golden = path.resolve(import.meta.dirname, "../fixtures/golden/models/gguf-llama/model-f16.gguf");
  const file = await openGguf(golden);
  const own = new Tokenizer(ggufTokenizerFiles(golden, file.metadata));
  await file.close();
  const known = await loadTokenizer(targetDirectory("aidreams260K"));
  for (const text of [
    "Once upon a time",
    " two  blanks",
    "Zürich 漢字 \n\ttab",
    "",
    'she said: "I\'m 12!"',
  ]) {
    const ids = known.encode(text, { addSpecialTokens: true });
    expect(own.encode(text, { addSpecialTokens: true })).toEqual(ids);
    expect(own.decode(ids)).toBe(known.decode(ids));
  }
  using device = Device.open({ threads: 1 });
  using target = await loadTarget(golden, device);
  expect(target.tokenizer.size).toBe(512);
});

test("memory that is not there is refused before loading", () => {
  expect(() => requireMemory("m", 1000, 999)).toThrow(/--quantize/);
});
