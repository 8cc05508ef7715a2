// Ops of generation: writing a key-value cache, attending over it with one query per sequence, and choosing tokens.
//
// A sequence's cache is one stream in the order in which it is read, groups of 16 slots, and in each of them a block for each head.
// A block of keys is [d][16], so that 16 scores are one vector of sums and no sum across a vector is needed, a block of values
// [16][d]. In BF16 two lie side by side, which a shift and a mask make floats: keys [d / 2][16][2], values [8][d][2]. The slot is
// the position.
#ifndef ISA
#include "kernels.h"
#define TEMPLATE "decode.c"
#include "variants.h"
#else
#include "vector.h"

#ifndef DECODE_SETTINGS
#define DECODE_SETTINGS
enum { GROUP = 16 };           // slots whose keys lie together
enum { KEYS = 1 };             // store: keys, not values
enum { AHEAD = 4 };            // blocks of a cache that are asked for before they are read
enum { CHOICE = 4 };           // what choose_token gives for each row
enum { DRAW_BLOCK = 64 };      // weights that are summed before a draw looks at each of them

typedef struct {
  int64_t d, kv_heads, slots; // of a cache [d, slots, kvHeads, sequences]
  int type;
  char *data;
} Cache;
static Cache cache_of(const Tensor *t) { return (Cache){t->ne[0], t->ne[2], t->ne[1], t->type, (char *)t->data}; }
static int64_t block_bytes(const Cache *c) { return GROUP * c->d * (c->type == TYPE_F32 ? 4 : 2); }
static char *block_of(const Cache *c, int64_t sequence, int64_t group, int64_t head) {
  return c->data + ((sequence * (c->slots / GROUP) + group) * c->kv_heads + head) * block_bytes(c);
}
// Where element x of a slot of a group lies in a block.
static int64_t place(const Cache *c, int keys, int64_t slot, int64_t x) {
  if (c->type == TYPE_F32) return keys ? x * GROUP + slot : slot * c->d + x;
  if (!keys) return (slot / 2 * c->d + x) * 2 + slot % 2;
  return x + 1 == c->d && x % 2 == 0 ? x * GROUP + slot : (x / 2 * GROUP + slot) * 2 + x % 2; // one that is left over stands alone
}
// What a thread reads of a sequence: the slots [from, until) of the heads [low, high) of the cache, of which there may be none.
typedef struct {
  int64_t sequence, from, until, low, high;
} Share;
// The share after another, or the first; `before` counts the slots of all heads of earlier sequences, `begin` and `end` are the
// thread's part of them, which may begin or end within a sequence. Past the last sequence nothing is read.
static Share next_share(const Tensor *positions, const Tensor *firsts, int64_t kv_heads, int64_t begin, int64_t end, int64_t sequence,
                        int64_t *before) {
  for (; sequence < positions->ne[0] && *before < end; sequence++) {
    const int64_t until = ((const int32_t *)positions->data)[sequence] + 1;
    const int64_t from = firsts ? min64(((const int32_t *)firsts->data)[sequence], until - 1) : 0, n = until - from;
    const int64_t low = min64((max64(begin - *before, 0) + n - 1) / n, kv_heads), high = min64((end - *before + n - 1) / n, kv_heads);
    *before += n * kv_heads;
    if (low < high) return (Share){sequence, from, until, low, high};
  }
  return (Share){0};
}

