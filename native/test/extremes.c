// Values that break careless code: infinities, NaN, huge, tiny and denormal numbers. A bad row must not touch another one, and what
// F32 can hold must come out right.
#include "check.h"

static const float BAD[] = {INFINITY, -INFINITY, NAN, 3e38f, -3e38f, 1e-44f, -1e-39f, 0.f};
enum { BADS = 8 };

// Runs an op twice, the second time with one row of one source bad, and counts elements of other rows that differ. Rows of dst are
// `out` elements, those of the source `in`; `tolerance` is relative, since an infinity may send a whole tile another way.
typedef struct {
  const char *name;
  Tensor *dst, *bad, **sources;
  int count;
  uint32_t flags;
  float value;
  int64_t rows, in, out, parts; // dst holds `parts` results of rows x out elements, one after the other
  int writes_over;              // the bad source is written over, and is the result that counts
  double tolerance;
} Contained;

static void contained(Contained c) {
  Tensor *result = c.writes_over ? c.bad : c.dst;
  const size_t size = (size_t)(c.rows * c.out * c.parts), given = (size_t)(c.rows * c.in);
  float *clean = malloc(size * 4 + 4), *source = malloc(given * 4 + 4);
  memcpy(source, c.bad->data, given * 4);
  run(c.name, c.dst, c.sources, c.count, c.flags, c.value, c.writes_over ? c.bad : NULL);
  memcpy(clean, result->data, size * 4);
  for (int b = 0; b < BADS; b++) {
    const int64_t row = b * 5 % c.rows;
    memcpy(c.bad->data, source, given * 4);
    for (int64_t j = 0; j < c.in; j += b % 2 ? 1 : 3) values(c.bad)[row * c.in + j] = BAD[b];
    run(c.name, c.dst, c.sources, c.count, c.flags, c.value, c.writes_over ? c.bad : NULL);
    int64_t touched = 0;
    for (int64_t i = 0; i < (int64_t)size; i++) {
      const float x = values(result)[i];
      if (i / c.out % c.rows != row) touched += !(fabs((double)x - clean[i]) <= c.tolerance * (1 + fabs(clean[i])));
    }
    check(c.name, (double)touched, 0);
  }
  memcpy(c.bad->data, source, given * 4);
  free(clean), free(source);
}

static void test_rows(void) {
  enum { D = 37, N = 19 };
  Tensor *x = f32(D, N, 1, 1), *gain = f32(D, 1, 1, 1), *y = f32(D, N, 1, 1), *dy = f32(D, N, 1, 1), *table = f32(D - 1, N, 1, 1);
  Tensor *back = f32(D * N + 32 * D, 1, 1, 1), *both = f32(2 * D * N, 1, 1, 1), *turn = f32(D - 1, 1, N, 1), *turned = f32(D - 1, 1, N, 1);
  Tensor *targets = tensor(TYPE_I32, N, 1, 1, 1), *loss = f32(N, 1, 1, 1), *numbers = f32(2, N, 1, 1), *choice = f32(4, N, 1, 1);
  for (int i = 0; i < N; i++) ((int32_t *)targets->data)[i] = i % D;
  for (int i = 0; i < 2 * N; i++) values(numbers)[i] = i % 2 ? 0 : fabsf(values(numbers)[i]);
  Tensor *norm[] = {x, gain}, *norm_back[] = {dy, x, gain}, *gate[] = {x, dy}, *gate_back[] = {dy, x, y}, *rope[] = {turn, table};
  Tensor *entropy[] = {x, targets}, *choose[] = {x, numbers};
  contained((Contained){"rms_norm", y, x, norm, 2, 0, 1e-5f, N, D, D, 1, 0, 0});
  contained((Contained){"rms_norm_back", back, x, norm_back, 3, 0, 1e-5f, N, D, D, 1, 0, 0});
  for (uint32_t gelu = 0; gelu < 2; gelu++) {
    contained((Contained){"gated", y, x, gate, 2, gelu, 0, N, D, D, 1, 0, 0});
    contained((Contained){"gated_back", both, x, gate_back, 3, gelu, 0, N, D, D, 2, 0, 0});
  }
  contained((Contained){"rope", turned, turn, rope, 2, 0, 0, N, D - 1, D - 1, 1, 0, 0});
  for (int cap = 0; cap < 2; cap++)
    contained((Contained){"cross_entropy", loss, x, entropy, 2, 0, cap ? 5.f : 0.f, N, D, D, 1, 1, 0});
  contained((Contained){"choose_token", choice, x, choose, 2, 0, 0.7f, N, D, 4, 1, 0, 0});
  drop(x), drop(gain), drop(y), drop(dy), drop(table), drop(back), drop(both), drop(turn), drop(turned);
  drop(targets), drop(loss), drop(numbers), drop(choice);
}

// A gate far out: the activation is the number itself or nothing, its derivative 1 or 0.
static void test_far_gates(void) {
  const float at[] = {-3e38f, -1e20f, -1e15f, -200.f, 200.f, 1e15f, 1e20f, 3e38f, 1e-44f};
  Tensor *gate = f32(9, 1, 1, 1), *up = f32(9, 1, 1, 1), *y = f32(9, 1, 1, 1), *dy = f32(9, 1, 1, 1), *back = f32(18, 1, 1, 1);
  Tensor *sources[] = {gate, up}, *back_sources[] = {dy, gate, up};
  for (int i = 0; i < 9; i++) values(gate)[i] = at[i], values(up)[i] = 0.5f, values(dy)[i] = 1;
  for (uint32_t gelu = 0; gelu < 2; gelu++) {
    run("gated", y, sources, 2, gelu, 0, NULL);
    run("gated_back", back, back_sources, 3, gelu, 0, NULL);
    int wrong = 0;
    for (int i = 0; i < 8; i++) {
      wrong += values(y)[i] != (at[i] > 0 ? at[i] * 0.5f : 0);
      wrong += values(back)[i] != (at[i] > 0 ? 0.5f : 0);
      wrong += values(back)[9 + i] != (at[i] > 0 ? at[i] : 0);
    }
    wrong += !(fabsf(values(back)[8] - 0.25f) < 1e-6f); // at nearly 0: a half, times up
    check("gated, far out", wrong, 0);
  }
  drop(gate), drop(up), drop(y), drop(dy), drop(back);
}

