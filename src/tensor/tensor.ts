// A tensor: a shape, an element type, a device, and the scope (an arena or a graph) that owns its memory.
//
// A tensor is never freed by itself: its owner is. Using one whose owner is gone is an error, not a crash.
import { BYTES, isBlockDtype, readTensor, writeTensor } from "../engine/index.js";
import type { Device, Dtype, Handle } from "../engine/index.js";
import { NlaError } from "../error.js";
import { formatShape, sizeOf } from "./shape.js";
import type { Shape } from "./shape.js";

/** What owns tensors: an {@link Arena} or a {@link Graph}. */
export interface Owner {
  readonly device: Device;
  readonly label: string;
  readonly disposed: boolean;
  /** @throws NlaError `tensor.access` where the values of one of its tensors cannot be read or written now */
  requireAccess(tensor: Tensor, handle: Handle, access: "read" | "write"): void;
  /** @throws NlaError where a file that its tensors lie in has changed; absent where they lie in none */
  requireFiles?(): void;
}

/** @throws NlaError `tensor.disposed` where a tensor's owner, or the device of that, is gone */
export function requireOwner(owner: Owner, subject: string): void {
  const gone = owner.disposed
    ? owner.label
    : owner.device.disposed
      ? `device ${owner.device.info.name}`
      : null;
  if (gone === null) return;
  throw new NlaError({
    code: "tensor.disposed",
    subject,
    found: `its ${gone} freed`,
    wanted: "an owner still in use",
    next: "Read the values before the scope that owns them ends.",
  });
}

/** Host data of a tensor, by dtype: f32 Float32Array, i32 Int32Array, f16 and bf16 Uint16Array, i64 BigInt64Array, blocks Uint8Array. */
export type HostArray = Float32Array | Int32Array | Uint16Array | BigInt64Array | Uint8Array;

const HOST = {
  f32: Float32Array,
  i32: Int32Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  i64: BigInt64Array,
  q4_0: Uint8Array,
  q4_1: Uint8Array,
  q5_0: Uint8Array,
  q5_1: Uint8Array,
  q8_0: Uint8Array,
  q4_k: Uint8Array,
  q5_k: Uint8Array,
  q6_k: Uint8Array,
} as const;

/** A tensor, always contiguous and row-major as seen from here. */
export class Tensor {
  readonly shape: Shape;
  readonly dtype: Dtype;
  readonly owner: Owner;
  readonly name: string;
  /** Whether `Graph.backward` computes a gradient for it. */
  readonly requiresGrad: boolean;
  readonly #handle: Handle;

  constructor(owner: Owner, handle: Handle, shape: Shape, dtype: Dtype, name: string, requiresGrad = false) {
    this.owner = owner;
    this.#handle = handle;
    this.shape = shape;
    this.dtype = dtype;
    this.name = name;
    this.requiresGrad = requiresGrad;
  }

  get device(): Device {
    return this.owner.device;
  }

  /** The same memory without a gradient: a parameter that is not trained. */
  frozen(): Tensor {
    return new Tensor(this.owner, this.#handle, this.shape, this.dtype, this.name);
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** The native tensor, for `tensor/` only. @throws NlaError `tensor.disposed` */
  get handle(): Handle {
    requireOwner(this.owner, `tensor ${this.name} ${formatShape(this.shape)}`);
    return this.#handle;
  }

  /**
   * Replaces all values of an arena's tensor. Await the runs that use it first: nothing keeps them from reading half of it.
   *
   * @throws NlaError `tensor.data` where the array's type or length does not fit, `tensor.access` for a graph's tensor
   */
  write(data: HostArray): void {
    this.check(data);
    const { handle } = this;
    this.owner.requireAccess(this, handle, "write");
    writeTensor(this.device, handle, data);
  }

  /** @throws NlaError `tensor.data` where an array could not be this tensor's values */
  check(data: HostArray): void {
    const wanted = HOST[this.dtype];
    if (data instanceof wanted && data.length === this.hostLength) return;
    throw new NlaError({
      code: "tensor.data",
      subject: `tensor ${this.name} ${formatShape(this.shape)}`,
      found: describe(data),
      wanted: `a ${wanted.name} of ${this.hostLength}`,
      next: "Give one value per element, in row-major order.",
    });
  }

  /** All values, copied to the host. @throws NlaError `tensor.access` for a graph's tensor that is no output, or not run */
  read(): HostArray {
    const { handle } = this;
    this.owner.requireAccess(this, handle, "read");
    const into = new HOST[this.dtype](this.hostLength);
    readTensor(this.device, handle, into);
    return into;
  }

  /** All values of an f32 tensor. @throws NlaError `tensor.dtype` */
  readF32(): Float32Array {
    const values = this.read();
    if (values instanceof Float32Array) return values;
    throw new NlaError({
      code: "tensor.dtype",
      subject: `tensor ${this.name} ${formatShape(this.shape)}`,
      found: this.dtype,
      wanted: "f32",
      next: "Cast it in the graph before reading it.",
    });
  }

  /** Elements of its host array: a block type is bytes there. */
  private get hostLength(): number {
    return isBlockDtype(this.dtype) ? this.bytes : this.size;
  }

  /** Bytes of its values. */
  get bytes(): number {
    return this.size * BYTES[this.dtype];
  }
}

/** What was given instead of a typed array. */
function describe(data: unknown): string {
  if (ArrayBuffer.isView(data) && "length" in data)
    return `a ${data.constructor.name} of ${data.length} elements`;
  return Array.isArray(data) ? `a plain Array of ${data.length} elements` : String(data);
}
