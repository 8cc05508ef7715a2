// Weights as they lie on the disk: every stored type with a NaN or an infinity in it is refused by file, tensor and element, mapped or
// copied, and a mapped file that is cut or written to while it is in use is refused before the system ends the process.
import { copyFile, mkdir, mkdtemp, open, rm, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openGguf } from "../../src/data/gguf.js";
import { openWeights } from "../../src/data/safetensors.js";
import {
  convertToGguf,
  Decoder,
  loadDecoder,
  parameterShapes,
  parseConfig,
  randomParameters,
  run,
  saveDecoder,
} from "../../src/model/index.js";
import type { Holding } from "../../src/model/index.js";
import { checkStored } from "../../src/model/finite.js";
import { Device } from "../../src/tensor/index.js";

const NAME = "model.layers.1.mlp.down_proj.weight";
const JSON_CONFIG = {
  model_type: "qwen2", // no rows change places, so that every matrix is mapped
  hidden_size: 256,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  intermediate_size: 512,
  vocab_size: 300,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  tie_word_embeddings: true,
};

let folder: string;
let device: Device;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "stored-"));
  device = Device.open({ threads: 1 });
  using model = new Decoder(device, parseConfig(JSON_CONFIG, "test"), randomParameters(3));
  await saveDecoder(path.join(folder, "f32"), model);
  await saveDecoder(path.join(folder, "bf16"), model, { dtype: "BF16" });
  await saveDecoder(path.join(folder, "f16"), model, { dtype: "F16" });
});
afterAll(async () => {
  device[Symbol.dispose]();
  await rm(folder, { recursive: true });
});

async function write(file: string, at: number, bytes: readonly number[]): Promise<void> {
  const handle = await open(file, "r+");
  await handle.write(Uint8Array.from(bytes), 0, bytes.length, at);
  await handle.close();
}

describe("a stored weight that is no number", () => {
  // Element 5, or the block that it lies in: the bytes of NaN or infinity, from which byte of the tensor.
  test.each([
    ["f32", 20, [0, 0, 0xc0, 0x7f], 5],
    ["bf16", 10, [0x80, 0xff], 5], // -infinity
    ["f16", 10, [0, 0x7c], 5],
    ["q8_0", 34, [0, 0x7e], 32],
    ["q6_k", 208, [0, 0xfc], 0],
    ["q5_k", 2, [1, 0x7c], 0], // the minimum's scale
    ["q4_k", 144, [0, 0x7c], 256],
    ["q5_0", 22, [0, 0x7c], 32],
    ["q4_0", 0, [0, 0x7c], 0],
  ] as const)("%s in GGUF", async (type, at, bytes, element) => {
    const file = path.join(folder, `${type}.gguf`);
    await convertToGguf(path.join(folder, "f32"), file, { holding: type });
    const whole = await openGguf(file);
    const { begin, dtype } = whole.tensors.get("blk.1.ffn_down.weight")!;
    await whole.close();
    expect(dtype.toLowerCase()).toBe(type);
    (await loadDecoder(file, device))[Symbol.dispose]();
    await write(file, begin + at, bytes);
    const holdings: Holding[] = ["stored", "f32", "q8_0"];
    for (const holding of holdings) {
      await expect(loadDecoder(file, device, {}, holding), holding).rejects.toMatchObject({
        code: "model.not-finite",
        subject: expect.stringMatching(
          new RegExp(`${type}\\.gguf, tensor ${NAME.replaceAll(".", "\\.")}, element ${element}$`),
        ) as string,
      });
    }
  });

  test.each(["bf16", "f16"])("%s in safetensors, mapped", async (type) => {
    const copy = path.join(folder, `${type}-bad`);
    using model = await loadDecoder(path.join(folder, type), device);
    await saveDecoder(copy, model, { dtype: type === "bf16" ? "BF16" : "F16" });
    const weights = await openWeights(copy);
    const { file, begin } = weights.entries.get(NAME)!;
    await weights.close();
    await write(file, begin + 2 * 70_001, [0xc0, 0x7f]);
    for (const holding of ["stored", "f32"] as const)
      await expect(loadDecoder(copy, device, {}, holding)).rejects.toMatchObject({
        code: "model.not-finite",
        subject: expect.stringContaining("element 70001") as string,
      });
  });

  test("every odd and even place, and none else", () => {
    for (const length of [2, 3, 4, 5]) {
      for (let bad = 0; bad < length; bad++) {
        const values = Uint16Array.from({ length }, (_, i) => (i === bad ? 0x7f80 : 0x7f7f));
        expect(() => checkStored("f", "t", "bf16", new Uint8Array(values.buffer))).toThrow(`element ${bad}`);
      }
      const largest = new Uint16Array(length).fill(0xff7f);
      expect(() => checkStored("f", "t", "bf16", new Uint8Array(largest.buffer))).not.toThrow();
    }
  });
});

