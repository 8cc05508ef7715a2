// Products with matrices in blocks and half precision, against float64 sums over values that are read one by one, straight from the
// description of each block: no code is shared with the kernels. Blocks hold random bits, scales that are sane.
#include "check.h"

static double half(const uint8_t *b) {
  const int bits = b[0] | b[1] << 8, exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double size = exponent == 0 ? ldexp(mantissa, -24) : exponent == 31 ? (mantissa ? NAN : INFINITY) : ldexp(1024 + mantissa, exponent - 25);
  return bits >> 15 ? -size : size;
}

// Scale (0) or minimum (1) of sub-block s: bits 6 s to 6 s + 5 for the first four, split for the others.
static int six_bits(const uint8_t *packed, int s, int minimum) {
  if (s < 4) return packed[s + 4 * minimum] & 63;
  const int low = minimum ? packed[s + 4] >> 4 : packed[s + 4] & 15;
  return low | packed[s - 4 + 4 * minimum] >> 6 << 4;
}

static int64_t sizes(int type, int64_t *block) {
  *block = type >= TYPE_Q4_K ? 256 : type == TYPE_F16 ? 1 : 32;
  return type == TYPE_F16 ? 2 : type == TYPE_Q4_0 ? 18 : type == TYPE_Q4_1 ? 20 : type == TYPE_Q5_0 ? 22 : type == TYPE_Q5_1 ? 24
         : type == TYPE_Q8_0 ? 34 : type == TYPE_Q4_K ? 144 : type == TYPE_Q5_K ? 176 : 210;
}

static double element(int type, const uint8_t *b, int i) {
  const int nibble = i < 16 ? 0 : 4, at = i % 16, sub = i / 32;
  const int wide = sub % 2 * 4, byte = i / 64 * 32 + i % 32; // of the types with 256 values: 64 values in 32 bytes
  switch (type) {
  case TYPE_F16: return half(b);
  case TYPE_Q8_0: return half(b) * (int8_t)b[2 + i];
  case TYPE_Q4_0: return half(b) * ((b[2 + at] >> nibble & 15) - 8);
  case TYPE_Q4_1: return half(b) * (b[4 + at] >> nibble & 15) + half(b + 2);
  case TYPE_Q5_0: return half(b) * (((b[6 + at] >> nibble & 15) | (b[2 + i / 8] >> i % 8 & 1) << 4) - 16);
  case TYPE_Q5_1: return half(b) * ((b[8 + at] >> nibble & 15) | (b[4 + i / 8] >> i % 8 & 1) << 4) + half(b + 2);
  case TYPE_Q4_K: return half(b) * six_bits(b + 4, sub, 0) * (b[16 + byte] >> wide & 15) - half(b + 2) * six_bits(b + 4, sub, 1);
  case TYPE_Q5_K: {
    const int value = (b[48 + byte] >> wide & 15) | (b[16 + i % 32] >> sub & 1) << 4;
    return half(b) * six_bits(b + 4, sub, 0) * value - half(b + 2) * six_bits(b + 4, sub, 1);
  }
  default: {
    const int part = i / 128, in = i % 128, quarter = in / 32, lane = in % 32;
    const int low = b[part * 64 + quarter % 2 * 32 + lane] >> quarter / 2 * 4 & 15, high = b[128 + part * 32 + lane] >> quarter * 2 & 3;
    return half(b + 208) * (int8_t)b[192 + i / 16] * ((low | high << 4) - 32);
  }
  }
}

static uint8_t random_byte(void) { return (uint8_t)((uniform() + 1) * 127.9f); }

