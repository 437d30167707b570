/* ---- Depthwise convolutions with one tap, which rescale each channel ---- */

#if !TFB_MVE

#define TFB_ONES 64 /* sums that are kept */

/* All outputs of such a filter. Many of them are looked up in a table of what it makes of any
 * input. */
static TFB_APART void tfb_one_tap(const tfb_conv *op, const tfb_filter *filter,
                                  const int8_t *channel, int8_t *out) {
  int32_t left = op->out_h * op->out_w, next = op->in_c, step = op->out_c, n, i, x;
  int32_t weight = filter->row[0], sums[TFB_ONES];
  int8_t table[256];
  if (left > 512) {
    tfb_conv own = *op;
    own.out_c = 1;
    for (x = -128; x < 128; x += TFB_ONES) {
      for (i = 0; i < TFB_ONES; i++) sums[i] = (x + i) * weight;
      tfb_store(&own, filter, sums, TFB_ONES, table + x + 128);
    }
    for (; left > 0; left--, channel += next, out += step) *out = table[*channel + 128];
    return;
  }
  for (; left > 0; left -= n, out += n * step) {
    n = tfb_min(left, TFB_ONES);
    for (i = 0; i < n; i++, channel += next) sums[i] = *channel * weight;
    tfb_store(op, filter, sums, n, out);
  }
}

#endif

/* ---- Depthwise convolutions on cores with the DSP extension ---- */

#if TFB_DSP

/* Sums that are kept, and what is summed with them beyond the end of a row. */
#define TFB_KEPT 64

/* How a filter reads a plane, in words of two numbers: in a row of the filter, from one of its
 * rows to the next in the plane, from a row of outputs to the next, and how much further the
 * second, third and fourth output in a row are. */
typedef struct {
  int32_t filter, plane, down, second, third, fourth;
} tfb_reach;

static inline uint32_t tfb_half(int32_t x) { return (uint32_t)x & 0xffff; }

/* A row of a filter in words: each of two neighbours from an even place, then of two from an odd
 * one, as the first and the second of two outputs meet them that lie an odd number apart. */
static inline uint32_t *tfb_pairs_of_row(const tfb_conv *op, const int8_t *row, int32_t words,
                                         uint32_t *to) {
  int32_t step = op->dilation_w, odd = op->stride_w & 1, left = op->k_w, k;
  uint32_t before = 0;
  for (k = 0; k < words; k++, to += 2) {
    uint32_t first = 0, second = 0;
    if (step == 1) {
      if (left > 0) first = tfb_half(row[0]);
      if (left > 1) second = tfb_half(row[1]);
      left -= 2;
      row += 2;
    } else if (2 * k / step < left) {
      if (2 * k % step == 0) first = tfb_half(row[2 * k / step]);
      if ((2 * k + 1) % step == 0 && (2 * k + 1) / step < left) {
        second = tfb_half(row[(2 * k + 1) / step]);
      }
    }
    to[0] = first | second << 16;
    to[1] = odd ? before | first << 16 : to[0];
    before = second;
  }
  return to;
}

/* Copies a channel of an image into the rows of a plane of 16-bit numbers, inside its border. */
static TFB_APART void tfb_wide_plane(const tfb_conv *op, const int8_t *channel, int32_t height,
                                     int32_t width, int32_t size, int16_t *plane) {
  int32_t rows = tfb_min(op->in_h, height - op->pad_h), next = op->in_c;
  int32_t columns = tfb_min(op->in_w, width - op->pad_w);
  plane += op->pad_h * size + op->pad_w;
  for (; rows > 0; rows--, channel += op->in_w * next, plane += size) {
    const int8_t *pixel = channel;
    int16_t *to = plane;
    int32_t n = columns;
    for (; n >= 4; n -= 4, to += 4, pixel += 4 * next) {
      to[0] = pixel[0];
      to[1] = pixel[next];
      to[2] = pixel[2 * next];
      to[3] = pixel[3 * next];
    }
    for (; n > 0; n--, pixel += next) *to++ = *pixel;
  }
}

/* The sums of n outputs in each of some rows; what is too much lies behind the last, or is
 * overwritten by the next row. */
