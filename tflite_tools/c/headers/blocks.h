/* ---- Blocks of filters on cores with the DSP extension ---- */

#if TFB_DSP

/* The two innermost loops are written by hand: compilers load and store word by word. */
#if defined(__GNUC__) && defined(__OPTIMIZE__) && !defined(TFBINREG_EMULATE_DSP)
#define TFB_BY_HAND 1
#else
#define TFB_BY_HAND 0
#endif

/* Puts two words; returns the place behind them. */
static inline uint32_t *tfb_put_words(uint32_t *to, uint32_t first, uint32_t second) {
#if TFB_BY_HAND
  __asm__ volatile("strd %1, %2, [%0], #8" : "+r"(to) : "r"(first), "r"(second) : "memory");
  return to;
#else
  to[0] = first;
  to[1] = second;
  return to + 2;
#endif
}

/* Four values of two rows as tfb_widen has them. */
static inline uint32_t *tfb_put_fours(uint32_t *to, uint32_t a, uint32_t b) {
  to = tfb_put_words(to, tfb_even(a), tfb_even(b));
  return tfb_put_words(to, tfb_odd(a), tfb_odd(b));
}

static TFB_APART uint32_t *tfb_widen2(uint32_t *to, const uint8_t *p, const uint8_t *q,
                                      int32_t blocks) {
  uint32_t mask = tfb_in_register(0xc0c0c0c0u);
  for (; blocks > 0; blocks--, p += 4, q += 4) {
    uint32_t u = tfb_word(p), v = tfb_word(q);
    to = tfb_put_fours(to, u << 6 & mask, v << 6 & mask);
    to = tfb_put_fours(to, u << 4 & mask, v << 4 & mask);
    to = tfb_put_fours(to, u << 2 & mask, v << 2 & mask);
    to = tfb_put_fours(to, u & mask, v & mask);
  }
  return to;
}
static TFB_APART uint32_t *tfb_widen3(uint32_t *to, const uint8_t *p, const uint8_t *q,
                                      int32_t blocks) {
  uint32_t mask = tfb_in_register(0xe0e0e0e0u), upper = 0xc0c0c0c0u, lowest = 0x20202020u, k;
  for (; blocks > 0; blocks--, p += 12, q += 12) {
    uint32_t u6, v6, u7, v7;
    for (k = 0; k < 12; k += 4) {
      uint32_t u = tfb_word(p + k), v = tfb_word(q + k);
      to = tfb_put_fours(to, u << 5 & mask, v << 5 & mask);
      to = tfb_put_fours(to, u << 2 & mask, v << 2 & mask);
    }
    u6 = tfb_word(p + 4), v6 = tfb_word(q + 4);
    u7 = (tfb_word(p + 8) & upper) | (u6 >> 2 & lowest);
    v7 = (tfb_word(q + 8) & upper) | (v6 >> 2 & lowest);
    u6 = (tfb_word(p) & upper) | (u6 >> 1 & lowest);
    v6 = (tfb_word(q) & upper) | (v6 >> 1 & lowest);
    to = tfb_put_fours(to, u6, v6);
    to = tfb_put_fours(to, u7, v7);
  }
  return to;
}
static TFB_APART uint32_t *tfb_widen4(uint32_t *to, const uint8_t *p, const uint8_t *q,
                                      int32_t blocks) {
  uint32_t mask = tfb_in_register(0xf0f0f0f0u);
  for (; blocks > 0; blocks--, p += 4, q += 4) {
    uint32_t u = tfb_word(p), v = tfb_word(q);
    to = tfb_put_fours(to, u << 4 & mask, v << 4 & mask);
    to = tfb_put_fours(to, u & mask, v & mask);
  }
  return to;
}

/* What turns the sums of a filter into stored values: as in tfb_filter, with an offset that holds
 * the half of the last rounding and the zero point. Those of two filters follow their weights. */
typedef struct {
  int32_t factor, base, multiplier, offset, exponent;
} tfb_scales;

#define TFB_TWO_SCALES ((int32_t)(2 * sizeof(tfb_scales) / 4)) /* words */

/* Two rows of n values as 16-bit numbers plus those of `pair`, in pairs that take turns: values 0
 * and 2 of the first row, of the second row, values 1 and 3 of the first, of the second, and so on;
 * the last one or two are a pair in order. Returns the place behind them. */
