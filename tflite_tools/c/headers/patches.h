/* ---- Rows of codes, and what a filter sees ---- */

/* How a filter's codes are found: times 2^(8 - bits), from a stream that stands before them. */
typedef const int8_t *(*tfb_row_of)(const void *op, int32_t c, tfb_stream *stream, int8_t *scratch,
                                    int32_t taps);

static inline const int8_t *tfb_plain_row(const void *op, int32_t c, tfb_stream *stream,
                                          int8_t *scratch, int32_t taps) {
  (void)c;
  return tfb_unpack(stream, ((const tfb_conv *)op)->bits, scratch, taps);
}

#if !TFB_MVE
/* Widens blocks of packed codes of two rows, as tfb_unpack would unpack them before. */
typedef uint32_t *(*tfb_widen_codes)(uint32_t *to, const uint8_t *p, const uint8_t *q,
                                     int32_t blocks);
#endif

/* The filters from `first` on and below `last`, and where their codes are. */
typedef struct {
  tfb_row_of row_of;
  const void *source; /* that function's */
  tfb_stream stream;  /* stands before the codes of `first` */
  int32_t first, last;
#if !TFB_MVE
  tfb_widen_codes widen; /* for packed codes of less than 8 bits; else 0 */
#endif
} tfb_rows;

/* All filters of a convolution. */
static inline tfb_rows tfb_rows_of(const tfb_conv *op, tfb_row_of row_of, const void *source) {
  tfb_rows rows;
  rows.row_of = row_of;
  rows.source = source;
  rows.stream.next = op->weights;
  rows.stream.held = 0;
  rows.stream.count = 0;
  rows.first = 0;
  rows.last = op->out_c;
#if !TFB_MVE
  rows.widen = 0;
#endif
  return rows;
}

/* Where a filter lies: its first row and column in an image. */
typedef struct {
  const int8_t *image;
  int32_t y, x;
} tfb_spot;

/* n bytes of an image, or of the zero point for none; returns the place behind them. */
static TFB_APART int8_t *tfb_put_bytes(const tfb_conv *op, int8_t *to, const int8_t *from,
                                       int32_t n) {
  int8_t *end = to + n;
#if TFB_MVE
  __asm__ volatile(
      "wlstp.8 lr, %[n], 3f\n"
      "cbz %[from], 2f\n"
      "1: vldrb.8 q0, [%[from]], #16\n"
      "vstrb.8 q0, [%[to]], #16\n"
      "letp lr, 1b\n"
      "b 3f\n"
      "2: vstrb.8 %q[zero], [%[to]], #16\n"
      "letp lr, 2b\n"
      "3:\n"
      : [to] "+r"(to), [from] "+l"(from)
      : [n] "r"(n), [zero] "w"(vdupq_n_s8(op->in_zero))
      : "lr", "q0", "cc", "memory");
#else
  if (from) {
#if TFB_UNALIGNED
    for (; n >= 4; n -= 4, to += 4, from += 4) tfb_put(to, tfb_word(from));
#else
    for (; n >= 4; n -= 4, to += 4, from += 4) {
      to[0] = from[0];
      to[1] = from[1];
      to[2] = from[2];
      to[3] = from[3];
    }
#endif
    for (; n > 0; n--) *to++ = *from++;
  } else {
    memset(to, op->in_zero, (size_t)n);
  }
#endif
  return end;
}

static inline int32_t tfb_lies_inside(const tfb_conv *op, const tfb_spot *spot) {
  return spot->y >= 0 && spot->x >= 0 && spot->y + (op->k_h - 1) * op->dilation_h < op->in_h &&
         spot->x + (op->k_w - 1) * op->dilation_w < op->in_w;
}

/* What a filter sees, as a row of bytes; the zero point around the image. */
static TFB_APART void tfb_patch(const tfb_conv *op, const tfb_spot *spot, int8_t *row) {
  int32_t ky, kx, c = op->in_c, line = op->in_w * c, across = op->k_w * c;
  int32_t y = spot->y, x = spot->x, before, inside;
  const int8_t *first = spot->image + y * line + x * c;
  if (op->dilation_w == 1 && tfb_lies_inside(op, spot)) {
    for (ky = op->k_h; ky > 0; ky--, first += op->dilation_h * line) {
      row = tfb_put_bytes(op, row, first, across);
    }
    return;
  }
  before = tfb_clamp(-x, 0, op->k_w) * c;
  inside = tfb_clamp(op->in_w - x, 0, op->k_w) * c - before;
  for (ky = op->k_h; ky > 0; ky--, y += op->dilation_h, first += op->dilation_h * line) {
    int32_t is_row = y >= 0 && y < op->in_h, n = is_row ? inside : 0;
    if (!is_row || op->dilation_w == 1) { /* a run between zeros */
      row = tfb_put_bytes(op, row, 0, before);
      row = tfb_put_bytes(op, row, first + before, n);
      row = tfb_put_bytes(op, row, 0, across - before - n);
      continue;
    }
    for (kx = 0; kx < op->k_w; kx++) {
      int32_t at = kx * op->dilation_w, is_inside = x + at >= 0 && x + at < op->in_w;
      row = tfb_put_bytes(op, row, is_inside ? first + at * c : 0, c);
    }
  }
}
