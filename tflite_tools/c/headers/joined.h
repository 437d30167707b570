/* ---- Two products in a multiplication, where there are neither DSP instructions nor Helium ---- */

#if TFB_JOINS

/* With codes of 4 bits and fewer a multiplication of two words makes two products, and adds them
 * up:
 *
 *   (x1 + 65536 x0) (w0 + 65536 w1) = x1 w0 + 65536 (x0 w0 + x1 w1) + 2^32 x0 w1
 *
 * The upper half is what is wanted, the last product is beyond 32 bits, and the first stays in
 * the lower half. A product lies between -(2^7 - 1) 2^(bits - 1) and 2^7 2^(bits - 1). So after
 * 2^(8 - bits) multiplications the sum of twice so many products lies between -2^15 + 2^8 and
 * 2^15, both included, and that in the lower half between -2^14 and 2^14. Sums begin with
 * TFB_JOINED: the lower half has 0x807f then, and leaves 16 bits neither way; the upper one is
 * by 1 lower, and fits as well. */
#define TFB_JOINED 0xffff807fu

/* Where the tile is written by hand, codes of 8 bits and the inputs that they meet have a word each,
 * and so have sums. */
#if TFB_BY_HAND
static inline int32_t tfb_most_taps(int32_t bits) {
  return bits == 8 ? INT32_MAX : 256 >> (bits - 1);
}
static inline uint32_t tfb_first_sum(int32_t bits) { return bits == 8 ? 0 : TFB_JOINED; }
static inline int32_t tfb_sum_shift(int32_t bits) { return bits == 8 ? 0 : 16; }
#else
#define tfb_most_taps(bits) (256 >> ((bits)-1))
#define tfb_first_sum(bits) TFB_JOINED
#define tfb_sum_shift(bits) 16
#endif

#define TFB_RUN(op) ((op)->bits == 8 ? 1 : 4) /* how many inputs fill words */
#define TFB_LENGTH(op, taps) ((op)->bits == 8 ? 2 * (taps) : ((taps) + 1) & ~1) /* of two rows */

/* Words from one of a position to the next of so many, and whether each is one input. */
#define TFB_PLAIN 8
#define TFB_PAIR_OF(op, positions) ((positions) | ((op)->bits == 8 ? TFB_PLAIN : 0))

/* Codes 0 and 2, and 1 and 3, of every four of two rows: those below a mask in the words u and
 * v, of which `half` is the sign. */
static inline uint32_t *tfb_put_fours(uint32_t *to, uint32_t u, uint32_t v, uint32_t mask,
                                      uint32_t half) {
  to[0] = (u & mask) - half;
  to[1] = (v & mask) - half;
  to[2] = (u >> 8 & mask) - half;
  to[3] = (v >> 8 & mask) - half;
  return to + 4;
}

/* Blocks of packed codes of two rows in words, as tfb_block2, 3 and 4 unpack them. A code's sign is
 * turned, which makes it larger by half its range: that is taken off again. */