static TFB_APART uint32_t *tfb_widen(uint32_t *to, const int8_t *a, const int8_t *b, int32_t n,
                                     uint32_t pair) {
  int32_t left = n & 3, quads = n - left;
#if TFB_BY_HAND
  if (quads > 0) {
    uint32_t x, y, first, second;
    __asm__ volatile(
        "1: ldr %[x], [%[a]], #4\n"
        "ldr %[y], [%[b]], #4\n"
        "sxtab16 %[first], %[pair], %[x]\n"
        "sxtab16 %[second], %[pair], %[y]\n"
        "sxtab16 %[x], %[pair], %[x], ror #8\n"
        "sxtab16 %[y], %[pair], %[y], ror #8\n"
        "strd %[first], %[second], [%[to]], #8\n"
        "subs %[n], #4\n"
        "strd %[x], %[y], [%[to]], #8\n"
        "bgt 1b\n"
        : [to] "+r"(to), [a] "+r"(a), [b] "+r"(b), [n] "+r"(quads), [x] "=&r"(x), [y] "=&r"(y),
          [first] "=&r"(first), [second] "=&r"(second)
        : [pair] "r"(pair)
        : "cc", "memory");
  }
#else
  for (; quads > 0; quads -= 4, a += 4, b += 4, to += 4) {
    uint32_t x = tfb_word(a), y = tfb_word(b);
    to[0] = tfb_even_plus(pair, x);
    to[1] = tfb_even_plus(pair, y);
    to[2] = tfb_odd_plus(pair, x);
    to[3] = tfb_odd_plus(pair, y);
  }
#endif
  if (left > 0) {
    uint32_t x = (uint8_t)a[0], y = (uint8_t)b[0];
    if (left > 1) {
      x |= (uint32_t)(uint8_t)a[left - 1] << 16;
      y |= (uint32_t)(uint8_t)b[left - 1] << 16;
    }
    *to++ = tfb_even_plus(pair, x);
    *to++ = tfb_even_plus(pair, y);
    if (left > 2) {
      *to++ = tfb_even_plus(pair, (uint8_t)a[1]);
      *to++ = tfb_even_plus(pair, (uint8_t)b[1]);
    }
  }
  return to;
}

/* Stores the outputs of two positions, `next` apart, for pairs of filters. Eight SMLAD, which are 16
 * products, take three loads. The last rounding takes 1 off a negative number; it may go by the sign
 * before the product, for 0 is rounded to 0 either way. */
#if TFB_BY_HAND
#define TFB_PAIR(w0, w1)               \
  "ldrd r6, %[b], [%[x]], #8\n"        \
  "smlad %[s0], r6, " w0 ", %[s0]\n"   \
  "smlad %[s1], r6, " w1 ", %[s1]\n"   \
  "smlad %[s2], %[b], " w0 ", %[s2]\n" \
  "smlad %[s3], %[b], " w1 ", %[s3]\n"
#define TFB_TWO_PAIRS "ldm %[w]!, {r2, r3, r4, r5}\n" TFB_PAIR("r2", "r3") TFB_PAIR("r4", "r5")
#define TFB_SCALE(s, t)                   \
  "ldm %[w]!, {r2, r3, r4, r5, r6}\n"     \
  "mla " s ", " s ", r2, r3\n"            \
  "mla " t ", " t ", r2, r3\n"            \
  "add r2, r5, " s ", asr #31\n"          \
  "add r3, r5, " t ", asr #31\n"          \
  "smmlar " s ", " s ", r4, r2\n"         \
  "smmlar " t ", " t ", r4, r3\n"         \
  "asr " s ", " s ", r6\n"                \
  "asr " t ", " t ", r6\n"
