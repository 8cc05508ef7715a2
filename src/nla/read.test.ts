// Reading a text with an untrained pair from a folder, and a folder for every way in which a pair cannot be.
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { NlaError } from "../error.js";
import { run } from "../model/index.js";
import { Device } from "../tensor/index.js";
import { reconstructionScores } from "./fidelity.js";
import { loadNla, read } from "./read.js";
import type { Nla, TokenReading } from "./read.js";
import { loadTarget } from "./target.js";
import type { Target } from "./target.js";
import { TARGET, writeUntrainedPair } from "./testing/untrained-pair.js";

const TEXT = "Once upon a time there was a dog.";
let device: Device;
let folder: string;
let target: Target;
let nla: Nla;

beforeAll(async () => {
  device = Device.open({ threads: 1 });
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-read-"));
  await writeUntrainedPair(path.join(folder, "run"), device);
  target = await loadTarget(TARGET, device);
  nla = await loadNla(path.join(folder, "run"), device);
});
afterAll(async () => {
  nla[Symbol.dispose]();
  target[Symbol.dispose]();
  device[Symbol.dispose]();
  await rm(folder, { recursive: true });
});

async function failure(action: Promise<unknown>): Promise<NlaError> {
  const thrown = await action.then(
    () => "no error",
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(NlaError);
  return thrown as NlaError;
}

/** A copy of the run whose file has `from` replaced. */
async function changed(name: string, file: string, from: RegExp | string, to: string): Promise<string> {
  const copy = path.join(folder, name);
  await cp(path.join(folder, "run"), copy, { recursive: true });
  const at = path.join(copy, file);
  const before = await readFile(at, "utf8");
  const after = before.replace(from, to);
  expect(after, `${from} in ${file}`).not.toBe(before);
  await writeFile(at, after);
  return copy;
}

function load(directory: string, reconstructor?: string): Promise<NlaError> {
  return failure(loadNla(directory, device, reconstructor === undefined ? {} : { reconstructor }));
}

const runFolder = () => path.join(folder, "run");

describe("read", () => {
  it("gives each token with its id, the length of its activation, an explanation and how near it comes back", async () => {
    const reading = await read(target, nla, TEXT, { maxNewTokens: 40 });
    const ids = target.tokenizer.encode(TEXT, { addSpecialTokens: true });
    expect(reading.model).toBe(TARGET);
    expect(reading.layer).toBe(2);
    expect(reading.tokens.map(({ tokenId }) => tokenId)).toEqual(ids);
    expect(reading.tokens.map(({ position }) => position)).toEqual(ids.map((_, i) => i));
    expect(
      reading.tokens
        .slice(1)
        .map(({ token }) => token)
        .join("")
        .trimStart(),
    ).toBe(TEXT);
    const { blocks } = await run(target.model, [ids], { capture: [2] });
    const read5 = reading.tokens[5] as TokenReading;
    const vector = (blocks.get(2) as Float32Array).slice(5 * 64, 6 * 64);
    expect(read5.l2Norm).toBeCloseTo(Math.hypot(...vector), 4);
    const [rebuilt] = await nla.reconstructor.reconstruct([read5.description as string]);
    const scores = reconstructionScores(rebuilt as Float32Array, vector);
    expect(read5.mse).toBeCloseTo(scores.mse, 4);
    expect(read5.cosineSimilarity).toBeCloseTo(scores.cosine, 4);
  });

  it("reads chosen positions, negative ones from the end, in their order and as it goes", async () => {
    const seen: number[] = [];
    const { tokens } = await read(target, nla, TEXT, {
      positions: [-1, 3],
      maxNewTokens: 8,
      onReading: ({ position }) => seen.push(position),
    });
    const last = target.tokenizer.encode(TEXT, { addSpecialTokens: true }).length - 1;
    expect(tokens.map(({ position }) => position)).toEqual([last, 3]);
    expect(seen).toEqual([last, 3]);
  });

  it("says the same whatever the size of a pass, sampled too", async () => {
    const options = { temperature: 1, maxNewTokens: 30, seed: 5 };
    const whole = await read(target, nla, TEXT, options);
    const parts = await read(target, nla, TEXT, { ...options, batch: 3 });
    expect(parts.tokens.map(({ description }) => description)).toEqual(
      whole.tokens.map(({ description }) => description),
    );
    expect(new Set(whole.tokens.map(({ description }) => description)).size).toBeGreaterThan(1);
  });

  it("gives null, not a score, where the verbalizer was cut off", async () => {
    const { tokens } = await read(target, nla, TEXT, { positions: [4], maxNewTokens: 1 });
    expect(tokens[0]).toMatchObject({ description: null, mse: null, cosineSimilarity: null });
  });

  it.each([
    ["an empty text", "", {}, "read.empty", "nothing"],
    ["a position beyond the text", TEXT, { positions: [99] }, "read.position", "a text of 23 tokens"],
    ["half a position", TEXT, { positions: [1.5] }, "read.position", "a text of 23 tokens"],
    ["a text longer than the context", "dog ".repeat(300), {}, "read.length", "tokens"],
  ])("refuses %s", async (_, text, options, code, found) => {
    const error = await failure(read(target, nla, text, options));
    expect(error.code).toBe(code);
    expect(error.found).toContain(found);
    if (code === "read.length") {
      expect(error.found).toMatch(/^\d{3} tokens$/);
      expect(error.wanted).toContain("128");
    }
  });

  it("refuses a target that the pair is not for", async () => {
    const other: Target = {
      ...target,
      model: { ...target.model, config: { ...target.model.config, dim: 32 } } as never,
    };
    const error = await failure(read(other, nla, TEXT));
    expect(error).toMatchObject({ code: "read.width", next: expect.stringContaining(TARGET) });
    expect(error.found).toContain("32");
    expect(error.wanted).toContain("64");
  });

  it("stops when it is told to", async () => {
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(read(target, nla, TEXT, { signal })).rejects.toThrow("enough");
  });
});

describe("a pair that cannot be", () => {
  it("is not there", async () => {
    expect(await load(path.join(folder, "nowhere"))).toMatchObject({
      code: "nla.directory",
      found: "no such folder",
    });
    expect(await load(folder)).toMatchObject({ code: "nla.directory", found: "no folder verbalizer in it" });
  });

  it("is half there", async () => {
    const copy = path.join(folder, "half");
    await cp(runFolder(), copy, { recursive: true });
    await rm(path.join(copy, "reconstructor"), { recursive: true });
    const error = await load(copy);
    expect(error).toMatchObject({
      code: "nla.directory",
      found: "nothing",
      wanted: "the folder of a reconstructor, or a .gguf file",
    });
  });

  it("has its folders swapped", async () => {
    const error = await load(path.join(runFolder(), "reconstructor"), path.join(runFolder(), "verbalizer"));
    expect(error).toMatchObject({
      code: "nla.role",
      found: "a verbalizer (av)",
      wanted: "a reconstructor (ar)",
      next: expect.stringContaining("swapped"),
    });
  });

  it("is of two layers", async () => {
    await writeUntrainedPair(path.join(folder, "layer1"), device, { layer: 1 });
    const error = await load(
      path.join(runFolder(), "verbalizer"),
      path.join(folder, "layer1", "reconstructor"),
    );
    expect(error.code).toBe("nla.pair");
    expect(error.found).toContain("layer 2");
    expect(error.found).toContain("layer 1");
  });

  const AV = "verbalizer/nla_meta.yaml";
  const AR = "reconstructor/nla_meta.yaml";
  it.each([
    [
      "a sidecar of K for K + 1 blocks",
      AR,
      /extraction_layer_index: 2/g,
      "extraction_layer_index: 3",
      "contract.layer",
      "3 blocks",
    ],
    [
      "a marker id that drifted",
      AV,
      "injection_token_id: 512",
      "injection_token_id: 7",
      "contract.marker-drift",
      "token 512",
    ],
    ["a left neighbour that drifted", AV, /(left_neighbor_id: )\d+/, "$17", "contract.site", "0 sites"],
    ["a right neighbour that drifted", AV, /(right_neighbor_id: )\d+/, "$17", "contract.site", "0 sites"],
    ["another width in the sidecar", AV, "d_model: 64", "d_model: 32", "contract.width", "width 64"],
    [
      "another width in the reconstructor's sidecar",
      AR,
      "d_model: 64",
      "d_model: 32",
      "contract.width",
      "width 64",
    ],
    [
      "a template that puts other tokens around the marker",
      AV,
      "({injection_char})",
      "<{injection_char}>",
      "contract.site",
      "0 sites",
    ],
    [
      "suffix ids of another template",
      AR,
      "critic_suffix_ids: []",
      "critic_suffix_ids: [5, 6]",
      "contract.suffix-drift",
      "[5, 6]",
    ],
    [
      "no scale",
      AV,
      /injection_scale: .*/,
      "injection_scale: null",
      "contract.incomplete",
      "no injection_scale",
    ],
    [
      "no layer anywhere in the verbalizer but the pair's is known",
      AV,
      "extraction_layer_index: 2",
      "other: 2",
      null,
      "",
    ],
    [
      "more blocks in config.json than in the weights",
      "reconstructor/config.json",
      '"num_hidden_layers": 3',
      '"num_hidden_layers": 4',
      "model.weights",
      "no such tensor",
    ],
  ])("has %s", async (name, file, from, to, code, found) => {
    const copy = await changed(name.replaceAll(/\W/g, "-"), file, from, to);
    if (code === null) {
      using loaded = await loadNla(copy, device);
      expect(loaded.verbalizer.contract.layer).toBe(2);
      return;
    }
    const error = await load(copy);
    expect(error.code).toBe(code);
    expect(error.found).toContain(found);
    expect(error.subject.length + error.wanted.length + error.next.length).toBeGreaterThan(30);
  });

  it("has the tokenizer of another model", async () => {
    const copy = path.join(folder, "tokenizer");
    await cp(runFolder(), copy, { recursive: true });
    // The target's own: without the token that was added as the marker.
    for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
      await cp(path.join(runFolder(), "reconstructor", file), path.join(copy, "verbalizer", file));
    }
    const error = await load(copy);
    expect(error).toMatchObject({ code: "contract.marker", wanted: "one token that is not the unknown one" });
  });

  it("has a value head of another width, or none", async () => {
    const copy = path.join(folder, "head");
    await cp(runFolder(), copy, { recursive: true });
    const head = path.join(copy, "reconstructor", "value_head.safetensors");
    await cp(path.join(copy, "reconstructor", "model.safetensors"), head);
    expect(await load(copy)).toMatchObject({
      code: "contract.value-head",
      wanted: expect.stringContaining("[64, 64]"),
    });
    await rm(head);
    expect((await load(copy)).subject).toContain("value_head.safetensors");
  });
});
