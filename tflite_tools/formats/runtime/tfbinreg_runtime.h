/* Integer kernels for the C that tflite_tools generates. C99 without floating point or malloc.
 *
 * Every kernel computes bit for bit what TensorFlow Lite for Microcontrollers computes for the
 * canonical int8 file: sums in 32 bits, scaled with two roundings. Weights are codes of 2, 3, 4 or 8
 * bits, packed least significant bit first without gaps; one filter is unpacked at a time.
 *
 * Assumed of the compiler: int is at least 32 bits, >> of a negative number is arithmetic, and
 * conversion to a signed type wraps. GCC, Clang, Arm Compiler and IAR promise all three.
 *
 * With the DSP extension of Armv7E-M and Armv8-M two products are summed per instruction;
 * TFBINREG_EMULATE_DSP runs the same path with functions in place of the instructions.
 */
#ifndef TFBINREG_RUNTIME_H_
#define TFBINREG_RUNTIME_H_

#include <stdint.h>
#include <string.h>

/* The innermost loops stay functions of their own, with all registers to themselves. */
#if defined(__GNUC__)
#define TFB_APART __attribute__((noinline, unused))
#else
#define TFB_APART inline
#endif

/* tfb_even and tfb_odd: bytes 0 and 2, or 1 and 3, of a word as two signed 16-bit numbers. */
#if defined(TFBINREG_EMULATE_DSP)
#define TFB_DSP 1
static inline uint32_t tfb_even(uint32_t x) {
  return ((uint32_t)(uint16_t)(int8_t)(x >> 16) << 16) | (uint16_t)(int8_t)x;
}
static inline uint32_t tfb_odd(uint32_t x) { return tfb_even((x >> 8) | (x << 24)); }
static inline int32_t tfb_smlad(uint32_t a, uint32_t b, int32_t sum) {
  int32_t low = (int16_t)a * (int16_t)b;
  int32_t high = (int16_t)(a >> 16) * (int16_t)(b >> 16);
  return (int32_t)((uint32_t)sum + (uint32_t)low + (uint32_t)high);
}
#elif defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)
#define TFB_DSP 1
#include <arm_acle.h>
static inline uint32_t tfb_even(uint32_t x) { return (uint32_t)__sxtb16((int8x4_t)x); }
#if defined(__GNUC__)
static inline uint32_t tfb_odd(uint32_t x) { /* one instruction, which ACLE has no name for */
  uint32_t y;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(y) : "r"(x));
  return y;
}
#else
static inline uint32_t tfb_odd(uint32_t x) { return tfb_even((x >> 8) | (x << 24)); }
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