static TFB_APART uint32_t *tfb_widen2(uint32_t *to, const uint8_t *p, const uint8_t *q,
                                      int32_t blocks) {
  const uint32_t mask = tfb_in_register(0x30003u), half = tfb_in_register(0x20002u);
  for (; blocks > 0; blocks--, p += 4, q += 4) {
    uint32_t u = tfb_word(p) ^ 0xaaaaaaaau, v = tfb_word(q) ^ 0xaaaaaaaau;
    to = tfb_put_fours(to, u, v, mask, half);
    to = tfb_put_fours(to, u >> 2, v >> 2, mask, half);
    to = tfb_put_fours(to, u >> 4, v >> 4, mask, half);
    to = tfb_put_fours(to, u >> 6, v >> 6, mask, half);
  }
  return to;
}
static TFB_APART uint32_t *tfb_widen3(uint32_t *to, const uint8_t *p, const uint8_t *q,
                                      int32_t blocks) {
  const uint32_t mask = tfb_in_register(0x70007u), half = tfb_in_register(0x40004u);
  const uint32_t upper = 0xc0c0c0c0u, lowest = 0x20202020u;
  for (; blocks > 0; blocks--, p += 12, q += 12) {
    uint32_t u = tfb_word(p) ^ 0xa4a4a4a4u, v = tfb_word(q) ^ 0xa4a4a4a4u, u6, v6, u7, v7;
    to = tfb_put_fours(to, u, v, mask, half);
    to = tfb_put_fours(to, u >> 3, v >> 3, mask, half);
    u6 = u & upper, v6 = v & upper;
    u = tfb_word(p + 4) ^ 0x24242424u, v = tfb_word(q + 4) ^ 0x24242424u;
    to = tfb_put_fours(to, u, v, mask, half);
    to = tfb_put_fours(to, u >> 3, v >> 3, mask, half);
    u6 |= u >> 1 & lowest, v6 |= v >> 1 & lowest;
    u7 = u >> 2 & lowest, v7 = v >> 2 & lowest;
    u = tfb_word(p + 8) ^ 0xa4a4a4a4u, v = tfb_word(q + 8) ^ 0xa4a4a4a4u;
    to = tfb_put_fours(to, u, v, mask, half);
    to = tfb_put_fours(to, u >> 3, v >> 3, mask, half);
    to = tfb_put_fours(to, u6 >> 5, v6 >> 5, mask, half);
    u7 |= u & upper, v7 |= v & upper;
    to = tfb_put_fours(to, u7 >> 5, v7 >> 5, mask, half);
  }
  return to;
}
static TFB_APART uint32_t *tfb_widen4(uint32_t *to, const uint8_t *p, const uint8_t *q,
                                      int32_t blocks) {
  const uint32_t mask = tfb_in_register(0xf000fu), half = tfb_in_register(0x80008u);
  for (; blocks > 0; blocks--, p += 4, q += 4) {
    uint32_t u = tfb_word(p) ^ 0x88888888u, v = tfb_word(q) ^ 0x88888888u;
    to = tfb_put_fours(to, u, v, mask, half);
    to = tfb_put_fours(to, u >> 4, v >> 4, mask, half);
  }
  return to;
}

static inline uint32_t tfb_joint(int32_t low, int32_t high) {
  return (uint32_t)low + ((uint32_t)high << 16);
}

#define TFB_PLAIN_TWO "ldrsb %[x], [%[a]], #1\nldrsb %[y], [%[b]], #1\nstrd %[x], %[y], [%[to]], #8\n"
/* Two rows of n bytes in words side by side, `step` further the next. */
static TFB_APART uint32_t *tfb_put_plain(uint32_t *to, const int8_t *a, const int8_t *b, int32_t n,
                                         uint32_t step) {
#if TFB_BY_HAND
  int32_t whole = n & ~3;
  if (whole > 0) { /* step is 2 */
    uint32_t x, y;
    n -= whole;
    __asm__ volatile(
        "1:\n" TFB_PLAIN_TWO TFB_PLAIN_TWO TFB_PLAIN_TWO TFB_PLAIN_TWO
        "subs %[n], #4\n"
        "bgt 1b\n"
        : [to] "+r"(to), [a] "+r"(a), [b] "+r"(b), [n] "+r"(whole), [x] "=&r"(x), [y] "=&r"(y)
        :
        : "cc", "memory");
  }
#endif
  for (; n >= 2; n -= 2, a += 2, b += 2, to += step) {
    to[0] = (uint32_t)a[0];
    to[1] = (uint32_t)b[0];
    to += step;
    to[0] = (uint32_t)a[1];
    to[1] = (uint32_t)b[1];
  }
  if (n > 0) {
    to[0] = (uint32_t)*a;
    to[1] = (uint32_t)*b;
    to += step;
  }
  return to;
}

