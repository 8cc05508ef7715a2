// Ops of generation: writing a key-value cache, attending over it with one query per sequence, and choosing tokens.
//
// Keys lie in groups of 16 slots, [slots / 16][d][16], so that 16 scores are one vector of sums and no sum across a vector is
// needed; values lie slot after slot, [slots][d]. Both for each head of each sequence, F32 or BF16. The slot is the position.
#ifndef ISA
#include "kernels.h"
#define TEMPLATE "decode.c"
#include "variants.h"
#else
#include "vector.h"

#ifndef DECODE_SETTINGS
#define DECODE_SETTINGS
enum { GROUP = 16 };           // slots whose keys lie together
enum { KEYS = 1 };             // store: by groups
enum { CHOICE = 4 };           // what choose_token gives for each row
enum { DRAW_BLOCK = 64 };      // weights that are summed before a draw looks at each of them

typedef struct {
  int64_t d, kv_heads, slots; // of a cache [d, slots, kvHeads, sequences]; of keys, the first two are only their product
  int type;
} Cache;
static Cache cache_of(const Tensor *t) { return (Cache){t->ne[0], t->ne[2], t->ne[1], t->type}; }
// Element 0 of a head of a sequence.
static int64_t head_of(const Cache *c, int64_t sequence, int64_t head) {
  return (sequence * c->kv_heads + head) * c->slots * c->d;
}
#endif

// n elements as floats, WIDTH of them at a time.
INLINE NAME(V) NAME(load)(const void *data, int type, int64_t at) {
  if (type == TYPE_F32) return *(const NAME(V) *)((const float *)data + at);
  typedef uint16_t Half __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));
  typedef uint32_t Bits __attribute__((vector_size(4 * WIDTH)));
  return (NAME(V))(__builtin_convertvector(*(const Half *)((const uint16_t *)data + at), Bits) << 16);
}

// dst: the cache. Sources: the cache, x [d, kvHeads, length, sequences], slots i32 [sequences]: where each sequence's first token
// goes. Flag: KEYS.
static void NAME(store)(Tensor *dst, int ith, int nth, void *userdata) {
  const int keys = (settings_of(userdata).flags & KEYS) != 0;
  const Tensor *x = dst->src[1];
  const Cache c = cache_of(dst);
  const int64_t length = x->ne[2], units = x->ne[3] * c.kv_heads;
  const int32_t *first = (const int32_t *)dst->src[2]->data;
  for (int64_t unit = units * ith / nth; unit < units * (ith + 1) / nth; unit++) {
    const int64_t sequence = unit / c.kv_heads, head = unit % c.kv_heads, start = head_of(&c, sequence, head);
    for (int64_t i = 0; i < length; i++) {
      const float *from = (const float *)((const char *)x->data + head * x->nb[1] + i * x->nb[2] + sequence * x->nb[3]);
      const int64_t slot = first[sequence] + i, step = keys ? GROUP : 1;
      const int64_t at = start + (keys ? slot / GROUP * GROUP * c.d + slot % GROUP : slot * c.d);
      if (c.type == TYPE_F32) {
        float *to = (float *)dst->data + at;
        for (int64_t j = 0; j < c.d; j++) to[j * step] = from[j];
      } else {
        uint16_t *to = (uint16_t *)dst->data + at;
        for (int64_t j = 0; j < c.d; j++) to[j * step] = to_bf16(from[j]);
      }
    }
  }
}

// Scores of `count` groups of keys, 2 groups at a time: several independent sums hide the latency of one.
INLINE void NAME(group_scores)(const int groups, int64_t d, int type, const float *query, const void *keys, int64_t at, float *scores) {
  enum { VECTORS = GROUP / WIDTH };
  NAME(V) sum[4 * VECTORS];
#pragma GCC unroll 16
  for (int v = 0; v < groups * VECTORS; v++) sum[v] = (NAME(V)){0};
  for (int64_t x = 0; x < d; x++) {
    const float factor = query[x];
#pragma GCC unroll 4
    for (int g = 0; g < groups; g++)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++)
        sum[g * VECTORS + v] += factor * NAME(load)(keys, type, at + (g * d + x) * GROUP + v * WIDTH);
  }
#pragma GCC unroll 16
  for (int v = 0; v < groups * VECTORS; v++) *(NAME(V) *)(scores + v * WIDTH) = sum[v];
}

// y[vectors * WIDTH] = factor * sum of weights[j] * row j, even and odd rows in sums of their own.
INLINE void NAME(mix)(const int vectors, int type, int64_t n, int64_t d, float factor, const float *weights, const void *rows,
                      int64_t at, float *y) {
  NAME(V) even[4], odd[4];
#pragma GCC unroll 4
  for (int v = 0; v < vectors; v++) even[v] = odd[v] = (NAME(V)){0};
  int64_t j = 0;
  for (; j + 2 <= n; j += 2, at += 2 * d)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      even[v] += weights[j] * NAME(load)(rows, type, at + v * WIDTH);
      odd[v] += weights[j + 1] * NAME(load)(rows, type, at + d + v * WIDTH);
    }
  if (j < n)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) even[v] += weights[j] * NAME(load)(rows, type, at + v * WIDTH);
