// AdamW with decoupled weight decay, as an optimizer of two functions: `init` makes the state, `update` takes one step.
// The one place that changes parameters: a fused kernel is chosen here and nowhere else.
import { NlaError } from "../error.js";
import { Arena } from "./arena.js";
import type { GradientSums } from "./gradients.js";
import { Graph } from "./graph.js";
import { add, mul, square, sum } from "./ops/index.js";
import type { Tensor } from "./tensor.js";

/** Parameters that share settings; the first group whose `matches` is true takes a parameter. */
export interface ParameterGroup {
  readonly matches: (name: string) => boolean;
  /** Decoupled decay per unit of learning rate. Defaults to the optimizer's. */
  readonly weightDecay?: number;
  /** Factor on the learning rate. Defaults to 1. */
  readonly learningRateScale?: number;
}

/** Settings of {@link adamw}. */
export interface AdamwOptions {
  readonly beta1?: number;
  readonly beta2?: number;
  readonly eps?: number;
  readonly weightDecay?: number;
  /** Largest global gradient norm, or null for no clipping. Defaults to 1. */
  readonly clipNorm?: number | null;
  readonly groups?: readonly ParameterGroup[];
}

/** First and second moments, counters, and the two graphs of a step. */
export interface AdamwState extends Disposable {
  /** `m.{name}` and `v.{name}`. */
  readonly moments: Arena;
  /** Steps taken, without the skipped ones. */
  step: number;
  /** Steps skipped because a gradient was not finite. */
  skipped: number;
  readonly graphs: StepGraphs;
  readonly gradients: GradientSums;
}

interface StepGraphs extends Disposable {
  readonly norm: Graph;
  readonly sumOfSquares: Tensor;
  readonly apply: Graph;
}

/** What one step did. */
export interface StepReport {
  /** Global norm of the gradients before clipping. */
  readonly gradientNorm: number;
  /** Whether the step was left out because the norm was not finite. */
  readonly skipped: boolean;
}

/** An optimizer: two functions and no hidden state. */
export interface Optimizer<State> {
  init(gradients: GradientSums): State;
  update(state: State, learningRate: number, signal?: AbortSignal): Promise<StepReport>;
}

/**
 * p ← p·(1 - lr·decay) - lr·m̂/(√v̂ + eps). Source: Loshchilov and Hutter 2019; clipping by the global norm over all
 * groups, factor min(1, clipNorm / (norm + 1e-6)), as PyTorch's.
 *
 * @throws NlaError `tensor.argument` for settings outside their ranges
 */
export function adamw(options: AdamwOptions = {}): Optimizer<AdamwState> {
  const { beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weightDecay = 0, clipNorm = 1, groups = [] } = options;
  requireFraction("beta1", beta1);
  requireFraction("beta2", beta2);
  requirePositive("eps", eps);
  requireNotNegative("weightDecay", weightDecay);
  if (clipNorm !== null) requirePositive("clipNorm", clipNorm);
  groups.forEach((group, i) => {
    requireNotNegative(`groups[${i}].weightDecay`, group.weightDecay ?? 0);
    requireNotNegative(`groups[${i}].learningRateScale`, group.learningRateScale ?? 1);
  });
  // What the kernel computes with. The corrections below must be of these and not of 0.999 itself, whose 1 - beta2 is
  // 1.3e-5 away in float32: that much the first steps would be off.
  const [kept1, kept2] = [Math.fround(beta1), Math.fround(beta2)];

  const groupOf = (name: string) => groups.findIndex((group) => group.matches(name));
  const everyGroup: readonly Omit<ParameterGroup, "matches">[] = [...groups, {}];

  return {
    init(gradients) {
      const specs: Record<string, { shape: readonly number[] }> = {};
      for (const [name, { shape }] of gradients.parameters) {
        specs[`m.${name}`] = { shape };
        specs[`v.${name}`] = { shape };
      }
      const moments = new Arena(gradients.sums.device, "AdamW moments", specs);
      const graphs = stepGraphs(gradients, moments, groupOf, everyGroup.length);
      return {
        moments,
        graphs,
        gradients,
        step: 0,
        skipped: 0,
        [Symbol.dispose]() {
          graphs[Symbol.dispose]();
          moments[Symbol.dispose]();
        },
      };
    },

    async update(state, learningRate, signal) {
      requireNotNegative("learningRate", learningRate);
      state.gradients.settle();
      await state.graphs.norm.run({}, signal);
      const gradientNorm = Math.sqrt(state.graphs.sumOfSquares.readF32()[0] as number);
      if (!Number.isFinite(gradientNorm)) {
        state.skipped++;
        return { gradientNorm, skipped: true };
      }
      const step = state.step + 1;
      const inputs: Record<string, Float32Array> = {
        clip: Float32Array.of(clipNorm === null ? 1 : Math.min(1, clipNorm / (gradientNorm + 1e-6))),
      };
      everyGroup.forEach(({ weightDecay: decay = weightDecay, learningRateScale = 1 }, i) => {
        const correction1 = 1 / (1 - kept1 ** step);
        const correction2 = 1 / (1 - kept2 ** step);
        inputs[`group${i}`] = Float32Array.of(
          learningRate * learningRateScale,
          beta1,
          beta2,
          eps,
          decay,
          correction1,
          correction2,
        );
      });
      await state.graphs.apply.run(inputs, signal);
      state.step = step;
      return { gradientNorm, skipped: false };
    },
  };
}

