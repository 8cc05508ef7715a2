// The F32 matrix product on AMX: every float is cut into three BF16 parts, which together are the float (8 bits of significand
// each), and six products of parts, summed in F32, are the product. What is left out is below 2^-24 of it. Six times the work
// of a BF16 product, and still several times as fast as the vector units of these processors.
//
// Within a step of 32 along k the order is 0 16 1 17 2 18 ...: a pair, which AMX takes as 32 bits, is then made of two vectors
// without any shuffle. Where a block of A or B holds an infinity or NaN, whose parts would be NaN, its products are plain sums.
// AMX takes denormal BF16 as zero: parts below 2^-126 are lost.
#include "kernels.h"
#ifdef X86
#define ISA split
#define TARGET_WIDE __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
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
  STEP = 32,       // of k: what one AMX product takes
  BLOCK = 32,      // rows and columns of a block of C: two tiles by two
  TILE = 512,      // BF16 in a tile
  PARTS = 3,       // of a float
  STEP_SIZE = PARTS * 2 * TILE, // BF16 of one step of a block of A or B: for each part two tiles
  CHUNK = 9,       // steps that are summed before the next panel of B: so much of A stays in the first-level cache
  AHEAD = 1,       // steps of B that are asked for early
  FEW_ROWS = 64,   // so many need each panel of B but once or twice
  DEEPEST = 768,   // k that is packed at once
  ROW_BLOCK = 96,  // rows of A packed at a time
  B_SIZE = 3 << 18, // BF16 of packed B: most of a second-level cache
  MOST_PANELS = 256,
};
_Static_assert(ROW_BLOCK * DEEPEST * PARTS * 2 <= SCRATCH_A && B_SIZE * 2 <= SCRATCH_B, "packed A and B fit");

#define WIDE_INLINE TARGET_WIDE static inline __attribute__((always_inline))

// n of 16 elements as floats, the others zero; `whole`: all of 16 floats.
WIDE_INLINE __m512i load16(const int whole, const void *data, int type, int64_t offset, int64_t n) {
  if (whole) return _mm512_loadu_si512((const float *)data + offset);
  const __mmask16 mask = n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
  if (type == TYPE_F32) return (__m512i)_mm512_maskz_loadu_ps(mask, (const float *)data + offset);
  return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, (const bf16 *)data + offset)), 16);
}

// The three parts of floats, each in the upper half of its 32 bits. The differences are exact.
WIDE_INLINE void split(__m512i x, __m512i part[PARTS]) {
  const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
  part[0] = _mm512_and_si512(x, upper);
  const __m512 rest = _mm512_sub_ps((__m512)x, (__m512)part[0]);
  part[1] = _mm512_and_si512((__m512i)rest, upper);
  part[2] = _mm512_and_si512((__m512i)_mm512_sub_ps(rest, (__m512)part[1]), upper);
}
WIDE_INLINE __mmask16 not_finite(__m512i x) {
  return _mm512_cmpge_epu32_mask(_mm512_and_si512(x, _mm512_set1_epi32(0x7fffffff)), _mm512_set1_epi32(0x7f800000));
}

// One step of 16 lines (rows of A, columns of B), `lines` and `k` of them valid, as one tile per part. Elements of a line are
// neighbours (`along_k`) or those of a k are; a tile is [line][pair] for A (`by_line`) and [pair][line] for B. Returns whether
// all is finite.
WIDE_INLINE int pack_tile(const int whole, const int along_k, const int by_line, Matrix source, int64_t offset,
                          int64_t stride, int64_t lines, int64_t k, bf16 *out) {
  __m512i pairs[PARTS][16];
  __mmask16 bad = 0;
#pragma GCC unroll 4
  for (int v = 0; v < 16; v++) {
    __m512i x = _mm512_setzero_si512(), y = x, first[PARTS], second[PARTS];
    if (along_k && (whole || v < lines)) {
      x = load16(whole, source.data, source.type, offset + v * stride, k);
      y = load16(whole, source.data, source.type, offset + v * stride + 16, k - 16);
    } else if (!along_k) {
      if (whole || v < k) x = load16(whole, source.data, source.type, offset + v * stride, lines);
      if (whole || v + 16 < k) y = load16(whole, source.data, source.type, offset + (v + 16) * stride, lines);
    }
    bad |= not_finite(x) | not_finite(y);
    split(x, first);
    split(y, second);
#pragma GCC unroll 3
    for (int p = 0; p < PARTS; p++) {
      const __m512i both = _mm512_or_si512(_mm512_srli_epi32(first[p], 16), second[p]);
      if (along_k == by_line) _mm512_storeu_si512(out + p * 2 * TILE + v * 32, both);
      else pairs[p][v] = both;
    }
  }
  if (along_k != by_line)
    for (int p = 0; p < PARTS; p++) {
      transpose16_split(pairs[p]);
      for (int v = 0; v < 16; v++) _mm512_storeu_si512(out + p * 2 * TILE + v * 32, pairs[p][v]);
    }
  return bad == 0;
}

