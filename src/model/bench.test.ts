// The parts of the benchmark that can be right or wrong without a clock.
import { expect, test } from "vitest";
import { Device } from "../tensor/index.js";
import { benchTrain, median, watchEventLoop } from "./bench.js";

test("the median is the middle, or the mean of the two in the middle", () => {
  expect(median([3])).toBe(3);
  expect(median([9, 1, 2])).toBe(2);
  expect(median([10, 1, 2, 4])).toBe(3);
});

test("a held event loop is noticed", async () => {
  const watch = watchEventLoop();
  await new Promise((resolve) => setTimeout(resolve, 10));
  const until = performance.now() + 80;
  while (performance.now() < until);
  await new Promise((resolve) => setTimeout(resolve, 10));
  watch.stop();
  expect(watch.longest()).toBeGreaterThan(70);
});

test("no steps is no measurement", async () => {
  using device = Device.open({ threads: 1 });
  const small = { dim: 8, layers: 1, heads: 2, ffn: 8, vocabulary: 16, batch: 1, length: 4 };
  await expect(benchTrain(device, { ...small, steps: 0 })).rejects.toMatchObject({
    code: "model.bench",
    found: "0",
  });
});
