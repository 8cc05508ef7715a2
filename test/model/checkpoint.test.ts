// Model folders: what is read is what was written, and every contradiction or fault ends in an error with its facts.
import { createHash } from "node:crypto";
import { cp, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { f32ToBf16, f32ToF16, bf16ToF32, f16ToF32 } from "../../src/data/floats.js";
import { openWeights, writeSafetensors } from "../../src/data/safetensors.js";
import { NlaError } from "../../src/error.js";
import {
  copyModelFolder,
  EMBEDDING,
  HEAD,
  loadDecoder,
  parameterCount,
  run,
  saveDecoder,
  saveDecoderLike,
  storedTensor,
  truncateConfig,
} from "../../src/model/index.js";
import { Device } from "../../src/tensor/index.js";
import { sharedPath } from "../shared.js";
import { someIds, tinyModel } from "./tiny.js";

const TRAINED = path.resolve(import.meta.dirname, "../../assets/aidreams260K");
const MULTIMODAL = sharedPath("golden/models/gemma3-mm");
const SHARDED = sharedPath("golden/models/llama3-gqa");
let device: Device;
let directory: string;
beforeAll(() => void (device = Device.open({ threads: 1 })));
afterAll(() => device[Symbol.dispose]());
beforeEach(async () => void (directory = await mkdtemp(path.join(tmpdir(), "nlakit-model-"))));
afterEach(() => rm(directory, { recursive: true }));

const config = () => path.join(directory, "config.json");
const weights = () => path.join(directory, "model.safetensors");
const readJson = async (file: string) => JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;

async function saveTiny(overrides: Record<string, unknown> = {}): Promise<void> {
  using model = tinyModel(device, overrides);
  await saveDecoder(directory, model);
}

async function changeConfig(changes: Record<string, unknown>): Promise<void> {
  await writeFile(config(), JSON.stringify({ ...(await readJson(config())), ...changes }));
}

/** Writes the weights again, each tensor as `change` makes it; null leaves one out. */
async function changeWeights(
  change: (name: string, values: Float32Array) => Float32Array | null,
): Promise<void> {
  const file = await openWeights(directory);
  const tensors = [];
  for (const [name, { shape }] of file.entries) {
    const values = change(name, await file.readF32(name));
    if (values) tensors.push(storedTensor(name, shape, "F32", values));
  }
  await file.close();
  await writeSafetensors(weights(), tensors);
}

/** What was thrown, once it is seen to be complete. */
async function failure(promise: Promise<unknown>): Promise<NlaError> {
  const thrown = await promise.then(
    () => new Error("nothing was thrown"),
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(NlaError);
  const error = thrown as NlaError;
  for (const part of [error.code, error.subject, error.found, error.wanted, error.next]) {
    expect(part).toMatch(/\S/);
    expect(part).not.toMatch(/undefined|\[object/);
  }
  return error;
}

describe("a trained model of the package", () => {
  test("loads, and predicts its own language", async () => {
    using model = await loadDecoder(TRAINED, device);
    expect(model.config).toMatchObject({ family: "llama", layers: 4, dim: 64, vocabulary: 512, tied: true });
    expect(model.parameterCount).toBe(parameterCount(model.config));
    expect(model.parameterCount).toBeGreaterThan(200_000);
    expect(model.disposed).toBe(false);
  });

  test("a disposed model says so", async () => {
    const model = await loadDecoder(TRAINED, device);
    model[Symbol.dispose]();
    expect(model.disposed).toBe(true);
    expect((await failure(run(model, [[1, 2]], { logits: "all" }))).code).toBe("tensor.disposed");
  });
});

describe("save and load", () => {
  test.each([
    ["F32", "float32", (x: Float32Array) => x],
    ["F16", "float16", (x: Float32Array) => f16ToF32(f32ToF16(x))],
    ["BF16", "bfloat16", (x: Float32Array) => bf16ToF32(f32ToBf16(x))],
  ] as const)("%s: every value as that type has it", async (dtype, name, rounded) => {
    using model = tinyModel(device, { tie_word_embeddings: false, _note: "kept" });
    await saveDecoder(directory, model, { dtype });
    using again = await loadDecoder(directory, device);
    for (const [parameter, tensor] of model.parameters.tensors) {
      expect(again.get(parameter).readF32(), parameter).toEqual(rounded(tensor.readF32()));
    }
    const json = await readJson(config());
    expect(json).toMatchObject({ torch_dtype: name, _note: "kept", architectures: ["LlamaForCausalLM"] });
    expect({ ...again.config, json: null }).toEqual({ ...model.config, json: null });
    const file = await openWeights(directory);
    expect([...file.entries.values()].every((entry) => entry.dtype === dtype)).toBe(true);
    await file.close();
  });

  test.each([
    ["qwen2", {}],
    ["qwen3", {}],
    ["mistral", { sliding_window: 9 }],
    ["gemma2", { sliding_window: 9 }],
    ["gemma3_text", { sliding_window: 9 }],
  ])("%s keeps its logits", async (family, overrides) => {
    using model = tinyModel(device, { model_type: family, ...overrides });
    await saveDecoder(directory, model);
    using again = await loadDecoder(directory, device);
    const ids = [someIds(30, 61)];
    const wanted = await run(model, ids, { logits: "all" });
    expect((await run(again, ids, { logits: "all" })).logits).toEqual(wanted.logits);
  });

  test.skipIf(MULTIMODAL === null)("the text model of a multimodal folder is one of its own", async () => {
    using model = await loadDecoder(MULTIMODAL as string, device);
    await saveDecoder(directory, model);
    expect(await readJson(config())).toMatchObject({ model_type: "gemma3_text", num_hidden_layers: 7 });
    using again = await loadDecoder(directory, device);
    const ids = [someIds(40, 320)];
    const wanted = await run(model, ids, { logits: "all" });
    expect((await run(again, ids, { logits: "all" })).logits).toEqual(wanted.logits);
  });

  test("a reconstructor's parts: fewer blocks, no last norm, no head", async () => {
    using model = tinyModel(device, { tie_word_embeddings: false });
    const parts = { finalNorm: false, head: false };
    using cut = model.copy(truncateConfig(model.config, 2), parts);
    await saveDecoder(directory, cut);
    expect(await readJson(config())).toMatchObject({ num_hidden_layers: 2 });
    using again = await loadDecoder(directory, device, parts);
    const ids = [someIds(12, 61)];
    const wanted = await run(model, ids, { capture: [1] });
    expect((await run(again, ids, { capture: [1] })).blocks).toEqual(wanted.blocks);
    const error = await failure(loadDecoder(directory, device));
    expect(error).toMatchObject({ code: "model.weights", found: "no such tensor" });
    expect(error.subject).toMatch(/model\.norm\.weight/);
  });

  test("config.json and values that differ are written as asked", async () => {
    using model = tinyModel(device);
    const { vocabulary, dim } = model.config;
    const longer = { ...model.config, vocabulary: vocabulary + 1 };
    using extended = model.copy(longer, model.parts, (name, shape) => {
      if (name !== EMBEDDING) return null;
      const values = new Float32Array(shape[0]! * shape[1]!);
      values.set(model.get(EMBEDDING).readF32());
      return values.fill(0.5, vocabulary * dim);
    });
    await saveDecoder(directory, extended, { config: { nla: { role: "verbalizer" } } });
    expect(await readJson(config())).toMatchObject({ vocab_size: 62, nla: { role: "verbalizer" } });
    using again = await loadDecoder(directory, device);
    expect(again.get(EMBEDDING).readF32().at(-1)).toBe(0.5);
  });
});

const hashes = async (folder: string) => {
  const found: Record<string, string> = {};
  for (const name of (await readdir(folder)).sort()) {
    found[name] = createHash("sha256")
      .update(await readFile(path.join(folder, name)))
      .digest("hex");
  }
  return found;
};

const weightsOf = async (folder: string) =>
  Object.fromEntries(
    Object.entries(await hashes(folder)).filter(([name]) => /safetensors|config\.json$/.test(name)),
  );

describe("saveDecoderLike", () => {
  test.each([TRAINED, ...(SHARDED === null ? [] : [SHARDED])])(
    "unchanged, byte for byte: %s",
    async (from) => {
      using model = await loadDecoder(from, device);
      const out = path.join(directory, "like");
      await saveDecoderLike(out, model, from);
      const wanted = await weightsOf(from);
      const found = await weightsOf(out);
      expect(Object.keys(found).length).toBeGreaterThan(1);
      for (const [name, hash] of Object.entries(found)) expect(hash, name).toBe(wanted[name]);
    },
  );

  test("a changed parameter is what is written", async () => {
    using model = await loadDecoder(TRAINED, device);
    const values = model
      .get("model.norm.weight")
      .readF32()
      .map((x) => x + 1);
    model.get("model.norm.weight").write(values);
    const out = path.join(directory, "changed");
    await saveDecoderLike(out, model, TRAINED);
    using again = await loadDecoder(out, device);
    expect(again.get("model.norm.weight").readF32()).toEqual(values);
  });
});

describe("copyModelFolder", () => {
  test("byte for byte, one file", async () => {
    await copyModelFolder(TRAINED, path.join(directory, "copy"));
    expect(await hashes(path.join(directory, "copy"))).toEqual(await hashes(TRAINED));
  });

  test.skipIf(SHARDED === null)("byte for byte, bf16 in shards", async () => {
    await copyModelFolder(SHARDED as string, directory);
    const copied = await hashes(directory);
    expect(copied).toEqual(await hashes(SHARDED as string));
    expect(Object.keys(copied).filter((name) => /-of-/.test(name))).toHaveLength(3);
  });

  test("refuses to copy a truncated file", async () => {
    await cp(TRAINED, directory, { recursive: true, force: true });
    await rm(weights());
    await writeFile(
      weights(),
      (await readFile(path.join(TRAINED, "model.safetensors"))).subarray(0, 500_000),
    );
    const error = await failure(copyModelFolder(directory, path.join(directory, "copy")));
    expect(error.code).toMatch(/^safetensors\./);
  });
});

describe("config.json that contradicts the weights", () => {
  test.each<[string, Record<string, unknown>, RegExp, RegExp]>([
    ["fewer layers", { num_hidden_layers: 2 }, /9 tensors .*model\.layers\.2\./, /20 tensors .* 2 blocks/],
    ["more layers", { num_hidden_layers: 4 }, /no such tensor/, /\[32, 32\]/],
    ["another width", { hidden_size: 40 }, /\[61, 32\]/, /\[61, 40\]/],
    ["a larger vocabulary", { vocab_size: 64 }, /\[61, 32\]/, /\[64, 32\]/],
    ["a smaller vocabulary", { vocab_size: 50 }, /\[61, 32\]/, /\[50, 32\]/],
    ["another feed-forward width", { intermediate_size: 40 }, /\[48, 32\]/, /\[40, 32\]/],
    ["other heads", { num_attention_heads: 8 }, /\[32, 32\]/, /\[64, 32\]/],
    ["a head of its own", { tie_word_embeddings: false }, /no such tensor/, /\[61, 32\]/],
  ])("%s", async (_, changes, found, wanted) => {
    await saveTiny();
    await changeConfig(changes);
    const error = await failure(loadDecoder(directory, device));
    expect(error.code).toBe("model.weights");
    expect(error.subject).toContain("model.safetensors");
    expect(error.found).toMatch(found);
    expect(error.wanted).toMatch(wanted);
  });

  test("another family", async () => {
    await saveTiny({ model_type: "qwen2" });
    await changeConfig({ model_type: "llama" });
    const error = await failure(loadDecoder(directory, device));
    expect(error.found).toMatch(/9 tensors .*bias first/);
  });

  test("a tied head that is stored is the embedding, or refused", async () => {
    await saveTiny({ tie_word_embeddings: false });
    await changeConfig({ tie_word_embeddings: true });
    const error = await failure(loadDecoder(directory, device));
    expect(error.code).toBe("model.weights");
    expect(error.subject).toContain(HEAD);
    expect(error.found).toMatch(/19\d\d of 1952 elements/);

    let embedding: Float32Array = new Float32Array();
    await changeWeights((name, values) => (name === EMBEDDING ? (embedding = values) : values));
    await changeWeights((name, values) => (name === HEAD ? embedding : values));
    using model = await loadDecoder(directory, device);
    expect(model.parameters.tensors.has(HEAD)).toBe(false);
  });

  test("a tensor that nobody knows", async () => {
    await saveTiny();
    const file = await openWeights(directory);
    const tensors = [storedTensor("model.layers.0.extra.weight", [1], "F32", new Float32Array(1))];
    for (const [name, { shape }] of file.entries)
      tensors.push(storedTensor(name, shape, "F32", await file.readF32(name)));
    await file.close();
    await writeSafetensors(weights(), tensors);
    const error = await failure(loadDecoder(directory, device));
    expect(error.found).toBe(
      "1 tensors that config.json does not account for, model.layers.0.extra.weight first",
    );
  });
});

describe("files that are not sound", () => {
  test.each([NaN, Infinity, -Infinity])("%s among the weights", async (value) => {
    await saveTiny();
    await changeWeights((name, values) => {
      if (name === "model.layers.1.mlp.up_proj.weight") values[77] = value;
      return values;
    });
    const error = await failure(loadDecoder(directory, device));
    expect(error).toMatchObject({ code: "model.not-finite", found: String(value), wanted: "finite weights" });
    expect(error.subject).toMatch(/model\.layers\.1\.mlp\.up_proj\.weight, element 77/);
  });

  test("no config.json", async () => {
    await saveTiny();
    await rm(config());
    const error = await failure(loadDecoder(directory, device));
    expect(error.code).toBe("model.config-missing");
    expect(error.message).toContain(config());
  });

  test("no weights", async () => {
    await saveTiny();
    await rm(weights());
    const error = await failure(loadDecoder(directory, device));
    expect(error.code).toBe("safetensors.no-weights");
    expect(error.message).toContain(directory);
  });

  test("no folder at all", async () => {
    expect((await failure(loadDecoder(path.join(directory, "absent"), device))).code).toBe(
      "model.config-missing",
    );
  });

  test.each([0, 7, 100, 3000, 20_000])("model.safetensors cut to %i bytes", async (bytes) => {
    await saveTiny();
    await truncate(weights(), bytes);
    const error = await failure(loadDecoder(directory, device));
    expect(error.code).toMatch(/^safetensors\./);
    expect(error.message).toContain("model.safetensors");
    expect(error.message.replaceAll(",", "")).toMatch(new RegExp(`\\b${bytes}\\b|empty`));
  });

  test.each([
    ["", "model.config-syntax"],
    ['{"model_type": "llama",', "model.config-syntax"],
    ["[]", "model.config"],
    ["null", "model.config"],
    ["3", "model.config"],
  ])("config.json %j", async (text, code) => {
    await saveTiny();
    await writeFile(config(), text);
    expect((await failure(loadDecoder(directory, device))).code).toBe(code);
  });
});