#pragma GCC unroll 4
  for (int v = 0; v < vectors; v++) *(NAME(V) *)(y + v * WIDTH) = factor * (even[v] + odd[v]);
}

// y = softmax(scale query . keys) values over slots [from, until); with `cap` above 0, scores are cap tanh(score / cap).
INLINE void NAME(attend)(const int type, int64_t d, int64_t from, int64_t until, float scale, float cap, const float *query,
                         const void *keys, const void *values, int64_t at, float *scores, float *y) {
  const int64_t first = from / GROUP, last = (until + GROUP - 1) / GROUP, n = until - from;
  int64_t g = first;
  float *to = scores;
  for (; g + 4 <= last; g += 4, to += 4 * GROUP) NAME(group_scores)(4, d, type, query, keys, at + g * GROUP * d, to);
  for (; g < last; g++, to += GROUP) NAME(group_scores)(1, d, type, query, keys, at + g * GROUP * d, to);
  float *x = scores + (from - first * GROUP);
  const int64_t whole = round_up(n, GROUP); // within scratch; whole vectors have a fixed order of sums
  for (int64_t j = 0; j < n; j++) x[j] *= scale;
  if (cap > 0)
#pragma omp simd
    for (int64_t j = 0; j < n; j++) x[j] = cap * NAME(hyperbolic_tangent)(x[j] / cap);
  for (int64_t j = n; j < whole; j++) x[j] = -INFINITY;
  const float factor = 1.f / NAME(exponentials)(whole, NAME(maximum)(whole, x), x, x);
  int64_t j = 0;
  at += from * d;
  for (; j + 4 * WIDTH <= d; j += 4 * WIDTH) NAME(mix)(4, type, n, d, factor, x, values, at + j, y + j);
  if (j + 3 * WIDTH <= d) NAME(mix)(3, type, n, d, factor, x, values, at + j, y + j), j += 3 * WIDTH;
  if (j + 2 * WIDTH <= d) NAME(mix)(2, type, n, d, factor, x, values, at + j, y + j), j += 2 * WIDTH;
  if (j + WIDTH <= d) NAME(mix)(1, type, n, d, factor, x, values, at + j, y + j), j += WIDTH;
  for (; j < d; j++) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) {
      const int64_t e = at + i * d + j;
      sum += x[i] * (type == TYPE_F32 ? ((const float *)values)[e] : from_bf16(((const uint16_t *)values)[e]));
    }
    y[j] = factor * sum;
  }
}

// Asks for n elements of keys and of values from `at` on, into the second-level cache: each head's are a stream too short for the
// processor to foresee, and the next head's can come while this one's are computed with.
INLINE void NAME(ask)(const Cache *c, int64_t at, int64_t n, const Tensor *k, const Tensor *v) {
  const int64_t size = c->type == TYPE_F32 ? 4 : 2;
  for (int64_t b = at * size; b < (at + n) * size; b += 64) {
    __builtin_prefetch((const char *)k->data + b, 0, 2);
    __builtin_prefetch((const char *)v->data + b, 0, 2);
  }
}

// Sources: scratch, q [d, heads, sequences] or [d, heads, 1, sequences] with heads one after another, cache of keys, cache of values, positions i32 [sequences], [first i32 [sequences]]
// -> [d, heads,
// sequences], F32 or BF16. A query sees the slots from the first (0) up to its position. Value: scale; the flags are the bits of the cap.
static void NAME(cache_attention)(Tensor *dst, int ith, int nth, void *userdata) {
  const Settings s = settings_of(userdata);
  const Tensor *q = dst->src[1], *k = dst->src[2], *v = dst->src[3];
  const Cache c = cache_of(k);
  const int32_t *positions = (const int32_t *)dst->src[4]->data;
  const int32_t *firsts = dst->src[5] ? (const int32_t *)dst->src[5]->data : NULL;
  const float cap = float_of_bits(s.flags);
  const int64_t d = q->ne[0], heads = q->ne[1], group = heads / c.kv_heads, sequences = q->ne[2] * q->ne[3], units = sequences * c.kv_heads;
  const int64_t q_stride = (int64_t)q->nb[q->ne[3] > 1 ? 3 : 2] / 4;
  float *rounded = edge_tile(scratch_of(dst, ith)), *scores = free_scratch(scratch_of(dst, ith));
  for (int64_t unit = units * ith / nth; unit < units * (ith + 1) / nth; unit++) {
    const int64_t sequence = unit / c.kv_heads, kv_head = unit % c.kv_heads, at = head_of(&c, sequence, kv_head);
    const int64_t until = positions[sequence] + 1, from = firsts ? min64(firsts[sequence], until - 1) : 0;
    if (unit + 1 < units * (ith + 1) / nth) NAME(ask)(&c, at + c.slots * d + from / GROUP * GROUP * d, (until - from) * d, k, v);
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
      const float *query = (const float *)q->data + sequence * q_stride + head * d;
      const int64_t to = (sequence * heads + head) * d;
      float *y = dst->type == TYPE_BF16 ? rounded : (float *)dst->data + to;
      if (c.type == TYPE_F32) NAME(attend)(TYPE_F32, d, from, until, s.value, cap, query, k->data, v->data, at, scores, y);
      else NAME(attend)(TYPE_BF16, d, from, until, s.value, cap, query, k->data, v->data, at, scores, y);
      if (y == rounded)
        for (int64_t j = 0; j < d; j++) ((uint16_t *)dst->data)[to + j] = to_bf16(y[j]);
    }
  }
}

