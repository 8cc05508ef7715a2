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
enum { HELD_BYTES = 1 << 19, MOST_HELD = 1024 }; // of the keys that are held at a time
enum { SUMMED = 1 << 17 }; // floats of the gradient of a head's keys that are summed in scratch; more where they go
enum { AT_ONCE = 128 }; // probabilities
enum { AHEAD = 8 };     // rows that are asked for early

// The keys that one query sees: [first, last); `plain` where the mask adds nothing within.
typedef struct {
  int32_t first, last, plain;
} Seen;

typedef struct {
  int64_t d, heads, group, queries, keys, batches;
  int64_t q_token, q_head, q_batch;    // strides in floats
  int64_t kv_token, kv_head, kv_batch; // of k, and of v, which lies like k
  const Tensor *mask;
  const float *q, *k, *v, *turns; // turns: cosines | sines of each token that queries and keys are turned by, or NULL
  float scale, cap;
  const Product *product;
  int half;      // queries, keys, probabilities are BF16 in scratch
  int64_t depth; // elements in their rows there, zeros beyond d
  Seen *seen;    // of each query, for the mask in use
  int64_t seen_batch;
  int64_t held_batch, held_head, held_first, most_held; // whose keys, from which on, are in the next three, and how many are at a time
  char *held, *packed_keys, *packed_values;             // rows of keys; both as right operands, transposed
  char *query, *gradient;                               // rows of a block of queries, and of dy
  float *turned;                                        // of a block of dq
  float *sums;                                          // of dk | dv
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

// The keys that any of the queries [from, until) sees, on multiples of UNIT where there are as many keys.
static Seen seen_by(const Attention *a, int64_t from, int64_t until) {
  Seen all = {INT32_MAX, 0, 0};
  for (int64_t i = from; i < until; i++) {
    const Seen *s = &a->seen[i];
    if (s->last == s->first) continue;
    if (s->first < all.first) all.first = s->first;
    if (s->last > all.last) all.last = s->last;
  }
  if (all.last == 0) return (Seen){0, 0, 0};
  return (Seen){all.first / UNIT * UNIT, (int32_t)min64(round_up(all.last, UNIT), a->keys), 0};
}

// `matrices` of the size of a block of scores are needed: one forward, two backward.
static Attention attention_of(const Tensor *dst, const Tensor *q, const Tensor *k, const Tensor *v, const Tensor *mask,
                              const Tensor *turns, int ith, void *userdata, int matrices) {
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
  a.q = (const float *)q->data;
  a.k = (const float *)k->data;
  a.v = (const float *)v->data;
  a.turns = turns ? (const float *)turns->data : NULL;
  a.mask = mask;
  a.scale = s.value;
  a.cap = float_of_bits(s.flags & (uint32_t)CAP);
  a.half = s.flags & ATTEND_BF16 && products.bf16.multiply != products.f32.multiply;
  a.product = a.half ? &products.bf16 : &products.f32;
  a.depth = a.half ? round_up(a.d, UNIT) : a.d;
  a.scratch = scratch_of(dst, ith);
  const int64_t row_bytes = a.depth * (a.half ? 2 : 4);
  a.most_held = min64(min64(max64(HELD_BYTES / row_bytes / UNIT, 1) * UNIT, MOST_HELD), round_up(a.keys, UNIT));
  a.held_batch = a.seen_batch = -1;
  char *free = (char *)free_scratch(a.scratch), *end = free + SCRATCH_FREE;
#define TAKE(field, type, bytes) a.field = (type *)free, free += round_up(bytes, 64)
  TAKE(seen, Seen, a.queries * (int64_t)sizeof(Seen));
  TAKE(held, char, a.most_held * row_bytes);
  TAKE(packed_keys, char, a.product->packed_bytes(a.most_held, a.depth));
  TAKE(query, char, QUERY_BLOCK * row_bytes);
  if (matrices > 1) {
    TAKE(packed_values, char, a.product->packed_bytes(a.most_held, a.depth));
    TAKE(gradient, char, QUERY_BLOCK * row_bytes);
    TAKE(turned, float, QUERY_BLOCK * a.d * 4);
    if (a.keys * a.d <= SUMMED) TAKE(sums, float, 2 * a.keys * a.d * 4);
  }
#undef TAKE
  a.scores = (float *)free;
  a.row = round_up(a.keys, UNIT) + ROW_PADDING;
  const int64_t most = a.queries > LONG ? QUERY_BLOCK : QUERY_BLOCK / 2;
  a.block = min64(most, ((end - free) / 4 / a.row - 1) / matrices); // long rows: fewer of them; and one row of slopes
  return a;
}

// A matrix of rows in scratch, and the same transposed.
INLINE Matrix rows_held(const Attention *a, const void *rows) {
  return (Matrix){rows, a->depth, 1, a->half ? TYPE_BF16 : TYPE_F32, 0};
}
INLINE Matrix scores_held(const Attention *a, const float *scores, int transposed) {
  const int64_t row = a->half ? 2 * a->row : a->row;
  return (Matrix){scores, transposed ? 1 : row, transposed ? row : 1, a->half ? TYPE_BF16 : TYPE_F32, 0};
}
#endif

// A row of a query, a key or dy as the products take it; `turn`: the row of its cosines and sines, or NULL.
INLINE void NAME(hold)(const Attention *a, const float *x, const float *turn, char *rows, int64_t i) {
  const int64_t d = a->d, depth = a->depth;
  if (a->half) {
    uint16_t *y = (uint16_t *)rows + i * depth;
    if (turn) NAME(turn_to_bf16)(d / 2, 1.f, turn, turn + d / 2, x, y);
    else NAME(halve)(d, x, y);
    memset(y + d, 0, (depth - d) * 2);
  } else {
    float *y = (float *)rows + i * depth;
    if (turn) NAME(turn)(d / 2, 1.f, turn, turn + d / 2, x, y);
    else memcpy(y, x, d * 4);
  }
}
INLINE const float *NAME(turn_of)(const Attention *a, int64_t batch, int64_t token) {
  return a->turns ? a->turns + (batch * a->queries + token) * a->d : NULL;
}

// Asks for a row of floats that is read, or written, soon, and for that of the head beside it, which is next: rows of a head are too far
// apart for the processor to see it coming.
INLINE void NAME(ask)(const float *row, int64_t d) {
  for (int64_t j = 0; j < d; j += 16) {
    __builtin_prefetch(row + j);
    __builtin_prefetch(row + d + j, 0, 2);
  }
}
INLINE void NAME(ask_to_write)(const Tensor *dst, int64_t at, int64_t d) {
  const int64_t size = dst->type == TYPE_BF16 ? 2 : 4;
  for (int64_t j = 0; j < d * size; j += 64) __builtin_prefetch((const char *)dst->data + at * size + j, 1);
}

// Queries [start, start + rows) of a head.
INLINE void NAME(hold_queries)(const Attention *a, int64_t batch, int64_t head, int64_t start, int64_t rows) {
  const float *query = a->q + batch * a->q_batch + head * a->q_head + start * a->q_token;
  for (int64_t i = 0; i < min64(rows, AHEAD); i++) NAME(ask)(query + i * a->q_token, a->d);
  for (int64_t i = 0; i < rows; i++) {
    if (i + AHEAD < rows) NAME(ask)(query + (i + AHEAD) * a->q_token, a->d);
    NAME(hold)(a, query + i * a->q_token, NAME(turn_of)(a, batch, start + i), a->query, i);
  }
}

// Keys of a head from `first` on, and its values where there is room for them. Returns how many there are.
INLINE int64_t NAME(hold_keys)(Attention *a, int64_t batch, int64_t kv_head, int64_t first) {
  const int64_t count = min64(a->most_held, a->keys - first), at = batch * a->kv_batch + kv_head * a->kv_head + first * a->kv_token;
  if (a->held_batch == batch && a->held_head == kv_head && a->held_first == first) return count;
  a->held_batch = batch;
  a->held_head = kv_head;
  a->held_first = first;
  for (int64_t j = 0; j < min64(count, AHEAD); j++) NAME(ask)(a->k + at + j * a->kv_token, a->d);
  for (int64_t j = 0; j < count; j++) {
    if (j + AHEAD < count) NAME(ask)(a->k + at + (j + AHEAD) * a->kv_token, a->d);
    NAME(ask)(a->v + at + j * a->kv_token, a->d); // they are next
    NAME(hold)(a, a->k + at + j * a->kv_token, NAME(turn_of)(a, batch, first + j), a->held, j);
  }
  Matrix across = rows_held(a, a->held);
  across.column_stride = across.row_stride;
  across.row_stride = 1;
  a->product->pack(count, a->depth, across, 0, count, a->packed_keys);
  // Packed in BF16, what lies beyond d is filled up with zeros as far as `depth`.
  if (a->packed_values) a->product->pack(count, a->d, (Matrix){a->v + at, 1, a->kv_token, TYPE_F32, 0}, 0, count, a->packed_values);
  return count;
}

// The loop over [from, until) of the keys of `seen` in pieces that are held at a time; `count` are held, from `first` on.
#define PIECES_OF(seen)                                                                                                \
  (int64_t first = (seen).first / a->most_held * a->most_held; first < (seen).last; first += a->most_held)             \
    for (int64_t count = NAME(hold_keys)(a, batch, head / a->group, first), from = max64(first, (seen).first),         \
                 until = min64(first + count, (seen).last);                                                            \
         from < until; from = until)

// rows x (keys that are seen) products of `left` with the keys or values that are packed.
INLINE void NAME(against)(const Attention *a, int64_t rows, const char *left, const char *packed, int64_t count, int64_t from,
                          int64_t n, float *scores) {
  const Matrix right = {packed, round_up(count, UNIT), from, TYPE_F32, 1};
  a->product->multiply(rows, n, a->depth, rows_held(a, left), right, (Target){scores, a->row, 0, 0}, a->scratch);
}

// scores + mask for the keys that query i sees, still to be multiplied by `factor`, -inf up to the next whole vector; `first` is the
// key of column 0. With a cap, `slopes` (NULL: not wanted) gets the derivatives of the capped scores, 0 up to the next whole vector.
// Returns the first column and the number of columns, whole vectors.
INLINE int64_t NAME(masked)(const Attention *a, int64_t batch, int64_t i, int64_t first, float *scores, float *slopes,
                            int64_t *count, float *factor) {
  const Seen seen = a->seen[i];
  const int64_t from = seen.last > seen.first ? seen.first - first : 0, n = seen.last - seen.first;
  float *x = scores + from, scale = a->scale;
  *factor = 1;
  if (a->cap > 0) {
    const float cap = a->cap, inner = a->scale / cap;
    if (slopes) memset(slopes + from + n, 0, (size_t)(round_up(n, ROW_PADDING) - n) * 4);
    NAME(capped)(n, inner, cap, x, x, slopes ? slopes + from : NULL);
    scale = 1; // it is in there
  }
  if (seen.plain) {
    if (scale > 0) *factor = scale; // the maximum is then that of what is multiplied
    else
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

// Writes `count` values into a row, as BF16 where the scores are: over floats of the row that were read before.
INLINE void NAME(put)(const Attention *a, float *row, int64_t from, int64_t count, const float *values) {
  if (!a->half) {
    memcpy(row + from, values, count * 4);
    return;
  }
  NAME(halve)(count, values, (uint16_t *)row + from);
}
// Zeros in a row of `n` scores outside [from, from + count).
INLINE void NAME(clear_outside)(const Attention *a, float *row, int64_t from, int64_t count, int64_t n) {
  const int64_t size = a->half ? 2 : 4, until = from + count;
  memset(row, 0, from * size);
  if (until < n) memset((char *)row + until * size, 0, (n - until) * size);
}

// The rows of one block of queries of a head.
INLINE void NAME(attend)(Attention *a, int64_t batch, int64_t head, int64_t start, float *out, float *log_sums, uint16_t *halves) {
  const int64_t rows = min64(a->block, a->queries - start);
  const Seen seen = seen_by(a, start, start + rows);
  const int64_t n = seen.last - seen.first;
  NAME(hold_queries)(a, batch, head, start, rows);
  for PIECES_OF(seen) NAME(against)(a, rows, a->query, a->packed_keys, count, from - first, until - from, a->scores + from - seen.first);
  float inverse[QUERY_BLOCK], values[AT_ONCE];
  for (int64_t i = 0; i < rows; i++) {
    float *x = a->scores + i * a->row, factor;
    int64_t count;
    const int64_t from = NAME(masked)(a, batch, start + i, seen.first, x, NULL, &count, &factor);
    const float most = NAME(maximum)(count, x + from);
    float sum = 0;
    for (int64_t j = 0; j < count; j += AT_ONCE) {
      const int64_t some = min64(AT_ONCE, count - j);
      sum += NAME(scaled_exponentials)(some, factor, most, x + from + j, values); // of the largest exactly 1, however huge
      NAME(put)(a, x, from + j, some, values);
    }
    NAME(clear_outside)(a, x, from, count, n);
    inverse[i] = 1.f / sum;
    log_sums[(batch * a->heads + head) * a->queries + start + i] = factor * most + logf(sum);
  }
  const int64_t at = ((batch * a->queries + start) * a->heads + head) * a->d;
  float *o = out + at;
  const int64_t o_token = a->heads * a->d;
  const float *values_seen = a->v + batch * a->kv_batch + head / a->group * a->kv_head + seen.first * a->kv_token;
  a->product->multiply(rows, a->d, n, scores_held(a, a->scores, 0), (Matrix){values_seen, a->kv_token, 1, TYPE_F32, 0},
                       (Target){o, o_token, 0, 0}, a->scratch);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < a->d; j++) o[i * o_token + j] *= inverse[i];
    if (halves) NAME(halve)(a->d, o + i * o_token, halves + at + i * o_token);
  }
}

// Sources: scratch, q [d, heads, queries, batches], k and v [d, kvHeads, keys, batches] (or with HEADS_FIRST [d, keys, kvHeads,
// batches]), mask [keys, queries, 1, 1 or batches] f32 or f16, [table of the op "rope" [d, queries * batches], by which q and k are
// turned] -> like q, then the logarithm of each row's sum [queries, heads, batches], which the gradient needs, then, where there is room,
// the first once more in BF16. Value: scale; flags: ATTEND_BF16, HEADS_FIRST, and the cap.
static void NAME(attention)(Tensor *dst, int ith, int nth, void *userdata) {
  Attention here = attention_of(dst, dst->src[1], dst->src[2], dst->src[3], dst->src[4], dst->src[5], ith, userdata, 1), *a = &here;
  float *out = (float *)dst->data, *log_sums = out + size_of(dst->src[1]);
  const int64_t sums = a->queries * a->heads * a->batches;
  uint16_t *halves = size_of(dst) > size_of(dst->src[1]) + sums ? (uint16_t *)(log_sums + sums) : NULL;
  const int64_t blocks = (a->queries + a->block - 1) / a->block, kv_heads = a->heads / a->group;
  const int whole = a->batches * kv_heads >= 8 * nth; // all that looks at the same keys in one unit
  const int64_t heads = whole ? a->group : 1, starts = whole ? a->queries : a->block;
  for EVERY_UNIT(unit, whole ? a->batches * kv_heads : a->batches * a->heads * blocks) {
    const int64_t batch = whole ? unit / kv_heads : unit / (a->heads * blocks);
    const int64_t head = whole ? unit % kv_heads * a->group : unit / blocks % a->heads;
    const int64_t start = whole ? 0 : unit % blocks * a->block;
    look(a, batch);
    for (int64_t h = head; h < head + heads; h++)
      for (int64_t s = start; s < min64(start + starts, a->queries); s += a->block) NAME(attend)(a, batch, h, s, out, log_sums, halves);
  }
}

// A row of a gradient at element `at` of dst, turned back.
INLINE void NAME(give)(const Attention *a, Tensor *dst, int64_t at, const float *x, const float *turn) {
  const int64_t d = a->d, half = d / 2;
  if (dst->type == TYPE_BF16) {
    uint16_t *y = (uint16_t *)dst->data + at;
    if (turn) NAME(turn_to_bf16)(half, -1.f, turn, turn + half, x, y);
    else NAME(halve)(d, x, y);
  } else {
    float *y = (float *)dst->data + at;
    if (turn) NAME(turn)(half, -1.f, turn, turn + half, x, y);
    else if (x != y) memcpy(y, x, d * 4);
  }
}

// The part of one block of queries in the gradients: dq into a->turned, dk and dv added up.
INLINE void NAME(attend_back)(Attention *a, int64_t batch, int64_t head, int64_t start, int64_t rows, const float *dy,
                              const float *out, const float *log_sums, float *dk, float *dv, int64_t stride) {
  const int64_t y_token = a->heads * a->d, here = (batch * a->queries + start) * y_token + head * a->d;
  const Seen seen = seen_by(a, start, start + rows);
  const int64_t n = seen.last - seen.first;
  float *p = a->scores, *ds = p + a->block * a->row, *slopes = ds + a->block * a->row;
  NAME(hold_queries)(a, batch, head, start, rows);
  for (int64_t i = 0; i < rows; i++) {
    if (i + AHEAD < rows) NAME(ask)(dy + here + (i + AHEAD) * y_token, a->d);
    NAME(ask)(out + here + i * y_token, a->d);
    NAME(hold)(a, dy + here + i * y_token, NULL, a->gradient, i);
  }
  for PIECES_OF(seen) {
    NAME(against)(a, rows, a->query, a->packed_keys, count, from - first, until - from, p + from - seen.first);
    NAME(against)(a, rows, a->gradient, a->packed_values, count, from - first, until - from, ds + from - seen.first);
  }
  float scaled[AT_ONCE], probabilities[AT_ONCE], slope[AT_ONCE];
  for (int64_t i = 0; i < rows; i++) {
    float *x = p + i * a->row, *y = ds + i * a->row, factor;
    int64_t count;
    const int64_t begin = NAME(masked)(a, batch, start + i, seen.first, x, slopes, &count, &factor);
    const float log_sum = log_sums[(batch * a->heads + head) * a->queries + start + i], scale = a->scale;
    const float along = NAME(dot)(a->d, dy + here + i * y_token, out + here + i * y_token);
    const int64_t valid = a->seen[start + i].last - a->seen[start + i].first;
    for (int64_t j = valid; j < count; j++) y[begin + j] = 0; // beyond the product: whatever was there
    for (int64_t j = 0; j < count; j += AT_ONCE) {
      const int64_t some = min64(AT_ONCE, count - j);
      const float *score = x + begin + j, *change = y + begin + j;
      // Rounded by itself, as it is in log_sum: in one instruction with the difference, huge scores would leave what was rounded off.
      for (int64_t e = 0; e < some; e++) scaled[e] = score[e] * factor;
      for (int64_t e = 0; e < some; e++) scaled[e] -= log_sum;
      NAME(powers)(some, scaled, probabilities);
      for (int64_t e = 0; e < some; e++) slope[e] = scale * probabilities[e] * (change[e] - along);
      if (a->cap > 0)
        for (int64_t e = 0; e < some; e++) slope[e] *= slopes[begin + j + e];
      NAME(put)(a, x, begin + j, some, probabilities);
      NAME(put)(a, y, begin + j, some, slope);
    }
    NAME(clear_outside)(a, x, begin, count, n);
    NAME(clear_outside)(a, y, begin, count, n);
  }
  const Product *product = a->product;
  int later = 0;
  if (n == 0) memset(a->turned, 0, rows * a->d * 4);
  for PIECES_OF(seen) { // columns of scores from `column` on
    const int64_t column = from - seen.first, m = until - from, size = a->half ? 2 : 4;
    const float *p_here = (const float *)((const char *)p + column * size), *ds_here = (const float *)((const char *)ds + column * size);
    const Matrix keys = rows_held(a, a->held + (from - first) * a->depth * size);
    const Target to = {a->turned, a->d, later ? a->turned : 0, a->d};
    float *dk_here = dk + from * stride, *dv_here = dv + from * stride;
    product->multiply(rows, a->d, m, scores_held(a, ds_here, 0), keys, to, a->scratch);
    product->multiply(m, a->d, rows, scores_held(a, ds_here, 1), rows_held(a, a->query), (Target){dk_here, stride, dk_here, stride}, a->scratch);
    product->multiply(m, a->d, rows, scores_held(a, p_here, 1), rows_held(a, a->gradient), (Target){dv_here, stride, dv_here, stride}, a->scratch);
    later = 1;
  }
}

// Sources: scratch, dy [d, heads, queries, batches], q, k, v, mask, result of the op above, [table] -> dq | dk | dv, or, where q, k and
// v are parts of one tensor (tokens of q are further apart than its heads reach), their gradients as the same parts of one like it.
// F32, or BF16 where the gradient of a head's keys has SUMMED elements at most. No HEADS_FIRST. With p the probabilities:
// dv = pT dy, ds = scale slope p (dy vT - dy . y), dq = ds k, dk = dsT q, where slope = 1 - tanh^2 with a cap, else 1.
static void NAME(attention_back)(Tensor *dst, int ith, int nth, void *userdata) {
  const Tensor *q = dst->src[2], *k = dst->src[3];
  Attention here = attention_of(dst, q, k, dst->src[4], dst->src[5], dst->src[7], ith, userdata, 2), *a = &here;
  const float *dy = source(dst, 1), *out = source(dst, 6), *log_sums = out + size_of(q);
  const int merged = a->q_token != a->heads * a->d;
  const int64_t dk_at = merged ? a->k - a->q : size_of(q), dv_at = dk_at + (merged ? a->v - a->k : size_of(k));
  const int64_t kv_heads = a->heads / a->group, stride = a->sums ? a->d : a->kv_token;
  for EVERY_UNIT(unit, a->batches * kv_heads) {
    const int64_t batch = unit / kv_heads, kv_head = unit % kv_heads, kv = batch * a->kv_batch + kv_head * a->kv_head;
    float *dk = a->sums ? a->sums : (float *)dst->data + dk_at + kv, *dv = a->sums ? dk + a->keys * a->d : (float *)dst->data + dv_at + kv;
    look(a, batch);
    for (int64_t j = 0; j < a->keys; j++) {
      memset(dk + j * stride, 0, a->d * 4);
      memset(dv + j * stride, 0, a->d * 4);
    }
    for (int64_t head = kv_head * a->group; head < (kv_head + 1) * a->group; head++)
      for (int64_t start = 0; start < a->queries; start += a->block) {
        const int64_t rows = min64(a->block, a->queries - start), to = batch * a->q_batch + head * a->q_head + start * a->q_token;
        NAME(attend_back)(a, batch, head, start, rows, dy, out, log_sums, dk, dv, stride);
        for (int64_t i = 0; i < rows; i++) {
          if (i + AHEAD < rows) NAME(ask_to_write)(dst, to + (i + AHEAD) * a->q_token, a->d);
          NAME(give)(a, dst, to + i * a->q_token, a->turned + i * a->d, NAME(turn_of)(a, batch, start + i));
        }
      }
    for (int64_t j = 0; j < a->keys; j++) {
      if (j + AHEAD < a->keys) {
        NAME(ask_to_write)(dst, dk_at + kv + (j + AHEAD) * a->kv_token, a->d);
        NAME(ask_to_write)(dst, dv_at + kv + (j + AHEAD) * a->kv_token, a->d);
      }
      NAME(give)(a, dst, dk_at + kv + j * a->kv_token, dk + j * stride, NAME(turn_of)(a, batch, j));
      NAME(give)(a, dst, dv_at + kv + j * a->kv_token, dv + j * stride, NULL);
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
  Attention a = attention_of(dst, q, k, v, dst->src[4], NULL, ith, userdata, 1);
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
        float factor;
        NAME(masked)(&a, batch, i, seen.first, x, NULL, &count, &factor);
        const float sum = NAME(scaled_exponentials)(count, factor, NAME(maximum)(count, x), x, x);
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
