/* ---- Blocks of filters on cores with the DSP extension ---- */

#if TFB_DSP

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

/* Codes times 2^(8 - bits) of two rows, a byte each, in words. */
static inline uint32_t *tfb_join(uint32_t *to, const int8_t *a, const int8_t *b, int32_t n,
                                 int32_t drop) {
  (void)drop;
  return tfb_widen(to, a, b, n, 0);
}

/* A sum that a filter makes of one of two positions. */
static inline int32_t tfb_pair_sum(const tfb_conv *op, const uint32_t *x, const uint32_t *w,
                                   int32_t taps, uint32_t pair) {
  int32_t value = 0, i;
  (void)op;
  (void)pair;
  for (i = 0; i < taps; i += 2) value = tfb_smlad(x[i], w[i], value);
  return value;
}

/* Makes what scales a filter's sums suit its codes, which are words apart that are two: the
 * factor is without what codes are times, or else they are. */
static inline void tfb_suit(const tfb_conv *op, tfb_filter *filter, uint32_t *w,
                            const uint32_t *end, int32_t taps) {
  int32_t drop = 8 - op->bits;
  (void)taps;
  if (filter->factor & ((1 << drop) - 1)) { /* the codes' places below 1 do not fit in */
    for (; w < end; w += 2) {
      int32_t first = (int16_t)*w >> drop, second = (int16_t)(*w >> 16) >> drop;
      *w = ((uint32_t)first & 0xffff) | (uint32_t)second << 16;
    }
  } else {
    filter->factor >>= drop;
  }
}

/* Stores the outputs of two positions, `next` apart, for pairs of filters. Eight SMLAD, which
 * are 16 products, take three loads. The last rounding takes 1 off a negative number; it may go
 * by the sign before the product, for 0 is rounded to 0 either way. */
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

#define TFB_FOURS 0
#define TFB_RUN(op) 4 /* inputs that go into words by themselves */
#define TFB_LENGTH(op, taps) (((taps) + 1) & ~1) /* words of two filters */
/* What is added to inputs: their zero point taken off, in both halves of a word. */
#define TFB_PAIR_OF(op, positions) ((uint16_t)-tfb_zero(op) * 0x10001u)
#define tfb_blocks tfb_pair_blocks
#endif
