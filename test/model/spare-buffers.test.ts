// Freed memory that is used again: what is read from it is what was written anew, and nothing is freed twice or kept without bound.
import { expect, test } from "vitest";
import { Decoder, generate, parseConfig, randomParameters } from "../../src/model/index.js";
import { Arena, Device } from "../../src/tensor/index.js";

const MIB = 2 ** 20;
const floats = (mebibytes: number) => ({ x: { shape: [(mebibytes * MIB) / 4] } });
const bytes = ({ buffer }: Float32Array) => Buffer.from(buffer);
const residentMib = () => process.memoryUsage().rss / MIB;

function fill(device: Device, mebibytes: number, value: number): void {
  using arena = new Arena(device, "first", floats(mebibytes), { cleared: false });
  arena.get("x").write(new Float32Array((mebibytes * MIB) / 4).fill(value));
}

test("memory that was freed is handed on, and is zero where zeros are promised", () => {
  using device = Device.open({ threads: 1 });
  fill(device, 12, 7);
  {
    using anything = new Arena(device, "second", floats(12), { cleared: false });
    expect(anything.get("x").readF32().at(-1)).toBe(7); // the same memory: else this test would prove nothing
  }
  using zeros = new Arena(device, "third", floats(10)); // a little less fits, too
  expect(
    zeros
      .get("x")
      .readF32()
      .every((value) => value === 0),
  ).toBe(true);
});

test("tensors of several lengths lie apart in it", () => {
  using device = Device.open({ threads: 1 });
  fill(device, 12, 7);
  const shapes = { a: [3], b: [(11 * MIB) / 4 + 1], c: [5, 7] };
  const specs = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, { shape }]));
  using arena = new Arena(device, "parts", specs);
  const values = (name: string, from: number) =>
    Float32Array.from({ length: arena.get(name).size }, (_, i) => from + i);
  const wanted = { a: values("a", 1), b: values("b", 100), c: values("c", 5) };
  for (const [name, written] of Object.entries(wanted)) arena.get(name).write(written);
  for (const [name, written] of Object.entries(wanted))
    expect(Buffer.compare(bytes(arena.get(name).readF32()), bytes(written)), name).toBe(0);
});

test("no more than 256 MiB are kept, and nothing when the device is closed", () => {
  const device = Device.open({ threads: 1 });
  const before = residentMib();
  const arenas = [70, 80, 90, 100].map((size) => new Arena(device, `${size}`, floats(size)));
  const last = new Arena(device, "last", floats(50));
  expect(residentMib() - before).toBeGreaterThan(330);
  for (const arena of arenas) arena[Symbol.dispose]();
  expect(residentMib() - before).toBeLessThan(50 + 256 + 30);
  device[Symbol.dispose]();
  expect(residentMib() - before).toBeLessThan(50 + 30);
  last[Symbol.dispose](); // freed after its device
  expect(residentMib() - before).toBeLessThan(30);
});

test.each(["f32", "bf16"] as const)(
  "generation in memory full of NaN gives the same tokens: %s",
  async (compute) => {
    using device = Device.open({ threads: 2 });
    const config = parseConfig(
      {
        model_type: "llama",
        hidden_size: 96,
        num_hidden_layers: 6,
        num_attention_heads: 6,
        num_key_value_heads: 6,
        intermediate_size: 128,
        vocab_size: 64,
        max_position_embeddings: 256,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
      },
      "a test",
    );
    using model = new Decoder(device, config, randomParameters(1, 0.3));
    const prompts = Array.from({ length: 64 }, (_, i) =>
      Array.from({ length: 5 + (i % 9) }, (__, j) => (i * 7 + j) % 64),
    );
    const sample = () => generate(model, prompts, { maxNewTokens: 50, compute, seed: 3 });
    const first = await sample();
    for (const size of [9, 10, 12, 14, 16, 19, 22, 26]) fill(device, size, Number.NaN);
    expect(await sample()).toEqual(first);
  },
);