#define TFB_LIMIT(s) "cmp " s ", r2\nit lt\nmovlt " s ", r2\ncmp " s ", r3\nit gt\nmovgt " s ", r3\n"
static TFB_APART void tfb_tile(const tfb_conv *op, const uint32_t *w, const uint32_t *x,
                               int32_t taps, int32_t pairs, int8_t *out, int32_t next) {
  struct {
    const uint32_t *x;
    int32_t taps;
    int8_t *out;
    int32_t next;
    const int8_t *end;
    int32_t limits[2], clipped;
  } kept;
  int32_t n, b, s0, s1, s2, s3;
  if (pairs == 0) return;
  kept.x = x;
  kept.taps = taps;
  kept.out = out;
  kept.next = next;
  kept.end = out + 2 * pairs;
  kept.limits[0] = op->low;
  kept.limits[1] = op->high;
  kept.clipped = op->low > -128 || op->high < 127;
  __asm__ volatile(
      "1: ldrd %[x], %[n], %[from]\n"
      "movs %[s0], #0\n"
      "mov %[s1], %[s0]\n"
      "mov %[s2], %[s0]\n"
      "mov %[s3], %[s0]\n"
      "subs %[n], #8\n"
      "blt 3f\n"
      "2:\n" /* eight taps */
      TFB_TWO_PAIRS TFB_TWO_PAIRS
      "subs %[n], #8\n"
      "bge 2b\n"
      "3: lsls %[n], %[n], #30\n" /* carry if four more are left, negative if two more are */
      "bcc 4f\n"
      TFB_TWO_PAIRS
      "4: bpl 5f\n"
      "ldm %[w]!, {r2, r3}\n"
      TFB_PAIR("r2", "r3")
      "5:\n"
      TFB_SCALE("%[s0]", "%[s2]")
      TFB_SCALE("%[s1]", "%[s3]")
      "ldr r2, %[clipped]\n"
      "cbz r2, 6f\n"
      "ldrd r2, r3, %[limits]\n"
      TFB_LIMIT("%[s0]") TFB_LIMIT("%[s1]") TFB_LIMIT("%[s2]") TFB_LIMIT("%[s3]")
      "6: ldrd r2, r3, %[to]\n"
      "ssat %[s0], #8, %[s0]\n"
      "ssat %[s1], #8, %[s1]\n"
      "ssat %[s2], #8, %[s2]\n"
      "ssat %[s3], #8, %[s3]\n"
      "strb %[s0], [r2], #1\n"
      "add r3, r2\n"
      "strb %[s1], [r2], #1\n"
      "ldr r4, %[end]\n"
      "strb %[s2], [r3, #-1]\n"
      "strb %[s3], [r3]\n"
      "str r2, %[to]\n"
      "cmp r2, r4\n"
      "bne 1b\n"
      : [w] "+r"(w), [x] "=&r"(x), [n] "=&r"(n), [s0] "=&l"(s0), [s1] "=&r"(s1), [s2] "=&r"(s2),
        [s3] "=&r"(s3), [b] "=&r"(b), [to] "+m"(kept.out)
      : [from] "m"(kept.x), [end] "m"(kept.end), [limits] "m"(kept.limits[0]),
        [clipped] "m"(kept.clipped)
      : "r2", "r3", "r4", "r5", "r6", "cc", "memory");
}
#else
static inline int8_t tfb_scaled(const tfb_conv *op, const tfb_scales *scales, int32_t sum) {
  int32_t twice = sum * scales->factor + scales->base;
  twice = tfb_product_plus(twice, scales->multiplier, scales->offset + (twice >> 31));
  return tfb_saturated(tfb_clamp(twice >> scales->exponent, op->low, op->high));
}

static TFB_APART void tfb_tile(const tfb_conv *op, const uint32_t *w, const uint32_t *x,
                               int32_t taps, int32_t pairs, int8_t *out, int32_t next) {
  for (; pairs > 0; pairs--, w += taps + TFB_TWO_SCALES, out += 2) {
    const tfb_scales *scales = (const tfb_scales *)(const void *)(w + taps);
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, i;
    for (i = 0; i < taps; i += 2) {
      s0 = tfb_smlad(x[i], w[i], s0);
      s1 = tfb_smlad(x[i], w[i + 1], s1);
      s2 = tfb_smlad(x[i + 1], w[i], s2);
      s3 = tfb_smlad(x[i + 1], w[i + 1], s3);
    }
    out[0] = tfb_scaled(op, scales, s0);
    out[1] = tfb_scaled(op, scales + 1, s1);
    out[next] = tfb_scaled(op, scales, s2);
    out[next + 1] = tfb_scaled(op, scales + 1, s3);
  }
}
#endif

