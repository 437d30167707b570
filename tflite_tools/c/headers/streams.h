/* ---- Sequences frame by frame: the rows that are kept between frames ---- */

/* Takes a new row of `size` bytes behind `count` - 1 others, which move up; the oldest one goes. */
static inline void tfb_shift_in(int8_t *rows, int32_t count, int32_t size, const int8_t *row) {
  memmove(rows, rows + size, (size_t)((count - 1) * size));
  memcpy(rows + (count - 1) * size, row, (size_t)size);
}

/* Takes a new row into a ring of `count` rows, where the oldest one is; `*next` is its place. */
static inline void tfb_ring_in(int8_t *rows, uint16_t *next, int32_t count, int32_t size,
                               const int8_t *row) {
  memcpy(rows + *next * size, row, (size_t)size);
  *next = (uint16_t)(*next + 1 < count ? *next + 1 : 0);
}

/* Copies the rows that a window sees from a ring: `taps` of them, `step` apart, the last one `lag`
 * rows before the newest. */
static inline void tfb_ring_out(const int8_t *rows, int32_t next, int32_t count, int32_t size,
                                int32_t taps, int32_t step, int32_t lag, int8_t *out) {
  int32_t place = next - 1 - lag - (taps - 1) * step;
  int32_t tap;
  if (place < 0) place += count;
  for (tap = 0; tap < taps; tap++) {
    memcpy(out + tap * size, rows + place * size, (size_t)size);
    place += step;
    if (place >= count) place -= count;
  }
}
