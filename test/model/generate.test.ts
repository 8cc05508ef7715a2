// Generation with a cache against the slow way (the whole sequence again for each token), and all its options.
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  declareBatch,
  finalNorm,
  forward,
  generate,
  headOf,
  loadDecoder,
  padBatch,
  run,
} from "../../src/model/index.js";
import type { Decoder, Injection } from "../../src/model/index.js";
import { Device, Graph, ops } from "../../src/tensor/index.js";
import { describeWith, sharedPath } from "../shared.js";
import { relativeL2 } from "../../src/model/index.js";
import { continueSlowly, logSoftmax, someIds, tinyModel } from "./tiny.js";

let device: Device;
beforeAll(() => void (device = Device.open({ threads: 1 })));
afterAll(() => device[Symbol.dispose]());

const YARN = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 24 };
const KINDS: Record<string, Record<string, unknown>> = {
  "grouped queries": {},
  "multi-head, untied": { num_key_value_heads: 4, tie_word_embeddings: false },
  "one key head": { num_key_value_heads: 1 },
  "sliding window": { model_type: "mistral", sliding_window: 7 },
  "qwen2 with yarn": { model_type: "qwen2", rope_scaling: YARN },
  "gemma 2, windows and soft caps": {
    model_type: "gemma2",
    sliding_window: 5,
    attn_logit_softcapping: 3,
    final_logit_softcapping: 6,
    query_pre_attn_scalar: 12,
  },
  "gemma 3, two ropes": { model_type: "gemma3_text", sliding_window: 6, sliding_window_pattern: 2 },
};

describe.each(Object.entries(KINDS))("%s", (_, overrides) => {
  test.each([
    { temperature: 0 },
    { temperature: 1 },
    { temperature: 0.7, topK: 9 },
    { temperature: 1.3, topP: 0.8 },
  ])("ragged prompts to the context's end, %o", async (sampling) => {
    using model = tinyModel(device, { ...overrides, max_position_embeddings: 70 });
    // Slots are taken in steps of 32: these prompts start below, at and above a step, and all cross 64.
    const prompts = [3, 31, 32, 33, 50].map((length, i) => someIds(length, 61, i));
    const results = await generate(model, prompts, { ...sampling, maxNewTokens: 99, seed: 40 });
    for (const [i, { tokens, logProbs, entropies, finish, prompt }] of results.entries()) {
      const slow = await continueSlowly(model, prompts[i]!, { ...sampling, maxNewTokens: 99, seed: 40 + i });
      expect(tokens, `prompt ${i}`).toEqual(slow.tokens);
      expect(prompts[i]!.length + tokens.length).toBe(70);
      expect(finish).toBe("length");
      expect(prompt).toBe(i);
      logProbs.forEach((value, j) => expect(Math.abs(value - slow.logProbs[j]!)).toBeLessThan(1e-4));
      entropies.forEach((value, j) => expect(Math.abs(value - slow.entropies[j]!)).toBeLessThan(1e-4));
    }
  });
});

const GQA = sharedPath("golden/models/llama3-gqa");
describeWith(GQA, "Llama 3 with grouped queries and scaled rope", () => {
  let model: Decoder;
  beforeAll(async () => void (model = await loadDecoder(GQA as string, device)));
  afterAll(() => model[Symbol.dispose]());

  test.each([{ temperature: 0 }, { temperature: 1 }])("equals the slow way, %o", async (sampling) => {
    const { vocabulary } = model.config;
    const prompts = [20, 61].map((length, i) => someIds(length, vocabulary, i));
    const results = await generate(model, prompts, { ...sampling, maxNewTokens: 40, seed: [5, 900] });
    for (const [i, { tokens }] of results.entries()) {
      const options = { ...sampling, maxNewTokens: 40, seed: [5, 900][i]! };
      expect(tokens).toEqual((await continueSlowly(model, prompts[i]!, options)).tokens);
    }
  });
});

