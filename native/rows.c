// Ops that work row by row or element by element, forward and backward: RMS norm, gated activations, rotary embedding,
// cross-entropy over logits, the gradient of an embedding. Sums over rows are kept in a fixed number of slots, so that results
// do not depend on the number of threads.
#ifndef ISA
#include "kernels.h"
#define TEMPLATE "rows.c"
#include "variants.h"
#else
#include "vector.h"

#ifndef ROW_SETTINGS
#define ROW_SETTINGS
enum { SLOTS = 32 };     // partial sums over rows
enum { RANGE = 4096 };   // elements that one thread takes at least
enum { INVERSE = 1, TURNED = 2 }; // rope: rotate back; and the unit of the number of heads
enum { AS_BF16 = 1 };    // cross-entropy: leave the gradient in bf16
enum { GELU = 1 };       // gate: tanh form of GELU instead of SiLU
#endif

#define ROWS_OF_THREAD(n) for (int64_t i = (n) * ith / nth; i < (n) * (ith + 1) / nth; i++)

// ---- RMS norm: y = x r gain, r = 1 / sqrt(mean(x^2) + eps)

INLINE float NAME(inverse_rms)(int64_t d, const float *x, float eps) {
  return 1.f / sqrtf(NAME(dot)(d, x, x) / (float)d + eps);
}

// Sources: scratch, x [d, n], gain [d] -> like x, F32 or BF16. Value: eps.
static void NAME(rms_norm)(Tensor *dst, int ith, int nth, void *userdata) {
  const float eps = settings_of(userdata).value;
  const int64_t d = dst->ne[0];
  const float *gain = source(dst, 2);
  ROWS_OF_THREAD(rows_of(dst)) {
    const float *x = source(dst, 1) + i * d;
    const float r = NAME(inverse_rms)(d, x, eps);
    if (dst->type == TYPE_BF16) {
      uint16_t *half = (uint16_t *)dst->data + i * d;
      for (int64_t j = 0; j < d; j++) half[j] = to_bf16(x[j] * r * gain[j]);
      continue;
    }
    float *y = (float *)dst->data + i * d;
    for (int64_t j = 0; j < d; j++) y[j] = x[j] * r * gain[j];
  }
}

// dx = [sum +] r gain dy - x r^3 / d (dy gain . x), and dgain = sum over rows of dy x r, the latter as SLOTS partial sums.
// Sources: scratch, dy, x, gain, [sum like x] -> dx [d, n] | partial sums [d, SLOTS].
static void NAME(rms_norm_back)(Tensor *dst, int ith, int nth, void *userdata) {
  const float eps = settings_of(userdata).value;
  const int64_t d = dst->src[2]->ne[0], n = rows_of(dst->src[2]);
  const float *gain = source(dst, 3), *before = dst->src[4] ? source(dst, 4) : NULL;
  float *all = (float *)dst->data, *partial = all + n * d;
  for (int64_t slot = ith; slot < SLOTS; slot += nth) {
    float *dgain = partial + slot * d;
    memset(dgain, 0, d * 4);
    for (int64_t i = n * slot / SLOTS; i < n * (slot + 1) / SLOTS; i++) {
      const float *dy = source(dst, 1) + i * d, *x = source(dst, 2) + i * d;
      float *dx = all + i * d;
      const float r = NAME(inverse_rms)(d, x, eps);
      const float along = NAME(dot3)(d, dy, gain, x) * r * r * r / (float)d;
      if (before)
        for (int64_t j = 0; j < d; j++) dx[j] = before[i * d + j] + (r * gain[j] * dy[j] - along * x[j]);
      else
        for (int64_t j = 0; j < d; j++) dx[j] = r * gain[j] * dy[j] - along * x[j];
      for (int64_t j = 0; j < d; j++) dgain[j] += dy[j] * x[j] * r;
    }
  }
}

// dst [d] = sum of the rows of [d, n].
static void NAME(sum_rows)(Tensor *dst, int ith, int nth, void *userdata) {
  (void)userdata;
  const int64_t d = dst->ne[0], n = dst->src[1]->ne[1], from = d * ith / nth, until = d * (ith + 1) / nth;
  const float *x = source(dst, 1);
  float *y = (float *)dst->data;
  for (int64_t j = from; j < until; j++) y[j] = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = from; j < until; j++) y[j] += x[i * d + j];
}

// ---- gated activations: y = f(gate) up. Both are x sigmoid(inner(x)): SiLU with x itself, GELU with 2 sqrt(2/pi) (x + 0.044715 x^3)

