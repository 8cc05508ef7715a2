// Where gradients are added up: one buffer per parameter, so that many micro-batches make one step of any batch size.
import { Arena } from "./arena.js";
import type { Graph } from "./graph.js";
import type { Tensor } from "./tensor.js";
import { NlaError } from "../error.js";
import { partOf } from "./ops/layout.js";
import { formatShape } from "./shape.js";

const SQUARE_SLOTS = 64; // of the kernel in native/optimizer.c

/** Gradient sums of a set of parameters, by name. */
export class GradientSums implements Disposable {
  readonly parameters: ReadonlyMap<string, Tensor>;
  /** What they hold is defined after {@link GradientSums.settle}. */
  readonly sums: Arena;
  // How many runs have been added up, and the number one: the first run of a step writes over the sums, so that nobody has to fill
  // them with zeros before.
  readonly #count: Arena;
  /** [parameters, slots], partial sums of the squares of each sum, where nlakit's kernels add up; null elsewhere. Defined as the sums are. */
  readonly squares: Tensor | null;

  /**
   * @param parameters f32 tensors of arenas on one device, marked as parameters
   * @throws NlaError `tensor.gradient` where there are none, or one is not trainable; `tensor.owner` for two devices
   */
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
    for (const [name, parameter] of parameters) requireTrainable(name, parameter, first);
    this.parameters = parameters;
    const specs = [...parameters].map(([name, { shape }]) => [name, { shape }] as const);
    this.sums = new Arena(first.device, "gradients", Object.fromEntries(specs));
    this.#count = new Arena(first.device, "runs of gradients", {
      runs: { shape: [1] },
      one: { shape: [1] },
      squares: { shape: [parameters.size, SQUARE_SLOTS] },
    });
    this.#count.get("one").write(Float32Array.of(1));
    this.squares = first.device.kernels ? this.#count.get("squares") : null;
  }

  /** Forgets all gradients: the start of a step. */
  clear(): void {
    this.#count.get("runs").write(Float32Array.of(0));
    if (!this.sums.device.kernels) this.sums.zero();
  }

  /** Before the sums are read: zeros, if no run has added anything to them. */
  settle(): void {
    if (!this.squares || this.#count.get("runs").readF32()[0] !== 0) return;
    this.sums.zero();
    this.squares.write(new Float32Array(this.squares.size));
  }

  /**
   * Appends to `g` that its gradients are added to the sums in each run.
   *
   * @param gradients what `g.backward` returned
   * @throws NlaError `tensor.gradient` naming a parameter that the loss does not depend on
   */
  accumulate(g: Graph, gradients: ReadonlyMap<Tensor, Tensor>): void {
    const runs = this.#count.get("runs");
    let row = 0;
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
      const sum = this.sums.get(name);
      g.expand(
        this.squares
          ? g.emitKernelInPlace("accumulate", sum, [
              gradient,
              runs,
              partOf(g, this.squares, SQUARE_SLOTS * row++, [SQUARE_SLOTS]),
            ])
          : g.emit("add_inplace", parameter.shape, "f32", sum, gradient),
      );
    }
    if (this.squares) g.expand(g.emitKernelInPlace("accumulate", runs, [this.#count.get("one"), runs]));
  }

  [Symbol.dispose](): void {
    this.sums[Symbol.dispose]();
    this.#count[Symbol.dispose]();
  }
}

function requireTrainable(name: string, parameter: Tensor, first: Tensor): void {
  const subject = `parameter ${name} ${formatShape(parameter.shape)}`;
  if (parameter.device !== first.device) {
    throw new NlaError({
      code: "tensor.owner",
      subject,
      found: `a tensor of another device object than ${first.name} ${formatShape(first.shape)}`,
      wanted: "parameters of one device",
      next: "Open the device once and pass it on.",
    });
  }
  if (parameter.owner instanceof Arena && parameter.requiresGrad && parameter.dtype === "f32") return;
  const kind = parameter.requiresGrad ? "a parameter" : "no parameter";
  throw new NlaError({
    code: "tensor.gradient",
    subject,
    found: `${kind} of type ${parameter.dtype} in ${parameter.owner.label}`,
    wanted: "an f32 tensor of an arena, made with parameter: true",
    next: "Only such tensors can be changed by an optimizer.",
  });
}
