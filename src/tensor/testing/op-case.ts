// One row of the op tables: inputs, the op under test, the same in float64. Adding an op to the tests is adding a row.
import type { Graph } from "../graph.js";
import type { Tensor } from "../tensor.js";
import { count } from "./array64.js";
import type { Array64 } from "./array64.js";
import { normals } from "./random.js";
import type { Random } from "./random.js";

/** What an input is: differentiated, held fixed, or row numbers. */
export interface InputSpec {
  readonly kind: "variable" | "constant" | "ids";
  readonly shape: readonly number[];
  readonly values: (random: Random) => readonly number[];
}

/** Bounds on the relative Euclidean error. */
export interface Bounds {
  readonly forward: number;
  readonly gradient: number;
}

/** A row. */
export interface OpCase {
  readonly name: string;
  readonly inputs: Readonly<Record<string, InputSpec>>;
  readonly build: (g: Graph, t: Readonly<Record<string, Tensor>>) => Tensor;
  readonly reference: (v: Readonly<Record<string, Array64>>) => Array64;
  /** In f32; {@link F32_BOUNDS} if left out. */
  readonly f32?: Partial<Bounds>;
  /** With matrix products in bf16; not run in bf16 if left out. */
  readonly bf16?: Bounds;
  /** Whether bf16 products are exact for inputs that bf16 can hold: then the f32 bounds hold for them, too. */
  readonly bf16Exact?: boolean;
}

/**
 * A float32 rounding is 6e-8 and errors add up like a random walk: most values are within 2e-7. Two things amplify it: a
 * loss that nearly cancels (4e-7 seen), and the gradient of an operand of one element, one sum over all (1.7e-6 seen).
 */
export const F32_BOUNDS: Bounds = { forward: 1e-6, gradient: 5e-6 };

type Values = (random: Random, size: number) => readonly number[];

/** A differentiated input, standard normal if nothing else is said. */
export function variable(shape: readonly number[], values: Values = normals): InputSpec {
  return { kind: "variable", shape, values: (random) => values(random, count(shape)) };
}

/** An input without gradient. */
export function constant(shape: readonly number[], values: Values = normals): InputSpec {
  return { kind: "constant", shape, values: (random) => values(random, count(shape)) };
}

/** Row numbers. */
export function ids(...values: readonly number[]): InputSpec {
  return { kind: "ids", shape: [values.length], values: () => values };
}

/** An additive mask: 0 where `visible`, else -inf. The last two axes are query and key. */
export function mask(shape: readonly number[], visible: (index: number[]) => boolean): InputSpec {
  const values = (): number[] => {
    const all: number[] = [];
    const walk = (index: number[]): void => {
      if (index.length === shape.length) all.push(visible(index) ? 0 : -Infinity);
      else for (let i = 0; i < (shape[index.length] as number); i++) walk([...index, i]);
    };
    walk([]);
    return all;
  };
  return { kind: "constant", shape, values };
}
