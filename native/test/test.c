// The ops of the kernel library, called directly: at every level that this machine has, on ragged sizes, as 1 to 8 threads, with
// NaN in outputs and scratch beforehand, against float64. Built with AddressSanitizer and UBSan by `node native/test/run.mjs`:
// every tensor is a block of its own, so that a read or write beyond it ends the program.
#include "check.h"

static void test_matmul(int64_t m, int64_t n, int64_t k, int64_t batch, uint32_t flags, double bound) {
  Tensor *a = flags & 1 ? f32(m, k, batch, 1) : f32(k, m, batch, 1), *b = flags & 2 ? f32(k, n, batch, 1) : f32(n, k, batch, 1);
  Tensor *base = f32(n, m, batch, 1), *dst = f32(n, m, batch, 1);
  Tensor *sources[] = {a, b, base};
  run("matmul", dst, sources, flags & 8 ? 3 : 2, flags, 0, NULL);
  double *wanted = doubles(m * n * batch), terms = 1e-60; // by their size, since few terms may cancel
  for (int64_t z = 0; z < batch; z++)
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = 0; j < n; j++) {
        double s = flags & 8 ? values(base)[(z * m + i) * n + j] : 0;
        terms += s * s;
        for (int64_t p = 0; p < k; p++) {
          const double left = values(a)[z * m * k + (flags & 1 ? p * m + i : i * k + p)];
          const double term = left * values(b)[z * n * k + (flags & 2 ? j * k + p : p * n + j)];
          s += term, terms += term * term;
        }
        wanted[(z * m + i) * n + j] = s;
      }
  check("matmul", distance_from(values(dst), wanted, m * n * batch, sqrt(terms)), bound);
  free(wanted);
  drop(a), drop(b), drop(base), drop(dst);
}

static void test_norm(int64_t d, int64_t n) {
  const float eps = 1e-5f;
  Tensor *x = f32(d, n, 1, 1), *gain = f32(d, 1, 1, 1), *y = f32(d, n, 1, 1), *dy = f32(d, n, 1, 1), *sum = f32(d, n, 1, 1);
  Tensor *back = f32(n * d + 32 * d, 1, 1, 1), *dgain = f32(d, 1, 1, 1), *sources[] = {x, gain}, *back_sources[] = {dy, x, gain, sum};
  run("rms_norm", y, sources, 2, 0, eps, NULL);
  run("rms_norm_back", back, back_sources, 4, 0, eps, NULL);
  Tensor partial = {.ne = {d, 32, 1, 1}, .data = values(back) + n * d}, *partials[] = {&partial};
  run("sum_rows", dgain, partials, 1, 0, 0, NULL);
  double *wy = doubles(n * d), *wdx = doubles(n * d), *wdg = doubles(d), terms = 0, gain_terms = 0;
  for (int64_t i = 0; i < n; i++) {
    const float *xi = values(x) + i * d, *dyi = values(dy) + i * d, *g = values(gain);
    double square = 0, along = 0;
    for (int64_t j = 0; j < d; j++) square += (double)xi[j] * xi[j], along += (double)dyi[j] * g[j] * xi[j];
    const double r = 1 / sqrt(square / (double)d + eps);
    for (int64_t j = 0; j < d; j++) {
      wy[i * d + j] = xi[j] * r * g[j];
      wdx[i * d + j] = values(sum)[i * d + j] + r * g[j] * dyi[j] - xi[j] * r * r * r / (double)d * along;
      wdg[j] += dyi[j] * xi[j] * r;
      gain_terms += dyi[j] * xi[j] * r * (dyi[j] * xi[j] * r);
      terms += r * g[j] * dyi[j] * (r * g[j] * dyi[j]);
    }
  }
  check("rms_norm", distance(values(y), wy, n * d), 1e-6);
  check("rms_norm_back, dx", distance_from(values(back), wdx, n * d, d == 1 ? sqrt(terms) : 1e-30), 1e-6); // two terms that cancel
  check("rms_norm_back, dgain", distance_from(values(dgain), wdg, d, sqrt(gain_terms) + 1e-30), 2e-6); // few terms may cancel, too
  free(wy), free(wdx), free(wdg);
  drop(x), drop(gain), drop(y), drop(dy), drop(sum), drop(back), drop(dgain);
}

