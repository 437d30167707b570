/* ---- Packed weights ---- */

typedef struct {
  const uint8_t *next; /* first byte that is not in `held` */
  uint32_t held;
  int32_t count; /* bits in `held`, below 8 */
} tfb_stream;

static inline uint32_t tfb_word(const void *bytes) {
  uint32_t word;
  memcpy(&word, bytes, 4);
  return word;
}

static inline void tfb_put(int8_t *row, uint32_t four) { memcpy(row, &four, 4); }
static inline void tfb_put2(int8_t *row, uint32_t low, uint32_t high) {
  tfb_put(row, low);
  tfb_put(row + 4, high);
}

/* Four codes in order, each into the upper bits of a byte; `mask` takes those bits of every byte. */
static inline uint32_t tfb_four2(uint32_t x, uint32_t mask) {
  x |= x << 6;
  return (x | x << 12) << 6 & mask;
}
static inline uint32_t tfb_four3(uint32_t x, uint32_t mask) {
  x = (x | x << 10) & 0x003f003fu;
  return (x | x << 5) << 5 & mask;
}
static inline uint32_t tfb_four4(uint32_t x, uint32_t mask) {
  x = (x | x << 8) & 0x00ff00ffu;
  return (x | x << 4) << 4 & mask;
}

/* A block of codes: a shift and a mask for every four. */
static inline void tfb_block2(const uint8_t *next, int8_t *row, uint32_t mask) {
  uint32_t x = tfb_word(next);
  tfb_put2(row, x << 6 & mask, x << 4 & mask);
  tfb_put2(row + 8, x << 2 & mask, x & mask);
}
static inline void tfb_block3(const uint8_t *next, int8_t *row, uint32_t mask) {
  uint32_t x = tfb_word(next), y = tfb_word(next + 4), z = tfb_word(next + 8);
  uint32_t upper = mask << 1 & mask, lowest = mask ^ upper;
  tfb_put2(row, x << 5 & mask, x << 2 & mask);
  tfb_put2(row + 8, y << 5 & mask, y << 2 & mask);
  tfb_put2(row + 16, z << 5 & mask, z << 2 & mask);
  tfb_put2(row + 24, (x & upper) | (y >> 1 & lowest), (z & upper) | (y >> 2 & lowest));
}
static inline void tfb_block4(const uint8_t *next, int8_t *row, uint32_t mask) {
  uint32_t x = tfb_word(next);
  tfb_put2(row, x << 4 & mask, x & mask);
}

/* The next n codes times 2^(8 - bits); those of 8 bits stay where they are, others go to `row`. */
static TFB_APART const int8_t *tfb_unpack(tfb_stream *stream, int32_t bits, int8_t *row,
                                          int32_t n) {
  const uint8_t *next = stream->next;
  uint32_t held = stream->held, mask = (0xff00u >> bits & 0xff) * 0x01010101u;
  int32_t count = stream->count;
  int8_t *to = row;
  if (bits == 8) {
    stream->next += n;
    return (const int8_t *)next;
  }
  /* Blocks where the row begins with a byte; then as many bits in as out, wherever it begins. */
  if (bits == 2) {
    for (; count == 0 && n >= 16; n -= 16, next += 4, to += 16) tfb_block2(next, to, mask);
    for (; n >= 4; n -= 4, next += 1, to += 4, held >>= 8) {
      held |= (uint32_t)next[0] << count;
      tfb_put(to, tfb_four2(held & 0xff, mask));
    }
  } else if (bits == 3) {
    for (; count == 0 && n >= 32; n -= 32, next += 12, to += 32) tfb_block3(next, to, mask);
    for (; n >= 8; n -= 8, next += 3, to += 8, held >>= 24) {
      held |= (next[0] | (uint32_t)next[1] << 8 | (uint32_t)next[2] << 16) << count;
      tfb_put2(to, tfb_four3(held & 0xfff, mask), tfb_four3(held >> 12 & 0xfff, mask));
    }
  } else {
    for (; count == 0 && n >= 8; n -= 8, next += 4, to += 8) tfb_block4(next, to, mask);
    for (; n >= 4; n -= 4, next += 2, to += 4, held >>= 16) {
      held |= (next[0] | (uint32_t)next[1] << 8) << count;
      tfb_put(to, tfb_four4(held & 0xffff, mask));
    }
  }
  for (; n > 0; n--, held >>= bits, count -= bits) {
    if (count < bits) {
      held |= (uint32_t)*next++ << count;
      count += 8;
    }
    *to++ = (int8_t)(held << (8 - bits));
  }
  stream->next = next;
  stream->held = held;
  stream->count = count;
  return row;
}

