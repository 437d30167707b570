/* ---- Two filters in one word ---- */

#if TFB_JOINS

/* With codes of 4 bits and fewer one multiplication makes two products. A word holds the codes v and
 * w of two filters as v + 65536 w, and
 *
 *   x (v + 65536 w) = x v + 65536 x w
 *
 * so that sums of both filters grow in one register. The lower half is the first filter's sum while
 * that fits 16 bits: |x v| is at most 2^(7 + bits - 1), so 255 >> (bits - 1) products always do,
 * 127, 63 or 31 of them. Then both are added to sums of 32 bits. */

/* The words of two rows of codes times 2^drop. */
static TFB_APART void tfb_join(const int8_t *first, const int8_t *second, int32_t drop, int32_t n,
                               uint32_t *words) {
  for (; n > 0; n--) {
    *words++ = (uint32_t)(*first++ >> drop) + ((uint32_t)(*second++ >> drop) << 16);
  }
}

/* Adds what two filters have summed up to sums[0] and [TFB_CHUNK], times 2^drop. */
static inline void tfb_part_joined(uint32_t both, int32_t drop, int32_t *sums) {
  int32_t first = (int16_t)both, second = (int32_t)(both - (uint32_t)first) >> 16;
  sums[0] += first * (1 << drop);
  sums[TFB_CHUNK] += second * (1 << drop);
}

/* Adds to sums[0] and [TFB_CHUNK] the sums of n products (x - zero) * w, in the unit of codes times
 * 2^drop; |x - zero| may be twice as large as |x|. */
static TFB_APART void tfb_joined_dot(const int8_t *x, const uint32_t *w, int32_t n, int32_t zero,
                                     int32_t drop, int32_t *sums) {
  int32_t most = 127 >> (7 - drop), i;
  for (; n > 0; n -= most) {
    uint32_t both = 0;
    for (i = tfb_min(n, most); i >= 4; i -= 4, x += 4, w += 4) {
      both += (uint32_t)(x[0] - zero) * w[0];
      both += (uint32_t)(x[1] - zero) * w[1];
      both += (uint32_t)(x[2] - zero) * w[2];
      both += (uint32_t)(x[3] - zero) * w[3];
    }
    for (; i > 0; i--) both += (uint32_t)(*x++ - zero) * *w++;
    tfb_part_joined(both, drop, sums);
  }
}

#define TFB_TAP(k)                        \
  do {                                    \
    uint32_t word = w[k];                 \
    s0 += (uint32_t)(int32_t)a[k] * word; \
    s1 += (uint32_t)(int32_t)b[k] * word; \
    s2 += (uint32_t)(int32_t)c[k] * word; \
    s3 += (uint32_t)(int32_t)d[k] * word; \
  } while (0)

/* Sums of n products for four inputs, `step` apart. */
static TFB_APART void tfb_joined_sums4(const int8_t *x, int32_t step, const uint32_t *w, int32_t n,
                                       uint32_t *sums) {
  const int8_t *a = x, *b = a + step, *c = b + step, *d = c + step;
  const uint32_t *end = w + n, *last = end - 3;
  uint32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (; w < last; a += 4, b += 4, c += 4, d += 4, w += 4) {
    TFB_TAP(0);
    TFB_TAP(1);
    TFB_TAP(2);
    TFB_TAP(3);
  }
  for (; w < end; a++, b++, c++, d++, w++) TFB_TAP(0);
  sums[0] = s0;
  sums[1] = s1;
  sums[2] = s2;
  sums[3] = s3;
}

#undef TFB_TAP

/* Adds to sums[] and sums[TFB_CHUNK + ] the sums of n products for 4 * fours inputs, `step` apart,
 * in the unit of codes times 2^drop. */
static TFB_APART void tfb_joined_dot4(const int8_t *x, int32_t step, const uint32_t *words,
                                      int32_t n, int32_t drop, int32_t fours, int32_t *sums) {
  int32_t most = 255 >> (7 - drop), first, i;
  uint32_t both[4];
  for (; fours > 0; fours--, x += 4 * step, sums += 4) {
    for (first = 0; first < n; first += most) {
      tfb_joined_sums4(x + first, step, words + first, tfb_min(n - first, most), both);
      for (i = 0; i < 4; i++) tfb_part_joined(both[i], drop, sums + i);
    }
  }
}

#endif
