// Training in the released format: tags, a chat template, a marker that is in the vocabulary. The model is the reference's tiny
// random Llama, so its explanations are noise; what must work is the path. The plain format is in the other tests.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { loadVerbalizer } from "../nla/pair-files.js";
import type { Reconstructor } from "../nla/reconstructor.js";
import { chooseMarker, startReconstructor } from "../nla/start.js";
import { targetDirectory } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import { loadTokenizer } from "../text/tokenizer.js";
import { Device } from "../tensor/index.js";
import { runGrpo } from "./grpo.js";
import type { HeldOutRow } from "./held-out.js";
import { readRows } from "./metrics-log.js";
import {
  digestOf,
  inMemory,
  openTinyTraining,
  outputsIn,
  storageOf,
  temporaryFolder,
  tinyConfig,
} from "./testing/tiny-training.js";
import { warmStartReconstructor, warmStartVerbalizer } from "./warm-start.js";
import { wordingOf } from "./wording.js";

const actor = sharedPath("golden/nla/actor/llama/av");
const LABEL = "A note on a dog.\n\nAnother one on the sea.";

function rowsOf(count: number, labels: readonly string[] = []): (HeldOutRow & { readonly label: string })[] {
  return Array.from({ length: count }, (_, i) => ({
    vector: Float32Array.from({ length: 32 }, (__, j) => Math.sin(1 + i * 32 + j * (i + 1))),
    docId: `noise:${i}`,
    position: 5,
    text: null,
    label: labels[i] ?? `${LABEL} ${i}`,
  }));
}

describeWith(actor, "a pair in tags, with a chat template", () => {
  let device: Device;
  let verbalizer: Verbalizer;
  let reconstructor: Reconstructor;
  beforeAll(async () => {
    device = Device.open({ threads: 1 });
    verbalizer = (await loadVerbalizer(actor as string, device, { layer: 2 })).model;
    reconstructor = startReconstructor(verbalizer.model, verbalizer.tokenizer, verbalizer.contract);
  });
  afterAll(() => {
    reconstructor[Symbol.dispose]();
    verbalizer[Symbol.dispose]();
    device[Symbol.dispose]();
  });

  const config = tinyConfig({
    reconstructor: { steps: 2, batch: 3, micro_batch: 2, lr: 1e-3 },
    verbalizer: { steps: 2, batch: 3, micro_batch: 2, lr: 1e-3 },
    rl: { steps: 1, prompts: 2, group: 2, micro_batch: 2, max_new_tokens: 6 },
    log: { eval_every: 1, sample_every: 1, samples: 1 },
  });
  const context = (folder: string, stage: "ar_sft" | "av_sft") => ({
    rows: inMemory(rowsOf(4)),
    heldOut: rowsOf(4),
    settings: stage === "ar_sft" ? config.reconstructor : config.verbalizer,
    log: config.log,
    compute: "f32" as const,
    maxNewTokens: 6,
    outputs: outputsIn(folder, stage),
  });

  it("takes the steps of both warm starts and explains", async () => {
    expect(verbalizer.contract.format).toBe("tags");
    await using folder = await temporaryFolder();
    const storage = storageOf({ verbalizer, reconstructor });
    const before = digestOf(verbalizer.model.parameters.tensors);
    await warmStartReconstructor(reconstructor, context(folder.path, "ar_sft"), storage);
    const watched = context(folder.path, "av_sft");
    await warmStartVerbalizer(verbalizer, reconstructor, watched, storage);
    expect(digestOf(verbalizer.model.parameters.tensors)).not.toBe(before);
    const rows = await readRows(watched.outputs.metricsFile);
    expect(rows.map(({ stage, step }) => [stage, step])).toEqual([
      ["ar_sft", 0],
      ["ar_sft", 1],
      ["av_sft", 0],
      ["av_sft", 1],
    ]);
    for (const stage of ["ar_sft", "av_sft"]) {
      const [first, second] = rows.filter((row) => row.stage === stage).map(({ loss }) => loss as number);
      expect(second).toBeLessThan(first!);
    }
    // Six tokens close no tag: all failed, which counts as nothing explained and is no error.
    const evaluated = rows.at(-1)?.eval;
    expect(evaluated).toMatchObject({ n: 4, failed: 1, length: 6 });
    expect((evaluated as { fve: number }).fve).toBeCloseTo(0, 12);
    const [explanation] = await verbalizer.explain([rowsOf(1)[0]!.vector], { maxNewTokens: 6 });
    expect(explanation).toMatchObject({ text: null, finish: "length" });
    expect(explanation?.tokens.length).toBe(6);
  });

  it("goes through reinforcement learning, where a cut response is a failure and a step without signal no error", async () => {
    await using folder = await temporaryFolder();
    using frozen = (await loadVerbalizer(actor as string, device, { layer: 2 })).model;
    const outputs = outputsIn(folder.path, "rl");
    const rl = { ...config.rl, failed_penalty: -1.5 };
    const before = digestOf(verbalizer.model.parameters.tensors);
    await runGrpo(
      verbalizer,
      reconstructor,
      {
        rows: inMemory(rowsOf(4)),
        heldOut: rowsOf(4),
        settings: rl,
        log: config.log,
        compute: "f32",
        seed: 1,
        reference: frozen,
        variance: 1,
        outputs,
      },
      storageOf({ verbalizer, reconstructor }),
    );
    const [row] = await readRows(outputs.metricsFile);
    expect(row).toMatchObject({
      reward_mean: -1.5,
      reward_std: 0,
      failed: 1,
      truncated: 1,
      fve: 0,
      groups_dropped: 2,
      loss: null,
      loss_reconstructor: null,
      kl: null,
      gradient_norm: null,
    });
    expect(digestOf(verbalizer.model.parameters.tensors)).toBe(before);
    const [sample] = await readRows(outputs.samplesFile);
    expect(sample).toMatchObject({ explanation: null, mse: null, reward: -1.5 });
  });

  it("learns to close its tags, and then to be read", async () => {
    using learning = (await loadVerbalizer(actor as string, device, { layer: 2 })).model;
    await using folder = await temporaryFolder();
    const rows = rowsOf(2, ["a dog", "the sea"]);
    const watched = {
      ...context(folder.path, "av_sft"),
      rows: inMemory(rows),
      heldOut: rows,
      settings: {
        ...config.verbalizer,
        steps: 60,
        batch: 2,
        warmup: 5,
        lr: 1e-2,
        schedule: "constant" as const,
      },
      log: { ...config.log, eval_every: 60, sample_every: 60, samples: 2 },
      maxNewTokens: 80,
    };
    await warmStartVerbalizer(learning, reconstructor, watched, storageOf({ verbalizer: learning }));
    const explained = await learning.explain(
      rows.map(({ vector }) => vector),
      { maxNewTokens: 80 },
    );
    expect(explained.map(({ text, finish }) => [text, finish])).toEqual([
      ["a dog", "stop"],
      ["the sea", "stop"],
    ]);
    expect((await readRows(watched.outputs.metricsFile)).at(-1)?.eval).toMatchObject({ failed: 0 });
  });
});