/* The same for n filters of which some have no offset, or one of which the last has no second. */
static TFB_APART void tfb_careful_tile(const tfb_conv *op, const uint32_t *w, const uint32_t *x,
                                       int32_t taps, int32_t n, int8_t *out, int32_t next) {
  int32_t c, position, i;
  for (c = 0; c < n; c++, w += c % 2 ? 0 : taps + TFB_TWO_SCALES) {
    const tfb_scales *scales = (const tfb_scales *)(const void *)(w + taps) + c % 2;
    for (position = 0; position < 2; position++) {
      int32_t value = 0;
      for (i = 0; i < taps; i += 2) value = tfb_smlad(x[i + position], w[i + c % 2], value);
      value = tfb_product_of_twice(value * scales->factor + scales->base, scales->multiplier);
      value = tfb_rounded_shift(value, scales->exponent) + op->out_zero;
      out[c + position * next] = (int8_t)tfb_clamp(value, op->low, op->high);
    }
  }
}

/* The widened codes of filters c and c + 1, or of c twice. Rows that begin with a byte are not
 * unpacked to bytes but for what is behind their last block. */
static TFB_APART uint32_t *tfb_two_rows(const tfb_conv *op, tfb_rows *rows, int32_t c,
                                        int32_t count, int32_t taps, int8_t *bytes, uint32_t *w) {
  tfb_stream *stream = &rows->stream;
  int8_t *other = bytes + ((taps + 3) & ~3);
  const int8_t *a, *b;
  int32_t bits = op->bits;
  if (rows->widen && taps * bits % 8 == 0) {
    int32_t size = taps * bits / 8, block = bits == 4 ? 8 : bits == 3 ? 32 : 16;
    int32_t blocks = taps / block;
    const uint8_t *p = stream->next, *q = count == 2 ? p + size : p;
    stream->next = q + size;
    w = rows->widen(w, p, q, blocks);
    if (taps % block == 0) return w;
    taps %= block;
    {
      tfb_stream first = {0, 0, 0}, second = {0, 0, 0};
      first.next = p + blocks * block * bits / 8;
      second.next = q + blocks * block * bits / 8;
      a = tfb_unpack(&first, bits, bytes, taps);
      b = tfb_unpack(&second, bits, other, taps);
    }
  } else {
    a = b = rows->row_of(rows->source, c, stream, bytes, taps);
    if (count == 2) b = rows->row_of(rows->source, c + 1, stream, other, taps);
  }
  return tfb_widen(w, a, b, taps, 0);
}

/* Filters c and c + 1 (c alone twice if it is the last): their widened weights, and behind them what
 * scales their sums. Notes in `careful` whether one has no offset. */
static TFB_APART uint32_t *tfb_two_filters(const tfb_conv *op, tfb_rows *rows, int32_t c,
                                           int32_t taps, int8_t *bytes, uint32_t *w,
                                           int32_t *careful) {
  int32_t i, k, drop = 8 - op->bits, count = tfb_min(2, rows->last - c);
  uint32_t *end = tfb_two_rows(op, rows, c, count, taps, bytes, w);
  tfb_scales *scales = (tfb_scales *)(void *)end;
  for (i = 0; i < count; i++, scales++) {
    tfb_filter filter = tfb_filter_scales(op, c + i);
    if (filter.factor & ((1 << drop) - 1)) { /* the codes' places below 1 do not fit in */
      for (k = i; w + k < end; k += 2) {
        int32_t first = (int16_t)w[k] >> drop, second = (int16_t)(w[k] >> 16) >> drop;
        w[k] = ((uint32_t)first & 0xffff) | (uint32_t)second << 16;
      }
    } else {
      filter.factor >>= drop;
    }
    scales->factor = filter.factor;
    scales->base = filter.base;
    scales->multiplier = filter.multiplier;
    scales->exponent = filter.exponent;
    if (filter.exponent > 0 && filter.exponent < TFB_MOST_SHIFT) {
      scales->offset = (op->out_zero * 2 + 1) * (1 << (filter.exponent - 1));
    } else {
      *careful = 1;
    }
  }
  return end + TFB_TWO_SCALES;
}

