// 2,400 damaged GGUF files, whole ones: header, metadata, tensor infos, data, length. Each is refused with an error of ours, or what is
// loaded is what the bytes say by a second reading that shares no code with the first; none crashes, hangs or loads something else.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openGguf } from "../../src/data/gguf.js";
import { NlaError } from "../../src/error.js";
import { Decoder, loadDecoder, parseConfig, randomParameters, saveGguf } from "../../src/model/index.js";
import { targetDirectory } from "../../src/nla/target.js";
import { Device } from "../../src/tensor/index.js";
import { ggufTokenizerFields } from "../../src/text/gguf-fields.js";
import { ggufTokenizerFiles } from "../../src/text/gguf-tokenizer.js";
import { loadTokenizer, Tokenizer } from "../../src/text/tokenizer.js";

const INPUTS = 2400;

let folder: string;
let device: Device;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "gguf-fuzz-"));
  device = Device.open({ threads: 1 });
});
afterAll(async () => {
  device[Symbol.dispose]();
  await rm(folder, { recursive: true });
});

interface Entry {
  readonly name: string;
  readonly type: number;
  readonly extents: bigint[];
  readonly at: number;
}

const small = (value: bigint) => (Number.isSafeInteger(Number(value)) ? Number(value) : value);

/** A file's parts by the format's description, nothing checked: throws, or gives something odd, where the bytes are wrong. */
function secondReading(bytes: Buffer): { metadata: Map<string, unknown>; tensors: Entry[]; infos: number } {
  let at = 8;
  const u32 = () => bytes.readUInt32LE((at += 4) - 4);
  const u64 = () => bytes.readBigUInt64LE((at += 8) - 8);
  const string = () => {
    const length = Number(u64());
    return bytes.toString("utf8", at, (at += length));
  };
  const readers: Record<number, () => unknown> = {
    0: () => bytes.readUInt8((at += 1) - 1),
    1: () => bytes.readInt8((at += 1) - 1),
    2: () => bytes.readUInt16LE((at += 2) - 2),
    3: () => bytes.readInt16LE((at += 2) - 2),
    4: u32,
    5: () => bytes.readInt32LE((at += 4) - 4),
    6: () => bytes.readFloatLE((at += 4) - 4),
    7: () => bytes.readUInt8((at += 1) - 1) === 1,
    8: string,
    9: () => {
      const type = u32();
      const count = Number(u64());
      return Array.from({ length: count }, () => readers[type]!());
    },
    10: () => small(u64()),
    11: () => small(bytes.readBigInt64LE((at += 8) - 8)),
    12: () => bytes.readDoubleLE((at += 8) - 8),
  };
  const [tensorCount, keyCount] = [u64(), u64()];
  const metadata = new Map<string, unknown>();
  for (let i = 0n; i < keyCount; i++) {
    const key = string();
    metadata.set(key, readers[u32()]!());
  }
  const infos = at;
  const stated = Array.from({ length: Number(tensorCount) }, () => {
    const name = string();
    const extents = Array.from({ length: u32() }, u64);
    return { name, extents, type: u32(), offset: Number(u64()) };
  });
  const alignment = Number(metadata.get("general.alignment") ?? 32);
  const start = Math.ceil(at / alignment) * alignment;
  const tensors = stated.map(({ name, extents, type, offset }) => ({
    name,
    extents,
    type,
    at: start + offset,
  }));
  return { metadata, tensors, infos };
}

/** q8_0 and f32 as the format describes them. */
function unpacked(bytes: Buffer, { type, extents, at }: Entry): Float32Array {
  const count = extents.map(Number).reduce((a, b) => a * b, 1);
  if (type === 0) return Float32Array.from({ length: count }, (_, i) => bytes.readFloatLE(at + 4 * i));
  return Float32Array.from({ length: count }, (_, i) => {
    const block = at + 34 * Math.floor(i / 32);
    const half = bytes.readUInt16LE(block);
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
    return Math.fround((half & 0x8000 ? -size : size) * bytes.readInt8(block + 2 + (i % 32)));
  });
}