function sized(vocabulary: number, contextLength: number): Target {
  return { model: { config: { vocabulary, contextLength } } } as unknown as Target;
}

describe("the wording of a new pair", () => {
  it("is plain for the bundled target, whose marker is added", async () => {
    using tiny = await openTinyTraining(1);
    const marker = chooseMarker(tiny.target.tokenizer);
    expect(marker.added).toBe(true);
    expect(wordingOf(tinyConfig(), tiny.target, marker.tokenizer)).toMatchObject({ format: "plain" });
    using pair = tiny.pair();
    expect(pair.verbalizer.model.config.vocabulary).toBe(tiny.target.model.config.vocabulary + 1);
    expect(pair.verbalizer.tokenizer.chatTemplate).toBeNull();
    const { tokenizer, prompt } = pair.verbalizer;
    expect(prompt.ids[0]).toBe(tokenizer.bosId);
    expect(prompt.ids[prompt.site]).toBe(tiny.target.model.config.vocabulary);
    // The added marker's row is the mean of the others, and an injected vector stands in its place anyway.
    const written = await readFile(path.join(targetDirectory("aidreams260K"), "config.json"), "utf8");
    expect((JSON.parse(written) as { vocab_size: number }).vocab_size).toBe(512);
  });

  it.skipIf(actor === null)("is tagged where chat template, vocabulary and context allow it", async () => {
    const tokenizer = await loadTokenizer(actor as string);
    expect(tokenizer.chatTemplate).not.toBeNull();
    const formatOf = (target: Target) => wordingOf(tinyConfig(), target, tokenizer).format;
    expect(formatOf(sized(151_936, 32_768))).toBe("tags");
    expect(formatOf(sized(151_936, 256))).toBe("plain");
    expect(formatOf(sized(300, 32_768))).toBe("plain");
    // What the config says goes first.
    const config = tinyConfig({ templates: { verbalizer: "[{injection_char}]" } });
    expect(wordingOf(config, sized(151_936, 32_768), tokenizer)).toMatchObject({
      format: "tags",
      verbalizerTemplate: "[{injection_char}]",
    });
  });
});
