// One optimizer step of any loss over any number of micro-batches: graphs by shape, gradient sums, AdamW, and the state that
// a checkpoint holds. What the loss is comes from the caller; when to step, log and save is the loops' business.
import path from "node:path";
import { openSafetensors, writeSafetensors } from "../data/safetensors.js";
import { NlaError } from "../error.js";
import { storedTensor } from "../model/index.js";
import { formatShape, GradientSums, Graph } from "../tensor/index.js";
import type { AdamwState, Device, HostArray, Optimizer, Tensor } from "../tensor/index.js";

/** A loss in a graph, made for micro-batches of one shape. */
export interface LossGraph<Micro> {
  /** One element; micro-batches add up, so their weights must too. */
  readonly loss: Tensor;
  /** Tensors to read after each run. */
  readonly outputs: Readonly<Record<string, Tensor>>;
  values(micro: Micro): Record<string, HostArray>;
}

/** Options of {@link Trainer}. */
export interface TrainerOptions<Micro> {
  readonly device: Device;
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly optimizer: Optimizer<AdamwState>;
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

/** What a step gave. */
export interface StepResult extends PassResult {
  readonly gradientNorm: number;
  /** Left out, because a gradient was not finite. */
  readonly skipped: boolean;
}

// Compiled graphs keep their working memory; a handful of lengths covers a training set that is padded to steps of 16.
const MAX_GRAPHS = 6;

interface Compiled<Micro> {
  readonly graph: Graph;
  readonly losses: LossGraph<Micro>;
}

/** A loss with its gradients and optimizer state. */
export class Trainer<Micro> implements Disposable {
  readonly #options: TrainerOptions<Micro>;
  readonly #sums: GradientSums;
  readonly #state: AdamwState;
  readonly #graphs = new Map<string, Compiled<Micro>>();

  constructor(options: TrainerOptions<Micro>) {
    this.#options = options;
    this.#sums = new GradientSums(options.parameters);
    this.#state = options.optimizer.init(this.#sums);
  }

  /** Optimizer steps taken and skipped. */
  get counters(): { steps: number; skipped: number } {
    return { steps: this.#state.step, skipped: this.#state.skipped };
  }

  /**
   * One optimizer step: gradients of all micro-batches added up, clipped together, applied once.
   *
   * @throws the signal's reason between micro-batches; the parameters are then as before the step
   */
  async step(micros: readonly Micro[], learningRate: number, signal?: AbortSignal): Promise<StepResult> {
    this.#sums.clear();
    const pass = await this.#run(micros, true, signal);
    const { gradientNorm, skipped } = await this.#options.optimizer.update(this.#state, learningRate, signal);
    return { ...pass, gradientNorm, skipped };
  }

  /** The same losses without gradients and without a change. */
  measure(micros: readonly Micro[], signal?: AbortSignal): Promise<PassResult> {
    return this.#run(micros, false, signal);
  }

  async #run(micros: readonly Micro[], training: boolean, signal?: AbortSignal): Promise<PassResult> {
    let loss = 0;
    const outputs: Record<string, Float32Array>[] = [];
    for (const micro of micros) {
      const { graph, losses } = this.#graph(micro, training);
      await graph.run(losses.values(micro), signal);
      loss += losses.loss.readF32()[0] as number;
      outputs.push(
        Object.fromEntries(Object.entries(losses.outputs).map(([name, tensor]) => [name, tensor.readF32()])),
      );
    }
    return { loss, outputs };
  }

  #graph(micro: Micro, training: boolean): Compiled<Micro> {
    const key = `${training ? "train" : "measure"} ${this.#options.shapeOf(micro)}`;
    let compiled = this.#graphs.get(key);
    if (compiled) {
      this.#graphs.delete(key); // and back in as the newest
    } else {
      const { device, compute, build } = this.#options;
      const graph = new Graph(device, { compute, recording: training });
      const losses = build(graph, micro);
      graph.output(losses.loss);
      for (const tensor of Object.values(losses.outputs)) graph.output(tensor);
      if (training) this.#sums.accumulate(graph, graph.backward(losses.loss));
      graph.compile();
      compiled = { graph, losses };
      this.#dropOldest();
    }
    this.#graphs.set(key, compiled);
    return compiled;
  }

  #dropOldest(): void {
    const [oldest] = this.#graphs;
    if (this.#graphs.size < MAX_GRAPHS || !oldest) return;
    oldest[1].graph[Symbol.dispose]();
    this.#graphs.delete(oldest[0]);
  }

  /** Writes the optimizer's moments to `{name}.safetensors` in a folder; the counters go into the checkpoint's state. */
  async save(directory: string, name: string): Promise<void> {
    const tensors = [...this.#state.moments.tensors].map(([each, t]) =>
      storedTensor(each, t.shape, "F32", t.readF32()),
    );
    await writeSafetensors(path.join(directory, `${name}.safetensors`), tensors);
  }

  /**
   * Takes moments and counters back from a checkpoint.
   *
   * @throws NlaError `train.moments` where the file is of other parameters, and those of the safetensors reader
   */
  async restore(
    directory: string,
    name: string,
    { steps, skipped }: { steps: number; skipped: number },
  ): Promise<void> {
    const file = await openSafetensors(path.join(directory, `${name}.safetensors`));
    try {
      for (const [each, tensor] of this.#state.moments.tensors) {
        const entry = file.entries.get(each);
        if (!entry || formatShape(entry.shape) !== formatShape(tensor.shape)) {
          throw new NlaError({
            code: "train.moments",
            subject: `${file.path}, tensor ${each}`,
            found: entry ? formatShape(entry.shape) : "no such tensor",
            wanted: formatShape(tensor.shape),
            next: "The checkpoint is of another model; delete its folder to go on from the one before.",
          });
        }
        tensor.write(await file.readF32(each));
      }
    } finally {
      await file.close();
    }
    this.#state.step = steps;
    this.#state.skipped = skipped;
  }

  [Symbol.dispose](): void {
    for (const { graph } of this.#graphs.values()) graph[Symbol.dispose]();
    this.#graphs.clear();
    this.#state[Symbol.dispose]();
    this.#sums[Symbol.dispose]();
  }
}
