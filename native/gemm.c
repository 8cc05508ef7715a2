// The F32 matrix product, one source for every instruction set: B is packed into panels of two vectors, A is read where it
// lies (or packed, where it is transposed), and a register tile of C is summed over a block of k at a time.
#ifndef ISA
#include "kernels.h"
#define TEMPLATE "gemm.c"
#include "variants.h"
#else

#define PANEL (2 * WIDTH) // columns of B in a panel

#ifndef GEMM_BLOCKS
#define GEMM_BLOCKS
enum {
  K_BLOCK = 384,         // k per pass: a panel of B this deep stays in the first-level cache
  B_FLOATS = 1 << 18,    // packed B of one pass: half of a second-level cache
  STRIP = 8,             // tiles of A that are packed together
  K_AHEAD = 6,           // rows to prefetch while packing
  A_PADDING = 16,        // a packed tile is written in whole vectors
};
#endif

typedef float NAME(Vector) __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
#define VECTOR NAME(Vector)

// C[rows, vectors * WIDTH] = base + A[rows, k] panel[k, PANEL]. A is row-major with `stride`, or `packed`: [k][stride].
INLINE void NAME(tile)(const int rows, const int vectors, const int packed, int64_t k, const float *a, int64_t stride,
                       const float *panel, Target c) {
  VECTOR sum[TILE_ROWS][2];
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = (VECTOR){0};
  for (int64_t i = 0; i < k; i++) {
    const VECTOR b0 = *(const VECTOR *)panel;
    const VECTOR b1 = vectors > 1 ? *(const VECTOR *)(panel + WIDTH) : b0;
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
      const float x = packed ? a[r] : a[r * stride];
      sum[r][0] += x * b0;
      if (vectors > 1) sum[r][1] += x * b1;
    }
    panel += PANEL;
    a += packed ? stride : 1;
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) {
      if (c.base) sum[r][v] += *(const VECTOR *)(c.base + r * c.base_stride + v * WIDTH);
      *(VECTOR *)(c.data + r * c.stride + v * WIDTH) = sum[r][v];
    }
}

// One function per height, width and form of the tile, so that its registers are fixed.
typedef void (*NAME(Tile))(int64_t k, const float *a, int64_t stride, const float *panel, Target c);
#define TILE(rows, vectors, packed)                                                                                    \
  static void NAME(JOIN(JOIN(tile, rows), JOIN(vectors, packed)))(int64_t k, const float *a, int64_t stride,           \
                                                                  const float *panel, Target c) {                      \
    NAME(tile)(rows, vectors, packed, k, a, stride, panel, c);                                                         \
  }
#define TILES(rows) TILE(rows, 1, 0) TILE(rows, 1, 1) TILE(rows, 2, 0) TILE(rows, 2, 1)
#define TILE_NAME(rows, vectors, packed) NAME(JOIN(JOIN(tile, rows), JOIN(vectors, packed)))
#define TILE_NAMES(rows) {{TILE_NAME(rows, 1, 0), TILE_NAME(rows, 1, 1)}, {TILE_NAME(rows, 2, 0), TILE_NAME(rows, 2, 1)}}
TILES(1) TILES(2) TILES(3) TILES(4) TILES(5) TILES(6)
#if TILE_ROWS > 6
TILES(7) TILES(8) TILES(9) TILES(10) TILES(11) TILES(12)
#endif
#if TILE_ROWS > 12
TILES(13) TILES(14)
#endif
static const NAME(Tile) NAME(tiles)[TILE_ROWS][2][2] = {
    TILE_NAMES(1), TILE_NAMES(2), TILE_NAMES(3), TILE_NAMES(4), TILE_NAMES(5), TILE_NAMES(6),
#if TILE_ROWS > 6
    TILE_NAMES(7), TILE_NAMES(8), TILE_NAMES(9), TILE_NAMES(10), TILE_NAMES(11), TILE_NAMES(12),
#endif
#if TILE_ROWS > 12
    TILE_NAMES(13), TILE_NAMES(14),
#endif
};
#undef TILE
#undef TILES
#undef TILE_NAME
#undef TILE_NAMES

#if WIDTH == 16
#include "transpose.h"
#endif

// n contiguous elements as floats.
INLINE void NAME(copy_floats)(float *to, const void *from, int64_t offset, int type, int64_t n) {
  if (type == TYPE_F32) {
    memcpy(to, (const float *)from + offset, n * 4);
    return;
  }
  const uint16_t *half = (const uint16_t *)from + offset;
  for (int64_t i = 0; i < n; i++) to[i] = from_bf16(half[i]);
}

