// A decoder on a device: its config, its parameters, and the constant tables that the forward pass reads.
import { Arena, Device, sizeOf } from "../tensor/index.js";
import type { FileMapping, Shape, Tensor, TensorSpec } from "../tensor/index.js";
import { f32ToBf16 } from "../data/floats.js";
import type { DecoderConfig } from "./decoder-config.js";
import type { Weights } from "./forward.js";
import { parameterShapes } from "./parameters.js";
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
    return this.parameters.get(name);
  }

  matrix(name: string): Tensor {
    return this.#half?.tensors.get(name) ?? this.parameters.get(name);
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
   * A second decoder with the same values, or the first blocks of it.
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
   * Call it again when the parameters have changed, and {@link Decoder.dropHalf} before training.
   */
  makeHalf(): void {
    const matrices = [...this.parameters.tensors].filter(
      ([, { shape, dtype }]) => shape.length === 2 && dtype === "f32",
    );
    const specs = matrices.map(([name, { shape }]) => [name, { shape, dtype: "bf16" }] as const);
    this.#half ??= new Arena(this.device, "bf16 weights", Object.fromEntries(specs));
    for (const [name, tensor] of matrices) this.#half.get(name).write(f32ToBf16(tensor.readF32()));
  }

  /** Frees the bf16 copies. */
  dropHalf(): void {
    this.#half?.[Symbol.dispose]();
    this.#half = null;
  }

  get disposed(): boolean {
    return this.parameters.disposed;
  }

  [Symbol.dispose](): void {
    this.dropHalf();
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
