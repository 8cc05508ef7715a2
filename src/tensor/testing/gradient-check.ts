// Runs one row of the op tables on the engine, in every arrangement of memory that has ever gone wrong: ggml's allocator
// decides by who else uses an operand, and by whether it is a leaf or a view, whether a kernel writes over it.
import { Graph } from "../graph.js";
import type { GraphOptions } from "../graph.js";
import type { Device } from "../../engine/index.js";
import { add, affine, matmul, reshape, scale, square, sum } from "../ops/index.js";
import type { HostArray, Tensor } from "../tensor.js";
import { count } from "./array64.js";
import type { Array64 } from "./array64.js";
import { gradientOf } from "./finite-difference.js";
import type { OpCase } from "./op-case.js";
import { normals, seededRandom, seedOf } from "./random.js";

/** Where a tensor comes from: an input; the only use of a computed node; a reshaped view of a matrix product. */
export type Source = "leaf" | "computed" | "product";

/** One arrangement of operands and of the gradient that arrives. */
export interface Arrangement {
  readonly operands: Source;
  /** `shared`: somebody else reads the gradient after the op's rule has; `seed`: the op's result is the loss itself. */
  readonly gradient: Source | "shared" | "seed";
  /** Whether the operands are also used beside the op, before and after it. */
  readonly reused: boolean;
}

/** All arrangements of a result with `size` elements. */
export function arrangements(size: number): Arrangement[] {
  const sources = ["leaf", "computed", "product"] as const;
  const gradients = [...sources, "shared", ...(size === 1 ? (["seed"] as const) : [])] as const;
  return [false, true].flatMap((reused) =>
    sources.flatMap((operands) =>
      gradients
        .filter((gradient) => !(reused && gradient === "seed"))
        .map((gradient) => ({ operands, gradient, reused })),
    ),
  );
}

/** What a row should give, in float64. */
export interface Expected {
  readonly values: Readonly<Record<string, Array64>>;
  /** The gradient that arrives at the result. */
  readonly dy: Float64Array;
  readonly forward: Float64Array;
  readonly gradients: Readonly<Record<string, Float64Array>>;
}

/** Draws inputs (rounded to what the engine gets) and computes value and gradients by reference and differences. */
export function expect64(row: OpCase, round: (value: number) => number): Expected {
  const random = seededRandom(seedOf(row.name));
  const values = Object.fromEntries(
    Object.entries(row.inputs).map(([name, spec]) => [
      name,
      { shape: spec.shape, data: Float64Array.from(spec.values(random), round) },
    ]),
  );
  const forward = row.reference(values).data;
  const dy = Float64Array.from(normals(random, forward.length), round);
  const weighted = () => row.reference(values).data.reduce((all, y, i) => all + y * (dy[i] as number), 0);
  const gradients = Object.fromEntries(
    Object.entries(row.inputs)
      .filter(([, { kind }]) => kind === "variable")
      .map(([name]) => [name, gradientOf(weighted, values[name]?.data as Float64Array)]),
  );
  return { values, dy, forward, gradients };
}

/** What the engine gave. */
export interface Observed {
  readonly gradients: Readonly<Record<string, Float32Array>>;
  /** The shared gradient's product with itself after all rules ran, or null where it is not shared. */
  readonly shared: number | null;
}

/** The result of a row, kept and read, in a graph without gradients. */
export async function runForward(
  device: Device,
  row: OpCase,
  expected: Expected,
  options: GraphOptions = {},
): Promise<Tensor["shape"] extends infer S ? { shape: S; values: Float32Array } : never> {
  using g = new Graph(device, { ...options, recording: false });
  const y = g.output(row.build(g, declare(g, row, "leaf").operands));
  await g.run(inputsOf(row, expected));
  return { shape: y.shape, values: y.readF32() };
}