static double activation(double x, int gelu) {
  return gelu ? 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x))) : x / (1 + exp(-x));
}
static void test_gated(int64_t n, float size, uint32_t gelu) {
  Tensor *gate = f32(n, 1, 1, 1), *up = f32(n, 1, 1, 1), *y = f32(n, 1, 1, 1), *dy = f32(n, 1, 1, 1), *back = f32(2 * n, 1, 1, 1);
  for (int64_t i = 0; i < n; i++) values(gate)[i] *= size;
  Tensor *sources[] = {gate, up}, *back_sources[] = {dy, gate, up};
  run("gated", y, sources, 2, gelu, 0, NULL);
  run("gated_back", back, back_sources, 3, gelu, 0, NULL);
  double *wy = doubles(n), *wg = doubles(n), *wu = doubles(n);
  for (int64_t i = 0; i < n; i++) {
    const double x = values(gate)[i], h = 1e-5 * (1 + fabs(x));
    wy[i] = activation(x, (int)gelu) * values(up)[i];
    wu[i] = values(dy)[i] * activation(x, (int)gelu);
    wg[i] = values(dy)[i] * values(up)[i] * (activation(x + h, (int)gelu) - activation(x - h, (int)gelu)) / (2 * h);
  }
  check("gated", distance(values(y), wy, n), 1e-6);
  check("gated_back, up", distance(values(back) + n, wu, n), 1e-6);
  check("gated_back, gate", distance(values(back), wg, n), 2e-6);
  free(wy), free(wg), free(wu);
  drop(gate), drop(up), drop(y), drop(dy), drop(back);
}

static void test_rope(int64_t d, int64_t heads, int64_t n) {
  Tensor *positions = tensor(TYPE_I32, n, 1, 1, 1), *divisors = f32(d / 2, 1, 1, 1), *table = f32(d, n, 1, 1);
  Tensor *x = f32(d, heads, n, 1), *y = f32(d, heads, n, 1), *turned_back = f32(d, heads, n, 1);
  for (int64_t i = 0; i < n; i++) ((int32_t *)positions->data)[i] = (int32_t)(i * 7 % 31);
  for (int64_t i = 0; i < d / 2; i++) values(divisors)[i] = 1 + fabsf(values(divisors)[i]);
  const float magnitude = 1.25f;
  uint32_t bits;
  memcpy(&bits, &magnitude, 4);
  Tensor *t[] = {positions, divisors}, *s[] = {x, table}, *b[] = {y, table};
  run("rope_table", table, t, 2, bits, 10000.f, NULL);
  run("rope", y, s, 2, 0, 0, NULL);
  run("rope", turned_back, b, 2, 1, 0, NULL);
  double *wanted = doubles(d * heads * n), *scaled = doubles(d * heads * n);
  for (int64_t i = 0; i < n; i++)
    for (int64_t h = 0; h < heads; h++)
      for (int64_t j = 0; j < d; j++) {
        const int64_t pair = j % (d / 2), at = (i * heads + h) * d;
        const double angle = (double)(i * 7 % 31) * pow(10000, -2.0 * (double)pair / (double)d) / values(divisors)[pair];
        const double first = values(x)[at + pair], second = values(x)[at + pair + d / 2];
        const double turned = j < d / 2 ? first * cos(angle) - second * sin(angle) : first * sin(angle) + second * cos(angle);
        wanted[at + j] = magnitude * turned;
        scaled[at + j] = (double)values(x)[at + j] * magnitude * magnitude; // there and back again
      }
  check("rope", distance(values(y), wanted, d * heads * n), 2e-6);
  check("rope, inverse", distance(values(turned_back), scaled, d * heads * n), 1e-6);
  free(wanted), free(scaled);
  drop(positions), drop(divisors), drop(table), drop(x), drop(y), drop(turned_back);
}

