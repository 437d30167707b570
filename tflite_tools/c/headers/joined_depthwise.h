/* ---- Depthwise convolutions on cores that have neither DSP instructions nor Helium ---- */

#if TFB_JOINS

/* A word holds two inputs as x + 65536 y, so that a multiplication by a code makes the products
 * of both: those of an output in the upper half of the map, and of the one as far below the
 * first row of the lower half. Of a map with an odd number of rows the middle one is in both. As
 * in joined.h up to tfb_most_taps products lie between -2^15 + 2^8 and 2^15: sums that begin
 * with TFB_TWO_OUTPUTS have both halves from 0 to 2^16 - 1, by TFB_RAISED higher. */
#define TFB_RAISED 0x7fff
#define TFB_TWO_OUTPUTS 0x7fff7fffu
#define TFB_WORDS_KEPT 64

/* Copies a channel of an image into `lines` rows of words inside their border; the second input
 * of each lies `down` rows below the first. Rows beyond the image are of the zero point. */
static TFB_APART void tfb_joined_plane(const tfb_conv *op, const int8_t *channel, int32_t lines,
                                       int32_t width, int32_t down, uint32_t *plane) {
  int32_t line = op->in_w * op->in_c, columns = tfb_min(op->in_w, width - op->pad_w), y;
  plane += op->pad_w;
  for (y = -op->pad_h; y < lines - op->pad_h; y++, plane += width) {
    int32_t in_first = y >= 0 && y < op->in_h, in_second = y + down >= 0 && y + down < op->in_h;
    const int8_t *a = in_first ? channel + y * line : &op->in_zero;
    const int8_t *b = in_second ? channel + (y + down) * line : &op->in_zero;
    int32_t next = in_first ? op->in_c : 0, other = in_second ? op->in_c : 0;
    uint32_t *to = plane, *end = plane + columns, *last = end - 1;
    for (; to < last; to += 2, a += next, b += other) {
      to[0] = tfb_joint(*a, *b);
      a += next, b += other;
      to[1] = tfb_joint(*a, *b);
    }
    if (to != end) *to = tfb_joint(*a, *b);
  }
}

/* How a filter reads a plane, in words: from one of its rows to the next, from a row of outputs
 * to the next, and from one output to the next. */
typedef struct {
  int32_t line, down, next;
} tfb_steps;

#define TFB_TAP(weight, a, b, c, d)                                                              \
  do {                                                                                           \
    uint32_t word = (uint32_t)(weight);                                                          \
    s0 = tfb_mla(s0, (uint32_t)(a), word), s1 = tfb_mla(s1, (uint32_t)(b), word);                \
    s2 = tfb_mla(s2, (uint32_t)(c), word), s3 = tfb_mla(s3, (uint32_t)(d), word);                \
  } while (0)
/* What a filter row of three makes of four places at stride 1, or at stride 2. */
#define TFB_THREE(element, u, v, w)                \
  do {                                             \
    element a = p[0], b = p[1], c = p[2], d = p[3]; \
    TFB_TAP(u, a, b, c, d);                        \
    a = p[4];                                      \
    TFB_TAP(v, b, c, d, a);                        \
    b = p[5];                                      \
    TFB_TAP(w, c, d, a, b);                        \
    TFB_LOADS_STAY;                                \
    p += line;                                     \
  } while (0)
#define TFB_THREE_OF_TWO(element, u, v, w)         \
  do {                                             \
    element c = p[2], e = p[4], g = p[6];          \
    TFB_TAP(u, p[0], c, e, g);                     \
    TFB_TAP(w, c, e, g, p[8]);                     \
    TFB_TAP(v, p[1], p[3], p[5], p[7]);            \
    TFB_LOADS_STAY;                                \
    p += line;                                     \
  } while (0)
/* The same of one place, or of two. */
#define TFB_THREE_AT(at, sum) \
  sum = tfb_mla(sum, (uint32_t)p[at], t0), sum = tfb_mla(sum, (uint32_t)p[(at) + 1], t1), \
  sum = tfb_mla(sum, (uint32_t)p[(at) + 2], t2)
