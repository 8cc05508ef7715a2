// The timings of `nla doctor --kernels`: that each is of the kernels it names, and a number.
import { describe, expect, it } from "vitest";
import { Device } from "../tensor/index.js";
import { renderKernels, timeKernels } from "./kernels.js";

describe("timeKernels", () => {
  it.each([true, false])("names what it timed, kernels: %s", async (kernels) => {
    using device = Device.open({ threads: 1, kernels });
    const timings = await timeKernels(device);
    expect(timings.length).toBeGreaterThan(18);
    for (const { op, variant, milliseconds, speed, share } of timings) {
      expect(variant === "ggml", op).toBe(device.kernels === null || op === "embedding");
      for (const number of [milliseconds, speed, share]) expect(number, op).toBeGreaterThan(0);
      expect(Number.isFinite(speed), op).toBe(true);
    }
    expect(renderKernels(timings).split("\n").length).toBeGreaterThan(timings.length);
  });
});