#ifndef GELU_FACTORS
#define GELU_FACTORS
static const float GELU_LINEAR = 1.5957691216057308f, GELU_CUBIC = 0.07135481283f;
#endif

// y[from, until) of a gate.
INLINE void NAME(gate_range)(int gelu, int64_t from, int64_t until, const float *gate, const float *up, float *y) {
  if (gelu) {
#pragma omp simd
    for (int64_t i = from; i < until; i++) {
      const float x = gate[i], inner = x * (GELU_LINEAR + GELU_CUBIC * x * x);
      y[i - from] = x * NAME(sigmoid)(inner) * up[i];
    }
  } else {
#pragma omp simd
    for (int64_t i = from; i < until; i++) y[i - from] = gate[i] * NAME(sigmoid)(gate[i]) * up[i];
  }
}

// Sources: scratch, gate, up -> like them, F32 or BF16. Flag: GELU.
static void NAME(gated)(Tensor *dst, int ith, int nth, void *userdata) {
  const int64_t n = size_of(dst), from = part(n, RANGE, ith, nth), until = part(n, RANGE, ith + 1, nth);
  const float *gate = source(dst, 1), *up = source(dst, 2);
  const int gelu = (settings_of(userdata).flags & GELU) != 0;
  if (dst->type != TYPE_BF16) {
    if (until > from) NAME(gate_range)(gelu, from, until, gate, up, (float *)dst->data + from);
    return;
  }
  float block[256];
  for (int64_t at = from; at < until; at += 256) {
    const int64_t end = min64(at + 256, until);
    NAME(gate_range)(gelu, at, end, gate, up, block);
    uint16_t *half = (uint16_t *)dst->data + at;
    for (int64_t k = 0; k < end - at; k++) half[k] = to_bf16(block[k]);
  }
}

// dgate and dup of elements [from, until).
INLINE void NAME(gate_back_range)(int gelu, int64_t from, int64_t until, const float *dy, const float *gate, const float *up,
                                  float *dgate, float *dup) {
  if (gelu) {
#pragma omp simd
    for (int64_t i = from; i < until; i++) {
      // Beyond 30 the sigmoid is 0 or 1 anyway, and the square of 1e20 would make that 0 NaN.
      const float x = gate[i], near = x > 30.f ? 30.f : x < -30.f ? -30.f : x, square = near * near;
      const float s = NAME(sigmoid)(near * (GELU_LINEAR + GELU_CUBIC * square));
      dup[i - from] = dy[i] * x * s;
      dgate[i - from] = dy[i] * up[i] * (s + x * s * (1.f - s) * (GELU_LINEAR + 3.f * GELU_CUBIC * square));
    }
  } else {
#pragma omp simd
    for (int64_t i = from; i < until; i++) {
      const float x = gate[i], s = NAME(sigmoid)(x);
      dup[i - from] = dy[i] * x * s;
      dgate[i - from] = dy[i] * up[i] * (s + x * s * (1.f - s));
    }
  }
}

// Sources: scratch, dy, gate, up -> dgate | dup, F32 or BF16. Flag: GELU.
static void NAME(gated_back)(Tensor *dst, int ith, int nth, void *userdata) {
  const int64_t n = size_of(dst->src[1]), from = part(n, RANGE, ith, nth), until = part(n, RANGE, ith + 1, nth);
  const float *dy = source(dst, 1), *gate = source(dst, 2), *up = source(dst, 3);
  const int gelu = (settings_of(userdata).flags & GELU) != 0;
  if (dst->type != TYPE_BF16) {
    float *dgate = (float *)dst->data;
    if (until > from) NAME(gate_back_range)(gelu, from, until, dy, gate, up, dgate + from, dgate + n + from);
    return;
  }
  float blocks[2][256];
  uint16_t *half = (uint16_t *)dst->data;
  for (int64_t at = from; at < until; at += 256) {
    const int64_t end = min64(at + 256, until);
    NAME(gate_back_range)(gelu, at, end, dy, gate, up, blocks[0], blocks[1]);
    for (int64_t k = 0; k < end - at; k++) half[at + k] = to_bf16(blocks[0][k]);
    for (int64_t k = 0; k < end - at; k++) half[n + at + k] = to_bf16(blocks[1][k]);
  }
}

// ---- rotary embedding: element i is turned with element i + d/2

