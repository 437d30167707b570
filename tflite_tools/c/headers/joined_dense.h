/* ---- Filters that are used once, on cores that have neither DSP instructions nor Helium ---- */

#if TFB_JOINS

/* Two inputs and two codes of 4 bits and fewer in a word each make one multiplication, of which
 * two products are added up:
 *
 *   (x1 + 65536 x0) (w0 + 65536 w1) = x1 w0 + 65536 (x0 w0 + x1 w1) + 2^32 x0 w1
 *
 * The upper half is the sum that is wanted; the last product is beyond 32 bits, and the first
 * stays in the lower half. Codes are w from 0 to 2^bits - 1 (their sign is turned, as in
 * dense.h), and inputs less the zero point x from `low` to `low` + 255. So after n
 * multiplications sums that began with -low (2^bits - 1) n in the lower half, and twice that in
 * the upper one, have no half below 0 or above 2 * 255 (2^bits - 1) n: 61,200 for 8 at 4 bits,
 * 57,120 for 16 at 3 bits. */

/* Sums blocks of the codes of some filters, which are so many bytes each. */
typedef struct {
  const uint32_t *x;
  int32_t blocks, bytes;
  uint32_t start; /* what sums begin with, unless codes have 8 bits */
} tfb_inputs;
typedef void (*tfb_sum_blocks)(const tfb_inputs *in, const uint8_t *codes, int32_t filters,
                               uint32_t *sums);

/* A word that begins where words do, if the pointer that runs along does. */
#if TFB_UNALIGNED || !defined(__GNUC__)
#define TFB_CODES(p) tfb_word(p)
#else
static inline uint32_t tfb_codes(const uint8_t *p) {
  uint32_t word;
  if ((uintptr_t)p & 3) return tfb_word(p);
  memcpy(&word, __builtin_assume_aligned(p, 4), 4);
  return word;
}
#define TFB_CODES(p) tfb_codes(p)
#endif

/* Compilers tear sums apart, which costs where one instruction multiplies and adds. */
#if TFB_BY_HAND
#define TFB_ADD(sum, x, w) sum = tfb_mla(sum, x, w)
#else
#define TFB_ADD(sum, x, w) sum += (x) * (w)
#endif

/* Four codes of either filter, below a mask from a bit of each byte of the words u and v on. */
#define TFB_FOUR_AT(x, bit, mask)                                            \
  do {                                                                       \
    uint32_t first_ = (x)[0], second_ = (x)[1];                              \
    TFB_ADD(a, first_, u >> (bit) & (mask));                                 \
    TFB_ADD(b, first_, v >> (bit) & (mask));                                 \
    TFB_ADD(a, second_, u >> ((bit) + 8) & (mask));                          \
    TFB_ADD(b, second_, v >> ((bit) + 8) & (mask));                          \
    TFB_LOADS_STAY;                                                          \
  } while (0)

