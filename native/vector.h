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
// 1 / x to 2 units in the last place, for x from 1 to 2^125: a first guess, the exponent turned round, and three steps of Newton's, each
// of which squares the error. A vector of divisions takes longer than all that.
INLINE float NAME(reciprocal)(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  float r = float_of_bits(0x7ef311c7u - bits); // within 12 %
  r = r * (2.f - x * r);
  r = r * (2.f - x * r);
  return r + r * (1.f - x * r); // the last one as a correction: no bit of r is rounded away
}
// 1 / (1 + e^-x); below -87 zero, so that it is zero times whatever x is, too; NaN for NaN.
INLINE float NAME(sigmoid)(float x) {
  const float limited = NAME(within)(-x), y = limited > 87.f ? 87.f : limited;
  const float value = NAME(reciprocal)(1.f + float_of_bits(NAME(exponential_bits)(y)));
  const uint32_t some = -(uint32_t)!(x < -87.f);
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

// Four lanes at a time: a part of a register, where an array of lanes would go through memory.
typedef float NAME(Four) __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t NAME(FourBits) __attribute__((vector_size(16), aligned(4), may_alias));

INLINE float NAME(lanes)(NAME(V) v) { // pairwise
  NAME(Four) part[WIDTH / 4];
  memcpy(part, &v, sizeof v);
  for (int step = WIDTH / 8; step > 0; step /= 2)
    for (int i = 0; i < step; i++) part[i] += part[i + step];
  return (part[0][0] + part[0][2]) + (part[0][1] + part[0][3]);
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

#if WIDTH == 16
// The first n lanes, or all.
INLINE __mmask16 NAME(first_lanes)(int64_t n) { return n < 16 ? (__mmask16)((1u << n) - 1) : (__mmask16)0xffff; }
#endif

// -inf for nothing. By hand: compilers vectorise no maximum unless NaN may be ignored everywhere.
INLINE float NAME(maximum)(int64_t n, const float *x) {
#if WIDTH == 16
  __m512 all = _mm512_set1_ps(-INFINITY);
  for (int64_t j = 0; j < n; j += 16) {
    const __mmask16 some = NAME(first_lanes)(n - j);
    all = _mm512_mask_max_ps(all, some, _mm512_maskz_loadu_ps(some, x + j), all); // of NaN: the second
  }
  return _mm512_reduce_max_ps(all);
#else
  NAME(V) most = {0};
  most += -INFINITY;
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) {
    const NAME(V) v = *(const NAME(V) *)(x + i);
    const NAME(W) more = (NAME(W))(v > most);
    most = (NAME(V))((more & (NAME(W))v) | (~more & (NAME(W))most));
  }
  NAME(Four) part[WIDTH / 4];
  memcpy(part, &most, sizeof most);
  for (int l = 1; l < WIDTH / 4; l++) {
    const NAME(FourBits) more = (NAME(FourBits))(part[l] > part[0]);
    part[0] = (NAME(Four))((more & (NAME(FourBits))part[l]) | (~more & (NAME(FourBits))part[0]));
  }
  const float low = part[0][0] > part[0][1] ? part[0][0] : part[0][1], high = part[0][2] > part[0][3] ? part[0][2] : part[0][3];
  float result = low > high ? low : high;
  for (; i < n; i++) result = x[i] > result ? x[i] : result;
  return result;
#endif
}

// e^x of whole vectors, by hand where there is an instruction for the power of two. As `exponential`; up to 88.72 it is finite.
#if WIDTH == 16
INLINE __m512 NAME(exponential16)(__m512 x) {
#define EACH(value) _mm512_set1_ps(value)
  const __m512 y = _mm512_min_ps(EACH(89.f), _mm512_max_ps(EACH(-87.3f), x)); // of NaN: the second
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(y, EACH(1.44269504f)), 0);
  const __m512 r = _mm512_fmadd_ps(n, EACH(2.12194440e-4f), _mm512_fnmadd_ps(n, EACH(0.693359375f), y));
  __m512 p = _mm512_fmadd_ps(EACH(1.9875691500e-4f), r, EACH(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, EACH(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, EACH(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, EACH(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, EACH(5.0000001201e-1f));
  p = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r), EACH(1.f));
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, EACH(-87.3f), _CMP_NLT_UQ), p, n);
}
// 1 / (1 + e^-x), as `sigmoid`: a guess of 14 bits and one step of Newton's.
INLINE __m512 NAME(sigmoid16)(__m512 x) {
  const __m512 lowest = EACH(-87.f), one = EACH(1.f);
  const __m512 of = _mm512_add_ps(one, NAME(exponential16)(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_max_ps(lowest, x))));
  const __m512 guess = _mm512_rcp14_ps(of), error = _mm512_fnmadd_ps(of, guess, one);
  return _mm512_maskz_fmadd_ps(_mm512_cmp_ps_mask(x, lowest, _CMP_NLT_UQ), guess, error, guess);
}
// tanh x, as `hyperbolic_tangent`.
INLINE __m512 NAME(tangent16)(__m512 x) {
  const __m512 size = _mm512_abs_ps(x), square = _mm512_mul_ps(x, x), one = EACH(1.f);
  __m512 p = _mm512_fmadd_ps(EACH(-5.70498872745e-3f), square, EACH(2.06390887954e-2f));
  p = _mm512_fmadd_ps(p, square, EACH(-5.37397155531e-2f));
  p = _mm512_fmadd_ps(p, square, EACH(1.33314422036e-1f));
  p = _mm512_fmadd_ps(p, square, EACH(-3.33332819422e-1f));
  const __m512 near = _mm512_fmadd_ps(_mm512_mul_ps(p, square), x, x);
  const __m512 limited = _mm512_min_ps(EACH(20.f), size); // beyond, it is 1; of NaN: the second
  const __m512 of = _mm512_add_ps(one, NAME(exponential16)(_mm512_add_ps(limited, limited)));
  const __m512 guess = _mm512_rcp14_ps(of), inverse = _mm512_fmadd_ps(guess, _mm512_fnmadd_ps(of, guess, one), guess);
  const __m512i sign = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32((int)0x80000000u));
  const __m512i far = _mm512_or_si512(_mm512_castps_si512(_mm512_fnmadd_ps(EACH(2.f), inverse, one)), sign);
  return _mm512_mask_mov_ps(_mm512_castsi512_ps(far), _mm512_cmp_ps_mask(size, EACH(0.625f), _CMP_LT_OQ), near);
}
#undef EACH
#endif

