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

/* Joins the rows of two filters behind them, where that saves more than it takes: codes of few bits,
 * taps in longer runs, and some positions in a row at which the whole filter lies inside. */
static inline void tfb_join_filters(const tfb_conv *op, tfb_filter *filters, int32_t taps,
                                    int8_t *scratch) {
#if TFB_JOINS
  tfb_range rows = {0, op->k_h}, whole = tfb_whole(op, rows);
  int32_t run = op->dilation_w == 1 ? op->k_w * op->in_c : op->in_c;
  if (op->bits <= 4 && run >= 8 && whole.last - whole.first >= 4) {
    uint32_t *words = (uint32_t *)(void *)(scratch + 2 * ((taps + 3) & ~3));
    tfb_join(filters[0].row, filters[1].row, 8 - op->bits, taps, words);
    filters[0].words = words;
  }
#else
  (void)op, (void)filters, (void)taps, (void)scratch;
#endif
}

/* Unpacks two filters at a time, and runs them over all rows; `joins` where behind their rows there
 * is room for a word a tap. */
static inline void tfb_filters(const tfb_conv *op, tfb_line line, tfb_rows *rows, int32_t joins,
                               const int8_t *in, int8_t *out, int8_t *scratch) {
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
    if (joins) tfb_join_filters(op, filters, taps, scratch);
    tfb_all_rows(op, line, filters, count, in, out + c);
  }
}

/* A filter of one pixel that moves on by one sees the images as one row. */
static inline tfb_conv tfb_straight(const tfb_conv *op) {
  tfb_conv row = *op;
  uint32_t size = (uint32_t)op->batch * op->in_h * op->in_w;
  if (op->k_h == 1 && op->k_w == 1 && op->out_h == op->in_h && op->out_w == op->in_w &&
      op->stride_h == 1 && op->stride_w == 1 && size <= 0xffff) {
    row.batch = row.in_h = row.out_h = 1;
    row.in_w = row.out_w = (uint16_t)size;
  }
  return row;
}

/* Adds the products of one position, or of some times two or four of them (`each`), with the taps in
 * `rows` and `columns`. Neighbouring taps are neighbours in memory unless they are dilated, so a
 * filter row is one run. */
static inline void tfb_products(const tfb_conv *op, const int8_t *image, const tfb_filter *filters,
                                int32_t y, int32_t x, tfb_range rows, tfb_range columns,
                                int32_t each, int32_t some, int32_t *sums) {
  int32_t c = op->in_c, next = op->dilation_w == 1 ? op->k_w : 1, ky, kx;
  int32_t length = op->dilation_w == 1 ? (columns.last - columns.first) * c : c;
  int32_t row = (int32_t)(filters[1].row - filters[0].row);
  for (ky = rows.first; ky < rows.last; ky++) {
    const int8_t *line = image + ((y + ky * op->dilation_h) * op->in_w + x) * c;
    for (kx = columns.first; kx < columns.last; kx += next) {
      const int8_t *pixel = line + kx * op->dilation_w * c;
      int32_t tap = (ky * op->k_w + kx) * c, step = op->stride_w * c;
      const int8_t *w = filters[0].row + tap;
#if TFB_JOINS
      if (filters[0].words != 0 && each != 2) {
        const uint32_t *both = filters[0].words + tap;
        int32_t drop = 8 - op->bits;
        if (each == 1) {
          tfb_joined_dot(pixel, both, length, tfb_zero(op), drop, sums);
        } else {
          tfb_joined_dot4(pixel, step, both, length, drop, some, sums);
        }
        continue;
      }
#endif
      if (each == 1) {
        tfb_dot2(pixel, w, row, length, tfb_zero(op), sums);
      } else {
        tfb_dot4(pixel, step, w, row, length, some, sums);
      }
    }
  }
}

static inline void tfb_conv_line(const tfb_conv *op, const int8_t *image, const tfb_filter *filters,
                                 int32_t count, int32_t oy, int8_t *out) {
  int32_t y = oy * op->stride_h - op->pad_h, ox, n, i, k, each, some, sums[2 * TFB_CHUNK];
  tfb_range rows = tfb_inside(y, op->k_h, op->dilation_h, op->in_h), whole = tfb_whole(op, rows);
  for (ox = 0; ox < op->out_w; ox += n) {
    n = tfb_min(op->out_w - ox, TFB_CHUNK);
    for (i = 0; i < n; i += each * some) {
      int32_t x = (ox + i) * op->stride_w - op->pad_w;
      int32_t left = ox + i >= whole.first ? tfb_min(n - i, whole.last - ox - i) : 0;
      tfb_range columns = {0, op->k_w};
      each = left > 1 ? 2 : 1;
#if TFB_JOINS
      if (left > 3 && filters[0].words != 0) each = 4;
#endif
      some = each > 1 ? left / each : 1;
      if (each == 1) columns = tfb_inside(x, op->k_w, op->dilation_w, op->in_w);
      for (k = i; k < i + each * some; k++) {
        sums[k] = each > 1 ? 0 : filters[0].outside;
        sums[TFB_CHUNK + k] = each > 1 ? 0 : filters[1].outside;
      }
      tfb_products(op, image, filters, y, x, rows, columns, each, some, sums + i);
    }
    for (k = 0; k < count; k++) {
      tfb_store(op, &filters[k], sums + k * TFB_CHUNK, n, out + ox * op->out_c + k);
    }
  }
}

/* CONV_2D; FULLY_CONNECTED as a 1x1 convolution over a row of samples. With DSP instructions it is
 * computed in blocks of so many pairs of filters; `widen` is the function for the codes' width, none
 * for 8 bits. */
