// Compiled graphs of one loss, by the shape of their micro-batches: built once, run for every micro-batch of that shape. With
// gradient sums each run also adds its gradients up; without, nothing changes. Not the optimizer (trainer.ts).
import { Graph } from "../tensor/index.js";
import type { Device, GradientSums, HostArray, Tensor } from "../tensor/index.js";

/** A loss in a graph, made for micro-batches of one shape. */
export interface LossGraph<Micro> {
  /** One element; micro-batches add up, so their weights must too. */
  readonly loss: Tensor;
  /** Tensors to read after each run. */
  readonly outputs: Readonly<Record<string, Tensor>>;
  values(micro: Micro): Record<string, HostArray>;
}

/** Options of {@link LossGraphs}. */
export interface LossGraphsOptions<Micro> {
  readonly device: Device;
  readonly compute: "f32" | "bf16";
  /** Appends the loss for micro-batches like `micro` to a graph. */
  readonly build: (g: Graph, micro: Micro) => LossGraph<Micro>;
  /** Micro-batches with the same key share a graph. */
  readonly shapeOf: (micro: Micro) => string;
}

/** What a pass over micro-batches gave. */
export interface PassResult {
  /** Sum of the micro-batches' losses. */
  readonly loss: number;
  /** For each micro-batch, its outputs. */
  readonly outputs: readonly Readonly<Record<string, Float32Array>>[];
}

// Compiled graphs keep their working memory; a handful of lengths covers a training set that is padded to steps of 16.
const MAX_GRAPHS = 6;

interface Compiled<Micro> {
  readonly graph: Graph;
  readonly losses: LossGraph<Micro>;
}

/** The graphs of a loss. `using graphs = ...` frees them. */
export class LossGraphs<Micro> implements Disposable {
  readonly #options: LossGraphsOptions<Micro>;
  readonly #sums: GradientSums | null;
  // Least recently used first.
  readonly #compiled = new Map<string, Compiled<Micro>>();

  /** @param sums takes the gradients of every run; null: no gradients are computed. Defaults to null. */
  constructor(options: LossGraphsOptions<Micro>, sums: GradientSums | null = null) {
    this.#options = options;
    this.#sums = sums;
  }

  /** Graphs that are held right now. */
  get size(): number {
    return this.#compiled.size;
  }

  /** Runs all micro-batches, one after another. @throws the signal's reason between them */
  async run(micros: readonly Micro[], signal?: AbortSignal): Promise<PassResult> {
    let loss = 0;
    const outputs: Record<string, Float32Array>[] = [];
    for (const micro of micros) {
      signal?.throwIfAborted();
      const { graph, losses } = this.#graph(micro);
      await graph.run(losses.values(micro), signal);
      loss += losses.loss.readF32()[0] as number;
      outputs.push(
        Object.fromEntries(Object.entries(losses.outputs).map(([name, tensor]) => [name, tensor.readF32()])),
      );
    }
    return { loss, outputs };
  }

  #graph(micro: Micro): Compiled<Micro> {
    const key = this.#options.shapeOf(micro);
    let compiled = this.#compiled.get(key);
    if (compiled) {
      this.#compiled.delete(key); // and back in as the newest
    } else {
      this.#makeRoom();
      compiled = this.#compile(micro);
    }
    this.#compiled.set(key, compiled);
    return compiled;
  }

  #compile(micro: Micro): Compiled<Micro> {
    const { device, compute, build } = this.#options;
    const graph = new Graph(device, { compute, recording: this.#sums !== null });
    try {
      const losses = build(graph, micro);
      graph.output(losses.loss);
      for (const tensor of Object.values(losses.outputs)) graph.output(tensor);
      this.#sums?.accumulate(graph, graph.backward(losses.loss));
      graph.compile();
      return { graph, losses };
    } catch (thrown) {
      graph[Symbol.dispose]();
      throw thrown;
    }
  }

  #makeRoom(): void {
    const [oldest] = this.#compiled;
    if (this.#compiled.size < MAX_GRAPHS || !oldest) return;
    oldest[1].graph[Symbol.dispose]();
    this.#compiled.delete(oldest[0]);
  }

  [Symbol.dispose](): void {
    for (const { graph } of this.#compiled.values()) graph[Symbol.dispose]();
    this.#compiled.clear();
  }
}
