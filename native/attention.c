// Softmax attention, forward and backward, in blocks of query rows: nothing of the size queries x keys is kept, and blocks of
// keys that a mask hides are not computed. Any additive mask (causal, sliding window, padding), grouped queries, scores bounded by
// cap tanh(score / cap) where the model does that.
#ifndef ISA
#include "kernels.h"
#define TEMPLATE "attention.c"
#include "variants.h"
#else
#include "vector.h"

#ifndef ATTENTION_SETTINGS
#define ATTENTION_SETTINGS
enum { ATTEND_BF16 = 1, HEADS_FIRST = 2, CAP = ~3 }; // the upper 30 bits of the flags are those of the cap; 0: none
enum { QUERY_BLOCK = 128, LONG = 256 }; // blocks of half as many up to LONG queries: less of what a causal mask hides is computed
enum { ROW_PADDING = 16 }; // rows of scores are whole vectors

// The keys that one query sees: [first, last); `plain` where the mask adds nothing within.
typedef struct {
  int32_t first, last, plain;
} Seen;

typedef struct {
  int64_t d, heads, group, queries, keys, batches;
  int64_t q_token, q_head, q_batch;    // strides in floats
  int64_t kv_token, kv_head, kv_batch; // of k, and of v, which lies like k
  const Tensor *mask;
  float scale, cap;
  Gemm gemm;
  Seen *seen; // of each query, for the mask in use
  int64_t seen_batch;
  float *scores;
  int64_t row, block; // floats in a row of scores, rows in a block
  char *scratch;
} Attention;

static const char *mask_row(const Attention *a, int64_t batch, int64_t query) {
  const Tensor *m = a->mask;
  return (const char *)m->data + query * m->nb[1] + (m->ne[3] > 1 ? batch * m->nb[3] : 0);
}
static float mask_value(const Attention *a, const char *row, int64_t key) {
  return a->mask->type == TYPE_F16 ? from_f16(((const uint16_t *)row)[key]) : ((const float *)row)[key];
}

// Which keys each query of a batch row sees, found once for all heads (and all batch rows, where they share a mask).
static void look(Attention *a, int64_t batch) {
  if (a->mask->ne[3] == 1) batch = 0;
  if (a->seen_batch == batch) return;
  a->seen_batch = batch;
  for (int64_t i = 0; i < a->queries; i++) {
    const char *row = mask_row(a, batch, i);
    Seen seen = {0, 0, 1};
    for (int64_t j = 0; j < a->keys; j++) {
      const float value = mask_value(a, row, j);
      if (value == -INFINITY) continue;
      if (seen.last == 0) seen.first = (int32_t)j;
      else if (j > seen.last) seen.plain = 0; // a gap
      if (value != 0) seen.plain = 0;
      seen.last = (int32_t)j + 1;
    }
    a->seen[i] = seen;
  }
}

// The keys that any of the queries [from, until) sees.
static Seen seen_by(const Attention *a, int64_t from, int64_t until) {
  Seen all = {INT32_MAX, 0, 0};
  for (int64_t i = from; i < until; i++) {
    const Seen *s = &a->seen[i];
    if (s->last == s->first) continue;
    if (s->first < all.first) all.first = s->first;
    if (s->last > all.last) all.last = s->last;
  }
  return all.last == 0 ? (Seen){0, 0, 0} : all;
}

