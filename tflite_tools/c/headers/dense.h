/* ---- Filters that are used once ---- */

/* What turns sums into stored values, of one filter after the other; but for the bias it is mostly
 * the same. */
typedef struct {
  tfb_filter filter;
  int32_t unit; /* what a bias is multiplied by */
} tfb_dense_scales;

static inline tfb_dense_scales tfb_first_scales(const tfb_conv *op) {
  tfb_dense_scales scales;
  scales.filter = tfb_filter_scales(op, 0);
  scales.unit = scales.filter.factor / op->prescale;
  return scales;
}

/* What is stored for a sum of filter c, in the unit of codes. */
static inline int8_t tfb_dense_stored(const tfb_conv *op, tfb_dense_scales *scales, int32_t c,
                                      int32_t value) {
  tfb_filter *filter = &scales->filter;
  int32_t exponent;
  if (op->form & (TFB_EACH_MULTIPLIER | TFB_EACH_SHIFT)) {
    *filter = tfb_filter_scales(op, c);
  } else {
    filter->base = tfb_bias(op, c) * scales->unit;
  }
  exponent = filter->exponent;
  value = tfb_product_of_twice(value * filter->factor + filter->base, filter->multiplier);
  value += (int32_t)(((uint32_t)1 << exponent) >> 1) - (exponent > 0 && value < 0);
  return (int8_t)tfb_clamp((value >> exponent) + op->out_zero, op->low, op->high);
}

/* ---- The same on cores with the DSP extension ---- */

#if TFB_DSP

/* n values plus those of `pair`, as 16-bit numbers in pairs: of every four the first and third, then
 * the second and fourth. Returns the sum of whole fours; behind the last value anything may stand. */
static TFB_APART int32_t tfb_widen_one(uint32_t *to, const int8_t *x, int32_t n, uint32_t pair) {
  int32_t sum = 0;
  for (; n > 0; n -= 4, x += 4, to += 2) {
    uint32_t word = 0;
    memcpy(&word, x, n < 4 ? (size_t)n : 4);
    to[0] = tfb_even_plus(pair, word);
    to[1] = tfb_odd_plus(pair, word);
    sum = tfb_smlad(to[0], 0x10001u, tfb_smlad(to[1], 0x10001u, sum));
  }
  return sum;
}

/* Codes of a filter as they are stored, and the products that they are summed to. */
typedef struct {
  const uint8_t *next;
  int32_t sum;
} tfb_run;

typedef void (*tfb_sum_blocks)(const uint32_t *x, tfb_run *runs, int32_t blocks);

/* Four codes of either of two filters, as pairs of numbers that are added to the sums. */
#define TFB_FOUR(x, even0, odd0, even1, odd1)              \
  do {                                                     \
    uint32_t first_ = (x)[0], second_ = (x)[1];            \
    a = tfb_smlad(second_, odd0, tfb_smlad(first_, even0, a)); \
    b = tfb_smlad(second_, odd1, tfb_smlad(first_, even1, b)); \
    TFB_LOADS_STAY;                                            \
  } while (0)
/* The same for codes below a mask that start at a bit of each byte of the words u and v. */
#define TFB_FOUR_AT(x, bit, mask)                                                     \
  TFB_FOUR(x, u >> (bit) & (mask), u >> ((bit) + 8) & (mask), v >> (bit) & (mask), \
           v >> ((bit) + 8) & (mask))

/* The same for codes of 8 bits. */
#define TFB_FOUR_BYTES(x, four0, four1)                               \
  do {                                                                \
    uint32_t u = four0, v = four1;                                    \
    TFB_FOUR(x, tfb_even(u), tfb_odd(u), tfb_even(v), tfb_odd(v));    \
  } while (0)

/* Blocks as tfb_block2, 3 and 4 unpack them, and of 16 codes of 8 bits. A code's sign is turned, which
 * makes it larger by half its range and never negative: it needs a mask and no more. */
static TFB_APART void tfb_blocks8(const uint32_t *x, tfb_run *runs, int32_t blocks) {
  const uint8_t *p = runs[0].next, *q = runs[1].next;
  int32_t a = 0, b = 0;
  for (; blocks > 0; blocks--, p += 16, q += 16, x += 8) {
    TFB_FOUR_BYTES(x, tfb_word(p), tfb_word(q));
    TFB_FOUR_BYTES(x + 2, tfb_word(p + 4), tfb_word(q + 4));
    TFB_FOUR_BYTES(x + 4, tfb_word(p + 8), tfb_word(q + 8));
    TFB_FOUR_BYTES(x + 6, tfb_word(p + 12), tfb_word(q + 12));
  }
  runs[0].sum = a;
  runs[1].sum = b;
}
static TFB_APART void tfb_blocks4(const uint32_t *x, tfb_run *runs, int32_t blocks) {
  const uint8_t *p = runs[0].next, *q = runs[1].next;
  uint32_t mask = tfb_in_register(0xf000fu);
  int32_t a = 0, b = 0;
  for (; blocks > 0; blocks--, p += 4, q += 4, x += 4) {
    uint32_t u = tfb_word(p) ^ 0x88888888u, v = tfb_word(q) ^ 0x88888888u;
    TFB_FOUR_AT(x, 0, mask);
    TFB_FOUR_AT(x + 2, 4, mask);
  }
  runs[0].sum = a;
  runs[1].sum = b;
}
/* The word in the middle, of which two more fours take a bit, is loaded again for each: the registers
 * do not hold it meanwhile. */
