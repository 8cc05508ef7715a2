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
  if (g.native) return nativeRope(g, x, positions, theta, divisors, magnitude);
  const settings = [width, HALVES, 0, theta, 1, 0, magnitude, 0, 0];
  return g.record(g.emit("rope_ext", x.shape, "f32", x, positions, divisors, ...settings), [
    x,
    (dy) => g.emit("rope_ext_back", x.shape, "f32", dy, positions, divisors, ...settings),
  ]);
}

const INVERSE = 1; // the kernel's flag (native/rows.c)

/** The same by nlakit's kernels: cosines and sines of all positions once per graph, then one kernel each way. */
function nativeRope(
  g: Graph,
  x: Tensor,
  positions: Tensor,
  theta: number,
  divisors: Tensor | null,
  magnitude: number,
): Tensor {
  const [n, , width] = x.shape as [number, number, number];
  const make = () => {
    const bits = new Uint32Array(Float32Array.of(magnitude).buffer);
    return g.emitKernel("rope_table", [n, width], [positions, divisors], {
      flags: bits[0] as number,
      value: theta,
    });
  };
  const table = g.derive(
    divisors ?? positions,
    `rope ${positions.name} ${width} ${theta} ${magnitude}`,
    make,
  );
  return g.record(g.emitKernel("rope", x.shape, [x, table]), [
    x,
    (dy) => {
      const back = (dtype: "f32" | "bf16") =>
        g.emitKernel("rope", x.shape, [dy, table], { flags: INVERSE, dtype });
      return g.offer(back("f32"), asDtype("bf16"), () => back("bf16"));
    },
  ]);
}
