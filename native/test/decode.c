// The ops of generation against float64: writing a cache slot by slot, one query per sequence over it, and the choice of a token.
// Slots that a query must not see hold NaN.
#include "check.h"

enum { GROUP = 16, KEYS = 1 };

// Where element x of a slot of a head lies in a cache [d, slots, heads, sequences].
static int64_t place(const Tensor *cache, int keys, int64_t sequence, int64_t head, int64_t slot, int64_t x) {
  const int64_t d = cache->ne[0], in = slot % GROUP;
  const int64_t start = ((sequence * cache->ne[1] + slot / GROUP * GROUP) * cache->ne[2] + head * GROUP) * d;
  if (cache->type == TYPE_F32) return start + (keys ? x * GROUP + in : in * d + x);
  if (!keys) return start + in / 2 * 2 * d + 2 * x + in % 2;
  if (x == d - 1 && d % 2) return start + x * GROUP + in; // the last of an odd number has no other beside it
  return start + x / 2 * 2 * GROUP + 2 * in + x % 2;
}
static float read(const Tensor *t, int64_t at) {
  return t->type == TYPE_F32 ? ((const float *)t->data)[at] : from_bf16(((const uint16_t *)t->data)[at]);
}
static float as_held(int type, float x) { return type == TYPE_F32 ? x : from_bf16(to_bf16(x)); }

// x has `beside` floats between its heads; the slots of each sequence begin somewhere else.
static void test_store(int type, int64_t d, int64_t heads, int64_t slots, int64_t length, int64_t sequences, int64_t beside) {
  Tensor *x = f32(d + beside, heads, length, sequences), *first = tensor(TYPE_I32, sequences, 1, 1, 1);
  Tensor *cache = tensor(type, d, slots, heads, sequences), *sources[] = {x, first};
  x->ne[0] = d;
  for (int64_t s = 0; s < sequences; s++) ((int32_t *)first->data)[s] = (int32_t)(s * 7 % (slots - length + 1));
  for (int keys = 0; keys <= KEYS; keys++) {
    run_onto("store", cache, sources, 2, (uint32_t)keys, 0);
    int64_t wrong = 0;
    for (int64_t s = 0; s < sequences; s++)
      for (int64_t h = 0; h < heads; h++)
        for (int64_t slot = 0; slot < slots; slot++)
          for (int64_t j = 0; j < d; j++) {
            const int64_t i = slot - ((int32_t *)first->data)[s];
            const float found = read(cache, place(cache, keys, s, h, slot, j));
            if (i < 0 || i >= length) wrong += found == found; // untouched: NaN
            else wrong += found != as_held(type, values(x)[((s * length + i) * heads + h) * (d + beside) + j]);
          }
    check(keys ? "store, keys" : "store, values", (double)wrong, 0);
  }
  drop(x), drop(first), drop(cache);
}

typedef struct {
  int type;
  int64_t d, heads, kv_heads, slots, sequences;
  float scale, cap, size; // cap 0: none; size of queries
  int from;               // 1: with first slots, some of them behind the position
  int token;              // 1: with keys and values still to be stored; 2: and queries and keys to be turned
} Cached;

