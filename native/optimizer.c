// The sums of gradients, with the squares that clipping needs, and one step of AdamW over a parameter in one sweep of memory.
#ifndef ISA
#include "kernels.h"
#define TEMPLATE "optimizer.c"
#include "variants.h"
#else
#ifndef OPTIMIZER_SETTINGS
#define OPTIMIZER_SETTINGS
enum { SQUARE_SLOTS = 64 }; // partial sums, whatever the number of threads
enum { ADAMW_RANGE = 4096 };
enum { LANES = 16 };        // sums of squares at a time, the same on every processor
#endif

// In place on the parameter, which is the first source: there is no scratch here. Then: gradient, first and second moments,
// settings [rate, beta1, beta2, eps, decay, 1 / (1 - beta1^t), 1 / (1 - beta2^t)], factor on the gradient [1].
static void NAME(adamw)(Tensor *dst, int ith, int nth, void *userdata) {
  (void)userdata;
  const int64_t n = size_of(dst), from = part(n, ADAMW_RANGE, ith, nth), until = part(n, ADAMW_RANGE, ith + 1, nth);
  const float *settings = source(dst, 4), clip = source(dst, 5)[0];
  const float rate = settings[0], beta1 = settings[1], beta2 = settings[2], eps = settings[3];
  const float kept = 1.f - rate * settings[4], correction1 = settings[5], correction2 = settings[6];
  float *w = (float *)dst->data, *m = source(dst, 2), *v = source(dst, 3);
  const float *gradient = source(dst, 1);
#pragma omp simd
  for (int64_t i = from; i < until; i++) {
    const float g = gradient[i] * clip;
    m[i] = m[i] * beta1 + g * (1.f - beta1);
    v[i] = v[i] * beta2 + g * g * (1.f - beta2);
    w[i] = w[i] * kept - rate * (m[i] * correction1) / (sqrtf(v[i] * correction2) + eps);
  }
}

// In place on a sum of gradients, which is the first source: there is no scratch here. Then: a gradient like it, [1]: 0 where the sum is
// nothing yet, whatever its memory holds, and [SQUARE_SLOTS] to take partial sums of the squares of the new sum, which clipping needs: they
// cost nothing beside reading and writing it.
static void NAME(accumulate)(Tensor *dst, int ith, int nth, void *userdata) {
  (void)userdata;
  const int64_t n = size_of(dst);
  const float *gradient = source(dst, 1);
  const int first = source(dst, 2)[0] == 0;
  float *sum = (float *)dst->data, *squares = dst->src[3] ? source(dst, 3) : NULL;
  for (int64_t slot = SQUARE_SLOTS * ith / nth; slot < SQUARE_SLOTS * (ith + 1) / nth; slot++) {
    const int64_t from = part(n, LANES, slot, SQUARE_SLOTS), until = part(n, LANES, slot + 1, SQUARE_SLOTS);
    double lanes[LANES] = {0}, all = 0; // float64: a gradient has millions of elements
    int64_t i = from;
    for (; i + LANES <= until; i += LANES) {
      float now[LANES];
#pragma GCC unroll 16
      for (int l = 0; l < LANES; l++) now[l] = first ? gradient[i + l] : sum[i + l] + gradient[i + l];
#pragma GCC unroll 16
      for (int l = 0; l < LANES; l++) sum[i + l] = now[l], lanes[l] += (double)now[l] * (double)now[l];
    }
    for (; i < until; i++) {
      sum[i] = first ? gradient[i] : sum[i] + gradient[i];
      lanes[0] += (double)sum[i] * (double)sum[i];
    }
    for (int l = 0; l < LANES; l++) all += lanes[l];
    if (squares) squares[slot] = (float)all;
  }
}

const NamedOp NAME(optimizer_ops)[] = {{"adamw", NAME(adamw)}, {"accumulate", NAME(accumulate)}, {NULL, NULL}};
#endif
