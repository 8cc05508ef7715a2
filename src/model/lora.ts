// Low-rank adapters (LoRA): beside the frozen matrix W of a projection two small trained ones, y = W·x + s·B·(A·x), A
// [rank, in], B [out, rank]. Source: Hu et al. 2021; s = alpha/rank, or alpha/√rank for rsLoRA (Kalajdzievski 2023). Their
// files are lora-files.ts.
import { NlaError } from "../error.js";
import { Arena, Graph, ops } from "../tensor/index.js";
import type { Device, Tensor } from "../tensor/index.js";
import type { DecoderConfig } from "./decoder-config.js";
import type { LowRank } from "./forward.js";
import { parameterShapes } from "./parameters.js";
import { uniformAt } from "./sampling.js";

/** The linear maps of a block that can have an adapter, by the last part of their names. */
export const LORA_TARGETS = [
  "q_proj",
  "k_proj",
  "v_proj",
  "o_proj",
  "gate_proj",
  "up_proj",
  "down_proj",
] as const;

/** What an adapter is, as peft's config says it. */
export interface LoraSettings {
  readonly rank: number;
  /** Numerator of the scale. */
  readonly alpha: number;
  /** Whether alpha is divided by √rank, not by rank. Defaults to false. */
  readonly rsLora?: boolean;
  /** Which linear maps: last parts of names, as {@link LORA_TARGETS}, or more of them. Defaults to all. */
  readonly targets?: readonly string[];
}

/** The values of one module's A [rank, in] and B [out, rank]. */
export interface LoraValues {
  readonly a: Float32Array;
  readonly b: Float32Array;
}

/** Name of the trained matrix A of a module; B's has lora_B. As in peft's files, without what stands before. */
export function loraName(module: string, part: "A" | "B"): string {
  return `${module}.lora_${part}.weight`;
}

/** Every linear map of a decoder's blocks: name without `.weight`, and [out, in]. */
export function linearModules(config: DecoderConfig): Map<string, readonly [number, number]> {
  const modules = new Map<string, readonly [number, number]>();
  for (const [name, shape] of parameterShapes(config)) {
    const module = name.slice(0, -".weight".length);
    if (/^model\.layers\.\d+\..*_proj\.weight$/.test(name)) modules.set(module, shape as [number, number]);
  }
  return modules;
}

/** Whether a target name stands for a module: it is its name, or the last parts of it. */
export function isTarget(module: string, target: string): boolean {
  return module === target || module.endsWith(`.${target}`);
}

/**
 * The linear maps that target names stand for: those equal to one, or that end in a dot and it.
 *
 * @throws NlaError `model.lora` naming a target that is in no block
 */
export function targetedModules(
  config: DecoderConfig,
  targets: readonly string[],
): Map<string, readonly [number, number]> {
  const all = linearModules(config);
  for (const target of targets) {
    if ([...all.keys()].some((module) => isTarget(module, target))) continue;
    throw loraError(
      "target modules",
      `"${target}", which no block of a ${config.family} has`,
      `some of ${LORA_TARGETS.join(", ")}`,
    );
  }
  return new Map([...all].filter(([module]) => targets.some((target) => isTarget(module, target))));
}

/** An adapter on a device. It fits one decoder; `Decoder.attach` makes that use it. */
export class Lora implements Disposable {
  readonly settings: Required<LoraSettings>;
  /** [out, in] of each adapted module. */
  readonly modules: ReadonlyMap<string, readonly [number, number]>;
  /** A and B of every module, f32, trainable. */
  readonly parameters: Arena;

  /**
   * @param valuesOf the values of a module; null: A as peft starts it, uniform in ±1/√in from `seed`, and B zero, so that
   *   nothing is added until it is trained
   * @throws NlaError `model.lora` for settings that make no sense or a target that the model has not, `engine.memory`
   */
  constructor(
    device: Device,
    config: DecoderConfig,
    settings: LoraSettings,
    { valuesOf = null, seed = 0 }: { valuesOf?: ((module: string) => LoraValues) | null; seed?: number } = {},
  ) {
    const { rank, alpha, rsLora = false, targets = LORA_TARGETS } = settings;
    if (!Number.isInteger(rank) || rank < 1) throw loraError("rank (r)", String(rank), "an integer above 0");
    if (!Number.isFinite(alpha) || alpha <= 0)
      throw loraError("lora_alpha", String(alpha), "a number above 0");
    this.settings = { rank, alpha, rsLora, targets: [...targets] };
    this.modules = targetedModules(config, targets);
    const specs = [...this.modules].flatMap(([module, [out, into]]) => [
      [loraName(module, "A"), { shape: [rank, into], parameter: true }] as const,
      [loraName(module, "B"), { shape: [out, rank], parameter: true }] as const,
    ]);
    if (specs.length === 0) throw loraError("target modules", "none", "at least one");
    this.parameters = new Arena(device, "adapter", Object.fromEntries(specs));
    let at = 0;
    for (const [module, [, into]] of this.modules) {
      const values = valuesOf?.(module);
      const bound = 1 / Math.sqrt(into);
      const fresh = () =>
        Float32Array.from({ length: rank * into }, () => bound * (2 * uniformAt(seed, at++) - 1));
      this.parameters.get(loraName(module, "A")).write(values?.a ?? fresh());
      if (values) this.parameters.get(loraName(module, "B")).write(values.b);
    }
  }

  /** s. */
  get scale(): number {
    const { rank, alpha, rsLora } = this.settings;
    return alpha / (rsLora ? Math.sqrt(rank) : rank);
  }

  /** Number of parameters. */
  get parameterCount(): number {
    let count = 0;
    for (const { size } of this.parameters.tensors.values()) count += size;
    return count;
  }

  /** The two matrices of a module, or null where it has none. */
  lowRank(module: string): LowRank | null {
    const a = this.parameters.tensors.get(loraName(module, "A"));
    return a ? { a, b: this.parameters.get(loraName(module, "B")), scale: this.scale } : null;
  }

  /** W + s·B·A for the matrix [out, in] of a module. */
  async merged(module: string, matrix: Tensor): Promise<Float32Array> {
    const { a, b, scale } = this.lowRank(module) as LowRank;
    using g = new Graph(matrix.device, { recording: false });
    const sum = g.output(ops.add(g, matrix, ops.matmul(g, b, ops.scale(g, a, scale))));
    g.compile();
    await g.run({});
    return sum.readF32();
  }

  get disposed(): boolean {
    return this.parameters.disposed;
  }

  [Symbol.dispose](): void {
    this.parameters[Symbol.dispose]();
  }
}

/** An error about one thing of an adapter. */
export function loraError(what: string, found: string, wanted: string, subject = "the adapter"): NlaError {
  return new NlaError({
    code: "model.lora",
    subject: `${subject}, ${what}`,
    found,
    wanted,
    next: "Use an adapter that was trained on this model, or correct the setting; docs/models.md says what is supported.",
  });
}
