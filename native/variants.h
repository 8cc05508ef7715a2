// Includes TEMPLATE once per instruction set, with ISA (its name), WIDTH (floats in a vector) and TILE_ROWS (rows of the
// register tile of a product) defined. One source, every variant in one library; select.c chooses at run time.
//
// The register tile is TILE_ROWS x 2 vectors: 16 registers hold 6 x 2 accumulators, 32 hold 14 x 2, beside two of B and one of A.
#if defined(__aarch64__)
#define ISA neon
#define WIDTH 4
#define TILE_ROWS 12
#else
#define ISA portable
#define WIDTH 4
#define TILE_ROWS 6
#endif
#include TEMPLATE
#undef ISA
#undef WIDTH
#undef TILE_ROWS

#ifdef X86
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define ISA avx2
#define WIDTH 8
#define TILE_ROWS 6
#include TEMPLATE
#undef ISA
#undef WIDTH
#undef TILE_ROWS
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif
#define ISA avx512
#define WIDTH 16
#define TILE_ROWS 14
#include TEMPLATE
#undef ISA
#undef WIDTH
#undef TILE_ROWS
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
#undef TEMPLATE
