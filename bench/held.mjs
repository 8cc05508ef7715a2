// Products with matrices held in blocks: ggml's against nlakit's own, by number of rows. What src/tensor/ops/held.ts chooses by.
//   npm run build && node bench/held.mjs [--threads 2] [--types q8_0,q4_k] [--rows 8,16,32] [--compute f32|bf16]
// Prints a table: milliseconds, ggml's / ours, the best of eight runs each of four products of [rows, 1024] with [3072, 1024].
import { Device, quantizeRows } from "../dist/engine/index.js";
import { fewestHeldRows, heldProduct } from "../dist/tensor/ops/held.js";
import { product } from "../dist/tensor/ops/product.js";
import { Arena, Graph, ops } from "../dist/tensor/index.js";

const option = (name, otherwise) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? otherwise : process.argv[at + 1];
};
const threads = +option("threads", 2);
const types = option("types", "q8_0,q4_k,q6_k,f16").split(",");
const rows = option("rows", "1,8,16,24,32,48,64,128,512").split(",").map(Number);
const compute = option("compute", "f32");
const [N, K, MATRICES, RUNS] = [3072, 1024, 4, 8];

const device = Device.open({ threads });
const values = Float32Array.from({ length: N * K }, (_, i) => Math.sin(i * 12.9898));
const halves = () => Uint16Array.from({ length: N * K }, (_, i) => 0x3000 + ((i * 7919) % 1024));

async function best(arena, m, multiply) {
  const g = new Graph(device, { compute, recording: false });
  const x = g.input("x", [m, K]);
  let sum = null;
  for (const w of arena.tensors.values()) {
    const part = ops.sum(g, multiply(g, x, w));
    sum = sum ? ops.add(g, sum, part) : part;
  }
  g.output(sum);
  await g.run({ x: values.subarray(0, m * K) });
  let least = Infinity;
  for (let i = 0; i < RUNS; i++) {
    const started = performance.now();
    await g.run({});
    least = Math.min(least, performance.now() - started);
  }
  g[Symbol.dispose]();
  return least;
}

const own = (g, x, w) => product(g, x, w, { transposeB: true, compute: g.compute });

console.log(`${compute}, ${threads} threads, ${device.kernels.level}`);
console.log(`| type | ${rows.join(" | ")} |`);
console.log(`| --- |${" --- |".repeat(rows.length)}`);
for (const type of types) {
  const names = Array.from({ length: MATRICES }, (_, i) => [`w${i}`, { shape: [N, K], dtype: type }]);
  const arena = new Arena(device, "held", Object.fromEntries(names));
  for (const w of arena.tensors.values()) w.write(type === "f16" ? halves() : quantizeRows(type, values, K));
  const from = fewestHeldRows(type, device.kernels.level, compute === "bf16" && device.kernels.fastBf16);
  const cells = [];
  for (const m of rows) {
    const [theirs, ours] = [await best(arena, m, heldProduct), await best(arena, m, own)].map((ms) =>
      ms.toFixed(1),
    );
    cells.push(m < from ? `**${theirs}** / ${ours}` : `${theirs} / **${ours}**`);
  }
  console.log(`| ${type} | ${cells.join(" | ")} |`);
  arena[Symbol.dispose]();
}
