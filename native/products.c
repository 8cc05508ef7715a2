// The op of the matrix product: from ggml tensors to matrices with strides, and from threads to parts of C. Also the op that
// proves at load that ggml's tensors are laid out as kernels.h says.
#include "kernels.h"

enum { ROWS_TAKEN = 192 };    // of C, by a thread at a time, where B is packed once for all of them
enum { PACKED_ONCE = 3 << 19 }; // bytes of such a B: most of a second-level cache
enum { A_TRANSPOSED = 1, B_TRANSPOSED = 2, IN_BF16 = 4, HAS_BASE = 8, A_HOLDS_BF16 = 16, B_PACKED = 32 };

// A grid of threads over C that packs least: every thread packs its rows of A and, twice as dear, its columns of B.
static void grid(int64_t m, int64_t n, int nth, int *down, int *across) {
  int64_t least = -1;
  for (int d = 1; d <= nth; d++) {
    if (nth % d != 0) continue;
    const int64_t cost = m / d + 2 * n / (nth / d);
    if (least >= 0 && cost >= least) continue;
    least = cost;
    *down = d;
    *across = nth / d;
  }
}

INLINE char *batch_of(const Tensor *t, int64_t i2, int64_t i3) {
  return (char *)t->data + i2 % t->ne[2] * t->nb[2] + i3 % t->ne[3] * t->nb[3];
}

// Rows [m0, m0 + m) and columns [n0, n0 + n) of C, base + A B.
INLINE void block_of(Gemm gemm, int64_t m0, int64_t m, int64_t n0, int64_t n, int64_t k, Matrix a, Matrix b, Target c, char *scratch) {
  c.data += m0 * c.stride + n0;
  if (c.base) c.base += m0 * c.base_stride + n0;
  gemm(m, n, k, from_row(a, m0), from_column(b, n0), c, scratch);
}

// The product of a dst with many rows, which threads take a few at a time; each packs B once, where it is not.
static void in_units(Tensor *dst, int ith, int nth, const Product *product, int64_t k, Matrix a, Matrix b, Target c) {
  const int64_t m = dst->ne[1], n = dst->ne[0];
  char *scratch = scratch_of(dst, ith), *packed = (char *)free_scratch(scratch);
  if (!b.packed) {
    product->pack(n, k, b, 0, n, packed);
    b = (Matrix){packed, round_up(n, UNIT), 0, TYPE_F32, 1};
  }
  for EVERY_UNIT(unit, (m + ROWS_TAKEN - 1) / ROWS_TAKEN) {
    const int64_t m0 = unit * ROWS_TAKEN;
    block_of(product->multiply, m0, min64(ROWS_TAKEN, m - m0), 0, n, k, a, b, c, scratch);
  }
}