// `lines` lines from `first` on and k elements of each from k0 on, as [block of 32 lines][step][part][half][tile]; whether each
// block is finite.
WIDE_INLINE void pack(const int by_line, int64_t lines, int64_t k, Matrix source, int64_t first, int64_t k0, bf16 *out,
                      uint8_t *finite) {
  const int64_t line_stride = by_line ? source.row_stride : source.column_stride;
  const int64_t k_stride = by_line ? source.column_stride : source.row_stride, steps = (k + STEP - 1) / STEP;
  for (int64_t l = 0; l < lines; l += BLOCK, out += steps * STEP_SIZE) {
    int good = 1;
    for (int64_t s = 0; s < steps; s++)
      for (int64_t half = 0; half < 2 && l + half * 16 < lines; half++) {
        const int64_t at = first + l + half * 16, left = lines - l - half * 16, k_at = k0 + s * STEP, deep = k - s * STEP;
        const int64_t offset = at * line_stride + k_at * k_stride;
        bf16 *to = out + s * STEP_SIZE + half * TILE;
        const int whole = left >= 16 && deep >= STEP && source.type == TYPE_F32;
        if (k_stride == 1)
          good &= whole ? pack_tile(1, 1, by_line, source, offset, line_stride, 16, STEP, to)
                        : pack_tile(0, 1, by_line, source, offset, line_stride, left, deep, to);
        else
          good &= whole ? pack_tile(1, 0, by_line, source, offset, k_stride, 16, STEP, to)
                        : pack_tile(0, 0, by_line, source, offset, k_stride, left, deep, to);
      }
    finite[l / BLOCK] = (uint8_t)good;
  }
}
TARGET_WIDE static void pack_a(int64_t m, int64_t k, Matrix a, int64_t m0, int64_t k0, bf16 *out, uint8_t *finite) {
  pack(1, m, k, a, m0, k0, out, finite);
}
TARGET_WIDE static void pack_b(int64_t n, int64_t k, Matrix b, int64_t n0, int64_t k0, bf16 *out, uint8_t *finite) {
  pack(0, n, k, b, n0, k0, out, finite);
}

// Asks for a tile, from the second-level cache or, `far`, into it.
INLINE void ahead(const int far, const bf16 *tile) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) {
    if (far) __builtin_prefetch(tile + i * 32, 0, 2);
    else __builtin_prefetch(tile + i * 32);
  }
}