/* What two filters see, widened: straight from the image where whole words lie one behind the other,
 * else by way of rows of bytes. */
static TFB_APART void tfb_two_patches(const tfb_conv *op, const tfb_spot *spots, int32_t taps,
                                      int8_t *bytes, uint32_t *x, uint32_t pair) {
  int32_t run = op->k_w * op->in_c, line = op->dilation_h * op->in_w * op->in_c, ky;
  if ((op->dilation_w == 1 || op->k_w == 1) && (run % 4 == 0 || op->k_h == 1) &&
      tfb_lies_inside(op, spots) && tfb_lies_inside(op, spots + 1)) {
    const int8_t *a = spots[0].image + (spots[0].y * op->in_w + spots[0].x) * op->in_c;
    const int8_t *b = spots[1].image + (spots[1].y * op->in_w + spots[1].x) * op->in_c;
    for (ky = op->k_h; ky > 0; ky--, a += line, b += line) x = tfb_widen(x, a, b, run, pair);
  } else {
    int8_t *second = bytes + ((taps + 3) & ~3);
    tfb_patch(op, spots, bytes);
    tfb_patch(op, spots + 1, second);
    tfb_widen(x, bytes, second, taps, pair);
  }
}

/* Runs a block of n filters over all positions, two at a time; the last alone twice. */
static TFB_APART void tfb_positions(const tfb_conv *op, const uint32_t *w, int32_t n,
                                    int32_t careful, int32_t taps, const int8_t *in, int8_t *out,
                                    uint32_t *x, int8_t *bytes) {
  int32_t left = op->batch * op->out_h * op->out_w, ox = 0, oy = 0, next = op->out_c, i;
  int32_t even = (taps + 1) & ~1, image = op->in_h * op->in_w * op->in_c;
  int32_t flat = op->k_h * op->k_w * op->stride_h * op->stride_w == 1;
  int32_t pairs = careful ? 0 : n / 2, rest = n - 2 * pairs;
  const uint32_t *last = w + pairs * (even + TFB_TWO_SCALES);
  uint32_t pair = (uint16_t)-tfb_zero(op) * 0x10001u;
  tfb_spot spots[2];
  for (; left > 0; left -= 2, out += 2 * next) {
    if (left == 1) next = 0;
    if (flat) {
      tfb_widen(x, in, left == 1 ? in : in + taps, taps, pair);
      in += 2 * taps;
    } else {
      for (i = 0; i < tfb_min(left, 2); i++) {
        spots[i].image = in;
        spots[i].y = oy * op->stride_h - op->pad_h;
        spots[i].x = ox * op->stride_w - op->pad_w;
        if (++ox < op->out_w) continue;
        ox = 0;
        if (++oy < op->out_h) continue;
        oy = 0;
        in += image;
      }
      if (left == 1) spots[1] = spots[0];
      tfb_two_patches(op, spots, taps, bytes, x, pair);
    }
    tfb_tile(op, w, x, even, pairs, out, next);
    if (rest > 0) tfb_careful_tile(op, last, x, even, rest, out + 2 * pairs, next);
  }
}

/* A convolution in blocks of so many pairs of filters. `scratch` holds what two filters see, widened,
 * the filters of a block, and where filters reach over the border or see no whole words two rows of
 * bytes. */
static inline void tfb_blocks(const tfb_conv *op, tfb_rows *rows, const int8_t *in, int8_t *out,
                              int8_t *scratch, int32_t pairs) {
  int32_t taps = op->k_h * op->k_w * op->in_c, even = (taps + 1) & ~1, c, i;
  uint32_t *x = (uint32_t *)(void *)scratch, *w = x + even;
  int8_t *bytes = (int8_t *)(w + pairs * (even + TFB_TWO_SCALES));
  for (c = rows->first; c < rows->last; c += 2 * pairs) {
    int32_t n = tfb_min(2 * pairs, rows->last - c), careful = 0;
    uint32_t *to = w;
    for (i = 0; i < n; i += 2) {
      to = tfb_two_filters(op, rows, c + i, taps, (int8_t *)x, to, &careful);
    }
    tfb_positions(op, w, n, careful, taps, in, out + c, x, bytes);
  }
}
#endif
