// Tests of ops that do in one what others do one after another: attention that turns queries and keys as it reads them, over parts of one
// tensor, against the ops "rope" and "attention"; the gate within its products against float64.
#include "check.h"

static double gate_of(double x, int gelu) {
  return gelu ? 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x))) : x / (1 + exp(-x));
}

// `count` heads of each token of `all`, from head `first` on.
static Tensor *heads_of(Tensor *all, int64_t first, int64_t count, int64_t t, int64_t batches) {
  Tensor *view = tensor(TYPE_F32, 1, 1, 1, 1);
  const int64_t d = all->ne[0], extents[4] = {d, count, t, batches};
  memcpy(view->ne, extents, sizeof extents);
  view->nb[0] = 4;
  view->nb[1] = (size_t)d * 4;
  view->nb[2] = all->nb[2];
  view->nb[3] = all->nb[2] * (size_t)t;
  view->data = values(all) + first * d;
  return view;
}
static double distance_of(Tensor *found, const float *wanted, int64_t n) {
  double *exact = doubles(n);
  float *floats = malloc((size_t)n * 4 + 4);
  for (int64_t i = 0; i < n; i++) {
    exact[i] = wanted[i];
    floats[i] = found->type == TYPE_BF16 ? from_bf16(((uint16_t *)found->data)[i]) : values(found)[i];
  }
  const double result = distance(floats, exact, n);
  free(exact), free(floats);
  return result;
}

// Whether an op that has room for it leaves its first `n` floats once more in BF16 after `before` others, and changes none of those.
static void test_halves(const char *name, Tensor *plain, int64_t before, int64_t n, Tensor **sources, int count, uint32_t flags, float value) {
  Tensor *both = f32(before + (n + 1) / 2, 1, 1, 1);
  run(name, both, sources, count, flags, value, NULL);
  int same = memcmp(values(both), plain->data, (size_t)before * 4) == 0;
  const uint16_t *halves = (const uint16_t *)(values(both) + before);
  for (int64_t i = 0; i < n; i++) same = same && halves[i] == to_bf16(values(plain)[i]);
  check(name, same ? 0 : 1, 0);
  drop(both);
}

static void test_halves_of_norm(int64_t d, int64_t n) {
  Tensor *x = f32(d, n, 1, 1), *gain = f32(d, 1, 1, 1), *dy = f32(d, n, 1, 1), *plain = f32((n + 32) * d, 1, 1, 1), *sources[] = {dy, x, gain};
  const float extremes[] = {NAN, INFINITY, 1e-40f, 3.4e38f, -0.f, 1.00390625f};
  for (int64_t i = 0; i < 6 && i * d + i % d < n * d; i++) values(dy)[i * d + i % d] = extremes[i];
  run("rms_norm_back", plain, sources, 3, 0, 1e-5f, NULL);
  test_halves("rms_norm_back", plain, (n + 32) * d, n * d, sources, 3, 0, 1e-5f);
  drop(x), drop(gain), drop(dy), drop(plain);
}

static void test_turning_attention(int64_t d, int64_t heads, int64_t kv_heads, int64_t t, int64_t batches, uint32_t flags) {
  const int64_t all = heads + 2 * kv_heads, n = t * batches, size = d * all * n;
  Tensor *qkv = f32(d, all, n, 1), *table = f32(d, n, 1, 1), *positions = tensor(TYPE_I32, n, 1, 1, 1), *mask = f32(t, t, 1, 1);
  Tensor *turned = f32(d, all, n, 1), *dy = f32(d, heads, t, batches);
  for (int64_t i = 0; i < n; i++) ((int32_t *)positions->data)[i] = (int32_t)(i % t);
  for (int64_t i = 0; i < t * t; i++) values(mask)[i] = i % t <= i / t ? 0 : -INFINITY;
  Tensor *of_table[] = {positions}, *of_rope[] = {qkv, table};
  const float one = 1;
  uint32_t magnitude;
  memcpy(&magnitude, &one, 4);
  run("rope_table", table, of_table, 1, magnitude, 10000, NULL);
  run("rope", turned, of_rope, 2, (uint32_t)(2 * (heads + kv_heads)), 0, NULL);
  const int64_t out_size = d * heads * n + heads * n;
  Tensor *out[2], *back[2], *half = tensor(TYPE_BF16, d, all, n, 1), *wanted = f32(d, all, n, 1);
  for (int fused = 0; fused < 2; fused++) {
    Tensor *from = fused ? qkv : turned, *q = heads_of(from, 0, heads, t, batches), *k = heads_of(from, heads, kv_heads, t, batches);
    Tensor *v = heads_of(from, heads + kv_heads, kv_heads, t, batches);
    out[fused] = f32(out_size, 1, 1, 1);
    back[fused] = f32(d, all, n, 1);
    Tensor *sources[] = {q, k, v, mask, table}, *back_sources[] = {dy, q, k, v, mask, out[fused], table};
    run("attention", out[fused], sources, fused ? 5 : 4, flags, 0.3f, NULL);
    test_halves("attention", out[fused], out_size, d * heads * n, sources, fused ? 5 : 4, flags, 0.3f);
    run("attention_back", back[fused], back_sources, fused ? 7 : 6, flags, 0.3f, NULL);
    if (fused) run("attention_back", half, back_sources, 7, flags, 0.3f, NULL);
    drop(q), drop(k), drop(v);
  }
  Tensor *back_of_rope[] = {back[0], table};
  run("rope", wanted, back_of_rope, 2, 1 | (uint32_t)(2 * (heads + kv_heads)), 0, NULL);
  const double bound = flags ? 2e-2 : 2e-6;
  check("attention that turns", distance_of(out[1], values(out[0]), out_size), bound);
  check("attention_back that turns", distance_of(back[1], values(wanted), size), bound);
  check("attention_back that turns, in bf16", distance_of(half, values(back[1]), size), 4e-3);
  for (int fused = 0; fused < 2; fused++) drop(out[fused]), drop(back[fused]);
  drop(qkv), drop(table), drop(positions), drop(mask), drop(turned), drop(dy), drop(half), drop(wanted);
}