// One block of C over some steps. Tiles 0..3 are C, 4 and 5 a part of A, 6 and 7 one of B. `later`: what of B to ask for in place of
// the next step, `tiles` of it with each step.
TARGET_AMX static inline __attribute__((always_inline)) void block(const int down, const int across, int64_t steps,
                                                                   const bf16 *a, const bf16 *b, const bf16 *later, int tiles,
                                                                   Target c) {
  const int64_t c_bytes = c.stride * 4, base_bytes = c.base_stride * 4;
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
#define LOAD_A(part)                                                                                                   \
  _tile_loadd(4, a + (part) * 2 * TILE, 64);                                                                           \
  if (down > 1) _tile_loadd(5, a + ((part) * 2 + 1) * TILE, 64);
#define LOAD_B(part)                                                                                                   \
  _tile_loadd(6, b + (part) * 2 * TILE, 64);                                                                           \
  if (across > 1) _tile_loadd(7, b + ((part) * 2 + 1) * TILE, 64);
#define MULTIPLY(part)                                                                                                 \
  if (!later) ahead(0, b + AHEAD * STEP_SIZE + (part) * TILE);                                                         \
  else if ((part) < tiles) ahead(1, later + (part) * TILE);                                                            \
  _tile_dpbf16ps(0, 4, 6);                                                                                             \
  if (across > 1) _tile_dpbf16ps(1, 4, 7);                                                                             \
  if (down > 1) _tile_dpbf16ps(2, 5, 6);                                                                               \
  if (down > 1 && across > 1) _tile_dpbf16ps(3, 5, 7);
  for (int64_t s = 0; s < steps; s++, a += STEP_SIZE, b += STEP_SIZE) {
    LOAD_A(0)
    LOAD_B(2)
    MULTIPLY(0)
    LOAD_B(1)
    MULTIPLY(1)
    LOAD_B(0)
    MULTIPLY(2)
    LOAD_A(1)
    MULTIPLY(3)
    LOAD_B(1)
    MULTIPLY(4)
    LOAD_A(2)
    LOAD_B(0)
    MULTIPLY(5)
    if (later) later += tiles * TILE;
  }
#undef LOAD_A
#undef LOAD_B
#undef MULTIPLY
  _tile_stored(0, c.data, c_bytes);
  if (across > 1) _tile_stored(1, c.data + 16, c_bytes);
  if (down > 1) _tile_stored(2, c.data + 16 * c.stride, c_bytes);
  if (down > 1 && across > 1) _tile_stored(3, c.data + 16 * c.stride + 16, c_bytes);
}
TARGET_AMX static void any_block(int down, int across, int64_t steps, const bf16 *a, const bf16 *b, const bf16 *later, int tiles,
                                 Target c) {
  if (down > 1 && across > 1) block(2, 2, steps, a, b, later, tiles, c);
  else if (down > 1) block(2, 1, steps, a, b, later, tiles, c);
  else if (across > 1) block(1, 2, steps, a, b, later, tiles, c);
  else block(1, 1, steps, a, b, later, tiles, c);
}

// Depth of a pass over k. Packed B is [pass][block of 32 columns][step][part][half][tile], then for each pass and block whether it
// is finite.
static int64_t k_block_of(int64_t k) {
  const int64_t passes = max64((k + DEEPEST - 1) / DEEPEST, 1);
  return round_up((k + passes - 1) / passes, STEP);
}
static int64_t parts_bytes(int64_t columns, int64_t k) { return columns * round_up(k, STEP) * PARTS * 2; }
// See PackedBytes and Pack.
int64_t packed_bytes_split(int64_t n, int64_t k) {
  const int64_t columns = round_up(n, BLOCK), k_block = max64(k_block_of(k), 1);
  return round_up(parts_bytes(columns, k) + (k + k_block - 1) / k_block * (columns / BLOCK), 64);
}
TARGET_WIDE void pack_split(int64_t n, int64_t k, Matrix b, int64_t from, int64_t until, char *out) {
  const int64_t k_block = k_block_of(k), columns = round_up(n, BLOCK);
  uint8_t *finite = (uint8_t *)out + parts_bytes(columns, k) + from / BLOCK;
  for (int64_t k0 = 0; k0 < k; k0 += k_block, finite += columns / BLOCK) {
    const int64_t depth = min64(k_block, k - k0);
    pack_b(until - from, depth, b, 0, k0, (bf16 *)out + (k0 * columns + from * round_up(depth, STEP)) * PARTS, finite);
  }
}

// The element of packed B whose parts these blocks hold.
static float joined(const bf16 *block, int64_t k, int64_t column) {
  const bf16 *at = block + k / STEP * STEP_SIZE + column / 16 * TILE + k % 16 * 32 + column % 16 * 2 + k % STEP / 16;
  const float first = from_bf16(at[0]);
  return isfinite(first) ? first + from_bf16(at[2 * TILE]) + from_bf16(at[4 * TILE]) : first;
}
static float element(Matrix x, int64_t row, int64_t column) {
  const int64_t at = row * x.row_stride + column * x.column_stride;
  return x.type == TYPE_F32 ? ((const float *)x.data)[at] : from_bf16(((const bf16 *)x.data)[at]);
}

// A block of C without parts, for what has none.
static void plain_block(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, const bf16 *packed, int64_t m0, int64_t n0, int64_t k0,
                        Target c) {
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      float sum = c.base ? c.base[i * c.base_stride + j] : 0;
      for (int64_t p = 0; p < k; p++)
        sum += element(a, m0 + i, k0 + p) * (b.packed ? joined(packed, p, j) : element(b, k0 + p, n0 + j));
      c.data[i * c.stride + j] = sum;
    }
}