static void test_attentions(int bf16) {
  enum { D = 20, T = 33, HEADS = 2, B = 5 };
  Tensor *q = f32(D, HEADS, T, B), *k = f32(D, 1, T, B), *v = f32(D, 1, T, B), *mask = f32(T, T, 1, 1), *dy = f32(D, HEADS, T, B);
  Tensor *out = f32(D * HEADS * T * B + HEADS * T * B, 1, 1, 1), *back = f32(D * HEADS * T * B + 2 * D * T * B, 1, 1, 1);
  Tensor *step = f32(D * HEADS, T, B, 1);
  for (int64_t i = 0; i < T * T; i++) values(mask)[i] = i % T <= i / T ? 0 : -INFINITY;
  Tensor *sources[] = {q, k, v, mask}, *back_sources[] = {dy, q, k, v, mask, out};
  // A row is a sequence: a bad key is its own affair.
  const int64_t size = D * T;
  for (int cap = 0; cap < 2; cap++)
    for (int of = 0; of < 3; of++) {
      const float bound = cap ? 2.f : 0.f;
      uint32_t flags;
      memcpy(&flags, &bound, 4);
      if (bf16) flags |= 1;
      Tensor *bad = sources[of];
      const int64_t in = of == 0 ? size * HEADS : size;
      contained((Contained){"attention", out, bad, sources, 4, flags, 0.3f, B, in, size * HEADS, 1, 0, 0});
      run("attention", out, sources, 4, flags, 0.3f, NULL);
      contained((Contained){"attention_back", back, bad, back_sources, 6, flags, 0.3f, B, in, size * HEADS, 1, 0, 0});
      if (!bf16) contained((Contained){"attention_step", step, bad, sources, 4, flags, 0.3f, B, in, size * HEADS, 1, 0, 0});
    }
  // Scores beyond e^88 either way: the largest takes all.
  for (int64_t i = 0; i < D * HEADS * T * B; i++) values(q)[i] *= 1e18f;
  for (int64_t i = 0; i < D * T * B; i++) values(k)[i] *= 1e18f;
  run("attention", out, sources, 4, (uint32_t)bf16, 0.3f, NULL);
  int64_t wrong = 0;
  for (int64_t i = 0; i < D * HEADS * T * B; i++) wrong += !(fabsf(values(out)[i]) <= 1.001f);
  check("attention, huge scores", (double)wrong, 0);
  drop(q), drop(k), drop(v), drop(mask), drop(dy), drop(out), drop(back), drop(step);
}

// A product at a scale of its own: A of size 2^down, B of size 2^up. The vector units are exact to F32; AMX and AVX512_BF16 take
// BF16 denormals as zero and give none, so that what is below 2^-126 is lost: of every number, and of every sum.
static double product_error(int m, int n, int k, int down, int up, uint32_t flags, int lossy) {
  Tensor *a = f32(k, m, 1, 1), *b = f32(n, k, 1, 1), *dst = f32(n, m, 1, 1), *sources[] = {a, b};
  const double rounding = flags & 4 ? ldexp(1, -8) : ldexp(1, -23), lost = lossy ? ldexp(1, -125) : ldexp(1, -149);
  for (int64_t i = 0; i < m * k; i++) values(a)[i] = ldexpf(values(a)[i], down);
  for (int64_t i = 0; i < k * n; i++) values(b)[i] = ldexpf(values(b)[i], up);
  run("matmul", dst, sources, 2, flags, 0, NULL);
  double worst = 0;
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = 0, size = 0, others = 0;
      for (int64_t p = 0; p < k; p++) {
        const double x = values(a)[i * k + p], y = values(b)[p * n + j];
        sum += x * y, size += fabs(x * y), others += fabs(x) + fabs(y);
      }
      const double allowed = rounding * sqrt((double)k) * size + lost * (others + 6 * k);
      worst = fmax(worst, fabs(values(dst)[i * n + j] - sum) / allowed);
    }
  drop(a), drop(b), drop(dst);
  return worst;
}

void test_extremes(int level) {
  const int half = level == 3 || level == 4;
  test_rows();
  test_far_gates();
  for (int bf16 = 0; bf16 <= half; bf16++) test_attentions(bf16);
  for (uint32_t bf16 = 0; bf16 <= (half ? 4u : 0u); bf16 += 4) {
    const int scales[][2] = {{-149, 120}, {-140, 20}, {-126, 0}, {-110, 100}, {-103, 60}, {-100, -40}, {-60, -70}, {60, 60}, {0, 120}};
    for (int s = 0; s < 9; s++)
      check("matmul, at a scale of its own", product_error(33, 37, 70, scales[s][0], scales[s][1], bf16, level == 4 || bf16), 1);
    enum { M = 40, N = 35, K = 50 };
    Tensor *a = f32(K, M, 1, 1), *b = f32(N, K, 1, 1), *dst = f32(N, M, 1, 1), *sources[] = {a, b};
    contained((Contained){"matmul", dst, a, sources, 2, bf16, 0, M, K, N, 1, 0, 5e-6}); // two orders of summing 50 terms
    drop(a), drop(b), drop(dst);
  }
}