static TFB_APART void tfb_wide_sums(const uint32_t *plane, const tfb_reach *reach, const uint32_t *w,
                                    int32_t k_h, int32_t n, int32_t rows, int32_t *sums) {
  int32_t second = reach->second, third = reach->third, fourth = reach->fourth, i, y, j;
  for (; rows > 0; rows--, plane += reach->down, sums += n) {
    for (i = 0; i < n; i += 4) {
      int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
      const uint32_t *first = plane + i / 2 * third, *q = w;
      for (y = k_h; y > 0; y--, first += reach->plane) {
        const uint32_t *p = first;
        for (j = reach->filter; j > 0; j--, p++, q += 2) {
          uint32_t even = q[0], odd = q[1];
          s0 = tfb_smlad(p[0], even, s0);
          s1 = tfb_smlad(p[second], odd, s1);
          s2 = tfb_smlad(p[third], even, s2);
          s3 = tfb_smlad(p[fourth], odd, s3);
        }
      }
      sums[i] = s0;
      sums[i + 1] = s1;
      sums[i + 2] = s2;
      sums[i + 3] = s3;
    }
  }
}

#if TFB_BY_HAND
/* The same for filters of 3x3 at stride 1 or 2, two outputs at a time. Of (w0, w1) and (w1, w2)
 * in a filter row, at stride 1 the first output takes both of one and the upper half of the
 * other. */
static TFB_APART void tfb_sums_of_3x3(const uint32_t *plane, const tfb_reach *reach,
                                      const uint32_t *w, int32_t n, int32_t rows, int32_t *sums) {
  uint32_t x, y, a0 = w[0], a1 = w[4], a2 = w[8], b0 = w[3], b1 = w[7], b2 = w[11];
  int32_t next = 4 * reach->plane, stride = reach->third, first, second;
  if (stride == 2) { /* the second output's words are whole too */
    b0 = w[2];
    b1 = w[6];
    b2 = w[10];
  }
  for (; rows > 0; rows--, plane += reach->down, sums += n) {
    const uint32_t *p = plane;
    int32_t *to = sums, *end = sums + ((n + 1) & ~1);
    if (stride == 1) {
      __asm__ volatile(
          "1: ldrd %[x], %[y], [%[p]], #4\n"
          "smuad %[first], %[x], %[a0]\n"
          "smultb %[second], %[x], %[a0]\n"
          "smlabt %[first], %[y], %[b0], %[first]\n"
          "smlad %[second], %[y], %[b0], %[second]\n"
          "add %[x], %[p], %[next]\n"
          "ldrd %[x], %[y], [%[x], #-4]\n"
          "smlad %[first], %[x], %[a1], %[first]\n"
          "smlatb %[second], %[x], %[a1], %[second]\n"
          "smlabt %[first], %[y], %[b1], %[first]\n"
          "smlad %[second], %[y], %[b1], %[second]\n"
          "add %[x], %[p], %[next], lsl #1\n"
          "ldrd %[x], %[y], [%[x], #-4]\n"
          "smlad %[first], %[x], %[a2], %[first]\n"
          "smlatb %[second], %[x], %[a2], %[second]\n"
          "smlabt %[first], %[y], %[b2], %[first]\n"
          "smlad %[second], %[y], %[b2], %[second]\n"
          "ldr %[x], %[end]\n"
          "strd %[first], %[second], [%[to]], #8\n"
          "cmp %[to], %[x]\n"
          "bne 1b\n"
          : [p] "+r"(p), [to] "+r"(to), [x] "=&r"(x), [y] "=&r"(y), [first] "=&r"(first),
            [second] "=&r"(second)
          : [a0] "r"(a0), [b0] "r"(b0), [a1] "r"(a1), [b1] "r"(b1), [a2] "r"(a2), [b2] "r"(b2),
            [next] "r"(next), [end] "m"(end)
          : "cc", "memory");
    } else {
      __asm__ volatile(
          "1: ldrd %[x], %[y], [%[p]], #8\n"
          "smuad %[first], %[x], %[a0]\n"
          "smuad %[second], %[y], %[a0]\n"
          "ldr %[x], [%[p]]\n"
          "smlad %[first], %[y], %[b0], %[first]\n"
          "smlad %[second], %[x], %[b0], %[second]\n"
          "add %[x], %[p], %[next]\n"
          "ldrd %[x], %[y], [%[x], #-8]\n"
          "smlad %[first], %[x], %[a1], %[first]\n"
          "ldr %[x], [%[p], %[next]]\n"
          "smlad %[second], %[y], %[a1], %[second]\n"
          "smlad %[first], %[y], %[b1], %[first]\n"
          "smlad %[second], %[x], %[b1], %[second]\n"
          "add %[y], %[p], %[next], lsl #1\n"
          "ldr %[x], [%[y], #-8]\n"
          "smlad %[first], %[x], %[a2], %[first]\n"
          "ldr %[x], [%[y], #-4]\n"
          "smlad %[second], %[x], %[a2], %[second]\n"
          "smlad %[first], %[x], %[b2], %[first]\n"
          "ldr %[x], [%[y]]\n"
          "smlad %[second], %[x], %[b2], %[second]\n"
          "ldr %[x], %[end]\n"
          "strd %[first], %[second], [%[to]], #8\n"
          "cmp %[to], %[x]\n"
          "bne 1b\n"
          : [p] "+r"(p), [to] "+r"(to), [x] "=&r"(x), [y] "=&r"(y), [first] "=&r"(first),
            [second] "=&r"(second)
          : [a0] "r"(a0), [b0] "r"(b0), [a1] "r"(a1), [b1] "r"(b1), [a2] "r"(a2), [b2] "r"(b2),
            [next] "r"(next), [end] "m"(end)
          : "cc", "memory");
    }
  }
}

