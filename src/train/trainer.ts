// One optimizer step of any loss over any number of micro-batches: gradient sums, AdamW, and the state that a checkpoint
// holds. What the loss is comes from the caller; when to step, log and save is the loops' business.
import path from "node:path";
import { openSafetensors, writeSafetensors } from "../data/safetensors.js";
import { NlaError } from "../error.js";
import { storedTensor } from "../model/index.js";
import { formatShape, GradientSums } from "../tensor/index.js";
import type { AdamwState, Optimizer, Tensor } from "../tensor/index.js";
import { LossGraphs } from "./loss-graphs.js";
import type { LossGraphsOptions, PassResult } from "./loss-graphs.js";

/** Options of {@link Trainer}. */
export interface TrainerOptions<Micro> extends LossGraphsOptions<Micro> {
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly optimizer: Optimizer<AdamwState>;
}

/** What a step gave. */
export interface StepResult extends PassResult {
  readonly gradientNorm: number;
  /** Left out, because a gradient was not finite. */
  readonly skipped: boolean;
}

/** A loss with its gradients and optimizer state. */
export class Trainer<Micro> implements Disposable {
  readonly #optimizer: Optimizer<AdamwState>;
  readonly #sums: GradientSums;
  readonly #state: AdamwState;
  readonly #training: LossGraphs<Micro>;
  readonly #measuring: LossGraphs<Micro>;

  constructor({ parameters, optimizer, ...graphs }: TrainerOptions<Micro>) {
    this.#optimizer = optimizer;
    this.#sums = new GradientSums(parameters);
    this.#state = optimizer.init(this.#sums);
    this.#training = new LossGraphs(graphs, this.#sums);
    this.#measuring = new LossGraphs(graphs);
  }

  /** Optimizer steps taken and skipped. */
  get counters(): { steps: number; skipped: number } {
    return { steps: this.#state.step, skipped: this.#state.skipped };
  }

  /**
   * One optimizer step: gradients of all micro-batches added up, clipped together, applied once.
   *
   * @param also adds the gradients of another loss before they are clipped; see {@link Trainer.joined}
   * @throws the signal's reason between micro-batches; the parameters are then as before the step
   */
  async step(
    micros: readonly Micro[],
    learningRate: number,
    signal?: AbortSignal,
    also?: () => Promise<unknown>,
  ): Promise<StepResult> {
    this.#sums.clear();
    const pass = await this.#training.run(micros, signal);
    await also?.();
    const { gradientNorm, skipped } = await this.#optimizer.update(this.#state, learningRate, signal);
    return { ...pass, gradientNorm, skipped };
  }

  /**
   * Graphs of another loss of the same parameters, whose every run adds its gradients to this trainer's: run within a step, it is a part of
   * that step. Whoever asks for them frees them, before the trainer.
   */
  joined<Other>(graphs: LossGraphsOptions<Other>): LossGraphs<Other> {
    return new LossGraphs(graphs, this.#sums);
  }

  /** Forgets moments and steps taken, as before the first step; skipped ones stay counted. */
  restart(): void {
    this.#state.moments.zero();
    this.#state.step = 0;
  }

  /** The same losses without gradients and without a change. */
  measure(micros: readonly Micro[], signal?: AbortSignal): Promise<PassResult> {
    return this.#measuring.run(micros, signal);
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
    this.#training[Symbol.dispose]();
    this.#measuring[Symbol.dispose]();
    this.#state[Symbol.dispose]();
    this.#sums[Symbol.dispose]();
  }
}