// B(k, n) from row k0 and column n0 on, as panels [panel][k][PANEL], the last one filled up with zeros.
static void NAME(pack_b)(int64_t k, int64_t n, Matrix b, int64_t k0, int64_t n0, float *out) {
  const int64_t row = b.row_stride, column = b.column_stride;
  if (column == 1) {
    for (int64_t i = 0; i < k; i++) {
      const int64_t offset = (k0 + i) * row + n0;
      float *to = out + i * PANEL;
      if (b.type == TYPE_F32 && i + K_AHEAD < k)
        for (int64_t x = 0; x < n; x += 16) __builtin_prefetch((const float *)b.data + offset + K_AHEAD * row + x);
      for (int64_t j = 0; j < n; j += PANEL, to += k * PANEL) {
        const int64_t width = min64(PANEL, n - j);
        if (width < PANEL) memset(to, 0, PANEL * 4);
        NAME(copy_floats)(to, b.data, offset + j, b.type, width);
      }
    }
    return;
  }
  for (int64_t j = 0; j < n; j += PANEL, out += k * PANEL) {
    const int64_t width = min64(PANEL, n - j);
    if (width < PANEL) memset(out, 0, k * PANEL * 4);
    int64_t i = 0;
#if WIDTH == 16
    for (; b.type == TYPE_F32 && i + 16 <= k; i += 16)
      for (int64_t half = 0; half < width; half += 16) {
        __m512i r[16];
        const int64_t filled = min64(16, width - half);
        const float *from = (const float *)b.data + (n0 + j + half) * column + k0 + i;
        for (int c = 0; c < 16; c++) r[c] = c < filled ? _mm512_loadu_si512(from + c * column) : _mm512_setzero_si512();
        NAME(transpose16)(r);
        for (int c = 0; c < 16; c++) _mm512_storeu_si512(out + (i + c) * PANEL + half, r[c]);
      }
#endif
    for (; i < k; i += 8)
      for (int64_t c = 0; c < width; c++) {
        const int64_t offset = (n0 + j + c) * column + k0 + i, height = min64(8, k - i);
        float values[8];
        NAME(copy_floats)(values, b.data, offset, b.type, height);
        for (int64_t h = 0; h < height; h++) out[(i + h) * PANEL + c] = values[h];
      }
  }
}

// First row of tile i, of `tiles` of nearly equal height: there is no thin last one.
INLINE int64_t NAME(tile_start)(int64_t m, int64_t i, int64_t tiles) { return m * i / tiles; }

// Tiles [first, last) of a transposed A, each [k][height]: whole rows of the source at a time.
static void NAME(pack_transposed)(int64_t m, int64_t k, Matrix a, int64_t k0, int64_t first, int64_t last, int64_t tiles,
                                  float *out) {
  int64_t starts[STRIP + 1]; // known once: a division for each row of each tile would cost as much as the copy
  for (int64_t t = first; t <= last; t++) starts[t - first] = NAME(tile_start)(m, t, tiles);
  for (int64_t i = 0; i < k; i++) {
    const int64_t offset = (k0 + i) * a.column_stride;
    float *to = out;
    if (a.type == TYPE_F32 && i + K_AHEAD < k)
      for (int64_t x = starts[0]; x < starts[last - first]; x += 16)
        __builtin_prefetch((const float *)a.data + offset + K_AHEAD * a.column_stride + x);
    for (int64_t t = 0; t < last - first; t++) {
      const int64_t start = starts[t], height = starts[t + 1] - start;
      // More than the tile is written where the source has it: the copy then has a fixed length. The next row overwrites it.
      if (a.type == TYPE_F32 && start + A_PADDING <= m)
        memcpy(to + i * height, (const float *)a.data + offset + start, A_PADDING * 4);
      else
        NAME(copy_floats)(to + i * height, a.data, offset + start, a.type, height);
      to += height * k + A_PADDING;
    }
  }
}

// One tile of C against every panel of packed B.
INLINE void NAME(tile_row)(int64_t rows, int64_t n, int64_t k, int packed, const float *a, int64_t stride, const float *next,
                           const float *panels, Target c, float *edge) {
  for (int64_t j = 0; j < n; j += PANEL) {
    const int64_t width = min64(PANEL, n - j);
    const int vectors = width > WIDTH ? 2 : 1;
    Target to = {c.data + j, c.stride, c.base ? c.base + j : 0, c.base_stride};
    for (int64_t r = 0; r < rows; r++) { // C comes from the third-level cache: ask for it before the sums begin
      __builtin_prefetch(to.data + r * to.stride, 1);
      if (PANEL > 16) __builtin_prefetch(to.data + r * to.stride + 16, 1);
      if (to.base) __builtin_prefetch(to.base + r * to.base_stride);
    }
    if (next) { // the next rows of A, a slice per panel
      const int64_t from = k * j / n & ~(int64_t)15, until = k * min64(j + PANEL, n) / n;
      for (int64_t r = 0; r < rows; r++)
        for (int64_t x = from; x < until; x += 16) __builtin_prefetch(next + r * stride + x);
    }
    const NAME(Tile) run = NAME(tiles)[rows - 1][vectors - 1][packed];
    if (width == vectors * WIDTH) {
      run(k, a, stride, panels + j * k, to);
      continue;
    }
    run(k, a, stride, panels + j * k, (Target){edge, PANEL, 0, 0});
    for (int64_t r = 0; r < rows; r++)
      for (int64_t x = 0; x < width; x++)
        to.data[r * to.stride + x] = edge[r * PANEL + x] + (to.base ? to.base[r * to.base_stride + x] : 0);
  }
}