static Attention attention_of(const Tensor *dst, const Tensor *q, const Tensor *k, const Tensor *mask, int ith,
                              void *userdata, int matrices) {
  const Settings s = settings_of(userdata);
  const int heads_first = (s.flags & HEADS_FIRST) != 0;
  Attention a = {0};
  a.d = q->ne[0];
  a.heads = q->ne[1];
  a.queries = q->ne[2];
  a.batches = q->ne[3];
  a.keys = k->ne[heads_first ? 1 : 2];
  a.group = a.heads / k->ne[heads_first ? 2 : 1];
  a.q_head = (int64_t)q->nb[1] / 4;
  a.q_token = (int64_t)q->nb[2] / 4;
  a.q_batch = (int64_t)q->nb[3] / 4;
  a.kv_head = (int64_t)k->nb[heads_first ? 2 : 1] / 4;
  a.kv_token = (int64_t)k->nb[heads_first ? 1 : 2] / 4;
  a.kv_batch = (int64_t)k->nb[3] / 4;
  a.mask = mask;
  a.scale = s.value;
  a.cap = float_of_bits(s.flags & (uint32_t)CAP);
  a.gemm = s.flags & ATTEND_BF16 ? products.bf16.multiply : products.f32.multiply;
  a.scratch = scratch_of(dst, ith);
  a.seen = (Seen *)free_scratch(a.scratch);
  a.seen_batch = -1;
  const int64_t taken = round_up(a.queries * (int64_t)sizeof(Seen), 64) / 4;
  a.scores = free_scratch(a.scratch) + taken;
  a.row = round_up(a.keys, ROW_PADDING) + ROW_PADDING;
  const int64_t most = a.queries > LONG ? QUERY_BLOCK : QUERY_BLOCK / 2;
  a.block = min64(most, ((SCRATCH_FREE / 4 - taken) / a.row - 1) / matrices); // long rows: fewer of them; and one row of slopes
  return a;
}
#endif

// scores = scale * scores + mask for the keys that query i sees, -inf up to the next whole vector; `first` is the key of
// column 0. With a cap, `slopes` (NULL: not wanted) gets the derivatives of the capped scores, 0 up to the next whole vector.
// Returns the first column and the number of columns, whole vectors.
INLINE int64_t NAME(masked)(const Attention *a, int64_t batch, int64_t i, int64_t first, float *scores, float *slopes,
                            int64_t *count) {
  const Seen seen = a->seen[i];
  const int64_t from = seen.last > seen.first ? seen.first - first : 0, n = seen.last - seen.first;
  float *x = scores + from, scale = a->scale;
  if (a->cap > 0) {
    const float cap = a->cap, factor = a->scale / cap;
    if (slopes) {
      float *slope = slopes + from;
      memset(slope + n, 0, (size_t)(round_up(n, ROW_PADDING) - n) * 4);
#pragma omp simd
      for (int64_t j = 0; j < n; j++) {
        const float t = NAME(hyperbolic_tangent)(x[j] * factor);
        x[j] = cap * t;
        slope[j] = 1.f - t * t;
      }
    } else {
#pragma omp simd
      for (int64_t j = 0; j < n; j++) x[j] = cap * NAME(hyperbolic_tangent)(x[j] * factor);
    }
    scale = 1; // it is in there
  }
  if (seen.plain) {
    if (scale != 1)
      for (int64_t j = 0; j < n; j++) x[j] *= scale;
  } else if (a->mask->type == TYPE_F32) {
    const float *mask = (const float *)mask_row(a, batch, i) + seen.first;
    for (int64_t j = 0; j < n; j++) x[j] = x[j] * scale + mask[j];
  } else {
    const char *mask = mask_row(a, batch, i);
    for (int64_t j = 0; j < n; j++) x[j] = x[j] * scale + mask_value(a, mask, seen.first + j);
  }
  *count = round_up(n, ROW_PADDING);
  for (int64_t j = n; j < *count; j++) x[j] = -INFINITY;
  return from;
}

// Zeros in a row of `n` scores outside [from, from + count).
INLINE void NAME(clear_outside)(float *scores, int64_t from, int64_t count, int64_t n) {
  memset(scores, 0, from * 4);
  if (from + count < n) memset(scores + from + count, 0, (n - from - count) * 4);
}