/* The same for filters five wide, two outputs at a time. */
static TFB_APART void tfb_sums_of_5(const uint32_t *plane, const tfb_reach *reach, const uint32_t *w,
                                    int32_t k_h, int32_t n, int32_t rows, int32_t *sums) {
  int32_t next = 4 * reach->plane, stride = reach->third, i;
  for (; rows > 0; rows--, plane += reach->down, sums += n) {
    for (i = 0; i < n; i += 2) {
      const uint32_t *p = plane + i / 2 * stride, *q = w;
      int32_t first = 0, second = 0, left = k_h;
      uint32_t x, y;
      if (stride == 1) {
        __asm__ volatile(
            "1: ldrd %[x], %[y], [%[p]]\n"
            "ldm %[q]!, {r2, r3, r4, r5}\n"
            "smlad %[first], %[x], r2, %[first]\n"
            "smlad %[second], %[x], r3, %[second]\n"
            "ldr %[x], [%[p], #8]\n"
            "ldrd r2, r3, [%[q]], #8\n"
            "smlad %[first], %[y], r4, %[first]\n"
            "smlad %[second], %[y], r5, %[second]\n"
            "add %[p], %[next]\n"
            "smlad %[first], %[x], r2, %[first]\n"
            "smlad %[second], %[x], r3, %[second]\n"
            "subs %[left], #1\n"
            "bne 1b\n"
            : [p] "+r"(p), [q] "+r"(q), [left] "+r"(left), [first] "+r"(first),
              [second] "+r"(second), [x] "=&r"(x), [y] "=&r"(y)
            : [next] "r"(next)
            : "r2", "r3", "r4", "r5", "cc", "memory");
      } else {
        __asm__ volatile(
            "1: ldrd %[x], %[y], [%[p]]\n"
            "ldm %[q]!, {r2, r3, r4, r5}\n"
            "smlad %[first], %[x], r2, %[first]\n"
            "smlad %[second], %[y], r2, %[second]\n"
            "smlad %[first], %[y], r4, %[first]\n"
            "ldrd %[x], %[y], [%[p], #8]\n"
            "ldrd r2, r3, [%[q]], #8\n"
            "smlad %[second], %[x], r4, %[second]\n"
            "add %[p], %[next]\n"
            "smlad %[first], %[x], r2, %[first]\n"
            "smlad %[second], %[y], r2, %[second]\n"
            "subs %[left], #1\n"
            "bne 1b\n"
            : [p] "+r"(p), [q] "+r"(q), [left] "+r"(left), [first] "+r"(first),
              [second] "+r"(second), [x] "=&r"(x), [y] "=&r"(y)
            : [next] "r"(next)
            : "r2", "r3", "r4", "r5", "cc", "memory");
      }
      sums[i] = first;
      sums[i + 1] = second;
    }
  }
}
#endif