/* ---- Dot products ---- */

/* Sums of this many positions are kept, those of a second filter behind them; a multiple of 4. */
#define TFB_CHUNK 32

#if TFB_MVE

/* Adds to sums[0] and [TFB_CHUNK] the sums of (x - zero) * w, with the weights at w and w + row. */
static TFB_APART void tfb_dot2(const int8_t *x, const int8_t *w, int32_t row, int32_t n,
                               int32_t zero, int32_t *sums) {
  int32_t first = sums[0], second = sums[TFB_CHUNK], all_first = 0, all_second = 0;
  for (; n > 0; n -= 16, x += 16, w += 16) {
    mve_pred16_t left = vctp8q((uint32_t)n);
    int8x16_t a = vldrbq_z_s8(x, left), b = vldrbq_z_s8(w, left), c = vldrbq_z_s8(w + row, left);
    first = vmladavaq_s8(first, a, b);
    second = vmladavaq_s8(second, a, c);
    all_first = vaddvaq_s8(all_first, b);
    all_second = vaddvaq_s8(all_second, c);
  }
  sums[0] = first - zero * all_first;
  sums[TFB_CHUNK] = second - zero * all_second;
}

static TFB_APART int32_t tfb_sum(const int8_t *w, int32_t n) {
  int32_t sum = 0;
  for (; n > 0; n -= 16, w += 16) sum = vaddvaq_s8(sum, vldrbq_z_s8(w, vctp8q((uint32_t)n)));
  return sum;
}

#else

/* Adds to sums[0] and [TFB_CHUNK] the sums of (x - zero) * w, with the weights at w and w + row. */
static TFB_APART void tfb_dot2(const int8_t *x, const int8_t *w, int32_t row, int32_t n,
                               int32_t zero, int32_t *sums) {
  int32_t first = sums[0], second = sums[TFB_CHUNK];
#if TFB_DSP
  uint32_t pair = (uint16_t)-zero * 0x10001u;
  for (; n >= 4; n -= 4, x += 4, w += 4) {
    uint32_t a = tfb_word(x), b = tfb_word(w), c = tfb_word(w + row);
    uint32_t even = tfb_even_plus(pair, a), odd = tfb_odd_plus(pair, a);
    first = tfb_smlad(odd, tfb_odd(b), tfb_smlad(even, tfb_even(b), first));
    second = tfb_smlad(odd, tfb_odd(c), tfb_smlad(even, tfb_even(c), second));
  }
#endif
  for (; n > 0; n--, w++) {
    int32_t value = *x++ - zero;
    first += value * w[0];
    second += value * w[row];
  }
  sums[0] = first;
  sums[TFB_CHUNK] = second;
}

static TFB_APART int32_t tfb_sum(const int8_t *w, int32_t n) {
  int32_t sum = 0;
#if TFB_DSP
  for (; n >= 4; n -= 4, w += 4) {
    uint32_t word = tfb_word(w), ones = 0x10001u;
    sum = tfb_smlad(tfb_odd(word), ones, tfb_smlad(tfb_even(word), ones, sum));
  }
#endif
  for (; n > 0; n--) sum += *w++;
  return sum;
}

#endif
