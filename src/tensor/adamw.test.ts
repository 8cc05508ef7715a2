// AdamW against a float64 reference, its guard against gradients that are not finite, and sums over micro-batches.
import { afterAll, describe, expect, test } from "vitest";
import { adamw, Arena, Device, GradientSums, Graph, ops } from "./index.js";
import type { AdamwOptions } from "./index.js";
import { relativeError } from "./testing/array64.js";
import { normals, seededRandom } from "./testing/random.js";

const device = Device.open({ threads: 1 });
afterAll(() => device[Symbol.dispose]());

const SHAPES = { "block.w": [3, 5], "block.bias": [4], head: [2, 3, 2] } as const;
const NAMES = Object.keys(SHAPES) as (keyof typeof SHAPES)[];
type Values = Record<string, Float64Array>;

function draw(seed: number, size = 1): Values {
  const random = seededRandom(seed);
  return Object.fromEntries(
    NAMES.map((name) => {
      const count = SHAPES[name].reduce<number>((a, b) => a * b, 1);
      return [name, Float64Array.from(normals(random, count), (x) => Math.fround(x * size))];
    }),
  );
}

/** Parameters with a loss that is linear in them, so that the gradient of each is an input. */
function linearProblem() {
  const weights = new Arena(
    device,
    "weights",
    Object.fromEntries(NAMES.map((name) => [name, { shape: SHAPES[name], parameter: true }])),
  );
  const sums = new GradientSums(weights.tensors);
  const g = new Graph(device);
  const terms = NAMES.map((name) => ops.sum(g, ops.mul(g, weights.get(name), g.input(name, SHAPES[name]))));
  sums.accumulate(g, g.backward(terms.reduce((a, b) => ops.add(g, a, b))));
  const dispose = () => [g, sums, weights].forEach((each) => each[Symbol.dispose]());
  const run = (gradient: Values) =>
    g.run(Object.fromEntries(NAMES.map((name) => [name, Float32Array.from(gradient[name]!)])));
  return { weights, sums, run, [Symbol.dispose]: dispose };
}

interface Setting {
  readonly options: AdamwOptions;
  /** Decay and factor on the rate, by parameter, as the groups of the options say. */
  readonly of: (name: string) => { decay: number; factor: number };
}
const plain = { of: () => ({ decay: 0, factor: 1 }) };
const SETTINGS: Readonly<Record<string, Setting>> = {
  "defaults, which clip at 1": { options: {}, ...plain },
  "no clipping": { options: { clipNorm: null }, ...plain },
  "other betas and eps": { options: { beta1: 0.8, beta2: 0.95, eps: 1e-3, clipNorm: 3 }, ...plain },
  "no momentum": { options: { beta1: 0, clipNorm: null }, ...plain },
  decay: { options: { weightDecay: 0.3, clipNorm: null }, of: () => ({ decay: 0.3, factor: 1 }) },
  groups: {
    options: {
      weightDecay: 0.2,
      clipNorm: 0.5,
      groups: [
        { matches: (name) => name.endsWith("bias"), weightDecay: 0 },
        { matches: (name) => name.startsWith("block"), learningRateScale: 0.25 }, // the bias is taken already
      ],
    },
    of: (name) => ({ decay: name === "block.bias" ? 0 : 0.2, factor: name === "block.w" ? 0.25 : 1 }),
  },
};

/** The update of Loshchilov and Hutter 2019 in float64, with PyTorch's clipping. */
function reference64(
  { options, of }: Setting,
  p: Values,
  gradients: readonly Values[],
  rates: readonly number[],
) {
  const { beta1 = 0.9, beta2 = 0.999, eps = 1e-8, clipNorm = 1 } = options;
  const zeros = () => Object.fromEntries(NAMES.map((name) => [name, new Float64Array(p[name]!.length)]));
  const [m, v]: [Values, Values] = [zeros(), zeros()];
  const norms = gradients.map((gradient, t) => {
    const norm = Math.hypot(...NAMES.flatMap((name) => [...gradient[name]!]));
    const clip = clipNorm === null ? 1 : Math.min(1, clipNorm / (norm + 1e-6));
    for (const name of NAMES) {
      const { decay, factor } = of(name);
      const rate = rates[t]! * factor;
      p[name]!.forEach((value, i) => {
        const d = gradient[name]![i]! * clip;
        m[name]![i] = beta1 * m[name]![i]! + (1 - beta1) * d;
        v[name]![i] = beta2 * v[name]![i]! + (1 - beta2) * d * d;
        const [mHat, vHat] = [m[name]![i]! / (1 - beta1 ** (t + 1)), v[name]![i]! / (1 - beta2 ** (t + 1))];
        p[name]![i] = value - rate * decay * value - (rate * mHat) / (Math.sqrt(vHat) + eps);
      });
    }
    return norm;
  });
  return { norms, m, v };
}

