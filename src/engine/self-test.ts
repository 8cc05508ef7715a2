// A graph small enough to know by heart, run on a device: it tells a driver or a library that computes wrongly from one that
// works. `nla doctor` runs it; it is no test of the tensor layer, which has its own.
import type { Device } from "./device.js";
import type { Pointer } from "./ggml.js";
import { readTensor, writeTensor } from "./memory.js";
import type { Extent } from "./memory.js";
import { NativeGraph } from "./native-graph.js";

/** One op of the self-test. */
export interface SelfTestResult {
  readonly op: string;
  /** Largest distance between what the device gave and what is right. */
  readonly worstError: number;
  readonly passed: boolean;
}

// Values of order one, in float32 with a handful of roundings; a GPU may multiply matrices in fewer bits (TF32: 5e-4).
const MAX_ERROR = 2e-3;

interface Known {
  readonly op: string;
  readonly inputs: readonly { readonly extent: Extent; readonly values: readonly number[] }[];
  readonly build: (g: NativeGraph, inputs: readonly Pointer[]) => Pointer;
  readonly expected: readonly number[];
}

const matrix = (values: readonly (readonly number[])[]) => ({
  extent: [values[0]?.length ?? 1, values.length, 1, 1] as const,
  values: values.flat(),
});

// The right values follow by hand: powers of two for the softmax, Pythagorean rows for the norm.
const KNOWN: readonly Known[] = [
  {
    op: "mul_mat",
    inputs: [
      matrix([
        [1, 2, 3],
        [0.5, -1, 0.25],
      ]),
      matrix([
        [1, 0, -1],
        [2, 4, 8],
      ]),
    ],
    build: (g, [a = null, b = null]) => g.node("mul_mat", [a, b]),
    expected: [-2, 0.25, 34, -1],
  },
  {
    op: "soft_max",
    inputs: [
      matrix([
        [0, Math.LN2, 2 * Math.LN2],
        [5, 5, 5 + Math.LN2],
      ]),
    ],
    build: (g, [x = null]) => g.node("soft_max", [x]),
    expected: [1 / 7, 2 / 7, 4 / 7, 1 / 4, 1 / 4, 1 / 2],
  },
  {
    op: "rms_norm",
    inputs: [
      matrix([
        [3, 4, 0, 0],
        [1, -1, 1, -1],
      ]),
    ],
    build: (g, [x = null]) => g.node("rms_norm", [x, 0]),
    expected: [1.2, 1.6, 0, 0, 1, -1, 1, -1],
  },
  {
    op: "silu",
    inputs: [matrix([[0, Math.log(3), -Math.log(3)]])],
    build: (g, [x = null]) => g.node("silu", [x]),
    expected: [0, 0.75 * Math.log(3), -0.25 * Math.log(3)],
  },
];

/** Runs known ops on a device and compares. @throws NlaError where the device cannot run them at all */
export async function selfTest(device: Device): Promise<SelfTestResult[]> {
  using g = new NativeGraph(device, 64);
  const cases = KNOWN.map(({ op, inputs, build, expected }) => {
    const tensors = inputs.map(({ extent }) => g.input(extent, "f32"));
    const result = build(g, tensors);
    g.expand(result);
    g.keep(result);
    return { op, inputs, tensors, result, expected };
  });
  g.allocate();
  // Awaited here, not by the caller: the graph is freed where this scope ends.
  return await device.exclusive(async () => {
    for (const { inputs, tensors } of cases) {
      inputs.forEach(({ values }, i) =>
        writeTensor(device, tensors[i] as Pointer, Float32Array.from(values)),
      );
    }
    await g.compute();
    return cases.map(({ op, result, expected }) => {
      const values = new Float32Array(expected.length);
      readTensor(device, result, values);
      const errors = expected.map((right, i) => Math.abs((values[i] as number) - right));
      const worstError = Math.max(...errors);
      // NaN is no error below the bound: it fails.
      return { op, worstError, passed: worstError <= MAX_ERROR };
    });
  });
}
