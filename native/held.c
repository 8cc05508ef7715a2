// Products with a matrix that is held in blocks or half precision (Q8_0, Q4_K, ...): a tile of it at a time is made F32 in the
// scratch of the thread that multiplies with it, and nothing of the whole matrix' size is ever written. Forward (x WT) and the
// gradient of x (dy W); the matrix itself is frozen. The layouts of blocks are those of GGUF files.
#ifndef ISA
#include "kernels.h"
#define TEMPLATE "held.c"
#include "variants.h"
#else

#ifndef HELD_SETTINGS
#define HELD_SETTINGS
enum { ALONG_ROWS = 1, HELD_IN_BF16 = 4, HELD_HAS_BASE = 8, HELD_A_HOLDS_BF16 = 16 };
enum { PIECE = 32 };                // values that are unpacked together: every block has a multiple of it
enum { TILE_FLOATS = 1 << 18 };     // of an unpacked tile: half of a second-level cache
enum { LEAST_ROWS = 32 };           // of a tile; SCRATCH_FREE has room for so many of 32,000 values

// Bytes of a block, and its values; 0: not a type that is held.
static int64_t block_bytes(int type, int64_t *of) {
  *of = type == TYPE_Q4_K || type == TYPE_Q5_K || type == TYPE_Q6_K ? 256 : 32;
  switch (type) {
  case TYPE_F16: return 64;
  case TYPE_Q4_0: return 18;
  case TYPE_Q4_1: return 20;
  case TYPE_Q5_0: return 22;
  case TYPE_Q5_1: return 24;
  case TYPE_Q8_0: return 34;
  case TYPE_Q4_K: return 144;
  case TYPE_Q5_K: return 176;
  case TYPE_Q6_K: return 210;
  default: return 0;
  }
}

INLINE float half_at(const uint8_t *bytes) {
  uint16_t h;
  memcpy(&h, bytes, 2);
  return from_f16(h);
}

// Scale and minimum of sub-block j of 8, six bits each in twelve bytes: those of the last four are in the spare upper bits.
INLINE void scale_and_minimum(int j, const uint8_t *s, float *scale, float *minimum) {
  const int low = j < 4;
  *scale = (float)(low ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4);
  *minimum = (float)(low ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4);
}
#endif

// PIECE values of a block, of a large one the `piece`-th, as floats.
INLINE void NAME(unpack_q8_0)(const uint8_t *b, float *y) {
  const float d = half_at(b);
  const int8_t *q = (const int8_t *)b + 2;
  for (int j = 0; j < 32; j++) y[j] = (float)q[j] * d;
}
INLINE void NAME(unpack_q4)(const uint8_t *q, float d, float offset, float *y) { // low nibbles, then high ones
  for (int j = 0; j < 16; j++) y[j] = (float)(q[j] & 15) * d + offset;
  for (int j = 0; j < 16; j++) y[j + 16] = (float)(q[j] >> 4) * d + offset;
}
INLINE void NAME(unpack_q5)(const uint8_t *high, const uint8_t *q, int offset, float d, float m, float *y) {
  uint32_t bits;
  memcpy(&bits, high, 4);
  for (int j = 0; j < 16; j++) y[j] = (float)((int)((q[j] & 15u) | (bits >> j & 1) << 4) - offset) * d + m;
  for (int j = 0; j < 16; j++) y[j + 16] = (float)((int)((uint32_t)(q[j] >> 4) | (bits >> (j + 16) & 1) << 4) - offset) * d + m;
}
INLINE void NAME(unpack_q4_k)(const uint8_t *b, int piece, float *y) {
  float scale, minimum;
  scale_and_minimum(piece, b + 4, &scale, &minimum);
  const float d = half_at(b) * scale, m = half_at(b + 2) * minimum;
  const uint8_t *q = b + 16 + piece / 2 * 32;
  const int shift = piece % 2 * 4;
  for (int j = 0; j < 32; j++) y[j] = d * (float)(q[j] >> shift & 15) - m;
}
INLINE void NAME(unpack_q5_k)(const uint8_t *b, int piece, float *y) {
  float scale, minimum;
  scale_and_minimum(piece, b + 4, &scale, &minimum);
  const float d = half_at(b) * scale, m = half_at(b + 2) * minimum;
  const uint8_t *high = b + 16, *q = b + 48 + piece / 2 * 32;
  const int shift = piece % 2 * 4;
  for (int j = 0; j < 32; j++) y[j] = d * (float)((q[j] >> shift & 15) | (high[j] >> piece & 1) << 4) - m;
}
INLINE void NAME(unpack_q6_k)(const uint8_t *b, int piece, float *y) {
  const int quarter = piece % 4; // of 128 values
  const uint8_t *low = b + piece / 4 * 64 + quarter % 2 * 32, *high = b + 128 + piece / 4 * 32;
  const int8_t *scales = (const int8_t *)b + 192 + piece * 2;
  const float d = half_at(b + 208);
  const int nibble = quarter / 2 * 4, pair = quarter * 2;
  for (int half = 0; half < 2; half++) {
    const float scale = d * (float)scales[half];
    for (int j = half * 16; j < half * 16 + 16; j++)
      y[j] = scale * (float)(((low[j] >> nibble & 15) | (high[j] >> pair & 3) << 4) - 32);
  }
}