// The blocks of a share, or of some heads of it, in the order in which they are read: group after group, `heads` in each.
typedef struct {
  const char *keys, *values; // of the first head in the first group
  int64_t heads, groups, block, stride; // bytes of a block, and from one group to the next
} Blocks;
static Blocks blocks_of(const Cache *k, const Cache *v, const Share *s, int64_t low, int64_t high) {
  const int64_t group = s->from / GROUP, bytes = block_bytes(k);
  return (Blocks){block_of(k, s->sequence, group, low), block_of(v, s->sequence, group, low), high - low,
                  max64((s->until + GROUP - 1) / GROUP - group, 0), bytes, bytes * k->kv_heads};
}
// The block that is read AHEAD blocks after one: after the keys come the values, after those the next share's keys. It is asked for,
// into the second-level cache and line by line while this one is computed with: what the processor foresees comes too late for that.
INLINE const char *later_block(const Blocks *now, const Blocks *next, int values, int64_t group, int64_t head) {
  int64_t at = group * now->heads + head + AHEAD;
  const char *start = values ? now->values : now->keys;
  if (at >= now->groups * now->heads) {
    at -= now->groups * now->heads;
    start = values ? next->keys : now->values;
    if (values) now = next;
    if (at >= now->groups * now->heads) return now->values; // an address that is there: others would be looked up
  }
  return start + at / now->heads * now->stride + at % now->heads * now->block;
}
#endif

// One slot of a block.
INLINE void NAME(put_token)(const Cache *c, int keys, char *block, int64_t slot, const float *x) {
  const int64_t paired = c->type == TYPE_F32 || !keys ? c->d : c->d / 2 * 2;
  if (c->type == TYPE_F32) {
    float *to = (float *)block + place(c, keys, slot, 0);
    for (int64_t j = 0, step = keys ? GROUP : 1; j < c->d; j++) to[j * step] = x[j];
  } else if (!keys) {
    uint16_t *to = (uint16_t *)block + place(c, 0, slot, 0);
    for (int64_t j = 0; j < c->d; j++) to[2 * j] = to_bf16(x[j]);
  } else {
    uint16_t *to = (uint16_t *)block + 2 * slot;
    for (int64_t j = 0; j < paired; j += 2) to[j * GROUP] = to_bf16(x[j]), to[j * GROUP + 1] = to_bf16(x[j + 1]);
    if (paired < c->d) ((uint16_t *)block)[place(c, 1, slot, paired)] = to_bf16(x[paired]);
  }
}

// All the slots of a block at once, which is faster than one by one; `step` floats from one slot's x to the next.
INLINE void NAME(put_group)(const Cache *c, int keys, char *block, const float *x, int64_t step) {
  enum { CHUNK = 64 };
  uint16_t halves[GROUP][CHUNK];
  const int64_t d = c->d;
  if (c->type == TYPE_F32) {
    float *to = (float *)block;
    if (!keys)
      for (int64_t slot = 0; slot < GROUP; slot++) memcpy(to + slot * d, x + slot * step, (size_t)d * 4);
    else
      for (int64_t j = 0; j < d; j++)
        for (int64_t slot = 0; slot < GROUP; slot++) to[j * GROUP + slot] = x[slot * step + j];
    return;
  }
  for (int64_t start = 0; start < d; start += CHUNK) {
    const int64_t n = min64(CHUNK, d - start);
    for (int64_t slot = 0; slot < GROUP; slot++) NAME(halve)(n, x + slot * step + start, halves[slot]);
    uint16_t *to = (uint16_t *)block;
    if (!keys) {
      for (int64_t slot = 0; slot < GROUP; slot += 2)
        for (int64_t j = 0; j < n; j++) {
          uint16_t *pair = to + (slot / 2 * d + start + j) * 2;
          pair[0] = halves[slot][j], pair[1] = halves[slot + 1][j];
        }
      continue;
    }
    for (int64_t j = 0; j + 2 <= n; j += 2)
      for (int64_t slot = 0; slot < GROUP; slot++) memcpy(to + ((start + j) / 2 * GROUP + slot) * 2, &halves[slot][j], 4);
    if (n % 2)
      for (int64_t slot = 0; slot < GROUP; slot++) to[(d - 1) * GROUP + slot] = halves[slot][n - 1];
  }
}

