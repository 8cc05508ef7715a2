// Pretraining from scratch on documents of the world: the loss falls, the future loss reaches the blocks up to its layer and no further,
// a run that was stopped ends with the same bytes.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { PythonRandom } from "../data/python-random.js";
import { NlaError } from "../error.js";
import { Decoder, parseConfig, randomParameters } from "../model/index.js";
import { loadTarget } from "../nla/target.js";
import { Device, GradientSums } from "../tensor/index.js";
import { SPECIAL_TOKENS } from "../world/vocabulary.js";
import { documentBatches, FUTURE_HEAD, futureHead, languageLoss } from "./language-model-step.js";
import type { DocumentBatch, FutureSettings } from "./language-model-step.js";
import { contentWords, trainLanguageModel } from "./language-model.js";
import { LossGraphs } from "./loss-graphs.js";
import { readRows, withoutTiming } from "./metrics-log.js";
import { openProgress } from "./progress.js";
import { outputsIn, temporaryFolder } from "./testing/tiny-training.js";
import { parseTargetConfig, TARGET_FORM } from "./target-config.js";
import type { TargetConfig } from "./target-config.js";
import { targetModelConfig, trainTarget, worldSource } from "./train-target.js";

const TINY = `
model: { dim: 32, layers: 2, heads: 2, ffn: 64 }
held_out: { documents: 8 }
steps: 40
batch: 8
micro_batch: 4
warmup: 5
lr: 0.01
future: { layer: 0 }
log: { eval_every: 20, checkpoint_every: 4 }
`;
const device = Device.open({ threads: 1 });
afterAll(() => device[Symbol.dispose]());

const silent = () => openProgress({ stream: { write: () => undefined }, clock: () => 0 });
const tiny = (...overrides: string[]): TargetConfig => parseTargetConfig(TINY, { overrides });
const modelOf = (config: TargetConfig) =>
  new Decoder(device, parseConfig(targetModelConfig(config), "test"), randomParameters(3));
const source = worldSource({ seed: 1, start: 0 });
const documents = Array.from({ length: 12 }, (_, i) => source.document(i));
const special: ReadonlySet<number> = new Set(SPECIAL_TOKENS.keys());

function settingsOf(config: TargetConfig, vocabulary: number): FutureSettings {
  const content = contentWords(documents, { vocabulary, share: config.future.content, special });
  return { ...config.future, content };
}

function fails(text: string): NlaError {
  try {
    parseTargetConfig(text, { file: "t.yaml" });
  } catch (thrown) {
    return thrown as NlaError;
  }
  throw new Error("it was taken");
}

describe("trainTarget", () => {
  it("lowers the loss, and writes a folder that loadTarget opens", async () => {
    await using folder = await temporaryFolder();
    const directory = await trainTarget(tiny(), {
      directory: path.join(folder.path, "run"),
      progress: silent(),
    });
    const rows = await readRows(path.join(folder.path, "run", "metrics.jsonl"));
    expect(rows).toHaveLength(40);
    const first = rows[0] as unknown as { loss: number; future: number };
    const last = rows[39] as unknown as typeof first & { eval: Record<string, number> };
    expect(first.loss).toBeGreaterThan(6.5); // ln 1098
    expect(last.loss).toBeLessThan(5.5);
    expect(last.future).toBeLessThan(first.future - 0.3);
    expect(last.eval.loss).toBeLessThan(5.5);
    expect(last.eval.distance).toBeCloseTo(last.eval.loss! - last.eval.bound!, 12);
    expect(last.eval.bound).toBeGreaterThan(0.4);
    expect(last.eval.bound).toBeLessThan(0.6);
    using target = await loadTarget(directory, device);
    const text = documents[0]!;
    expect(
      target.tokenizer.encode(target.tokenizer.decode([...text.ids]), { addSpecialTokens: true }),
    ).toEqual(text.ids.slice(0, -1));
    expect(target.model.config.layers).toBe(2);
  });

  it("goes on after a stop as if there had been none", async () => {
    await using folder = await temporaryFolder();
    const config = tiny("steps=9");
    const run = (name: string, signal?: AbortSignal) =>
      trainTarget(config, {
        directory: path.join(folder.path, name),
        progress: silent(),
        signal,
      });
    await run("whole");
    const stop = new AbortController();
    const stopping = openProgress({ stream: { write: () => undefined }, clock: () => 0 });
    const whenSix = {
      ...stopping,
      stage: (...args: Parameters<typeof stopping.stage>) => {
        const live = stopping.stage(...args);
        return {
          ...live,
          report: (report: Parameters<typeof live.report>[0]) => {
            if (report.step === 6) stop.abort(new Error("stop"));
            live.report(report);
          },
        };
      },
    };
    const directory = path.join(folder.path, "stopped");
    await expect(trainTarget(config, { directory, progress: whenSix, signal: stop.signal })).rejects.toThrow(
      "stop",
    );
    await run("stopped");
    const files = ["target/model.safetensors", "checkpoints/pretrain/step-000009/optimizer.safetensors"];
    for (const file of files) {
      const [whole, stopped] = await Promise.all(
        ["whole", "stopped"].map((name) => readFile(path.join(folder.path, name, file))),
      );
      expect(stopped!.equals(whole!), file).toBe(true);
    }
    const logs = await Promise.all(
      ["whole", "stopped"].map((name) => readRows(path.join(folder.path, name, "metrics.jsonl"))),
    );
    expect(logs[1]!.map(withoutTiming)).toEqual(logs[0]!.map(withoutTiming));
  });
});