// A piece of a block of 256; inlined with a constant piece, so that shifts are constants, too.
INLINE void NAME(unpack_k)(const int type, const uint8_t *b, const int piece, float *y) {
  if (type == TYPE_Q4_K) NAME(unpack_q4_k)(b, piece, y);
  else if (type == TYPE_Q5_K) NAME(unpack_q5_k)(b, piece, y);
  else NAME(unpack_q6_k)(b, piece, y);
}
INLINE void NAME(unpack_large)(const int type, const uint8_t *row, int64_t from, int64_t until, float *y) {
  const int64_t bytes = type == TYPE_Q4_K ? 144 : type == TYPE_Q5_K ? 176 : 210;
  int64_t p = from;
  while (p < until) {
    const uint8_t *b = row + p / 8 * bytes;
    if (p % 8 == 0 && p + 8 <= until) {
#pragma GCC unroll 8
      for (int piece = 0; piece < 8; piece++) NAME(unpack_k)(type, b, piece, y + piece * PIECE);
      p += 8, y += 8 * PIECE;
    } else {
      NAME(unpack_k)(type, b, (int)(p % 8), y);
      p++, y += PIECE;
    }
  }
}
INLINE void NAME(unpack_small)(const int type, const uint8_t *b, int64_t pieces, float *y) {
  int64_t of;
  const int64_t bytes = block_bytes(type, &of);
  for (int64_t p = 0; p < pieces; p++, b += bytes, y += PIECE) switch (type) {
    case TYPE_F16:
      for (int j = 0; j < PIECE; j++) y[j] = half_at(b + 2 * j);
      break;
    case TYPE_Q4_0: NAME(unpack_q4)(b + 2, half_at(b), -8 * half_at(b), y); break;
    case TYPE_Q4_1: NAME(unpack_q4)(b + 4, half_at(b), half_at(b + 2), y); break;
    case TYPE_Q5_0: NAME(unpack_q5)(b + 2, b + 6, 16, half_at(b), 0, y); break;
    case TYPE_Q5_1: NAME(unpack_q5)(b + 4, b + 8, 0, half_at(b), half_at(b + 2), y); break;
    default: NAME(unpack_q8_0)(b, y);
    }
}

// Values [from, until) of a row, multiples of PIECE, as floats.
static void NAME(unpack)(int type, const uint8_t *row, int64_t from, int64_t until, float *y) {
  int64_t of;
  const int64_t bytes = block_bytes(type, &of), first = from / PIECE, last = until / PIECE;
  if (type == TYPE_Q4_K) NAME(unpack_large)(TYPE_Q4_K, row, first, last, y);
  else if (type == TYPE_Q5_K) NAME(unpack_large)(TYPE_Q5_K, row, first, last, y);
  else if (type == TYPE_Q6_K) NAME(unpack_large)(TYPE_Q6_K, row, first, last, y);
  else NAME(unpack_small)(type, row + first * bytes, last - first, y);
}

// Sources: scratch, a, W [k, n] of a held type, [base like dst]. a [k, ...] -> dst [n, ...] = a WT; with ALONG_ROWS a [n, ...] -> dst
// [k, ...] = a W. Plus base, if HELD_HAS_BASE. k is a multiple of 32, not above 32,000. Threads share out the columns of dst, so each
// value is unpacked once. HELD_IN_BF16: computed in BF16, where that is faster. HELD_A_HOLDS_BF16: as in products.c.
static void NAME(held_matmul)(Tensor *dst, int ith, int nth, void *userdata) {
  const uint32_t flags = settings_of(userdata).flags;
  const Tensor *a = dst->src[1], *w = dst->src[2];
  const Gemm gemm = flags & HELD_IN_BF16 ? products.bf16.multiply : products.f32.multiply;
  const int a_type = flags & HELD_A_HOLDS_BF16 ? TYPE_BF16 : a->type, along = (flags & ALONG_ROWS) != 0;
  const int64_t k = w->ne[0], n = w->ne[1], m = rows_of(dst), width = dst->ne[0];
  const int64_t a_row = (int64_t)a->nb[1] / (a_type == TYPE_BF16 ? 2 : 4), a_size = a_type == TYPE_BF16 ? 2 : 4;
  const int64_t from = part(width, UNIT, ith, nth), until = part(width, UNIT, ith + 1, nth);
  const int64_t rows = max64(TILE_FLOATS / max64(k, 1) / UNIT * UNIT, LEAST_ROWS); // of W in a tile; of the shape alone
  if (until <= from || m == 0) return;
  float *tile = free_scratch(scratch_of(dst, ith)), *out = (float *)dst->data + from;
  const float *base = flags & HELD_HAS_BASE ? source(dst, 3) + from : NULL;
  const int64_t first = along ? 0 : from, last = along ? n : until, columns = along ? until - from : k;
  if (along && n == 0) gemm(m, columns, 0, (Matrix){a->data, a_row, 1, a_type, 0}, (Matrix){tile, columns, 1, TYPE_F32, 0},
                            (Target){out, width, base, width}, scratch_of(dst, ith));
  for (int64_t i = first; i < last; i += rows) {
    const int64_t height = min64(rows, last - i);
    for (int64_t r = 0; r < height; r++) {
      const uint8_t *row = (const uint8_t *)w->data + (i + r) * (int64_t)w->nb[1];
      NAME(unpack)(w->type, row, along ? from : 0, along ? until : k, tile + r * columns);
    }
    if (along) { // dst += a[:, i...] tile
      const Matrix left = {(const char *)a->data + i * a_size, a_row, 1, a_type, 0};
      const Target to = {out, width, i == 0 ? base : out, width};
      gemm(m, columns, height, left, (Matrix){tile, columns, 1, TYPE_F32, 0}, to, scratch_of(dst, ith));
    } else { // dst[:, i...] = a tileT
      const Target to = {out + i - from, width, base ? base + i - from : NULL, width};
      gemm(m, height, k, (Matrix){a->data, a_row, 1, a_type, 0}, (Matrix){tile, 1, columns, TYPE_F32, 0}, to, scratch_of(dst, ith));
    }
  }
}

const NamedOp NAME(held_ops)[] = {{"held_matmul", NAME(held_matmul)}, {NULL, NULL}};
#endif