static void test_cross_entropy(int64_t vocabulary, int64_t n, float size, float cap) {
  Tensor *x = f32(vocabulary, n, 1, 1), *targets = tensor(TYPE_I32, n, 1, 1, 1), *weights = f32(n, 1, 1, 1), *loss = f32(n, 1, 1, 1);
  for (int64_t i = 0; i < n; i++) ((int32_t *)targets->data)[i] = (int32_t)(i * 13 % vocabulary);
  for (int64_t i = 0; i < vocabulary * n; i++) values(x)[i] *= size;
  double *wl = doubles(n), *wg = doubles(n * vocabulary), *row = doubles(vocabulary);
  for (int64_t i = 0; i < n; i++) {
    double most = -1e300, sum = 0;
    for (int64_t j = 0; j < vocabulary; j++) {
      const double logit = values(x)[i * vocabulary + j];
      row[j] = cap > 0 ? cap * tanh(logit / cap) : logit;
    }
    for (int64_t j = 0; j < vocabulary; j++) most = row[j] > most ? row[j] : most;
    for (int64_t j = 0; j < vocabulary; j++) sum += exp(row[j] - most);
    const int64_t target = i * 13 % vocabulary;
    wl[i] = values(weights)[i] * (most + log(sum) - row[target]);
    for (int64_t j = 0; j < vocabulary; j++) {
      const double slope = cap > 0 ? 1 - row[j] / cap * row[j] / cap : 1;
      wg[i * vocabulary + j] = slope * values(weights)[i] * (exp(row[j] - most) / sum - (j == target));
    }
  }
  Tensor *sources[] = {x, targets, weights}, *again = f32(vocabulary, n, 1, 1), *half_sources[] = {again, targets, weights};
  memcpy(again->data, x->data, (size_t)(n * vocabulary) * 4);
  run("cross_entropy", loss, half_sources, 3, 1, cap, again);
  check("cross_entropy, in bf16", distance(values(loss), wl, n), 1e-6);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = vocabulary - 1; j >= 0; j--) // from the end: a row is spread out over itself
      values(again)[i * vocabulary + j] = from_bf16(((uint16_t *)(values(again) + i * vocabulary))[j]);
  if (vocabulary > 1) check("cross_entropy, gradient in bf16", distance(values(again), wg, n * vocabulary), 5e-3);
  drop(again);
  run("cross_entropy", loss, sources, 3, 0, cap, x);
  check("cross_entropy", distance(values(loss), wl, n), 1e-6);
  if (vocabulary > 1) check("cross_entropy, gradient", distance(values(x), wg, n * vocabulary), 2e-6);
  free(wl), free(wg), free(row);
  drop(x), drop(targets), drop(weights), drop(loss);
}

static void test_soft_cap(int64_t n, float size, float cap) {
  Tensor *x = f32(n, 1, 1, 1), *y = f32(n, 1, 1, 1), *dy = f32(n, 1, 1, 1), *dx = f32(n, 1, 1, 1);
  Tensor *sources[] = {x}, *back_sources[] = {dy, y};
  for (int64_t i = 0; i < n; i++) values(x)[i] *= size;
  run("soft_cap", y, sources, 1, 0, cap, NULL);
  run("soft_cap_back", dx, back_sources, 2, 0, cap, NULL);
  double worst = 0, worst_slope = 0;
  for (int64_t i = 0; i < n; i++) {
    const double t = tanh((double)values(x)[i] / cap);
    worst = fmax(worst, fabs(values(y)[i] - cap * t) / (1e-37 + fabs(cap * t))); // each number by itself: near 0, too
    worst_slope = fmax(worst_slope, fabs(values(dx)[i] - values(dy)[i] * (1 - t * t)));
  }
  check("soft_cap", worst, 4e-7);
  check("soft_cap_back", worst_slope, 1e-6);
  drop(x), drop(y), drop(dy), drop(dx);
}