static void test_cache_attention(Cached c) {
  const int64_t group = c.heads / c.kv_heads, half = c.d / 2, parts = c.heads + 2 * c.kv_heads;
  Tensor *q = f32(c.d, c.heads, c.sequences, 1), *y = f32(c.d, c.heads, c.sequences, 1);
  Tensor *k = tensor(c.type, c.d, c.slots, c.kv_heads, c.sequences), *v = tensor(c.type, c.d, c.slots, c.kv_heads, c.sequences);
  Tensor *positions = tensor(TYPE_I32, c.sequences, 1, 1, 1), *firsts = tensor(TYPE_I32, c.sequences, 1, 1, 1);
  double *wanted = doubles(size_of(q)), *p = doubles(c.slots);
  poison(k->data, (size_t)size_of(k) * (c.type == TYPE_F32 ? 4 : 2));
  poison(v->data, (size_t)size_of(v) * (c.type == TYPE_F32 ? 4 : 2));
  for (int64_t i = 0; i < size_of(q); i++) values(q)[i] *= c.size;
  // Queries, keys and values as one product leaves them; what the op finds in q is turned as the reference turns it.
  Tensor *all = f32(c.d, parts, 1, c.sequences), *table = f32(c.d, c.sequences, 1, 1);
  for (int64_t s = 0; s < c.sequences; s++) {
    const int64_t position = s == 0 ? c.slots - 1 : s == 1 ? 0 : s * 15 % c.slots; // also 30, 45: within groups
    int64_t first = c.from ? s * 9 % c.slots : 0;
    ((int32_t *)positions->data)[s] = (int32_t)position;
    ((int32_t *)firsts->data)[s] = (int32_t)first;
    if (first > position) first = position;
    for (int64_t h = 0; h < c.kv_heads; h++) {
      for (int64_t slot = first; slot <= position; slot++)
        for (int64_t j = 0; j < c.d; j++) {
          const float key = uniform(), value = uniform();
          const int64_t at_k = place(k, 1, s, h, slot, j), at_v = place(v, 0, s, h, slot, j);
          if (c.type == TYPE_F32) values(k)[at_k] = key, values(v)[at_v] = value;
          else ((uint16_t *)k->data)[at_k] = to_bf16(key), ((uint16_t *)v->data)[at_v] = to_bf16(value);
        }
    }
    for (int64_t h = 0; c.token && h < parts; h++) {
      float *x = values(all) + (s * parts + h) * c.d, turned[256];
      const float *cosines = values(table) + s * c.d;
      if (h < c.heads) memcpy(x, values(q) + (s * c.heads + h) * c.d, (size_t)c.d * 4);
      memcpy(turned, x, (size_t)c.d * 4);
      for (int64_t j = 0; c.token == 2 && h < c.heads + c.kv_heads && j < half; j++) {
        turned[j] = (float)((double)x[j] * cosines[j] - (double)x[j + half] * cosines[j + half]);
        turned[j + half] = (float)((double)x[j] * cosines[j + half] + (double)x[j + half] * cosines[j]);
      }
      const int64_t of = h < c.heads ? h : (h - c.heads) % c.kv_heads;
      if (h < c.heads) memcpy(values(q) + (s * c.heads + h) * c.d, turned, (size_t)c.d * 4);
      for (int64_t j = 0; h >= c.heads && j < c.d; j++) {
        Tensor *to = h < c.heads + c.kv_heads ? k : v;
        const int64_t at = place(to, to == k, s, of, position, j);
        if (c.type == TYPE_F32) values(to)[at] = turned[j];
        else ((uint16_t *)to->data)[at] = to_bf16(turned[j]);
      }
    }
    for (int64_t h = 0; h < c.heads; h++) {
      const int64_t query = (s * c.heads + h) * c.d;
      double most = -1e300, sum = 0;
      for (int64_t slot = first; slot <= position; slot++) {
        double score = 0;
        for (int64_t j = 0; j < c.d; j++) score += (double)values(q)[query + j] * read(k, place(k, 1, s, h / group, slot, j));
        score *= c.scale;
        p[slot] = c.cap > 0 ? c.cap * tanh(score / c.cap) : score;
        most = p[slot] > most ? p[slot] : most;
      }
      for (int64_t slot = first; slot <= position; slot++) sum += p[slot] = exp(p[slot] - most);
      for (int64_t slot = first; slot <= position; slot++)
        for (int64_t j = 0; j < c.d; j++) wanted[query + j] += p[slot] / sum * read(v, place(v, 0, s, h / group, slot, j));
    }
  }
  uint32_t cap_bits;
  memcpy(&cap_bits, &c.cap, 4);
  // Views of one tensor, as the merged product leaves them; the slot of the token holds NaN until it is stored.
  Tensor query = *all, key = *all, value = *all;
  query.ne[1] = c.heads, key.ne[1] = value.ne[1] = c.kv_heads;
  key.data = values(all) + c.heads * c.d, value.data = values(all) + (c.heads + c.kv_heads) * c.d;
  for (int64_t s = 0; c.token && s < c.sequences; s++)
    for (int64_t h = 0; h < c.kv_heads; h++)
      for (int64_t j = 0; j < c.d; j++) {
        const int64_t position = ((int32_t *)positions->data)[s], bytes = c.type == TYPE_F32 ? 4 : 2;
        poison((char *)k->data + place(k, 1, s, h, position, j) * bytes, (size_t)bytes);
        poison((char *)v->data + place(v, 0, s, h, position, j) * bytes, (size_t)bytes);
      }
  Tensor *sources[] = {c.token ? &query : q, k, v, positions, c.from ? firsts : NULL, &key, &value, c.token == 2 ? table : NULL};
  run("cache_attention", y, sources, c.token ? 8 : c.from ? 5 : 4, cap_bits, c.scale, c.token ? k : NULL);
  memset(y->src, 0, sizeof y->src);
  int64_t wrong = 0; // of what was stored
  for (int64_t s = 0; c.token && s < c.sequences; s++)
    for (int64_t h = 0; h < c.kv_heads; h++)
      for (int64_t j = 0; j < c.d; j++) {
        const float *x = values(all) + (s * parts + c.heads + h) * c.d + j;
        const int64_t position = ((int32_t *)positions->data)[s];
        wrong += read(v, place(v, 0, s, h, position, j)) != as_held(c.type, x[c.kv_heads * c.d]);
        if (c.token == 1) wrong += read(k, place(k, 1, s, h, position, j)) != as_held(c.type, x[0]);
      }
  check("cache_attention, stored", (double)wrong, 0);
  // Scores of size s carry an error of s units in the last place into the exponent. A key that is turned may be rounded to the next
  // number in BF16, in one of the places where it is compared.
  // A cap, whose slope is 1 at most, lets the error through; and the result, a mean of numbers of about 0.5, may be next to nothing.
  const double bound = c.size > 1 ? 2e-7 * c.size : 3e-6;
  const double error = distance_from(values(y), wanted, size_of(q), 0.1 * sqrt((double)size_of(q)) + 1e-30);
  check("cache_attention", error, c.token == 2 && c.type == TYPE_BF16 ? bound + 1e-3 * c.size : bound);
  free(wanted), free(p);
  drop(q), drop(y), drop(k), drop(v), drop(positions), drop(firsts), drop(all), drop(table);
}

