// `nla doctor --kernels`: each op timed as it runs in a graph of this machine, one line per op: which kernels, how fast, and what
// share that is of the fastest product (or, where memory is the limit, of the fastest copy) measured in the same minute.
import { BYTES, Graph, ops } from "../tensor/index.js";
import type { Device, HostArray, Tensor } from "../tensor/index.js";
import { table } from "./table.js";

/** One op as measured. */
export interface KernelTiming {
  readonly op: string;
  /** An instruction set of nlakit's kernels, or `ggml`. */
  readonly variant: string;
  readonly milliseconds: number;
  readonly speed: number;
  /** GFLOP/s where arithmetic is the limit, GB/s where memory is. */
  readonly unit: "GFLOP/s" | "GB/s";
  /** Of the fastest product in the same type, or of a copy. */
  readonly share: number;
}

interface Timed {
  readonly op: string;
  readonly work: number; // floating point operations, or bytes that must be moved
  readonly unit: KernelTiming["unit"];
  readonly compute: "f32" | "bf16";
  readonly build: (g: Graph, input: Input) => Tensor;
  /** Whether only nlakit's kernels have it. */
  readonly own?: boolean;
  /** Inputs by whose gradients the op is timed, too: forward and reverse in one. Defaults to none. */
  readonly gradients?: readonly string[];
}
type Input = (name: string, shape: readonly number[], dtype?: "f32" | "i32" | "q8_0") => Tensor;

// The shapes of a training step of the 7-million-parameter model of `nla bench train`.
const [TOKENS, DIM, FFN, HEADS, LENGTH] = [4096, 288, 768, 6, 128];
const HEAD_DIM = DIM / HEADS;
const VOCABULARY = 4096;
const SEQUENCES = 64;
const SOME = 512; // rows, where all would take too long without the kernels
const PEAK = 1024; // side of the product that is held to be the machine's best
const ROUNDS = 12;

const product = (op: string, m: number, n: number, k: number, compute: "f32" | "bf16"): Timed => ({
  op: `${op} ${compute}`,
  work: 2 * m * n * k,
  unit: "GFLOP/s",
  compute,
  build: (g, input) => ops.linear(g, input("x", [m, k]), input("w", [n, k])),
});
const moved = (op: string, floats: number, build: Timed["build"]): Timed => ({
  op,
  work: 4 * floats,
  unit: "GB/s",
  compute: "f32",
  build,
});
const attention = (compute: "f32" | "bf16", softcap: number | null = null): Timed => ({
  op: `attention${softcap === null ? "" : ", capped,"} ${compute}`,
  work: 4 * TOKENS * LENGTH * DIM, // two products; the mask hides nothing
  unit: "GFLOP/s",
  compute,
  build: (g, input) => {
    const [q, k, v] = ["q", "k", "v"].map((name) =>
      input(name, [TOKENS / LENGTH, LENGTH, HEADS, HEAD_DIM]),
    ) as [Tensor, Tensor, Tensor];
    const mask = input("mask", [LENGTH, LENGTH]);
    return ops.attention(g, q, k, v, { mask, scale: HEAD_DIM ** -0.5, softcap });
  },
});