static void test_gather_back(int64_t d, int64_t rows, int64_t n) {
  Tensor *dy = f32(d, n, 1, 1), *ids = tensor(TYPE_I32, n, 1, 1, 1), *sum = f32(d, rows, 1, 1), *dst = f32(d, rows, 1, 1);
  double *wanted = doubles(d * rows);
  for (int64_t i = 0; i < d * rows; i++) wanted[i] = values(sum)[i];
  for (int64_t i = 0; i < n; i++) {
    const int64_t id = i * i % rows;
    ((int32_t *)ids->data)[i] = (int32_t)id;
    for (int64_t j = 0; j < d; j++) wanted[id * d + j] += values(dy)[i * d + j];
  }
  Tensor *sources[] = {dy, ids, sum};
  run("gather_back", dst, sources, 3, 0, 0, NULL);
  check("gather_back", distance(values(dst), wanted, d * rows), 1e-6);
  free(wanted);
  drop(dy), drop(ids), drop(sum), drop(dst);
}

static void test_adamw(int64_t n) {
  Tensor *w = f32(n, 1, 1, 1), *g = f32(n, 1, 1, 1), *m = f32(n, 1, 1, 1), *v = f32(n, 1, 1, 1), *clip = f32(1, 1, 1, 1);
  Tensor *settings = f32(7, 1, 1, 1);
  const float s[7] = {0.01f, 0.9f, 0.999f, 1e-8f, 0.1f, 10.f, 1000.f};
  memcpy(settings->data, s, sizeof s);
  values(clip)[0] = 0.5f;
  double *wanted = doubles(n);
  for (int64_t i = 0; i < n; i++) {
    values(v)[i] = fabsf(values(v)[i]);
    const double gi = values(g)[i] * 0.5, mi = values(m)[i] * (double)s[1] + gi * (1 - (double)s[1]);
    const double vi = values(v)[i] * (double)s[2] + gi * gi * (1 - (double)s[2]);
    wanted[i] = values(w)[i] * (1 - 0.01 * 0.1) - 0.01 * mi * 10 / (sqrt(vi * 1000) + 1e-8);
  }
  const Op op = (Op)nk_op("adamw");
  w->src[0] = w, w->src[1] = g, w->src[2] = m, w->src[3] = v, w->src[4] = settings, w->src[5] = clip;
  float *start = malloc((size_t)n * 12 + 4), *end = malloc((size_t)n * 4 + 4);
  Tensor *changed[] = {w, m, v};
  for (int i = 0; i < 3; i++) memcpy(start + i * n, changed[i]->data, (size_t)n * 4);
  for (int threads = 1; threads <= MOST_THREADS; threads++) {
    for (int i = 0; i < 3; i++) memcpy(changed[i]->data, start + i * n, (size_t)n * 4);
    for (int i = threads - 1; i >= 0; i--) op(w, i, threads, NULL);
    if (threads == 1) memcpy(end, w->data, (size_t)n * 4);
    check("adamw, same bytes", memcmp(end, w->data, (size_t)n * 4) ? 1 : 0, 0);
  }
  free(start), free(end);
  check("adamw", distance(values(w), wanted, n), 1e-6);
  free(wanted);
  drop(w), drop(g), drop(m), drop(v), drop(clip), drop(settings);
}

