// Vectors of the instruction set at hand, for the files of row-wise ops: sums and maxima with a fixed order of lanes, and an
// exponential that compilers can vectorise. Included once per instruction set.
typedef float NAME(V) __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t NAME(W) __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

// Bits of e^y for y from -87.3 to 88.7, to 2 units in the last place; nonsense for NaN.
INLINE uint32_t NAME(exponential_bits)(float y) {
  const float shifted = y * 1.44269504f + 12582912.f, n = shifted - 12582912.f; // n: the nearest whole power of two
  const float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;                  // ln 2 in two parts
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  // times 2^n, added to the exponent: within the limits p is below 1 where n is 128, and above 1 where it is -126. The low bits of
  // `shifted` are n, and no higher ones are left after the shift.
  uint32_t bits, power;
  memcpy(&bits, &p, 4);
  memcpy(&power, &shifted, 4);
  return bits + (power << 23);
}
INLINE float NAME(within)(float x) { // the limits above; NaN stays NaN
  const float y = x < -87.3f ? -87.3f : x;
  return y > 88.7f ? 88.7f : y;
}

// e^x to 2 units in the last place; below -87.3 zero (no denormals), above 88.7 infinity, NaN for NaN. Bits are masked: of conditions
// on floats, gcc makes several copies of what follows, divisions included.
INLINE float NAME(exponential)(float x) {
  const float y = NAME(within)(x);
  const uint32_t some = -(uint32_t)!(x < -87.3f), over = -(uint32_t)(x > 88.7f);
  const uint32_t bits = (NAME(exponential_bits)(y) & some & ~over) | (over & 0x7f800000u);
  return float_of_bits(bits) + (y - y);
}
// 1 / (1 + e^-x); below -88.7 zero, so that it is zero times whatever x is, too; NaN for NaN.
INLINE float NAME(sigmoid)(float x) {
  const float y = NAME(within)(-x), value = 1.f / (1.f + float_of_bits(NAME(exponential_bits)(y)));
  const uint32_t some = -(uint32_t)!(x < -88.7f);
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return float_of_bits(bits & some) + (y - y);
}

// tanh x to 2 units in the last place: near 0 a polynomial, since 1 - 2 / (e^2x + 1) would leave nothing but rounding there.
// Coefficients: Cephes (Moshier 1989), tanhf.
INLINE float NAME(hyperbolic_tangent)(float x) {
  const float size = fabsf(x), square = x * x;
  float p = -5.70498872745e-3f;
  p = p * square + 2.06390887954e-2f;
  p = p * square - 5.37397155531e-2f;
  p = p * square + 1.33314422036e-1f;
  p = p * square - 3.33332819422e-1f;
  const float near = p * square * x + x, far = copysignf(1.f - 2.f / (NAME(exponential)(2.f * size) + 1.f), x);
  return size < 0.625f ? near : far;
}

INLINE float NAME(lanes)(NAME(V) v) { // pairwise
  float lane[WIDTH];
  memcpy(lane, &v, sizeof lane);
  for (int step = WIDTH / 2; step > 0; step /= 2)
    for (int i = 0; i < step; i++) lane[i] += lane[i + step];
  return lane[0];
}

INLINE float NAME(dot)(int64_t n, const float *a, const float *b) {
  NAME(V) s0 = {0}, s1 = {0};
  int64_t i = 0;
  for (; i + 2 * WIDTH <= n; i += 2 * WIDTH) {
    s0 += *(const NAME(V) *)(a + i) * *(const NAME(V) *)(b + i);
    s1 += *(const NAME(V) *)(a + i + WIDTH) * *(const NAME(V) *)(b + i + WIDTH);
  }
  float tail = 0;
  for (; i < n; i++) tail += a[i] * b[i];
  return NAME(lanes)(s0 + s1) + tail;
}

INLINE float NAME(dot3)(int64_t n, const float *a, const float *b, const float *c) {
  NAME(V) s = {0};
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) s += *(const NAME(V) *)(a + i) * *(const NAME(V) *)(b + i) * *(const NAME(V) *)(c + i);
  float tail = 0;
  for (; i < n; i++) tail += a[i] * b[i] * c[i];
  return NAME(lanes)(s) + tail;
}

// -inf for nothing. By hand: compilers vectorise no maximum unless NaN may be ignored everywhere.
INLINE float NAME(maximum)(int64_t n, const float *x) {
  NAME(V) most = {0};
  most += -INFINITY;
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) {
    const NAME(V) v = *(const NAME(V) *)(x + i);
    const NAME(W) more = (NAME(W))(v > most);
    most = (NAME(V))((more & (NAME(W))v) | (~more & (NAME(W))most));
  }
  float lane[WIDTH], result = -INFINITY;
  memcpy(lane, &most, sizeof lane);
  for (int l = 0; l < WIDTH; l++) result = lane[l] > result ? lane[l] : result;
  for (; i < n; i++) result = x[i] > result ? x[i] : result;
  return result;
}

// y = e^(x - shift), and the sum of that.
INLINE float NAME(exponentials)(int64_t n, float shift, const float *x, float *y) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = NAME(exponential)(x[i] - shift);
  NAME(V) s = {0};
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) s += *(const NAME(V) *)(y + i);
  float tail = 0;
  for (; i < n; i++) tail += y[i];
  return NAME(lanes)(s) + tail;
}

INLINE void NAME(add_scaled)(int64_t n, float factor, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] += factor * x[i];
}

// Rotary embedding: element j of x is turned with element j + half. y may be x.
INLINE void NAME(turn)(int64_t half, float sign, const float *cosines, const float *sines, const float *x, float *y) {
#pragma omp simd
  for (int64_t j = 0; j < half; j++) {
    const float a = x[j], b = x[j + half], turn = sign * sines[j];
    y[j] = a * cosines[j] - b * turn;
    y[j + half] = a * turn + b * cosines[j];
  }
}
