// Equality with Hugging Face transformers on the golden folders: logits, hidden states, loss, gradients, AdamW steps, greedy
// tokens, injection, padding. Tolerances are those of the golden README.
import { readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  declareBatch,
  Decoder,
  finalNorm,
  forward,
  generate,
  headOf,
  loadDecoder,
  packedRows,
  padBatch,
  parseConfig,
  run,
} from "../../src/model/index.js";
import { adamw, Device, GradientSums, Graph, ops } from "../../src/tensor/index.js";
import type { Tensor } from "../../src/tensor/index.js";
import { describeWith, sharedPath } from "../shared.js";
import { hasConfigV5, openGolden, relativeL2 } from "./golden.js";
import type { Golden } from "./golden.js";

const FOLDERS = [
  "llama-mha-tied",
  "llama3-gqa",
  "aidreams260K",
  "qwen2",
  "qwen2-yarn",
  "qwen3",
  "gemma2",
  "gemma3",
  "gemma3-mm",
  "mistral",
];

describe.each(FOLDERS)("golden %s", (name) => {
  const directory = sharedPath(`golden/models/${name}`);
  const modelDirectory =
    name === "aidreams260K" ? path.resolve(import.meta.dirname, "../../assets/aidreams260K") : directory;
  describeWith(directory, "", () => {
    let device: Device;
    let golden: Golden;
    let model: Decoder;
    beforeAll(async () => {
      device = Device.open({ threads: 1 });
      golden = await openGolden(directory as string, modelDirectory as string);
      model = await loadDecoder(golden.model, device);
    });
    afterAll(() => {
      model[Symbol.dispose]();
      device[Symbol.dispose]();
    });

    test.each(["right", "left"] as const)(
      "logits and every hidden state, padded on the %s",
      async (padding) => {
        const layers = Array.from({ length: model.config.layers }, (_, k) => k);
        const result = await run(model, golden.json.sequences, {
          capture: layers,
          embedded: true,
          normed: true,
          logits: "all",
          padding,
        });
        expect(relativeL2(result.embedded!, await golden.tensor("hidden.embed"))).toBeLessThan(1e-5);
        for (const k of layers) {
          expect(
            relativeL2(result.blocks.get(k)!, await golden.tensor(`hidden.block${k}`)),
            `block ${k}`,
          ).toBeLessThan(1e-5);
        }
        expect(relativeL2(result.normed!, await golden.tensor("hidden.norm"))).toBeLessThan(1e-5);
        expect(relativeL2(result.logits!, await golden.tensor("logits"))).toBeLessThan(1e-5);
      },
    );

    test("logits of the last tokens, padded on the left", async () => {
      const result = await run(model, golden.json.sequences, { logits: "last", padding: "left" });
      expect(relativeL2(result.logits!, await golden.tensor("left.logits"))).toBeLessThan(1e-5);
    });

    test("each sequence alone gives what it gets in the batch", async () => {
      const together = await run(model, golden.json.sequences, { logits: "all" });
      let start = 0;
      for (const sequence of golden.json.sequences) {
        const alone = await run(model, [sequence], { logits: "all" });
        const size = sequence.length * model.config.vocabulary;
        expect(relativeL2(alone.logits!, together.logits!.slice(start, start + size))).toBeLessThan(1e-5);
        start += size;
      }
    });

    test("injection replaces a row of what enters block 0", async () => {
      const { position, sequence } = golden.json.inject;
      const vector = await golden.tensor("inject.vector");
      const result = await run(model, [golden.json.sequences[sequence]!], {
        logits: "all",
        inject: [{ sequence: 0, position, vector }],
      });
      expect(relativeL2(result.logits!, await golden.tensor("inject.logits"))).toBeLessThan(1e-5);
    });

    test("a pass that stops after a block gives what the whole one gives there", async () => {
      const { block, sequence } = golden.json.truncated;
      const result = await run(model, [golden.json.sequences[sequence]!], { capture: [block] });
      expect(
        relativeL2(result.blocks.get(block)!, await golden.tensor(`truncated.block${block}`)),
      ).toBeLessThan(1e-5);
    });

    test("greedy continuations, token by token", async () => {
      const { generation } = golden.json;
      const results = await generate(
        model,
        generation.map(({ prompt }) => prompt),
        { maxNewTokens: 24, temperature: 0 },
      );
      results.forEach(({ tokens }, i) => expect(tokens).toEqual(generation[i]!.tokens));
    });

    test("loss, all gradients, and parameters after one and three AdamW steps", async () => {
      using trained = model.copy();
      const { tokens, weights } = await lossInputs(golden);
      const batch = padBatch(golden.json.sequences, { maxLength: 4096 });
      const rows = packedRows(batch);
      using sums = new GradientSums(trained.parameters.tensors);
      using g = new Graph(device);
      const declared = declareBatch(g, batch);
      const { blocks } = forward(g, trained, declared);
      const n = batch.rows * batch.length;
      const hidden = finalNorm(g, trained, blocks.at(-1) as Tensor);
      const targets = g.input("targets", [n], "i32");
      const loss = ops.crossEntropy(g, hidden, headOf(trained), targets, g.input("weights", [n]), {
        chunk: 50,
        softcap: model.config.logitSoftcap,
      });
      g.output(loss);
      sums.accumulate(g, g.backward(loss));
      const targetValues = new Int32Array(n);
      const weightValues = new Float32Array(n);
      const total = weights.reduce((a, b) => a + b, 0);
      rows.forEach((row, i) => {
        targetValues[row] = Math.max(0, tokens[i]!);
        weightValues[row] = weights[i]! / total;
      });
      const { lr, betas, eps, weight_decay, clip_grad_norm } = golden.json.adamw;
      const optimizer = adamw({
        beta1: betas[0],
        beta2: betas[1],
        eps,
        weightDecay: weight_decay,
        clipNorm: clip_grad_norm,
      });
      using state = optimizer.init(sums);
      const starts = new Map([...trained.parameters.tensors].map(([name, t]) => [name, t.readF32()]));
      for (let step = 1; step <= 3; step++) {
        sums.clear();
        await g.run({ ...declared.values(batch), targets: targetValues, weights: weightValues });
        if (step === 1) {
          expect(Math.abs(loss.readF32()[0]! - golden.json.loss)).toBeLessThan(1e-5);
          for (const [name, sum] of sums.sums.tensors) {
            expect(relativeL2(sum.readF32(), await golden.tensor(`grad.${name}`)), name).toBeLessThan(1e-4);
          }
        }
        const { gradientNorm } = await optimizer.update(state, lr);
        if (step === 1) expect(Math.abs(gradientNorm / golden.json.grad_norm - 1)).toBeLessThan(1e-5);
        if (step === 2) continue;
        const stored = golden.names.filter((each) => each.startsWith(`step${step}.`));
        expect(stored.length).toBeGreaterThan(0);
        for (const each of stored) {
          const name = each.slice(`step${step}.`.length);
          const before = starts.get(name)!;
          const update = trained
            .get(name)
            .readF32()
            .map((x, i) => x - before[i]!);
          const wanted = (await golden.tensor(each)).map((x, i) => x - before[i]!);
          expect(relativeL2(update, wanted), each).toBeLessThan(1e-2);
        }
      }
    });

    test.skipIf(directory === null || !hasConfigV5(directory))(
      "config.json of transformers 5 is the same model",
      () => {
        const json = JSON.parse(
          readFileSync(path.join(directory as string, "config.v5.json"), "utf8"),
        ) as unknown;
        expect({ ...parseConfig(json, "v5"), json: null }).toEqual({ ...model.config, json: null });
      },
    );
  });
});

async function lossInputs(golden: Golden) {
  return { tokens: golden.json.targets, weights: await golden.tensor("loss.weights") };
}