static void test_accumulate(int64_t n) {
  Tensor *sum = f32(n, 1, 1, 1), *g = f32(n, 1, 1, 1), *runs = f32(1, 1, 1, 1), *squares = f32(64, 1, 1, 1);
  const Op op = (Op)nk_op("accumulate");
  double *wanted = doubles(n), square = 0;
  float *start = malloc((size_t)n * 4 + 256);
  for (int64_t i = 0; i < n; i++) wanted[i] = 3.0 * values(g)[i], square += wanted[i] * wanted[i];
  sum->src[0] = sum, sum->src[1] = g, sum->src[2] = runs, sum->src[3] = squares;
  for (int threads = 1; threads <= MOST_THREADS; threads++) {
    double found = 0;
    poison(sum->data, (size_t)n * 4), poison(squares->data, 256);
    for (int run = 0; run < 3; run++) {
      values(runs)[0] = (float)run;
      for (int i = threads - 1; i >= 0; i--) op(sum, i, threads, NULL);
    }
    for (int i = 0; i < 64; i++) found += values(squares)[i];
    check("accumulate", distance(values(sum), wanted, n), 2e-7);
    check("accumulate, squares", fabs(found - square) / square, 1e-6);
    if (threads == 1) memcpy(start, sum->data, (size_t)n * 4), memcpy(start + n, squares->data, 256);
    check("accumulate, same bytes", memcmp(start, sum->data, (size_t)n * 4) || memcmp(start + n, squares->data, 256) ? 1 : 0, 0);
  }
  sum->src[3] = NULL;
  op(sum, 0, 1, NULL);
  for (int64_t i = 0; i < n; i++) wanted[i] += values(g)[i];
  check("accumulate, without squares", distance(values(sum), wanted, n), 4e-7);
  free(wanted), free(start);
  drop(sum), drop(g), drop(runs), drop(squares);
}

static void test_stack_rows(int64_t d, int parts) {
  Tensor *sources[7];
  int64_t rows = 0, at = 0;
  for (int i = 0; i < parts; i++) sources[i] = f32(d, 1 + 37 * i, 1, 1), rows += 1 + 37 * i;
  Tensor *dst = f32(d, rows, 1, 1);
  run("stack_rows", dst, sources, parts, 0, 0, NULL);
  int same = 1;
  for (int i = 0; i < parts; i++) {
    const int64_t n = d * sources[i]->ne[1];
    same = same && memcmp(values(dst) + at, sources[i]->data, (size_t)n * 4) == 0;
    at += n;
    drop(sources[i]);
  }
  check("stack_rows, same bytes", same ? 0 : 1, 0);
  drop(dst);
}