describe("the future loss", () => {
  it("reaches the blocks up to its layer and none beyond", async () => {
    const config = tiny("model.layers=3", "future.layer=1", "future.weight=0.5");
    using model = modelOf(config);
    using head = futureHead(model);
    const settings = settingsOf(config, model.config.vocabulary);
    const tensor = head.get(FUTURE_HEAD);
    tensor.write(randomParameters(5)(FUTURE_HEAD, tensor.shape));
    const parameters = new Map(model.parameters.tensors).set(FUTURE_HEAD, tensor);
    const gradients = async (weight: number) => {
      const weighted = { ...settings, weight };
      using sums = new GradientSums(parameters);
      using graphs = new LossGraphs<DocumentBatch>(
        {
          device,
          compute: "f32",
          build: (g, micro) => languageLoss(g, model, micro, { settings: weighted, head: tensor }),
          shapeOf: () => "one",
        },
        sums,
      );
      const micros = documentBatches(
        documents.slice(0, 4).map(({ ids }) => ids),
        { microBatch: 4, maxLength: 128, future: { settings: weighted, random: new PythonRandom(1) } },
      );
      const { loss } = await graphs.run(micros);
      return {
        loss,
        micros,
        of: new Map([...sums.sums.tensors].map(([name, sum]) => [name, sum.readF32()])),
      };
    };
    const [without, withFuture] = [await gradients(1e-9), await gradients(0.5)];
    const moved = (name: string) => {
      const [a, b] = [without.of.get(name)!, withFuture.of.get(name)!];
      const size = Math.hypot(...a) + 1e-12;
      return Math.hypot(...a.map((value, i) => value - b[i]!)) / size;
    };
    for (const k of [0, 1]) {
      expect(moved(`model.layers.${k}.mlp.down_proj.weight`), `block ${k}`).toBeGreaterThan(0.05);
      expect(moved(`model.layers.${k}.self_attn.o_proj.weight`), `block ${k}`).toBeGreaterThan(0.05);
    }
    for (const part of ["mlp.down_proj", "mlp.up_proj", "self_attn.q_proj", "self_attn.o_proj"])
      expect(moved(`model.layers.2.${part}.weight`), part).toBeLessThan(1e-6);
    expect(moved("model.norm.weight")).toBeLessThan(1e-6);
  });

  it("draws later content words of the same document", () => {
    const vocabulary = 1098;
    const settings = { ...settingsOf(tiny(), vocabulary), pairs: 2 };
    const ids = documents.slice(0, 6).map((each) => each.ids);
    const draw = () =>
      documentBatches(ids, {
        microBatch: 3,
        maxLength: 128,
        future: { settings, random: new PythonRandom(7) },
      });
    let total = 0;
    for (const { batch, future } of draw()) {
      future!.weights.forEach((weight, i) => {
        total += weight;
        if (weight === 0) return;
        const row = Math.floor(future!.from[i]! / batch.length);
        const t = future!.from[i]! % batch.length;
        const word = future!.words[i]!;
        const line = batch.ids.subarray(row * batch.length, row * batch.length + batch.lengths[row]!);
        expect(line.subarray(t + 1)).toContain(word);
        expect(settings.content[word]).toBe(true);
        expect(special.has(word)).toBe(false);
      });
    }
    expect(total).toBeCloseTo(1, 4);
    expect(draw()).toEqual(draw());
  });
});

describe("trainLanguageModel", () => {
  it("refuses a corpus that it would have to read twice", async () => {
    await using folder = await temporaryFolder();
    const config = tiny();
    using model = modelOf(config);
    const few = { count: 319, document: source.document.bind(source) };
    const outputs = outputsIn(folder.path, "rl");
    const context = { documents: few, heldOut: documents, settings: config, specialIds: special, outputs };
    await expect(trainLanguageModel(model, context)).rejects.toThrow(/none seen twice/);
  });
});

describe("the config of a target", () => {
  it("names unknown keys, and what contradicts itself", () => {
    expect(fails("stepz: 4").code).toBe("config.unknown-key");
    expect(fails("stepz: 4").message).toMatch(/steps/);
    expect(fails("future: { layer: 4 }").message).toMatch(/future.layer/);
    expect(fails("model: { dim: 30 }").message).toMatch(/model.dim/);
    expect(fails("held_out: { start: 100 }").message).toMatch(/do not meet/);
  });

  it("has every key in docs/target.md, with its default", async () => {
    const text = await readFile(path.resolve(import.meta.dirname, "../../docs/target.md"), "utf8");
    const rows = text.split("\n").filter((line) => line.startsWith("| `"));
    const cells = rows.map((row) => row.split("|").map((cell) => cell.trim().replaceAll("`", "")));
    const keys = TARGET_FORM.keys.filter(({ type }) => type !== "section");
    const documented = new Map(cells.map((each) => [each[1], each[3]]));
    expect(documented).toEqual(new Map(keys.map((key) => [key.path, key.default])));
  });

  it("of the repository is one", async () => {
    const text = await readFile(
      path.resolve(import.meta.dirname, "../../configs/smallworld-target.yaml"),
      "utf8",
    );
    expect(parseTargetConfig(text).model.layers).toBe(4);
  });
});