// dst: the cache. Sources: the cache, x [d, kvHeads, length, sequences], slots i32 [sequences]: where each sequence's first token
// goes. Flag: KEYS.
static void NAME(store)(Tensor *dst, int ith, int nth, void *userdata) {
  const int keys = (settings_of(userdata).flags & KEYS) != 0;
  const Tensor *x = dst->src[1];
  const Cache c = cache_of(dst);
  const int64_t length = x->ne[2], units = x->ne[3] * c.kv_heads, step = (int64_t)x->nb[2] / 4;
  const int32_t *first = (const int32_t *)dst->src[2]->data;
  for (int64_t unit = units * ith / nth; unit < units * (ith + 1) / nth; unit++) {
    const int64_t sequence = unit / c.kv_heads, head = unit % c.kv_heads, end = first[sequence] + length;
    const float *from = (const float *)((const char *)x->data + head * x->nb[1] + sequence * x->nb[3]);
    for (int64_t slot = first[sequence]; slot < end;) {
      char *block = block_of(&c, sequence, slot / GROUP, head);
      const int whole = slot % GROUP == 0 && slot + GROUP <= end;
      if (whole) NAME(put_group)(&c, keys, block, from, step);
      else NAME(put_token)(&c, keys, block, slot % GROUP, from);
      slot += whole ? GROUP : 1;
      from += whole ? GROUP * step : step;
    }
  }
}

typedef uint32_t NAME(U) __attribute__((vector_size(4 * WIDTH), aligned(2), may_alias));
INLINE NAME(V) NAME(low)(NAME(U) pairs) { return (NAME(V))(pairs << 16); }
INLINE NAME(V) NAME(high)(NAME(U) pairs) { return (NAME(V))(pairs & 0xffff0000u); }
// WIDTH numbers of 16 bits.
INLINE NAME(V) NAME(halves)(const uint16_t *x) {
  typedef uint16_t Half __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));
  typedef uint32_t Bits __attribute__((vector_size(4 * WIDTH)));
  return (NAME(V))(__builtin_convertvector(*(const Half *)x, Bits) << 16);
}

// Scores of a query with a block of keys, even and odd elements, and where there are registers every second pair, in sums of their own.
INLINE void NAME(group_scores)(const int type, int64_t d, const float *query, const char *block, const char *later,
                               float *scores) {
  const int64_t size = type == TYPE_F32 ? 4 : 2;
  enum { VECTORS = GROUP / WIDTH, SUMS = VECTORS > 2 ? 2 : 4 };
  NAME(V) sum[SUMS][VECTORS];
#pragma GCC unroll 4
  for (int i = 0; i < SUMS; i++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) sum[i][v] = (NAME(V)){0};
  int64_t x = 0;
#define PAIR(i)                                                                                                        \
  __builtin_prefetch(later + x * GROUP * size, 0, 2);                                                                  \
  if (type == TYPE_F32) __builtin_prefetch(later + (x + 1) * GROUP * size, 0, 2);                                      \
  _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++) {                                                          \
    if (type == TYPE_F32) {                                                                                            \
      const float *keys = (const float *)block + x * GROUP + v * WIDTH;                                                \
      sum[i][v] += query[x] * *(const NAME(V) *)keys;                                                                  \
      sum[i + 1][v] += query[x + 1] * *(const NAME(V) *)(keys + GROUP);                                                \
    } else {                                                                                                           \
      const NAME(U) pairs = *(const NAME(U) *)((const uint16_t *)block + x * GROUP + v * 2 * WIDTH);                   \
      sum[i][v] += query[x] * NAME(low)(pairs);                                                                        \
      sum[i + 1][v] += query[x + 1] * NAME(high)(pairs);                                                               \
    }                                                                                                                  \
  }                                                                                                                    \
  x += 2;
  while (x + SUMS <= d) {
    PAIR(0)
    if (SUMS > 2) {
      PAIR(SUMS - 2)
    }
  }
  if (x + 2 <= d) {
    PAIR(0)
  }