// See Gemm.
TARGET_AMX void gemm_amx_split(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, Target c, char *scratch) {
  bf16 *pa = (bf16 *)scratch, *pb = (bf16 *)packed_b(scratch);
  float *edge = edge_tile(scratch);
  uint8_t finite_a[ROW_BLOCK / BLOCK], finite_here[MOST_PANELS];
  if (m <= 0 || n <= 0) return;
  TileConfig before;
  amx_begin(&before);
  const int64_t k_block = k_block_of(k);
  const int64_t panels = k_block == 0 ? MOST_PANELS : min64(B_SIZE / (PARTS * k_block) / BLOCK, MOST_PANELS);
  const int64_t n_block = panels * BLOCK;
  int64_t k0 = 0;
  do { // once even for k = 0
    const int64_t depth = min64(k_block, k - k0), steps = (depth + STEP - 1) / STEP;
    for (int64_t n0 = 0; n0 < n; n0 += n_block) {
      const int64_t width = min64(n_block, n - n0);
      const bf16 *blocks = pb;
      const uint8_t *finite_b = finite_here;
      if (b.packed) {
        const int64_t column = b.column_stride + n0;
        blocks = (const bf16 *)b.data + (k0 * b.row_stride + column * steps * STEP) * PARTS;
        finite_b = (const uint8_t *)b.data + parts_bytes(b.row_stride, k) + (k0 / max64(k_block, 1) * b.row_stride + column) / BLOCK;
      } else {
        pack_b(width, depth, b, n0, k0, pb, finite_here);
      }
      for (int64_t m0 = 0; m0 < m; m0 += ROW_BLOCK) {
        const int64_t height = min64(ROW_BLOCK, m - m0);
        if (n0 == 0 || m > ROW_BLOCK) pack_a(height, depth, a, m0, k0, pa, finite_a); // else it is still there
        // Blocks of A stay in the first-level cache, and panels of B stream from the second; of few rows, whose B comes from memory,
        // it is read once, and the next panel is asked for meanwhile.
        const int few = m <= FEW_ROWS;
        const int64_t rows = (height + BLOCK - 1) / BLOCK, columns = (width + BLOCK - 1) / BLOCK, chunks = max64((steps + CHUNK - 1) / CHUNK, 1);
        for (int64_t u = 0; u < rows * columns * chunks; u++) {
          const int64_t i = (few ? u % rows : u / (columns * chunks)) * BLOCK, p = few ? u / rows % columns : u % columns, j = p * BLOCK;
          const int64_t s = (few ? u / (rows * columns) : u / columns % chunks) * CHUNK;
          const int64_t down = min64(BLOCK, height - i), across = min64(BLOCK, width - j), now = min64(CHUNK, steps - s);
          float *to = c.data + (m0 + i) * c.stride + n0 + j;
          Target target = {to, c.stride, c.base ? c.base + (m0 + i) * c.base_stride + n0 + j : 0, c.base_stride};
          if (k0 + s > 0) target = (Target){to, c.stride, to, c.stride}; // adds to the steps before
          const bf16 *panel = blocks + (p * steps + s) * STEP_SIZE, *later = NULL;
          if (!finite_a[i / BLOCK] || !finite_b[p]) {
            if (s == 0) plain_block(down, across, depth, a, b, panel, m0 + i, n0 + j, k0, target);
            continue;
          }
          const int tiles = (int)(STEP_SIZE / TILE / rows);
          if (few && p + 1 < columns) later = panel + steps * STEP_SIZE + i / BLOCK * now * tiles * TILE;
          prefetch_next(target.data, target.stride, i, j, height, width, BLOCK);
          const int whole = down % 16 == 0 && across % 16 == 0;
          const Target out = whole ? target : (Target){edge, BLOCK, 0, 0};
          any_block(down > 16 ? 2 : 1, across > 16 ? 2 : 1, now, pa + (i / BLOCK * steps + s) * STEP_SIZE, panel, later, tiles, out);
          if (whole) continue;
          for (int64_t r = 0; r < down; r++)
            for (int64_t x = 0; x < across; x++)
              target.data[r * target.stride + x] = edge[r * BLOCK + x] + (target.base ? target.base[r * target.base_stride + x] : 0);
        }
      }
    }
    k0 += k_block;
  } while (k0 < k);
  amx_end(&before);
}
#else
typedef int this_file_is_not_empty;
#endif