#if TFB_DSP
static TFB_APART void tfb_conv_2d(const tfb_conv *op, const int8_t *in, int8_t *out,
                                  int8_t *scratch, int32_t pairs, tfb_widen_codes widen) {
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  rows.widen = widen;
  tfb_blocks(op, &rows, in, out, scratch, pairs);
}
#else
#if TFB_MVE
static TFB_APART void tfb_conv_2d_in_blocks(const tfb_conv *op, const int8_t *in, int8_t *out,
                                            int8_t *scratch, int32_t pairs) {
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  tfb_blocks(op, &rows, in, out, scratch, pairs);
}
#define tfb_conv_2d(op, in, out, scratch, pairs, widen) \
  tfb_conv_2d_in_blocks(op, in, out, scratch, pairs)
#else
static inline void tfb_all_filters(const tfb_conv *op, int32_t joins, const int8_t *in, int8_t *out,
                                   int8_t *scratch) {
  tfb_conv row = tfb_straight(op);
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  tfb_filters(&row, tfb_conv_line, &rows, joins, in, out, scratch);
}
#define tfb_conv_2d(op, in, out, scratch, pairs, widen) tfb_all_filters(op, 1, in, out, scratch)
#define tfb_dense(op, in, out, scratch, blocks) tfb_all_filters(op, 0, in, out, scratch)
#endif
#endif

/* Sums of a depthwise filter that are kept. */
#define TFB_PLANE_CHUNK 32

/* Copies a channel of an image into the rows of a plane, inside its border. */
static TFB_APART void tfb_plane(const tfb_conv *op, const int8_t *channel, int32_t height,
                                int32_t width, int8_t *plane) {
  int32_t rows = tfb_min(op->in_h, height - op->pad_h), next = op->in_c;
  int32_t columns = tfb_min(op->in_w, width - op->pad_w);
  plane += op->pad_h * width + op->pad_w;
  for (; rows > 0; rows--, channel += op->in_w * next, plane += width) {
    const int8_t *pixel = channel;
    int8_t *to = plane, *end = plane + columns;
    for (; to != end; pixel += next) *to++ = *pixel;
  }
}

/* The sums of n positions in each of some rows of outputs. Four are made at a time: what is too
 * much lies behind the last, or is overwritten by the next row. */
static TFB_APART void tfb_depthwise4(const tfb_conv *op, const int8_t *plane, int32_t width,
                                     const int8_t *row, int32_t n, int32_t rows, int32_t *sums) {
  int32_t tap = op->dilation_w, line = op->dilation_h * width, next = op->stride_w, i, ky, kx;
  for (; rows > 0; rows--, plane += op->stride_h * width, sums += n) {
    const int8_t *pixel = plane;
    for (i = 0; i < n; i += 4, pixel += 4 * next) {
#if TFB_MVE
      uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)next);
      int32x4_t four = vdupq_n_s32(0);
      const int8_t *first = pixel, *w = row;
      for (ky = op->k_h; ky > 0; ky--, first += line) {
        const int8_t *p = first;
        for (kx = op->k_w; kx > 0; kx--, p += tap) {
          four = vmlaq_n_s32(four, vldrbq_gather_offset_s32(p, places), *w++);
        }
      }
      vstrwq_s32(sums + i, four);
#else
      int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
      const int8_t *first = pixel, *w = row;
      for (ky = op->k_h; ky > 0; ky--, first += line) {
        const int8_t *p = first;
        for (kx = op->k_w; kx > 0; kx--, p += tap) {
          int32_t weight = *w++;
          s0 += p[0] * weight;
          s1 += p[next] * weight;
          s2 += p[2 * next] * weight;
          s3 += p[3 * next] * weight;
        }
      }
      sums[i] = s0;
      sums[i + 1] = s1;
      sums[i + 2] = s2;
      sums[i + 3] = s3;
#endif
    }
  }
}

/* All outputs of one filter, from a channel with its border. */
static inline void tfb_depthwise_plane(const tfb_conv *op, const int8_t *plane, int32_t width,
                                       const tfb_filter *filter, int8_t *out) {
  int32_t n = tfb_min(op->out_w, TFB_PLANE_CHUNK), oy, ox, sums[TFB_PLANE_CHUNK + 3];
  int32_t rows = n == op->out_w ? TFB_PLANE_CHUNK / n : 1;
  for (oy = 0; oy < op->out_h; oy += rows) {
    const int8_t *row = plane + oy * op->stride_h * width;
    rows = tfb_min(rows, op->out_h - oy);
    for (ox = 0; ox < op->out_w; ox += TFB_PLANE_CHUNK) {
      n = tfb_min(op->out_w - ox, TFB_PLANE_CHUNK);
      tfb_depthwise4(op, row + ox * op->stride_w, width, filter->row, n, rows, sums);
      tfb_store(op, filter, sums, n * rows, out);
      out += n * rows * op->out_c;
    }
  }
}

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
  int8_t *plane = scratch + ((taps + 3) & ~3);
#if TFB_MVE
  if (tfb_in_sixteens(op)) {
    tfb_depthwise_in_sixteens(op, rows, in, out, scratch);
    return;
  }
#endif
  memset(plane, op->in_zero, (size_t)(height * width));
  for (b = 0; b < op->batch; b++, in += op->in_h * op->in_w * op->in_c) {
    tfb_stream stream = rows->stream;
    for (c = 0; c < op->out_c; c++) {
      const int8_t *codes = rows->row_of(rows->source, c, &stream, scratch, taps);
      tfb_filter filter = tfb_filter_with(op, c, codes, taps);
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
  tfb_filters(op, tfb_transpose_line, &rows, 0, in, out, scratch);
}