// Sums of DRAW_BLOCK weights or fewer, in vectors.
INLINE float NAME(block_sum)(int64_t n, const float *x) {
  NAME(V) s = {0};
  int64_t j = 0;
  for (; j + WIDTH <= n; j += WIDTH) s += *(const NAME(V) *)(x + j);
  float tail = 0;
  for (; j < n; j++) tail += x[j];
  return NAME(lanes)(s) + tail;
}
// The same of weight times (x - most), where the weight is not 0: what underflows adds nothing, -inf times 0 included.
INLINE float NAME(block_along)(int64_t n, const float *weights, const float *x, float most) {
  float terms[DRAW_BLOCK];
#pragma omp simd
  for (int64_t j = 0; j < n; j++) terms[j] = weights[j] > 0 ? weights[j] * (x[j] - most) : 0;
  return NAME(block_sum)(n, terms);
}

// Draws an index in proportion to its weight: the first whose running sum exceeds `uniform` times the whole.
INLINE int64_t NAME(draw)(int64_t n, const float *weights, double uniform, double total) {
  double left = uniform * total;
  for (int64_t i = 0; i < n; i += DRAW_BLOCK) {
    const int64_t end = min64(n, i + DRAW_BLOCK);
    const float block = NAME(block_sum)(end - i, weights + i);
    if (left >= (double)block) {
      left -= (double)block;
      continue;
    }
    for (int64_t j = i; j < end; j++) {
      left -= (double)weights[j];
      if (left < 0) return j;
    }
  }
  int64_t last = n - 1; // only by rounding, or where the weights are not sound
  while (last > 0 && !(weights[last] > 0)) last--;
  return last;
}

// Sources: scratch, logits [n, rows], uniform numbers [2, rows], each the sum of two floats -> for each row: the token, its
// log-probability and the entropy of the distribution at temperature 1 (nats), and the sum of the weights, which is not a positive
// finite number where the logits are not sound. Value: temperature; 0 takes the best token, the first of equals.
static void NAME(choose_token)(Tensor *dst, int ith, int nth, void *userdata) {
  const float temperature = settings_of(userdata).value;
  const int64_t n = dst->src[1]->ne[0], rows = rows_of(dst->src[1]);
  float *weights = free_scratch(scratch_of(dst, ith));
  for (int64_t row = rows * ith / nth; row < rows * (ith + 1) / nth; row++) {
    const float *x = source(dst, 1) + row * n, most = NAME(maximum)(n, x), *uniform = source(dst, 2) + row * 2;
    const float sum = NAME(exponentials)(n, most, x, weights), log_sum = logf(sum);
    double along = 0; // of x - most under the distribution
    for (int64_t i = 0; i < n; i += DRAW_BLOCK)
      along += (double)NAME(block_along)(min64(n - i, DRAW_BLOCK), weights + i, x + i, most);
    int64_t token = 0;
    if (temperature == 0) {
      while (token < n - 1 && x[token] != most) token++;
    } else {
      double total = 0;
      if (temperature != 1)
#pragma omp simd
        for (int64_t j = 0; j < n; j++) weights[j] = NAME(exponential)((x[j] - most) / temperature);
      for (int64_t i = 0; i < n; i += DRAW_BLOCK) total += (double)NAME(block_sum)(min64(n - i, DRAW_BLOCK), weights + i);
      token = NAME(draw)(n, weights, (double)uniform[0] + (double)uniform[1], total);
    }
    float *out = (float *)dst->data + row * CHOICE;
    out[0] = (float)token;
    out[1] = x[token] - most - log_sum;
    out[2] = log_sum - (float)(along / (double)sum);
    out[3] = sum;
  }
}

const NamedOp NAME(decode_ops)[] = {{"store", NAME(store)},
                                    {"cache_attention", NAME(cache_attention)},
                                    {"choose_token", NAME(choose_token)},
                                    {NULL, NULL}};
#endif
