// Ops that work row by row or element by element, forward and backward: RMS norm, rotary embedding, soft caps,
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
enum { INVERSE = 1, TURNED = 2 }; // rope: rotate back; and the unit of the number of heads
enum { AS_BF16 = 1 };    // cross-entropy: leave the gradient in bf16

#endif

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
// Sources: scratch, dy, x, gain, [sum like x] -> dx [d, n] | partial sums [d, SLOTS] | where there is room, dx in BF16.
static void NAME(rms_norm_back)(Tensor *dst, int ith, int nth, void *userdata) {
  const float eps = settings_of(userdata).value;
  const int64_t d = dst->src[2]->ne[0], n = rows_of(dst->src[2]);
  const float *gain = source(dst, 3), *before = dst->src[4] ? source(dst, 4) : NULL;
  float *all = (float *)dst->data, *partial = all + n * d;
  uint16_t *halves = size_of(dst) > (n + SLOTS) * d ? (uint16_t *)(partial + SLOTS * d) : NULL;
  for EVERY_UNIT(slot, SLOTS) {
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
      if (halves) NAME(halve)(d, dx, halves + i * d);
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

// Sources: scratch, up to seven tensors [d, n_i] -> [d, sum of n_i].
static void NAME(stack_rows)(Tensor *dst, int ith, int nth, void *userdata) {
  (void)userdata;
  float *to = (float *)dst->data;
  for (int i = 1; i < 8 && dst->src[i]; i++) {
    const int64_t n = size_of(dst->src[i]), from = part(n, RANGE, ith, nth), until = part(n, RANGE, ith + 1, nth);
    if (until > from) memcpy(to + from, source(dst, i) + from, (size_t)(until - from) * 4);
    to += n;
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

// Sources: scratch, x [d, heads, n], table [d, n] -> like x, F32 (perhaps x itself) or BF16. Flags: INVERSE, for the gradient; and,
// from TURNED on, how many of the heads are turned, where it is not all: the others are as they were.
static void NAME(rope)(Tensor *dst, int ith, int nth, void *userdata) {
  const uint32_t flags = settings_of(userdata).flags;
  const float sign = flags & INVERSE ? -1.f : 1.f;
  const int64_t d = dst->ne[0], half = d / 2, heads = dst->ne[1], turned = flags / TURNED ? flags / TURNED : heads;
  const Tensor *table = dst->src[2];
  const int64_t n = dst->ne[2] * dst->ne[3]; // no shares: in place, there is no scratch
  for (int64_t i = n * ith / nth; i < n * (ith + 1) / nth; i++) {
    const float *cosines = (const float *)table->data + i * d, *sines = cosines + half;
    const float *x = source(dst, 1) + i * heads * d, *rest = x + turned * d;
    const int64_t left = (heads - turned) * d;
    if (dst->type == TYPE_BF16) {
      uint16_t *y = (uint16_t *)dst->data + i * heads * d;
      for (int64_t h = 0; h < turned; h++) NAME(turn_to_bf16)(half, sign, cosines, sines, x + h * d, y + h * d);
      NAME(halve)(left, rest, y + turned * d);
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
  const float cap = settings_of(userdata).value;
  if (until > from) NAME(capped)(until - from, 1.f / cap, cap, source(dst, 1) + from, (float *)dst->data + from, NULL);
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
    if (slopes) NAME(capped)(vocabulary, 1.f / cap, cap, x, x, slopes);
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
    {"stack_rows", NAME(stack_rows)},
    {"rope_table", NAME(rope_table)},
    {"rope", NAME(rope)},
    {"soft_cap", NAME(soft_cap)},
    {"soft_cap_back", NAME(soft_cap_back)},
    {"cross_entropy", NAME(cross_entropy)},
    {"gather_back", NAME(gather_back)},
    {NULL, NULL},
};
#endif
