// An arena owns tensors that outlive graphs (weights, optimizer state, caches) and frees them together.
import { NativeMemory } from "../engine/index.js";
import type { Device, Dtype } from "../engine/index.js";
import { NlaError } from "../error.js";
import { extentOf, requireDtypeName } from "./shape.js";
import type { Shape } from "./shape.js";
import { Tensor } from "./tensor.js";
import type { Owner } from "./tensor.js";

// A model has hundreds of tensors; a few show how they are named.
const NAMES_SHOWN = 8;

/** What one tensor of an arena is. */
export interface TensorSpec {
  readonly shape: Shape;
  /** Defaults to `"f32"`. */
  readonly dtype?: Dtype;
  /** Whether gradients are wanted. Defaults to false. */
  readonly parameter?: boolean;
}

/**
 * Named tensors in one block of memory: `using weights = new Arena(device, "weights", { w: { shape: [8, 4] } })`.
 * Their first content is zero.
 */
export class Arena implements Owner, Disposable {
  readonly device: Device;
  readonly label: string;
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly #memory: NativeMemory;

  /** @throws NlaError `tensor.shape`, `engine.memory` */
  constructor(device: Device, label: string, specs: Readonly<Record<string, TensorSpec>>) {
    this.device = device;
    this.label = `arena ${label}`;
    const entries = Object.entries(specs);
    this.#memory = new NativeMemory(
      device,
      entries.map(([name, { shape, dtype = "f32", parameter = false }]) => {
        requireDtypeName(`tensor ${name}`, dtype);
        return { extent: extentOf(shape, `tensor ${name}`), dtype, name, parameter };
      }),
    );
    const tensors = new Map<string, Tensor>();
    entries.forEach(([name, { shape, dtype = "f32", parameter = false }], i) => {
      const handle = this.#memory.tensors[i];
      if (handle === undefined) return;
      this.#memory.zero(handle);
      tensors.set(name, new Tensor(this, handle, shape, dtype, name, parameter));
    });
    this.tensors = tensors;
  }

  /** The tensor of that name. @throws NlaError `tensor.name` where there is none */
  get(name: string): Tensor {
    const tensor = this.tensors.get(name);
    if (tensor) return tensor;
    const names = [...this.tensors.keys()];
    throw new NlaError({
      code: "tensor.name",
      subject: this.label,
      found: `no tensor ${name}`,
      wanted: `one of its ${names.length}: ${names.slice(0, NAMES_SHOWN).join(", ")}${names.length > NAMES_SHOWN ? ", ..." : ""}`,
      next: "Compare the name with those that the arena was made of.",
    });
  }

  /** Bytes allocated. */
  get bytes(): number {
    return this.#memory.bytes;
  }

  /** Sets every tensor to zero. */
  zero(): void {
    for (const tensor of this.tensors.values()) this.#memory.zero(tensor.handle);
  }

  /** Nothing to refuse: the values of an arena can always be read and written. */
  requireAccess(): void {}

  get disposed(): boolean {
    return this.#memory.disposed;
  }

  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
  }
}
