// The ops in float64, from their formulas: what the tests hold the engine against. Written without looking at how the
// engine composes them (attention loops over queries, cross-entropy is a log-sum-exp).
import { at, make, map, mapRows } from "./array64.js";
import type { Array64 } from "./array64.js";

const total = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0);

export const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
export const silu = (x: number): number => x * sigmoid(x);
export const softcap = (x: number, cap: number): number => cap * Math.tanh(x / cap);

/** GELU in the tanh form. */
export const gelu = (x: number): number =>
  0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

export function sum(x: Array64): Array64 {
  return { shape: [1], data: Float64Array.of(total(x.data)) };
}

export function sumLast(x: Array64): Array64 {
  const width = x.shape.at(-1) as number;
  const shape = [...x.shape.slice(0, -1), 1];
  return {
    shape,
    data: Float64Array.from({ length: x.data.length / width }, (_, row) =>
      total(x.data.slice(row * width, (row + 1) * width)),
    ),
  };
}

/** result[i_0, i_1, ...] = x with axis order[k] at i_k. */
export function permute(x: Array64, order: readonly number[]): Array64 {
  return make(
    order.map((axis) => x.shape[axis] as number),
    (index) => {
      const source: number[] = [];
      order.forEach((axis, k) => (source[axis] = index[k] as number));
      return at(x, ...source);
    },
  );
}

export function reshape(x: Array64, shape: readonly number[]): Array64 {
  return { shape, data: x.data };
}

export function gatherRows(table: Array64, ids: Array64): Array64 {
  return make([ids.data.length, table.shape[1] as number], ([i = 0, j = 0]) =>
    at(table, ids.data[i] as number, j),
  );
}

export function replaceRows(x: Array64, rows: Array64, places: Array64): Array64 {
  const replaced = { shape: x.shape, data: x.data.slice() };
  const width = x.shape[1] as number;
  places.data.forEach((place, k) =>
    replaced.data.set(rows.data.subarray(k * width, (k + 1) * width), place * width),
  );
  return replaced;
}

export function concatRows(parts: readonly Array64[]): Array64 {
  const data = Float64Array.from(parts.flatMap((part) => [...part.data]));
  const width = parts[0]?.shape[1] as number;
  return { shape: [data.length / width, width], data };
}

/** Over the last two axes, after the wished transpositions. */
export function matmul(a: Array64, b: Array64, transposeA = false, transposeB = false): Array64 {
  const m = a.shape.at(transposeA ? -1 : -2) as number;
  const k = a.shape.at(transposeA ? -2 : -1) as number;
  const n = b.shape.at(transposeB ? -2 : -1) as number;
  return make([...a.shape.slice(0, -2), m, n], (index) => {
    const [lead, i, j] = [index.slice(0, -2), index.at(-2) as number, index.at(-1) as number];
    let value = 0;
    for (let l = 0; l < k; l++) {
      const x = transposeA ? at(a, ...lead, l, i) : at(a, ...lead, i, l);
      const y = transposeB ? at(b, ...lead, j, l) : at(b, ...lead, l, j);
      value += x * y;
    }
    return value;
  });
}

export function rmsNorm(x: Array64, gain: Array64, eps: number): Array64 {
  return mapRows(x, (row) => {
    const root = Math.sqrt(total(row.map((value) => value * value)) / row.length + eps);
    return row.map((value, i) => (value / root) * (gain.data[i] as number));
  });
}

export function normalizeRows(x: Array64, length: number, eps: number): Array64 {
  return mapRows(x, (row) => {
    const norm = Math.sqrt(total(row.map((value) => value * value)) + eps);
    return row.map((value) => (value / norm) * length);
  });
}

