// An arena owns tensors that outlive graphs (weights, optimizer state, caches) and frees them together.
import { NativeMemory } from "../engine/index.js";
import type { Device, Dtype, FileMapping, Handle } from "../engine/index.js";
import { NlaError } from "../error.js";
import { extentOf, requireBlocks, requireDtypeName } from "./shape.js";
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
  /** Where its values lie in a mapped file, in bytes: then they are not copied, and cannot be written. Needs {@link canMap}. */
  readonly mapped?: { readonly file: FileMapping; readonly offset: number };
}

/**
 * Named tensors in one block of memory: `using weights = new Arena(device, "weights", { w: { shape: [8, 4] } })`.
 * Their first content is zero, unless nobody reads what nobody has written.
 */
export class Arena implements Owner, Disposable {
  readonly device: Device;
  readonly label: string;
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly #memory: NativeMemory;
  readonly #mapped = new Set<Handle>();
  readonly #spans = new Map<string, Tensor | null>();
  readonly #files = new Set<FileMapping>();

  /**
   * @param cleared whether tensors begin as zeros; filling large ones holds the event loop. Defaults to true
   * @throws NlaError `tensor.shape`, `engine.memory`
   */
  constructor(
    device: Device,
    label: string,
    specs: Readonly<Record<string, TensorSpec>>,
    { cleared = true }: { readonly cleared?: boolean } = {},
  ) {
    this.device = device;
    this.label = `arena ${label}`;
    const entries = Object.entries(specs);
    this.#memory = new NativeMemory(
      device,
      entries.map(([name, { shape, dtype = "f32", parameter = false, mapped }]) => {
        requireDtypeName(`tensor ${name}`, dtype);
        requireBlocks(`tensor ${name}`, shape, dtype);
        const extent = extentOf(shape, `tensor ${name}`);
        return { extent, dtype, name, parameter, ...(mapped ? { mapped } : {}) };
      }),
    );
    const tensors = new Map<string, Tensor>();
    entries.forEach(([name, { shape, dtype = "f32", parameter = false, mapped }], i) => {
      const handle = this.#memory.tensors[i];
      if (handle === undefined) return;
      if (!mapped) {
        if (cleared) this.#memory.zero(handle);
      } else {
        this.#mapped.add(handle);
        this.#files.add(mapped.file);
      }
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

  /**
   * Matrices [out, in] that lie one after another as one, [Σ out, in], without a gradient of its own; null where they do not, or
   * are blocks.
   */
  span(names: readonly string[]): Tensor | null {
    const key = names.join(" ");
    const known = this.#spans.get(key);
    if (known !== undefined) return known;
    const parts = names.map((name) => this.get(name));
    const [first] = parts;
    const width = first?.shape[1];
    const alike = parts.every(
      ({ shape, dtype }) => shape.length === 2 && shape[1] === width && dtype === first?.dtype,
    );
    let span: Tensor | null = null;
    if (first && width !== undefined && alike && (first.dtype === "f32" || first.dtype === "bf16")) {
      const shape = [parts.reduce((sum, part) => sum + (part.shape[0] as number), 0), width];
      const handles = parts.map(({ handle }) => handle);
      const handle = this.#memory.span(handles, extentOf(shape, key), first.dtype);
      if (handle !== null) span = new Tensor(this, handle, shape, first.dtype, key);
    }
    this.#spans.set(key, span);
    return span;
  }

  /** Bytes allocated. */
  get bytes(): number {
    return this.#memory.bytes;
  }

  /** @throws NlaError `model.file-changed` where a file that tensors are mapped from is no longer what it was */
  requireFiles(): void {
    for (const file of this.#files) file.requireUnchanged();
  }

  /** Sets every tensor to zero. */
  zero(): void {
    for (const tensor of this.tensors.values()) {
      this.requireAccess(tensor, tensor.handle, "write");
      this.#memory.zero(tensor.handle);
    }
  }

  /** Values of an arena can be read and written, but for those in a mapped file. @throws NlaError `tensor.access` */
  requireAccess(tensor: Tensor, handle: Handle, access: "read" | "write"): void {
    if (access === "read" || !this.#mapped.has(handle)) return;
    throw new NlaError({
      code: "tensor.access",
      subject: `tensor ${tensor.name} of the ${this.label}`,
      found: "a write into a mapped file",
      wanted: "values that lie in memory of their own",
      next: "Load the model without mapping to change its weights.",
    });
  }

  get disposed(): boolean {
    return this.#memory.disposed;
  }

  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
  }
}
