// Checkpoints as GGUF files: a verbalizer and a reconstructor give what their folders gave, in f32 what the reference computed, and a
// pair in q8_0 reads a text. What is absent or of the other half is refused by name.
import { readFileSync } from "node:fs";
import { copyFile, cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { loadConfig, loadDecoder } from "../model/index.js";
import { Device } from "../tensor/index.js";
import { loadModelTokenizer } from "./checkpoint-place.js";
import { convertCheckpoint } from "./gguf-checkpoint.js";
import { loadReconstructor, loadVerbalizer } from "./pair-files.js";
import { loadNla, read } from "./read.js";
import { loadTarget, targetDirectory } from "./target.js";
import { TARGET, writeUntrainedPair } from "./testing/untrained-pair.js";

let device: Device;
let folder: string;
beforeAll(async () => {
  device = Device.open({ threads: 1 });
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-gguf-"));
});
afterAll(async () => {
  device[Symbol.dispose]();
  await rm(folder, { recursive: true });
});

const av = () => path.join(folder, "av.gguf");
const ar = () => path.join(folder, "ar.gguf");

const golden = sharedPath("golden/nla");

describeWith(golden, "checkpoints of the reference", () => {
  const actor = path.join(golden ?? "", "actor");
  const critic = path.join(golden ?? "", "critic");
  // Gemma's tokenizer there has merges across newlines, which GGUF cannot say: see below.
  it.each(["llama", "qwen2"])("%s: the verbalizer, prompt and greedy tokens", async (family) => {
    const expected = JSON.parse(readFileSync(path.join(actor, family, "expect.json"), "utf8")) as {
      prompt_ids: number[];
      injection_site: number;
      cases: { raw: number[]; greedy_ids: number[] }[];
    };
    const file = path.join(folder, `${family}.gguf`);
    const written = await convertCheckpoint(path.join(actor, family, "av"), file);
    expect(written).toMatchObject({ role: "av", sidecar: `${file}.nla_meta.yaml`, notes: [] });
    using verbalizer = (await loadVerbalizer(file, device, { layer: 1, holding: "f32" })).model;
    expect(verbalizer.prompt).toEqual({ ids: expected.prompt_ids, site: expected.injection_site });
    const vectors = expected.cases.map(({ raw }) => Float32Array.from(raw));
    const { length } = expected.cases[0]!.greedy_ids;
    const explanations = await verbalizer.explain(vectors, { maxNewTokens: length });
    explanations.forEach(({ tokens }, i) => {
      // Theirs go on after an end token, where ours stop.
      const wanted = expected.cases[i]!.greedy_ids;
      expect(tokens).toEqual(wanted.slice(0, tokens.length));
      const ended = verbalizer.stopTokens.includes(tokens.at(-1)!) || tokens.length === length;
      expect(ended).toBe(true);
    });
  });

  it.each(["llama", "qwen2"])("%s: the reconstructor, its value head inside", async (family) => {
    const { rows } = JSON.parse(readFileSync(path.join(critic, family, "expect.json"), "utf8")) as {
      rows: { explanation: string; token_ids: number[]; prediction: number[] }[];
    };
    const file = path.join(folder, `${family}-ar.gguf`);
    const from = path.join(critic, family, "trained");
    expect(await convertCheckpoint(from, file)).toMatchObject({ role: "ar", notes: [] });
    using reconstructor = (await loadReconstructor(file, device, { holding: "f32" })).model;
    for (const row of rows) expect(reconstructor.promptIds(row.explanation)).toEqual(row.token_ids);
    const predictions = await reconstructor.reconstruct(rows.map(({ explanation }) => explanation));
    rows.forEach(({ prediction }, i) => {
      const apart = predictions[i]!.map((value, k) => value - prediction[k]!);
      expect(Math.hypot(...apart)).toBeLessThan(1e-4 * Math.hypot(...prediction));
    });
    await expect(loadVerbalizer(file, device)).rejects.toMatchObject({
      code: "nla.role",
      found: "a reconstructor (ar)",
    });
  });

  it("Gemma's test tokenizer merges across newlines, and is refused", async () => {
    const file = path.join(folder, "gemma3.gguf");
    const from = path.join(actor, "gemma3", "av");
    await expect(convertCheckpoint(from, file)).rejects.toMatchObject({
      code: "gguf.tokenizer",
      found: expect.stringContaining("of 28 texts") as string,
    });
  });
});

describe("a pair on the bundled target", () => {
  let pair: string;
  let target: string;
  beforeAll(async () => {
    pair = path.join(folder, "pair");
    target = path.join(folder, "target.gguf");
    await writeUntrainedPair(pair, device);
    await convertCheckpoint(path.join(pair, "verbalizer"), av(), { holding: "q8_0" });
    await convertCheckpoint(path.join(pair, "reconstructor"), ar(), { holding: "q8_0" });
    await convertCheckpoint(targetDirectory(TARGET), target, { holding: "q8_0" });
  });

  it("in q8_0 reads a text: the same tokens, nearly the same activations, an explanation of each", async () => {
    const reading = async (nla: string, reconstructor: string | undefined, model: string) => {
      using loaded = await loadNla(nla, device, { reconstructor });
      using of = await loadTarget(model, device);
      return await read(of, loaded, "Once upon a time", { maxNewTokens: 60 });
    };
    const small = await reading(av(), ar(), target);
    const whole = await reading(pair, undefined, TARGET);
    expect(small.tokens.map(({ tokenId }) => tokenId)).toEqual(whole.tokens.map(({ tokenId }) => tokenId));
    small.tokens.forEach(({ l2Norm, description }, i) => {
      expect(Math.abs(l2Norm / whole.tokens[i]!.l2Norm - 1)).toBeLessThan(0.03);
      expect(description === null || description.length > 0).toBe(true);
    });
    expect(small.tokens.filter(({ description }) => description !== null).length).toBeGreaterThan(0);
    const { model } = await loadVerbalizer(av(), device);
    expect(model.model.get("model.layers.0.mlp.up_proj.weight").dtype).toBe("q8_0");
    model[Symbol.dispose]();
  });

  it("predicts nearly the same in q8_0, and the same in f32", async () => {
    using whole = (await loadReconstructor(path.join(pair, "reconstructor"), device)).model;
    const file = path.join(folder, "ar-f32.gguf");
    await convertCheckpoint(path.join(pair, "reconstructor"), file);
    const predict = async (place: string) => {
      using loaded = (await loadReconstructor(place, device)).model;
      return (await loaded.reconstruct(["a dog and a cat"]))[0]!;
    };
    const wanted = (await whole.reconstruct(["a dog and a cat"]))[0]!;
    const cosine = (a: Float32Array) =>
      a.reduce((sum, value, i) => sum + value * wanted[i]!, 0) / Math.hypot(...a) / Math.hypot(...wanted);
    expect(cosine(await predict(file))).toBeGreaterThan(1 - 1e-6);
    expect(cosine(await predict(ar()))).toBeGreaterThan(0.99);
  });

  it("takes its sidecar from the file's name, then the folder, then what is named; else it says where it looked", async () => {
    const alone = path.join(folder, "alone");
    await mkdir(alone);
    const file = path.join(alone, "x.gguf");
    await copyFile(av(), file);
    await expect(loadVerbalizer(file, device)).rejects.toMatchObject({
      code: "sidecar.missing",
      found: "neither x.gguf.nla_meta.yaml nor nla_meta.yaml beside it",
    });
    const own = path.join(pair, "verbalizer", "nla_meta.yaml");
    for (const contract of [own, path.dirname(own)])
      (await loadVerbalizer(file, device, { contract })).model[Symbol.dispose]();
    await copyFile(own, path.join(alone, "nla_meta.yaml"));
    (await loadVerbalizer(file, device)).model[Symbol.dispose]();
    await copyFile(path.join(pair, "reconstructor", "nla_meta.yaml"), `${file}.nla_meta.yaml`);
    await expect(loadVerbalizer(file, device)).rejects.toMatchObject({ code: "nla.role" });
    await expect(loadNla(file, device)).rejects.toMatchObject({
      code: "nla.directory",
      found: "one model, and no reconstructor",
    });
  });

  it("needs a value head, and takes the one beside the file", async () => {
    const alone = path.join(folder, "headless");
    await mkdir(alone);
    const file = path.join(alone, "ar.gguf");
    // As llama.cpp's own converter would leave it: the decoder only.
    const bare = path.join(folder, "bare");
    await cp(path.join(pair, "reconstructor"), bare, { recursive: true });
    const head = path.join(bare, "value_head.safetensors");
    const sidecar = await readFile(path.join(bare, "nla_meta.yaml"), "utf8");
    await rm(path.join(bare, "nla_meta.yaml"));
    await rm(head);
    await expect(convertCheckpoint(bare, file)).rejects.toMatchObject({ code: "model.weights" }); // a target has a last norm
    await copyFile(path.join(pair, "reconstructor", "value_head.safetensors"), head);
    await convertCheckpoint(bare, file);
    await writeFile(`${file}.nla_meta.yaml`, sidecar);
    (await loadReconstructor(file, device)).model[Symbol.dispose]();
  });

  it("without a value head in it or beside it a file is no reconstructor", async () => {
    const contract = path.join(pair, "reconstructor");
    await expect(loadReconstructor(target, device, { contract })).rejects.toMatchObject({
      code: "safetensors.missing",
    });
  });

  it("keeps tokens, template and ends of the tokenizer", async () => {
    const tokenizer = await loadModelTokenizer(av());
    const own = await loadModelTokenizer(path.join(pair, "verbalizer"));
    expect(tokenizer.size).toBe(own.size);
    expect(tokenizer.encode("One day (\u3200)")).toEqual(own.encode("One day (\u3200)"));
    expect([tokenizer.bosId, tokenizer.eosId]).toEqual([own.bosId, own.eosId]);
    using model = await loadDecoder(av(), device);
    using folderModel = await loadDecoder(path.join(pair, "verbalizer"), device);
    expect(new Set(model.config.eosIds)).toEqual(new Set(folderModel.config.eosIds));
  });

  it("in a folder of nothing else is named, and is no start for training", async () => {
    const alone = path.join(folder, "files");
    await mkdir(alone);
    for (const name of ["a-q8_0.gguf", "b-f16.gguf"]) await copyFile(target, path.join(alone, name));
    await expect(loadTarget(alone, device)).rejects.toMatchObject({
      code: "target.missing",
      found: "no config.json, and the files a-q8_0.gguf, b-f16.gguf",
      next: `Name the file: ${path.join(alone, "a-q8_0.gguf")}`,
    });
    await expect(loadConfig(target)).rejects.toMatchObject({
      code: "model.gguf",
      next: `Unpack it: nla convert ${target} --folder DIR, and name DIR.`,
    });
  });

  it("is not written over itself, nor under another ending", async () => {
    await expect(convertCheckpoint(av(), av())).rejects.toMatchObject({ code: "gguf.name" });
    await expect(convertCheckpoint(av(), path.join(folder, "x.bin"))).rejects.toMatchObject({
      code: "gguf.name",
    });
  });
});