/* a * b / 2^31, halves upwards (gemmlowp's SaturatingRoundingDoublingHighMul). */
static inline int32_t tfb_high_product(int32_t a, int32_t b) {
  if (a == INT32_MIN && b == INT32_MIN) return INT32_MAX;
  return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* x / 2^exponent, halves away from zero (gemmlowp's RoundingDivideByPOT). */
static inline int32_t tfb_rounded_shift(int32_t x, int32_t exponent) {
  int32_t mask = (int32_t)(((uint32_t)1 << exponent) - 1);
  int32_t threshold = (mask >> 1) + (x < 0);
  return (x >> exponent) + ((x & mask) > threshold);
}

/* x * multiplier / 2^31 * 2^shift with the two roundings of TFLM. */
static inline int32_t tfb_scale(int32_t x, int32_t multiplier, int32_t shift) {
  int32_t left = tfb_max(shift, 0);
  int32_t scaled = tfb_high_product((int32_t)((uint32_t)x << left), multiplier);
  return tfb_rounded_shift(scaled, left - shift);
}

/* ---- Packed weights ---- */

typedef struct {
  const uint8_t *next; /* first byte that is not in `held` */
  uint32_t held;
  int32_t count; /* bits in `held`, below 8 between two rows */
} tfb_stream;

static inline int8_t tfb_field(uint32_t word, int32_t start, int32_t bits) {
  return (int8_t)((int32_t)(word << (32 - start - bits)) >> (32 - bits));
}

/* The next n codes; those of 8 bits stay where they are, others are unpacked to `row`. */
static TFB_APART const int8_t *tfb_unpack(tfb_stream *stream, int32_t bits, int8_t *row, int32_t n) {
  const uint8_t *next = stream->next;
  uint32_t held = stream->held;
  int32_t count = stream->count, i = 0, k;
  if (bits == 8) {
    stream->next += n;
    return (const int8_t *)next;
  }
  if (bits == 2) {
    for (; i + 4 <= n; i += 4) {
      held |= (uint32_t)*next++ << count;
      for (k = 0; k < 4; k++) row[i + k] = tfb_field(held, 2 * k, 2);
      held >>= 8;
    }
  } else if (bits == 3) {
    for (; i + 8 <= n; i += 8, next += 3) {
      uint32_t three = next[0] | (uint32_t)next[1] << 8 | (uint32_t)next[2] << 16;
      held |= three << count;
      for (k = 0; k < 8; k++) row[i + k] = tfb_field(held, 3 * k, 3);
      held >>= 24;
    }
  } else {
    for (; i + 2 <= n; i += 2) {
      held |= (uint32_t)*next++ << count;
      row[i] = tfb_field(held, 0, 4);
      row[i + 1] = tfb_field(held, 4, 4);
      held >>= 8;
    }
  }
  for (; i < n; i++) {
    if (count < bits) {
      held |= (uint32_t)*next++ << count;
      count += 8;
    }
    row[i] = tfb_field(held, 0, bits);
    held >>= bits;
    count -= bits;
  }
  stream->next = next;
  stream->held = held;
  stream->count = count;
  return row;
}

/* ---- Dot products ---- */

#if TFB_DSP
static inline uint32_t tfb_word(const int8_t *bytes) {
  uint32_t word;
  memcpy(&word, bytes, 4);
  return word;
}
#endif

#if TFB_DSP
/* Four products of one position. */
#define TFB_FOUR(x, sum)                               \
  do {                                                 \
    uint32_t a = tfb_word(x);                          \
    (sum) = tfb_smlad(tfb_even(a), even, (sum));       \
    (sum) = tfb_smlad(tfb_odd(a), odd, (sum));         \
  } while (0)
/* Four weights, for one position or for two. */
#define TFB_WEIGHTS(w) uint32_t b = tfb_word(w), even = tfb_even(b), odd = tfb_odd(b)
#define TFB_ONE(k) do { TFB_WEIGHTS(w + (k)); TFB_FOUR(x + (k), sum); } while (0)
#define TFB_TWO(k) \
  do { TFB_WEIGHTS(w + (k)); TFB_FOUR(x + (k), sum); TFB_FOUR(y + (k), other); } while (0)
#endif

/* The sum of n products. */
static TFB_APART int32_t tfb_dot(const int8_t *x, const int8_t *w, int32_t n, int32_t sum) {
#if TFB_DSP
  for (; n >= 16; n -= 16, x += 16, w += 16) {
    TFB_ONE(0);
    TFB_ONE(4);
    TFB_ONE(8);
    TFB_ONE(12);
  }
  for (; n >= 4; n -= 4, x += 4, w += 4) TFB_ONE(0);
#endif
  for (; n > 0; n--) sum += *x++ * *w++;
  return sum;
}

/* Part of a filter over an image: `rows` runs of `length` neighbours in both. */
typedef struct {
  int32_t length, rows, x_step, w_step;
} tfb_block;

/* Two sums over a block with the same weights, which are then loaded once; y lies `apart` behind x. */
static TFB_APART void tfb_dot2(const int8_t *x, int32_t apart, const int8_t *w,
                               const tfb_block *block, int32_t sums[2]) {
  const int8_t *y = x + apart;
  int32_t rows = block->rows, sum = sums[0], other = sums[1], n;
  for (; rows > 0; rows--) {
    n = block->length;
#if TFB_DSP
    for (; n >= 16; n -= 16, x += 16, y += 16, w += 16) {
      TFB_TWO(0);
      TFB_TWO(4);
      TFB_TWO(8);
      TFB_TWO(12);
    }
    for (; n >= 4; n -= 4, x += 4, y += 4, w += 4) TFB_TWO(0);
#endif
    for (; n > 0; n--, w++) {
      sum += *x++ * *w;
      other += *y++ * *w;
    }
    x += block->x_step - block->length;
    y += block->x_step - block->length;
    w += block->w_step - block->length;
  }
  sums[0] = sum;
  sums[1] = other;
}

/* The sum of (x - zero) * w. */
static TFB_APART int32_t tfb_dot_from(const int8_t *x, const int8_t *w, int32_t n, int32_t zero,
                                   int32_t sum) {
  for (; n > 0; n--) sum += (*x++ - zero) * *w++;
  return sum;
}

static inline int32_t tfb_sum(const int8_t *w, int32_t n) {
  int32_t sum = 0;
#if TFB_DSP
  for (; n >= 4; n -= 4, w += 4) {
    uint32_t b = tfb_word(w);
    sum = tfb_smlad(tfb_even(b), 0x10001u, sum);
    sum = tfb_smlad(tfb_odd(b), 0x10001u, sum);
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

/* The taps [first, last) of a filter along one axis. */
typedef struct {
  int32_t first, last;
} tfb_range;

/* What is added to the products of some of a filter's taps. */
typedef struct {
  tfb_range rows, columns;
  int32_t base;
} tfb_partial;

/* What turns the sum of one output channel into its stored value; `partial` remembers how far the
 * filter reached over the border last, on the left and elsewhere. */
typedef struct {
  int32_t bias, folded, multiplier, shift;
  tfb_partial partial[2];
} tfb_channel;

static inline int32_t tfb_bias(const tfb_conv *op, int32_t c) {
  if (op->form & TFB_BIAS16) return ((const int16_t *)op->bias)[c];
  if (op->form & TFB_BIAS24) {
    const uint8_t *bytes = (const uint8_t *)op->bias + 3 * c;
    uint32_t word = (uint32_t)bytes[0] << 8 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 24;
    return (int32_t)word >> 8;
  }
  return ((const int32_t *)op->bias)[c];
}

static inline tfb_channel tfb_channel_of(const tfb_conv *op, int32_t c, const int8_t *row,
                                         int32_t n) {
  tfb_channel channel;
  uint32_t multiplier = (uint32_t)op->multiplier[op->form & TFB_EACH_MULTIPLIER ? c : 0];
  int32_t stored = tfb_bias(op, c);
  channel.shift = op->shift[op->form & TFB_EACH_SHIFT ? c : 0];
  if (op->form & TFB_JOINT_SHIFT) {
    channel.shift += (int32_t)(multiplier >> 30);
    multiplier = (multiplier & 0x3fffffffu) | 0x40000000u;
  }
  channel.multiplier = (int32_t)multiplier;
  channel.bias = channel.folded = stored;
  channel.partial[0].rows.first = channel.partial[1].rows.first = -1; /* none yet */
  if (!(op->form & TFB_FOLDED) && op->in_zero != 0) {
    channel.folded = stored - op->prescale * op->in_zero * tfb_sum(row, n);
  }
  return channel;
}

static inline int8_t tfb_stored(const tfb_conv *op, const tfb_channel *channel, int32_t sum) {
  int32_t value = tfb_scale(sum, channel->multiplier, channel->shift) + op->out_zero;
  return (int8_t)tfb_clamp(value, op->low, op->high);
}

/* The taps of a filter of size k that lie inside [0, size) from `start` on. */
static inline tfb_range tfb_inside(int32_t start, int32_t k, int32_t dilation, int32_t size) {
  tfb_range range;
  range.first = 0;
  range.last = k;
  if (start >= 0 && start + (k - 1) * dilation < size) return range;
  if (start < 0) range.first = (dilation - 1 - start) / dilation;
  range.last = size > start ? tfb_min(k, (size - start + dilation - 1) / dilation) : 0;
  return range;
}

/* What the products of the taps in `rows` and `columns` are added to. The border counts as zero, and
 * so does the input's zero point; `depth` weights belong to a tap. */
static inline int32_t tfb_base(const tfb_conv *op, tfb_channel *channel, const int8_t *row,
                               int32_t depth, tfb_range rows, tfb_range columns) {
  tfb_partial *last = &channel->partial[columns.first > 0 ? 0 : 1];
  int32_t length = (columns.last - columns.first) * depth, sum = 0, ky;
  if (rows.last - rows.first == op->k_h && columns.last - columns.first == op->k_w) {
    return channel->folded;
  }
  if (op->in_zero == 0) return channel->bias;
  if (last->rows.first != rows.first || last->rows.last != rows.last ||
      last->columns.first != columns.first || last->columns.last != columns.last) {
    for (ky = rows.first; ky < rows.last; ky++) {
      sum += tfb_sum(row + (ky * op->k_w + columns.first) * depth, length);
    }
    last->rows = rows;
    last->columns = columns;
    last->base = channel->bias - op->prescale * op->in_zero * sum;
  }
  return last->base;
}

/* One output of one channel. Neighbouring taps are neighbours in memory unless they are dilated. */
static inline int8_t tfb_conv_at(const tfb_conv *op, const int8_t *image, const int8_t *row,
                                 tfb_channel *channel, int32_t y, int32_t x, tfb_range rows) {
  tfb_range columns = tfb_inside(x, op->k_w, op->dilation_w, op->in_w);
  int32_t taps = columns.last - columns.first, sum = 0, ky, kx;
  int32_t base = tfb_base(op, channel, row, op->in_c, rows, columns);
  int32_t runs = op->dilation_w == 1 ? 1 : taps;
  int32_t length = (op->dilation_w == 1 ? taps : 1) * op->in_c;
  for (ky = rows.first; ky < rows.last; ky++) {
    const int8_t *pixel = image + (y + ky * op->dilation_h) * op->in_w * op->in_c;
    const int8_t *w = row + (ky * op->k_w + columns.first) * op->in_c;
    pixel += (x + columns.first * op->dilation_w) * op->in_c;
    for (kx = 0; kx < runs; kx++, pixel += op->dilation_w * op->in_c, w += op->in_c) {
      sum = tfb_dot(pixel, w, length, sum);
    }
  }
  return tfb_stored(op, channel, sum * op->prescale + base);
}

/* One output row of one channel; where all columns of the filter are inside, two positions share each
 * load of the weights. */
static inline void tfb_conv_line(const tfb_conv *op, const int8_t *image, const int8_t *row,
                                 tfb_channel *channel, int32_t oy, int8_t *out) {
  int32_t y = oy * op->stride_h - op->pad_h, x = -op->pad_w, step = op->stride_w * op->in_c;
  int32_t last = op->in_w - op->k_w - op->stride_w, ox, base, sums[2];
  tfb_range rows = tfb_inside(y, op->k_h, op->dilation_h, op->in_h), columns;
  const int8_t *line = image + (y + rows.first * op->dilation_h) * op->in_w * op->in_c;
  const int8_t *w = row + rows.first * op->k_w * op->in_c;
  tfb_block block;
  columns.first = 0;
  columns.last = op->k_w;
  block.rows = rows.last - rows.first;
  block.length = block.w_step = op->k_w * op->in_c;
  block.x_step = op->dilation_h * op->in_w * op->in_c;
  for (ox = 0; ox < op->out_w; ox++, x += op->stride_w, out += op->out_c) {
    if (op->dilation_w > 1 || x < 0 || x > last || ox + 1 == op->out_w) {
      *out = tfb_conv_at(op, image, row, channel, y, x, rows);
      continue;
    }
    base = tfb_base(op, channel, row, op->in_c, rows, columns);
    for (; x <= last && ox + 1 < op->out_w; ox += 2, x += 2 * op->stride_w, out += 2 * op->out_c) {
      sums[0] = sums[1] = 0;
      tfb_dot2(line + x * op->in_c, step, w, &block, sums);
      out[0] = tfb_stored(op, channel, sums[0] * op->prescale + base);
      out[op->out_c] = tfb_stored(op, channel, sums[1] * op->prescale + base);
    }
    ox--;
    x -= op->stride_w;
    out -= op->out_c;
  }
}

/* CONV_2D; FULLY_CONNECTED as a 1x1 convolution over a row of samples. */
static inline void tfb_conv_2d(const tfb_conv *op, const int8_t *in, int8_t *out, int8_t *scratch) {
  int32_t c, b, y, taps = op->k_h * op->k_w * op->in_c;
  int32_t in_size = op->in_h * op->in_w * op->in_c, line = op->out_w * op->out_c;
  tfb_stream stream = {0, 0, 0};
  stream.next = op->weights;
  for (c = 0; c < op->out_c; c++) {
    const int8_t *row = tfb_unpack(&stream, op->bits, scratch, taps);
    tfb_channel channel = tfb_channel_of(op, c, row, taps);
    for (b = 0; b < op->batch; b++) {
      for (y = 0; y < op->out_h; y++) {
        int8_t *target = out + (b * op->out_h + y) * line + c;
        tfb_conv_line(op, in + b * in_size, row, &channel, y, target);
      }
    }
  }
}

/* Products of one filter over pixels that are `step` bytes apart. */
static inline int32_t tfb_strided(const int8_t *x, int32_t step, const int8_t *w, int32_t n,
                                  int32_t sum) {
  if (n == 3) return sum + x[0] * w[0] + x[step] * w[1] + x[2 * step] * w[2];
  for (; n > 0; n--, x += step) sum += *x * *w++;
  return sum;
}

/* One output row of one channel of DEPTHWISE_CONV_2D. */
static inline void tfb_depthwise_line(const tfb_conv *op, const int8_t *plane, const int8_t *row,
                                      tfb_channel *channel, int32_t oy, int8_t *out) {
  int32_t y = oy * op->stride_h - op->pad_h, step = op->dilation_w * op->in_c, ox, ky;
  tfb_range rows = tfb_inside(y, op->k_h, op->dilation_h, op->in_h);
  for (ox = 0; ox < op->out_w; ox++, out += op->out_c) {
    int32_t x = ox * op->stride_w - op->pad_w, sum = 0;
    tfb_range columns = tfb_inside(x, op->k_w, op->dilation_w, op->in_w);
    int32_t taps = columns.last - columns.first;
    for (ky = rows.first; ky < rows.last; ky++) {
      int32_t first = (y + ky * op->dilation_h) * op->in_w + x + columns.first * op->dilation_w;
      const int8_t *w = row + ky * op->k_w + columns.first;
      sum = tfb_strided(plane + first * op->in_c, step, w, taps, sum);
    }
    sum = sum * op->prescale + tfb_base(op, channel, row, 1, rows, columns);
    *out = tfb_stored(op, channel, sum);
  }
}

/* DEPTHWISE_CONV_2D; output channel c reads input channel c / (out_c / in_c). */
static inline void tfb_depthwise(const tfb_conv *op, const int8_t *in, int8_t *out,
                                 int8_t *scratch) {
  int32_t c, b, y, taps = op->k_h * op->k_w, multiple = op->out_c / op->in_c;
  tfb_stream stream = {0, 0, 0};
  stream.next = op->weights;
  for (c = 0; c < op->out_c; c++) {
    const int8_t *row = tfb_unpack(&stream, op->bits, scratch, taps);
    tfb_channel channel = tfb_channel_of(op, c, row, taps);
    int8_t *target = out + c;
    for (b = 0; b < op->batch; b++) {
      const int8_t *plane = in + b * op->in_h * op->in_w * op->in_c + c / multiple;
      for (y = 0; y < op->out_h; y++, target += op->out_w * op->out_c) {
        tfb_depthwise_line(op, plane, row, &channel, y, target);
      }
    }
  }
}

/* Products that TRANSPOSE_CONV sends to output (oy, ox): the inputs at which a tap lands there. */
static inline int32_t tfb_transpose_sum(const tfb_conv *op, const int8_t *image, const int8_t *row,
                                        int32_t oy, int32_t ox) {
  int32_t ky, kx, sum = 0;
  for (ky = 0; ky < op->k_h; ky++) {
    int32_t y = oy + op->pad_h - ky;
    if (y < 0 || y % op->stride_h != 0 || y / op->stride_h >= op->in_h) continue;
    for (kx = 0; kx < op->k_w; kx++) {
      int32_t x = ox + op->pad_w - kx;
      if (x < 0 || x % op->stride_w != 0 || x / op->stride_w >= op->in_w) continue;
      sum = tfb_dot_from(image + (y / op->stride_h * op->in_w + x / op->stride_w) * op->in_c,
                         row + (ky * op->k_w + kx) * op->in_c, op->in_c, op->in_zero, sum);
    }
  }
  return sum;
}

static inline void tfb_transpose_conv(const tfb_conv *op, const int8_t *in, int8_t *out,
                                      int8_t *scratch) {
  int32_t c, b, y, x, taps = op->k_h * op->k_w * op->in_c;
  tfb_stream stream = {0, 0, 0};
  stream.next = op->weights;
  for (c = 0; c < op->out_c; c++) {
    const int8_t *row = tfb_unpack(&stream, op->bits, scratch, taps);
    tfb_channel channel = tfb_channel_of(op, c, row, taps);
    int8_t *target = out + c;
    for (b = 0; b < op->batch; b++) {
      const int8_t *image = in + b * op->in_h * op->in_w * op->in_c;
      for (y = 0; y < op->out_h; y++) {
        for (x = 0; x < op->out_w; x++, target += op->out_c) {
          int32_t sum = tfb_transpose_sum(op, image, row, y, x) * op->prescale + channel.bias;
          *target = tfb_stored(op, &channel, sum);
        }
      }
    }
  }
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
