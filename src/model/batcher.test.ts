// Continuous batching gives every sequence what it would have got alone, whoever joins or leaves beside it.
import { setTimeout } from "node:timers/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Device } from "../tensor/index.js";
import { Batcher, generate, loadDecoder } from "./index.js";
import type { Decoder } from "./index.js";

const ASSET = path.resolve(import.meta.dirname, "../../assets/aidreams260K");
const prompt = (i: number) => Array.from({ length: 3 + (i % 9) }, (_, j) => 5 + ((i * 31 + j * 17) % 400));

describe.each([true, false])("with native kernels: %s", (kernels) => {
  let device: Device;
  let model: Decoder;
  beforeAll(async () => {
    device = Device.open({ threads: 1, kernels });
    model = await loadDecoder(ASSET, device);
  });
  afterAll(() => {
    model[Symbol.dispose]();
    device[Symbol.dispose]();
  });

  it("rows that join and leave at any time get the tokens of generate()", async () => {
    await using batcher = new Batcher(model, { maxRows: 8 });
    const wanted = Array.from({ length: 24 }, (_, i) => ({
      ids: prompt(i),
      maxNewTokens: 2 + ((i * 7) % 40),
      temperature: i % 3 === 0 ? 0 : i % 3 === 1 ? 1 : 0.7,
      topK: i % 4 === 0 ? 20 : 0,
      seed: 100 + i,
    }));
    const got = await Promise.all(
      wanted.map(async (each, i) => {
        await setTimeout(i % 5);
        return batcher.submit(each);
      }),
    );
    for (const [i, { ids, ...options }] of wanted.entries()) {
      const [alone] = await generate(model, [ids], options);
      expect(got[i]?.tokens, `sequence ${i}`).toEqual(alone?.tokens);
      got[i]?.logProbs.forEach((p, t) =>
        expect(Math.abs(p - (alone?.logProbs[t] as number))).toBeLessThan(1e-3),
      );
    }
    expect(batcher.load).toMatchObject({ active: 0, waiting: 0 });
    expect(batcher.load.tokens).toBe(got.reduce((sum, { tokens }) => sum + tokens.length, 0));
  });

  it("an aborted sequence frees its place, one that fails fails alone, and the rest goes on", async () => {
    await using batcher = new Batcher(model, { maxRows: 2 });
    const leaving = new AbortController();
    const endless = batcher.submit({ ids: prompt(1), maxNewTokens: 400, signal: leaving.signal });
    const vector = new Float32Array(3);
    const bad = batcher.submit({ ids: prompt(2), maxNewTokens: 4, inject: [{ position: 0, vector }] });
    const good = batcher.submit({ ids: prompt(3), maxNewTokens: 4, temperature: 0 });
    leaving.abort(new Error("gone"));
    const [a, b, c] = await Promise.allSettled([endless, bad, good]);
    expect(a).toMatchObject({ status: "rejected", reason: { message: "gone" } });
    expect(b).toMatchObject({ status: "rejected", reason: { code: "model.inject" } });
    expect(c).toMatchObject({ status: "fulfilled" });
    expect(batcher.load.active).toBe(0);
  });
});

describe("limits", () => {
  it("a long prompt, a full queue and a closed batch are refused", async () => {
    using device = Device.open({ threads: 1 });
    using model = await loadDecoder(ASSET, device);
    const batcher = new Batcher(model, { maxRows: 1, maxTokens: 32, maxQueue: 2 });
    const one = { ids: [1, 5], maxNewTokens: 8 };
    await expect(batcher.submit({ ...one, ids: Array.from({ length: 32 }, () => 5) })).rejects.toMatchObject({
      code: "batch.length",
    });
    const served = [batcher.submit(one), batcher.submit(one)];
    await expect(batcher.submit(one)).rejects.toMatchObject({ code: "batch.full" });
    const draining = batcher.drain();
    await expect(batcher.submit(one)).rejects.toMatchObject({ code: "batch.closed" });
    await draining;
    expect((await Promise.all(served)).map(({ tokens }) => tokens.length)).toEqual([8, 8]);
    const long = await Promise.resolve(batcher.load);
    expect(long).toMatchObject({ active: 0, waiting: 0 });
  });
});