// The reference draws from the same numbers: the token found must be where the running sum passes the uniform number, give or take
// the rounding of F32 weights.
static void test_choice(int64_t n, int64_t rows, float temperature, float size, int hidden) {
  Tensor *x = f32(n, rows, 1, 1), *numbers = f32(2, rows, 1, 1), *out = f32(4, rows, 1, 1), *sources[] = {x, numbers};
  for (int64_t i = 0; i < n * rows; i++) values(x)[i] = hidden && i % n != i / n % n && i % 3 ? -INFINITY : values(x)[i] * size;
  for (int64_t r = 0; r < rows; r++) {
    const float u = r == 0 ? 0.f : r == 1 ? 0.99999994f : fabsf(values(numbers)[2 * r]);
    values(numbers)[2 * r] = u;
    values(numbers)[2 * r + 1] = r < 2 ? 0.f : u < 0.5f ? 1e-9f : -1e-9f;
  }
  run("choose_token", out, sources, 2, 0, temperature, NULL);
  double worst_log = 0, worst_entropy = 0, worst_sum = 0, outside = 0, not_best = 0;
  for (int64_t r = 0; r < rows; r++) {
    const float *row = values(x) + r * n, *found = values(out) + 4 * r;
    double most = -1e300, sum = 0, entropy = 0, total = 0, below = 0;
    int64_t best = 0;
    for (int64_t j = 0; j < n; j++)
      if (row[j] > most) most = row[j], best = j;
    for (int64_t j = 0; j < n; j++) sum += exp(row[j] - most);
    for (int64_t j = 0; j < n; j++) {
      const double weight = exp(row[j] - most) / sum;
      if (weight > 0) entropy -= weight * log(weight);
      total += exp((row[j] - most) / (temperature > 0 ? temperature : 1));
    }
    const int64_t token = (int64_t)found[0];
    if (token < 0 || token >= n) {
      outside++;
      continue;
    }
    worst_log = fmax(worst_log, fabs(found[1] - (row[token] - most - log(sum))) / (1 + fabs(row[token] - most)));
    worst_entropy = fmax(worst_entropy, fabs(found[2] - entropy));
    worst_sum = fmax(worst_sum, fabs(found[3] - sum) / sum);
    if (temperature == 0) {
      not_best += token != best;
      continue;
    }
    for (int64_t j = 0; j < token; j++) below += exp((row[j] - most) / temperature) / total;
    const double u = (double)values(numbers)[2 * r] + (double)values(numbers)[2 * r + 1];
    const double weight = exp((row[token] - most) / temperature) / total, slack = 1e-5;
    outside += u < below - slack || u > below + weight + slack;
    outside += row[token] == -INFINITY;
  }
  check("choose_token, within", outside + not_best, 0);
  check("choose_token, log-probability", worst_log, 2e-6);
  check("choose_token, entropy", worst_entropy, 1e-5);
  check("choose_token, sum", worst_sum, 2e-6);
  drop(x), drop(numbers), drop(out);
}

