// The chooser: the same choices for the same seeds, every option alike, and the exact cost of each choice.
import { describe, expect, it } from "vitest";
import { Chooser, fixedBy } from "./chooser.js";

describe("costs", () => {
  it("are the negative log probabilities of what was chosen", () => {
    const choose = new Chooser(1);
    choose.pick(["a", "b", "c", "d"]);
    expect(choose.nats).toBeCloseTo(Math.log(4), 12);
    choose.sample([1, 2, 3, 4, 5], 2);
    expect(choose.nats).toBeCloseTo(Math.log(4 * 5 * 4), 12);
    const before = choose.nats;
    const yes = choose.chance([7, 10]);
    expect(choose.nats - before).toBeCloseTo(-Math.log(yes ? 0.7 : 0.3), 12);
  });

  it("are the entropy on average", () => {
    const odds = [1, 5] as const;
    let nats = 0;
    for (let i = 0; i < 20_000; i++) {
      const choose = new Chooser(2, i);
      choose.usually("a", ["a", "b", "c"], odds);
      nats += choose.nats;
    }
    const entropy = 0.2 * Math.log(5) + 0.8 * Math.log(2 / 0.8);
    expect(nats / 20_000).toBeCloseTo(entropy, 2);
  });

  it("are nothing for what is certain", () => {
    const choose = new Chooser(3);
    expect([choose.chance([1, 1]), choose.chance([0, 1]), choose.pick(["only"])]).toEqual([
      true,
      false,
      "only",
    ]);
    expect(choose.nats).toBe(0);
  });
});

const THOUSAND = Array.from({ length: 1000 }, (_, i) => i);

function drawn(...seeds: number[]): number[] {
  const choose = new Chooser(...seeds);
  return Array.from({ length: 8 }, () => choose.pick(THOUSAND));
}

describe("choices", () => {
  it("are a function of the seeds", () => {
    expect(drawn(5, 6)).toEqual(drawn(5, 6));
    expect(drawn(5, 6)).not.toEqual(drawn(6, 5));
    expect(drawn(0, 2 ** 40)).not.toEqual(drawn(0, 2 ** 41));
  });

  it("come equally often, over documents and within one", () => {
    const across = [0, 0, 0, 0, 0, 0, 0];
    for (let i = 0; i < 21_000; i++) across[new Chooser(1, i).pick([0, 1, 2, 3, 4, 5, 6])]!++;
    const within = [0, 0, 0, 0, 0, 0, 0];
    const choose = new Chooser(9);
    for (let i = 0; i < 21_000; i++) within[choose.pick([0, 1, 2, 3, 4, 5, 6])]!++;
    // 3000 each; five standard deviations are 254.
    for (const count of [...across, ...within]) expect(Math.abs(count - 3000)).toBeLessThan(254);
  });

  it("in any order are all orders equally often", () => {
    const counts = new Map<string, number>();
    const choose = new Chooser(4);
    for (let i = 0; i < 12_000; i++) {
      const order = choose.sample(["a", "b", "c"]).join("");
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    for (const count of counts.values()) expect(Math.abs(count - 2000)).toBeLessThan(205);
  });

  it("refuse what is no seed and no option", () => {
    expect(() => new Chooser(-1)).toThrow(/seed.*found -1/);
    expect(() => new Chooser(0.5)).toThrow(/found 0.5/);
    expect(() => new Chooser(Number.NaN)).toThrow(/found NaN/);
    expect(() => new Chooser(1).pick([])).toThrow(/found 0 options/);
  });
});

it("knowledge is fixed", () => {
  const options = ["red", "blue", "white"];
  expect(fixedBy("color plow", options)).toBe(fixedBy("color plow", options));
  const values = new Set(["a", "b", "c", "d", "e", "f", "g", "h"].map((word) => fixedBy(word, options)));
  expect(values.size).toBe(3);
});
