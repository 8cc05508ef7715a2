// The matrix product in BF16 with F32 sums, for the two instruction sets of x86 that have it: AMX (tiles of 16 x 32) and
// AVX512_BF16. Operands are F32 or BF16; F32 is rounded to nearest while it is packed. Elsewhere this file is empty.
#include "kernels.h"
#ifdef X86
#define ISA bf16
#define TARGET_BF16 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define TARGET_AMX __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")))
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#endif
#include "transpose.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#include "amx.h"

typedef uint16_t bf16;
enum {
  DEPTH = 32,         // k is packed in steps of this: what one AMX product takes
  COLUMNS = 32,       // of C in a block: two AMX tiles, two panels of B
  AMX_ROWS = 32,      // of A in a block: two AMX tiles
  VECTOR_ROWS = 14,   // the same for AVX512_BF16: 14 x 2 accumulators
  ROW_BLOCK = 224,    // rows packed at a time, a multiple of both
  FEW_ROWS = 64,      // up to so many, and FEW_DEPTH deep, stay in the first-level cache beside a panel of B
  FEW_DEPTH = 288,
  STEP_BYTES = DEPTH * 16 * 2, // of a panel of B
  ONE_PASS = 512,     // deepest k that is summed in one pass; deeper ones in passes of about LONG_PASS
  LONG_PASS = 288,
  B_BYTES = 1 << 20,  // of packed B in a pass
  SHARED_SETS = 2048, // rows this many bytes apart share sets of the cache
};

// 32 contiguous elements as bf16, the first n of them valid, the rest zero.
TARGET_BF16 static inline __m512i load32(const void *data, int type, int64_t offset, int64_t n) {
  const uint32_t mask = n >= 32 ? 0xffffffffu : n <= 0 ? 0 : (1u << n) - 1;
  if (type == TYPE_BF16) return _mm512_maskz_loadu_epi16(mask, (const bf16 *)data + offset);
  const float *f = (const float *)data + offset;
  if (n >= 32) return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(f + 16), _mm512_loadu_ps(f));
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps((__mmask16)(mask >> 16), f + 16),
                                      _mm512_maskz_loadu_ps((__mmask16)mask, f));
}

// Two rows of up to 32 elements as pairs, one of each: columns 0..15 and 16..31. The second row may be missing.
TARGET_BF16 static inline void load_pairs(const void *data, int type, int64_t first, int64_t second, int both, int64_t n,
                                          __m512i *low, __m512i *high) {
  const __m512i a = load32(data, type, first, n), b = both ? load32(data, type, second, n) : _mm512_setzero_si512();
  const __m512i even = _mm512_unpacklo_epi16(a, b), odd = _mm512_unpackhi_epi16(a, b); // four pairs per 128 bits
  *low = _mm512_permutex2var_epi64(even, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), odd);
  *high = _mm512_permutex2var_epi64(even, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), odd);
}

// B(k, n) from row k0 and column n0 on, as panels of 16 columns [panel][k / 2][16][2], in pairs and filled up with zeros: a tile is
// one piece of memory.
TARGET_BF16 static void pack_b(int64_t k, int64_t n, Matrix b, int64_t k0, int64_t n0, bf16 *out) {
  const int64_t depth = round_up(k, DEPTH);
  for (int64_t j = 0; j < n; j += COLUMNS, out += depth * COLUMNS) {
    const int64_t width = min64(COLUMNS, n - j);
    if (b.column_stride == 1) {
      for (int64_t i = 0; i < depth; i += 2) {
        __m512i low = _mm512_setzero_si512(), high = low;
        const int64_t offset = (k0 + i) * b.row_stride + n0 + j;
        if (i < k) load_pairs(b.data, b.type, offset, offset + b.row_stride, i + 1 < k, width, &low, &high);
        _mm512_storeu_si512(out + i * 16, low);
        _mm512_storeu_si512(out + (depth + i) * 16, high);
      }
      continue;
    }
    for (int64_t i = 0; i < depth; i += DEPTH)
      for (int64_t half = 0; half < COLUMNS; half += 16) {
        __m512i r[16];
        for (int c = 0; c < 16; c++) {
          const int64_t offset = (n0 + j + half + c) * b.column_stride + k0 + i;
          r[c] = half + c < width ? load32(b.data, b.type, offset, k - i) : _mm512_setzero_si512();
        }
        transpose16_bf16(r); // a pair is 32 bits
        for (int c = 0; c < 16; c++) _mm512_storeu_si512(out + half * depth + (i + 2 * c) * 16, r[c]);
      }
  }
}