const PEAKS = [product("peak", PEAK, PEAK, PEAK, "f32"), product("peak", PEAK, PEAK, PEAK, "bf16")] as const;
const COPY = moved("copy", 2 * TOKENS * FFN, (g, input) => ops.scale(g, input("x", [TOKENS, FFN]), 2));
const TIMED: readonly Timed[] = [
  ...(["f32", "bf16"] as const).flatMap((compute) => [
    product("product 4096x768x288", TOKENS, FFN, DIM, compute),
    product("product 4096x288x768", TOKENS, DIM, FFN, compute),
    product("product 64x768x288", 64, FFN, DIM, compute),
    attention(compute),
    attention(compute, 50),
    {
      ...product("product 512x768x288 q8_0", SOME, FFN, DIM, compute),
      build: (g: Graph, input: Input) =>
        ops.linear(g, input("x", [SOME, DIM]), input("w", [FFN, DIM], "q8_0")),
    },
    {
      ...attention(compute),
      op: `attention and its gradient ${compute}`,
      work: 14 * TOKENS * LENGTH * DIM, // seven products
      gradients: ["q", "k", "v"],
    },
    {
      ...product("feed-forward layer", TOKENS, FFN, 3 * DIM, compute),
      build: (g: Graph, input: Input) => {
        const [x, gate, up] = [input("x", [TOKENS, DIM]), input("gate", [FFN, DIM]), input("up", [FFN, DIM])];
        const down = input("down", [DIM, FFN]);
        return ops.feedForward(g, x, { gate, up, down }, { activation: "silu" });
      },
      own: true,
    },
    {
      ...product("head with cross-entropy", SOME, VOCABULARY, DIM, compute),
      build: (g: Graph, input: Input) => {
        const [h, w] = [input("h", [SOME, DIM]), input("w", [VOCABULARY, DIM])];
        return ops.crossEntropy(g, h, w, input("targets", [SOME], "i32"), input("weights", [SOME]));
      },
    },
  ]),
  moved("RMS norm", 2 * TOKENS * DIM, (g, input) =>
    ops.rmsNorm(g, input("x", [TOKENS, DIM]), input("gain", [DIM]), 1e-5),
  ),
  {
    ...moved("RMS norm and its gradient", 5 * TOKENS * DIM, (g, input) =>
      ops.rmsNorm(g, input("x", [TOKENS, DIM]), input("gain", [DIM]), 1e-5),
    ),
    gradients: ["x", "gain"],
  },
  moved("SwiGLU", 3 * TOKENS * FFN, (g, input) =>
    ops.swiglu(g, input("gate", [TOKENS, FFN]), input("up", [TOKENS, FFN])),
  ),
  moved("GeGLU", 3 * TOKENS * FFN, (g, input) =>
    ops.geglu(g, input("gate", [TOKENS, FFN]), input("up", [TOKENS, FFN])),
  ),
  moved("soft cap", 2 * TOKENS * FFN, (g, input) => ops.softcap(g, input("x", [TOKENS, FFN]), 30)),
  moved("embedding", 2 * TOKENS * DIM, (g, input) =>
    ops.gatherRows(g, input("table", [VOCABULARY, DIM]), input("ids", [TOKENS], "i32")),
  ),
  {
    ...moved("embedding and its gradient", 3 * TOKENS * DIM + VOCABULARY * DIM, (g, input) =>
      ops.gatherRows(g, input("table", [VOCABULARY, DIM]), input("ids", [TOKENS], "i32")),
    ),
    gradients: ["table"],
  },
  {
    ...moved("attention over a cache", 2 * SEQUENCES * LENGTH * DIM, (g, input) => {
      const [keys, values] = ["keys", "values"].map((name) =>
        input(name, [SEQUENCES, HEADS, LENGTH, HEAD_DIM]),
      ) as [Tensor, Tensor];
      const positions = input("last slots", [SEQUENCES], "i32");
      const q = input("q", [SEQUENCES, HEADS, HEAD_DIM]);
      return ops.cacheAttention(g, q, keys, values, positions, { scale: HEAD_DIM ** -0.5 });
    }),
    own: true,
  },
  {
    ...moved("sum of gradients", 3 * FFN * TOKENS, (g, input) =>
      g.emitKernelInPlace("accumulate", input("sum", [FFN, TOKENS]), [
        input("gradient", [FFN, TOKENS]),
        input("last of runs", [1]),
      ]),
    ),
    own: true,
  },
  {
    ...moved("AdamW", 7 * FFN * TOKENS, (g, input) =>
      g.emitKernelInPlace("adamw", input("w", [FFN, TOKENS]), [
        ...["gradient", "m", "v"].map((name) => input(name, [FFN, TOKENS])),
        input("settings", [7]),
        input("clip", [1]),
      ]),
    ),
    own: true,
  },
  {
    ...moved("choice of tokens", SEQUENCES * VOCABULARY, (g, input) =>
      ops.chooseTokens(g, input("logits", [SEQUENCES, VOCABULARY]), input("uniform", [SEQUENCES, 2]), 1),
    ),
    own: true,
  },
  moved("rope, with its table", 2 * TOKENS * DIM, (g, input) =>
    ops.rope(g, input("x", [TOKENS, HEADS, HEAD_DIM]), input("positions", [TOKENS], "i32"), { theta: 1e4 }),
  ),
];