// Depth of a pass over k: packed B is [pass][panel][depth][PANEL].
INLINE int64_t NAME(k_block_of)(int64_t k) {
  const int64_t passes = max64((k + K_BLOCK - 1) / K_BLOCK, 1);
  return (k + passes - 1) / passes;
}
// See PackedBytes and Pack.
int64_t NAME(packed_bytes)(int64_t n, int64_t k) { return round_up(n, UNIT) * k * 4; }
void NAME(pack)(int64_t n, int64_t k, Matrix b, int64_t from, int64_t until, char *out) {
  const int64_t k_block = NAME(k_block_of)(k), columns = round_up(n, UNIT);
  for (int64_t k0 = 0; k0 < k; k0 += k_block) {
    const int64_t depth = min64(k_block, k - k0);
    NAME(pack_b)(depth, until - from, b, k0, 0, (float *)out + k0 * columns + from * depth);
  }
}

// See Gemm.
void NAME(gemm)(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, Target c, char *scratch) {
  float *pa = (float *)scratch, *pb = (float *)packed_b(scratch), *edge = edge_tile(scratch);
  if (m <= 0 || n <= 0) return;
  if (k <= 0) { // a sum over nothing
    for (int64_t r = 0; r < m; r++)
      for (int64_t x = 0; x < n; x++) c.data[r * c.stride + x] = c.base ? c.base[r * c.base_stride + x] : 0;
    return;
  }
  const int64_t k_block = NAME(k_block_of)(k);
  const int64_t n_block = max64(B_FLOATS / k_block / PANEL * PANEL, PANEL);
  const int transposed = a.column_stride != 1;
  // Rows a multiple of 2 KiB apart share sets of the cache: those are copied, too, as is what has to be converted.
  const int copied = !transposed && (a.type != TYPE_F32 || a.row_stride * 4 % 2048 == 0);
  const int64_t copied_stride = k_block + 8, tiles = (m + TILE_ROWS - 1) / TILE_ROWS;
  for (int64_t k0 = 0; k0 < k; k0 += k_block) {
    const int64_t depth = min64(k_block, k - k0);
    for (int64_t n0 = 0; n0 < n; n0 += n_block) {
      const int64_t width = min64(n_block, n - n0);
      const float *panels = pb;
      if (b.packed) panels = (const float *)b.data + k0 * b.row_stride + (b.column_stride + n0) * depth;
      else NAME(pack_b)(depth, width, b, k0, n0, pb);
      for (int64_t first = 0; first < tiles; first += STRIP) {
        const int64_t last = min64(first + STRIP, tiles);
        const int64_t top = NAME(tile_start)(m, first, tiles), bottom = NAME(tile_start)(m, last, tiles);
        if (transposed) NAME(pack_transposed)(m, depth, a, k0, first, last, tiles, pa);
        if (copied)
          for (int64_t r = top; r < bottom; r++)
            NAME(copy_floats)(pa + (r - top) * copied_stride, a.data, r * a.row_stride + k0, a.type, depth);
        const float *tile = pa;
        for (int64_t t = first; t < last; t++) {
          const int64_t start = NAME(tile_start)(m, t, tiles), rows = NAME(tile_start)(m, t + 1, tiles) - start;
          const float *rows_of_a = tile, *next = 0;
          int64_t stride = rows;
          if (copied) {
            rows_of_a = pa + (start - top) * copied_stride;
            stride = copied_stride;
          } else if (!transposed) {
            rows_of_a = (const float *)a.data + start * a.row_stride + k0;
            stride = a.row_stride;
            if (t + 1 < tiles) next = rows_of_a + rows * stride;
          }
          if (transposed) tile += rows * depth + A_PADDING;
          float *to = c.data + start * c.stride + n0;
          Target target = {to, c.stride, c.base ? c.base + start * c.base_stride + n0 : 0, c.base_stride};
          if (k0) target = (Target){to, c.stride, to, c.stride}; // a later pass adds to the earlier ones
          NAME(tile_row)(rows, width, depth, transposed, rows_of_a, stride, next, panels, target, edge);
        }
      }
    }
  }
}
#undef PANEL
#undef VECTOR
#endif