#undef PAIR
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) {
    if (x < d) {
      const int64_t at = x * GROUP + v * WIDTH;
      sum[0][v] += query[x] * (type == TYPE_F32 ? *(const NAME(V) *)((const float *)block + at) : NAME(halves)((const uint16_t *)block + at));
    }
    sum[0][v] += sum[1][v];
    if (SUMS > 2) sum[0][v] += sum[SUMS - 2][v] + sum[SUMS - 1][v];
    *(NAME(V) *)(scores + v * WIDTH) = sum[0][v];
  }
}

// y[vectors * WIDTH] += weights of the slots [from, until) of a block times their values, from element x on; even and odd slots in
// sums of their own. What lies in other slots is not touched, not even times 0: it may be NaN.
INLINE void NAME(mix)(const int vectors, const int type, int64_t d, int64_t from, int64_t until, const float *weights,
                      const char *block, const char *later, int64_t x, float *y) {
  NAME(V) even[4], odd[4];
#pragma GCC unroll 4
  for (int v = 0; v < vectors; v++) even[v] = *(const NAME(V) *)(y + v * WIDTH), odd[v] = (NAME(V)){0};
  const char *values = block + x * 4;
#define AT(slot, v) (values + ((slot) / 2 * d + v * WIDTH) * 4)
#define ROW(slot, v) (*(const NAME(V) *)(values + ((slot) * d + v * WIDTH) * 4))
  if (from % 2 && from < until) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
      odd[v] += weights[from] * (type == TYPE_F32 ? ROW(from, v) : NAME(high)(*(const NAME(U) *)AT(from, v)));
    from++;
  }
  for (; from + 2 <= until; from += 2)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      if (type == TYPE_F32) {
        __builtin_prefetch(later + ((const char *)&ROW(from, v) - block), 0, 2);
        __builtin_prefetch(later + ((const char *)&ROW(from + 1, v) - block), 0, 2);
        even[v] += weights[from] * ROW(from, v);
        odd[v] += weights[from + 1] * ROW(from + 1, v);
      } else {
        const NAME(U) pairs = *(const NAME(U) *)AT(from, v);
        __builtin_prefetch(later + (AT(from, v) - block), 0, 2);
        even[v] += weights[from] * NAME(low)(pairs);
        odd[v] += weights[from + 1] * NAME(high)(pairs);
      }
    }
  if (from < until)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
      even[v] += weights[from] * (type == TYPE_F32 ? ROW(from, v) : NAME(low)(*(const NAME(U) *)AT(from, v)));
#undef AT
#undef ROW
#pragma GCC unroll 4
  for (int v = 0; v < vectors; v++) *(NAME(V) *)(y + v * WIDTH) = even[v] + odd[v];
}
INLINE void NAME(mix_group)(const int type, int64_t d, int64_t from, int64_t until, const float *weights, const char *block,
                            const char *later, float *y) {
  int64_t x = 0;
  for (; x + 4 * WIDTH <= d; x += 4 * WIDTH) NAME(mix)(4, type, d, from, until, weights, block, later, x, y + x);
  if (x + 3 * WIDTH <= d) NAME(mix)(3, type, d, from, until, weights, block, later, x, y + x), x += 3 * WIDTH;
  if (x + 2 * WIDTH <= d) NAME(mix)(2, type, d, from, until, weights, block, later, x, y + x), x += 2 * WIDTH;
  if (x + WIDTH <= d) NAME(mix)(1, type, d, from, until, weights, block, later, x, y + x), x += WIDTH;
  for (; x < d; x++)
    for (int64_t slot = from; slot < until; slot++) {
      const int64_t at = type == TYPE_F32 ? slot * d + x : (slot / 2 * d + x) * 2 + slot % 2;
      y[x] += weights[slot] * (type == TYPE_F32 ? ((const float *)block)[at] : from_bf16(((const uint16_t *)block)[at]));
    }
}

// Keys and values of a token that is not in the cache yet, for each head, as they will be there; or nothing.
typedef struct {
  const float *keys, *values;
} NAME(Token);

