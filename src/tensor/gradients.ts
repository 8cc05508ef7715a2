// Where gradients are added up: one buffer per parameter, so that many micro-batches make one step of any batch size.
import { Arena } from "./arena.js";
import type { Graph } from "./graph.js";
import type { Tensor } from "./tensor.js";
import { NlaError } from "../error.js";

/** Gradient sums of a set of parameters, by name. */
export class GradientSums implements Disposable {
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly sums: Arena;

  /** @param parameters trainable tensors, all on one device. @throws NlaError `tensor.gradient` where there are none */
  constructor(parameters: ReadonlyMap<string, Tensor>) {
    const [first] = parameters.values();
    if (!first) {
      throw new NlaError({
        code: "tensor.gradient",
        subject: "the parameters to train",
        found: "none",
        wanted: "at least one",
        next: "Check the filter that chose them.",
      });
    }
    this.parameters = parameters;
    const specs = [...parameters].map(([name, { shape }]) => [name, { shape }] as const);
    this.sums = new Arena(first.device, "gradients", Object.fromEntries(specs));
  }

  /** Sets all sums to zero: the start of a step. */
  clear(): void {
    this.sums.zero();
  }

  /**
   * Appends to `g` that its gradients are added to the sums in each run.
   *
   * @param gradients what `g.backward` returned
   * @throws NlaError `tensor.gradient` naming a parameter that the loss does not depend on
   */
  accumulate(g: Graph, gradients: ReadonlyMap<Tensor, Tensor>): void {
    for (const [name, parameter] of this.parameters) {
      const gradient = gradients.get(parameter);
      if (!gradient) {
        throw new NlaError({
          code: "tensor.gradient",
          subject: `parameter ${name}`,
          found: "no gradient",
          wanted: "a loss that depends on it",
          next: "Leave it out of the trained parameters.",
        });
      }
      g.expand(g.emit("add_inplace", parameter.shape, "f32", this.sums.get(name), gradient));
    }
  }

  [Symbol.dispose](): void {
    this.sums[Symbol.dispose]();
  }
}