// y = cap tanh(factor x), and the derivatives of the tangent, 1 - tanh^2, unless `slopes` is NULL. x and y may be the same memory.
INLINE void NAME(capped)(int64_t n, float factor, float cap, const float *x, float *y, float *slopes) {
#if WIDTH == 16
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 some = NAME(first_lanes)(n - i);
    const __m512 t = NAME(tangent16)(_mm512_mul_ps(_mm512_maskz_loadu_ps(some, x + i), _mm512_set1_ps(factor)));
    _mm512_mask_storeu_ps(y + i, some, _mm512_mul_ps(t, _mm512_set1_ps(cap)));
    if (slopes) _mm512_mask_storeu_ps(slopes + i, some, _mm512_fnmadd_ps(t, t, _mm512_set1_ps(1.f)));
  }
#else
  if (slopes) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      const float t = NAME(hyperbolic_tangent)(x[i] * factor);
      y[i] = cap * t;
      slopes[i] = 1.f - t * t;
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = cap * NAME(hyperbolic_tangent)(x[i] * factor);
  }
#endif
}

// y = of(x) for all of n, `wide` by whole vectors and `single` elsewhere. They may be the same memory.
#if WIDTH == 16
#define MAP(n, x, y, wide, single)                                                                                     \
  for (int64_t i = 0; i < (n); i += 16) {                                                                              \
    const __mmask16 some = NAME(first_lanes)((n) - i);                                                                 \
    _mm512_mask_storeu_ps((y) + i, some, NAME(wide)(_mm512_maskz_loadu_ps(some, (x) + i)));                            \
  }
#else
#define MAP(n, x, y, wide, single)                                                                                     \
  _Pragma("omp simd") for (int64_t i = 0; i < (n); i++)(y)[i] = NAME(single)((x)[i]);