/* All outputs of one filter, from a channel with its border. */
static TFB_APART void tfb_wide_channel(const tfb_conv *op, const tfb_filter *filter,
                                       const uint32_t *plane, const tfb_reach *reach,
                                       const uint32_t *w, int8_t *out) {
  int32_t n = tfb_min(op->out_w, TFB_KEPT), oy, ox, sums[TFB_KEPT + 3];
  int32_t rows = n == op->out_w ? TFB_KEPT / n : 1;
  for (oy = 0; oy < op->out_h; oy += rows) {
    rows = tfb_min(rows, op->out_h - oy);
    for (ox = 0; ox < op->out_w; ox += TFB_KEPT) {
      const uint32_t *first = plane + oy * reach->down + ox / 2 * op->stride_w;
      n = tfb_min(op->out_w - ox, TFB_KEPT);
#if TFB_BY_HAND
      int32_t common = op->stride_w <= 2 && op->dilation_w == 1 ? op->k_w : 0;
      if (common == 3 && op->k_h == 3) {
        tfb_sums_of_3x3(first, reach, w, n, rows, sums);
      } else if (common == 5) {
        tfb_sums_of_5(first, reach, w, op->k_h, n, rows, sums);
      } else
#endif
        tfb_wide_sums(first, reach, w, op->k_h, n, rows, sums);
      tfb_store(op, filter, sums, n * rows, out);
      out += n * rows * op->out_c;
    }
  }
}

/* Channel by channel. `scratch` holds a filter's codes as bytes, its words, and one channel with
 * its border as 16-bit numbers: every position sees a whole filter. */
static TFB_APART void tfb_wide_depthwise(const tfb_conv *op, tfb_row_of row_of, const void *source,
                                         const int8_t *in, int8_t *out, int8_t *scratch) {
  int32_t multiple = op->out_c / op->in_c, taps = op->k_h * op->k_w, b, c, i, n;
  int32_t reach_w = (op->k_w - 1) * op->dilation_w + 1, stride = op->stride_w;
  int32_t height = (op->out_h - 1) * op->stride_h + (op->k_h - 1) * op->dilation_h + 1;
  int32_t width = (op->out_w - 1) * stride + reach_w, size = (width + 1) & ~1;
  uint32_t *w = (uint32_t *)(void *)(scratch + ((taps + 3) & ~3));
  tfb_reach reach;
  int16_t *plane;
  reach.filter = reach_w / 2 + 1;
  reach.plane = size / 2 * op->dilation_h;
  reach.down = size / 2 * op->stride_h;
  reach.second = stride / 2;
  reach.third = stride;
  reach.fourth = 3 * stride / 2;
  plane = (int16_t *)(void *)(w + 2 * op->k_h * reach.filter);
  n = height * size + 6 * stride + 2;
  for (i = 0; i < n; i++) plane[i] = op->in_zero;
  for (b = 0; b < op->batch; b++, in += op->in_h * op->in_w * op->in_c) {
    tfb_stream stream = {0, 0, 0};
    stream.next = op->weights;
    for (c = 0; c < op->out_c; c++) {
      tfb_filter filter =
          tfb_filter_with(op, c, row_of(source, c, &stream, scratch, taps), taps);
      int8_t *made = out + b * op->out_h * op->out_w * op->out_c + c;
      uint32_t *to = w;
      if (taps * stride * op->stride_h == 1) {
        tfb_one_tap(op, &filter, in + c / multiple, made);
        continue;
      }
      for (i = 0; i < op->k_h; i++) {
        to = tfb_pairs_of_row(op, filter.row + i * op->k_w, reach.filter, to);
      }
      if (c % multiple == 0) {
        tfb_wide_plane(op, in + c / multiple, height, width, size, plane);
      }
      tfb_wide_channel(op, &filter, (const uint32_t *)(const void *)plane, &reach, w, made);
    }
  }
}
#endif
