// What the C tests of the kernels share: tensors of which each is a block of memory of its own, running an op as 1 to 8 threads
// with NaN in its result and scratch beforehand, and comparing with float64. No kernel is tested here.
#ifndef NLAKIT_CHECK_H
#define NLAKIT_CHECK_H

#include "../kernels.h"
#include <stdio.h>
#include <stdlib.h>

int nk_detect(void);
int nk_select(int level, int fast_bf16);
void *nk_op(const char *name);
int64_t nk_packed_bytes(int bf16, int64_t n, int64_t k);
const char *nk_level_name(int level);
void nk_gemm(int bf16, int64_t m, int64_t n, int64_t k, const void *a, int64_t a_row, int64_t a_column, int a_type, const void *b,
             int64_t b_row, int64_t b_column, int b_type, float *c, int64_t c_stride, const float *base, int64_t base_stride,
             char *scratch);

enum { MOST_THREADS = 8 };
extern int failures, checks;
extern const char *level_name; // of the kernels in use
extern Tensor *scratch;

float uniform(void); // in [-1, 1)

// Counts a check, and prints it where the error is above the bound or NaN.
void check(const char *what, double error, double bound);

// A tensor in ggml's order, fastest extent first; F32 is filled with uniform numbers.
Tensor *tensor(int type, int64_t n0, int64_t n1, int64_t n2, int64_t n3);
Tensor *f32(int64_t n0, int64_t n1, int64_t n2, int64_t n3);
float *values(Tensor *t);
void drop(Tensor *t);
void poison(void *data, size_t bytes); // NaN, as float, as bf16, as index -1

// Runs an op as 1 to 8 threads one after the other (there are no barriers inside), and compares the bytes; before that once in a
// strange state of the thread (rounding, denormals, tile registers), which it must leave as it is. `dst`
// holds the result; for an op that writes over a source, `changed` is that source.
void run(const char *name, Tensor *dst, Tensor **sources, int count, uint32_t flags, float value, Tensor *changed);
// The same for an op whose result is its first source, which is poisoned beforehand: what stays so was not written.
void run_onto(const char *name, Tensor *dst, Tensor **sources, int count, uint32_t flags, float value);

// |found - wanted| / |wanted| in the Euclidean norm; `least` is the smallest size to divide by.
double distance_from(const float *found, const double *wanted, int64_t n, double least);
double distance(const float *found, const double *wanted, int64_t n);
double *doubles(int64_t n); // zeros

// The tests of a file, at the level in use.
void test_decoding(void);
void test_fused(int half);           // whether products in BF16 are
void test_held_products(int rounds); // whether products in BF16 are
void test_extremes(int level);

#endif
