// Padding, masks and packing of ragged sequences.
import { describe, expect, test } from "vitest";
import { attentionMask, needsRowMasks, packedRows, padBatch, pickRows } from "./batch.js";

const SEQUENCES = [[5, 6, 7], [8], [9, 10]];

test("pads on the right", () => {
  const batch = padBatch(SEQUENCES, { maxLength: 9 });
  expect([...batch.ids]).toEqual([5, 6, 7, 8, 0, 0, 9, 10, 0]);
  expect([...batch.positions]).toEqual([0, 1, 2, 0, 0, 0, 0, 1, 0]);
  expect(batch).toMatchObject({ rows: 3, length: 3, lengths: [3, 1, 2], offsets: [0, 0, 0] });
  expect([...packedRows(batch)]).toEqual([0, 1, 2, 3, 6, 7]);
  expect(needsRowMasks(batch)).toBe(false);
});

test("pads on the left, with positions that start at the first token", () => {
  const batch = padBatch(SEQUENCES, { maxLength: 9, padding: "left" });
  expect([...batch.ids]).toEqual([5, 6, 7, 0, 0, 8, 0, 9, 10]);
  expect([...batch.positions]).toEqual([0, 1, 2, 0, 0, 0, 0, 0, 1]);
  expect(batch.offsets).toEqual([0, 2, 1]);
  expect([...packedRows(batch)]).toEqual([0, 1, 2, 5, 7, 8]);
  expect(needsRowMasks(batch)).toBe(true);
});

test("lengths are rounded up, though never beyond the context", () => {
  expect(padBatch(SEQUENCES, { maxLength: 100, multiple: 8 }).length).toBe(8);
  expect(padBatch(SEQUENCES, { maxLength: 5, multiple: 8 }).length).toBe(5);
});

describe.each([null, 1, 2, 3, 7, 100])("window %s", (window) => {
  test.each(["right", "left"] as const)("padding on the %s: who sees whom", (padding) => {
    const lengths = [7, 3, 5];
    const batch = padBatch(
      lengths.map((n) => Array.from({ length: n }, () => 1)),
      { maxLength: 7, padding },
    );
    const mask = attentionMask(batch, window);
    expect(mask.length).toBe(padding === "left" ? 3 * 49 : 49);
    lengths.forEach((n, row) => {
      const first = batch.offsets[row]!;
      const at = (i: number, j: number) => mask[(padding === "left" ? row * 49 : 0) + i * 7 + j];
      for (let i = 0; i < 7; i++) {
        for (let j = 0; j < 7; j++) {
          const real = i >= first && i < first + n;
          const causal = j <= i && j >= first && (window === null || i - j < window);
          if (real) expect(at(i, j) === 0, `row ${row}: ${i} sees ${j}`).toBe(causal);
          expect(at(i, j) === 0 || at(i, j) === -Infinity).toBe(true);
        }
        const seen = Array.from({ length: 7 }, (_, j) => at(i, j)).filter((x) => x === 0).length;
        expect(seen, "a row of -inf has no softmax").toBeGreaterThan(0);
      }
    });
  });
});

test.each([
  [[], "a batch", "no sequences"],
  [[[1], []], "sequence 1 of a batch", "0 tokens"],
  [[[1, 2, 3, 4, 5]], "sequence 0 of a batch", "5 tokens"],
  [[[1, NaN]], "token 1 of sequence 0 of a batch", "NaN"],
  [[[1, 2], [1.5]], "token 0 of sequence 1 of a batch", "1.5"],
  [[[-1]], "token 0 of sequence 0 of a batch", "-1"],
  [[[2 ** 31]], "token 0 of sequence 0 of a batch", "2147483648"],
])("refuses %j", (sequences, subject, found) => {
  expect(() => padBatch(sequences, { maxLength: 4 })).toThrow(
    expect.objectContaining({ code: "model.batch", subject, found }) as Error,
  );
});

test("rows by number", () => {
  const values = Float32Array.of(0, 1, 10, 11, 20, 21);
  expect([...pickRows(values, 2, [2, 0, 2])]).toEqual([20, 21, 0, 1, 20, 21]);
});