/* One block as tfb_block2 and 3 unpack them, and two of tfb_block4. */
static TFB_APART void tfb_blocks2(const tfb_inputs *in, const uint8_t *codes, int32_t filters,
                                  uint32_t *sums) {
  const uint32_t mask = tfb_in_register(0x30003u);
  for (; filters > 0; filters -= 2, codes += 2 * in->bytes) {
    const uint8_t *p = codes, *q = filters == 1 ? p : p + in->bytes;
    const uint32_t *x = in->x, *end = x + 8 * in->blocks;
    uint32_t sum_a = 0, sum_b = 0, start = in->start;
    for (; x != end; p += 4, q += 4, x += 8) {
      uint32_t u = TFB_CODES(p) ^ 0xaaaaaaaau, v = TFB_CODES(q) ^ 0xaaaaaaaau, a = start, b = start;
      TFB_FOUR_AT(x, 0, mask);
      TFB_FOUR_AT(x + 2, 2, mask);
      TFB_FOUR_AT(x + 4, 4, mask);
      TFB_FOUR_AT(x + 6, 6, mask);
      sum_a += a >> 16, sum_b += b >> 16;
    }
    *sums++ = sum_a;
    *sums++ = sum_b;
  }
}
static TFB_APART void tfb_blocks3(const tfb_inputs *in, const uint8_t *codes, int32_t filters,
                                  uint32_t *sums) {
  const uint32_t mask = tfb_in_register(0x70007u), lowest = tfb_in_register(0x20202020u);
  for (; filters > 0; filters -= 2, codes += 2 * in->bytes) {
    const uint8_t *p = codes, *q = filters == 1 ? p : p + in->bytes;
    const uint32_t *x = in->x, *end = x + 16 * in->blocks;
    uint32_t sum_a = 0, sum_b = 0, start = in->start;
    for (; x != end; p += 12, q += 12, x += 16) {
      uint32_t u = TFB_CODES(p + 4) ^ 0x24242424u, v = TFB_CODES(q + 4) ^ 0x24242424u;
      uint32_t a = start, b = start;
      TFB_FOUR_AT(x + 4, 0, mask);
      TFB_FOUR_AT(x + 6, 3, mask);
      u = TFB_CODES(p + 8) ^ 0xa4a4a4a4u, v = TFB_CODES(q + 8) ^ 0xa4a4a4a4u;
      TFB_FOUR_AT(x + 8, 0, mask);
      TFB_FOUR_AT(x + 10, 3, mask);
      u = (u & 0xc0c0c0c0u) | (TFB_CODES(p + 4) >> 2 & lowest);
      v = (v & 0xc0c0c0c0u) | (TFB_CODES(q + 4) >> 2 & lowest);
      TFB_FOUR_AT(x + 14, 5, mask);
      u = TFB_CODES(p) ^ 0xa4a4a4a4u, v = TFB_CODES(q) ^ 0xa4a4a4a4u;
      TFB_FOUR_AT(x, 0, mask);
      TFB_FOUR_AT(x + 2, 3, mask);
      u = (u & 0xc0c0c0c0u) | (TFB_CODES(p + 4) >> 1 & lowest);
      v = (v & 0xc0c0c0c0u) | (TFB_CODES(q + 4) >> 1 & lowest);
      TFB_FOUR_AT(x + 12, 5, mask);
      sum_a += a >> 16, sum_b += b >> 16;
    }
    *sums++ = sum_a;
    *sums++ = sum_b;
  }
}
static TFB_APART void tfb_blocks4(const tfb_inputs *in, const uint8_t *codes, int32_t filters,
                                  uint32_t *sums) {
  const uint32_t mask = tfb_in_register(0xf000fu);
  for (; filters > 0; filters -= 2, codes += 2 * in->bytes) {
    const uint8_t *p = codes, *q = filters == 1 ? p : p + in->bytes;
    const uint32_t *x = in->x, *end = x + 8 * in->blocks;
    uint32_t sum_a = 0, sum_b = 0, start = in->start;
    for (; x != end; p += 8, q += 8, x += 8) {
      uint32_t u = TFB_CODES(p) ^ 0x88888888u, v = TFB_CODES(q) ^ 0x88888888u, a = start, b = start;
      TFB_FOUR_AT(x, 0, mask);
      TFB_FOUR_AT(x + 2, 4, mask);
      u = TFB_CODES(p + 4) ^ 0x88888888u, v = TFB_CODES(q + 4) ^ 0x88888888u;
      TFB_FOUR_AT(x + 4, 0, mask);
      TFB_FOUR_AT(x + 6, 4, mask);
      sum_a += a >> 16, sum_b += b >> 16;
    }
    *sums++ = sum_a;
    *sums++ = sum_b;
  }
}

#if TFB_BY_HAND
#define TFB_WITH(from, sum) \
  "ldrsb %[weight], [%[" from "]], #1\nmla %[" sum "], %[value], %[weight], %[" sum "]\n"
#define TFB_INPUT                \
  "ldrsh %[value], [%[x]], #2\n" \
  TFB_WITH("p", "s0") TFB_WITH("q", "s1") TFB_WITH("r", "s2") TFB_WITH("s", "s3")
#endif

/* Codes of 8 bits, as many as there are blocks, and inputs in order as numbers of 16 bits; filters
 * come four at a time. */
#define TFB_TAP(k)                                               \
  do {                                                           \
    int32_t value = x[k];                                        \
    s0 += value * p[k], s1 += value * q[k];                      \
    s2 += value * r[k], s3 += value * s[k];                      \
    TFB_LOADS_STAY;                                              \
  } while (0)
