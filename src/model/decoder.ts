// A decoder on a device: its config, its parameters, and the constant tables that the forward pass reads.
import { Arena, Device, PackedMatrices, sizeOf } from "../tensor/index.js";
import type { FileMapping, PackedMatrix, Shape, Tensor, TensorSpec } from "../tensor/index.js";
import { f32ToBf16 } from "../data/floats.js";
import { mergesHeads } from "./decoder-config.js";
import type { DecoderConfig } from "./decoder-config.js";
import type { LowRank, Weights } from "./forward.js";
import { loraError } from "./lora.js";
import type { Lora } from "./lora.js";
import { EMBEDDING, headMatrices, parameterShapes } from "./parameters.js";
import type { Parts } from "./parameters.js";
import { frequencyDivisors } from "./rope-scaling.js";

/** Where the values of a new decoder come from: by name and shape. */
export type ParameterSource = (name: string, shape: Shape) => Float32Array;

/** How parameters are held that are not f32, and the mapped files that they lie in: the decoder frees those. */
export interface Held {
  readonly specs: ReadonlyMap<string, TensorSpec>;
  readonly mappings: readonly FileMapping[];
}

/** A decoder whose parameters lie on a device. `using model = ...` frees them. */
export class Decoder implements Weights, Disposable {
  readonly config: DecoderConfig;
  readonly parts: Parts;
  readonly device: Device;
  /** Parameters by Hugging Face name: f32 and trainable, or of another type and frozen. */
  readonly parameters: Arena;
  readonly #tables: Arena | null;
  #half: Arena | null = null;
  #packed: PackedMatrices | null = null;
  #lora: { readonly lora: Lora; readonly frozen: ReadonlyMap<string, Tensor> } | null = null;
  readonly #mappings: readonly FileMapping[];

  /**
   * @param source gives every parameter's values; null: the caller writes them
   * @param held how parameters are held; those that it leaves out are f32 and trainable
   * @throws NlaError `engine.memory`; `tensor.data` where the source gives other lengths
   */
  constructor(
    device: Device,
    config: DecoderConfig,
    source: ParameterSource | null,
    parts: Parts = {},
    held: Held = { specs: new Map(), mappings: [] },
  ) {
    this.#mappings = held.mappings;
    this.device = device;
    this.config = config;
    this.parts = parts;
    const shapes = parameterShapes(config, parts);
    const specs = [...shapes].map(
      ([name, shape]) => [name, held.specs.get(name) ?? { shape, parameter: true }] as const,
    );
    this.parameters = new Arena(device, "weights", Object.fromEntries(specs));
    if (source) for (const [name, shape] of shapes) this.parameters.get(name).write(source(name, shape));

    const tables: Record<string, Float32Array> = {};
    config.rope.forEach((rope, k) => {
      const divisors = frequencyDivisors(rope, config.headDim);
      if (divisors) tables[`${k}`] = divisors;
    });
    const tableSpecs = Object.entries(tables).map(([k, { length }]) => [k, { shape: [length] }] as const);
    this.#tables =
      tableSpecs.length > 0 ? new Arena(device, "rope tables", Object.fromEntries(tableSpecs)) : null;
    for (const [k, values] of Object.entries(tables)) this.#tables?.get(k).write(values);
  }

  get(name: string): Tensor {
    return this.#lora?.frozen.get(name) ?? this.parameters.get(name);
  }

  matrix(name: string): Tensor | PackedMatrix {
    return this.#packed?.matrices.get(name) ?? this.plainMatrix(name);
  }