// Sources: scratch, q [d, heads, queries, batches], k and v [d, kvHeads, keys, batches] (or with HEADS_FIRST [d, keys, kvHeads,
// batches]), mask [keys, queries, 1, 1 or batches] f32 or f16 -> like q, then the logarithm of each row's sum [queries, heads,
// batches], which the gradient needs. Value: scale; flags: ATTEND_BF16, HEADS_FIRST, and the cap.
static void NAME(attention)(Tensor *dst, int ith, int nth, void *userdata) {
  const Tensor *q = dst->src[1], *k = dst->src[2], *v = dst->src[3];
  Attention a = attention_of(dst, q, k, dst->src[4], ith, userdata, 1);
  float *out = (float *)dst->data, *log_sums = out + size_of(q);
  const int64_t blocks = (a.queries + a.block - 1) / a.block, o_token = a.heads * a.d;
  const int64_t units = a.batches * a.heads * blocks; // in one piece: later blocks of a causal mask see more
  for (int64_t unit = units * ith / nth; unit < units * (ith + 1) / nth; unit++) {
    const int64_t batch = unit / (a.heads * blocks), head = unit / blocks % a.heads, start = unit % blocks * a.block;
    const int64_t rows = min64(a.block, a.queries - start);
    look(&a, batch);
    const Seen seen = seen_by(&a, start, start + rows);
    const int64_t n = seen.last - seen.first;
    const float *query = (const float *)q->data + batch * a.q_batch + head * a.q_head + start * a.q_token;
    const int64_t at = batch * a.kv_batch + head / a.group * a.kv_head + seen.first * a.kv_token;
    const Matrix key = {(const float *)k->data + at, 1, a.kv_token, TYPE_F32, 0};
    const Matrix value = {(const float *)v->data + at, a.kv_token, 1, TYPE_F32, 0};
    a.gemm(rows, n, a.d, (Matrix){query, a.q_token, 1, TYPE_F32, 0}, key, (Target){a.scores, a.row, 0, 0}, a.scratch);
    float inverse[QUERY_BLOCK];
    for (int64_t i = 0; i < rows; i++) {
      float *x = a.scores + i * a.row;
      int64_t count;
      const int64_t from = NAME(masked)(&a, batch, start + i, seen.first, x, NULL, &count);
      const float most = NAME(maximum)(count, x + from), sum = NAME(exponentials)(count, most, x + from, x + from);
      NAME(clear_outside)(x, from, count, n);
      inverse[i] = 1.f / sum;
      log_sums[(batch * a.heads + head) * a.queries + start + i] = most + logf(sum);
    }
    float *o = out + ((batch * a.queries + start) * a.heads + head) * a.d;
    a.gemm(rows, a.d, n, (Matrix){a.scores, a.row, 1, TYPE_F32, 0}, value, (Target){o, o_token, 0, 0}, a.scratch);
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < a.d; j++) o[i * o_token + j] *= inverse[i];
  }
}