// y = softmax(queries . keys) values for the query heads [head, last), `group` of them to a head of the cache, over slots
// [from, until) and the token behind them. Queries hold the scale; with `cap` above 0, scores are cap tanh(score / cap). Keys, and
// then values, are read once, in the order in which they lie; `next` is what will be read then. `scores` has room for `room` floats
// a head.
INLINE void NAME(attend)(const int type, int64_t d, const Blocks *now, const Blocks *next, int64_t head, int64_t last, int64_t group,
                         int64_t from, int64_t until, NAME(Token) token, float cap, const float *queries, float *scores, int64_t room,
                         float *y) {
  const int64_t start = from / GROUP * GROUP, n = until - from + (token.keys != NULL), low = head / group;
  for (int64_t g = 0; g < now->groups; g++)
    for (int64_t h = head; h < last; h++) {
      const char *later = later_block(now, next, 0, g, h / group - low);
      const char *block = now->keys + g * now->stride + (h / group - low) * now->block;
      NAME(group_scores)(type, d, queries + (h - head) * d, block, later, scores + (h - head) * room + g * GROUP);
    }
  const int64_t whole = round_up(n, GROUP); // within room; whole vectors have a fixed order of sums
  for (int64_t h = head; h < last; h++) {
    float *x = scores + (h - head) * room + from - start, *out = y + (h - head) * d;
    if (token.keys) x[n - 1] = NAME(dot)(d, queries + (h - head) * d, token.keys + (h / group - low) * d);
    if (cap > 0) NAME(capped)(n, 1.f / cap, cap, x, x, NULL);
    for (int64_t j = n; j < whole; j++) x[j] = -INFINITY;
    const float factor = 1.f / NAME(exponentials)(whole, NAME(maximum)(whole, x), x, x);
    for (int64_t j = 0; j < whole; j++) x[j] *= factor;
    for (int64_t j = 0; j < d; j++) out[j] = token.keys ? x[n - 1] * token.values[(h / group - low) * d + j] : 0;
  }
  for (int64_t g = 0; g < now->groups; g++)
    for (int64_t h = head; h < last; h++) {
      const char *later = later_block(now, next, 1, g, h / group - low);
      const char *block = now->values + g * now->stride + (h / group - low) * now->block;
      const int64_t slot = start + g * GROUP, first = max64(from - slot, 0), end = min64(until - slot, GROUP);
      NAME(mix_group)(type, d, first, end, scores + (h - head) * room + g * GROUP, block, later, y + (h - head) * d);
    }
}

// Floats from one sequence to the next of a tensor [d, heads, sequences] or [d, heads, 1, sequences].
INLINE const float *NAME(of_sequence)(const Tensor *t, int64_t i) {
  return (const float *)((const char *)t->data + i * t->nb[t->ne[2] == 1 ? 3 : 2]);
}