// Logits that are not sound give a token within range and a sum that says so.
static void test_unsound_choice(float bad, int everywhere) {
  for (int64_t n = 1; n <= 130; n += 43)
    for (int warm = 0; warm < 2; warm++) {
      Tensor *x = f32(n, 3, 1, 1), *numbers = f32(2, 3, 1, 1), *out = f32(4, 3, 1, 1), *sources[] = {x, numbers};
      for (int64_t i = 0; i < 6; i++) values(numbers)[i] = i % 2 ? 0.f : 0.7f;
      for (int64_t j = 0; j < n; j++)
        if (everywhere || j == n / 2) values(x)[n + j] = bad; // the middle row
      run("choose_token", out, sources, 2, 0, (float)warm, NULL);
      int wrong = 0;
      for (int r = 0; r < 3; r++) {
        const float token = values(out)[4 * r], sum = values(out)[4 * r + 3];
        wrong += !(token >= 0 && token < (float)n);
        wrong += (sum > 0 && isfinite(sum)) != (r != 1);
      }
      check("choose_token, not sound", wrong, 0);
      drop(x), drop(numbers), drop(out);
    }
}

void test_decoding(void) {
  for (int held = 0; held < 2; held++) {
    const int type = held ? TYPE_BF16 : TYPE_F32;
    test_store(type, 1, 1, 16, 1, 1, 0), test_store(type, 7, 3, 48, 5, 4, 3), test_store(type, 33, 2, 32, 32, 9, 0);
    test_store(type, 64, 1, 64, 17, 3, 1), test_store(type, 8, 2, 16, 0, 3, 0), test_store(type, 8, 2, 16, 4, 0, 0);
    for (int from = 0; from < 2; from++)
      for (int token = 0; token < 3; token++) {
        if (token < 2) {
          test_cache_attention((Cached){type, 1, 1, 1, 16, 1, 1, 0, 1, from, token});
          test_cache_attention((Cached){type, 7, 3, 1, 48, 5, 0.4f, 1.5f, 1, from, token}); // odd width, all heads one group, a cap
          test_cache_attention((Cached){type, 33, 4, 2, 80, 7, 0.2f, 0, 1, from, token});   // beyond a vector
        }
        test_cache_attention((Cached){type, 64, 2, 2, 176, 9, 0.125f, 50, 300, from, token}); // scores far beyond their cap
        test_cache_attention((Cached){type, 130, 2, 1, 32, 4, 0.1f, 0, 1e-20f, from, token}); // every weight the same
        test_cache_attention((Cached){type, 24, 6, 3, 64, 6, 0.3f, 0, 40, from, token});      // sharp
        test_cache_attention((Cached){type, 48, 6, 6, 160, 3, 0.14f, 0, 1, from, token});
        test_cache_attention((Cached){type, 16, 2, 1, 16, 0, 1, 0, 1, from, token});
      }
  }
  const int64_t widths[] = {1, 2, 63, 64, 65, 1003};
  for (int i = 0; i < 6; i++)
    for (int hidden = 0; hidden < 2; hidden++) {
      test_choice(widths[i], 9, 1, 3, hidden), test_choice(widths[i], 5, 0, 3, hidden), test_choice(widths[i], 7, 0.3f, 20, hidden);
      test_choice(widths[i], 4, 1e6f, 1, hidden), test_choice(widths[i], 3, 1, 90, hidden), test_choice(widths[i], 3, 0, 0, hidden);
    }
  test_choice(17, 0, 1, 1, 0);
  test_unsound_choice(NAN, 0), test_unsound_choice(INFINITY, 0), test_unsound_choice(-INFINITY, 1), test_unsound_choice(NAN, 1);
}