  merged(names: readonly string[]): Tensor | PackedMatrix | null {
    if (this.#lora) return null;
    if (this.#packed) return this.#packed.matrices.get(names.join(" ")) ?? null;
    return (this.#half ?? this.parameters).span(names);
  }

  /** The same, not packed: f32, or its bf16 copy. */
  plainMatrix(name: string): Tensor {
    return this.#half?.tensors.get(name) ?? this.get(name);
  }

  lowRank(module: string): LowRank | null {
    return this.#lora?.lora.lowRank(module) ?? null;
  }

  /** The adapter in use, or null. */
  get lora(): Lora | null {
    return this.#lora?.lora ?? null;
  }

  /** What training changes, by name: all parameters, or the adapter's alone where there is one. */
  get trainable(): ReadonlyMap<string, Tensor> {
    return (this.#lora?.lora ?? this).parameters.tensors;
  }

  /**
   * Uses an adapter from now on and owns it; graphs built before do not know it. The parameters are frozen by that.
   *
   * @throws NlaError `model.lora` where there is one already
   */
  attach(lora: Lora): void {
    if (this.#lora)
      throw loraError("attach", "a model that has an adapter", "one that has none: merge it first");
    const frozen = [...this.parameters.tensors].map(([name, tensor]) => [name, tensor.frozen()] as const);
    this.#lora = { lora, frozen: new Map(frozen) };
  }

  /** Adds the adapter to the parameters and frees it; bf16 copies follow, packed ones are dropped. Without an adapter nothing happens. */
  async merge(): Promise<void> {
    if (!this.#lora) return;
    const { lora } = this.#lora;
    for (const module of lora.modules.keys()) {
      const matrix = this.parameters.get(`${module}.weight`);
      matrix.write(await lora.merged(module, matrix));
    }
    this.detach();
    if (this.#half) this.makeHalf();
    this.#packed?.[Symbol.dispose](); // they are as before
    this.#packed = null;
  }

  /** Frees the adapter; the parameters are as if it had never been. */
  detach(): void {
    this.#lora?.lora[Symbol.dispose]();
    this.#lora = null;
  }

  divisors(k: number): Tensor | null {
    return this.#tables?.tensors.get(String(k)) ?? null;
  }

  /** Number of parameters. */
  get parameterCount(): number {
    let count = 0;
    for (const { size } of this.parameters.tensors.values()) count += size;
    return count;
  }

  /**
   * A second decoder with the same values, or the first blocks of it; an adapter is not copied.
   *
   * @param config defaults to this one's; with fewer layers, the first ones are copied
   * @param replace gives values for parameters that differ (an embedding with a row more); null: copy
   */
  copy(
    config: DecoderConfig = this.config,
    parts: Parts = this.parts,
    replace: (name: string, shape: Shape) => Float32Array | null = () => null,
  ): Decoder {
    return new Decoder(
      this.device,
      config,
      (name, shape) => replace(name, shape) ?? this.get(name).readF32(),
      parts,
    );
  }

  /**
   * Makes bf16 copies of the matrices, which {@link Decoder.matrix} then returns: generation reads half as much memory.
   * Call it again when the parameters have changed, and {@link Decoder.dropCopies} before training.
   */
  makeHalf(): void {
    const matrices = [...this.parameters.tensors].filter(
      ([, { shape, dtype }]) => shape.length === 2 && dtype === "f32",
    );
    const specs = matrices.map(([name, { shape }]) => [name, { shape, dtype: "bf16" }] as const);
    this.#half ??= new Arena(this.device, "bf16 weights", Object.fromEntries(specs));
    for (const [name, tensor] of matrices) this.#half.get(name).write(f32ToBf16(tensor.readF32()));
  }

  /**
   * The matrices that `linear` multiplies with and that can be packed: all two-dimensional parameters in f32, the embedding only
   * where it is the head, too; those of queries, keys and values as one where they can be, under their names with blanks between.
   */
  get matrices(): ReadonlyMap<string, Tensor> {
    const found = this.#plainMatrices();
    if (this.#lora || !mergesHeads(this.config)) return found;
    for (let k = 0; k < this.config.layers; k++) {
      const names = headMatrices(k);
      const span = (this.#half ?? this.parameters).span(names);
      if (!span || !names.every((name) => found.delete(name))) continue;
      found.set(names.join(" "), span);
    }
    return found;
  }

  #plainMatrices(): Map<string, Tensor> {
    const names = [...this.parameters.tensors].filter(
      ([name, { shape, dtype }]) =>
        shape.length === 2 && dtype === "f32" && (this.config.tied || name !== EMBEDDING),
    );
    return new Map(names.map(([name]) => [name, this.plainMatrix(name)]));
  }

  /** Whether there are packed copies. */
  get packed(): boolean {
    return this.#packed !== null;
  }

  /**
   * Packs copies of the matrices for products of few rows, which {@link Decoder.matrix} then returns; nothing happens where the
   * device has none of nlakit's kernels. As for {@link Decoder.makeHalf}, they follow no change of the parameters.
   *
   * @throws NlaError `engine.memory`
   */
  async pack(compute: "f32" | "bf16"): Promise<void> {
    if (this.device.kernels === null) return;
    const packed = await PackedMatrices.of(this.device, this.matrices, compute);
    this.#packed?.[Symbol.dispose]();
    this.#packed = packed;
  }

  /** Frees the bf16 and the packed copies. */
  dropCopies(): void {
    this.#half?.[Symbol.dispose]();
    this.#half = null;
    this.#packed?.[Symbol.dispose]();
    this.#packed = null;
  }

  get disposed(): boolean {
    return this.parameters.disposed;
  }

  [Symbol.dispose](): void {
    this.detach();
    this.dropCopies();
    this.#tables?.[Symbol.dispose]();
    this.parameters[Symbol.dispose]();
    // After a computation that may still read them.
    this.device.release(() => this.#mappings.forEach((each) => each[Symbol.dispose]()));
  }
}

/**
 * Random values as a Llama starts from: matrices normal with standard deviation `std`, gains one. Seeded: the same seed
 * gives the same values on every platform (mulberry32 and Box-Muller).
 */
export function randomParameters(seed: number, std = 0.02): ParameterSource {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return (name, shape) => {
    const values = new Float32Array(sizeOf(shape));
    if (name.includes("norm")) return values.fill(1);
    for (let i = 0; i < values.length; i++) {
      values[i] = std * Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    }
    return values;
  };
}
