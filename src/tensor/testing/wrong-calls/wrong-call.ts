// A row of the table of wrong calls, and what its calls are made on.
import { Graph } from "../../index.js";
import type { Arena, Device, Dtype, Tensor } from "../../index.js";

/** What the calls are made on. */
export interface WrongCallContext {
  readonly device: Device;
  /** Another device object on the same hardware. */
  readonly other: Device;
  readonly arena: Arena;
}

/** A call and the error that it has to end in. */
export interface WrongCall {
  readonly name: string;
  readonly code: string;
  readonly mentions: readonly string[];
  readonly call: (context: WrongCallContext) => unknown;
}

/** The tensors of {@link WrongCallContext.arena}. */
export const ARENA = {
  w: { shape: [11, 5], parameter: true },
  v: { shape: [5], parameter: true },
  half: { shape: [11, 5], dtype: "bf16" },
  frozen: { shape: [3] },
  halfParameter: { shape: [4], dtype: "bf16", parameter: true },
} as const;

/** A wrong call in a graph of its own. A code without a dot is one of `tensor.`. */
export function wrong(
  name: string,
  code: string,
  mentions: readonly string[],
  call: (g: Graph, context: WrongCallContext) => unknown,
): WrongCall {
  return {
    name,
    code: code.includes(".") ? code : `tensor.${code}`,
    mentions,
    call: async (context) => {
      using g = new Graph(context.device);
      await call(g, context);
    },
  };
}

let named = 0;

/** A differentiable input; its name does not matter. */
export function x(g: Graph, ...shape: number[]): Tensor {
  return g.variable(`x${named++}`, shape);
}

/** An input; its name does not matter. */
export function input(g: Graph, shape: number[], dtype: Dtype = "f32"): Tensor {
  return g.input(`in${named++}`, shape, dtype);
}

/** An input of row numbers. */
export function numbers(g: Graph, n: number): Tensor {
  return input(g, [n], "i32");
}

/** A value that the types forbid, as it comes from plain JavaScript or a config. */
export function mistyped(value: unknown): never {
  return value as never;
}
