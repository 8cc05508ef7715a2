// What all files of the kernel library share: the part of ggml's tensor layout they rely on, matrices with strides, the scratch
// memory of a thread, and how work is split between threads. No arithmetic is done here.
//
// The kernels run as ggml custom ops: ggml calls `op(dst, ith, nth, userdata)` on every thread of its pool, and waits for all
// of them between two nodes. They hold no state of their own but the choice of instruction set, made once at load.
#ifndef NLAKIT_KERNELS_H
#define NLAKIT_KERNELS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#define X86 1
#include <immintrin.h>
#endif

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#define INLINE static inline __attribute__((always_inline, unused))
#define UNUSED __attribute__((unused))

// A name of this instruction set: NAME(gemm) is gemm_avx2 where ISA is avx2.
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(x) JOIN(x, ISA)

// The layout of ggml_tensor. At load its size is compared with ggml's own, and an op reads every field it uses.
typedef struct Tensor {
  int32_t type;
  void *buffer;
  int64_t ne[4]; // elements of each dimension, fastest first
  size_t nb[4];  // bytes from one to the next
  int32_t op;
  int32_t op_params[16];
  int32_t flags;
  struct Tensor *src[10];
  struct Tensor *view_src;
  size_t view_offs;
  void *data;
  char name[64];
  void *extra;
  char padding[8];
} Tensor;

enum { TYPE_F32 = 0, TYPE_F16 = 1, TYPE_I32 = 26, TYPE_BF16 = 30 }; // ggml's numbers
enum { TYPE_Q4_0 = 2, TYPE_Q4_1 = 3, TYPE_Q5_0 = 6, TYPE_Q5_1 = 7, TYPE_Q8_0 = 8, TYPE_Q4_K = 12, TYPE_Q5_K = 13, TYPE_Q6_K = 14 };

typedef void (*Op)(Tensor *dst, int ith, int nth, void *userdata);
typedef struct {
  const char *name; // NULL ends a list
  Op run;
} NamedOp;

// Element (row, column) of a matrix is at data[row * row_stride + column * column_stride]; one of the strides is 1. A right operand
// may also be `packed`: as a product's own packer left it, with `row_stride` columns in all, of which `column_stride` come before
// the first one wanted (a multiple of 32).
typedef struct {
  const void *data;
  int64_t row_stride, column_stride;
  int type; // TYPE_F32 or TYPE_BF16
  int packed;
} Matrix;

// A matrix from a row on, and from a column on.
INLINE Matrix from_row(Matrix m, int64_t row) {
  m.data = (const char *)m.data + row * m.row_stride * (m.type == TYPE_BF16 ? 2 : 4);
  return m;
}
INLINE Matrix from_column(Matrix m, int64_t column) {
  if (m.packed) m.column_stride += column;
  else m.data = (const char *)m.data + column * m.column_stride * (m.type == TYPE_BF16 ? 2 : 4);
  return m;
}

// Where a product goes: C = base + A B, rows of C and base contiguous; base NULL: zero. They may be the same memory.
typedef struct {
  float *data;
  int64_t stride;
  const float *base;
  int64_t base_stride;
} Target;

// C[m, n] = base + A[m, k] B[k, n]. Sums run over k in an order that depends on k alone.
typedef void (*Gemm)(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, Target c, char *scratch);

// Bytes of a packed B[k, n], and its packer: b, whose first column is column `from` of B, into columns [from, until), both multiples of
// 32 or n.
typedef int64_t (*PackedBytes)(int64_t n, int64_t k);
typedef void (*Pack)(int64_t n, int64_t k, Matrix b, int64_t from, int64_t until, char *out);
typedef struct {
  Gemm multiply;
  PackedBytes packed_bytes;
  Pack pack;
} Product;

// What was chosen at load (select.c). `bf16` is the F32 product where no faster one is there.
typedef struct {
  Product f32, bf16;
} Products;
extern Products products;

// Scratch of a thread: packed A | packed B | a tile of C that hangs over the edge | room for fused ops.
enum { UNIT = 32 }; // C is split, and B packed, on multiples of this: a multiple of every vector, tile and panel
enum {
  SCRATCH_A = 1 << 20,
  SCRATCH_B = 3 << 20,
  SCRATCH_EDGE = 16 << 10,
  SCRATCH_BYTES = 10 << 20,
  SCRATCH_FREE = SCRATCH_BYTES - SCRATCH_A - SCRATCH_B - SCRATCH_EDGE,
};
INLINE char *packed_b(char *scratch) { return scratch + SCRATCH_A; }
INLINE float *edge_tile(char *scratch) { return (float *)(scratch + SCRATCH_A + SCRATCH_B); }
INLINE float *free_scratch(char *scratch) { return (float *)(scratch + SCRATCH_A + SCRATCH_B + SCRATCH_EDGE); }

// Every op's first source is the scratch tensor, SCRATCH_BYTES for each thread and 64 bytes to align.
INLINE char *scratch_of(const Tensor *dst, int ith) {
  const uintptr_t start = ((uintptr_t)dst->src[0]->data + 63) & ~(uintptr_t)63;
  return (char *)start + (size_t)ith * SCRATCH_BYTES;
}

// The userdata pointer is no pointer: its 64 bits are 32 flags and one float.
typedef struct {
  uint32_t flags;
  float value;
} Settings;
INLINE Settings settings_of(void *userdata) {
  const uint64_t bits = (uint64_t)(uintptr_t)userdata;
  const uint32_t high = (uint32_t)(bits >> 32);
  Settings s = {(uint32_t)bits, 0};
  memcpy(&s.value, &high, 4);
  return s;
}