// Sources: scratch, q [d, heads, sequences], cache of keys, cache of values, positions i32 [sequences], [first i32 [sequences]],
// [key and value [d, kvHeads, sequences], which are stored too, [cosines and sines [d, sequences], by which q and key are turned
// before]] -> [d, heads, sequences], F32 or BF16. Heads lie one after another, sequences any distance apart. A query sees the slots
// from the first (0) up to its position, where its own key and value go. Value: scale; the flags are the bits of the cap.
static void NAME(cache_attention)(Tensor *dst, int ith, int nth, void *userdata) {
  const Settings s = settings_of(userdata);
  const Tensor *q = dst->src[1], *positions = dst->src[4], *firsts = dst->src[5];
  const Tensor *key = dst->src[6], *value = dst->src[7], *table = dst->src[8];
  const Cache k = cache_of(dst->src[2]), v = cache_of(dst->src[3]);
  const float cap = float_of_bits(s.flags);
  const int64_t d = q->ne[0], heads = q->ne[1], group = heads / k.kv_heads;
  float *const keys = free_scratch(scratch_of(dst, ith)), *const values = keys + k.kv_heads * d, *const queries = values + k.kv_heads * d;
  const int64_t capacity = SCRATCH_FREE / 4 - 2 * k.kv_heads * d;
  int64_t all = 0, before = 0;
  for (int64_t i = 0; i < positions->ne[0]; i++) {
    const int32_t position = ((const int32_t *)positions->data)[i];
    all += position + 1 - (firsts ? min64(((const int32_t *)firsts->data)[i], position) : 0);
  }
  const int64_t begin = all * k.kv_heads * ith / nth, end = all * k.kv_heads * (ith + 1) / nth;
  Share share = next_share(positions, firsts, k.kv_heads, begin, end, 0, &before);
  while (share.low < share.high) {
    const int64_t i = share.sequence, at = share.until - 1, room = round_up(share.until - share.from, GROUP) + GROUP;
    Share later = next_share(positions, firsts, k.kv_heads, begin, end, i + 1, &before);
    if (key) share.until--; // what the cache has; the token is written there in the end, where its lines have been read
    Share ahead = later;
    if (key) ahead.until--;
    const Blocks next = blocks_of(&k, &v, &ahead, later.low, later.high);
    const float *cosines = table ? (const float *)table->data + i * d : NULL;
    for (int64_t h = share.low; key && h < share.high; h++) {
      const float *x = NAME(of_sequence)(key, i) + h * d, *z = NAME(of_sequence)(value, i) + h * d;
      float *as_kept = keys + (h - share.low) * d, *value_kept = values + (h - share.low) * d;
      if (table) NAME(turn)(d / 2, 1, cosines, cosines + d / 2, x, as_kept);
      else memcpy(as_kept, x, (size_t)d * 4);
      memcpy(value_kept, z, (size_t)d * 4);
      for (int64_t j = 0; k.type == TYPE_BF16 && j < d; j++)
        as_kept[j] = from_bf16(to_bf16(as_kept[j])), value_kept[j] = from_bf16(to_bf16(value_kept[j]));
    }
    const int64_t at_once = max64(1, capacity / (2 * d + room)), end_head = share.high * group;
    for (int64_t head = share.low * group, last; head < end_head; head = last) {
      last = min64(head + at_once, end_head);
      const Blocks now = blocks_of(&k, &v, &share, head / group, (last - 1) / group + 1);
      const int64_t kept = (head / group - share.low) * d;
      const NAME(Token) token = {key ? keys + kept : NULL, key ? values + kept : NULL};
      const float *x = NAME(of_sequence)(q, i) + head * d;
      float *y = queries + at_once * d, *scores = y + at_once * d;
      for (int64_t h = 0; h < last - head; h++) {
        if (table) NAME(turn)(d / 2, 1, cosines, cosines + d / 2, x + h * d, queries + h * d);
        else memcpy(queries + h * d, x + h * d, (size_t)d * 4);
      }
      for (int64_t j = 0; j < (last - head) * d; j++) queries[j] *= s.value;
      if (k.type == TYPE_F32)
        NAME(attend)(TYPE_F32, d, &now, &next, head, last, group, share.from, share.until, token, cap, queries, scores, room, y);
      else NAME(attend)(TYPE_BF16, d, &now, &next, head, last, group, share.from, share.until, token, cap, queries, scores, room, y);
      const int64_t to = (i * heads + head) * d;
      if (dst->type == TYPE_F32) memcpy((float *)dst->data + to, y, (size_t)(last - head) * d * 4);
      else NAME(halve)((last - head) * d, y, (uint16_t *)dst->data + to);
    }
    for (int64_t h = share.low; key && h < share.high; h++) {
      NAME(put_token)(&k, 1, block_of(&k, i, at / GROUP, h), at % GROUP, keys + (h - share.low) * d);
      NAME(put_token)(&v, 0, block_of(&v, i, at / GROUP, h), at % GROUP, values + (h - share.low) * d);
    }
    share = later;
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
