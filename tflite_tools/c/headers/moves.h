/* ---- Moving numbers about ---- */

/* Values start, start + step, ... of every axis: STRIDED_SLICE, SLICE and TRANSPOSE. */
typedef struct {
  int32_t start;
  int32_t size[4];
  int32_t step[4];
} tfb_gather;

static inline void tfb_gather_4d(const tfb_gather *op, const int8_t *in, int8_t *out) {
  int32_t i, j, k, l;
  in += op->start;
  for (i = 0; i < op->size[0]; i++) {
    for (j = 0; j < op->size[1]; j++) {
      for (k = 0; k < op->size[2]; k++) {
        const int8_t *p = in + i * op->step[0] + j * op->step[1] + k * op->step[2];
        for (l = 0; l < op->size[3]; l++, p += op->step[3]) *out++ = *p;
      }
    }
  }
}

/* Spread the values of `in` over `out`, the counterpart: PAD, after `out` has been filled. */
static inline void tfb_scatter_4d(const tfb_gather *op, const int8_t *in, int8_t *out) {
  int32_t i, j, k;
  out += op->start;
  for (i = 0; i < op->size[0]; i++) {
    for (j = 0; j < op->size[1]; j++) {
      for (k = 0; k < op->size[2]; k++, in += op->size[3]) {
        memcpy(out + i * op->step[0] + j * op->step[1] + k * op->step[2], in,
               (size_t)op->size[3]);
      }
    }
  }
}

/* Blocks of `block` values into places that are `step` apart: CONCATENATION. */
static inline void tfb_interleave(const int8_t *in, int8_t *out, int32_t count, int32_t block,
                                  int32_t step) {
  for (; count > 0; count--, in += block, out += step) memcpy(out, in, (size_t)block);
}

/* RESIZE_NEAREST_NEIGHBOR: which row and column each output row and column is a copy of. */
typedef struct {
  const uint16_t *rows, *columns;
  uint16_t batch, in_h, in_w, channels, out_h, out_w;
} tfb_resize;

static inline void tfb_resize_nearest(const tfb_resize *op, const int8_t *in, int8_t *out) {
  int32_t b, y, x;
  for (b = 0; b < op->batch; b++, in += op->in_h * op->in_w * op->channels) {
    for (y = 0; y < op->out_h; y++) {
      for (x = 0; x < op->out_w; x++, out += op->channels) {
        memcpy(out, in + (op->rows[y] * op->in_w + op->columns[x]) * op->channels, op->channels);
      }
    }
  }
}