// dst[n, m, ...] = A B (+ base). Sources: scratch, A [k, m] or transposed [m, k], B [n, k] or transposed [k, n], base like dst,
// all in ggml's order (fastest first). A_HOLDS_BF16: A says F32, but each of its rows begins with as many BF16. Leading dimensions of A and B repeat over those of dst.
// B_PACKED: B is what the op "pack" made of it, for this k and n, at the same level and with the same IN_BF16; no batches.
static void matmul(Tensor *dst, int ith, int nth, void *userdata) {
  const uint32_t flags = settings_of(userdata).flags;
  const Tensor *a = dst->src[1], *b = dst->src[2], *base = flags & HAS_BASE ? dst->src[3] : NULL;
  const Product *product = flags & IN_BF16 ? &products.bf16 : &products.f32;
  const int64_t m = dst->ne[1], n = dst->ne[0], k = flags & A_TRANSPOSED ? a->ne[1] : a->ne[0];
  const int a_type = flags & A_HOLDS_BF16 ? TYPE_BF16 : a->type;
  const int64_t a_row = (int64_t)a->nb[1] / (a_type == TYPE_BF16 ? 2 : 4), b_row = (int64_t)b->nb[1] / (b->type == TYPE_BF16 ? 2 : 4);
  Matrix left = {a->data, a_row, 1, a_type, 0}, right = {b->data, b_row, 1, b->type, 0};
  if (flags & A_TRANSPOSED) left.row_stride = 1, left.column_stride = a_row;
  if (flags & B_TRANSPOSED) right.row_stride = 1, right.column_stride = b_row;
  if (flags & B_PACKED) right = (Matrix){b->data, round_up(n, UNIT), 0, TYPE_F32, 1};
  Target to = {(float *)dst->data, (int64_t)dst->nb[1] / 4, base ? (const float *)base->data : NULL, base ? (int64_t)base->nb[1] / 4 : 0};
  const int64_t batches = dst->ne[2] * dst->ne[3];
  if (batches == 1 && !(flags & A_TRANSPOSED) && m >= 8 * ROWS_TAKEN * nth && product->packed_bytes(n, k) <= PACKED_ONCE) {
    in_units(dst, ith, nth, product, k, left, right, to);
    return;
  }
  const int by_batch = batches >= nth; // else all threads share each product
  int down = 1, across = 1;
  if (!by_batch) grid(m, n, nth, &down, &across);
  const int64_t m0 = by_batch ? 0 : part(m, UNIT, ith / across, down), m1 = by_batch ? m : part(m, UNIT, ith / across + 1, down);
  const int64_t n0 = by_batch ? 0 : part(n, UNIT, ith % across, across);
  const int64_t n1 = by_batch ? n : part(n, UNIT, ith % across + 1, across);
  if (m1 <= m0 || n1 <= n0) return;
  const int64_t first = by_batch ? batches * ith / nth : 0, last = by_batch ? batches * (ith + 1) / nth : batches;
  for (int64_t i = first; i < last; i++) {
    const int64_t i2 = i % dst->ne[2], i3 = i / dst->ne[2];
    left.data = batch_of(a, i2, i3);
    if (!right.packed) right.data = batch_of(b, i2, i3);
    to.data = (float *)batch_of(dst, i2, i3);
    if (base) to.base = (const float *)batch_of(base, i2, i3);
    block_of(product->multiply, m0, m1 - m0, n0, n1 - n0, k, left, right, to, scratch_of(dst, ith));
  }
}

// dst: packed B, any type with room for it. Sources: dst, B [n, k] or transposed [k, n]. Flags: B_TRANSPOSED, IN_BF16.
static void pack(Tensor *dst, int ith, int nth, void *userdata) {
  const uint32_t flags = settings_of(userdata).flags;
  const Tensor *b = dst->src[1];
  const int transposed = (flags & B_TRANSPOSED) != 0;
  const int64_t n = b->ne[transposed], k = b->ne[!transposed], from = part(n, UNIT, ith, nth), until = part(n, UNIT, ith + 1, nth);
  const int64_t row = (int64_t)b->nb[1] / (b->type == TYPE_BF16 ? 2 : 4);
  const Matrix matrix = {b->data, transposed ? 1 : row, transposed ? row : 1, b->type, 0};
  const Product *product = flags & IN_BF16 ? &products.bf16 : &products.f32;
  if (until > from) product->pack(n, k, from_column(matrix, from), from, until, (char *)dst->data);
}

// dst[8] = what this file reads of its second source: its four extents and, in elements, its four strides; plus, from the last
// source (a view), its first value and its type. A wrong layout gives other numbers, or the graph has been refused before.
static void layout(Tensor *dst, int ith, int nth, void *userdata) {
  (void)nth;
  if (ith != 0) return;
  const Settings s = settings_of(userdata);
  const Tensor *probe = dst->src[1], *view = dst->src[2];
  float *out = (float *)dst->data;
  for (int i = 0; i < 4; i++) {
    out[i] = (float)probe->ne[i];
    out[4 + i] = (float)(probe->nb[i] / 4);
  }
  out[8] = (float)probe->type;
  out[9] = *(const float *)view->data;
  out[10] = (float)s.flags;
  out[11] = s.value;
}

const NamedOp product_ops[] = {{"matmul", matmul}, {"pack", pack}, {"layout", layout}, {NULL, NULL}};
