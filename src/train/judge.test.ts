// Several reconstructors as one judge, held against what each says alone.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { reconstructionScores } from "../nla/fidelity.js";
import { Reconstructor } from "../nla/reconstructor.js";
import { judgeOf } from "./judge.js";
import { openTinyTraining } from "./testing/tiny-training.js";
import type { TinyPair, TinyTraining } from "./testing/tiny-training.js";

let tiny: TinyTraining;
let first: TinyPair;
let second: TinyPair;
beforeAll(async () => {
  tiny = await openTinyTraining(2);
  [first, second] = [tiny.pair(), tiny.pair()];
  // Another reconstructor: the map of its state turned by exchanging neighbours.
  const { head } = second.reconstructor;
  const values = head.readF32();
  const dim = head.shape[1] as number;
  head.write(values.map((_, i) => values[(Math.floor(i / dim) ^ 1) * dim + (i % dim)] as number));
});
afterAll(() => {
  for (const each of [first, second, tiny]) each[Symbol.dispose]();
});

describe("judgeOf", () => {
  it("gives the mean of the errors, or the largest, and nothing where there is no text", async () => {
    const texts = ["the king", null, "a sea . of blood", "the sea ".repeat(100)];
    const vectors = tiny.rows.slice(0, 4).map(({ vector }) => vector);
    const alone = [first, second].map(({ reconstructor }) => judgeOf([reconstructor]));
    const [a, b] = await Promise.all(alone.map((judge) => judge.errors(texts, vectors)));
    const [rebuilt] = await first.reconstructor.reconstruct(["the king"]);
    expect(a![0]).toBeCloseTo(reconstructionScores(rebuilt!, vectors[0]!).mse, 5);
    expect(a![0]).not.toBeCloseTo(b![0]!, 3);
    expect([a![1], a![3]]).toEqual([null, null]); // the last is longer than the context
    const both = [first.reconstructor, second.reconstructor] as const;
    const mean = await judgeOf(both).errors(texts, vectors);
    const worst = await judgeOf(both, "worst").errors(texts, vectors);
    for (const i of [0, 2]) {
      expect(mean[i]).toBeCloseTo((a![i]! + b![i]!) / 2, 12);
      expect(worst[i]).toBe(Math.max(a![i]!, b![i]!));
    }
    expect([mean[1], worst[3]]).toEqual([null, null]);
  });

  it("refuses reconstructors of another layer", () => {
    const { model, tokenizer, contract } = second.reconstructor;
    const other = { ...contract, layer: contract.layer - 1 };
    // Of the same decoder, so it is only the contract that differs; it owns nothing of its own but its head.
    const shallower = Object.create(Reconstructor.prototype, {
      contract: { value: other },
      model: { value: model },
      tokenizer: { value: tokenizer },
    }) as Reconstructor;
    expect(() => judgeOf([first.reconstructor, shallower])).toThrow(/layer 1.*wanted layer 2/s);
  });
});