#endif
INLINE void NAME(powers)(int64_t n, const float *x, float *y) { MAP(n, x, y, exponential16, exponential) }
INLINE void NAME(sigmoids)(int64_t n, const float *x, float *y) { MAP(n, x, y, sigmoid16, sigmoid) }
#undef MAP

// y = e^(factor (x - most)), and the sum of that.
INLINE float NAME(scaled_exponentials)(int64_t n, float factor, float most, const float *x, float *y) {
  NAME(V) s = {0};
#if WIDTH == 16
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 some = NAME(first_lanes)(n - i);
    const __m512 below = _mm512_sub_ps(_mm512_maskz_loadu_ps(some, x + i), _mm512_set1_ps(most));
    const __m512 power = NAME(exponential16)(_mm512_mul_ps(_mm512_set1_ps(factor), below));
    _mm512_mask_storeu_ps(y + i, some, power);
    s += (NAME(V))_mm512_maskz_mov_ps(some, power);
  }
  return NAME(lanes)(s);
#else
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = NAME(exponential)(factor * (x[i] - most));
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) s += *(const NAME(V) *)(y + i);
  float tail = 0;
  for (; i < n; i++) tail += y[i];
  return NAME(lanes)(s) + tail;
#endif
}
INLINE float NAME(exponentials)(int64_t n, float most, const float *x, float *y) {
  return NAME(scaled_exponentials)(n, 1.f, most, x, y);
}

INLINE void NAME(add_scaled)(int64_t n, float factor, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] += factor * x[i];
}

// y = x, of 2 half elements, turned: each element with the one `half` further. They may be the same memory.
INLINE void NAME(turn)(int64_t half, float sign, const float *cosines, const float *sines, const float *x, float *y) {
#pragma omp simd
  for (int64_t j = 0; j < half; j++) {
    const float a = x[j], b = x[j + half], turn = sign * sines[j];
    y[j] = a * cosines[j] - b * turn;
    y[j + half] = a * turn + b * cosines[j];
  }
}

// Rounded to BF16. By hand where vectors are wide: of rows of 48 elements, or of 24, compilers do most in what is left over by theirs.
#if WIDTH == 16
INLINE __m256i NAME(rounded)(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x), high = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1)), half = _mm512_set1_epi32(0x7fff);
  const __m512i nearest = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, half)), 16);
  const __mmask16 none = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(nearest, none, high, _mm512_set1_epi32(64)));
}
#endif
INLINE void NAME(halve)(int64_t n, const float *x, uint16_t *y) {
#if WIDTH == 16
  for (int64_t j = 0; j < n; j += 16) {
    const __mmask16 some = NAME(first_lanes)(n - j);
    _mm256_mask_storeu_epi16(y + j, some, NAME(rounded)(_mm512_maskz_loadu_ps(some, x + j)));
  }
#else
  for (int64_t j = 0; j < n; j++) y[j] = to_bf16(x[j]);
#endif
}

INLINE void NAME(turn_to_bf16)(int64_t half, float sign, const float *cosines, const float *sines, const float *x, uint16_t *y) {
#if WIDTH == 16
  for (int64_t j = 0; j < half; j += 16) {
    const __mmask16 some = NAME(first_lanes)(half - j);
    const __m512 a = _mm512_maskz_loadu_ps(some, x + j), b = _mm512_maskz_loadu_ps(some, x + j + half);
    const __m512 along = _mm512_maskz_loadu_ps(some, cosines + j);
    const __m512 turn = _mm512_mul_ps(_mm512_set1_ps(sign), _mm512_maskz_loadu_ps(some, sines + j));
    _mm256_mask_storeu_epi16(y + j, some, NAME(rounded)(_mm512_fmsub_ps(a, along, _mm512_mul_ps(b, turn))));
    _mm256_mask_storeu_epi16(y + j + half, some, NAME(rounded)(_mm512_fmadd_ps(a, turn, _mm512_mul_ps(b, along))));
  }
#else
#pragma omp simd
  for (int64_t j = 0; j < half; j++) {
    const float a = x[j], b = x[j + half], turn = sign * sines[j];
    y[j] = to_bf16(a * cosines[j] - b * turn);
    y[j + half] = to_bf16(a * turn + b * cosines[j]);
  }
#endif
}