// Scales of size 2^-8 to 2^-5, as files have them; `tiny`: denormal ones.
static Tensor *blocks(int type, int64_t k, int64_t n, int tiny) {
  int64_t block;
  const int64_t bytes = sizes(type, &block);
  Tensor *w = calloc(1, sizeof *w);
  w->type = type;
  w->ne[0] = k, w->ne[1] = n, w->ne[2] = w->ne[3] = 1;
  w->nb[0] = (size_t)bytes, w->nb[1] = (size_t)(k / block * bytes);
  w->extra = w->data = malloc(w->nb[1] * (size_t)n + 1);
  uint8_t *b = w->data;
  for (int64_t i = 0; i < k / block * n; i++, b += bytes) {
    for (int64_t j = 0; j < bytes; j++) b[j] = random_byte();
    const int scales[] = {type == TYPE_Q6_K ? 208 : 0, type == TYPE_Q4_1 || type == TYPE_Q5_1 || type == TYPE_Q4_K || type == TYPE_Q5_K ? 2 : -1};
    for (int s = 0; s < 2; s++)
      if (scales[s] >= 0) b[scales[s] + 1] = (uint8_t)((random_byte() & 0x80) | (tiny ? 0 : 0x1c + random_byte() % 12));
  }
  return w;
}

enum { ALONG_ROWS = 1, IN_BF16 = 4, HAS_BASE = 8 };
static void test_held(int type, int64_t m, int64_t n, int64_t k, uint32_t flags, int tiny, double bound) {
  int64_t block;
  const int64_t bytes = sizes(type, &block), in = flags & ALONG_ROWS ? n : k, out = flags & ALONG_ROWS ? k : n;
  Tensor *a = f32(in, m, 1, 1), *w = blocks(type, k, n, tiny), *base = f32(out, m, 1, 1), *dst = f32(out, m, 1, 1);
  Tensor *sources[] = {a, w, base};
  double *value = doubles(n * k), *wanted = doubles(out * m), terms = 1e-60;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < k; j++)
      value[i * k + j] = element(type, (const uint8_t *)w->data + i * (int64_t)w->nb[1] + j / block * bytes, (int)(j % block));
  for (int64_t r = 0; r < m; r++)
    for (int64_t o = 0; o < out; o++) {
      double sum = flags & HAS_BASE ? values(base)[r * out + o] : 0;
      terms += sum * sum;
      for (int64_t i = 0; i < in; i++) {
        const double term = values(a)[r * in + i] * (flags & ALONG_ROWS ? value[i * k + o] : value[o * k + i]);
        sum += term, terms += term * term;
      }
      wanted[r * out + o] = sum;
    }
  run("held_matmul", dst, sources, flags & HAS_BASE ? 3 : 2, flags, 0, NULL);
  check(flags & ALONG_ROWS ? "held_matmul, along rows" : "held_matmul", distance_from(values(dst), wanted, out * m, sqrt(terms)), bound);
  free(value), free(wanted);
  drop(a), drop(w), drop(base), drop(dst);
}

void test_held_products(int rounds) {
  const int types[] = {TYPE_F16, TYPE_Q4_0, TYPE_Q4_1, TYPE_Q5_0, TYPE_Q5_1, TYPE_Q8_0, TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K};
  for (int t = 0; t < 9; t++)
    for (uint32_t flags = 0; flags < 16; flags++) {
      if (flags & 2) continue;
      const double bound = flags & IN_BF16 && rounds ? 8e-3 : 1e-6;
      test_held(types[t], 33, 65, 256, flags, 0, bound), test_held(types[t], 1, 1, 256, flags, 0, bound);
      test_held(types[t], 7, 40, 768, flags, 0, bound), test_held(types[t], 0, 5, 256, flags, 0, bound);
      test_held(types[t], 3, 0, 256, flags, 0, bound), test_held(types[t], 5, 31, 512, flags, 1, bound);
      if (types[t] <= TYPE_Q8_0) test_held(types[t], 15, 33, 96, flags, 0, bound), test_held(types[t], 2, 3, 32, flags, 0, bound);
      if (types[t] == TYPE_Q8_0) test_held(types[t], 2, 70, 8192, flags, 0, bound); // more than one tile
    }
}
