// The gate of a feed-forward layer, y = f(gate) up, forward and backward: by itself, and in one with the products around it. There,
// a block of gate and up, or of dy, is used while it is in a thread's cache, and what the gradient needs is kept as the products
// read it.
#ifndef ISA
#include "kernels.h"
#define TEMPLATE "feed-forward.c"
#include "variants.h"
#else
#include "vector.h"

#ifndef GATE_SETTINGS
#define GATE_SETTINGS
enum { GELU = 1, IN_BF16 = 2, KEEP = 4, B_PACKED = 8 }; // GELU: its tanh form instead of SiLU
enum { GATED = 256 }; // elements of a gate at a time
enum { GATE_ROWS = 64, GATE_WIDEST = 1024, GATE_PACKED = 3 << 19 }; // of a block; bytes of packed weights beside it: most of a second-level cache
static const float GELU_LINEAR = 1.5957691216057308f, GELU_CUBIC = 0.07135481283f;
#endif

// Both activations are x sigmoid(inner(x)): SiLU with x itself, GELU with 2 sqrt(2/pi) (x + 0.044715 x^3).

// y[from, until) of a gate, some at a time.
INLINE void NAME(gate_range)(int gelu, int64_t from, int64_t until, const float *gate, const float *up, float *y) {
  float s[GATED];
  for (int64_t at = from; at < until; at += GATED, y += GATED) {
    const int64_t n = min64(GATED, until - at);
    const float *x = gate + at, *u = up + at;
    if (gelu) {
#pragma omp simd
      for (int64_t i = 0; i < n; i++) s[i] = x[i] * (GELU_LINEAR + GELU_CUBIC * x[i] * x[i]);
    }
    NAME(sigmoids)(n, gelu ? s : x, s);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * s[i] * u[i];
  }
}

// Sources: scratch, gate, up -> like them, F32 or BF16. Flag: GELU.
static void NAME(gated)(Tensor *dst, int ith, int nth, void *userdata) {
  const int64_t n = size_of(dst);
  const float *gate = source(dst, 1), *up = source(dst, 2);
  const int gelu = (settings_of(userdata).flags & GELU) != 0;
  float block[GATED];
  RANGES_OF_THREAD(n) {
    if (dst->type != TYPE_BF16) {
      NAME(gate_range)(gelu, from, until, gate, up, (float *)dst->data + from);
      continue;
    }
    for (int64_t at = from; at < until; at += GATED) {
      const int64_t end = min64(at + GATED, until);
      NAME(gate_range)(gelu, at, end, gate, up, block);
      uint16_t *half = (uint16_t *)dst->data + at;
      NAME(halve)(end - at, block, half);
    }
  }
}

// dgate and dup of elements [from, until), some at a time.
INLINE void NAME(gate_back_range)(int gelu, int64_t from, int64_t until, const float *dy, const float *gate, const float *up,
                                  float *dgate, float *dup) {
  float s[GATED];
  for (int64_t at = from; at < until; at += GATED, dgate += GATED, dup += GATED) {
    const int64_t n = min64(GATED, until - at);
    const float *x = gate + at, *u = up + at, *dz = dy + at;
    if (gelu) {
      // Beyond 30 the sigmoid is 0 or 1 anyway, and the square of 1e20 would make that 0 NaN.
#pragma omp simd
      for (int64_t i = 0; i < n; i++) {
        const float near = x[i] > 30.f ? 30.f : x[i] < -30.f ? -30.f : x[i];
        s[i] = near * (GELU_LINEAR + GELU_CUBIC * near * near);
      }
      NAME(sigmoids)(n, s, s);
#pragma omp simd
      for (int64_t i = 0; i < n; i++) {
        const float near = x[i] > 30.f ? 30.f : x[i] < -30.f ? -30.f : x[i], slope = GELU_LINEAR + 3.f * GELU_CUBIC * near * near;
        dup[i] = dz[i] * x[i] * s[i];
        dgate[i] = dz[i] * u[i] * (s[i] + x[i] * s[i] * (1.f - s[i]) * slope);
      }
    } else {
      NAME(sigmoids)(n, x, s);
#pragma omp simd
      for (int64_t i = 0; i < n; i++) {
        dup[i] = dz[i] * x[i] * s[i];
        dgate[i] = dz[i] * u[i] * (s[i] + x[i] * s[i] * (1.f - s[i]));
      }
    }
  }
}