static TFB_APART void tfb_blocks8(const tfb_inputs *in, const uint8_t *codes, int32_t filters,
                                  uint32_t *sums) {
  const int8_t *p = (const int8_t *)codes;
  int32_t bytes = in->bytes;
  for (; filters > 0; filters -= 4, p += 3 * bytes, sums += 4) {
    const int8_t *q = filters > 1 ? p + bytes : p, *r = filters > 2 ? q + bytes : p;
    const int8_t *s = filters > 3 ? r + bytes : p;
    const int16_t *x = (const int16_t *)(const void *)in->x, *end = x + in->blocks, *last = end - 3;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#if TFB_BY_HAND
    if (x < last) {
      int32_t fours = in->blocks & ~3, value, weight;
      __asm__ volatile(
          "1:\n" TFB_INPUT TFB_INPUT TFB_INPUT TFB_INPUT
          "subs %[n], #4\n"
          "bgt 1b\n"
          : [x] "+r"(x), [p] "+r"(p), [q] "+r"(q), [r] "+r"(r), [s] "+r"(s), [n] "+r"(fours),
            [s0] "+r"(s0), [s1] "+r"(s1), [s2] "+r"(s2), [s3] "+r"(s3), [value] "=&r"(value),
            [weight] "=&r"(weight)
          :
          : "cc", "memory");
    }
#else
    for (; x < last; x += 4, p += 4, q += 4, r += 4, s += 4) {
      TFB_TAP(0);
      TFB_TAP(1);
      TFB_TAP(2);
      TFB_TAP(3);
    }
#endif
    for (; x != end; x++, p++, q++, r++, s++) TFB_TAP(0);
    sums[0] = (uint32_t)s0;
    sums[1] = (uint32_t)s1;
    sums[2] = (uint32_t)s2;
    sums[3] = (uint32_t)s3;
  }
}
#undef TFB_TAP

/* The products of the n codes, below 32, behind a row's last block. */
static TFB_APART int32_t tfb_rest(int32_t bits, const uint8_t *codes, const int16_t *x, int32_t n) {
  int8_t bytes[32];
  tfb_stream stream = {0, 0, 0};
  const int8_t *row;
  int32_t sum = 0;
  stream.next = codes;
  for (row = tfb_unpack(&stream, bits, bytes, n); n > 0; n--) sum += *x++ * *row++;
  return sum >> (8 - bits);
}

/* A convolution whose filters each see the whole input, in order; every filter begins with a byte.
 * `scratch` holds the inputs of whole blocks in pairs, those behind them as numbers of 16 bits;
 * `blocks` is the function for the codes' width. */
static TFB_APART void tfb_dense(const tfb_conv *op, const int8_t *in, int8_t *out, int8_t *scratch,
                                tfb_sum_blocks blocks) {
  int32_t taps = op->in_h * op->in_w * op->in_c, bits = op->bits, zero = tfb_zero(op), c, i;
  int32_t block = bits == 8 ? 1 : bits == 3 ? 32 : 16, whole = bits == 8 ? 0 : taps & -block;
  int32_t rest = taps - whole, sum = 0;
  /* what the lower half begins with, and by what sums of upper halves are then too large */
  int32_t lower = (128 + zero) * ((1 << bits) - 1) * (block / 2), taken;
  const uint8_t *codes = op->weights;
  uint32_t *x = (uint32_t *)(void *)scratch, sums[TFB_CHUNK];
  int16_t *behind = (int16_t *)(void *)(x + whole / 2);
  tfb_dense_scales scales = tfb_first_scales(op);
  tfb_inputs inputs;
  inputs.x = x;
  inputs.blocks = taps / block;
  inputs.bytes = taps * bits / 8;
  inputs.start = ((uint32_t)lower << 17) + (uint32_t)lower;
  for (i = 0; i < whole; i += 4, in += 4, x += 2) {
    int32_t first = in[0] - zero, second = in[1] - zero, third = in[2] - zero, fourth = in[3] - zero;
    sum += first + second + third + fourth;
    x[0] = (uint32_t)third + ((uint32_t)first << 16);
    x[1] = (uint32_t)fourth + ((uint32_t)second << 16);
  }
  for (i = 0; i < rest; i++) behind[i] = (int16_t)(*in++ - zero);
  taken = bits == 8 ? 0 : sum * (1 << (bits - 1)) + 2 * lower * inputs.blocks;
  for (c = 0; c < op->out_c; c += TFB_CHUNK) {
    int32_t n = tfb_min(TFB_CHUNK, op->out_c - c), next = inputs.bytes;
    blocks(&inputs, codes, n, sums);
    for (i = 0; i < n; i++, codes += next) {
      int32_t value = (int32_t)(sums[i] - (uint32_t)taken);
      if (bits < 8 && rest > 0) value += tfb_rest(bits, codes + whole * bits / 8, behind, rest);
      *out++ = tfb_dense_stored(op, &scales, c + i, value);
    }
  }
}
#endif