/* The same of n codes times 2^drop, a byte each; the last one or two are a pair in order. */
static TFB_APART uint32_t *tfb_join(uint32_t *to, const int8_t *a, const int8_t *b, int32_t n,
                                    int32_t drop) {
  if (drop == 0) return tfb_put_plain(to, a, b, n, 2);
  for (; n >= 4; n -= 4, a += 4, b += 4, to += 4) {
    to[0] = tfb_joint(a[0] >> drop, a[2] >> drop);
    to[1] = tfb_joint(b[0] >> drop, b[2] >> drop);
    to[2] = tfb_joint(a[1] >> drop, a[3] >> drop);
    to[3] = tfb_joint(b[1] >> drop, b[3] >> drop);
  }
  if (n > 0) {
    int32_t last = n - 1;
    *to++ = tfb_joint(a[0] >> drop, last ? a[last] >> drop : 0);
    *to++ = tfb_joint(b[0] >> drop, last ? b[last] >> drop : 0);
    if (n > 2) {
      *to++ = tfb_joint(a[1] >> drop, 0);
      *to++ = tfb_joint(b[1] >> drop, 0);
    }
  }
  return to;
}

/* The inputs of two positions, which meet them: halves are the other way round. Words of the two
 * lie side by side, and `step` further the next. */
static TFB_APART uint32_t *tfb_widen(uint32_t *to, const int8_t *a, const int8_t *b, int32_t n,
                                     uint32_t step) {
  if (step & TFB_PLAIN) return tfb_put_plain(to, a, b, n, step & ~(uint32_t)TFB_PLAIN);
  for (; n >= 4; n -= 4, a += 4, b += 4, to += step) {
    to[0] = tfb_joint(a[2], a[0]);
    to[1] = tfb_joint(b[2], b[0]);
    to += step;
    to[0] = tfb_joint(a[3], a[1]);
    to[1] = tfb_joint(b[3], b[1]);
  }
  if (n > 0) {
    to[0] = tfb_joint(a[n - 1], a[0]);
    to[1] = tfb_joint(b[n - 1], b[0]);
    to += step;
    if (n > 2) {
      to[0] = tfb_joint(0, a[1]);
      to[1] = tfb_joint(0, b[1]);
      to += step;
    }
  }
  return to;
}

/* A sum that a filter makes of one of two positions; of small codes it is by as much lower as
 * there are parts of it that fit 16 bits. */
static inline int32_t tfb_pair_sum(const tfb_conv *op, const uint32_t *x, const uint32_t *w,
                                   int32_t taps, uint32_t step) {
  int32_t most = tfb_most_taps(op->bits), value = 0;
  for (step &= ~(uint32_t)TFB_PLAIN; taps > 0; taps -= most) {
    const uint32_t *end = w + tfb_min(taps, most);
    uint32_t sum = tfb_first_sum(op->bits);
    for (; w != end; w += 2, x += step) sum += *x * *w;
    value += (int32_t)sum >> tfb_sum_shift(op->bits);
  }
  return value;
}

/* Makes what scales a filter's sums suit its codes, words apart that are two: sums are in the
 * unit of codes, and what they are short of the products of (x - zero) is the same for all
 * positions. */
static inline void tfb_suit(const tfb_conv *op, tfb_filter *filter, uint32_t *w,
                            const uint32_t *end, int32_t taps) {
  int32_t most = tfb_most_taps(op->bits), zero = tfb_zero(op);
  int32_t short_of = op->bits == 8 ? 0 : (taps + most - 1) / most;
  if (zero != 0) {
    for (; w < end; w += 2) {
      int32_t low = (int16_t)*w;
      short_of -= zero * (low + ((int32_t)(*w - (uint32_t)low) >> 16));
    }
  }
  filter->base = (int32_t)((uint32_t)filter->base + (uint32_t)short_of * (uint32_t)filter->factor);
}
#endif
