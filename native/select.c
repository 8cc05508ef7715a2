// What the processor can do, which kernels are used, and the functions that the TypeScript side calls. Nothing here runs
// inside a graph but the self-test op.
#include "kernels.h"
#include <stdlib.h>
#ifdef X86
#include <cpuid.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

// Levels of instruction sets, each containing those before it on x86.
enum { PORTABLE = 0, AVX2 = 1, AVX512 = 2, AVX512_BF16 = 3, AMX_BF16 = 4, NEON = 5 };
static const char *const LEVELS[] = {"portable", "avx2", "avx512", "avx512-bf16", "amx-bf16", "neon"};

#define DECLARE_PRODUCT(multiply, suffix)                                                                              \
  void multiply(int64_t, int64_t, int64_t, Matrix, Matrix, Target, char *);                                            \
  int64_t packed_bytes_##suffix(int64_t, int64_t);                                                                     \
  void pack_##suffix(int64_t, int64_t, Matrix, int64_t, int64_t, char *);
#define DECLARE(isa)                                                                                                   \
  DECLARE_PRODUCT(gemm_##isa, isa)                                                                                     \
  extern const NamedOp row_ops_##isa[], attention_ops_##isa[], decode_ops_##isa[], optimizer_ops_##isa[], held_ops_##isa[],               \
      feed_forward_ops_##isa[];
#if defined(__aarch64__)
DECLARE(neon)
#define DEFAULT_ISA neon
#define DEFAULT_LEVEL NEON
#else
DECLARE(portable)
#define DEFAULT_ISA portable
#define DEFAULT_LEVEL PORTABLE
#endif
#ifdef X86
DECLARE(avx2)
DECLARE(avx512)
DECLARE_PRODUCT(gemm_avx512_bf16, bf16)
DECLARE_PRODUCT(gemm_amx_bf16, bf16)
DECLARE_PRODUCT(gemm_amx_split, split)
#endif
extern const NamedOp product_ops[];

#define TABLES(isa) {row_ops_##isa, attention_ops_##isa, decode_ops_##isa, optimizer_ops_##isa, held_ops_##isa, feed_forward_ops_##isa, product_ops}
#define TABLES_OF(isa) TABLES(isa)
#define PRODUCT(multiply, suffix) {multiply, packed_bytes_##suffix, pack_##suffix}
#define PRODUCT_OF_(isa) PRODUCT(gemm_##isa, isa)
#define PRODUCT_OF(isa) PRODUCT_OF_(isa)
enum { TABLE_COUNT = 7 };
static const NamedOp *const default_tables[TABLE_COUNT] = TABLES_OF(DEFAULT_ISA);
#ifdef X86
static const NamedOp *const avx2_tables[TABLE_COUNT] = TABLES_OF(avx2);
static const NamedOp *const avx512_tables[TABLE_COUNT] = TABLES_OF(avx512);
#endif
static const NamedOp *const *tables = default_tables;
Products products = {PRODUCT_OF(DEFAULT_ISA), PRODUCT_OF(DEFAULT_ISA)};

#ifdef X86
static int has(unsigned bits, int bit) { return bits >> bit & 1; }

// Linux hands out the tile registers on demand, once for the process.
static int tiles_granted(void) {
#if defined(__linux__)
  enum { ARCH_PRCTL = 158, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"((long)ARCH_PRCTL), "D"((long)REQUEST_PERMISSION), "S"((long)TILE_DATA)
                   : "rcx", "r11", "memory");
  return result == 0;
#else
  return 0; // not asked for elsewhere: no machine to try it on
#endif
}

static int detect(void) {
  unsigned a, b, c, d, leaf7, c7, d7, extended, low, high;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, 27)) return PORTABLE;
  const int fma = has(c, 12);
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0)); // what the system saves and restores
  if (!__get_cpuid_count(7, 0, &a, &leaf7, &c7, &d7)) return PORTABLE;
  const unsigned subleaves = a;
  if ((low & 0x06) != 0x06 || !fma || !has(leaf7, 5)) return PORTABLE;
  if ((low & 0xe6) != 0xe6 || !has(leaf7, 16) || !has(leaf7, 17) || !has(leaf7, 30) || !has(leaf7, 31)) return AVX2;
  if (subleaves < 1 || !__get_cpuid_count(7, 1, &extended, &b, &c, &d) || !has(extended, 5)) return AVX512;
  if (!has(d7, 22) || !has(d7, 24) || (low >> 17 & 3) != 3 || !tiles_granted()) return AVX512_BF16;
  return AMX_BF16;
}
#else
static int detect(void) { return DEFAULT_LEVEL; }
#endif