#define TFB_THREE_TWICE(u, v, w)                                                     \
  do {                                                                               \
    const uint32_t t0 = (uint32_t)(u), t1 = (uint32_t)(v), t2 = (uint32_t)(w);       \
    TFB_THREE_AT(0, s0);                                                             \
    if (end - to == 2) TFB_THREE_AT(next, s1);                                       \
    TFB_LOADS_STAY;                                                                  \
    p += line;                                                                       \
  } while (0)
#define TFB_PUT_SUMS \
  to[0] = s0;        \
  to[1] = s1;        \
  to[2] = s2;        \
  to[3] = s3

/* Three functions that make the sums of n places in each of some rows, of bytes or of words:
 * with filters of 3x3, with filters five wide, both at stride 1 or 2, and with any. Four are
 * made at a time: what is too much lies behind the last, or is overwritten by the next row. */
#define TFB_SUMS(element, start, of_3x3, of_5, of_any)                                             \
  static TFB_APART void of_3x3(const element *plane, const tfb_steps *steps, const element *taps,  \
                               int32_t n, int32_t rows, uint32_t *sums) {                          \
    element k = taps[0], l = taps[1], m = taps[2], o = taps[3], q = taps[4], r = taps[5];          \
    element u = taps[6], v = taps[7], w = taps[8];                                                 \
    int32_t line = steps->line, next = steps->next;                                                \
    for (; rows > 0; rows--, plane += steps->down, sums += n) {                                    \
      const element *first = plane;                                                                \
      uint32_t *to = sums, *end = sums + n;                                                        \
      for (; to < end; to += 4, first += 4 * next) {                                               \
        uint32_t s0 = start, s1 = s0, s2 = s0, s3 = s0;                                            \
        const element *p = first;                                                                  \
        if (end - to <= 2) {                                                                       \
          TFB_THREE_TWICE(k, l, m);                                                                \
          TFB_THREE_TWICE(o, q, r);                                                                \
          TFB_THREE_TWICE(u, v, w);                                                                \
          to[0] = s0;                                                                              \
          to[1] = s1;                                                                              \
          break;                                                                                   \
        }                                                                                          \
        if (next == 1) {                                                                           \
          TFB_THREE(element, k, l, m);                                                             \
          TFB_THREE(element, o, q, r);                                                             \
          TFB_THREE(element, u, v, w);                                                             \
        } else {                                                                                   \
          TFB_THREE_OF_TWO(element, k, l, m);                                                      \
          TFB_THREE_OF_TWO(element, o, q, r);                                                      \
          TFB_THREE_OF_TWO(element, u, v, w);                                                      \
        }                                                                                          \
        TFB_PUT_SUMS;                                                                              \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  static TFB_APART void of_5(const element *plane, const tfb_steps *steps, const element *taps,    \
                             int32_t k_h, int32_t n, int32_t rows, uint32_t *sums) {               \
    int32_t line = steps->line, next = steps->next;                                                \
    for (; rows > 0; rows--, plane += steps->down, sums += n) {                                    \
      const element *first = plane;                                                                \
      uint32_t *to = sums, *end = sums + n;                                                        \
      for (; to < end; to += 4, first += 4 * next) {                                               \
        uint32_t s0 = start, s1 = s0, s2 = s0, s3 = s0;                                            \
        const element *p = first, *w = taps, *last = taps + 5 * k_h;                               \
        for (; w != last; w += 5, p += line) {                                                     \
          if (next == 1) {                                                                         \
            element a = p[0], b = p[1], c = p[2], d = p[3];                                        \
            TFB_TAP(w[0], a, b, c, d);                                                             \
            a = p[4];                                                                              \
            TFB_TAP(w[1], b, c, d, a);                                                             \
            b = p[5];                                                                              \
            TFB_TAP(w[2], c, d, a, b);                                                             \
            c = p[6];                                                                              \
            TFB_TAP(w[3], d, a, b, c);                                                             \
            d = p[7];                                                                              \
            TFB_TAP(w[4], a, b, c, d);                                                             \
          } else {                                                                                 \
            element a = p[4], b = p[6], c = p[5], d = p[7];                                        \
            TFB_TAP(w[0], p[0], p[2], a, b);                                                       \
            TFB_TAP(w[2], p[2], a, b, p[8]);                                                       \
            TFB_TAP(w[4], a, b, p[8], p[10]);                                                      \
            TFB_TAP(w[1], p[1], p[3], c, d);                                                       \
            TFB_TAP(w[3], p[3], c, d, p[9]);                                                       \
          }                                                                                        \
          TFB_LOADS_STAY;                                                                          \
        }                                                                                          \
        TFB_PUT_SUMS;                                                                              \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  static TFB_APART void of_any(const tfb_conv *op, const element *plane, const tfb_steps *steps,   \
                               const element *taps, int32_t n, int32_t rows, uint32_t *sums) {     \
    int32_t common = op->dilation_w == 1 && op->stride_w <= 2 ? op->k_w : 0;                       \
    int32_t next = steps->next, ky, kx;                                                            \
    if (common == 3 && op->k_h == 3) {                                                             \
      of_3x3(plane, steps, taps, n, rows, sums);                                                   \
      return;                                                                                      \
    }                                                                                              \
    if (common == 5) {                                                                             \
      of_5(plane, steps, taps, op->k_h, n, rows, sums);                                            \
      return;                                                                                      \
    }                                                                                              \
    for (; rows > 0; rows--, plane += steps->down, sums += n) {                                    \
      const element *first = plane;                                                                \
      uint32_t *to = sums, *end = sums + n;                                                        \
      for (; to < end; to += 4, first += 4 * next) {                                               \
        uint32_t s0 = start, s1 = s0, s2 = s0, s3 = s0;                                            \
        const element *row = first, *w = taps;                                                     \
        for (ky = op->k_h; ky > 0; ky--, row += steps->line) {                                     \
          const element *p = row;                                                                  \
          for (kx = op->k_w; kx > 0; kx--, p += op->dilation_w, w++) {                             \
            TFB_TAP(*w, p[0], p[next], p[2 * next], p[3 * next]);                                  \
          }                                                                                        \
        }                                                                                          \
        TFB_PUT_SUMS;                                                                              \
      }                                                                                            \
    }                                                                                              \
  }
TFB_SUMS(int8_t, 0, tfb_bytes_3x3, tfb_bytes_5, tfb_byte_sums)
TFB_SUMS(uint32_t, TFB_TWO_OUTPUTS, tfb_words_3x3, tfb_words_5, tfb_word_sums)
#undef TFB_TAP
#undef TFB_THREE
#undef TFB_THREE_AT
#undef TFB_THREE_TWICE
#undef TFB_THREE_OF_TWO
#undef TFB_PUT_SUMS
#undef TFB_SUMS

static inline tfb_steps tfb_steps_of(const tfb_conv *op, int32_t width) {
  tfb_steps steps;
  steps.line = op->dilation_h * width;
  steps.down = op->stride_h * width;
  steps.next = op->stride_w;
  return steps;
}

/* Stores n outputs in the upper half of a map and as many in the lower one, `lower` further. Where
 * limits leave nothing below the zero point, how negative numbers are rounded does not show. */
static TFB_APART void tfb_store_joined(const tfb_conv *op, const tfb_filter *filter,
                                       const uint32_t *words, int32_t n, int8_t *out,
                                       int32_t lower) {
  uint32_t factor = (uint32_t)filter->factor, base = (uint32_t)filter->base;
  int32_t exponent = filter->exponent, multiplier = filter->multiplier, next = op->out_c;
  int32_t low = op->low, high = op->high, zero = op->out_zero, offset;
  const uint32_t *end = words + n;
  int8_t *second = out + lower;
  base -= TFB_RAISED * factor;
#define TFB_EACH(made)                                           \
  for (; words != end; out += next, second += next) {            \
    uint32_t both = *words++;                                    \
    int32_t twice = (int32_t)((both >> 16) * factor + base);     \
    *second = (int8_t)(made);                                    \
    twice = (int32_t)((both & 0xffff) * factor + base);          \
    *out = (int8_t)(made);                                       \
  }
#define TFB_PLUS(offset) (tfb_product_plus(twice, multiplier, offset) >> exponent)
  if (exponent == 0 || exponent >= TFB_MOST_SHIFT) {
    int32_t value;
    TFB_EACH((value = tfb_product_of_twice(twice, multiplier),
              tfb_clamp(tfb_rounded_shift(value, exponent) + zero, low, high)))
    return;
  }
  offset = (zero * 2 + 1) * (1 << (exponent - 1));
  if (tfb_rectifies(op)) {
    TFB_EACH(tfb_rectified(twice, multiplier, offset, exponent, low, high))
  } else if (low > -128 || high < 127) {
    TFB_EACH(tfb_clamp(TFB_PLUS(offset + (twice >> 31)), low, high))
  } else {
    TFB_EACH(tfb_saturated(TFB_PLUS(offset + (twice >> 31))))
  }
#undef TFB_PLUS
#undef TFB_EACH
}

/* All outputs of one filter, from a channel with its border. */
static TFB_APART void tfb_joined_channel(const tfb_conv *op, const tfb_filter *filter,
                                         const uint32_t *plane, int32_t width, const uint32_t *w,
                                         int8_t *out) {
  int32_t oy, ox, n = tfb_min(op->out_w, TFB_WORDS_KEPT), half = (op->out_h + 1) / 2;
  int32_t lower = (op->out_h - half) * op->out_w * op->out_c;
  int32_t rows = n == op->out_w ? TFB_WORDS_KEPT / n : 1;
  uint32_t sums[TFB_WORDS_KEPT + 3];
  tfb_steps steps = tfb_steps_of(op, width);
  for (oy = 0; oy < half; oy += rows, plane += rows * steps.down) {
    rows = tfb_min(rows, half - oy);
    for (ox = 0; ox < op->out_w; ox += TFB_WORDS_KEPT) {
      n = tfb_min(op->out_w - ox, TFB_WORDS_KEPT);
      tfb_word_sums(op, plane + ox * steps.next, &steps, w, n, rows, sums);
      tfb_store_joined(op, filter, sums, n * rows, out, lower);
      out += n * rows * op->out_c;
    }
  }
}

/* Channel by channel. `scratch` holds a filter's codes as bytes and as words, and a channel. */
static TFB_APART void tfb_joined_depthwise(const tfb_conv *op, const tfb_rows *rows,
                                           const int8_t *in, int8_t *out, int8_t *scratch) {
  int32_t multiple = op->out_c / op->in_c, taps = op->k_h * op->k_w, half = (op->out_h + 1) / 2;
  int32_t lines = (half - 1) * op->stride_h + (op->k_h - 1) * op->dilation_h + 1, b, c, i;
  int32_t width = (op->out_w - 1) * op->stride_w + (op->k_w - 1) * op->dilation_w + 1;
  uint32_t *w = (uint32_t *)(void *)(scratch + ((taps + 3) & ~3)), *plane = w + taps;
  for (i = 0; i < lines * width; i++) plane[i] = tfb_joint(op->in_zero, op->in_zero);
  for (b = 0; b < op->batch; b++, in += op->in_h * op->in_w * op->in_c) {
    tfb_stream stream = rows->stream;
    for (c = 0; c < op->out_c; c++) {
      const int8_t *codes = rows->row_of(rows->source, c, &stream, scratch, taps);
      tfb_filter filter = tfb_filter_with(op, c, codes, taps);
      for (i = 0; i < taps; i++) w[i] = (uint32_t)(codes[i] >> (8 - op->bits));
      if (c % multiple == 0) {
        tfb_joined_plane(op, in + c / multiple, lines, width, (op->out_h - half) * op->stride_h,
                         plane);
      }
      tfb_joined_channel(op, &filter, plane, width, w,
                         out + b * op->out_h * op->out_w * op->out_c + c);
    }
  }
}
#endif
