// Matrix products. The one place that multiplies matrices: a faster kernel is chosen here and nowhere else.
import type { Graph, Pullback } from "../graph.js";
import { sameShape, shapeError } from "../shape.js";
import { PackedMatrix } from "../packed.js";
import type { Tensor } from "../tensor.js";
import { requireDtype } from "./check.js";
import { add } from "./elementwise.js";
import { hasHeldKernel, heldProduct, isHeld, unpacked, unpacksFor } from "./held.js";
import { castTo, transpose, transposedAs } from "./layout.js";
import { hasProduct, packedProduct, product, productOnto } from "./product.js";

/** Options of {@link matmul}. */
export interface MatmulOptions {
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  /** Type to compute in. Defaults to the graph's. */
  readonly compute?: "f32" | "bf16";
}

/**
 * a · b over the last two dimensions: a [..., m, k], b [..., k, n] -> [..., m, n]; either may be given transposed.
 * Leading dimensions must be equal. A weight stored [out, in], as in Hugging Face files, is `transposeB: true`.
 *
 * @throws NlaError `tensor.shape`, `tensor.dtype`
 */
export function matmul(g: Graph, a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  const { transposeA = false, transposeB = false, compute = g.compute } = options;
  const wanted =
    "[..., m, k] and [..., k, n] (after transposition), equal in k and in the leading dimensions";
  if (a.shape.length < 2 || b.shape.length < 2) throw shapeError("matmul", [a.shape, b.shape], wanted);
  const k = a.shape.at(transposeA ? -2 : -1);
  if (k !== b.shape.at(transposeB ? -1 : -2) || !sameShape(a.shape.slice(0, -2), b.shape.slice(0, -2))) {
    throw shapeError("matmul", [a.shape, b.shape], wanted);
  }
  requireDtype("matmul", "f32", a);
  const rows = a.shape.at(transposeA ? -1 : -2) as number;
  if (isHeld(b)) {
    if (b.requiresGrad) requireDtype("matmul", "f32", b); // frozen: the f32 made of it passes no gradient on
    if (!transposeA && transposeB && !unpacksFor(g, b, rows, compute)) return heldRows(g, a, b, compute);
    if (!transposeA && b.shape.length === 2 && hasHeldKernel(g, b))
      return ownProducts(g, a, b, false, transposeB, compute);
    return matmul(g, a, unpacked(g, b), options);
  }
  if (b.dtype !== "bf16") requireDtype("matmul", "f32", b);
  if (hasProduct(g, rows)) return ownProducts(g, a, b, transposeA, transposeB, compute);
  return rowProducts(g, transposeA ? transpose(g, a) : a, transposeB ? b : transpose(g, b), compute);
}

/**
 * x · wᵀ for a weight [out, in], which may be packed: [n, in] -> [n, out]; with `onto` [n, out], added to that, where there are
 * kernels within the product: a residual stream is then read and written once less.
 *
 * @throws as {@link matmul}
 */
export function linear(g: Graph, x: Tensor, w: Tensor | PackedMatrix, onto: Tensor | null = null): Tensor {
  if (onto && !sameShape(onto.shape, [...x.shape.slice(0, -1), w.shape[0] as number])) {
    throw shapeError(
      "linear",
      [onto.shape, x.shape, w.shape],
      "onto [n, out], x [n, in] and a weight [out, in]",
    );
  }
  if (w instanceof PackedMatrix) return packedProduct(g, x, w, onto);
  const rows = x.shape.at(-2) ?? 0;
  const sums = onto !== null && x.shape.length === 2 && onto.dtype === "f32" && hasProduct(g, rows);
  if (!sums || isHeld(w) || x.dtype !== "f32" || w.shape.length !== 2 || x.shape[1] !== w.shape[1]) {
    const y = matmul(g, x, w, { transposeB: true });
    return onto ? add(g, onto, y) : y;
  }
  return ownProducts(g, x, w, false, true, g.compute, onto);
}

