/* A row of outputs: of two filters, or of one that is given twice (`count`). */
typedef void (*tfb_line)(const tfb_conv *op, const int8_t *image, const tfb_filter *filters,
                         int32_t count, int32_t oy, int8_t *out);

/* Runs up to two filters over all rows. */
static inline void tfb_all_rows(const tfb_conv *op, tfb_line line, const tfb_filter *filters,
                                   int32_t count, const int8_t *in, int8_t *out) {
  int32_t b, y, image = op->in_h * op->in_w * op->in_c, row = op->out_w * op->out_c;
  for (b = 0; b < op->batch; b++, in += image) {
    for (y = 0; y < op->out_h; y++, out += row) line(op, in, filters, count, y, out);
  }
}

/* Unpacks two filters at a time, and runs them over all rows. */
static inline void tfb_filters(const tfb_conv *op, tfb_line line, tfb_rows *rows, const int8_t *in,
                               int8_t *out, int8_t *scratch) {
  int32_t taps = op->k_h * op->k_w * op->in_c, c, i;
  for (c = rows->first; c < rows->last; c += 2) {
    int32_t count = tfb_min(2, rows->last - c);
    tfb_filter filters[2];
    for (i = 0; i < count; i++) {
      int8_t *to = scratch + i * ((taps + 3) & ~3);
      const int8_t *codes = rows->row_of(rows->source, c + i, &rows->stream, to, taps);
      filters[i] = tfb_filter_with(op, c + i, codes, taps);
    }
    if (count == 1) filters[1] = filters[0];
    tfb_all_rows(op, line, filters, count, in, out + c);
  }
}

/* CONV_2D; FULLY_CONNECTED as a 1x1 convolution over a row of samples. It is computed in blocks
 * of so many pairs of filters; `widen` is the function for the codes' width on cores with DSP
 * instructions, none for 8 bits. */
#if TFB_MVE
static TFB_APART void tfb_conv_2d_in_blocks(const tfb_conv *op, const int8_t *in, int8_t *out,
                                            int8_t *scratch, int32_t pairs) {
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  tfb_blocks(op, &rows, in, out, scratch, pairs);
}
#define tfb_conv_2d(op, in, out, scratch, pairs, widen) \
  tfb_conv_2d_in_blocks(op, in, out, scratch, pairs)
#else
static TFB_APART void tfb_conv_2d(const tfb_conv *op, const int8_t *in, int8_t *out,
                                  int8_t *scratch, int32_t pairs, tfb_widen_codes widen) {
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  rows.widen = widen;
  tfb_blocks(op, &rows, in, out, scratch, pairs);
}
#endif

/* Sums of a depthwise filter that are kept. */
#define TFB_PLANE_CHUNK 32

#if !TFB_DSP
/* Copies a channel of an image into the rows of a plane, inside its border. */
static TFB_APART void tfb_plane(const tfb_conv *op, const int8_t *channel, int32_t height,
                                int32_t width, int8_t *plane) {
  int32_t rows = tfb_min(op->in_h, height - op->pad_h), next = op->in_c;
  int32_t columns = tfb_min(op->in_w, width - op->pad_w);
  plane += op->pad_h * width + op->pad_w;
  for (; rows > 0; rows--, channel += op->in_w * next, plane += width) {
    const int8_t *pixel = channel;
    int8_t *to = plane, *end = plane + columns, *last = end - 1;
    for (; to < last; to += 2, pixel += next) {
      to[0] = *pixel;
      pixel += next;
      to[1] = *pixel;
    }
    if (to != end) *to = *pixel;
  }
}

#if TFB_MVE
/* The sums of n positions in each of some rows of outputs. Four are made at a time: what is too
 * much lies behind the last, or is overwritten by the next row. */
static TFB_APART void tfb_plane_sums(const tfb_conv *op, const int8_t *plane, int32_t width,
                                     const int8_t *row, int32_t n, int32_t rows, int32_t *sums) {
  int32_t tap = op->dilation_w, line = op->dilation_h * width, next = op->stride_w, i, ky, kx;
  uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)next);
  for (; rows > 0; rows--, plane += op->stride_h * width, sums += n) {
    const int8_t *pixel = plane;
    for (i = 0; i < n; i += 4, pixel += 4 * next) {
      int32x4_t four = vdupq_n_s32(0);
      const int8_t *first = pixel, *w = row;
      for (ky = op->k_h; ky > 0; ky--, first += line) {
        const int8_t *p = first;
        for (kx = op->k_w; kx > 0; kx--, p += tap) {
          four = vmlaq_n_s32(four, vldrbq_gather_offset_s32(p, places), *w++);
        }
      }
      vstrwq_s32(sums + i, four);
    }
  }
}

/* All outputs of a filter of one tap at stride 1, straight from a channel of the images. */
static TFB_APART void tfb_one_tap(const tfb_conv *op, const tfb_filter *filter,
                                  const int8_t *channel, int8_t *out) {
  int32_t left = op->out_h * op->out_w, weight = filter->row[0], n, i;
  uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), op->in_c);
  int32_t sums[TFB_PLANE_CHUNK];
  for (; left > 0; left -= n, out += n * op->out_c) {
    n = tfb_min(left, TFB_PLANE_CHUNK);
    for (i = 0; i < n; i += 4, channel += 4 * op->in_c) {
      mve_pred16_t wanted = vctp32q((uint32_t)(n - i));
      int32x4_t four = vldrbq_gather_offset_z_s32(channel, places, wanted);
      vstrwq_s32(sums + i, vmulq_n_s32(four, weight));
    }
    tfb_store(op, filter, sums, n, out);
  }
}
#endif