describe("five steps against float64", () => {
  test.each(Object.entries(SETTINGS))("%s", async (_, setting) => {
    using problem = linearProblem();
    const optimizer = adamw(setting.options);
    using state = optimizer.init(problem.sums);
    const start = draw(1);
    for (const name of NAMES) problem.weights.get(name).write(Float32Array.from(start[name]!));
    const gradients = [0.05, 2, 0.3, 1, 0.01].map((size, t) => draw(t + 2, size));
    const rates = [0.1, 0.1, 0.05, 0, 0.2];
    const reports = [];
    for (const [t, gradient] of gradients.entries()) {
      problem.sums.clear();
      await problem.run(gradient);
      reports.push(await optimizer.update(state, rates[t]!));
    }
    const end = draw(1);
    const { norms, m, v } = reference64(setting, end, gradients, rates);
    expect(
      relativeError(
        reports.map((report) => report.gradientNorm),
        norms,
      ),
    ).toBeLessThan(1e-6);
    expect(state).toMatchObject({ step: 5, skipped: 0 });
    for (const name of NAMES) {
      const moved = problem.weights
        .get(name)
        .readF32()
        .map((value, i) => value - start[name]![i]!);
      const wanted = end[name]!.map((value, i) => value - start[name]![i]!);
      // The way and not the place: an error of the update would drown in the size of the parameter.
      expect(relativeError(moved, wanted), name).toBeLessThan(2e-6);
      expect(relativeError(state.moments.get(`m.${name}`).readF32(), m[name]!)).toBeLessThan(1e-6);
      // 1 - beta2 is 1.3e-5 off in float32; the bias correction takes it out again.
      expect(relativeError(state.moments.get(`v.${name}`).readF32(), v[name]!)).toBeLessThan(2e-5);
    }
  });
});

const bytes = (arena: Arena) =>
  Buffer.concat([...arena.tensors.values()].map((tensor) => Buffer.from(tensor.readF32().buffer)));

describe("a gradient that is not finite", () => {
  test.each([
    ["NaN", Number.NaN],
    ["infinity", Infinity],
    ["minus infinity", -Infinity],
    ["a square beyond float32", 1e30],
  ])("%s: the step is skipped and counted, and no bit of parameters or moments changes", async (_, bad) => {
    using problem = linearProblem();
    const optimizer = adamw({ weightDecay: 0.1 });
    using state = optimizer.init(problem.sums);
    const start = draw(1);
    for (const name of NAMES) problem.weights.get(name).write(Float32Array.from(start[name]!));
    await problem.run(draw(2));
    await optimizer.update(state, 0.1);
    const before = [bytes(problem.weights), bytes(state.moments)];

    const gradient = draw(3);
    gradient["block.bias"]![2] = bad;
    problem.sums.clear();
    await problem.run(gradient);
    const report = await optimizer.update(state, 0.1);
    expect(report.skipped).toBe(true);
    expect(Number.isFinite(report.gradientNorm)).toBe(false);
    expect(state).toMatchObject({ step: 1, skipped: 1 });
    expect(bytes(problem.weights).equals(before[0]!)).toBe(true);
    expect(bytes(state.moments).equals(before[1]!)).toBe(true);

    problem.sums.clear();
    await problem.run(draw(4));
    expect(await optimizer.update(state, 0.1)).toMatchObject({ skipped: false });
    expect(state).toMatchObject({ step: 2, skipped: 1 });
    expect(bytes(problem.weights).equals(before[0]!)).toBe(false);
  });
});

test("cleared sums that nothing was added to are zero, whatever they held", async () => {
  using problem = linearProblem();
  const optimizer = adamw();
  using state = optimizer.init(problem.sums);
  const gradient = draw(2);
  gradient["block.bias"]![2] = Number.NaN;
  await problem.run(gradient);
  problem.sums.clear();
  expect(await optimizer.update(state, 0.1)).toEqual({ gradientNorm: 0, skipped: false });
});

test("an aborted update changes nothing", async () => {
  using problem = linearProblem();
  const optimizer = adamw();
  using state = optimizer.init(problem.sums);
  await problem.run(draw(2));
  await expect(optimizer.update(state, 0.1, AbortSignal.abort())).rejects.toThrow("aborted");
  expect(state).toMatchObject({ step: 0, skipped: 0 });
  for (const name of NAMES)
    expect(
      problem.weights
        .get(name)
        .readF32()
        .every((value) => value === 0),
    ).toBe(true);
});

test("gradients summed over micro-batches are those of one batch", async () => {
  const [n, d, vocabulary] = [12, 6, 9];
  const random = seededRandom(5);
  const h = Float32Array.from(normals(random, n * d));
  const targets = Int32Array.from({ length: n }, (_, i) => (i * 5) % vocabulary);
  const values = Float32Array.from(normals(random, vocabulary * d));
  const gains = Float32Array.from(normals(random, d), (x) => 1 + 0.1 * x);

  const summed = async (rows: number): Promise<Float32Array[]> => {
    using weights = new Arena(device, "weights", {
      w: { shape: [vocabulary, d], parameter: true },
      gain: { shape: [d], parameter: true },
    });
    weights.get("w").write(values);
    weights.get("gain").write(gains);
    using sums = new GradientSums(weights.tensors);
    using g = new Graph(device);
    const normed = ops.rmsNorm(g, g.input("h", [rows, d]), weights.get("gain"), 1e-6);
    const loss = ops.crossEntropy(
      g,
      normed,
      weights.get("w"),
      g.input("targets", [rows], "i32"),
      g.input("weights", [rows]),
    );
    sums.accumulate(g, g.backward(loss));
    sums.clear();
    for (let start = 0; start < n; start += rows) {
      await g.run({
        h: h.slice(start * d, (start + rows) * d),
        targets: targets.slice(start, start + rows),
        weights: new Float32Array(rows).fill(1 / n), // of the whole batch, and not of the part
      });
    }
    return [sums.sums.get("w").readF32(), sums.sums.get("gain").readF32()];
  };

  const whole = await summed(n);
  for (const rows of [1, 3, 4, 6]) {
    const parts = await summed(rows);
    parts.forEach((part, i) => expect(relativeError(part, whole[i]!), `${rows} rows`).toBeLessThan(1e-6));
  }
});
