import { expect, test } from "vitest";
import { adamw, Arena, Device, GradientSums, Graph, ops } from "./index.js";

test("least squares by AdamW", async () => {
  using device = Device.open({ threads: 2 });
  using weights = new Arena(device, "weights", { w: { shape: [3, 5], parameter: true } });
  const w = weights.get("w");
  using sums = new GradientSums(new Map([["w", w]]));
  using g = new Graph(device);
  const x = g.input("x", [7, 5]);
  const y = g.input("y", [7, 3]);
  const loss = g.output(ops.mean(g, ops.square(g, ops.sub(g, ops.linear(g, x, w), y))));
  sums.accumulate(g, g.backward(loss));
  const optimizer = adamw();
  using state = optimizer.init(sums);
  const X = Float32Array.from({ length: 35 }, (_, i) => Math.sin(i));
  const Y = Float32Array.from({ length: 21 }, (_, i) => Math.cos(i));
  let last = 0;
  for (let i = 0; i < 200; i++) {
    sums.clear();
    await g.run({ x: X, y: Y });
    last = loss.readF32()[0]!;
    await optimizer.update(state, 0.05);
  }
  console.log(last);
  expect(last).toBeLessThan(0.2);
});
