// How a pair starts from a target, and that a folder gives back what was written into it.
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sharedPath } from "../../test/shared.js";
import { EMBEDDING, run } from "../model/index.js";
import { Device } from "../tensor/index.js";
import { loadTokenizer } from "../text/tokenizer.js";
import { makeContract } from "./contract.js";
import { loadReconstructor, loadVerbalizer } from "./pair-files.js";
import { Reconstructor } from "./reconstructor.js";
import { chooseMarker } from "./start.js";
import { activationsOf, loadTarget, targetDirectory } from "./target.js";
import type { Target } from "./target.js";
import { TARGET, untrainedPair, writeUntrainedPair } from "./testing/untrained-pair.js";

let device: Device;
let folder: string;
let target: Target;
beforeAll(async () => {
  device = Device.open({ threads: 1 });
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-pair-"));
  await writeUntrainedPair(folder, device);
  target = await loadTarget(TARGET, device);
});
afterAll(async () => {
  target[Symbol.dispose]();
  device[Symbol.dispose]();
  await rm(folder, { recursive: true });
});

describe("a pair as training starts from it", () => {
  it("has a verbalizer that is the target with one row more, the mean of the others, for the marker", () => {
    using pair = untrainedPair(target);
    const { verbalizer } = pair;
    expect(verbalizer.contract.marker).toMatchObject({ char: "\u320e", tokenId: 512 });
    expect(verbalizer.model.config.vocabulary).toBe(513);
    const before = target.model.get(EMBEDDING).readF32();
    const after = verbalizer.model.get(EMBEDDING).readF32();
    expect(after.slice(0, before.length)).toEqual(before);
    for (let i = 0; i < 64; i++) {
      let mean = 0;
      for (let row = 0; row < 512; row++) mean += before[row * 64 + i]! / 512;
      expect(after[512 * 64 + i]).toBeCloseTo(mean, 6);
    }
    expect(verbalizer.prompt.ids[0]).toBe(target.tokenizer.bosId); // no chat template: plain, with BOS
    expect(verbalizer.prompt.ids[verbalizer.prompt.site]).toBe(512);
  });

  it("has a reconstructor that gives the target's own state at the text's last token", async () => {
    using pair = untrainedPair(target);
    const text = "The dog ran";
    const ids = target.tokenizer.encode(text, { addSpecialTokens: true });
    const [activations] = await activationsOf(target, 2, [ids]);
    const [rebuilt] = await pair.reconstructor.reconstruct([text]);
    const last = (activations as Float32Array).slice(-64);
    (rebuilt as Float32Array).forEach((value, i) => expect(value).toBeCloseTo(last[i]!, 4));
  });

  it("refuses a reconstructor that was cut at another block", () => {
    using pair = untrainedPair(target);
    const { model, tokenizer, contract } = pair.reconstructor;
    expect(() => new Reconstructor(model, tokenizer, { ...contract, layer: 1 })).toThrow(
      /found 3 blocks; wanted 2/,
    );
  });

  it("takes a marker that the vocabulary has, the first, and adds none", async () => {
    const qwen = sharedPath("golden/nla/actor/qwen2/av");
    if (qwen === null) return;
    const tokenizer = await loadTokenizer(qwen);
    expect(chooseMarker(tokenizer)).toEqual({ char: "\u320e", tokenizer, added: false });
    const contract = makeContract(
      {
        layer: 2,
        dim: 24,
        char: "\u320e",
        verbalizerTemplate: "Read <vector>{injection_char}</vector> aloud.",
        reconstructorTemplate: "Heard: {explanation}</said> <vector>",
        injectionScale: null,
        format: "tags",
      },
      tokenizer,
    );
    expect(contract.marker).toEqual({ char: "\u320e", tokenId: 297, left: 29, right: 267 });
    expect(contract.suffixIds).toEqual(tokenizer.encode("</said> <vector>").slice(1));
    expect(contract.mseScale).toBe(Math.sqrt(24));
  });
});

describe("a pair in a folder", () => {
  it("comes back as it was written: contract, marker token, weights", async () => {
    using pair = untrainedPair(target);
    const { model: verbalizer, sidecar } = await loadVerbalizer(path.join(folder, "verbalizer"), device);
    using _verbalizer = verbalizer;
    const { model: reconstructor } = await loadReconstructor(path.join(folder, "reconstructor"), device);
    using _reconstructor = reconstructor;
    expect(verbalizer.contract).toEqual(pair.verbalizer.contract);
    expect(reconstructor.contract).toEqual(pair.reconstructor.contract);
    expect(verbalizer.prompt).toEqual(pair.verbalizer.prompt);
    expect(verbalizer.stopTokens).toEqual(pair.verbalizer.stopTokens);
    expect(sidecar).toMatchObject({
      role: "av",
      stage: "init",
      baseCheckpoint: TARGET,
      layerIndex: 2,
      spelling: "released",
    });
    expect(sidecar.format).toEqual({ kind: "plain", end: target.tokenizer.eosId });
    for (const name of pair.verbalizer.model.parameters.tensors.keys()) {
      expect(verbalizer.model.get(name).readF32(), name).toEqual(pair.verbalizer.model.get(name).readF32());
    }
    const vector = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i));
    const options = { temperature: 1, seed: 3, maxNewTokens: 20, samples: 2 };
    expect(await verbalizer.explain([vector], options)).toEqual(
      await pair.verbalizer.explain([vector], options),
    );
    expect(await reconstructor.reconstruct(["a dog"])).toEqual(
      await pair.reconstructor.reconstruct(["a dog"]),
    );
  });
});

describe("a target", () => {
  it("is found by its bundled name, and anything else is a path", () => {
    expect(path.basename(targetDirectory(TARGET))).toBe(TARGET);
    expect(path.isAbsolute(targetDirectory(TARGET))).toBe(true);
    expect(targetDirectory("some/where")).toBe("some/where");
  });

  it("gives each text the activations that it has alone", async () => {
    const texts = ["One.", "Two dogs and a cat."].map((text) =>
      target.tokenizer.encode(text, { addSpecialTokens: true }),
    );
    const both = await activationsOf(target, 1, texts);
    for (const [i, ids] of texts.entries()) {
      const { blocks } = await run(target.model, [ids], { capture: [1] });
      expect(both[i]?.length).toBe(ids.length * 64);
      (both[i] as Float32Array).forEach((value, k) => expect(value).toBeCloseTo(blocks.get(1)![k]!, 4));
    }
  });

  it("has no layer beyond its last block", async () => {
    await expect(activationsOf(target, 4, [[1, 2]])).rejects.toMatchObject({
      code: "model.layer",
      found: "a model of 4 blocks",
    });
  });

  it("is refused where there is none", async () => {
    await expect(loadTarget(path.join(folder, "nothing"), device)).rejects.toMatchObject({
      name: "NlaError",
    });
  });
});
