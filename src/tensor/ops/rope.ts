// Rotary position embedding.
import type { Graph } from "../graph.js";
import { shapeError } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { requireDtype, requireNumber } from "./check.js";
import { asDtype } from "./layout.js";

/** Settings of {@link rope}. */
export interface RopeOptions {
  /** Base of the frequencies. */
  readonly theta: number;
  /** Divisor of each pair's frequency, [headDim / 2] f32; null: none. Carries llama3, linear and yarn scaling. */
  readonly frequencyDivisors?: Tensor | null;
  /** Factor on cos and sin (YaRN's attention factor). Defaults to 1. */
  readonly magnitude?: number;
}

// ggml's mode in which element i is rotated with element i + headDim/2, as Hugging Face checkpoints are laid out.
const HALVES = 2;

/**
 * Rotates each pair (i, i + headDim/2) of each head by position · theta^(-2i/headDim) / divisor[i].
 * x [n, heads, headDim], positions [n] (an i32 input) -> [n, heads, headDim]. Source: Su et al. 2021.
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`, `tensor.argument`, `tensor.index`
 */
export function rope(g: Graph, x: Tensor, positions: Tensor, options: RopeOptions): Tensor {
  const { theta, frequencyDivisors: divisors = null, magnitude = 1 } = options;
  const width = x.shape[2] as number;
  checkRope(g, x, positions, options);
  if (g.native) return nativeRope(g, x, positions, options);
  const settings = [width, HALVES, 0, theta, 1, 0, magnitude, 0, 0];
  return g.record(g.emit("rope_ext", x.shape, "f32", x, positions, divisors, ...settings), [
    x,
    (dy) => g.emit("rope_ext_back", x.shape, "f32", dy, positions, divisors, ...settings),
  ]);
}

/** For ops: what {@link rope} asks of x [n, heads, headDim] and the rest. @throws as it does */
export function checkRope(
  g: Graph,
  x: Tensor,
  positions: Tensor,
  { theta, frequencyDivisors: divisors = null, magnitude = 1 }: RopeOptions,
): void {
  const [n, , width] = x.shape;
  const fits =
    x.shape.length === 3 && positions.shape.length === 1 && positions.size === n && width !== undefined;
  if (!fits || width % 2 !== 0) {
    throw shapeError("rope", [x.shape, positions.shape], "x [n, heads, even headDim] and positions [n]");
  }
  if (divisors && (divisors.shape.length !== 1 || divisors.size !== width / 2)) {
    throw shapeError("rope", [x.shape, divisors.shape], "frequency divisors [headDim / 2]");
  }
  requireDtype("rope", "f32", x, ...(divisors ? [divisors] : []));
  if (divisors) g.refuseGradient("rope", divisors);
  requireNumber("rope", "theta", theta, "a positive number", theta > 0);
  requireNumber("rope", "magnitude", magnitude, "a positive number", magnitude > 0);
  g.boundIndices("rope", positions, 2 ** 31 - 1);
}

// The kernel's flags (native/rows.c): rotate back; and the unit of the number of heads that are turned, 0 for all.
const INVERSE = 1;
const TURNED = 2;

/** Cosines and sines of all positions, [n, width], once per graph. Only where there are kernels. */
export function ropeTable(g: Graph, positions: Tensor, width: number, options: RopeOptions): Tensor {
  const { theta, frequencyDivisors: divisors = null, magnitude = 1 } = options;
  const make = () => {
    const bits = new Uint32Array(Float32Array.of(magnitude).buffer);
    return g.emitKernel("rope_table", [positions.size, width], [positions, divisors], {
      flags: bits[0] as number,
      value: theta,
    });
  };
  return g.derive(divisors ?? positions, `rope ${positions.name} ${width} ${theta} ${magnitude}`, make);
}

/** The gradient of x [n, heads, width], every head turned back. */
function turnedBack(g: Graph, dy: Tensor, table: Tensor): Tensor {
  const back = (dtype: "f32" | "bf16") =>
    g.emitKernel("rope", dy.shape, [dy, table], { flags: INVERSE, dtype });
  return g.offer(back("f32"), asDtype("bf16"), () => back("bf16"));
}

/** For ops: x [n, heads, width] itself with its first `turned` heads turned, and nothing else may read it. No gradient. */
export function turnInPlace(g: Graph, x: Tensor, table: Tensor, turned: number): Tensor {
  return g.emitKernelInPlace("rope", x, [x, table], turned * TURNED);
}

/** The same by nlakit's kernels: one each way. */
function nativeRope(g: Graph, x: Tensor, positions: Tensor, options: RopeOptions): Tensor {
  const table = ropeTable(g, positions, x.shape[2] as number, options);
  return g.record(g.emitKernel("rope", x.shape, [x, table]), [x, (dy) => turnedBack(g, dy, table)]);
}
