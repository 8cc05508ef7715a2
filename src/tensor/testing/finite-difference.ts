// Gradients of float64 functions by finite differences: exact enough (about 1e-9) to judge float32 code, and free of any
// derivation that could share a mistake with the rules under test.

// Fourth-order central differences: the truncation error is h⁴ f⁽⁵⁾ / 30, the rounding error 1e-16 · |f| / h.
const STEP = 1e-3;

/** The gradient of `f` at `x`, changed and restored in place. */
export function gradientOf(f: () => number, x: Float64Array): Float64Array {
  return x.map((value, i) => {
    const at = (offset: number) => {
      x[i] = value + offset;
      return f();
    };
    const slope = (8 * (at(STEP) - at(-STEP)) - (at(2 * STEP) - at(-2 * STEP))) / (12 * STEP);
    x[i] = value;
    return slope;
  });
}
