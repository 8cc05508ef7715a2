// Norm-matched addition after a block: what it does to the residual stream, in generation and in gradients, and a verbalizer
// whose sidecar asks for it.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { continueSlowly, someIds, tinyModel } from "../../test/model/tiny.js";
import { declareBatch, forward, generate, padBatch, relativeL2, run } from "../model/index.js";
import type { Decoder } from "../model/index.js";
import { Device, Graph, ops } from "../tensor/index.js";
import type { Tensor } from "../tensor/index.js";
import { loadVerbalizer, saveVerbalizer } from "./pair-files.js";
import { writeUntrainedPair } from "./testing/untrained-pair.js";

const DIM = 32;
const vector = Float32Array.from({ length: DIM }, (_, i) => Math.sin(i * 2.3) * 7);
const ids = someIds(9, 61, 3);
const AT = 4;
const norm = (x: Float32Array) => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0));

let device: Device;
let model: Decoder;
let folder: string;
beforeAll(async () => {
  device = Device.open({ threads: 1 });
  model = tinyModel(device);
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-add-normed-"));
});
afterAll(async () => {
  model[Symbol.dispose]();
  device[Symbol.dispose]();
  await rm(folder, { recursive: true });
});

const inject = (v: Float32Array = vector, after: number | null = 1) => [
  { sequence: 0, position: AT, vector: v, after },
];

describe("a vector added after block 1", () => {
  it("is there at the length of the state, and nowhere before", async () => {
    const capture = [0, 1, 2];
    const without = await run(model, [ids], { capture });
    const injected = await run(model, [ids], { capture, inject: inject() });
    const at = (k: number, result: typeof without, p: number) =>
      result.blocks.get(k)!.slice(p * DIM, (p + 1) * DIM);
    expect(injected.blocks.get(0)).toEqual(without.blocks.get(0));
    const h = at(1, without, AT);
    const wanted = h.map((x, i) => x + (norm(h) * vector[i]!) / norm(vector));
    expect(relativeL2(at(1, injected, AT), wanted)).toBeLessThan(1e-6);
    for (let p = 0; p < ids.length; p++) {
      if (p !== AT) expect(at(1, injected, p)).toEqual(at(1, without, p));
      const moved = relativeL2(at(2, injected, p), at(2, without, p));
      if (p < AT) expect(moved).toBe(0);
      else expect(moved).toBeGreaterThan(1e-4);
    }
  });

  it("counts by its direction only; a zero vector adds nothing", async () => {
    const logits = async (v: Float32Array) =>
      (await run(model, [ids], { logits: "all", inject: inject(v) })).logits!;
    expect(relativeL2(await logits(vector.map((x) => 3 * x)), await logits(vector))).toBeLessThan(1e-5);
    const without = (await run(model, [ids], { logits: "all" })).logits!;
    expect(await logits(new Float32Array(DIM))).toEqual(without);
    expect(relativeL2(await logits(vector), without)).toBeGreaterThan(0.01);
  });

  it("stays in the cache while tokens are generated", async () => {
    const options = { temperature: 0, maxNewTokens: 8, seed: 0, inject: inject() };
    const [fast] = await generate(model, [ids], options);
    expect(fast!.tokens).toEqual((await continueSlowly(model, ids, options)).tokens);
  });

  it("lets gradients through, as finite differences have them", async () => {
    const batch = padBatch([ids], { maxLength: 96 });
    using g = new Graph(device);
    const declared = declareBatch(g, batch);
    const vectors = g.input("injected", [1, DIM]);
    const at = g.input("injectedAt", [1], "i32");
    const { blocks } = forward(g, model, declared, { inject: { vectors, at, after: 1 } });
    const loss = g.output(ops.mean(g, ops.square(g, blocks.at(-1) as Tensor)));
    const name = "model.layers.0.mlp.up_proj.weight";
    const parameter = model.get(name);
    const gradient = g.output(g.backward(loss).get(parameter) as Tensor);
    g.compile();
    const values = { ...declared.values(batch), injected: vector, injectedAt: Int32Array.of(AT) };
    await g.run(values);
    const found = gradient.readF32();
    const start = parameter.readF32();
    const step = 5e-3;
    const lossAt = async (sign: number) => {
      parameter.write(start.map((x, i) => x + (sign * step * found[i]!) / norm(found)));
      await g.run(values);
      return loss.readF32()[0]!;
    };
    const slope = ((await lossAt(1)) - (await lossAt(-1))) / (2 * step);
    parameter.write(start);
    expect(Math.abs(slope / norm(found) - 1)).toBeLessThan(3e-3);
  });

  it("is refused where it would be lost, or stands beside one of the other kind", async () => {
    await expect(run(model, [ids], { capture: [0], inject: inject() })).rejects.toMatchObject({
      code: "model.inject",
      found: "a pass that ends with block 0",
    });
    const both = [...inject(), { ...inject(vector, null)[0]!, position: 2 }];
    await expect(run(model, [ids], { logits: "last", inject: both })).rejects.toMatchObject({
      code: "model.inject",
      wanted: "one place for all vectors of a batch",
    });
  });
});

describe("a verbalizer with injection.kind add-normed", () => {
  it("is read from its sidecar, explains by it, and is saved with it", async () => {
    await writeUntrainedPair(folder, device);
    const directory = path.join(folder, "verbalizer");
    const file = path.join(directory, "nla_meta.yaml");
    const text = await readFile(file, "utf8");
    const changed = text
      .replace(/kind: "?replace"?/, "kind: add-normed")
      .replace(/ +injection_scale: .*\n/, "");
    expect(changed).not.toBe(text);
    await writeFile(file, changed);
    const { model: verbalizer } = await loadVerbalizer(directory, device);
    expect(verbalizer.contract.injection).toEqual({ kind: "add-normed", scale: null });
    expect(verbalizer.injectedAfter).toBe(1);
    const { dim } = verbalizer.contract;
    const some = Float32Array.from({ length: dim }, (_, i) => Math.cos(i * 1.1));
    const [explained] = await verbalizer.explain([some], { maxNewTokens: 8 });
    const { ids: prompt, site } = verbalizer.prompt;
    const slowly = await continueSlowly(verbalizer.model, prompt, {
      temperature: 0,
      maxNewTokens: explained!.tokens.length,
      seed: 0,
      inject: [{ sequence: 0, position: site, vector: some, after: 1 }],
    });
    expect(explained!.tokens).toEqual(slowly.tokens);
    const again = path.join(folder, "again");
    await saveVerbalizer(again, verbalizer, {
      stage: "sl",
      baseCheckpoint: "aidreams260K",
      parentCheckpoints: [],
      trainedOn: [],
    });
    expect(await readFile(path.join(again, "nla_meta.yaml"), "utf8")).toMatch(/kind: "?add-normed/);
    verbalizer[Symbol.dispose]();
  });
});
