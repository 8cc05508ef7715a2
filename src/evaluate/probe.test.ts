// Probes on vectors with planted facts: what is there is found at the accuracy that the noise allows, what is not stays at chance.
import { describe, expect, it } from "vitest";
import { PythonRandom } from "../data/python-random.js";
import { NlaError } from "../error.js";
import { cholesky, product, solve } from "./linear-algebra.js";
import type { Matrix } from "./linear-algebra.js";
import {
  designOf,
  explainedVariance,
  fitClasses,
  fitRidge,
  fittingDesign,
  predictClasses,
  predictNumbers,
} from "./probe.js";

const WIDTH = 24;

function normal(random: PythonRandom): number {
  return Math.sqrt(-2 * Math.log(1 - random.random())) * Math.cos(2 * Math.PI * random.random());
}

/** Unit noise around the mean of a class, which is `distance` along the class's own axis, on an axis of large scale and offset. */
function planted(rows: number, classes: number, distance: number, seed: number) {
  const random = new PythonRandom(seed);
  const labels = Array.from({ length: rows }, () => random.randbelow(classes));
  const vectors = labels.map((label) => {
    const v = Float32Array.from({ length: WIDTH }, () => normal(random));
    v[label]! += distance;
    return v.map((value, i) => (i % 2 ? 50 * value + 300 : value));
  });
  return { labels, vectors };
}

/** Signal of variance 9 + 9 and noise of variance 6: three quarters can be explained. */
function numbers(seed: number) {
  const random = new PythonRandom(seed);
  const vectors = Array.from({ length: 2000 }, () =>
    Float32Array.from({ length: WIDTH }, () => 7 + 3 * normal(random)),
  );
  return { vectors, y: vectors.map((v) => 5 + v[0]! - v[7]! + Math.sqrt(6) * normal(random)) };
}

function accuracy(said: Int32Array, labels: readonly number[]): number {
  return labels.filter((label, i) => label === said[i]).length / labels.length;
}

function fitted(distance: number, classes: number, shuffle = false) {
  const train = planted(3000, classes, distance, 1);
  const test = planted(2000, classes, distance, 2);
  const labels = [...train.labels];
  if (shuffle) new PythonRandom(3).shuffle(labels);
  const design = fittingDesign(designOf(train.vectors));
  const weights = fitClasses(design, labels, classes);
  return { weights, right: accuracy(predictClasses(designOf(test.vectors, design), weights), test.labels) };
}

describe("logistic probes", () => {
  it("reach the accuracy that the noise allows", () => {
    // Two means at distance 2 sqrt 2, unit noise: the best rule errs with probability Φ(-sqrt 2) = 0.0786.
    expect(fitted(2, 2).right).toBeGreaterThan(0.9214 - 0.02);
    expect(fitted(2, 2).right).toBeLessThan(0.9214 + 0.02);
  });

  it("find twenty classes, none of them hidden behind others", () => {
    expect(fitted(5, 20).right).toBeGreaterThan(0.98);
  });

  it("stay at chance where nothing is there, and with shuffled labels", () => {
    // Three standard errors of 2,000 rows.
    expect(Math.abs(fitted(0, 2).right - 0.5)).toBeLessThan(0.034);
    expect(Math.abs(fitted(5, 2, true).right - 0.5)).toBeLessThan(0.07);
    expect(Math.abs(fitted(5, 20, true).right - 0.05)).toBeLessThan(0.03);
  });

  it("are the same each time", () => {
    expect(fitted(2, 3).weights.values).toEqual(fitted(2, 3).weights.values);
  });

  it("lower the loss with every step", () => {
    const { labels, vectors } = planted(800, 3, 1.5, 4);
    const design = fittingDesign(designOf(vectors), { ridge: 1e-6 });
    const losses = [0, 1, 3, 10, 40].map((steps) => {
      const logits = product(design.x, fitClasses(design, labels, 3, { steps }));
      return labels.reduce((sum, label, r) => {
        const row = logits.values.subarray(r * 3, r * 3 + 3);
        return sum + Math.log(row.reduce((total, logit) => total + Math.exp(logit), 0)) - row[label]!;
      }, 0);
    });
    expect(losses).toEqual([...losses].sort((a, b) => b - a));
    expect(losses.at(-1)).toBeLessThan(losses[0]!);
  });

  it("refuse labels that are no class, and vectors that are not finite", () => {
    const { labels, vectors } = planted(20, 2, 1, 1);
    const design = fittingDesign(designOf(vectors));
    expect(() => fitClasses(design, [...labels.slice(1), 2], 2)).toThrow(NlaError);
    expect(() => fitClasses(design, labels.slice(1), 2)).toThrow(/20 rows/);
    vectors[3]![5] = NaN;
    expect(() => designOf(vectors)).toThrow(/row 3/);
    expect(() => designOf([])).toThrow(NlaError);
  });
});

describe("ridge probes", () => {
  it("explain the share of the variance that is there", () => {
    const train = numbers(1);
    const test = numbers(2);
    const design = designOf(train.vectors);
    const said = predictNumbers(designOf(test.vectors, design), fitRidge(design, train.y));
    expect(explainedVariance(test.y, said)).toBeCloseTo(0.75, 1);
    new PythonRandom(5).shuffle(train.y);
    const shuffled = predictNumbers(designOf(test.vectors, design), fitRidge(design, train.y));
    expect(explainedVariance(test.y, shuffled)).toBeLessThan(0.02);
  });
});

describe("linear algebra", () => {
  const a: Matrix = { rows: 3, columns: 3, values: Float64Array.of(4, 2, 0.4, 2, 5, 1, 0.4, 1, 3) };

  it("solves", () => {
    const w: Matrix = { rows: 3, columns: 2, values: Float64Array.of(1, -2, 3, 0.5, -1, 4) };
    const back = solve(cholesky(a), product(a, w));
    back.values.forEach((value, i) => expect(value).toBeCloseTo(w.values[i]!, 12));
  });

  it("refuses what is not positive definite", () => {
    expect(() => cholesky({ rows: 2, columns: 2, values: Float64Array.of(1, 2, 2, 1) })).toThrow(NlaError);
  });
});