/** x [n, heads, d]: the pair (i, i + d/2) turned by position · theta^(-2i/d) / divisor[i]. */
export function rope(
  x: Array64,
  positions: Array64,
  theta: number,
  divisors: Array64 | null,
  magnitude: number,
): Array64 {
  const d = x.shape[2] as number;
  return make(x.shape, ([row = 0, head = 0, i = 0]) => {
    const pair = i % (d / 2);
    const frequency = theta ** ((-2 * pair) / d) / (divisors?.data[pair] ?? 1);
    const angle = (positions.data[row] as number) * frequency;
    const [first, second] = [at(x, row, head, pair), at(x, row, head, pair + d / 2)];
    const turned =
      i < d / 2
        ? first * Math.cos(angle) - second * Math.sin(angle)
        : first * Math.sin(angle) + second * Math.cos(angle);
    return turned * magnitude;
  });
}

function softmaxRow(row: Float64Array): Float64Array {
  const highest = row.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = row.map((value) => Math.exp(value - highest));
  const whole = total(powers);
  return powers.map((power) => power / whole);
}

/** x [..., rows, n]; mask [rows, n] or [batch, 1, rows, n] of x's first axis. */
export function softmax(x: Array64, mask: Array64 | null, scale: number): Array64 {
  const rows = x.shape.at(-2) ?? 1;
  const heads = x.shape.at(-3) ?? 1;
  return mapRows(x, (values, r) => {
    const row = r % rows;
    const batch = Math.floor(r / (rows * heads));
    const addend = (j: number) => {
      if (!mask) return 0;
      return mask.shape.length === 4 ? at(mask, batch, 0, row, j) : at(mask, row, j);
    };
    return softmaxRow(values.map((value, j) => value * scale + addend(j)));
  });
}

/** q [b, t, heads, d], k and v [b, s, kvHeads, d], mask [t, s] or [b, 1, t, s] -> [b, t, heads · d]. */
export function attention(
  q: Array64,
  k: Array64,
  v: Array64,
  mask: Array64,
  scale: number,
  cap: number | null,
): Array64 {
  const [b, t, heads, d] = q.shape as [number, number, number, number];
  const [, s, kvHeads] = k.shape as [number, number, number, number];
  const data = new Float64Array(b * t * heads * d);
  for (let batch = 0; batch < b; batch++) {
    for (let query = 0; query < t; query++) {
      for (let head = 0; head < heads; head++) {
        const shared = Math.floor((head * kvHeads) / heads);
        const scores = Float64Array.from({ length: s }, (_, key) => {
          let dot = 0;
          for (let i = 0; i < d; i++) dot += at(q, batch, query, head, i) * at(k, batch, key, shared, i);
          const score = cap === null ? dot * scale : softcap(dot * scale, cap);
          return score + (mask.shape.length === 4 ? at(mask, batch, 0, query, key) : at(mask, query, key));
        });
        const weights = softmaxRow(scores);
        for (let i = 0; i < d; i++) {
          let mixed = 0;
          for (let key = 0; key < s; key++) mixed += (weights[key] as number) * at(v, batch, key, shared, i);
          data[((batch * t + query) * heads + head) * d + i] = mixed;
        }
      }
    }
  }
  return { shape: [b, t, heads * d], data };
}

export function logits(h: Array64, w: Array64, cap: number | null): Array64 {
  const plain = matmul(h, w, false, true);
  return cap === null ? plain : map(plain, (value) => softcap(value, cap));
}

/** log p(target) of each row. */
export function tokenLogProbs(h: Array64, w: Array64, targets: Array64, cap: number | null): Array64 {
  const all = logits(h, w, cap);
  const vocabulary = w.shape[0] as number;
  return make([targets.data.length], ([row = 0]) => {
    const values = all.data.subarray(row * vocabulary, (row + 1) * vocabulary);
    const highest = values.reduce((a, b) => Math.max(a, b), -Infinity);
    const logSum = highest + Math.log(total(values.map((value) => Math.exp(value - highest))));
    return (values[targets.data[row] as number] as number) - logSum;
  });
}

export function crossEntropy(
  h: Array64,
  w: Array64,
  targets: Array64,
  weights: Array64,
  cap: number | null,
): Array64 {
  const logProbs = tokenLogProbs(h, w, targets, cap);
  return sum(
    map({ ...logProbs, data: logProbs.data.map((p, i) => -p * (weights.data[i] as number)) }, Number),
  );
}
