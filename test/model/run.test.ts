// One pass over ragged sequences: what is captured, where it stops, what weights and padding mean, and what is refused.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  declareBatch,
  finalNorm,
  forward,
  headOf,
  packedRows,
  padBatch,
  run,
  truncateConfig,
} from "../../src/model/index.js";
import type { Decoder } from "../../src/model/index.js";
import { Device, GradientSums, Graph, ops } from "../../src/tensor/index.js";
import { relativeL2 } from "../../src/model/index.js";
import { logSoftmax, someIds, tinyModel } from "./tiny.js";

let device: Device;
let model: Decoder;
beforeAll(() => {
  device = Device.open({ threads: 1 });
  model = tinyModel(device, { num_hidden_layers: 5 });
});
afterAll(() => {
  model[Symbol.dispose]();
  device[Symbol.dispose]();
});

const SEQUENCES = [17, 4, 29].map((length, i) => someIds(length, 61, i));

const weightOf = (packed: number) => [0.5, 0, 2, -1][packed % 4]!;
const vector = (seed: number) => Float32Array.from({ length: 32 }, (_, i) => Math.sin(seed + i));

describe("capture", () => {
  test.each([[[]], [[3]], [[0, 2, 4]], [[4, 1]], [[1, 1]], [[0, 1, 2, 3, 4]]])(
    "blocks %j in one pass",
    async (capture) => {
      const all = await run(model, SEQUENCES, { capture: [0, 1, 2, 3, 4] });
      const some = await run(model, SEQUENCES, { capture });
      expect([...some.blocks.keys()]).toEqual([...new Set(capture)]);
      for (const [k, values] of some.blocks) {
        expect(values).toEqual(all.blocks.get(k));
        expect(values.length).toBe((17 + 4 + 29) * 32);
      }
      expect(some).toMatchObject({ embedded: null, normed: null, logits: null, lengths: [17, 4, 29] });
    },
  );

  test("what enters block 0 is the embedding's rows", async () => {
    const { embedded } = await run(model, SEQUENCES, { embedded: true });
    const table = model.get("model.embed_tokens.weight").readF32();
    SEQUENCES.flat().forEach((id, i) => {
      expect(embedded!.subarray(i * 32, i * 32 + 32)).toEqual(table.subarray(id * 32, id * 32 + 32));
    });
  });

  test("nothing beyond the last wanted block is computed", async () => {
    const nodesUntil = (until: number) => {
      using g = new Graph(device, { recording: false });
      const declared = declareBatch(g, padBatch(SEQUENCES, { maxLength: 96 }));
      const { blocks } = forward(g, model, declared, { until });
      expect(blocks).toHaveLength(until + 1);
      g.output(blocks.at(-1)!);
      return g.nodes;
    };
    const counts = [0, 1, 2, 3, 4].map(nodesUntil);
    const perBlock = counts[1]! - counts[0]!;
    expect(perBlock).toBeGreaterThan(10);
    expect(counts).toEqual([0, 1, 2, 3, 4].map((k) => counts[0]! + k * perBlock));

    // And a model that has no later blocks, norm or head gives the same bytes.
    using cut = model.copy(truncateConfig(model.config, 3), { finalNorm: false, head: false });
    expect(cut.parameterCount).toBeLessThan(model.parameterCount);
    const whole = await run(model, SEQUENCES, { capture: [2] });
    expect((await run(cut, SEQUENCES, { capture: [2] })).blocks.get(2)).toEqual(whole.blocks.get(2));
  });
});