test(`${INPUTS} damaged files`, async () => {
  const intact = path.join(folder, "intact.gguf");
  const tokenizer = await loadTokenizer(targetDirectory("aidreams260K"));
  const json = {
    model_type: "qwen2", // its rows do not change places: a second reading finds them where they are
    hidden_size: 32,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    intermediate_size: 32,
    vocab_size: tokenizer.size,
    max_position_embeddings: 64,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    tie_word_embeddings: true,
  };
  {
    using model = new Decoder(device, parseConfig(json, "fuzz"), randomParameters(5));
    const { fields } = ggufTokenizerFields(tokenizer, { vocabulary: tokenizer.size });
    await saveGguf(intact, model, { holding: "q8_0", tokenizer: fields });
  }
  const whole = await readFile(intact);
  const { tensors, infos } = secondReading(whole);
  const data = Math.min(...tensors.map(({ at }) => at));
  let state = 12_345;
  const draw = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  // Where a change falls: mostly where a byte means much.
  const places: [from: number, to: number][] = [
    [0, 200],
    [0, infos],
    [infos, data],
    [infos, data],
    [data, whole.length],
    [0, whole.length],
  ];
  const damage = (kind: number): Buffer => {
    const copy = Buffer.from(whole);
    if (kind === 6) return copy.subarray(0, draw(whole.length));
    if (kind === 7) {
      const at = draw(data);
      const moved = Buffer.concat([
        copy.subarray(0, at),
        Buffer.alloc(1 + draw(40), draw(256)),
        copy.subarray(at),
      ]);
      return draw(2) === 0 ? moved : Buffer.concat([copy.subarray(0, at), copy.subarray(at + 1 + draw(40))]);
    }
    const [from, to] = places[kind]!;
    for (let n = 1 + draw(3); n > 0; n--) {
      const at = from + draw(to - from);
      if (draw(4) === 0 && at + 8 <= whole.length) copy.writeBigUInt64LE(2n ** BigInt(draw(64)), at);
      else copy[at] = draw(2) === 0 ? draw(256) : copy[at]! ^ (1 << draw(8));
    }
    return copy;
  };
  const file = path.join(folder, "damaged.gguf");
  const counts = { refused: 0, loaded: 0, tokenizers: 0 };
  let slowest = 0;
  for (let i = 0; i < INPUTS; i++) {
    const bytes = damage(i % 8);
    await writeFile(file, bytes);
    const started = performance.now();
    try {
      const opened = await openGguf(file);
      const second = secondReading(bytes);
      expect([...opened.metadata], `metadata of input ${i}`).toEqual([...second.metadata]);
      const seen = [...opened.tensors.values()].map(({ name, begin }) => [name, begin]);
      const wanted = second.tensors.map(({ name, at }) => [name, at]);
      expect(new Map(seen as [string, number][]), `tensors of input ${i}`).toEqual(
        new Map(wanted as [string, number][]),
      );
      await opened.close();
      using model = await loadDecoder(file, device, {}, i % 2 === 0 ? "stored" : "f32");
      if (i % 2 === 1) {
        const parameters = new Map(second.tensors.map((entry) => [entry.name, entry]));
        const up = parameters.get("blk.0.ffn_up.weight")!;
        expect(model.get("model.layers.0.mlp.up_proj.weight").readF32(), `input ${i}`).toEqual(
          unpacked(bytes, up),
        );
        const norm = parameters.get("output_norm.weight")!;
        expect(model.get("model.norm.weight").readF32(), `input ${i}`).toEqual(unpacked(bytes, norm));
      }
      counts.loaded++;
      const other = new Tokenizer(ggufTokenizerFiles(file, opened.metadata));
      other.decode(other.encode("The dog is here.", { addSpecialTokens: true }));
      counts.tokenizers++;
    } catch (thrown) {
      if (!(thrown instanceof NlaError)) throw new Error(`input ${i}`, { cause: thrown });
      expect(thrown.code, `input ${i}`).toMatch(/^(gguf|model|tokenizer)\./);
      counts.refused++;
    }
    slowest = Math.max(slowest, performance.now() - started);
  }
  console.log(counts, `slowest ${slowest.toFixed(0)} ms`);
  expect(counts.refused).toBeGreaterThan(INPUTS / 3);
  expect(counts.loaded).toBeGreaterThan(INPUTS / 20);
}, 300_000);
