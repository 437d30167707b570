#ifndef TFBINREG_RUNTIME_H_
#define TFBINREG_RUNTIME_H_

/* Integer kernels for the C that tflite_tools generates. C99 without floating point or malloc.
 *
 * Every kernel computes bit for bit what TensorFlow Lite for Microcontrollers computes for the
 * canonical int8 file: sums in 32 bits, scaled with two roundings. Weights are codes of 2, 3, 4 or 8
 * bits, packed without gaps, least significant bit first; whole blocks of a filter's codes are in an
 * order in which a mask takes out four (tfb_block2, 3, 4). Two filters are unpacked at a time.
 *
 * Assumed of the compiler: int is at least 32 bits, >> of a negative number is arithmetic, and
 * conversion to a signed type wraps. GCC, Clang, Arm Compiler and IAR promise all three. Words are
 * little-endian.
 *
 * With the DSP extension of Armv7E-M and Armv8-M two products are summed per instruction;
 * TFBINREG_EMULATE_DSP runs the same path with functions in place of the instructions.
 */
#include <stdint.h>
#include <string.h>

/* The innermost loops stay functions of their own, with all registers to themselves. */
#if defined(__GNUC__)
#define TFB_APART __attribute__((noinline, unused))
#else
#define TFB_APART inline
#endif

/* tfb_even and tfb_odd: bytes 0 and 2, or 1 and 3, of a word as two signed 16-bit numbers;
 * tfb_even_plus and tfb_odd_plus add those of `pair`. */
#if defined(TFBINREG_EMULATE_DSP)
#define TFB_DSP 1
static inline uint32_t tfb_even_plus(uint32_t pair, uint32_t x) {
  uint32_t low = pair + (uint32_t)(int8_t)x, high = (pair >> 16) + (uint32_t)(int8_t)(x >> 16);
  return high << 16 | (low & 0xffff);
}
static inline uint32_t tfb_odd_plus(uint32_t pair, uint32_t x) {
  return tfb_even_plus(pair, (x >> 8) | (x << 24));
}
static inline uint32_t tfb_even(uint32_t x) { return tfb_even_plus(0, x); }
static inline uint32_t tfb_odd(uint32_t x) { return tfb_odd_plus(0, x); }
static inline int32_t tfb_smlad(uint32_t a, uint32_t b, int32_t sum) {
  int32_t low = (int16_t)a * (int16_t)b;
  int32_t high = (int16_t)(a >> 16) * (int16_t)(b >> 16);
  return (int32_t)((uint32_t)sum + (uint32_t)low + (uint32_t)high);
}
#elif defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)
#define TFB_DSP 1
#include <arm_acle.h>
static inline uint32_t tfb_even(uint32_t x) { return (uint32_t)__sxtb16((int8x4_t)x); }
static inline uint32_t tfb_even_plus(uint32_t pair, uint32_t x) {
  return (uint32_t)__sxtab16((int16x2_t)pair, (int8x4_t)x);
}
#if defined(__GNUC__) /* one instruction, which ACLE has no name for */
static inline uint32_t tfb_odd(uint32_t x) {
  uint32_t y;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(y) : "r"(x));
  return y;
}
static inline uint32_t tfb_odd_plus(uint32_t pair, uint32_t x) {
  uint32_t y;
  __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(y) : "r"(pair), "r"(x));
  return y;
}
#else
static inline uint32_t tfb_odd(uint32_t x) { return tfb_even((x >> 8) | (x << 24)); }
static inline uint32_t tfb_odd_plus(uint32_t pair, uint32_t x) {
  return tfb_even_plus(pair, (x >> 8) | (x << 24));
}
#endif
static inline int32_t tfb_smlad(uint32_t a, uint32_t b, int32_t sum) {
  return __smlad((int16x2_t)a, (int16x2_t)b, sum);
}
#else
#define TFB_DSP 0
#endif