/* All outputs of one filter, from a channel with its border. */
static inline void tfb_depthwise_plane(const tfb_conv *op, const int8_t *plane, int32_t width,
                                       const tfb_filter *filter, int8_t *out) {
  int32_t n = tfb_min(op->out_w, TFB_PLANE_CHUNK), oy, ox, sums[TFB_PLANE_CHUNK + 3];
#if TFB_JOINS
  tfb_steps steps = tfb_steps_of(op, width);
#endif
  int32_t rows = n == op->out_w ? TFB_PLANE_CHUNK / n : 1;
  for (oy = 0; oy < op->out_h; oy += rows) {
    const int8_t *row = plane + oy * op->stride_h * width;
    rows = tfb_min(rows, op->out_h - oy);
    for (ox = 0; ox < op->out_w; ox += TFB_PLANE_CHUNK) {
      n = tfb_min(op->out_w - ox, TFB_PLANE_CHUNK);
#if TFB_JOINS
      tfb_byte_sums(op, row + ox * op->stride_w, &steps, filter->row, n, rows, (uint32_t *)sums);
#else
      tfb_plane_sums(op, row + ox * op->stride_w, width, filter->row, n, rows, sums);
#endif
      tfb_store(op, filter, sums, n * rows, out);
      out += n * rows * op->out_c;
    }
  }
}

#endif

/* DEPTHWISE_CONV_2D; output channel c reads input channel c / (out_c / in_c). Behind one filter,
 * `scratch` holds one channel with its border: every position sees a whole filter, in a run. */
static inline void tfb_depthwise_rows(const tfb_conv *op, tfb_rows *rows, const int8_t *in,
                                      int8_t *out, int8_t *scratch) {
#if TFB_DSP
  tfb_wide_depthwise(op, rows->row_of, rows->source, in, out, scratch);
#else
  int32_t multiple = op->out_c / op->in_c, taps = op->k_h * op->k_w, b, c;
  int32_t height = (op->out_h - 1) * op->stride_h + (op->k_h - 1) * op->dilation_h + 1;
  int32_t width = (op->out_w - 1) * op->stride_w + (op->k_w - 1) * op->dilation_w + 1;
  int32_t one = taps * op->stride_h * op->stride_w == 1;
  int8_t *plane = scratch + ((taps + 3) & ~3);
#if TFB_MVE
  if (tfb_in_sixteens(op)) {
    tfb_depthwise_in_sixteens(op, rows, in, out, scratch);
    return;
  }
#endif
#if TFB_JOINS
  int32_t is_small = op->out_h * op->out_w < 16; /* two planes in one are more work than they save */
  if (!one && !is_small && op->bits <= 4 && taps <= tfb_most_taps(op->bits)) {
    tfb_joined_depthwise(op, rows, in, out, scratch);
    return;
  }
#endif
  memset(plane, op->in_zero, (size_t)(height * width));
  for (b = 0; b < op->batch; b++, in += op->in_h * op->in_w * op->in_c) {
    tfb_stream stream = rows->stream;
    for (c = 0; c < op->out_c; c++) {
      const int8_t *codes = rows->row_of(rows->source, c, &stream, scratch, taps);
      tfb_filter filter = tfb_filter_with(op, c, codes, taps);
      if (one) {
        tfb_one_tap(op, &filter, in + c / multiple,
                    out + b * op->out_h * op->out_w * op->out_c + c);
        continue;
      }
      if (c % multiple == 0) tfb_plane(op, in + c / multiple, height, width, plane);
      tfb_depthwise_plane(op, plane, width, &filter,
                          out + b * op->out_h * op->out_w * op->out_c + c);
    }
  }
#endif
}

static inline void tfb_depthwise(const tfb_conv *op, const int8_t *in, int8_t *out,
                                 int8_t *scratch) {
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  tfb_depthwise_rows(op, &rows, in, out, scratch);
}

/* TRANSPOSE_CONV: each output is the sum over the inputs at which a tap lands there. */
static inline void tfb_transpose_line(const tfb_conv *op, const int8_t *image,
                                      const tfb_filter *filters, int32_t count, int32_t oy,
                                      int8_t *out) {
  int32_t ox, ky, kx, i, row = (int32_t)(filters[1].row - filters[0].row);
  int32_t sums[TFB_CHUNK + 1];
  for (ox = 0; ox < op->out_w; ox++, out += op->out_c) {
    sums[0] = filters[0].outside;
    sums[TFB_CHUNK] = filters[1].outside;
    for (ky = 0; ky < op->k_h; ky++) {
      int32_t y = oy + op->pad_h - ky;
      if (y < 0 || y % op->stride_h != 0 || y / op->stride_h >= op->in_h) continue;
      for (kx = 0; kx < op->k_w; kx++) {
        int32_t x = ox + op->pad_w - kx, tap = (ky * op->k_w + kx) * op->in_c;
        if (x < 0 || x % op->stride_w != 0 || x / op->stride_w >= op->in_w) continue;
        tfb_dot2(image + (y / op->stride_h * op->in_w + x / op->stride_w) * op->in_c,
                 filters[0].row + tap, row, op->in_c, tfb_zero(op), sums);
      }
    }
    for (i = 0; i < count; i++) tfb_store(op, &filters[i], sums + i * TFB_CHUNK, 1, out + i);
  }
}

static inline void tfb_transpose_conv(const tfb_conv *op, const int8_t *in, int8_t *out,
                                      int8_t *scratch) {
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  tfb_filters(op, tfb_transpose_line, &rows, in, out, scratch);
}