describe("a trained model", () => {
  let model: Decoder;
  beforeAll(async () => {
    model = await loadDecoder(path.resolve(import.meta.dirname, "../../assets/aidreams260K"), device);
  });
  afterAll(() => model[Symbol.dispose]());
  const prompts = [12, 5, 30].map((length, i) => someIds(length, 512, i));

  test("log-probs of sampled tokens are those of a teacher-forced pass", async () => {
    const results = await generate(model, prompts, { maxNewTokens: 50, seed: 3 });
    const texts = results.map(({ tokens }, i) => [...prompts[i]!, ...tokens]);
    const { logits } = await run(model, texts, { logits: "all" });
    const batch = padBatch(texts, { maxLength: model.config.contextLength });
    using g = new Graph(device, { recording: false });
    const declared = declareBatch(g, batch);
    const { blocks } = forward(g, model, declared);
    const targets = g.input("targets", [batch.rows * batch.length], "i32");
    const column = g.output(
      ops.tokenLogProbs(g, finalNorm(g, model, blocks.at(-1)!), headOf(model), targets, { chunk: 64 }),
    );
    const next = new Int32Array(batch.ids.length);
    next.set(batch.ids.subarray(1));
    await g.run({ ...declared.values(batch), targets: next });
    const forced = column.readF32();

    let packed = 0;
    results.forEach(({ tokens, logProbs }, i) => {
      const from = prompts[i]!.length - 1;
      tokens.forEach((token, j) => {
        const row = logits!.subarray((packed + from + j) * 512, (packed + from + j + 1) * 512);
        expect(Math.abs(logProbs[j]! - logSoftmax(row)[token]!)).toBeLessThan(1e-4);
        expect(Math.abs(logProbs[j]! - forced[i * batch.length + from + j]!)).toBeLessThan(1e-4);
      });
      packed += texts[i]!.length;
    });
  });

  test("several samples of a prompt are what separate prompts give", async () => {
    const options = { maxNewTokens: 20, temperature: 0.9, samples: 3, seed: 10 };
    const together = await generate(model, prompts.slice(0, 2), options);
    expect(together.map(({ prompt }) => prompt)).toEqual([0, 0, 0, 1, 1, 1]);
    const repeated = [0, 0, 0, 1, 1, 1].map((i) => prompts[i]!);
    const apart = await generate(model, repeated, { maxNewTokens: 20, temperature: 0.9, seed: 10 });
    expect(together.map(({ tokens }) => tokens)).toEqual(apart.map(({ tokens }) => tokens));
    expect(new Set(together.slice(0, 3).map(({ tokens }) => String(tokens))).size).toBe(3);
  });

  test("a sequence depends on its prompt and seed alone, not on the batch, nor on who leaves it", async () => {
    const seeds = [7, 8, 9];
    const options = { maxNewTokens: 40, temperature: 1 };
    const alone: (readonly number[])[] = [];
    for (const [i, prompt] of prompts.entries()) {
      alone.push((await generate(model, [prompt], { ...options, seed: seeds[i]! }))[0]!.tokens);
    }
    const backwards = await generate(model, prompts.toReversed(), { ...options, seed: seeds.toReversed() });
    expect(backwards.toReversed().map(({ tokens }) => tokens)).toEqual(alone);

    // Sequences that stop at once, so that the cache is copied to fewer rows while the others grow.
    const active: number[] = [];
    const shrinking = await generate(model, [...prompts, ...prompts, ...prompts], {
      ...options,
      seed: [...seeds, 100, 101, 102, 200, 201, 202],
      stopTokens: frequent(alone.flat()),
      onStep: (_, growing) => active.push(growing),
    });
    expect(active[0]).toBeGreaterThan(active.at(-2)!);
    expect(active.at(-1)).toBe(0);
    const stops = new Set(frequent(alone.flat()));
    shrinking.slice(0, 3).forEach(({ tokens, finish }, i) => {
      const at = alone[i]!.findIndex((token) => stops.has(token));
      expect(tokens).toEqual(at < 0 ? alone[i] : alone[i]!.slice(0, at + 1));
      expect(finish).toBe(at < 0 ? "length" : "stop");
    });
  });

  test("stop tokens and stop texts end a sequence and stay in it", async () => {
    const [plain] = await generate(model, [prompts[0]!], { maxNewTokens: 30, temperature: 0 });
    const token = plain!.tokens[4]!;
    const first = plain!.tokens.indexOf(token);
    const byToken = await generate(model, [prompts[0]!], {
      maxNewTokens: 30,
      temperature: 0,
      stopTokens: [token],
    });
    expect(byToken[0]).toMatchObject({ finish: "stop", tokens: plain!.tokens.slice(0, first + 1) });

    const text = decode(plain!.tokens.slice(6, 8)).slice(1, -1); // begins and ends within a token's text
    const byText = await generate(model, [prompts[0]!], {
      maxNewTokens: 30,
      temperature: 0,
      decode,
      stopStrings: ["never", text],
    });
    const end = plain!.tokens.findIndex((_, i) => decode(plain!.tokens.slice(0, i + 1)).includes(text));
    expect(byText[0]).toMatchObject({ finish: "stop", tokens: plain!.tokens.slice(0, end + 1) });
    expect(byText[0]!.logProbs).toHaveLength(end + 1);

    const capped = await generate(model, [prompts[0]!], { maxNewTokens: 3, temperature: 0 });
    expect(capped[0]).toMatchObject({ finish: "length", tokens: plain!.tokens.slice(0, 3) });
  });

  test("injection in generation is injection in run", async () => {
    const vector = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i * i));
    const inject: Injection[] = [{ sequence: 1, position: 3, vector }];
    const options = { maxNewTokens: 16, temperature: 0 };
    const results = await generate(model, prompts, { ...options, inject });
    const without = await generate(model, prompts, options);
    const slow = await continueSlowly(model, prompts[1]!, {
      ...options,
      seed: 0,
      inject: [{ sequence: 0, position: 3, vector }],
    });
    expect(results[1]!.tokens).toEqual(slow.tokens);
    expect(results[1]!.tokens).not.toEqual(without[1]!.tokens);
    expect(results[0]!.tokens).toEqual(without[0]!.tokens);
    expect(results[2]!.tokens).toEqual(without[2]!.tokens);
    // Every sample of a prompt gets the prompt's vector.
    const sampled = await generate(model, prompts, { ...options, inject, samples: 2 });
    expect(sampled.slice(2, 4).map(({ tokens }) => tokens)).toEqual([slow.tokens, slow.tokens]);
  });

  // bf16 keeps 8 bits of each weight and activation: 2^-9 relative per product, some 1e-2 after four blocks.
  test("bf16 copies change the logits by less than 2e-2, and are dropped again", async () => {
    const exact = await run(model, prompts, { logits: "all" });
    model.makeHalf();
    const half = await run(model, prompts, { logits: "all", compute: "bf16" });
    const error = relativeL2(half.logits!, exact.logits!);
    expect(error).toBeGreaterThan(1e-4);
    expect(error).toBeLessThan(2e-2);
    const [fast] = await generate(model, [prompts[0]!], { maxNewTokens: 20, compute: "bf16", seed: 1 });
    const text = [...prompts[0]!, ...fast!.tokens];
    model.dropCopies();
    const again = await run(model, prompts, { logits: "all" });
    expect(again.logits).toEqual(exact.logits);
    const { logits } = await run(model, [text], { logits: "all" });
    fast!.logProbs.forEach((value, j) => {
      const row = (prompts[0]!.length - 1 + j) * 512;
      const wanted = logSoftmax(logits!.subarray(row, row + 512))[fast!.tokens[j]!]!;
      expect(Math.abs(value - wanted)).toBeLessThan(0.15);
    });
  });

  test("the same call gives the same bytes, another seed others", async () => {
    const options = { maxNewTokens: 30, temperature: 1, seed: 2 ** 40 + 5 };
    const once = await generate(model, prompts, options);
    expect(await generate(model, prompts, options)).toEqual(once);
    expect(await generate(model, prompts, { ...options, seed: 6 })).not.toEqual(once);
  });

  test("an aborted generation ends in the signal's reason", async () => {
    const stop = new AbortController();
    const reason = new Error("enough");
    const growing = generate(model, prompts, {
      maxNewTokens: 60,
      signal: stop.signal,
      onStep: (step) => void (step === 5 && stop.abort(reason)),
    });
    await expect(growing).rejects.toBe(reason);
  });

  test.each([
    [{ maxNewTokens: 0 }, /maxNewTokens.*found 0/],
    [{ maxNewTokens: 1.5 }, /found 1.5/],
    [{ maxNewTokens: 4, samples: 0 }, /samples.*found 0/],
    [{ maxNewTokens: 4, temperature: NaN }, /temperature.*found NaN/],
    [{ maxNewTokens: 4, temperature: -1 }, /temperature.*found -1/],
    [{ maxNewTokens: 4, topK: -2 }, /topK.*found -2/],
    [{ maxNewTokens: 4, topP: 0 }, /topP.*found 0/],
    [{ maxNewTokens: 4, seed: NaN }, /seed.*found NaN/],
    [{ maxNewTokens: 4, seed: [1, 2] }, /seed.*found 2 seeds; wanted 3/],
    [{ maxNewTokens: 4, stopStrings: ["x"] }, /stopStrings.*no decode/],
  ])("refuses %o", async (options, message) => {
    await expect(generate(model, prompts, options)).rejects.toMatchObject({
      code: "model.generate",
      message: expect.stringMatching(message) as string,
    });
  });

  test("refuses prompts that are missing, empty or fill the context", async () => {
    const code = "model.generate";
    await expect(generate(model, [], { maxNewTokens: 1 })).rejects.toMatchObject({ code });
    await expect(generate(model, [[1], []], { maxNewTokens: 1 })).rejects.toMatchObject({
      code: "model.batch",
    });
    await expect(generate(model, [someIds(128, 512)], { maxNewTokens: 1 })).rejects.toMatchObject({
      code,
      found: "128 tokens",
      wanted: "fewer than the context of 128",
    });
    const [last] = await generate(model, [someIds(127, 512)], { maxNewTokens: 9 });
    expect(last).toMatchObject({ finish: "length" });
    expect(last!.tokens).toHaveLength(1);
  });
});

/** Ids as text, each of several characters. */
function decode(tokens: readonly number[]): string {
  return tokens.map((id) => `<${id}>`).join("");
}

/** The six ids that occur most often. */
function frequent(ids: readonly number[]): number[] {
  const counts = new Map<number, number>();
  for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1);
  return [...counts]
    .sort((a, b) => b[1] - a[1] || a[0] - b[0])
    .slice(0, 6)
    .map(([id]) => id);
}