// A(m, k) as rows of `stride` elements, filled up with zeros to multiples of 32 both ways.
TARGET_BF16 static void pack_a(int64_t m, int64_t k, Matrix a, int64_t m0, int64_t k0, bf16 *out, int64_t stride) {
  const int64_t depth = round_up(k, DEPTH), height = round_up(m, AMX_ROWS);
  if (a.column_stride == 1) {
    for (int64_t r = 0; r < height; r++)
      for (int64_t i = 0; i < depth; i += DEPTH) {
        const int64_t offset = (m0 + r) * a.row_stride + k0 + i;
        const __m512i values = r < m ? load32(a.data, a.type, offset, k - i) : _mm512_setzero_si512();
        _mm512_storeu_si512(out + r * stride + i, values);
      }
    return;
  }
  for (int64_t i = 0; i < depth; i += DEPTH)
    for (int64_t r = 0; r < height; r += 32) {
      __m512i upper[16], lower[16];
      for (int p = 0; p < 16; p++) {
        const int64_t row = i + 2 * p, offset = (k0 + row) * a.column_stride + m0 + r;
        upper[p] = lower[p] = _mm512_setzero_si512();
        if (row < k)
          load_pairs(a.data, a.type, offset, offset + a.column_stride, row + 1 < k, m - r, &upper[p], &lower[p]);
      }
      transpose16_bf16(upper);
      transpose16_bf16(lower);
      for (int p = 0; p < 16; p++) {
        _mm512_storeu_si512(out + (r + p) * stride + i, upper[p]);
        _mm512_storeu_si512(out + (r + 16 + p) * stride + i, lower[p]);
      }
    }
}

// One block of C in AVX512_BF16 registers.
TARGET_BF16 static inline __attribute__((always_inline)) void vector_block(const int rows, const int vectors, int64_t depth,
                                                                           const bf16 *a, int64_t stride, const bf16 *b,
                                                                           Target c) {
  __m512 sum[VECTOR_ROWS][2];
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
  for (int64_t i = 0; i < depth; i += 2, b += 32, a += 2) {
    const __m512bh b0 = (__m512bh)_mm512_loadu_si512(b), b1 = (__m512bh)_mm512_loadu_si512(b + depth * 16);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
      int32_t pair;
      memcpy(&pair, a + r * stride, 4);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
      sum[r][0] = _mm512_dpbf16_ps(sum[r][0], x, b0);
      if (vectors > 1) sum[r][1] = _mm512_dpbf16_ps(sum[r][1], x, b1);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) {
      __m512 y = sum[r][v];
      if (c.base) y = _mm512_add_ps(y, _mm512_loadu_ps(c.base + r * c.base_stride + 16 * v));
      _mm512_storeu_ps(c.data + r * c.stride + 16 * v, y);
    }
}
typedef void (*VectorBlock)(int64_t depth, const bf16 *a, int64_t stride, const bf16 *b, Target c);
#define BLOCK(rows)                                                                                                    \
  TARGET_BF16 static void block_##rows##_1(int64_t depth, const bf16 *a, int64_t stride, const bf16 *b, Target c) {    \
    vector_block(rows, 1, depth, a, stride, b, c);                                                                     \
  }                                                                                                                    \
  TARGET_BF16 static void block_##rows##_2(int64_t depth, const bf16 *a, int64_t stride, const bf16 *b, Target c) {    \
    vector_block(rows, 2, depth, a, stride, b, c);                                                                     \
  }