INLINE int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Where part `i` of `parts` begins in n elements, on a multiple of `unit`.
INLINE int64_t part(int64_t n, int64_t unit, int64_t i, int64_t parts) {
  return min64(n, (n + unit - 1) / unit * i / parts * unit);
}

// Work in units: every thread has its share of them in a row, and takes from its front; who is done takes from the backs of the others'
// shares, so that a thread which its neighbours on the machine slow down is not waited for. What a unit computes depends on the
// unit alone. A share is a word of the thread's scratch: whose it is, and the first and the last unit not taken, of SHARE_UNITS at
// most. A word of another op, or of an earlier run (which left no unit), offers nothing; nor does memory that holds no such word.
enum { SHARE_UNITS = 1000, SHARE_BITS = 10, SHARE_MASK = (1 << SHARE_BITS) - 1 };
INLINE uint64_t *share_of(const Tensor *dst, int ith) {
  return (uint64_t *)(scratch_of(dst, ith) + SCRATCH_A + SCRATCH_B + SCRATCH_EDGE - 64);
}
INLINE uint64_t share_word(const Tensor *dst, uint64_t front, uint64_t back) {
  return (uint64_t)(uintptr_t)dst >> 4 << (2 * SHARE_BITS) | front << SHARE_BITS | back;
}
INLINE int begin_share(const Tensor *dst, int ith, int nth, int64_t units) {
  const uint64_t count = (uint64_t)(units * (ith + 1) / nth - units * ith / nth);
  __atomic_store_n(share_of(dst, ith), share_word(dst, 0, count), __ATOMIC_RELAXED);
  return ith;
}
// The next unit of this thread, -1: there is none left. `from`: whose share it takes from, to begin with its own.
INLINE int64_t next_unit(const Tensor *dst, int ith, int nth, int64_t units, int *from) {
  for (;;) {
    uint64_t *share = share_of(dst, *from), word = __atomic_load_n(share, __ATOMIC_RELAXED);
    const uint64_t front = word >> SHARE_BITS & SHARE_MASK, back = word & SHARE_MASK;
    if (word != share_word(dst, front, back) || front >= back) {
      *from = (*from + 1) % nth;
      if (*from == ith) return -1;
      continue;
    }
    const int own = *from == ith;
    const uint64_t rest = own ? share_word(dst, front + 1, back) : share_word(dst, front, back - 1);
    if (__atomic_compare_exchange_n(share, &word, rest, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return units * *from / nth + (int64_t)(own ? front : back - 1);
  }
}
// In groups where there are more than shares have room for.
#define EVERY_UNIT(unit, units)                                                                                        \
  (int64_t grouped = (units) / (SHARE_UNITS * nth) + 1, groups = ((units) + grouped - 1) / grouped, once = 1; once; once = 0) \
    for (int share = begin_share(dst, ith, nth, groups); once >= 0;)                                                   \
      for (int64_t group = once = next_unit(dst, ith, nth, groups, &share), unit = group * grouped;                    \
           group >= 0 && unit < min64((group + 1) * grouped, units); unit++)

enum { RANGE = 4096, ROWS_EACH = 16 }; // elements and rows in a unit of work
enum { UNITS_EACH = 64 };             // units in a thread's share of them at most
// Units of work on n of something, `few` in each, but no more units than a share has.
#define UNITS_OF(n, few) min64(((n) + (few) - 1) / (few), UNITS_EACH *nth)
#define ROWS_OF_THREAD(n)                                                                                              \
  for EVERY_UNIT(unit, UNITS_OF(n, ROWS_EACH))                                                                          \
    for (int64_t i = part(n, 1, unit, UNITS_OF(n, ROWS_EACH)); i < part(n, 1, unit + 1, UNITS_OF(n, ROWS_EACH)); i++)
// Elements [from, until) of n.
#define RANGES_OF_THREAD(n)                                                                                            \
  for EVERY_UNIT(unit, UNITS_OF(n, RANGE))                                                                             \
    for (int64_t from = part(n, RANGE, unit, UNITS_OF(n, RANGE)), until = part(n, RANGE, unit + 1, UNITS_OF(n, RANGE)); \
         from < until; from = until)

INLINE int64_t rows_of(const Tensor *t) { return t->ne[1] * t->ne[2] * t->ne[3]; }
INLINE int64_t size_of(const Tensor *t) { return t->ne[0] * rows_of(t); }
INLINE float *source(const Tensor *dst, int i) { return (float *)dst->src[i]->data; }

INLINE float float_of_bits(uint32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
// To the nearest, ties to even; NaN stays NaN.
INLINE uint16_t to_bf16(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 64 : rounded);
}
// Without branches, for vectors: the exponent's bias is multiplied away, which makes denormals what they are.
INLINE float from_f16(uint16_t h) {
  const uint32_t bits = (uint32_t)(h & 0x7fff) << 13, sign = (uint32_t)(h & 0x8000) << 16;
  float f = float_of_bits(bits) * 5.192296858534828e33f; // 2^112
  uint32_t result;
  memcpy(&result, &f, 4);
  if ((h & 0x7c00) == 0x7c00) result = bits | 0x7f800000; // infinity, NaN
  return float_of_bits(result | sign);
}
INLINE float from_bf16(uint16_t b) { return float_of_bits((uint32_t)b << 16); }

#endif