// window 0: causal without one; `padded` keys at the start are hidden in odd batch rows, whose first queries see themselves.
static void test_attention(int64_t d, int64_t heads, int64_t kv_heads, int64_t t, int64_t batches, int64_t window, int64_t padded,
                           int added, uint32_t flags, float cap, double bound) {
  const float scale = 0.3f;
  uint32_t cap_bits;
  memcpy(&cap_bits, &cap, 4);
  const int64_t nq = d * heads * t * batches, nk = d * kv_heads * t * batches;
  Tensor *q = f32(d, heads, t, batches), *k = f32(d, kv_heads, t, batches), *v = f32(d, kv_heads, t, batches);
  Tensor *mask = f32(t, t, 1, padded ? batches : 1), *out = f32(nq + heads * t * batches, 1, 1, 1), *dy = f32(d, heads, t, batches);
  Tensor *back = f32(nq + 2 * nk, 1, 1, 1);
  for (int64_t b = 0; b < mask->ne[3]; b++)
    for (int64_t i = 0; i < t; i++)
      for (int64_t j = 0; j < t; j++) {
        const int seen = i == j || (j < i && (window == 0 || i - j < window) && (b % 2 == 0 || j >= padded));
        float *at = values(mask) + (b * t + i) * t + j;
        *at = !seen ? -INFINITY : added ? *at : 0;
      }
  double *wo = doubles(nq), *wq = doubles(nq), *wk = doubles(nk), *wv = doubles(nk), *p = doubles(t), *slope = doubles(t);
  for (int64_t b = 0; b < batches; b++)
    for (int64_t h = 0; h < heads; h++)
      for (int64_t i = 0; i < t; i++) {
        const float *m = values(mask) + ((padded ? b : 0) * t + i) * t;
        const int64_t qi = ((b * t + i) * heads + h) * d, kv = h / (heads / kv_heads);
        double most = -1e300, sum = 0, along = 0;
        for (int64_t j = 0; j < t; j++) {
          double s = 0;
          for (int64_t x = 0; x < d; x++) s += (double)values(q)[qi + x] * values(k)[((b * t + j) * kv_heads + kv) * d + x];
          const double bounded = cap > 0 ? tanh(s * scale / cap) : 0;
          slope[j] = 1 - bounded * bounded;
          p[j] = (cap > 0 ? cap * bounded : s * scale) + m[j];
          most = p[j] > most ? p[j] : most;
        }
        for (int64_t j = 0; j < t; j++) sum += p[j] = exp(p[j] - most);
        for (int64_t j = 0; j < t; j++) {
          p[j] /= sum;
          for (int64_t x = 0; x < d; x++) wo[qi + x] += p[j] * values(v)[((b * t + j) * kv_heads + kv) * d + x];
        }
        for (int64_t x = 0; x < d; x++) along += values(dy)[qi + x] * wo[qi + x];
        for (int64_t j = 0; j < t; j++) {
          const int64_t at = ((b * t + j) * kv_heads + kv) * d;
          double dp = 0;
          for (int64_t x = 0; x < d; x++) dp += (double)values(dy)[qi + x] * values(v)[at + x];
          const double ds = scale * slope[j] * p[j] * (dp - along);
          for (int64_t x = 0; x < d; x++) {
            wq[qi + x] += ds * values(k)[at + x];
            wk[at + x] += ds * values(q)[qi + x];
            wv[at + x] += p[j] * values(dy)[qi + x];
          }
        }
      }
  Tensor *sources[] = {q, k, v, mask}, *back_sources[] = {dy, q, k, v, mask, out};
  run("attention", out, sources, 4, flags | cap_bits, scale, NULL);
  check("attention", distance(values(out), wo, nq), bound);
  run("attention_back", back, back_sources, 6, flags | cap_bits, scale, NULL);
  // With one key the gradients of q and k are differences of two equal sums: nothing but rounding is left of numbers near 1.
  const double least = t == 1 ? 1 : 1e-30;
  check("attention_back, q", distance_from(values(back), wq, nq, least), bound);
  check("attention_back, k", distance_from(values(back) + nq, wk, nk, least), bound);
  if (!(flags & 1)) { // the same by the op for few queries
    Tensor *step = f32(d * heads, t, batches, 1);
    run("attention_step", step, sources, 4, cap_bits, scale, NULL);
    check("attention_step", distance(values(step), wo, nq), bound);
    drop(step);
  }
  check("attention_back, v", distance(values(back) + nq + nk, wv, nk), bound);
  free(wo), free(wq), free(wk), free(wv), free(p), free(slope);
  drop(q), drop(k), drop(v), drop(mask), drop(out), drop(dy), drop(back);
}