static void test_gated_product(int64_t n, int64_t k, int64_t f, uint32_t gelu, int half) {
  Tensor *x = f32(k, n, 1, 1), *gate = f32(k, f, 1, 1), *up = f32(k, f, 1, 1), *down = f32(f, k, 1, 1), *dz = f32(k, n, 1, 1);
  const int type = half ? TYPE_BF16 : TYPE_F32;
  Tensor *made = tensor(type, 3 * n * f, 1, 1, 1), *alone = tensor(type, f, n, 1, 1), *back = tensor(type, 2 * f, n, 1, 1);
  const uint32_t flags = gelu | (half ? 2u : 0);
  Tensor *sources[] = {x, gate, up};
  run("gated_product", made, sources, 3, flags | 4, 0, NULL);
  run("gated_product", alone, sources, 3, flags, 0, NULL);
  const size_t bytes = (size_t)(n * f) * (half ? 2 : 4);
  check("gated_product, the same without what is kept", memcmp(made->data, alone->data, bytes) ? 1 : 0, 0);
  // Weights packed before.
  const int64_t room = nk_packed_bytes(half, f, k) / 4 + 16;
  Tensor *packed_gate = f32(room, 1, 1, 1), *packed_up = f32(room, 1, 1, 1);
  packed_gate->src[0] = packed_up->src[0] = scratch;
  packed_gate->src[1] = gate, packed_up->src[1] = up;
  const uintptr_t pack_flags = 2 | (half ? 4 : 0);
  ((Op)nk_op("pack"))(packed_gate, 0, 1, (void *)pack_flags);
  ((Op)nk_op("pack"))(packed_up, 0, 1, (void *)pack_flags);
  Tensor *packed_sources[] = {x, packed_gate, packed_up};
  run("gated_product", alone, packed_sources, 3, flags | 8, 0, NULL);
  check("gated_product, packed", memcmp(made->data, alone->data, bytes) ? 1 : 0, 0);
  Tensor *kept = tensor(type, 1, 1, 1, 1);
  kept->ne[0] = 2 * f, kept->ne[1] = n;
  kept->nb[1] = (size_t)(2 * f) * (half ? 2 : 4);
  kept->data = (char *)made->data + bytes;
  Tensor *back_sources[] = {dz, down, kept};
  run("gated_product_back", back, back_sources, 3, flags, 0, NULL);
  double *y = doubles(n * f), *both = doubles(2 * n * f), *slopes = doubles(2 * n * f);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < f; j++) {
      double g = 0, u = 0, dy = 0;
      for (int64_t p = 0; p < k; p++) {
        g += (double)values(x)[i * k + p] * values(gate)[j * k + p];
        u += (double)values(x)[i * k + p] * values(up)[j * k + p];
        dy += (double)values(dz)[i * k + p] * values(down)[p * f + j];
      }
      const double h = 1e-5 * (1 + fabs(g)), slope = (gate_of(g + h, (int)gelu) - gate_of(g - h, (int)gelu)) / (2 * h);
      y[i * f + j] = gate_of(g, (int)gelu) * u;
      both[i * 2 * f + j] = g, both[i * 2 * f + f + j] = u;
      slopes[i * 2 * f + j] = dy * u * slope, slopes[i * 2 * f + f + j] = dy * gate_of(g, (int)gelu);
    }
  const double bound = half ? 2e-2 : 3e-6;
  float *floats = malloc((size_t)(3 * n * f) * 4 + 4);
  for (int64_t i = 0; i < 3 * n * f; i++) floats[i] = half ? from_bf16(((uint16_t *)made->data)[i]) : values(made)[i];
  check("gated_product", distance(floats, y, n * f), bound);
  check("gated_product, what is kept", distance(floats + n * f, both, 2 * n * f), bound);
  for (int64_t i = 0; i < 2 * n * f; i++) floats[i] = half ? from_bf16(((uint16_t *)back->data)[i]) : values(back)[i];
  check("gated_product_back", distance(floats, slopes, 2 * n * f), bound);
  free(floats), free(y), free(both), free(slopes);
  drop(x), drop(gate), drop(up), drop(down), drop(dz), drop(made), drop(alone), drop(back), drop(packed_gate), drop(packed_up), drop(kept);
}

void test_fused(int half) {
  test_halves_of_norm(1, 1), test_halves_of_norm(48, 7), test_halves_of_norm(33, 100);
  for (uint32_t flags = 0; flags < (half ? 2u : 1u); flags++) {
    test_turning_attention(16, 2, 2, 7, 2, flags);
    test_turning_attention(48, 2, 1, 150, 3, flags); // several blocks of queries, grouped
    test_turning_attention(6, 3, 3, 33, 9, flags);   // whole heads as units for one thread, blocks for several
    test_turning_attention(2, 1, 1, 1, 1, flags);
  }
  for (int in_half = 0; in_half <= half; in_half++)
    for (uint32_t gelu = 0; gelu < 2; gelu++) {
      test_gated_product(9, 5, 3, gelu, in_half);
      test_gated_product(70, 33, 100, gelu, in_half);
      test_gated_product(200, 64, 96, gelu, in_half);
      test_gated_product(1, 1, 1, gelu, in_half);
      test_gated_product(0, 8, 4, gelu, in_half);
      test_gated_product(3, 700, 1100, gelu, in_half); // several blocks of columns
    }
}