/** With a frozen matrix in half precision or blocks: the gradient flows to `a` alone. */
function heldRows(g: Graph, a: Tensor, w: Tensor, compute: "f32" | "bf16"): Tensor {
  return g.record(heldProduct(g, a, w), [
    a,
    (dy, sum) =>
      hasHeldKernel(g, w)
        ? productOnto(g, sum, dy, w, { compute })
        : multiplyPlain(g, dy, unpacked(g, w), compute),
  ]);
}

/** By nlakit's kernels: with A and B as given, and dY the gradient, every transposition falls out of the two flags. */
function ownProducts(
  g: Graph,
  a: Tensor,
  b: Tensor,
  transposeA: boolean,
  transposeB: boolean,
  compute: "f32" | "bf16",
  base: Tensor | null = null,
): Tensor {
  const residual: Pullback[] = base ? [[base, (dy) => dy]] : [];
  return g.record(
    product(g, a, b, { transposeA, transposeB, compute, base }),
    ...residual,
    [
      a,
      (dy, sum) =>
        transposeA
          ? productOnto(g, sum, b, dy, { transposeA: transposeB, transposeB: true, compute })
          : productOnto(g, sum, dy, b, { transposeB: !transposeB, compute }),
    ],
    [
      b,
      (dy, sum) =>
        transposeB
          ? productOnto(g, sum, dy, a, { transposeA: true, transposeB: transposeA, compute })
          : productOnto(g, sum, a, dy, { transposeA: !transposeA, compute }),
    ],
  );
}

/** a · bᵀ: every row of a with every row of b, which is what ggml multiplies natively. a [..., m, k], b [..., n, k]. */
function rowProducts(g: Graph, a: Tensor, b: Tensor, compute: "f32" | "bf16"): Tensor {
  return g.record(
    multiply(g, a, b, compute),
    [a, (dy) => multiply(g, dy, transposedAs(g, b, compute), compute)],
    [b, (dy) => multiplyTransposed(g, dy, a, compute)],
  );
}

/** For ops with gradients of their own: aᵀ · b over rows, without a record. a [..., k, m], b [..., k, n] -> [..., m, n]. */
export function multiplyTransposed(g: Graph, a: Tensor, b: Tensor, compute: "f32" | "bf16"): Tensor {
  if (hasProduct(g, a.shape.at(-1) as number)) return product(g, a, b, { transposeA: true, compute });
  // ggml's CPU kernels round the left side to bf16 anyway: done while transposing, half as much is written.
  const left = g.device.info.kind === "cpu" ? compute : "f32";
  return multiply(g, transposedAs(g, a, left), transposedAs(g, b, compute), compute);
}

/** For ops with gradients of their own: a · b without a record. a [..., m, k], b [..., k, n]. */
export function multiplyPlain(g: Graph, a: Tensor, b: Tensor, compute: "f32" | "bf16"): Tensor {
  if (hasProduct(g, a.shape.at(-2) as number)) return product(g, a, b, { compute });
  return multiply(g, a, transposedAs(g, b, compute), compute);
}

/** For ops with gradients of their own: a · bᵀ without a record. */
export function multiply(g: Graph, a: Tensor, b: Tensor, compute: "f32" | "bf16"): Tensor {
  if (isHeld(b) && b.shape.length === 2 && hasHeldKernel(g, b))
    return product(g, a, b, { transposeB: true, compute });
  if (isHeld(b)) return multiply(g, a, unpacked(g, b), compute);
  if (hasProduct(g, a.shape.at(-2) as number)) return product(g, a, b, { transposeB: true, compute });
  const shape = [...a.shape.slice(0, -1), b.shape.at(-2) as number];
  // What is bf16 already is multiplied as it is: made f32 in every run, it would cost more than it saves.
  return g.emit("mul_mat", shape, "f32", b.dtype === "bf16" ? b : castTo(g, b, compute), a);
}