static TFB_APART void tfb_blocks3(const uint32_t *x, tfb_run *runs, int32_t blocks) {
  const uint8_t *p = runs[0].next, *q = runs[1].next;
  const uint32_t mask = tfb_in_register(0x70007u), lowest = tfb_in_register(0x20202020u);
  const uint32_t *end = x + 16 * blocks;
  int32_t a = 0, b = 0;
  for (; x != end; p += 12, q += 12, x += 16) {
    uint32_t u = tfb_word(p + 4) ^ 0x24242424u, v = tfb_word(q + 4) ^ 0x24242424u;
    TFB_FOUR_AT(x + 4, 0, mask);
    TFB_FOUR_AT(x + 6, 3, mask);
    u = tfb_word(p + 8) ^ 0xa4a4a4a4u, v = tfb_word(q + 8) ^ 0xa4a4a4a4u;
    TFB_FOUR_AT(x + 8, 0, mask);
    TFB_FOUR_AT(x + 10, 3, mask);
    u = (u & 0xc0c0c0c0u) | (tfb_word(p + 4) >> 2 & lowest);
    v = (v & 0xc0c0c0c0u) | (tfb_word(q + 4) >> 2 & lowest);
    TFB_FOUR_AT(x + 14, 5, mask);
    u = tfb_word(p) ^ 0xa4a4a4a4u, v = tfb_word(q) ^ 0xa4a4a4a4u;
    TFB_FOUR_AT(x, 0, mask);
    TFB_FOUR_AT(x + 2, 3, mask);
    u = (u & 0xc0c0c0c0u) | (tfb_word(p + 4) >> 1 & lowest);
    v = (v & 0xc0c0c0c0u) | (tfb_word(q + 4) >> 1 & lowest);
    TFB_FOUR_AT(x + 12, 5, mask);
  }
  runs[0].sum = a;
  runs[1].sum = b;
}
static TFB_APART void tfb_blocks2(const uint32_t *x, tfb_run *runs, int32_t blocks) {
  const uint8_t *p = runs[0].next, *q = runs[1].next;
  uint32_t mask = tfb_in_register(0x30003u);
  int32_t a = 0, b = 0;
  for (; blocks > 0; blocks--, p += 4, q += 4, x += 8) {
    uint32_t u = tfb_word(p) ^ 0xaaaaaaaau, v = tfb_word(q) ^ 0xaaaaaaaau;
    TFB_FOUR_AT(x, 0, mask);
    TFB_FOUR_AT(x + 2, 2, mask);
    TFB_FOUR_AT(x + 4, 4, mask);
    TFB_FOUR_AT(x + 6, 6, mask);
  }
  runs[0].sum = a;
  runs[1].sum = b;
}

/* The products of the n codes, below 32, behind a row's last block. */
static TFB_APART int32_t tfb_rest(const tfb_conv *op, const uint8_t *codes, const uint32_t *x,
                                  int32_t n) {
  int8_t row[32];
  int32_t sum = 0, i;
  tfb_stream stream = {0, 0, 0};
  stream.next = codes;
  if (op->bits == 8) {
    memcpy(row, codes, (size_t)n);
  } else {
    tfb_unpack(&stream, op->bits, row, n);
  }
  for (i = n; i % 4 != 0; i++) row[i] = 0;
  for (i = 0; i < n; i += 4, x += 2) {
    uint32_t four = tfb_word(row + i);
    sum = tfb_smlad(x[1], tfb_odd(four), tfb_smlad(x[0], tfb_even(four), sum));
  }
  return sum >> (8 - op->bits);
}

/* A convolution whose filters each see the whole input, in order; every filter begins with a byte.
 * `scratch` holds the input as 16-bit numbers, `blocks` is the function for the codes' width. */
static TFB_APART void tfb_dense(const tfb_conv *op, const int8_t *in, int8_t *out, int8_t *scratch,
                                tfb_sum_blocks blocks) {
  int32_t taps = op->in_h * op->in_w * op->in_c, bits = op->bits, c, i;
  int32_t block = bits == 4 ? 8 : bits == 3 ? 32 : 16, rest = taps % block;
  int32_t bytes = taps * bits / 8, whole = taps - rest;
  uint32_t half = bits == 8 ? 0 : (uint32_t)1 << (bits - 1);
  uint32_t *x = (uint32_t *)(void *)scratch, pair = (uint16_t)-tfb_zero(op) * 0x10001u;
  uint32_t taken = (uint32_t)tfb_widen_one(x, in, whole, pair) * half;
  const uint8_t *row = op->weights;
  tfb_dense_scales scales = tfb_first_scales(op);
  tfb_widen_one(x + whole / 2, in + whole, rest, pair);
  for (c = 0; c < op->out_c; c += 2) {
    int32_t count = tfb_min(2, op->out_c - c);
    tfb_run runs[2];
    runs[0].next = row;
    runs[1].next = count == 2 ? row + bytes : row;
    blocks(x, runs, whole / block);
    for (i = 0; i < count; i++, row += bytes) {
      int32_t value = (int32_t)((uint32_t)runs[i].sum - taken);
      if (rest > 0) value += tfb_rest(op, row + whole * bits / 8, x + whole / 2, rest);
      *out++ = tfb_dense_stored(op, &scales, c + i, value);
    }
  }
}
#endif