BLOCK(1) BLOCK(2) BLOCK(3) BLOCK(4) BLOCK(5) BLOCK(6) BLOCK(7)
BLOCK(8) BLOCK(9) BLOCK(10) BLOCK(11) BLOCK(12) BLOCK(13) BLOCK(14)
#define BLOCKS(rows) {block_##rows##_1, block_##rows##_2}
static const VectorBlock vector_blocks[VECTOR_ROWS][2] = {BLOCKS(1),  BLOCKS(2),  BLOCKS(3),  BLOCKS(4),  BLOCKS(5),
                                                          BLOCKS(6),  BLOCKS(7),  BLOCKS(8),  BLOCKS(9),  BLOCKS(10),
                                                          BLOCKS(11), BLOCKS(12), BLOCKS(13), BLOCKS(14)};

// One block of C in AMX tiles 0..3; tiles 4 and 5 hold A, 6 and 7 hold B.
TARGET_AMX static inline __attribute__((always_inline)) void amx_block(const int down, const int across, int64_t depth,
                                                                       const bf16 *a, int64_t stride, const bf16 *b,
                                                                       Target c) {
  const int64_t a_bytes = stride * 2, c_bytes = c.stride * 4, base_bytes = c.base_stride * 4;
  const bf16 *a1 = a + 16 * stride;
  float *c1 = c.data + 16 * c.stride;
  if (c.base) {
    const float *base1 = c.base + 16 * c.base_stride;
    _tile_loadd(0, c.base, base_bytes);
    if (across > 1) _tile_loadd(1, c.base + 16, base_bytes);
    if (down > 1) _tile_loadd(2, base1, base_bytes);
    if (down > 1 && across > 1) _tile_loadd(3, base1 + 16, base_bytes);
  } else {
    _tile_zero(0);
    if (across > 1) _tile_zero(1);
    if (down > 1) _tile_zero(2);
    if (down > 1 && across > 1) _tile_zero(3);
  }
  for (int64_t i = 0; i < depth; i += DEPTH) {
    _tile_loadd(4, a + i, a_bytes);
    _tile_loadd(6, b + i * 16, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (across > 1) {
      _tile_loadd(7, b + (depth + i) * 16, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (down > 1) {
      _tile_loadd(5, a1 + i, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if (across > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c.data, c_bytes);
  if (across > 1) _tile_stored(1, c.data + 16, c_bytes);
  if (down > 1) _tile_stored(2, c1, c_bytes);
  if (down > 1 && across > 1) _tile_stored(3, c1 + 16, c_bytes);
}
TARGET_AMX static void amx_any(int down, int across, int64_t depth, const bf16 *a, int64_t stride, const bf16 *b, Target c) {
  if (down > 1 && across > 1) amx_block(2, 2, depth, a, stride, b, c);
  else if (down > 1) amx_block(2, 1, depth, a, stride, b, c);
  else if (across > 1) amx_block(1, 2, depth, a, stride, b, c);
  else amx_block(1, 1, depth, a, stride, b, c);
}

// One block of C, 16 columns and `down` times 16 rows, in AMX tiles 0..3; tile 4 holds B, 5..7 hold A in turn.
TARGET_AMX static inline __attribute__((always_inline)) void amx_column(const int down, int64_t depth, const bf16 *a, int64_t stride,
                                                                        const bf16 *b, Target c, const char *ahead) {
  const int64_t a_bytes = stride * 2, c_bytes = c.stride * 4, base_bytes = c.base_stride * 4, a16 = 16 * stride;
  const int64_t c16 = 16 * c.stride, base16 = 16 * c.base_stride;
  if (c.base) {
    _tile_loadd(0, c.base, base_bytes);
    _tile_loadd(1, c.base + base16, base_bytes);
    _tile_loadd(2, c.base + 2 * base16, base_bytes);
    if (down > 3) _tile_loadd(3, c.base + 3 * base16, base_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    if (down > 3) _tile_zero(3);
  }
  for (int64_t i = 0; i < depth; i += DEPTH, ahead += STEP_BYTES) {
    for (int line = 0; line < STEP_BYTES; line += 64) __builtin_prefetch(ahead + line, 0, 2);
    _tile_loadd(4, b + i * 16, 64);
    _tile_loadd(5, a + i, a_bytes);
    _tile_dpbf16ps(0, 5, 4);
    _tile_loadd(6, a + a16 + i, a_bytes);
    _tile_dpbf16ps(1, 6, 4);
    _tile_loadd(7, a + 2 * a16 + i, a_bytes);
    _tile_dpbf16ps(2, 7, 4);
    if (down > 3) {
      _tile_loadd(5, a + 3 * a16 + i, a_bytes);
      _tile_dpbf16ps(3, 5, 4);
    }
  }
  _tile_stored(0, c.data, c_bytes);
  _tile_stored(1, c.data + c16, c_bytes);
  _tile_stored(2, c.data + 2 * c16, c_bytes);
  if (down > 3) _tile_stored(3, c.data + 3 * c16, c_bytes);
}

// Where a block that hangs over an edge of C goes, begun with what it is added to: sums have one order wherever they stand.
static Target over_edge(int64_t height, int64_t width, float *edge, Target to) {
  for (int64_t y = 0; to.base && y < height; y++)
    for (int64_t x = 0; x < width; x++) edge[y * COLUMNS + x] = to.base[y * to.base_stride + x];
  return (Target){edge, COLUMNS, to.base ? edge : NULL, COLUMNS};
}
static void from_edge(int64_t height, int64_t width, const float *edge, Target to) {
  for (int64_t y = 0; y < height; y++)
    for (int64_t x = 0; x < width; x++) to.data[y * to.stride + x] = edge[y * COLUMNS + x];
}

// As blocks_of, for 33 to FEW_ROWS rows, as generation has them: all rows of A, FEW_DEPTH deep, stay in the first-level cache, and B,
// which comes from memory, is read once, panel by panel, and asked for two panels ahead.
TARGET_AMX static void few_rows(int64_t m, int64_t n, int64_t depth, const bf16 *a, int64_t stride, const bf16 *b, Target c, float *edge) {
  const int64_t passes = (depth + FEW_DEPTH - 1) / FEW_DEPTH, deep = round_up((depth + passes - 1) / passes, DEPTH);
  for (int64_t i = 0; i < depth; i += deep)
    for (int64_t j = 0; j < n; j += 16) {
      const int64_t width = min64(16, n - j), valid = min64(deep, depth - i);
      const bf16 *panel = b + j * depth + i * 16, *ahead = panel;
      if (j + 32 < n) ahead += 32 * depth;
      else if (i + deep < depth) ahead += (j + 32 - round_up(n, 16)) * depth - j * depth + deep * 16;
      Target to = {c.data + j, c.stride, c.base ? c.base + j : NULL, c.base_stride};
      if (i > 0) to.base = to.data, to.base_stride = to.stride; // a later pass adds to the earlier ones
      const int whole = width == 16 && m % 16 == 0;
      const Target out = whole ? to : over_edge(m, width, edge, to);
      for (int64_t r = 0; whole && r < m; r++) __builtin_prefetch(to.data + r * to.stride, 1);
      if (m > 48) amx_column(4, valid, a + i, stride, panel, out, (const char *)ahead);
      else amx_column(3, valid, a + i, stride, panel, out, (const char *)ahead);
      if (!whole) from_edge(m, width, edge, to);
    }
}

// Rows [0, m) of packed A against packed B.
TARGET_BF16 static inline __attribute__((always_inline)) void blocks_of(const int amx, int64_t m, int64_t n, int64_t depth,
                                                                        const bf16 *a, int64_t stride, const bf16 *b,
                                                                        Target c, float *edge) {
  const int64_t step = amx ? AMX_ROWS : VECTOR_ROWS;
  for (int64_t i = 0; i < m; i += step) // rows of A stay in the first-level cache, panels of B stream from the second
    for (int64_t j = 0; j < n; j += COLUMNS) {
      const int64_t height = min64(step, m - i), width = min64(COLUMNS, n - j);
      const int across = width > 16 ? 2 : 1, down = height > 16 ? 2 : 1;
      const bf16 *rows = a + i * stride, *panel = b + j * depth;
      Target to = {c.data + i * c.stride + j, c.stride, c.base ? c.base + i * c.base_stride + j : 0, c.base_stride};
      prefetch_next(to.data, to.stride, i, j, m, n, step);
      const int whole = width % 16 == 0 && (!amx || height % 16 == 0);
      const Target out = whole ? to : over_edge(height, width, edge, to);
      if (amx) amx_any(down, across, depth, rows, stride, panel, out);
      else vector_blocks[height - 1][across - 1](depth, rows, stride, panel, out);
      if (!whole) from_edge(height, width, edge, to);
    }
}

// Depth of a pass over k: packed B is [pass][panel][depth / 2][16][2].
static int64_t k_block_of(int64_t k) {
  const int64_t passes = k <= ONE_PASS ? 1 : (k + LONG_PASS - 1) / LONG_PASS;
  return min64(k, round_up((k + passes - 1) / passes, DEPTH));
}
// See PackedBytes and Pack.
int64_t packed_bytes_bf16(int64_t n, int64_t k) { return round_up(n, UNIT) * round_up(k, DEPTH) * 2; }
TARGET_BF16 void pack_bf16(int64_t n, int64_t k, Matrix b, int64_t from, int64_t until, char *out) {
  const int64_t k_block = k_block_of(k), columns = round_up(n, UNIT);
  for (int64_t k0 = 0; k0 < k; k0 += k_block) {
    const int64_t valid = min64(k_block, k - k0), depth = round_up(valid, DEPTH);
    pack_b(valid, until - from, b, k0, 0, (bf16 *)out + k0 * columns + from * depth);
  }
}

TARGET_BF16 static inline __attribute__((always_inline)) void multiply(const int amx, int64_t m, int64_t n, int64_t k,
                                                                       Matrix a, Matrix b, Target c, char *scratch) {
  bf16 *pa = (bf16 *)scratch, *pb = (bf16 *)packed_b(scratch);
  if (m <= 0 || n <= 0) return;
  const int64_t k_block = k_block_of(k);
  const int64_t n_block = max64(B_BYTES / max64(2 * k_block, 1) / COLUMNS * COLUMNS, COLUMNS);
  int64_t k0 = 0;
  do { // once even for k = 0
    const int64_t valid = min64(k_block, k - k0), depth = round_up(valid, DEPTH), packed_stride = depth + DEPTH;
    for (int64_t n0 = 0; n0 < n; n0 += n_block) {
      const int64_t width = min64(n_block, n - n0);
      const bf16 *panels = pb;
      if (b.packed) panels = (const bf16 *)b.data + k0 * b.row_stride + (b.column_stride + n0) * depth;
      else pack_b(valid, width, b, k0, n0, pb);
      for (int64_t m0 = 0; m0 < m; m0 += ROW_BLOCK) {
        const int64_t height = min64(ROW_BLOCK, m - m0);
        const int in_place = a.type == TYPE_BF16 && a.column_stride == 1 && valid % DEPTH == 0 && height % 16 == 0 &&
                             a.row_stride * 2 % SHARED_SETS != 0;
        const bf16 *rows = (const bf16 *)a.data + m0 * a.row_stride + k0;
        if (!in_place) pack_a(height, valid, a, m0, k0, pa, packed_stride);
        float *to = c.data + m0 * c.stride + n0;
        Target target = {to, c.stride, c.base ? c.base + m0 * c.base_stride + n0 : 0, c.base_stride};
        if (k0) target = (Target){to, c.stride, to, c.stride}; // a later pass adds to the earlier ones
        if (amx && m > AMX_ROWS && m <= FEW_ROWS && depth > 0)
          few_rows(height, width, depth, in_place ? rows : pa, in_place ? a.row_stride : packed_stride, panels, target,
                   edge_tile(scratch));
        else blocks_of(amx, height, width, depth, in_place ? rows : pa, in_place ? a.row_stride : packed_stride, panels, target,
                  edge_tile(scratch));
      }
    }
    k0 += k_block;
  } while (k0 < k);
}

// See Gemm.
TARGET_BF16 void gemm_avx512_bf16(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, Target c, char *scratch) {
  multiply(0, m, n, k, a, b, c, scratch);
}
// See Gemm.
TARGET_AMX void gemm_amx_bf16(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, Target c, char *scratch) {
  TileConfig before;
  amx_begin(&before);
  multiply(1, m, n, k, a, b, c, scratch);
  amx_end(&before);
}
#else
typedef int this_file_is_not_empty;
#endif