// cos | sin of each position, times the magnitude. Sources: scratch, positions i32 [n], [frequency divisors [d/2]] -> [d, n].
// Value: theta; the flags are the bits of the magnitude. Angles are float products, as in the reference implementations.
static void NAME(rope_table)(Tensor *dst, int ith, int nth, void *userdata) {
  const Settings s = settings_of(userdata);
  const int64_t d = dst->ne[0], half = d / 2;
  const int32_t *positions = (const int32_t *)dst->src[1]->data;
  const float *divisors = dst->src[2] ? source(dst, 2) : NULL, magnitude = float_of_bits(s.flags);
  float *frequencies = free_scratch(scratch_of(dst, ith)); // the same for all rows, and dear
  for (int64_t j = 0; j < half; j++)
    frequencies[j] = (float)(1.0 / pow((double)s.value, 2.0 * (double)j / (double)d)) / (divisors ? divisors[j] : 1.f);
  ROWS_OF_THREAD(dst->ne[1]) {
    float *cosines = (float *)dst->data + i * d, *sines = cosines + half;
    for (int64_t j = 0; j < half; j++) {
      const float angle = (float)positions[i] * frequencies[j];
      cosines[j] = (float)cos((double)angle) * magnitude;
      sines[j] = (float)sin((double)angle) * magnitude;
    }
  }
}

INLINE void NAME(turn_to_bf16)(int64_t half, float sign, const float *cosines, const float *sines, const float *x, uint16_t *y) {
#pragma omp simd
  for (int64_t j = 0; j < half; j++) {
    const float a = x[j], b = x[j + half], turn = sign * sines[j];
    y[j] = to_bf16(a * cosines[j] - b * turn);
    y[j + half] = to_bf16(a * turn + b * cosines[j]);
  }
}

// Sources: scratch, x [d, heads, n], table [d, n] -> like x, F32 (perhaps x itself) or BF16. Flags: INVERSE, for the gradient; and,
// from TURNED on, how many of the heads are turned, where it is not all: the others are as they were.
static void NAME(rope)(Tensor *dst, int ith, int nth, void *userdata) {
  const uint32_t flags = settings_of(userdata).flags;
  const float sign = flags & INVERSE ? -1.f : 1.f;
  const int64_t d = dst->ne[0], half = d / 2, heads = dst->ne[1], turned = flags / TURNED ? flags / TURNED : heads;
  const Tensor *table = dst->src[2];
  ROWS_OF_THREAD(dst->ne[2] * dst->ne[3]) {
    const float *cosines = (const float *)table->data + i * d, *sines = cosines + half;
    const float *x = source(dst, 1) + i * heads * d, *rest = x + turned * d;
    const int64_t left = (heads - turned) * d;
    if (dst->type == TYPE_BF16) {
      uint16_t *y = (uint16_t *)dst->data + i * heads * d;
      for (int64_t h = 0; h < turned; h++) NAME(turn_to_bf16)(half, sign, cosines, sines, x + h * d, y + h * d);
      for (int64_t j = 0; j < left; j++) y[turned * d + j] = to_bf16(rest[j]);
    } else {
      float *y = (float *)dst->data + i * heads * d;
      for (int64_t h = 0; h < turned; h++) NAME(turn)(half, sign, cosines, sines, x + h * d, y + h * d);
      if (left > 0 && y != x) memcpy(y + turned * d, rest, left * 4);
    }
  }
}

// ---- soft caps: cap tanh(x / cap)

// Sources: scratch, x -> like it. Value: cap.
static void NAME(soft_cap)(Tensor *dst, int ith, int nth, void *userdata) {
  const int64_t n = size_of(dst), from = part(n, RANGE, ith, nth), until = part(n, RANGE, ith + 1, nth);
  const float cap = settings_of(userdata).value, factor = 1.f / cap, *x = source(dst, 1);
  float *y = (float *)dst->data;
#pragma omp simd
  for (int64_t i = from; i < until; i++) y[i] = cap * NAME(hyperbolic_tangent)(x[i] * factor);
}

// Sources: scratch, dy, y of the op above -> dx. Value: cap.
static void NAME(soft_cap_back)(Tensor *dst, int ith, int nth, void *userdata) {
  const int64_t n = size_of(dst), from = part(n, RANGE, ith, nth), until = part(n, RANGE, ith + 1, nth);
  const float factor = 1.f / settings_of(userdata).value, *dy = source(dst, 1), *y = source(dst, 2);
  float *dx = (float *)dst->data;
  for (int64_t i = from; i < until; i++) {
    const float t = y[i] * factor;
    dx[i] = dy[i] * (1.f - t * t);
  }
}

