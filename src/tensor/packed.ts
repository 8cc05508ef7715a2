// Weights in the order in which nlakit's matrix products read them: packed once, instead of by every product that uses them. For
// inference, where the same weights serve many graphs of few rows; the numbers that come out are the same, bit for bit.
import { NlaError } from "../error.js";
import type { Device, KernelLevel } from "../engine/index.js";
import { Arena } from "./arena.js";
import { Graph } from "./graph.js";
import type { Tensor } from "./tensor.js";

// Bits of the kernel's flags (native/products.c).
const B_TRANSPOSED = 2;
const IN_BF16 = 4;

/** One packed weight [n, k]; `linear` takes it in place of a tensor. */
export class PackedMatrix {
  readonly n: number;
  readonly k: number;
  readonly compute: "f32" | "bf16";
  /** What the kernel reads: no tensor that any other op could make sense of. */
  readonly storage: Tensor;
  readonly #level: KernelLevel;

  constructor(n: number, k: number, compute: "f32" | "bf16", storage: Tensor, level: KernelLevel) {
    this.n = n;
    this.k = k;
    this.compute = compute;
    this.storage = storage;
    this.#level = level;
  }

  get shape(): readonly [number, number] {
    return [this.n, this.k];
  }

  /** @throws NlaError `tensor.packed` where the kernels in use are not those that packed it: every level has its own order */
  requireUsable(): void {
    const level = this.storage.device.kernels?.level ?? null;
    if (level === this.#level) return;
    throw new NlaError({
      code: "tensor.packed",
      subject: `a packed weight [${this.n}, ${this.k}]`,
      found: `packed for ${this.#level}, used with ${level ?? "no kernels"}`,
      wanted: "the same kernels",
      next: "Pack the weights again after choosing kernels.",
    });
  }
}

/** Packed copies of some weights, in one block of memory. `using packed = await PackedMatrices.of(...)` frees them. */
export class PackedMatrices implements Disposable {
  readonly matrices: ReadonlyMap<string, PackedMatrix>;
  readonly #arena: Arena;

  private constructor(arena: Arena, matrices: ReadonlyMap<string, PackedMatrix>) {
    this.#arena = arena;
    this.matrices = matrices;
  }

  /** Bytes that {@link PackedMatrices.of} would take. */
  static bytes(device: Device, weights: Iterable<Tensor>, compute: "f32" | "bf16"): number {
    let bytes = 0;
    for (const { shape } of weights) bytes += sizeOfPacked(device, shape, compute);
    return bytes;
  }

  /**
   * Packs weights [n, k], f32 or bf16, for products in `compute`. Only on a device with nlakit's kernels.
   *
   * @throws NlaError `engine.memory`
   */
  static async of(
    device: Device,
    weights: ReadonlyMap<string, Tensor>,
    compute: "f32" | "bf16",
  ): Promise<PackedMatrices> {
    const specs = [...weights].map(
      ([name, { shape }]) => [name, { shape: [sizeOfPacked(device, shape, compute) / 4] }] as const,
    );
    const arena = new Arena(device, "packed weights", Object.fromEntries(specs));
    try {
      using g = new Graph(device, { recording: false });
      const flags = B_TRANSPOSED | (compute === "bf16" ? IN_BF16 : 0);
      for (const [name, weight] of weights) {
        g.expand(g.emitKernelInPlace("pack", arena.get(name), [weight], flags));
      }
      await g.run({});
      const level = device.kernels?.level as KernelLevel;
      const matrices = [...weights].map(([name, { shape }]) => {
        const [n, k] = shape as [number, number];
        return [name, new PackedMatrix(n, k, compute, arena.get(name), level)] as const;
      });
      return new PackedMatrices(arena, new Map(matrices));
    } catch (thrown) {
      arena[Symbol.dispose]();
      throw thrown;
    }
  }

  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
  }
}

function sizeOfPacked(device: Device, shape: readonly number[], compute: "f32" | "bf16"): number {
  const [n, k] = shape as [number, number];
  const bytes = device.kernels?.packedBytes(n, k, compute === "bf16") ?? 0;
  return Math.max(Math.ceil(bytes / 4) * 4, 4);
}