// The highest level that this machine has.
EXPORT int nk_detect(void) { return detect(); }
EXPORT const char *nk_level_name(int level) { return level >= 0 && level <= NEON ? LEVELS[level] : "?"; }

// Uses the kernels of a level, and for BF16 the F32 product unless `fast_bf16`. Returns 0 where the machine has not that level.
EXPORT int nk_select(int level, int fast_bf16) {
  const int best = detect();
  if (level != PORTABLE && level != DEFAULT_LEVEL && (level > best || best == NEON)) return 0;
  tables = default_tables;
  products.f32 = products.bf16 = (Product)PRODUCT_OF(DEFAULT_ISA);
#ifdef X86
  if (level >= AVX2) {
    tables = avx2_tables;
    products.f32 = products.bf16 = (Product)PRODUCT_OF(avx2);
  }
  if (level >= AVX512) {
    tables = avx512_tables;
    products.f32 = products.bf16 = (Product)PRODUCT_OF(avx512);
  }
  if (level >= AMX_BF16) products.f32 = products.bf16 = (Product)PRODUCT(gemm_amx_split, split);
  if (fast_bf16 && level >= AVX512_BF16) products.bf16 = (Product)PRODUCT(gemm_avx512_bf16, bf16);
  if (fast_bf16 && level >= AMX_BF16) products.bf16 = (Product)PRODUCT(gemm_amx_bf16, bf16);
#else
  (void)fast_bf16;
#endif
  return 1;
}

// The op of that name at the selected level, or NULL.
EXPORT void *nk_op(const char *name) {
  for (int t = 0; t < TABLE_COUNT; t++)
    for (const NamedOp *op = tables[t]; op->name; op++)
      if (!strcmp(op->name, name)) return (void *)op->run;
  return NULL;
}

EXPORT int64_t nk_tensor_bytes(void) { return (int64_t)sizeof(Tensor); }
EXPORT int64_t nk_scratch_bytes(void) { return SCRATCH_BYTES; }

// C = base + A B, called directly: for tests and for the timing at load. Strides as in Matrix and Target.
EXPORT void nk_gemm(int bf16, int64_t m, int64_t n, int64_t k, const void *a, int64_t a_row, int64_t a_column, int a_type,
                    const void *b, int64_t b_row, int64_t b_column, int b_type, float *c, int64_t c_stride,
                    const float *base, int64_t base_stride, char *scratch) {
  const Matrix left = {a, a_row, a_column, a_type, 0}, right = {b, b_row, b_column, b_type, 0};
  const Target to = {c, c_stride, base, base_stride};
  char *const aligned = (char *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63); // a tile row across two cache lines is half as fast
  (bf16 ? products.bf16 : products.f32).multiply(m, n, k, left, right, to, aligned);
}

// Bytes of B[k, n] as the op "pack" leaves it.
EXPORT int64_t nk_packed_bytes(int bf16, int64_t n, int64_t k) {
  return (bf16 ? products.bf16 : products.f32).packed_bytes(n, k);
}

// The backend buffer that a tensor lies in, for whoever wants to ask for large pages under it.
EXPORT void *nk_buffer_of(const Tensor *tensor) { return tensor->view_src ? tensor->view_src->buffer : tensor->buffer; }

// Makes a view of F32 one of twice as many BF16, which lie where it does; rows stay one after another. ggml has no call for it.
EXPORT void nk_view_bf16(Tensor *view) {
  view->type = TYPE_BF16;
  view->ne[0] *= 2;
  view->nb[0] = 2;
}

// Asks for large pages under a buffer that was not touched yet: fewer misses of the address cache. 0: the system agreed.
EXPORT int nk_large_pages(void *start, int64_t bytes) {
#ifdef __linux__
  const uintptr_t from = ((uintptr_t)start + 4095) & ~(uintptr_t)4095;
  const uintptr_t until = ((uintptr_t)start + (uintptr_t)bytes) & ~(uintptr_t)4095;
  return until > from ? madvise((void *)from, until - from, MADV_HUGEPAGE) : 1;
#else
  (void)start;
  (void)bytes;
  return 1;
#endif
}

