// Where a micro-batch's prompts, responses, activations, targets and weights stand: shown by the log-probabilities that
// generation itself gave for the very tokens it sampled.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { perToken, responseBatches } from "./response-batch.js";
import type { ResponseRow } from "./response-batch.js";
import { openTinyTraining } from "./testing/tiny-training.js";
import type { TinyPair, TinyTraining } from "./testing/tiny-training.js";
import { logProbGraphs } from "./verbalizer-step.js";

let tiny: TinyTraining;
let pair: TinyPair;
beforeAll(async () => {
  tiny = await openTinyTraining(6);
  pair = tiny.pair();
});
afterAll(() => {
  pair[Symbol.dispose]();
  tiny[Symbol.dispose]();
});

function rowOf(length: number): ResponseRow {
  return { vector: tiny.rows[0]!.vector, response: Array.from({ length }, () => 9) };
}

describe("responseBatches", () => {
  it("puts rows of like length together, prompt first, none lost", () => {
    const { verbalizer } = pair;
    const lengths = [7, 1, 30, 2, 30, 9, 1];
    const rows = lengths.map((length, i): ResponseRow => {
      return { vector: tiny.rows[i]!.vector, response: Array.from({ length }, (_, t) => 10 + t + i) };
    });
    const batches = responseBatches(verbalizer, rows, 3);
    expect(batches.map((each) => each.rows.map(({ response }) => response.length))).toEqual([
      [1, 1, 2],
      [7, 9, 30],
      [30],
    ]);
    expect(
      batches.flatMap((each) => each.rows).toSorted((a, b) => rows.indexOf(a) - rows.indexOf(b)),
    ).toEqual(rows);
    const prompt = verbalizer.prompt.ids;
    for (const { rows: part, batch, slots } of batches) {
      // Padded a little further than the longest, so that a few graphs serve all lengths.
      expect(batch.length).toBeGreaterThanOrEqual(Math.max(...batch.lengths));
      expect(batch.length).toBeLessThan(Math.max(...batch.lengths) + 16);
      expect(slots).toBe(batch.length - prompt.length);
      part.forEach(({ response }, r) => {
        const ids = Array.from(batch.ids.slice(r * batch.length, (r + 1) * batch.length));
        expect(ids.slice(0, prompt.length)).toEqual(prompt);
        expect(ids.slice(prompt.length, prompt.length + response.length)).toEqual(response);
      });
    }
  });

  it("gives one number per slot, zero where a row has no token", () => {
    const rows = [2, 3].map((length, i) => ({
      vector: tiny.rows[i]!.vector,
      response: [5, 6, 7].slice(0, length),
    }));
    const [batch] = responseBatches(pair.verbalizer, rows, 2);
    const values = perToken(batch!, ({ response }, i) => response[i]!);
    expect(values.length).toBe(2 * batch!.slots);
    expect(Array.from(values.slice(0, 4))).toEqual([5, 6, 0, 0]);
    expect(Array.from(values.slice(batch!.slots, batch!.slots + 4))).toEqual([5, 6, 7, 0]);
    expect(values.reduce((a, b) => a + b, 0)).toBe(29);
  });

  it("fills the context to its last token, and refuses a token more", () => {
    const { verbalizer } = pair;
    const room = verbalizer.model.config.contextLength - verbalizer.prompt.ids.length;
    expect(responseBatches(verbalizer, [rowOf(room)], 1)[0]?.batch.length).toBe(128);
    expect(() => responseBatches(verbalizer, [rowOf(room + 1)], 1)).toThrow(
      /129 tokens.*1 to 128 tokens, the model's context/s,
    );
  });
});

describe("declareResponses", () => {
  it("gives each sampled token the log-probability that generation gave it, full contexts included", async () => {
    const { verbalizer } = pair;
    const vectors = tiny.rows.slice(0, 24).map(({ vector }) => vector);
    // Capped by the context alone: 24 rows of up to 124 slots are more than one chunk of the head.
    const explanations = await verbalizer.explain(vectors, { temperature: 1, maxNewTokens: 1000, seed: 11 });
    const rows = explanations.map(({ tokens, logProbs, vector }) => {
      return { vector: vectors[vector] as Float32Array, response: tokens, logProbs };
    });
    const longest = Math.max(...rows.map(({ response }) => response.length));
    expect(longest).toBe(128 - verbalizer.prompt.ids.length);
    using graphs = logProbGraphs(verbalizer, "f32");
    for (const microBatch of [24, 5]) {
      const batches = responseBatches(verbalizer, rows, microBatch);
      const { outputs } = await graphs.run(batches);
      let farthest = 0;
      let tokens = 0;
      batches.forEach(({ rows: part, slots }, b) => {
        part.forEach(({ logProbs }, r) => {
          logProbs.forEach((wanted, i) => {
            farthest = Math.max(farthest, Math.abs(outputs[b]!.logProbs![r * slots + i]! - wanted));
            tokens++;
          });
        });
      });
      expect(tokens).toBeGreaterThan(1024);
      expect(farthest).toBeLessThan(1e-4);
    }
  });

  it("takes the activation at the marker: another one gives other log-probabilities", async () => {
    const { verbalizer } = pair;
    const response = verbalizer.tokenizer.encode("the king");
    using graphs = logProbGraphs(verbalizer, "f32");
    const of = async (vector: Float32Array) => {
      const [batch] = responseBatches(verbalizer, [{ vector, response }], 1);
      return (await graphs.run([batch!])).outputs[0]!.logProbs![0]!;
    };
    const [first, other] = [await of(tiny.rows[0]!.vector), await of(tiny.rows[9]!.vector)];
    expect(Math.abs(first - other)).toBeGreaterThan(1e-3);
    // Only the direction enters.
    expect(await of(tiny.rows[0]!.vector.map((value) => value * 7))).toBeCloseTo(first, 4);
  });
});