/** The gradients of Σ dy·y (and Σ x²/2 of each operand, where reused) in one arrangement. */
export async function runGradients(
  device: Device,
  row: OpCase,
  expected: Expected,
  arrangement: Arrangement,
  options: GraphOptions = {},
): Promise<Observed> {
  using g = new Graph(device, options);
  const { leaves, operands, identities } = declare(g, row, arrangement.operands);
  const variables = Object.entries(row.inputs).filter(([, { kind }]) => kind === "variable");
  const beside = () => variables.map(([name]) => scale(g, sum(g, square(g, operands[name] as Tensor)), 0.25));
  const before = arrangement.reused ? beside() : [];
  const y = row.build(g, operands);
  const after = arrangement.reused ? beside() : [];

  let dy: Tensor | null = null;
  let loss = y;
  if (arrangement.gradient !== "seed") {
    const given = g.input("dy", y.shape);
    const source = arrangement.gradient === "shared" ? "computed" : arrangement.gradient;
    const value = g.emit("sum", [1], "f32", g.emit("mul", y.shape, "f32", y, given));
    loss = g.record(value, [y, () => (dy = from(g, given, source, identities))]);
  }
  for (const part of [...before, ...after]) loss = add(g, part, loss);

  const gradients = g.backward(loss);
  const kept = variables.map(([name]) => {
    const gradient = gradients.get(leaves[name] as Tensor);
    if (!gradient) throw new Error(`${row.name}: no gradient for ${name}`);
    return [name, g.output(gradient)] as const;
  });
  const shared = arrangement.gradient === "shared" && dy ? g.output(sum(g, square(g, dy as Tensor))) : null;
  await g.run({
    ...inputsOf(row, expected),
    ...identities.values,
    ...(arrangement.gradient === "seed" ? {} : { dy: Float32Array.from(expected.dy) }),
  });
  return {
    gradients: Object.fromEntries(kept.map(([name, tensor]) => [name, tensor.readF32()])),
    shared: shared ? (shared.readF32()[0] as number) : null,
  };
}

/** Unit matrices, one input for each width: x · 1 is x, exactly, and a matrix product to the allocator. */
class Identities {
  readonly values: Record<string, Float32Array> = {};
  readonly #tensors = new Map<number, Tensor>();

  of(g: Graph, width: number): Tensor {
    const name = `identity${width}`;
    let tensor = this.#tensors.get(width);
    if (!tensor) this.#tensors.set(width, (tensor = g.input(name, [width, width])));
    this.values[name] = Float32Array.from({ length: width * width }, (_, i) =>
      i % (width + 1) === 0 ? 1 : 0,
    );
    return tensor;
  }
}

function from(g: Graph, x: Tensor, source: Source, identities: Identities): Tensor {
  if (source === "leaf") return x;
  if (source === "computed") return affine(g, x, 1, 0);
  const width = x.shape.at(-1) as number;
  const rows = reshape(g, x, [x.size / width, width]);
  return reshape(g, matmul(g, rows, identities.of(g, width), { compute: "f32" }), x.shape);
}

function declare(g: Graph, row: OpCase, source: Source) {
  const identities = new Identities();
  const leaves: Record<string, Tensor> = {};
  const operands: Record<string, Tensor> = {};
  for (const [name, { kind, shape }] of Object.entries(row.inputs)) {
    const leaf =
      kind === "variable" ? g.variable(name, shape) : g.input(name, shape, kind === "ids" ? "i32" : "f32");
    leaves[name] = leaf;
    operands[name] = kind === "variable" ? from(g, leaf, source, identities) : leaf;
  }
  return { leaves, operands, identities };
}

function inputsOf(row: OpCase, { values }: Expected): Record<string, HostArray> {
  return Object.fromEntries(
    Object.entries(row.inputs).map(([name, { kind, shape }]) => {
      const data = values[name]?.data ?? new Float64Array(count(shape));
      return [name, kind === "ids" ? Int32Array.from(data) : Float32Array.from(data)];
    }),
  );
}
