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

/* A depthwise convolution with one output a channel, whose filter sees the whole input. */
static TFB_APART void tfb_depthwise_once(const tfb_conv *op, const int8_t *in, int8_t *out,
                                         int8_t *scratch) {
  int32_t multiple = op->out_c / op->in_c, taps = op->k_h * op->k_w, c, i;
  tfb_stream stream = {0, 0, 0};
  stream.next = op->weights;
  for (c = 0; c < op->out_c; c++) {
    const int8_t *row = tfb_unpack(&stream, op->bits, scratch, taps);
    tfb_filter filter = tfb_filter_with(op, c, row, taps);
    const int8_t *x = in + c / multiple;
    int32_t sum = 0;
    for (i = 0; i < taps; i++, x += op->in_c) sum += *x * filter.row[i];
    tfb_store(op, &filter, &sum, 1, out + c);
  }
}