// Sources: scratch, dy, gate, up -> dgate | dup, F32 or BF16. Flag: GELU.
static void NAME(gated_back)(Tensor *dst, int ith, int nth, void *userdata) {
  const int64_t n = size_of(dst->src[1]);
  const float *dy = source(dst, 1), *gate = source(dst, 2), *up = source(dst, 3);
  const int gelu = (settings_of(userdata).flags & GELU) != 0;
  float blocks[2][GATED], *dgate = (float *)dst->data;
  uint16_t *half = (uint16_t *)dst->data;
  RANGES_OF_THREAD(n) {
    if (dst->type != TYPE_BF16) {
      NAME(gate_back_range)(gelu, from, until, dy, gate, up, dgate + from, dgate + n + from);
      continue;
    }
    for (int64_t at = from; at < until; at += GATED) {
      const int64_t end = min64(at + GATED, until);
      NAME(gate_back_range)(gelu, at, end, dy, gate, up, blocks[0], blocks[1]);
      NAME(halve)(end - at, blocks[0], half + at);
      NAME(halve)(end - at, blocks[1], half + n + at);
    }
  }
}

// ---- the same within products

#ifndef GATE_BLOCKS
#define GATE_BLOCKS
// How C[n, f] is cut into units: blocks of columns, so wide that `matrices` weights [k, f] stay packed in a thread's cache, and rows.
typedef struct {
  const Product *product;
  int64_t n, f, k, width, across, down;
} Cut;
static Cut cut_of(int64_t n, int64_t f, int64_t k, uint32_t flags, int matrices, int nth) {
  Cut c = {flags & IN_BF16 ? &products.bf16 : &products.f32, n, f, k, 0, 0, 0};
  const int64_t room = max64(GATE_PACKED / max64(matrices * c.product->packed_bytes(UNIT, k), 1), 1);
  c.down = (n + GATE_ROWS - 1) / GATE_ROWS;
  const int64_t needed = max64((4 * nth + c.down - 1) / max64(c.down, 1), 1); // few rows: blocks of columns for all threads
  c.width = min64(min64(room, max64((f + UNIT - 1) / UNIT / needed, 1)) * UNIT, GATE_WIDEST);
  c.across = (f + c.width - 1) / c.width;
  return c;
}

static Matrix row_major(const Tensor *t) {
  return (Matrix){t->data, (int64_t)t->nb[1] / (t->type == TYPE_BF16 ? 2 : 4), 1, t->type, 0};
}
static Matrix transposed(Matrix m) { return (Matrix){m.data, m.column_stride, m.row_stride, m.type, m.packed}; }
static Matrix packed_matrix(const Tensor *t, int64_t columns) { return (Matrix){t->data, round_up(columns, UNIT), 0, TYPE_F32, 1}; }
#endif

// `n` numbers to element `at` of dst.
INLINE void NAME(store_values)(Tensor *dst, int64_t at, int64_t n, const float *x) {
  if (dst->type != TYPE_BF16) {
    memcpy((float *)dst->data + at, x, n * 4);
    return;
  }
  NAME(halve)(n, x, (uint16_t *)dst->data + at);
}
// And from element `at` of x: where they are, or in `buffer`.
INLINE const float *NAME(load_values)(const Tensor *x, int64_t at, int64_t n, float *buffer) {
  if (x->type != TYPE_BF16) return (const float *)x->data + at;
  const uint16_t *half = (const uint16_t *)x->data + at;
  for (int64_t i = 0; i < n; i++) buffer[i] = from_bf16(half[i]);
  return buffer;
}