// ---- cross-entropy

// x = cap tanh(x / cap), and the derivative of that.
INLINE void NAME(cap_row)(int64_t n, float cap, float *x, float *slopes) {
  const float factor = 1.f / cap;
#pragma omp simd
  for (int64_t j = 0; j < n; j++) {
    const float t = NAME(hyperbolic_tangent)(x[j] * factor);
    x[j] = cap * t;
    slopes[j] = 1.f - t * t;
  }
}

// Sources: scratch, logits [vocabulary, n], targets i32 [n], [weights [n]] (else 1) -> weighted loss of each row [n]. The logits are
// overwritten by their gradient, weight (softmax - onehot): nothing else may read them before or after but what is ordered to.
// With AS_BF16 the gradient of a row is in the first half of its bytes, as the matrix product takes it (A_HOLDS_BF16). Value: a cap
// on the logits, which are then cap tanh(logit / cap), and the vocabulary not above a million (the scratch); 0: none.
static void NAME(cross_entropy)(Tensor *dst, int ith, int nth, void *userdata) {
  const int half = (settings_of(userdata).flags & AS_BF16) != 0;
  const float cap = settings_of(userdata).value;
  float *slopes = cap > 0 ? free_scratch(scratch_of(dst, ith)) : NULL;
  const int64_t vocabulary = dst->src[1]->ne[0];
  const int32_t *targets = (const int32_t *)dst->src[2]->data;
  ROWS_OF_THREAD(rows_of(dst->src[1])) {
    float *x = source(dst, 1) + i * vocabulary;
    if (slopes) NAME(cap_row)(vocabulary, cap, x, slopes);
    const float weight = dst->src[3] ? source(dst, 3)[i] : 1.f, of_target = x[targets[i]], most = NAME(maximum)(vocabulary, x);
    const float sum = NAME(exponentials)(vocabulary, most, x, x), factor = weight / sum;
    ((float *)dst->data)[i] = weight * (most + logf(sum) - of_target);
    if (!half) {
      for (int64_t j = 0; j < vocabulary; j++) x[j] *= factor;
      x[targets[i]] -= weight;
      if (slopes)
        for (int64_t j = 0; j < vocabulary; j++) x[j] *= slopes[j];
      continue;
    }
    x[targets[i]] -= sum; // times the factor: the weight
    if (slopes)
      for (int64_t j = 0; j < vocabulary; j++) x[j] *= slopes[j];
    uint16_t block[32];
    for (int64_t j = 0; j < vocabulary; j += 32) { // a block is read before it, or what lies behind it, is written
      const int64_t n = min64(32, vocabulary - j);
      for (int64_t b = 0; b < n; b++) block[b] = to_bf16(x[j + b] * factor);
      memcpy((char *)x + 2 * j, block, 2 * n);
    }
  }
}

// ---- embedding

// Sources: scratch, dy [d, n], ids i32 [n], [sum [d, rows]] -> [d, rows]: rows added up where ids repeat, in the order of n.
static void NAME(gather_back)(Tensor *dst, int ith, int nth, void *userdata) {
  (void)userdata;
  const int64_t d = dst->ne[0], n = dst->src[2]->ne[0], first = dst->ne[1] * ith / nth, last = dst->ne[1] * (ith + 1) / nth;
  const int32_t *ids = (const int32_t *)dst->src[2]->data;
  float *y = (float *)dst->data;
  if (dst->src[3]) memcpy(y + first * d, source(dst, 3) + first * d, (last - first) * d * 4);
  else memset(y + first * d, 0, (last - first) * d * 4);
  for (int64_t i = 0; i < n; i++)
    if (ids[i] >= first && ids[i] < last) NAME(add_scaled)(d, 1.f, source(dst, 1) + i * d, y + ids[i] * d);
}

const NamedOp NAME(row_ops)[] = {
    {"rms_norm", NAME(rms_norm)},
    {"rms_norm_back", NAME(rms_norm_back)},
    {"sum_rows", NAME(sum_rows)},
    {"gated", NAME(gated)},
    {"gated_back", NAME(gated_back)},
    {"rope_table", NAME(rope_table)},
    {"rope", NAME(rope)},
    {"soft_cap", NAME(soft_cap)},
    {"soft_cap_back", NAME(soft_cap_back)},
    {"cross_entropy", NAME(cross_entropy)},
    {"gather_back", NAME(gather_back)},
    {NULL, NULL},
};
#endif
