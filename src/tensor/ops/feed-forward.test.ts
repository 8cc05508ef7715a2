// A feed-forward layer whole against its products and gate one by one: values and all gradients, added up with those of another use.
import { afterAll, describe, expect, test } from "vitest";
import { Device } from "../../engine/index.js";
import { Arena, Graph, ops, PackedMatrices } from "../index.js";
import { relativeError } from "../testing/array64.js";
import { normals, seededRandom } from "../testing/random.js";

const devices = [1, 3].map((threads) => Device.open({ threads }));
afterAll(() => devices.forEach((each) => each[Symbol.dispose]()));
const { kernels } = devices[0]!;
if (!kernels) console.log("skipped: no native kernels (run `node native/build.mjs`)");

type Activation = "silu" | "gelu_tanh";
interface Case {
  readonly whole: boolean;
  readonly merged: boolean;
  readonly activation: Activation;
  readonly type: "f32" | "bf16";
}
const DIM = 32;
const FFN = 96;

function weights(device: Device, ffn: number) {
  const arena = new Arena(device, "weights", {
    gate: { shape: [ffn, DIM], parameter: true },
    up: { shape: [ffn, DIM], parameter: true },
    down: { shape: [DIM, ffn], parameter: true },
  });
  const random = seededRandom(5);
  for (const tensor of arena.tensors.values())
    tensor.write(Float32Array.from(normals(random, tensor.size), (value) => value / 4));
  return arena;
}

/** Output, and the gradients of x, of what the layer is added to and of the matrices; x and the matrices are used beside it, too. */
async function compute(
  device: Device,
  n: number,
  ffn: number,
  { whole, merged, activation, type }: Case,
): Promise<Float32Array[]> {
  using arena = weights(device, ffn);
  const [gate, up, down] = [arena.get("gate"), arena.get("up"), arena.get("down")];
  using g = new Graph(device, { compute: type });
  const [x, onto] = [g.variable("x", [n, DIM]), g.variable("onto", [n, DIM])];
  const f = ops.rmsNorm(g, x, g.variable("gain", [DIM]), 1e-6);
  expect(ops.hasFeedForward(g, n, { gate, up, down })).toBe(true);
  const parts = () => {
    const [a, b] = [ops.linear(g, f, gate), ops.linear(g, f, up)];
    return ops.linear(g, (activation === "silu" ? ops.swiglu : ops.geglu)(g, a, b), down, onto);
  };
  const span = merged ? arena.span(["gate", "up"]) : null;
  const y = whole ? ops.feedForward(g, f, { gate, up, down }, { activation, onto, merged: span }) : parts();
  const again = ops.add(g, y, ops.linear(g, ops.linear(g, ops.add(g, y, f), up), down));
  const dy = g.input("dy", y.shape);
  const gradients = g.backward(ops.sum(g, ops.mul(g, again, dy)));
  const kept = [y, ...[x, onto, gate, up, down].map((each) => gradients.get(each)!)].map((each) =>
    g.output(each),
  );
  const random = seededRandom(9);
  await g.run({
    x: Float32Array.from(normals(random, x.size)),
    onto: Float32Array.from(normals(random, x.size)),
    gain: Float32Array.from(normals(random, DIM)),
    dy: Float32Array.from(normals(random, dy.size)),
  });
  return kept.map((each) => each.readF32());
}

describe.skipIf(!kernels)("a feed-forward layer whole", () => {
  // In bf16 the gradient takes gate and up rounded once more.
  const bounds = [
    ["f32", 3e-6],
    ["bf16", 1.5e-2],
  ] as const;
  const all = bounds.flatMap(([type, bound]) =>
    (["silu", "gelu_tanh"] as const).flatMap((activation) =>
      [
        [9, FFN],
        [150, 70],
      ].flatMap(([n, ffn]) =>
        [true, false].map((merged) => ({ type, bound, activation, n: n!, ffn: ffn!, merged })),
      ),
    ),
  );
  test.each(all)("$n rows, $ffn wide, $activation, $type, merged: $merged", async (each) => {
    const { n, ffn, bound } = each;
    const wanted = await compute(devices[0]!, n, ffn, { ...each, whole: false });
    const found = await compute(devices[0]!, n, ffn, { ...each, whole: true });
    found.forEach((values, i) =>
      expect(relativeError(values, wanted[i]!), `result ${i}`).toBeLessThan(bound),
    );
    expect(await compute(devices[1]!, n, ffn, { ...each, whole: true }), "three threads").toEqual(found);
  });

  test.each(["f32", "bf16"] as const)("packed weights give the same bytes, %s", async (type) => {
    const [device] = devices;
    using arena = weights(device!, FFN);
    const run = async (packed: PackedMatrices | null) => {
      using g = new Graph(device!, { compute: type, recording: false });
      const x = g.input("x", [20, DIM]);
      const matrix = (name: string) => packed?.matrices.get(name) ?? arena.get(name);
      const matrices = { gate: matrix("gate"), up: matrix("up"), down: matrix("down") };
      expect(ops.hasFeedForward(g, 20, matrices)).toBe(true);
      const y = g.output(ops.feedForward(g, x, matrices, { activation: "silu", onto: x }));
      await g.run({ x: Float32Array.from(normals(seededRandom(2), x.size)) });
      return y.readF32();
    };
    using packed = await PackedMatrices.of(device!, arena.tensors, type);
    expect(await run(packed)).toEqual(await run(null));
  });

  test("wrong shapes and mixed kinds of matrices are refused or not taken", async () => {
    const [device] = devices;
    using arena = weights(device!, FFN);
    using packed = await PackedMatrices.of(device!, arena.tensors, "f32");
    using g = new Graph(device!, { recording: false });
    const [gate, up, down] = [arena.get("gate"), arena.get("up"), arena.get("down")];
    const x = g.input("x", [16, DIM]);
    const refusal = expect.objectContaining({ code: "tensor.shape" });
    const options = { activation: "silu" as Activation };
    expect(() => ops.feedForward(g, x, { gate, up, down: up }, options)).toThrow(refusal);
    expect(() => ops.feedForward(g, g.input("y", [16, 8]), { gate, up, down }, options)).toThrow(refusal);
    expect(() =>
      ops.feedForward(g, x, { gate, up, down }, { ...options, onto: g.input("z", [8, DIM]) }),
    ).toThrow(refusal);
    const mixed = { gate: packed.matrices.get("gate")!, up, down };
    expect(ops.hasFeedForward(g, 16, mixed)).toBe(false);
    expect(() => ops.feedForward(g, x, mixed, options)).toThrow(refusal);
    expect(ops.hasFeedForward(g, 4, { gate, up, down }), "few rows are ggml's").toBe(false);
  });
});