// y = f(x gateT) (x upT). Sources: scratch, x [k, n], gate and up [k, f] each, F32 or BF16 (B_PACKED: as the op "pack" left them)
// -> y [f, n], with KEEP followed by what the gradient needs, gate | up [2 f, n]; F32, or BF16. Flags: GELU, IN_BF16, KEEP, B_PACKED.
static void NAME(gated_product)(Tensor *dst, int ith, int nth, void *userdata) {
  const uint32_t flags = settings_of(userdata).flags;
  const Tensor *x = dst->src[1], *gate = dst->src[2], *up = dst->src[3];
  const int64_t k = x->ne[0], n = x->ne[1], f = n == 0 ? 0 : size_of(dst) / (n * (flags & KEEP ? 3 : 1));
  const Cut c = cut_of(n, f, k, flags, 2, nth);
  const Matrix rows_of_x = row_major(x);
  const Matrix gates = flags & B_PACKED ? packed_matrix(gate, f) : transposed(row_major(gate));
  const Matrix ups = flags & B_PACKED ? packed_matrix(up, f) : transposed(row_major(up));
  char *scratch = scratch_of(dst, ith);
  float *both = free_scratch(scratch), y[GATED];
  char *packed = (char *)(both + GATE_ROWS * 2 * c.width);
  int64_t ready = -1;
  for EVERY_UNIT(unit, c.across * c.down) {
    const int64_t block = unit / c.down, from = block * c.width, columns = min64(c.width, f - from);
    const int64_t n0 = unit % c.down * GATE_ROWS, rows = min64(GATE_ROWS, n - n0);
    const int64_t beside = round_up(columns, UNIT); // the block of up begins there
    const Matrix a = from_row(rows_of_x, n0), of_gate = from_column(gates, from), of_up = from_column(ups, from);
    if (gates.packed) {
      c.product->multiply(rows, columns, k, a, of_gate, (Target){both, 2 * c.width, 0, 0}, scratch);
      c.product->multiply(rows, columns, k, a, of_up, (Target){both + beside, 2 * c.width, 0, 0}, scratch);
    } else {
      if (ready != block) {
        c.product->pack(beside + columns, k, of_gate, 0, columns, packed);
        c.product->pack(beside + columns, k, of_up, beside, beside + columns, packed);
        ready = block;
      }
      const Matrix panels = {packed, beside + round_up(columns, UNIT), 0, TYPE_F32, 1};
      c.product->multiply(rows, beside + columns, k, a, panels, (Target){both, 2 * c.width, 0, 0}, scratch);
    }
    for (int64_t r = 0; r < rows; r++) {
      const float *gate_row = both + r * 2 * c.width, *up_row = gate_row + beside;
      const int64_t at = (n0 + r) * f + from, kept = n * f + (n0 + r) * 2 * f + from;
      for (int64_t j = 0; j < columns; j += GATED) {
        const int64_t some = min64(GATED, columns - j);
        NAME(gate_range)((flags & GELU) != 0, 0, some, gate_row + j, up_row + j, y);
        NAME(store_values)(dst, at + j, some, y);
      }
      if (!(flags & KEEP)) continue;
      NAME(store_values)(dst, kept, columns, gate_row);
      NAME(store_values)(dst, kept + f, columns, up_row);
    }
  }
}

// Its gradient through the layer's last product: with dy = dz down, dgate | dup [2 f, n], F32 or BF16. Sources: scratch, dz [k, n], down
// [f, k], gate | up [2 f, n] as they were kept. Flags: GELU, IN_BF16.
static void NAME(gated_product_back)(Tensor *dst, int ith, int nth, void *userdata) {
  const uint32_t flags = settings_of(userdata).flags;
  const Tensor *dz = dst->src[1], *down = dst->src[2], *kept = dst->src[3];
  const int64_t k = dz->ne[0], n = dz->ne[1], f = down->ne[0];
  const Cut c = cut_of(n, f, k, flags, 1, nth);
  const Matrix rows_of_dz = row_major(dz), weight = row_major(down);
  char *scratch = scratch_of(dst, ith);
  float *dy = free_scratch(scratch), buffers[4][GATED];
  char *packed = (char *)(dy + GATE_ROWS * c.width);
  int64_t ready = -1;
  for EVERY_UNIT(unit, c.across * c.down) {
    const int64_t block = unit / c.down, from = block * c.width, columns = min64(c.width, f - from);
    const int64_t n0 = unit % c.down * GATE_ROWS, rows = min64(GATE_ROWS, n - n0);
    if (ready != block) c.product->pack(columns, k, from_column(weight, from), 0, columns, packed);
    ready = block;
    const Matrix panels = {packed, round_up(columns, UNIT), 0, TYPE_F32, 1};
    c.product->multiply(rows, columns, k, from_row(rows_of_dz, n0), panels, (Target){dy, c.width, 0, 0}, scratch);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t j = 0; j < columns; j += GATED) {
        const int64_t some = min64(GATED, columns - j), at = (n0 + r) * 2 * f + from + j;
        const float *gate = NAME(load_values)(kept, at, some, buffers[0]), *up = NAME(load_values)(kept, at + f, some, buffers[1]);
        NAME(gate_back_range)((flags & GELU) != 0, 0, some, dy + r * c.width + j, gate, up, buffers[2], buffers[3]);
        NAME(store_values)(dst, at, some, buffers[2]);
        NAME(store_values)(dst, at + f, some, buffers[3]);
      }
  }
}

const NamedOp NAME(feed_forward_ops)[] = {{"gated", NAME(gated)},
                                          {"gated_back", NAME(gated_back)},
                                          {"gated_product", NAME(gated_product)},
                                          {"gated_product_back", NAME(gated_product_back)},
                                          {NULL, NULL}};
#endif
