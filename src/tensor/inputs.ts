// The inputs of one graph: their names, the bounds on their row numbers, and the checks before values reach the device.
import type { Handle } from "../engine/index.js";
import { writeTensor } from "../engine/index.js";
import { NlaError } from "../error.js";
import { formatShape } from "./shape.js";
import type { HostArray, Tensor } from "./tensor.js";

/** What the row numbers in an index input have to satisfy. */
export interface IndexBound {
  /** Exclusive. */
  readonly rows: number;
  /** Whether no number may occur twice. */
  readonly distinct: boolean;
}

/** Inputs by name, in the order of declaration. */
export class GraphInputs {
  readonly #tensors = new Map<string, Tensor>();
  readonly #bounds = new Map<Tensor, IndexBound>();
  readonly #written = new Set<string>();

  /** @throws NlaError `tensor.input` where the name is taken */
  requireFree(name: string): void {
    if (!this.#tensors.has(name)) return;
    throw inputError(
      name,
      "a second input of that name",
      "one input per name",
      "Use the tensor of the first.",
    );
  }

  declare(tensor: Tensor): void {
    this.#tensors.set(tensor.name, tensor);
  }

  has(tensor: Tensor): boolean {
    return this.#tensors.get(tensor.name) === tensor;
  }

  /** Whether an input of that native tensor has been given values. */
  filled(handle: Handle): boolean {
    for (const [name, tensor] of this.#tensors) {
      if (tensor.handle === handle) return this.#written.has(name);
    }
    return false;
  }

  bound(tensor: Tensor, { rows, distinct }: IndexBound): void {
    const before = this.#bounds.get(tensor);
    this.#bounds.set(tensor, {
      rows: Math.min(rows, before?.rows ?? rows),
      distinct: distinct || (before?.distinct ?? false),
    });
  }

  /**
   * Checks everything that a run is given.
   *
   * @throws NlaError `tensor.input`, `tensor.data`, `tensor.index`
   */
  check(values: Readonly<Record<string, HostArray>>): void {
    for (const [name, data] of Object.entries(values)) {
      const tensor = this.#tensors.get(name);
      if (!tensor) {
        const names = [...this.#tensors.values()].map((each) => `${each.name} ${formatShape(each.shape)}`);
        throw inputError(name, "no input of that name", `one of ${names.join(", ") || "none at all"}`);
      }
      tensor.check(data);
      this.#checkIndices(tensor, data);
    }
    for (const [name, { shape }] of this.#tensors) {
      if (Object.hasOwn(values, name) || this.#written.has(name)) continue;
      throw inputError(`${name} ${formatShape(shape)}`, "no values", "values before the first run");
    }
  }

  /** Copies checked values to the device. */
  write(values: Readonly<Record<string, HostArray>>): void {
    for (const [name, data] of Object.entries(values)) {
      const tensor = this.#tensors.get(name) as Tensor;
      writeTensor(tensor.device, tensor.handle, data);
      this.#written.add(name);
    }
  }

  #checkIndices(tensor: Tensor, data: HostArray): void {
    const bound = this.#bounds.get(tensor);
    if (bound === undefined) return;
    const { rows, distinct } = bound;
    const seen = new Set<number>();
    for (let i = 0; i < data.length; i++) {
      const value = Number(data[i]);
      const fits = value >= 0 && value < rows;
      if (fits && !(distinct && seen.has(value))) {
        if (distinct) seen.add(value);
        continue;
      }
      throw new NlaError({
        code: "tensor.index",
        subject: `input ${tensor.name} ${formatShape(tensor.shape)}, element ${i}`,
        found: fits ? `${value} for the second time` : String(value),
        wanted: fits
          ? "each row number once, because every row is written once"
          : `a row number from 0 to ${rows - 1}, of a tensor with [${rows}, ...] rows`,
        next: fits
          ? "Leave out the repeated one."
          : "A token id beyond the vocabulary is the usual reason: is this the model's own tokenizer?",
      });
    }
  }
}

function inputError(
  name: string,
  found: string,
  wanted: string,
  next = "Pass it to run({ name: values }).",
): NlaError {
  return new NlaError({ code: "tensor.input", subject: `input ${name}`, found, wanted, next });
}