describe.runIf(process.platform === "linux" || process.platform === "darwin")("a mapped file", () => {
  const ids = [[1, 2, 3, 4]];

  test.each(["gguf", "safetensors"])(
    "%s, cut while it is in use, is refused, and the process lives",
    async (kind) => {
      const place = path.join(folder, kind === "gguf" ? "cut.gguf" : "cut");
      if (kind === "gguf") await convertToGguf(path.join(folder, "bf16"), place);
      else {
        using from = await loadDecoder(path.join(folder, "bf16"), device);
        await saveDecoder(place, from, { dtype: "BF16" });
      }
      const file = kind === "gguf" ? place : path.join(place, "model.safetensors");
      using model = await loadDecoder(place, device, {}, "stored");
      const before = (await run(model, ids, { logits: "last" })).logits;
      await truncate(file, 4096);
      await expect(run(model, ids, { logits: "last" })).rejects.toMatchObject({
        code: "model.file-changed",
        subject: file,
        found: "4,096 bytes",
      });
      expect(before?.every(Number.isFinite)).toBe(true);
      await expect(loadDecoder(place, device, {}, "stored")).rejects.toMatchObject({
        code: expect.stringMatching(/truncated/) as string,
      });
    },
  );

  test("takes no memory of its own: 256 MiB of zeros, mapped", async () => {
    const place = path.join(folder, "sparse");
    const config = { ...JSON_CONFIG, hidden_size: 1024, intermediate_size: 4096, vocab_size: 100_000 };
    await mkdir(place);
    await writeFile(path.join(place, "config.json"), JSON.stringify(config));
    const header: Record<string, unknown> = {};
    let end = 0;
    for (const [name, shape] of parameterShapes(parseConfig(config, "test"))) {
      const begin = end;
      end += 2 * shape.reduce((a, b) => a * b, 1);
      header[name] = { dtype: "BF16", shape, data_offsets: [begin, end] };
    }
    expect(end).toBeGreaterThan(240 * 2 ** 20);
    const text = JSON.stringify(header);
    const bytes = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, " ");
    bytes.writeBigUInt64LE(BigInt(bytes.length - 8));
    bytes.write(text, 8);
    const file = await open(path.join(place, "model.safetensors"), "w");
    await file.write(bytes);
    await file.truncate(bytes.length + end); // the rest is a hole
    await file.close();
    const before = process.memoryUsage.rss();
    using model = await loadDecoder(place, device, {}, "stored");
    expect(process.memoryUsage.rss() - before).toBeLessThan(end / 3);
    expect(model.parameterCount * 2).toBe(end);
  });

  test("written to while it is in use is refused; replaced by renaming, it is read on as it was", async () => {
    const [file, other] = [path.join(folder, "used.gguf"), path.join(folder, "other.gguf")];
    await convertToGguf(path.join(folder, "bf16"), file);
    await copyFile(file, other);
    using model = await loadDecoder(file, device, {}, "stored");
    await rm(file);
    await copyFile(other, file);
    await run(model, ids, { logits: "last" });
    using second = await loadDecoder(file, device, {}, "stored");
    await utimes(file, new Date(0), new Date(0));
    await expect(run(second, ids, { logits: "last" })).rejects.toMatchObject({
      code: "model.file-changed",
      found: expect.stringContaining("1970") as string,
    });
  });
});