/** One graph for the norm, whose value decides whether and how the other, the update, runs. */
function stepGraphs(
  gradients: GradientSums,
  moments: Arena,
  groupOf: (name: string) => number,
  groups: number,
): StepGraphs {
  const { device } = gradients.sums;
  const maxTensors = 64 + gradients.parameters.size * 16;
  const norm = new Graph(device, { recording: false, maxTensors });
  let total: Tensor | null = gradients.squares ? sum(norm, gradients.squares) : null;
  for (const tensor of gradients.squares ? [] : gradients.sums.tensors.values()) {
    const part = sum(norm, square(norm, tensor));
    total = total ? add(norm, total, part) : part;
  }
  const sumOfSquares = norm.output(total as Tensor);
  norm.compile();

  const apply = new Graph(device, { recording: false, maxTensors });
  const clip = apply.input("clip", [1]);
  const settings = Array.from({ length: groups }, (_, i) => apply.input(`group${i}`, [7]));
  for (const [name, parameter] of gradients.parameters) {
    const group = groupOf(name);
    const m = moments.get(`m.${name}`);
    const v = moments.get(`v.${name}`);
    const gradient = gradients.sums.get(name);
    const setting = settings.at(group) as Tensor; // -1, no group of its own, is the last
    if (apply.native) {
      apply.expand(apply.emitKernelInPlace("adamw", parameter, [gradient, m, v, setting, clip]));
      continue;
    }
    const clipped = mul(apply, gradient, clip);
    apply.expand(apply.emit("opt_step_adamw", parameter.shape, "f32", parameter, clipped, m, v, setting));
  }
  apply.compile();
  return {
    norm,
    sumOfSquares,
    apply,
    [Symbol.dispose]() {
      norm[Symbol.dispose]();
      apply[Symbol.dispose]();
    },
  };
}

function requireFraction(name: string, value: number): void {
  // As float32: 1 - 1e-9 would be 1 there.
  if (value >= 0 && Math.fround(value) < 1) return;
  throw settingError(name, value, "a number from 0 up to, not including, 1");
}

function requirePositive(name: string, value: number): void {
  if (Math.fround(value) > 0 && Number.isFinite(Math.fround(value))) return;
  throw settingError(name, value, "a finite number above 0");
}

function requireNotNegative(name: string, value: number): void {
  if (value >= 0 && Number.isFinite(Math.fround(value))) return;
  throw settingError(name, value, "a finite number that is not negative");
}

function settingError(name: string, value: number, wanted: string): NlaError {
  return new NlaError({
    code: "tensor.argument",
    subject: `AdamW setting ${name}`,
    found: String(value),
    wanted,
    next: "Correct the setting.",
  });
}
