// See check.h.
#include "check.h"

static uint32_t state = 1;
float uniform(void) {
  state = state * 1664525u + 1013904223u;
  return (float)(int32_t)state / 2147483648.f;
}

int failures = 0, checks = 0;
const char *level_name;
void check(const char *what, double error, double bound) {
  checks++;
  if (error <= bound) return; // NaN fails
  failures++;
  printf("FAILED %s, %s: error %g, bound %g\n", level_name, what, error, bound);
}

Tensor *tensor(int type, int64_t n0, int64_t n1, int64_t n2, int64_t n3) {
  Tensor *t = calloc(1, sizeof *t);
  const int64_t ne[4] = {n0, n1, n2, n3};
  size_t bytes = type == TYPE_BF16 || type == TYPE_F16 ? 2 : 4;
  t->type = type;
  for (int i = 0; i < 4; i++) {
    t->ne[i] = ne[i];
    t->nb[i] = bytes;
    bytes *= (size_t)ne[i];
  }
  // Every other tensor lies 4 bytes beside what malloc aligns; `extra` is what to free.
  static int odd = 0;
  const size_t beside = (odd ^= 1) ? 4 : 0;
  t->extra = malloc(bytes + beside);
  t->data = (char *)t->extra + beside;
  for (size_t i = 0; i < bytes / 4 && type == TYPE_F32; i++) ((float *)t->data)[i] = uniform();
  return t;
}
Tensor *f32(int64_t n0, int64_t n1, int64_t n2, int64_t n3) { return tensor(TYPE_F32, n0, n1, n2, n3); }
float *values(Tensor *t) { return t->data; }
void drop(Tensor *t) {
  if (!t) return;
  free(t->extra);
  free(t);
}
void poison(void *data, size_t bytes) { memset(data, 0xff, bytes); }

Tensor *scratch;

static size_t bytes_of(const Tensor *t) {
  const size_t element = t->type == TYPE_BF16 || t->type == TYPE_F16 ? 2 : 4;
  return (size_t)size_of(t) * element;
}

// What a kernel must leave as it found it: rounding, what denormals count as, and the tile registers, which ggml's own AMX kernels
// configure once for each thread.
typedef struct {
  uint64_t control;
  uint8_t tiles[64];
} ThreadState;
#ifdef X86
enum { ROUND_DOWN = 0x2000, FLUSH = 0x8000, STICKY = 0x3f };
static uint64_t control(void) { return _mm_getcsr() & ~STICKY; }
static void set_control(uint64_t to) { _mm_setcsr((unsigned)to); }
__attribute__((target("amx-tile"))) static void tiles(int store, uint8_t *config) {
  if (nk_detect() != 4) return;
  if (store) _tile_storeconfig(config);
  else if (config) _tile_loadconfig(config);
  else _tile_release();
}
#elif defined(__aarch64__)
enum { ROUND_DOWN = 2 << 22, FLUSH = 1 << 24 };
static uint64_t control(void) {
  uint64_t fpcr;
  __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
  return fpcr;
}
static void set_control(uint64_t to) { __asm__ volatile("msr fpcr, %0" : : "r"(to)); }
static void tiles(int store, uint8_t *config) { (void)store, (void)config; }
#endif
static ThreadState state_of_thread(void) {
  ThreadState s = {control(), {0}};
  tiles(1, s.tiles);
  return s;
}

// One thread's call, in a state that no compiler sets up; what it computes then is of no interest.
static void run_in_strange_state(const char *name, Op op, Tensor *dst, void *settings) {
  const uint64_t before = control();
  uint8_t config[64] = {1};
  for (int i = 0; i < 4; i++) config[16 + 2 * i] = 32, config[48 + i] = 7;
  tiles(0, config);
  set_control(before | ROUND_DOWN | FLUSH);
  const ThreadState wanted = state_of_thread();
  op(dst, 0, 1, settings);
  const ThreadState found = state_of_thread();
  set_control(before);
  tiles(0, NULL);
  check(name, found.control == wanted.control && !memcmp(found.tiles, wanted.tiles, 64) ? 0 : 1, 0);
}

static void run_as(const char *name, Tensor *dst, Tensor **sources, int count, uint32_t flags, float value, Tensor *changed) {
  const Op op = (Op)nk_op(name);
  const size_t bytes = bytes_of(dst), changed_bytes = changed ? bytes_of(changed) : 0;
  uint64_t bits = flags;
  uint32_t high;
  memcpy(&high, &value, 4);
  bits |= (uint64_t)high << 32;
  char *first = malloc(bytes + 1), *start = malloc(changed_bytes + 1), *end = malloc(changed_bytes + 1);
  if (changed) memcpy(start, changed->data, changed_bytes);
  for (int i = 0; i < count; i++) dst->src[i + 1] = sources[i];
  run_in_strange_state(name, op, dst, (void *)(uintptr_t)bits);
  for (int threads = 1; threads <= MOST_THREADS; threads++) {
    if (changed) memcpy(changed->data, start, changed_bytes);
    poison(dst->data, bytes);
    // Not before each: 8 MiB a thread take longer than all ops together. The other runs find what earlier ones left.
    if (threads == 1 || threads == MOST_THREADS) poison(scratch->data, (size_t)threads * SCRATCH_BYTES + 64);
    for (int i = threads - 1; i >= 0; i--) op(dst, i, threads, (void *)(uintptr_t)bits); // any order will do
    if (threads == 1) {
      uint8_t left[64] = {0};
      tiles(1, left);
      if (left[0]) check("tiles released where they were", 1, 0);
      memcpy(first, dst->data, bytes);
      if (changed) memcpy(end, changed->data, changed_bytes);
    }
    if (memcmp(first, dst->data, bytes) || (changed && memcmp(end, changed->data, changed_bytes))) {
      failures++;
      printf("FAILED %s, %s: %d threads give other bytes than one\n", level_name, name, threads);
    }
  }
  free(first);
  free(start);
  free(end);
}
void run(const char *name, Tensor *dst, Tensor **sources, int count, uint32_t flags, float value, Tensor *changed) {
  dst->src[0] = scratch;
  run_as(name, dst, sources, count, flags, value, changed);
}
void run_onto(const char *name, Tensor *dst, Tensor **sources, int count, uint32_t flags, float value) {
  dst->src[0] = dst;
  run_as(name, dst, sources, count, flags, value, NULL);
}

double distance_from(const float *found, const double *wanted, int64_t n, double least) {
  double difference = 0, size = least * least;
  for (int64_t i = 0; i < n; i++) {
    difference += (found[i] - wanted[i]) * (found[i] - wanted[i]);
    size += wanted[i] * wanted[i];
  }
  return sqrt(difference / size);
}
double distance(const float *found, const double *wanted, int64_t n) { return distance_from(found, wanted, n, 1e-30); }
double *doubles(int64_t n) { return calloc((size_t)n + 1, sizeof(double)); }
