// A process of its own that builds, runs and frees graphs, then arenas, and prints resident memory in bytes at some points.
// Arguments: what ("graphs" or "arenas"), how many between two points, how many points.
import { Arena, Device, Graph, ops } from "../../index.js";

const [what, count, points] = process.argv.slice(2);
using device = Device.open({ threads: 1 });
using weights = new Arena(device, "weights", { w: { shape: [64, 64], parameter: true } });

async function graph(): Promise<void> {
  using g = new Graph(device);
  let x = g.input("x", [32, 64]);
  for (let i = 0; i < 4; i++) x = ops.silu(g, ops.linear(g, x, weights.get("w")));
  const gradients = g.backward(ops.mean(g, ops.square(g, x)));
  const gradient = g.output(gradients.get(weights.get("w")) ?? x);
  await g.run({ x: new Float32Array(32 * 64).fill(0.1) });
  gradient.readF32();
}

const values = new Float32Array(256 * 1024).fill(1);
function arena(): void {
  using cache = new Arena(device, "cache", { k: { shape: [256, 1024] }, v: { shape: [256, 1024] } });
  cache.get("k").write(values);
}

const resident: number[] = [];
for (let point = 0; point < Number(points); point++) {
  for (let i = 0; i < Number(count); i++) {
    if (what === "graphs") await graph();
    else arena();
    if (i % 50 === 0) global.gc?.();
  }
  global.gc?.();
  resident.push(process.memoryUsage().rss);
}
console.log(resident.join(" "));