static inline int32_t tfb_min(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t tfb_max(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t tfb_clamp(int32_t value, int32_t low, int32_t high) {
  return tfb_min(tfb_max(value, low), high);
}

/* ---- Fixed point ---- */

/* a * b / 2^31, halves upwards; not both may be INT32_MIN. */
static inline int32_t tfb_product(int32_t a, int32_t b) {
  return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* The same with twice a, which saves shifts. */
static inline int32_t tfb_product_of_twice(int32_t a2, int32_t b) {
#if TFB_DSP && defined(__GNUC__) && !defined(TFBINREG_EMULATE_DSP)
  int32_t result;
  __asm__("smmulr %0, %1, %2" : "=r"(result) : "r"(a2), "r"(b));
  return result;
#else
  return (int32_t)(((int64_t)a2 * b + ((int64_t)1 << 31)) >> 32);
#endif
}

/* The same for any two numbers (gemmlowp's SaturatingRoundingDoublingHighMul). */
static inline int32_t tfb_high_product(int32_t a, int32_t b) {
  return a == INT32_MIN && b == INT32_MIN ? INT32_MAX : tfb_product(a, b);
}

/* x / 2^exponent, halves away from zero (gemmlowp's RoundingDivideByPOT). */
static inline int32_t tfb_rounded_shift(int32_t x, int32_t exponent) {
  int32_t mask = (int32_t)(((uint32_t)1 << exponent) - 1);
  int32_t threshold = (mask >> 1) + (x < 0);
  return (x >> exponent) + ((x & mask) > threshold);
}

/* x * multiplier / 2^31 * 2^shift with the two roundings of TFLM; no multiplier is negative. */
static inline int32_t tfb_scale(int32_t x, int32_t multiplier, int32_t shift) {
  int32_t left = tfb_max(shift, 0);
  int32_t scaled = tfb_product((int32_t)((uint32_t)x << left), multiplier);
  return tfb_rounded_shift(scaled, left - shift);
}

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

/* Sums of this many positions are kept, those of a second filter behind them; an even number. */
#define TFB_CHUNK 16

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

/* The same without a zero for 2 * pairs inputs, `step` apart: every load is used twice. */
static TFB_APART void tfb_dot4(const int8_t *x, int32_t step, const int8_t *w, int32_t row,
                               int32_t n, int32_t pairs, int32_t *sums) {
  for (; pairs > 0; pairs--, x += 2 * step, sums += 2) {
    int32_t s0 = sums[0], s1 = sums[TFB_CHUNK], s2 = sums[1], s3 = sums[TFB_CHUNK + 1];
    const int8_t *p = x, *q = w, *end = x + n;
#if TFB_DSP
    const int8_t *words = x + (n & ~3);
    for (; p != words; p += 4, q += 4) {
      uint32_t a = tfb_word(p), b = tfb_word(p + step), c = tfb_word(q + row), even, odd;
      uint32_t a_even = tfb_even(a), a_odd = tfb_odd(a), b_even = tfb_even(b), b_odd = tfb_odd(b);
      even = tfb_even(c), odd = tfb_odd(c);
      s1 = tfb_smlad(a_odd, odd, tfb_smlad(a_even, even, s1));
      s3 = tfb_smlad(b_odd, odd, tfb_smlad(b_even, even, s3));
      c = tfb_word(q);
      even = tfb_even(c), odd = tfb_odd(c);
      s0 = tfb_smlad(a_odd, odd, tfb_smlad(a_even, even, s0));
      s2 = tfb_smlad(b_odd, odd, tfb_smlad(b_even, even, s2));
    }
#endif
    for (; p != end; p++, q++) {
      int32_t a = p[0], b = p[step], c = q[0], d = q[row];
      s0 += a * c;
      s1 += a * d;
      s2 += b * c;
      s3 += b * d;
    }
    sums[0] = s0;
    sums[1] = s2;
    sums[TFB_CHUNK] = s1;
    sums[TFB_CHUNK + 1] = s3;
  }
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

/* ---- Convolutions ---- */

/* Flags of tfb_conv.form. */
#define TFB_BIAS16 1          /* biases are int16_t, not int32_t */
#define TFB_BIAS24 2          /* biases are three bytes each, least significant first */
#define TFB_FOLDED 4          /* biases contain -in_zero * sum of the filter's weights */
#define TFB_EACH_MULTIPLIER 8 /* a multiplier per channel, not one for all */
#define TFB_EACH_SHIFT 16     /* a shift per channel, not one for all */
#define TFB_JOINT_SHIFT 32    /* bits 30 and 31 of a multiplier are added to the shift */

typedef struct {
  const uint8_t *weights;
  const void *bias;
  const int32_t *multiplier;
  const int8_t *shift;
  uint16_t batch, in_h, in_w, in_c, out_h, out_w, out_c, k_h, k_w;
  uint16_t stride_h, stride_w, dilation_h, dilation_w, pad_h, pad_w;
  int8_t in_zero, out_zero, low, high;
  uint8_t bits, prescale, form;
} tfb_conv;

/* A filter, and what turns sums of x * w into stored values: (sum * factor + base) * multiplier
 * / 2^31 / 2^exponent. Factor and base are doubled. */
typedef struct {
  const int8_t *row;
  int32_t outside; /* what a sum of (x - in_zero) * w is short of one of x * w */
  int32_t factor, base, multiplier, exponent;
} tfb_filter;

/* What is taken off the inputs where a filter reaches over the border. */
static inline int32_t tfb_zero(const tfb_conv *op) {
  return op->form & TFB_FOLDED ? 0 : op->in_zero;
}

static inline int32_t tfb_bias(const tfb_conv *op, int32_t c) {
  if (op->form & TFB_BIAS16) return ((const int16_t *)op->bias)[c];
  if (op->form & TFB_BIAS24) {
    const uint8_t *bytes = (const uint8_t *)op->bias + 3 * c;
    uint32_t word = (uint32_t)bytes[0] << 8 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 24;
    return (int32_t)word >> 8;
  }
  return ((const int32_t *)op->bias)[c];
}

static inline tfb_filter tfb_filter_of(const tfb_conv *op, int32_t c, tfb_stream *stream,
                                       int8_t *scratch, int32_t taps) {
  tfb_filter filter;
  uint32_t multiplier = (uint32_t)op->multiplier[op->form & TFB_EACH_MULTIPLIER ? c : 0];
  int32_t shift = op->shift[op->form & TFB_EACH_SHIFT ? c : 0], left;
  if (op->form & TFB_JOINT_SHIFT) {
    shift += (int32_t)(multiplier >> 30);
    multiplier = (multiplier & 0x3fffffffu) | 0x40000000u;
  }
  left = tfb_max(shift, 0);
  filter.row = tfb_unpack(stream, op->bits, scratch, taps);
  filter.outside = tfb_zero(op) != 0 ? tfb_zero(op) * tfb_sum(filter.row, taps) : 0;
  filter.factor = (int32_t)op->prescale << (left + 1);
  filter.base =
      tfb_bias(op, c) * ((int32_t)2 << left) - (filter.outside >> (8 - op->bits)) * filter.factor;
  filter.multiplier = (int32_t)multiplier;
  filter.exponent = left - shift;
  return filter;
}

/* Stores n outputs of a filter. The second rounding is that of tfb_rounded_shift, for numbers so
 * small that the half can be added. */
static TFB_APART void tfb_store(const tfb_conv *op, const tfb_filter *filter, const int32_t *sums,
                                int32_t n, int8_t *out) {
  int32_t drop = 8 - op->bits, zero = op->out_zero, low = op->low, high = op->high;
  int32_t factor = filter->factor, base = filter->base, multiplier = filter->multiplier;
  int32_t exponent = filter->exponent, half = (int32_t)(((uint32_t)1 << exponent) >> 1);
  int32_t sign = -(exponent > 0), next = op->out_c;
  for (; n > 0; n--, out += next) {
    int32_t value = tfb_product_of_twice((*sums++ >> drop) * factor + base, multiplier);
    value = (value + (half + ((value >> 31) & sign))) >> exponent;
    *out = (int8_t)tfb_clamp(value + zero, low, high);
  }
}

/* Numbers from `first` on and below `last`. */
typedef struct {
  int32_t first, last;
} tfb_range;

/* The taps of a filter of size k that lie inside [0, size) from `start` on. */
static inline tfb_range tfb_inside(int32_t start, int32_t k, int32_t dilation, int32_t size) {
  tfb_range range;
  range.first = start < 0 ? (dilation - 1 - start) / dilation : 0;
  range.last = size > start ? tfb_min(k, (size - start + dilation - 1) / dilation) : 0;
  return range;
}

/* The positions of an output row at which the whole filter lies inside, if it does vertically. */
static inline tfb_range tfb_whole(const tfb_conv *op, tfb_range rows) {
  int32_t room = op->in_w + op->pad_w - (op->k_w - 1) * op->dilation_w - 1;
  tfb_range range = {0, 0};
  if (rows.last - rows.first < op->k_h || room < 0) return range;
  range.first = (op->pad_w + op->stride_w - 1) / op->stride_w;
  range.last = tfb_min(op->out_w, room / op->stride_w + 1);
  return range;
}

/* A row of outputs: of two filters, or of one that is given twice (`count`). */
typedef void (*tfb_line)(const tfb_conv *op, const int8_t *image, const tfb_filter *filters,
                         int32_t count, int32_t oy, int8_t *out);

/* Unpacks two filters at a time, and runs them over all rows. */
static inline void tfb_filters(const tfb_conv *op, tfb_line line, int32_t taps, const int8_t *in,
                               int8_t *out, int8_t *scratch) {
  int32_t c, b, y, i, image = op->in_h * op->in_w * op->in_c, row = op->out_w * op->out_c;
  tfb_stream stream = {0, 0, 0};
  stream.next = op->weights;
  for (c = 0; c < op->out_c; c += 2) {
    int32_t count = tfb_min(2, op->out_c - c);
    tfb_filter filters[2];
    for (i = 0; i < count; i++) {
      filters[i] = tfb_filter_of(op, c + i, &stream, scratch + i * ((taps + 3) & ~3), taps);
    }
    if (count == 1) filters[1] = filters[0];
    for (b = 0; b < op->batch; b++) {
      for (y = 0; y < op->out_h; y++) {
        line(op, in + b * image, filters, count, y, out + (b * op->out_h + y) * row + c);
      }
    }
  }
}

/* Adds the products of one position, or of pairs of them, with the taps in `rows` and `columns`.
 * Neighbouring taps are neighbours in memory unless they are dilated, so a filter row is one run. */
static inline void tfb_products(const tfb_conv *op, const int8_t *image, const tfb_filter *filters,
                                int32_t y, int32_t x, tfb_range rows, tfb_range columns,
                                int32_t pairs, int32_t *sums) {
  int32_t c = op->in_c, next = op->dilation_w == 1 ? op->k_w : 1, ky, kx;
  int32_t length = op->dilation_w == 1 ? (columns.last - columns.first) * c : c;
  int32_t row = (int32_t)(filters[1].row - filters[0].row);
  for (ky = rows.first; ky < rows.last; ky++) {
    const int8_t *line = image + ((y + ky * op->dilation_h) * op->in_w + x) * c;
    for (kx = columns.first; kx < columns.last; kx += next) {
      const int8_t *pixel = line + kx * op->dilation_w * c;
      const int8_t *w = filters[0].row + (ky * op->k_w + kx) * c;
      if (pairs > 0) {
        tfb_dot4(pixel, op->stride_w * c, w, row, length, pairs, sums);
      } else {
        tfb_dot2(pixel, w, row, length, tfb_zero(op), sums);
      }
    }
  }
}

static inline void tfb_conv_line(const tfb_conv *op, const int8_t *image, const tfb_filter *filters,
                                 int32_t count, int32_t oy, int8_t *out) {
  int32_t y = oy * op->stride_h - op->pad_h, ox, n, i, k, done, sums[2 * TFB_CHUNK];
  tfb_range rows = tfb_inside(y, op->k_h, op->dilation_h, op->in_h), whole = tfb_whole(op, rows);
  for (ox = 0; ox < op->out_w; ox += n) {
    n = tfb_min(op->out_w - ox, TFB_CHUNK);
    for (i = 0; i < n; i += done) {
      int32_t x = (ox + i) * op->stride_w - op->pad_w;
      int32_t left = ox + i >= whole.first ? tfb_min(n - i, whole.last - ox - i) : 0;
      int32_t pairs = left > 1 ? left / 2 : 0;
      tfb_range columns = {0, op->k_w};
      if (pairs == 0) columns = tfb_inside(x, op->k_w, op->dilation_w, op->in_w);
      done = tfb_max(2 * pairs, 1);
      for (k = i; k < i + done; k++) {
        sums[k] = pairs > 0 ? 0 : filters[0].outside;
        sums[TFB_CHUNK + k] = pairs > 0 ? 0 : filters[1].outside;
      }
      tfb_products(op, image, filters, y, x, rows, columns, pairs, sums + i);
    }
    for (k = 0; k < count; k++) {
      tfb_store(op, &filters[k], sums + k * TFB_CHUNK, n, out + ox * op->out_c + k);
    }
  }
}

/* CONV_2D; FULLY_CONNECTED as a 1x1 convolution over a row of samples. */
static inline void tfb_conv_2d(const tfb_conv *op, const int8_t *in, int8_t *out, int8_t *scratch) {
  int32_t taps = op->k_h * op->k_w * op->in_c;
  tfb_filters(op, tfb_conv_line, taps, in, out, scratch);
}

/* Sums of a depthwise filter that are kept. */
#define TFB_PLANE_CHUNK 32

/* Copies a channel of an image into the rows of a plane, inside its border. */
static TFB_APART void tfb_plane(const tfb_conv *op, const int8_t *channel, int32_t height,
                                int32_t width, int8_t *plane) {
  int32_t rows = tfb_min(op->in_h, height - op->pad_h), next = op->in_c;
  int32_t columns = tfb_min(op->in_w, width - op->pad_w);
  plane += op->pad_h * width + op->pad_w;
  for (; rows > 0; rows--, channel += op->in_w * next, plane += width) {
    const int8_t *pixel = channel;
    int8_t *to = plane, *end = plane + columns;
    for (; to != end; pixel += next) *to++ = *pixel;
  }
}

/* The sums of n positions in each of some rows of outputs. Four are made at a time: what is too
 * much lies behind the last, or is overwritten by the next row. */
static TFB_APART void tfb_depthwise4(const tfb_conv *op, const int8_t *plane, int32_t width,
                                     const int8_t *row, int32_t n, int32_t rows, int32_t *sums) {
  int32_t tap = op->dilation_w, line = op->dilation_h * width, next = op->stride_w, i, ky, kx;
  for (; rows > 0; rows--, plane += op->stride_h * width, sums += n) {
    const int8_t *pixel = plane;
    for (i = 0; i < n; i += 4, pixel += 4 * next) {
      int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
      const int8_t *first = pixel, *w = row;
      for (ky = op->k_h; ky > 0; ky--, first += line) {
        const int8_t *p = first;
        for (kx = op->k_w; kx > 0; kx--, p += tap) {
          int32_t weight = *w++;
          s0 += p[0] * weight;
          s1 += p[next] * weight;
          s2 += p[2 * next] * weight;
          s3 += p[3 * next] * weight;
        }
      }
      sums[i] = s0;
      sums[i + 1] = s1;
      sums[i + 2] = s2;
      sums[i + 3] = s3;
    }
  }
}

/* All outputs of one filter, from a channel with its border. */
static inline void tfb_depthwise_plane(const tfb_conv *op, const int8_t *plane, int32_t width,
                                       const tfb_filter *filter, int8_t *out) {
  int32_t n = tfb_min(op->out_w, TFB_PLANE_CHUNK), oy, ox, sums[TFB_PLANE_CHUNK + 3];
  int32_t rows = n == op->out_w ? TFB_PLANE_CHUNK / n : 1;
  for (oy = 0; oy < op->out_h; oy += rows) {
    const int8_t *row = plane + oy * op->stride_h * width;
    rows = tfb_min(rows, op->out_h - oy);
    for (ox = 0; ox < op->out_w; ox += TFB_PLANE_CHUNK) {
      n = tfb_min(op->out_w - ox, TFB_PLANE_CHUNK);
      tfb_depthwise4(op, row + ox * op->stride_w, width, filter->row, n, rows, sums);
      tfb_store(op, filter, sums, n * rows, out);
      out += n * rows * op->out_c;
    }
  }
}

/* DEPTHWISE_CONV_2D; output channel c reads input channel c / (out_c / in_c). Behind one filter,
 * `scratch` holds one channel with its border: every position sees a whole filter, in a run. */
static inline void tfb_depthwise(const tfb_conv *op, const int8_t *in, int8_t *out,
                                 int8_t *scratch) {
  int32_t multiple = op->out_c / op->in_c, taps = op->k_h * op->k_w, b, c;
  int32_t height = (op->out_h - 1) * op->stride_h + (op->k_h - 1) * op->dilation_h + 1;
  int32_t width = (op->out_w - 1) * op->stride_w + (op->k_w - 1) * op->dilation_w + 1;
  int8_t *plane = scratch + ((taps + 3) & ~3);
  memset(plane, op->in_zero, (size_t)(height * width));
  for (b = 0; b < op->batch; b++, in += op->in_h * op->in_w * op->in_c) {
    tfb_stream stream = {0, 0, 0};
    stream.next = op->weights;
    for (c = 0; c < op->out_c; c++) {
      tfb_filter filter = tfb_filter_of(op, c, &stream, scratch, taps);
      if (c % multiple == 0) tfb_plane(op, in + c / multiple, height, width, plane);
      tfb_depthwise_plane(op, plane, width, &filter,
                          out + b * op->out_h * op->out_w * op->out_c + c);
    }
  }
}

/* TRANSPOSE_CONV: each output is the sum over the inputs at which a tap lands there. */
static inline void tfb_transpose_line(const tfb_conv *op, const int8_t *image,
                                      const tfb_filter *filters, int32_t count, int32_t oy,
                                      int8_t *out) {
  int32_t ox, ky, kx, i, row = (int32_t)(filters[1].row - filters[0].row);
  int32_t sums[TFB_CHUNK + 1];
  for (ox = 0; ox < op->out_w; ox++, out += op->out_c) {
    sums[0] = filters[0].outside;
    sums[TFB_CHUNK] = filters[1].outside;
    for (ky = 0; ky < op->k_h; ky++) {
      int32_t y = oy + op->pad_h - ky;
      if (y < 0 || y % op->stride_h != 0 || y / op->stride_h >= op->in_h) continue;
      for (kx = 0; kx < op->k_w; kx++) {
        int32_t x = ox + op->pad_w - kx, tap = (ky * op->k_w + kx) * op->in_c;
        if (x < 0 || x % op->stride_w != 0 || x / op->stride_w >= op->in_w) continue;
        tfb_dot2(image + (y / op->stride_h * op->in_w + x / op->stride_w) * op->in_c,
                 filters[0].row + tap, row, op->in_c, tfb_zero(op), sums);
      }
    }
    for (i = 0; i < count; i++) tfb_store(op, &filters[i], sums + i * TFB_CHUNK, 1, out + i);
  }
}

static inline void tfb_transpose_conv(const tfb_conv *op, const int8_t *in, int8_t *out,
                                      int8_t *scratch) {
  int32_t taps = op->k_h * op->k_w * op->in_c;
  tfb_filters(op, tfb_transpose_line, taps, in, out, scratch);
}

/* ---- Element by element ---- */

/* Two operands, each with a step per axis of the output; 0 repeats it along the axis. */
typedef struct {
  int32_t size[4];
  int32_t step_a[4], step_b[4];
  int32_t multiplier_a, multiplier_b, multiplier;
  int8_t shift_a, shift_b, shift;
  int8_t zero_a, zero_b, zero, low, high;
} tfb_pair;

typedef int32_t (*tfb_pair_function)(const tfb_pair *op, int32_t a, int32_t b);

/* Operands are compared at a common scale, 20 bits finer. */
static inline int32_t tfb_add(const tfb_pair *op, int32_t a, int32_t b) {
  int32_t first = tfb_scale((a - op->zero_a) * (1 << 20), op->multiplier_a, op->shift_a);
  int32_t second = tfb_scale((b - op->zero_b) * (1 << 20), op->multiplier_b, op->shift_b);
  return tfb_scale(first + second, op->multiplier, op->shift) + op->zero;
}
static inline int32_t tfb_sub(const tfb_pair *op, int32_t a, int32_t b) {
  int32_t first = tfb_scale((a - op->zero_a) * (1 << 20), op->multiplier_a, op->shift_a);
  int32_t second = tfb_scale((b - op->zero_b) * (1 << 20), op->multiplier_b, op->shift_b);
  return tfb_scale(first - second, op->multiplier, op->shift) + op->zero;
}
static inline int32_t tfb_mul(const tfb_pair *op, int32_t a, int32_t b) {
  int32_t product = (a - op->zero_a) * (b - op->zero_b);
  return tfb_scale(product, op->multiplier, op->shift) + op->zero;
}
static inline int32_t tfb_prelu(const tfb_pair *op, int32_t a, int32_t b) {
  int32_t value = a - op->zero_a;
  if (value >= 0) return tfb_scale(value, op->multiplier_a, op->shift_a) + op->zero;
  return tfb_scale(value * (b - op->zero_b), op->multiplier, op->shift) + op->zero;
}
static inline int32_t tfb_maximum(const tfb_pair *op, int32_t a, int32_t b) {
  (void)op;
  return tfb_max(a, b);
}
static inline int32_t tfb_minimum(const tfb_pair *op, int32_t a, int32_t b) {
  (void)op;
  return tfb_min(a, b);
}

static inline void tfb_combine(const tfb_pair *op, tfb_pair_function function, const int8_t *a,
                               const int8_t *b, int8_t *out) {
  int32_t i, j, k, l;
  const int32_t *step_a = op->step_a, *step_b = op->step_b;
  for (i = 0; i < op->size[0]; i++) {
    for (j = 0; j < op->size[1]; j++) {
      for (k = 0; k < op->size[2]; k++) {
        const int8_t *p = a + i * step_a[0] + j * step_a[1] + k * step_a[2];
        const int8_t *q = b + i * step_b[0] + j * step_b[1] + k * step_b[2];
        for (l = 0; l < op->size[3]; l++, p += step_a[3], q += step_b[3]) {
          *out++ = (int8_t)tfb_clamp(function(op, *p, *q), op->low, op->high);
        }
      }
    }
  }
}

/* A function of one int8 as the table of its 256 values; `out` may be `in`. */
static inline void tfb_lookup(const int8_t *table, const int8_t *in, int8_t *out, int32_t n) {
  for (; n > 0; n--) *out++ = table[*in++ + 128];
}

/* ---- Pooling and reductions ---- */

typedef struct {
  uint16_t batch, in_h, in_w, channels, out_h, out_w, k_h, k_w, stride_h, stride_w, pad_h, pad_w;
  int8_t low, high;
} tfb_pool;

static inline int32_t tfb_pooled(const tfb_pool *op, int average, const int8_t *plane, int32_t y,
                                 int32_t x) {
  int32_t first_y = tfb_max(y, 0), last_y = tfb_min(y + op->k_h, op->in_h);
  int32_t first_x = tfb_max(x, 0), last_x = tfb_min(x + op->k_w, op->in_w);
  int32_t count = (last_y - first_y) * (last_x - first_x), best = -128, sum = 0;
  for (y = first_y; y < last_y; y++) {
    for (x = first_x; x < last_x; x++) {
      int32_t value = plane[(y * op->in_w + x) * op->channels];
      best = tfb_max(best, value);
      sum += value;
    }
  }
  if (!average) return best;
  return (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
}

static inline void tfb_pool_2d(const tfb_pool *op, int average, const int8_t *in, int8_t *out) {
  int32_t b, y, x, c;
  for (b = 0; b < op->batch; b++, in += op->in_h * op->in_w * op->channels) {
    for (y = 0; y < op->out_h; y++) {
      for (x = 0; x < op->out_w; x++) {
        for (c = 0; c < op->channels; c++) {
          int32_t value = tfb_pooled(op, average, in + c, y * op->stride_h - op->pad_h,
                                     x * op->stride_w - op->pad_w);
          *out++ = (int8_t)tfb_clamp(value, op->low, op->high);
        }
      }
    }
  }
}

typedef struct {
  int32_t outer, count, inner; /* the middle one is reduced */
  int32_t multiplier;
  int8_t shift, in_zero, out_zero;
} tfb_reduce;

static inline void tfb_mean(const tfb_reduce *op, const int8_t *in, int8_t *out) {
  int32_t i, j, k;
  for (i = 0; i < op->outer; i++, in += op->count * op->inner) {
    for (j = 0; j < op->inner; j++) {
      int32_t sum = 0;
      for (k = 0; k < op->count; k++) sum += in[k * op->inner + j] - op->in_zero;
      sum = tfb_scale(sum, op->multiplier, op->shift) + op->out_zero;
      *out++ = (int8_t)tfb_clamp(sum, -128, 127);
    }
  }
}

static inline void tfb_reduce_max(const tfb_reduce *op, const int8_t *in, int8_t *out) {
  int32_t i, j, k;
  for (i = 0; i < op->outer; i++, in += op->count * op->inner) {
    for (j = 0; j < op->inner; j++) {
      int32_t best = -128;
      for (k = 0; k < op->count; k++) best = tfb_max(best, in[k * op->inner + j]);
      *out++ = (int8_t)best;
    }
  }
}

/* ---- Softmax ---- */

typedef struct {
  int32_t outer, depth;
  int32_t multiplier, lowest; /* differences below `lowest` count as nothing */
  int8_t shift;
} tfb_softmax_op;

/* exp(x) for x in [-1/4, 0), Q0.31: Taylor around -1/8. */
static inline int32_t tfb_exp_near_zero(int32_t a) {
  int32_t x = a + (1 << 28), x2 = tfb_high_product(x, x);
  int32_t x3 = tfb_high_product(x2, x), x4 = tfb_high_product(x2, x2);
  int32_t tail = tfb_high_product(tfb_rounded_shift(x4, 2) + x3, 715827883);
  tail = tfb_rounded_shift(tail + x2, 1);
  return 1895147668 + tfb_high_product(1895147668, x + tail);
}

/* exp(x) for x <= 0, from Q5.26 to Q0.31. */
static inline int32_t tfb_exp(int32_t a) {
  static const int32_t factors[7] = {1672461947, 1302514674, 790015084, 290630308,
                                     39332535,   720401,     242};
  int32_t quarter = 1 << 24, near = (a & (quarter - 1)) - quarter, rest = near - a, i;
  int32_t result = tfb_exp_near_zero((int32_t)((uint32_t)near << 5));
  if (a == 0) return INT32_MAX;
  for (i = 0; i < 7; i++) {
    if (rest & ((int32_t)1 << (24 + i))) result = tfb_high_product(result, factors[i]);
  }
  return result;
}

/* 1 / (1 + x) for x in [0, 1), Q0.31: three Newton steps. */
static inline int32_t tfb_reciprocal(int32_t a) {
  int32_t half = (int32_t)(((int64_t)a + INT32_MAX + 1) >> 1), i;
  int32_t x = 1515870810 + tfb_high_product(half, -1010580540);
  for (i = 0; i < 3; i++) {
    int32_t error = (1 << 29) - tfb_high_product(half, x);
    x += (int32_t)((uint32_t)tfb_high_product(x, error) << 2);
  }
  return x > (1 << 30) - 1 ? INT32_MAX : x < -((1 << 30) - 1) ? INT32_MIN : x * 2;
}

static inline int32_t tfb_leading_zeros(uint32_t x) {
  int32_t count = 0;
  for (; count < 32 && !(x & 0x80000000u); x <<= 1) count++;
  return count;
}

static inline int32_t tfb_exp_of(const tfb_softmax_op *op, int32_t difference) {
  int32_t x = (int32_t)((uint32_t)difference << op->shift);
  return tfb_exp(tfb_high_product(x, op->multiplier));
}

static inline void tfb_softmax_row(const tfb_softmax_op *op, const int8_t *in, int8_t *out) {
  int32_t best = -128, sum = 0, i, zeros, scale;
  for (i = 0; i < op->depth; i++) best = tfb_max(best, in[i]);
  for (i = 0; i < op->depth; i++) {
    if (in[i] - best >= op->lowest) sum += tfb_rounded_shift(tfb_exp_of(op, in[i] - best), 12);
  }
  zeros = tfb_leading_zeros((uint32_t)sum);
  scale = tfb_reciprocal((int32_t)(((uint32_t)sum << zeros) - 0x80000000u));
  for (i = 0; i < op->depth; i++) {
    int32_t value = 0;
    if (in[i] - best >= op->lowest) {
      value = tfb_high_product(scale, tfb_exp_of(op, in[i] - best));
      value = tfb_rounded_shift(value, 12 - zeros + 23);
    }
    out[i] = (int8_t)tfb_clamp(value - 128, -128, 127);
  }
}

static inline void tfb_softmax(const tfb_softmax_op *op, const int8_t *in, int8_t *out) {
  int32_t i;
  for (i = 0; i < op->outer; i++, in += op->depth, out += op->depth) tfb_softmax_row(op, in, out);
}

/* ---- Moving numbers about ---- */

/* Values start, start + step, ... of every axis: STRIDED_SLICE, SLICE and TRANSPOSE. */
typedef struct {
  int32_t start;
  int32_t size[4];
  int32_t step[4];
} tfb_gather;

static inline void tfb_gather_4d(const tfb_gather *op, const int8_t *in, int8_t *out) {
  int32_t i, j, k, l;
  in += op->start;
  for (i = 0; i < op->size[0]; i++) {
    for (j = 0; j < op->size[1]; j++) {
      for (k = 0; k < op->size[2]; k++) {
        const int8_t *p = in + i * op->step[0] + j * op->step[1] + k * op->step[2];
        for (l = 0; l < op->size[3]; l++, p += op->step[3]) *out++ = *p;
      }
    }
  }
}

/* Spread the values of `in` over `out`, the counterpart: PAD, after `out` has been filled. */
static inline void tfb_scatter_4d(const tfb_gather *op, const int8_t *in, int8_t *out) {
  int32_t i, j, k;
  out += op->start;
  for (i = 0; i < op->size[0]; i++) {
    for (j = 0; j < op->size[1]; j++) {
      for (k = 0; k < op->size[2]; k++, in += op->size[3]) {
        memcpy(out + i * op->step[0] + j * op->step[1] + k * op->step[2], in,
               (size_t)op->size[3]);
      }
    }
  }
}

/* Blocks of `block` values into places that are `step` apart: CONCATENATION. */
static inline void tfb_interleave(const int8_t *in, int8_t *out, int32_t count, int32_t block,
                                  int32_t step) {
  for (; count > 0; count--, in += block, out += step) memcpy(out, in, (size_t)block);
}

/* RESIZE_NEAREST_NEIGHBOR: which row and column each output row and column is a copy of. */
typedef struct {
  const uint16_t *rows, *columns;
  uint16_t batch, in_h, in_w, channels, out_h, out_w;
} tfb_resize;

static inline void tfb_resize_nearest(const tfb_resize *op, const int8_t *in, int8_t *out) {
  int32_t b, y, x;
  for (b = 0; b < op->batch; b++, in += op->in_h * op->in_w * op->channels) {
    for (y = 0; y < op->out_h; y++) {
      for (x = 0; x < op->out_w; x++, out += op->channels) {
        memcpy(out, in + (op->rows[y] * op->in_w + op->columns[x]) * op->channels, op->channels);
      }
    }
  }
}

#endif