// Sources: scratch, dy [d, heads, queries, batches], q, k, v, mask, result of the op above -> dq | dk | dv, or, where q, k and v are
// parts of one tensor (tokens of q are further apart than its heads reach), their gradients as the same parts of one like it. No
// HEADS_FIRST. With p the probabilities:
// dv = pT dy, ds = scale slope p (dy vT - dy . y), dq = ds k, dk = dsT q, where slope = 1 - tanh^2 with a cap, else 1.
static void NAME(attention_back)(Tensor *dst, int ith, int nth, void *userdata) {
  const Tensor *q = dst->src[2], *k = dst->src[3];
  Attention a = attention_of(dst, q, k, dst->src[5], ith, userdata, 2);
  const float *dy = source(dst, 1), *out = source(dst, 6), *log_sums = out + size_of(q);
  const int64_t y_token = a.heads * a.d, y_batch = a.queries * y_token;
  const int merged = a.q_token != y_token;
  float *dq = (float *)dst->data, *dk = dq + (merged ? source(dst, 3) - source(dst, 2) : size_of(q));
  float *dv = dk + (merged ? source(dst, 4) - source(dst, 3) : size_of(k));
  float *p = a.scores, *ds = p + a.block * a.row, *slopes = ds + a.block * a.row;
  const int64_t kv_heads = a.heads / a.group;
  for (int64_t unit = a.batches * kv_heads * ith / nth; unit < a.batches * kv_heads * (ith + 1) / nth; unit++) {
    const int64_t batch = unit / kv_heads, kv_head = unit % kv_heads, kv = batch * a.kv_batch + kv_head * a.kv_head;
    look(&a, batch);
    for (int64_t j = 0; j < a.keys; j++) {
      memset(dk + kv + j * a.kv_token, 0, a.d * 4);
      memset(dv + kv + j * a.kv_token, 0, a.d * 4);
    }
    for (int64_t head = kv_head * a.group; head < (kv_head + 1) * a.group; head++)
      for (int64_t start = 0; start < a.queries; start += a.block) {
        const int64_t rows = min64(a.block, a.queries - start);
        const Seen seen = seen_by(&a, start, start + rows);
        const int64_t n = seen.last - seen.first, at = kv + seen.first * a.kv_token;
        const int64_t query = batch * a.q_batch + head * a.q_head + start * a.q_token;
        const Matrix queries = {(const float *)q->data + query, a.q_token, 1, TYPE_F32, 0};
        const float *dy_here = dy + batch * y_batch + start * y_token + head * a.d, *out_here = out + (dy_here - dy);
        const Matrix gradient = {dy_here, y_token, 1, TYPE_F32, 0};
        const Matrix keys_across = {source(dst, 3) + at, 1, a.kv_token, TYPE_F32, 0};
        const Matrix values_across = {source(dst, 4) + at, 1, a.kv_token, TYPE_F32, 0};
        const Matrix keys = {source(dst, 3) + at, a.kv_token, 1, TYPE_F32, 0};
        a.gemm(rows, n, a.d, queries, keys_across, (Target){p, a.row, 0, 0}, a.scratch);
        a.gemm(rows, n, a.d, gradient, values_across, (Target){ds, a.row, 0, 0}, a.scratch);
        for (int64_t i = 0; i < rows; i++) {
          float *x = p + i * a.row, *y = ds + i * a.row;
          int64_t count;
          const int64_t from = NAME(masked)(&a, batch, start + i, seen.first, x, slopes, &count);
          const float log_sum = log_sums[(batch * a.heads + head) * a.queries + start + i];
          const float along = NAME(dot)(a.d, dy_here + i * y_token, out_here + i * y_token), scale = a.scale;
          const int64_t valid = a.seen[start + i].last - a.seen[start + i].first;
          for (int64_t j = valid; j < count; j++) y[from + j] = 0; // beyond the product: whatever was there
#pragma omp simd
          for (int64_t j = from; j < from + count; j++) {
            const float probability = NAME(exponential)(x[j] - log_sum);
            x[j] = probability;
            y[j] = scale * probability * (y[j] - along);
          }
          if (a.cap > 0)
            for (int64_t j = from; j < from + count; j++) y[j] *= slopes[j];
          NAME(clear_outside)(x, from, count, n);
          NAME(clear_outside)(y, from, count, n);
        }
        const Matrix ds_rows = {ds, a.row, 1, TYPE_F32, 0}, ds_columns = {ds, 1, a.row, TYPE_F32, 0}, p_columns = {p, 1, a.row, TYPE_F32, 0};
        a.gemm(rows, a.d, n, ds_rows, keys, (Target){dq + query, a.q_token, 0, 0}, a.scratch);
        a.gemm(n, a.d, rows, ds_columns, queries, (Target){dk + at, a.kv_token, dk + at, a.kv_token}, a.scratch);
        a.gemm(n, a.d, rows, p_columns, gradient, (Target){dv + at, a.kv_token, dv + at, a.kv_token}, a.scratch);
      }
  }
}

// ---- a few queries over a long cache: rows of keys and values are read once and never packed

#if WIDTH == 16
#include "transpose.h"
#endif

// scores[j] = query . keys[j]. Sixteen keys at a time where the sums of sixteen vectors come from one transpose.
INLINE void NAME(dot_rows)(int64_t n, int64_t d, const float *query, const float *keys, int64_t stride, float *scores) {
  int64_t j = 0;
#if WIDTH == 16
  for (; d % 16 == 0 && j + 16 <= n; j += 16) {
    __m512i sums[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; r++) {
      const float *key = keys + (j + r) * stride;
      NAME(V) sum = *(const NAME(V) *)query * *(const NAME(V) *)key;
      for (int64_t x = 16; x < d; x += 16) sum += *(const NAME(V) *)(query + x) * *(const NAME(V) *)(key + x);
      sums[r] = (__m512i)sum;
    }
    NAME(transpose16)(sums);
    NAME(V) total = (NAME(V))sums[0];
#pragma GCC unroll 16
    for (int r = 1; r < 16; r++) total += (NAME(V))sums[r];
    *(NAME(V) *)(scores + j) = total;
  }
#endif
  for (; j < n; j++) scores[j] = NAME(dot)(d, query, keys + j * stride);
}