int main(void) {
  scratch = f32(MOST_THREADS * (SCRATCH_BYTES / 4) + 16, 1, 1, 1);
  const int best = nk_detect();
  for (int level = 0; level <= 5; level++) {
    if (!nk_select(level, 1)) continue;
    level_name = nk_level_name(level);
    const int before = failures, so_far = checks;
    const int half = level == 3 || level == 4;
    for (uint32_t flags = 0; flags < 16; flags++) {
      const double bound = flags & 4 && half ? 8e-3 : 1e-6; // bf16 has 8 bits
      test_matmul(70, 67, 45, 1, flags, bound);
      test_matmul(33, 31, 130, 1, flags, bound);
      test_matmul(1, 5, 3, 1, flags, bound);
      test_matmul(17, 19, 23, 9, flags, bound);
      test_matmul(15, 40, 1030, 2, flags, bound);
      test_matmul(1, 1, 1, 1, flags, bound);
      test_matmul(1, 300, 64, 1, flags, bound);
      test_matmul(0, 5, 4, 1, flags, bound), test_matmul(5, 0, 4, 1, flags, bound), test_matmul(5, 7, 0, 3, flags, bound);
    }
    test_norm(1, 3), test_norm(48, 70), test_norm(33, 5), test_norm(288, 40), test_norm(17, 1), test_norm(16, 0);
    for (uint32_t gelu = 0; gelu < 2; gelu++) test_gated(1, 1, gelu), test_gated(9001, 4, gelu), test_gated(4097, 100, gelu), test_gated(0, 1, gelu);
    test_rope(2, 1, 1), test_rope(48, 3, 20), test_rope(10, 2, 33), test_rope(6, 5, 0);
    for (int capped = 0; capped < 2; capped++) {
      const float cap = capped ? 30 : 0;
      test_cross_entropy(1, 2, 1, cap), test_cross_entropy(1003, 9, 5, cap), test_cross_entropy(64, 33, 80, cap);
      test_cross_entropy(300, 3, 1e-6f, cap), test_cross_entropy(31, 0, 1, cap), test_cross_entropy(65, 9, 3, cap / 20);
    }
    test_soft_cap(0, 1, 1), test_soft_cap(1, 1, 30), test_soft_cap(9001, 40, 30), test_soft_cap(4097, 1e-3f, 50);
    test_soft_cap(33, 1e-20f, 30), test_soft_cap(100, 1e30f, 0.5f);
    test_gather_back(7, 5, 40), test_gather_back(48, 90, 33), test_gather_back(1, 1, 1), test_gather_back(9, 4, 0);
    test_adamw(1), test_adamw(15), test_adamw(10007);
    test_accumulate(1), test_accumulate(15), test_accumulate(10007);
    test_stack_rows(1, 2), test_stack_rows(48, 7), test_stack_rows(1000, 3);
    for (uint32_t flags = 0; flags < (half ? 2u : 1u); flags++) {
      const double bound = flags ? 3e-2 : 3e-6;
      test_attention(8, 2, 2, 5, 2, 0, 0, 0, flags, 0, bound);
      test_attention(48, 4, 2, 150, 2, 0, 0, 0, flags, 0, bound);  // several blocks of queries, grouped
      test_attention(33, 3, 1, 70, 3, 9, 0, 0, flags, 0, bound);   // a sliding window
      test_attention(16, 2, 1, 67, 2, 0, 20, 0, flags, 0, bound);  // padding on the left, a mask for each row
      test_attention(16, 2, 2, 40, 2, 0, 0, 1, flags, 0, bound);   // a mask that adds something
      test_attention(4, 1, 1, 1, 1, 0, 0, 0, flags, 0, bound);     // a single key
      test_attention(4, 1, 1, 1, 1, 0, 0, 0, flags, 2, bound);     // the same with scores that are capped, and so on
      test_attention(48, 4, 2, 150, 2, 0, 0, 0, flags, 0.5f, bound);
      test_attention(33, 3, 1, 70, 3, 9, 0, 0, flags, 50, bound);
      test_attention(16, 2, 1, 67, 2, 0, 20, 0, flags, 1.5f, bound);
      test_attention(16, 2, 2, 300, 2, 40, 0, 1, flags, 1, bound); // a mask that adds something, in a window
    }
    test_decoding();
    test_fused(half);
    test_held_products(half);
    test_extremes(level);
    printf("%-12s %d checks, %d failed\n", level_name, checks - so_far, failures - before);
  }
  drop(scratch);
  printf("best level here: %s; %d checks in all, %d failed\n", nk_level_name(best), checks, failures);
  return failures != 0;
}
