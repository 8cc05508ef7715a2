// A training small enough for a test and with a part of everything that trains a model: embedding, norm, rope, attention,
// gate, tied head, cross-entropy, accumulation over two micro-batches, AdamW.
import { adamw, Arena, GradientSums, Graph, ops } from "../index.js";
import type { Device } from "../index.js";
import { integers, normals, seededRandom } from "./random.js";

const [VOCABULARY, DIM, HEADS, LENGTH, ROWS, HIDDEN] = [23, 16, 4, 9, 3, 24];
const TOKENS = ROWS * LENGTH;
const SHAPES = {
  embedding: [VOCABULARY, DIM],
  norm1: [DIM],
  qkv: [3 * DIM, DIM],
  out: [DIM, DIM],
  norm2: [DIM],
  gate: [HIDDEN, DIM],
  up: [HIDDEN, DIM],
  down: [DIM, HIDDEN],
  norm3: [DIM],
} as const;

/** Trains for some steps. @returns the losses and every weight, in the order of their names */
export async function trainSmall(
  device: Device,
  { steps, compute, seed }: { steps: number; compute: "f32" | "bf16"; seed: number },
): Promise<{ losses: number[]; weights: Float32Array[] }> {
  const random = seededRandom(seed);
  using weights = new Arena(
    device,
    "weights",
    Object.fromEntries(Object.entries(SHAPES).map(([name, shape]) => [name, { shape, parameter: true }])),
  );
  for (const [name, tensor] of weights.tensors) {
    const values = normals(random, tensor.size).map((x) => (name.startsWith("norm") ? 1 : x * 0.2));
    tensor.write(Float32Array.from(values));
  }
  using sums = new GradientSums(weights.tensors);
  using g = new Graph(device, { compute });
  const loss = g.output(build(g, weights));
  sums.accumulate(g, g.backward(loss));
  const optimizer = adamw({ weightDecay: 0.01 });
  using state = optimizer.init(sums);

  const mask = Float32Array.from({ length: LENGTH * LENGTH }, (_, i) =>
    i % LENGTH > Math.floor(i / LENGTH) ? -Infinity : 0,
  );
  const fixed = {
    mask,
    positions: Int32Array.from({ length: TOKENS }, (_, i) => i % LENGTH),
    weights: new Float32Array(TOKENS).fill(1 / (2 * TOKENS)),
    ...Object.fromEntries([0, 1, 2].map((i) => [`part${i}`, Int32Array.of(i)])),
  };
  const batches = Array.from({ length: 2 }, () => integers(random, TOKENS + 1, VOCABULARY));
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    sums.clear();
    let total = 0;
    for (const batch of batches) {
      const [ids, targets] = [Int32Array.from(batch.slice(0, -1)), Int32Array.from(batch.slice(1))];
      await g.run({ ...fixed, ids, targets });
      total += loss.readF32()[0] as number;
    }
    losses.push(total);
    await optimizer.update(state, 0.02);
  }
  return { losses, weights: Object.keys(SHAPES).map((name) => weights.get(name).readF32()) };
}

function build(g: Graph, weights: Arena) {
  const embedding = weights.get("embedding");
  const positions = g.input("positions", [TOKENS], "i32");
  const x = ops.gatherRows(g, embedding, g.input("ids", [TOKENS], "i32"));
  const qkv = ops.linear(g, ops.rmsNorm(g, x, weights.get("norm1"), 1e-6), weights.get("qkv"));
  const parts = ops.permute(g, ops.reshape(g, qkv, [TOKENS, 3, DIM]), [1, 0, 2]);
  // One projection in three parts, taken out by a product with a unit row: slow, and a test of that gradient too.
  const part = (i: number) => {
    const rows = ops.reshape(g, parts, [3, TOKENS * DIM]);
    const pick = ops.gatherRows(g, rows, g.input(`part${i}`, [1], "i32"));
    return ops.reshape(g, pick, [TOKENS, HEADS, DIM / HEADS]);
  };
  const turned = (i: number) => ops.rope(g, part(i), positions, { theta: 1e4 });
  const perHead = [ROWS, LENGTH, HEADS, DIM / HEADS];
  const attended = ops.attention(
    g,
    ops.reshape(g, turned(0), perHead),
    ops.reshape(g, turned(1), perHead),
    ops.reshape(g, part(2), perHead),
    { mask: g.input("mask", [LENGTH, LENGTH]), scale: 1 / Math.sqrt(DIM / HEADS) },
  );
  const mixed = ops.add(g, x, ops.linear(g, ops.reshape(g, attended, [TOKENS, DIM]), weights.get("out")));
  const normed = ops.rmsNorm(g, mixed, weights.get("norm2"), 1e-6);
  const gated = ops.swiglu(
    g,
    ops.linear(g, normed, weights.get("gate")),
    ops.linear(g, normed, weights.get("up")),
  );
  const last = ops.add(g, mixed, ops.linear(g, gated, weights.get("down")));
  return ops.crossEntropy(
    g,
    ops.rmsNorm(g, last, weights.get("norm3"), 1e-6),
    embedding,
    g.input("targets", [TOKENS], "i32"),
    g.input("weights", [TOKENS]),
    { chunk: 10 },
  );
}