/** Best of some runs, milliseconds. The cost of starting a graph, some microseconds, is in it. */
async function fastest(device: Device, { build, compute, gradients = [] }: Timed): Promise<number> {
  using g = new Graph(device, { compute, recording: gradients.length > 0 });
  const inputs: Tensor[] = [];
  const result = build(g, (name, shape, dtype = "f32") => {
    const tensor = gradients.includes(name) ? g.variable(name, shape) : g.input(name, shape, dtype);
    inputs.push(tensor);
    return tensor;
  });
  g.output(result);
  if (gradients.length > 0) {
    const found = g.backward(ops.sum(g, result));
    for (const tensor of inputs) if (tensor.requiresGrad) g.output(found.get(tensor) as Tensor);
  }
  const values = Object.fromEntries(
    inputs.map(({ name, size, dtype }): [string, HostArray] => [
      name,
      dtype === "i32"
        ? new Int32Array(size).fill(name.startsWith("last") ? LENGTH - 1 : 0)
        : dtype === "q8_0"
          ? new Uint8Array(size * BYTES[dtype])
          : Float32Array.from({ length: size }, (_, i) =>
              name === "mask" ? 0 : name.startsWith("last") ? 1 : (i % 7) / 8,
            ),
    ]),
  );
  await g.run(values);
  let least = Infinity;
  for (let i = 0; i < ROUNDS; i++) {
    const started = performance.now();
    await g.run();
    least = Math.min(least, performance.now() - started);
  }
  return least;
}

/** GFLOP/s of the fastest product, on the device's threads: what other speeds are a share of. */
export async function peakSpeed(device: Device, compute: "f32" | "bf16"): Promise<number> {
  const timed = PEAKS[compute === "f32" ? 0 : 1];
  return timed.work / (await fastest(device, timed)) / 1e6;
}

/** Times every op. @throws NlaError where the device computes nothing */
export async function timeKernels(device: Device): Promise<KernelTiming[]> {
  const speed = async (timed: Timed) => timed.work / (await fastest(device, timed)) / 1e6;
  const [f32, bf16, copy] = [
    await peakSpeed(device, "f32"),
    await peakSpeed(device, "bf16"),
    await speed(COPY),
  ];
  const { kernels } = device;
  const timings: KernelTiming[] = [];
  for (const timed of TIMED) {
    if (timed.own && !kernels) continue;
    const milliseconds = await fastest(device, timed);
    const found = timed.work / milliseconds / 1e6;
    const best = timed.unit === "GB/s" ? copy : timed.compute === "bf16" ? bf16 : f32;
    const variant = kernels ? variantOf(timed, kernels.level, kernels.fastBf16) : "ggml";
    timings.push({
      op: timed.op,
      variant,
      milliseconds,
      speed: found,
      unit: timed.unit,
      share: found / best,
    });
  }
  return timings;
}

/** What a level computes an op with: its products in f32 are made of bf16 parts on AMX, all else is that of AVX-512. */
function variantOf({ op, unit, compute }: Timed, level: string, fastBf16: boolean): string {
  if (op === "embedding") return "ggml";
  if (unit === "GFLOP/s" && compute === "bf16") return fastBf16 ? level : `${level}, in f32`;
  if (unit === "GFLOP/s" && level === "amx-bf16") return "amx-bf16, three parts";
  return level.endsWith("-bf16") ? "avx512" : level;
}

/** The timings as a table. */
export function renderKernels(timings: readonly KernelTiming[]): string {
  const columns = [
    { header: "op" },
    { header: "kernels" },
    { header: "ms", align: "right" as const },
    { header: "speed", align: "right" as const },
    { header: "of the best", align: "right" as const },
  ];
  const rows = timings.map(({ op, variant, milliseconds, speed, unit, share }) => [
    op,
    variant,
    milliseconds.toFixed(2),
    `${speed.toFixed(0)} ${unit}`,
    `${(100 * share).toFixed(0)} %`,
  ]);
  return table(columns, rows);
}