// The loss and all gradients of a weighted cross-entropy; padding has what `padWith` says.
async function lossOf(padding: "right" | "left", padWith: number, weightAt: (packed: number) => number) {
  const batch = padBatch(SEQUENCES, { maxLength: 96, padding, multiple: 8 });
  const n = batch.rows * batch.length;
  const targets = new Int32Array(n).fill(padWith);
  const weights = new Float32Array(n);
  const ids = new Int32Array(n).fill(padWith);
  let packed = 0;
  const rows = packedRows(batch);
  for (const sequence of SEQUENCES) {
    sequence.forEach((id, i) => {
      const row = rows[packed]!;
      ids[row] = id;
      targets[row] = sequence[i + 1] ?? 0;
      weights[row] = i + 1 < sequence.length ? weightAt(packed) : 0;
      packed++;
    });
  }
  using g = new Graph(device);
  using sums = new GradientSums(model.parameters.tensors);
  const declared = declareBatch(g, batch);
  const hidden = finalNorm(g, model, forward(g, model, declared).blocks.at(-1)!);
  const loss = g.output(
    ops.crossEntropy(g, hidden, headOf(model), g.input("targets", [n], "i32"), g.input("weights", [n]), {
      chunk: 20,
    }),
  );
  sums.accumulate(g, g.backward(loss));
  sums.clear();
  await g.run({ ...declared.values({ ...batch, ids }), targets, weights });
  const gradients = [...sums.sums.tensors.values()].map((tensor) => tensor.readF32());
  return { loss: loss.readF32()[0]!, gradients };
}
describe("loss weights and padding", () => {
  test("the loss is the weighted sum over real tokens", async () => {
    const { logits } = await run(model, SEQUENCES, { logits: "all" });
    let wanted = 0;
    let packed = 0;
    for (const sequence of SEQUENCES) {
      sequence.forEach((_, i) => {
        const next = sequence[i + 1];
        if (next !== undefined) {
          wanted -= weightOf(packed) * logSoftmax(logits!.subarray(packed * 61, packed * 61 + 61))[next]!;
        }
        packed++;
      });
    }
    expect((await lossOf("right", 0, weightOf)).loss).toBeCloseTo(wanted, 3);
  });

  test("what stands in the padding changes not one bit of loss or gradients", async () => {
    const zero = await lossOf("right", 0, weightOf);
    const other = await lossOf("right", 60, weightOf);
    expect(other.loss).toBe(zero.loss);
    expect(other.gradients).toEqual(zero.gradients);
  });

  test("padding on the left gives the same loss and gradients", async () => {
    const right = await lossOf("right", 0, weightOf);
    const left = await lossOf("left", 3, weightOf);
    expect(left.loss).toBeCloseTo(right.loss, 4);
    left.gradients.forEach((gradient, i) => {
      expect(relativeL2(gradient, right.gradients[i]!)).toBeLessThan(1e-4);
    });
  });

  test("all weights 0: no loss and no gradient", async () => {
    const { loss, gradients } = await lossOf("right", 0, () => 0);
    expect(Math.abs(loss)).toBe(0);
    for (const gradient of gradients) expect(gradient.every((x) => x === 0)).toBe(true);
  });
});

describe("injection", () => {
  test.each(["right", "left"] as const)(
    "replaces rows of what enters block 0, padding %s",
    async (padding) => {
      const inject = [
        { sequence: 2, position: 0, vector: vector(1) },
        { sequence: 0, position: 16, vector: vector(2) },
        { sequence: 2, position: 28, vector: vector(3) },
      ];
      const options = { embedded: true, padding } as const;
      const plain = await run(model, SEQUENCES, options);
      const { embedded } = await run(model, SEQUENCES, { ...options, inject });
      const wanted = plain.embedded!.slice();
      wanted.set(vector(1), 21 * 32);
      wanted.set(vector(2), 16 * 32);
      wanted.set(vector(3), (21 + 28) * 32);
      expect(embedded).toEqual(wanted);
    },
  );

  const fine = { sequence: 0, position: 1, vector: vector(1) };
  test.each([
    [[{ ...fine, position: 17 }], /position 17 of sequence 0 \(17 tokens\)/],
    [[{ ...fine, position: -1 }], /position -1/],
    [[{ ...fine, position: 0.5 }], /position 0.5/],
    [[{ ...fine, position: NaN }], /position NaN/],
    [[{ ...fine, sequence: 3 }], /sequence 3 \(0 tokens\)/],
    [[fine, { ...fine, vector: new Float32Array(31) }], /injection 1.*31 elements; wanted 32 finite/],
    [[{ ...fine, vector: vector(1).fill(NaN) }], /32 elements, not all finite/],
    [[fine, { ...fine, position: 2 }, { ...fine, vector: vector(2) }], /injections 0 and 2/],
  ])("refuses %#", async (inject, message) => {
    await expect(run(model, SEQUENCES, { embedded: true, inject })).rejects.toMatchObject({
      code: "model.inject",
      message: expect.stringMatching(message) as string,
    });
  });
});

describe("what is refused names what was found and what was wanted", () => {
  test.each([
    ["a layer that does not exist", SEQUENCES, { capture: [5] }, "model.layer", [/5/, /0 to 4/]],
    ["a negative layer", SEQUENCES, { capture: [-1] }, "model.layer", [/-1/, /0 to 4/]],
    ["half a layer", SEQUENCES, { capture: [1.5] }, "model.layer", [/1\.5/, /0 to 4/]],
    ["a text beyond the context", [someIds(97, 61)], {}, "model.batch", [/97 tokens/, /1 to 96/]],
    ["an id beyond the vocabulary", [[1, 61]], { logits: "all" as const }, "tensor.index", [/61/, /60/]],
    ["no sequences", [], {}, "model.batch", [/no sequences/]],
  ])("%s", async (_, sequences, options, code, numbers) => {
    const thrown = await run(model, sequences, options).catch((error: unknown) => error);
    expect(thrown).toMatchObject({ name: "NlaError", code });
    const { subject, found, wanted, next, message } = thrown as Record<string, string>;
    for (const part of [subject, found, wanted, next]) expect(part).toMatch(/\S/);
    for (const number of numbers) expect(message).toMatch(number);
  });

  test("a copy of more blocks than there are", () => {
    expect(() => truncateConfig(model.config, 6)).toThrow(
      /6 blocks: found a model of 5 blocks; wanted .*1 to 5/,
    );
    expect(() => truncateConfig(model.config, 0)).toThrow(/wanted a number from 1 to 5/);
  });
});
