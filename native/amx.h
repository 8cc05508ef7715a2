// What the two products on AMX share: the tile registers of a thread, taken and given back, and asking for blocks of C early.
// Include it after TARGET_AMX is defined.

// ggml's own AMX kernels configure a thread's tiles once and for all: what was there is put back.
typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} TileConfig;
TARGET_AMX static void amx_begin(TileConfig *before) {
  TileConfig ours;
  memset(&ours, 0, sizeof ours);
  ours.palette = 1;
  for (int i = 0; i < 8; i++) {
    ours.row_bytes[i] = 64;
    ours.rows[i] = 16;
  }
  _tile_storeconfig(before);
  _tile_loadconfig(&ours);
}
TARGET_AMX static void amx_end(const TileConfig *before) {
  if (before->palette) _tile_loadconfig(before);
  else _tile_release();
}

// Asks for the block of C after the one at (i, j), `step` x 32, before it is needed.
INLINE void prefetch_next(const float *c, int64_t stride, int64_t i, int64_t j, int64_t m, int64_t n, int64_t step) {
  const float *next = c + 32;
  int64_t height = min64(step, m - i);
  if (j + 32 >= n) {
    next = c - j + step * stride;
    height = min64(step, m - i - step);
  }
  for (int64_t r = 0; r < height; r++) {
    __builtin_prefetch(next + r * stride, 1);
    __builtin_prefetch(next + r * stride + 16, 1);
  }
}