// y = factor * sum of weights[j] rows[j], a few vectors of y at a time in registers.
INLINE void NAME(mix_rows)(int64_t n, int64_t d, float factor, const float *weights, const float *rows, int64_t stride, float *y) {
  int64_t x = 0;
  for (; x + 4 * WIDTH <= d; x += 4 * WIDTH) {
    NAME(V) s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    for (int64_t j = 0; j < n; j++) {
      const float *row = rows + j * stride + x, w = weights[j];
      s0 += w * *(const NAME(V) *)row;
      s1 += w * *(const NAME(V) *)(row + WIDTH);
      s2 += w * *(const NAME(V) *)(row + 2 * WIDTH);
      s3 += w * *(const NAME(V) *)(row + 3 * WIDTH);
    }
    *(NAME(V) *)(y + x) = factor * s0;
    *(NAME(V) *)(y + x + WIDTH) = factor * s1;
    *(NAME(V) *)(y + x + 2 * WIDTH) = factor * s2;
    *(NAME(V) *)(y + x + 3 * WIDTH) = factor * s3;
  }
  for (; x + WIDTH <= d; x += WIDTH) {
    NAME(V) even = {0}, odd = {0};
    int64_t j = 0;
    for (; j + 2 <= n; j += 2) {
      even += weights[j] * *(const NAME(V) *)(rows + j * stride + x);
      odd += weights[j + 1] * *(const NAME(V) *)(rows + (j + 1) * stride + x);
    }
    if (j < n) even += weights[j] * *(const NAME(V) *)(rows + j * stride + x);
    *(NAME(V) *)(y + x) = factor * (even + odd);
  }
  for (; x < d; x++) {
    float sum = 0;
    for (int64_t j = 0; j < n; j++) sum += weights[j] * rows[j * stride + x];
    y[x] = factor * sum;
  }
}

// Like the op "attention", without the logarithms of sums: -> [d, heads, queries, batches].
static void NAME(attention_step)(Tensor *dst, int ith, int nth, void *userdata) {
  const Tensor *q = dst->src[1], *k = dst->src[2], *v = dst->src[3];
  Attention a = attention_of(dst, q, k, dst->src[4], ith, userdata, 1);
  const int64_t kv_heads = a.heads / a.group, units = a.batches * kv_heads;
  for (int64_t unit = units * ith / nth; unit < units * (ith + 1) / nth; unit++) {
    const int64_t batch = unit / kv_heads, kv_head = unit % kv_heads;
    look(&a, batch);
    for (int64_t i = 0; i < a.queries; i++) {
      const Seen seen = a.seen[i];
      const int64_t n = seen.last - seen.first, at = batch * a.kv_batch + kv_head * a.kv_head + seen.first * a.kv_token;
      for (int64_t head = kv_head * a.group; head < (kv_head + 1) * a.group; head++) {
        const float *query = (const float *)q->data + batch * a.q_batch + head * a.q_head + i * a.q_token;
        float *y = (float *)dst->data + ((batch * a.queries + i) * a.heads + head) * a.d, *x = a.scores;
        int64_t count;
        NAME(dot_rows)(n, a.d, query, (const float *)k->data + at, a.kv_token, x);
        NAME(masked)(&a, batch, i, seen.first, x, NULL, &count);
        const float sum = NAME(exponentials)(count, NAME(maximum)(count, x), x, x);
        NAME(mix_rows)(n, a.d, 1.f / sum, x, (const float *)v->data + at, a.kv_token, y);
      }
    }
  }
}

const NamedOp NAME(attention_ops)[] = {{"attention", NAME(attention)},
                                       {"attention_back", NAME(attention_back)},
                                       {"attention_step", NAME(attention_step)},
                                       {NULL, NULL}};
#endif
