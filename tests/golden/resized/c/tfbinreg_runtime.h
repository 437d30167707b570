#ifndef TFBINREG_RUNTIME_H_
#define TFBINREG_RUNTIME_H_

/* Integer kernels for the C that tflite_tools generates. C99 without floating point or malloc.
 *
 * Every kernel computes bit for bit what TensorFlow Lite for Microcontrollers computes for the
 * canonical int8 file: sums in 32 bits, scaled with two roundings. Weights are codes of 2, 3, 4
 * or 8 bits, packed without gaps, least significant bit first; whole blocks of a filter's codes
 * are in an order in which a mask takes out four (tfb_block2, 3, 4). Two filters are unpacked at
 * a time.
 *
 * Assumed of the compiler: int is at least 32 bits, >> of a negative number is arithmetic, and
 * conversion to a signed type wraps. GCC, Clang, Arm Compiler and IAR promise all three. Words
 * are little-endian.
 *
 * With the DSP extension of Armv7E-M and Armv8-M two products are summed per instruction;
 * TFBINREG_EMULATE_DSP runs the same path with functions in place of the instructions. With
 * Helium (MVE) it is sixteen. Elsewhere one multiplication of 32 bits makes two products of
 * codes of 4 bits and fewer (joined.h).
 * */
#include <limits.h>
#include <stdint.h>
#include <string.h>

#if INT_MAX < 0x7FFFFFFF
#error "these kernels compute with an int of 32 bits: this device has a smaller one (AVR, for example)"
#endif

#define TFB_CALLS 3 /* goes up when a network calls these kernels in another way */

/* The innermost loops stay functions of their own, with all registers to themselves. */
#if defined(__GNUC__)
#define TFB_APART __attribute__((noinline, unused))
#else
#define TFB_APART inline
#endif

/* Where the compiler is GCC and makes Thumb-2, they are written by hand: compilers load and store
 * word by word. They take nearly all registers, which Clang does not give. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__OPTIMIZE__) && defined(__thumb2__) && \
    !defined(TFBINREG_EMULATE_DSP)
#define TFB_BY_HAND 1
#else
#define TFB_BY_HAND 0
#endif

/* Those that are compiled anew for some of their arguments, unless code is to be small. */
#if defined(__GNUC__) && defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__)
#define TFB_INSIDE inline __attribute__((always_inline))
#else
#define TFB_INSIDE inline
#endif

/* Helium's innermost loops are written by hand, with all registers: where a compiler does not optimize, or
 * has another assembler, portable C runs.
 *
 * tfb_even and tfb_odd: bytes 0 and 2, or 1 and 3, of a word as two signed 16-bit numbers;
 * tfb_even_plus and tfb_odd_plus add those of `pair`. */
#if defined(__ARM_FEATURE_MVE) && defined(__GNUC__) && defined(__OPTIMIZE__)
#define TFB_DSP 0
#define TFB_MVE 1
#include <arm_mve.h>
#else
#define TFB_MVE 0
#endif

#if TFB_MVE
#elif defined(TFBINREG_EMULATE_DSP)
#define TFB_DSP 1
static inline uint32_t tfb_even_plus(uint32_t pair, uint32_t x) {
  int32_t low = (int8_t)x, high = (int8_t)(x >> 16);
  return ((pair >> 16) + (uint32_t)high) << 16 | ((pair + (uint32_t)low) & 0xffff);
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
/* Whether a multiplication makes two products of small codes. */
#define TFB_JOINS (!TFB_DSP && !TFB_MVE)

/* Whether words are loaded and stored from any address, not byte by byte. */
#if defined(__ARM_FEATURE_UNALIGNED) || defined(__riscv_misaligned_fast) || defined(__i386__) || \
    defined(__x86_64__) || defined(__aarch64__)
#define TFB_UNALIGNED 1
#else
#define TFB_UNALIGNED 0
#endif

/* How packed weights are declared: to begin where words do, if words do not begin anywhere. */
#if !TFB_UNALIGNED && defined(__GNUC__)
#define TFB_ALIGNED __attribute__((aligned(4)))
#else
#define TFB_ALIGNED
#endif

/* Loads stay behind this, near to what they are used for: compilers that move them forwards run
 * out of registers. */
#if defined(__GNUC__)
#define TFB_LOADS_STAY __asm__ volatile("" : : : "memory")
#else
#define TFB_LOADS_STAY (void)0
#endif

/* A number that is not made anew wherever it is used, so that an AND can shift its other
 * operand. */
static inline uint32_t tfb_in_register(uint32_t x) {
#if defined(__GNUC__) && defined(__OPTIMIZE__)
  __asm__("" : "+r"(x));
#endif
  return x;
}

/* Pointers that are moved on as they are, not replaced by others. */
#if defined(__GNUC__) && defined(__OPTIMIZE__)
#define TFB_IN_REGISTERS(a, b) __asm__("" : "+r"(a), "+r"(b))
#else
#define TFB_IN_REGISTERS(a, b) (void)0
#endif

/* Keeps what is there in memory: compilers that hold it in registers run out of these. */
static inline void tfb_in_memory(void *place) {
#if defined(__GNUC__) && defined(__OPTIMIZE__)
  __asm__ volatile("" : : "r"(place) : "memory");
#else
  (void)place;
#endif
}

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
#if (TFB_DSP || TFB_MVE) && defined(__GNUC__) && !defined(TFBINREG_EMULATE_DSP)
  int32_t result;
  __asm__("smmulr %0, %1, %2" : "=r"(result) : "r"(a2), "r"(b));
  return result;
#else
  int64_t product = (int64_t)a2 * b; /* the half carries into the upper word from bit 31 */
  return (int32_t)(product >> 32) + (int32_t)((uint32_t)product >> 31);
#endif
}

/* sum + a * b. Where several are summed up, compilers would make all products first. */
static inline uint32_t tfb_mla(uint32_t sum, uint32_t a, uint32_t b) {
#if defined(__GNUC__) && defined(__thumb2__)
  __asm__("mla %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
#else
  sum += a * b;
#if defined(__GNUC__) && defined(__OPTIMIZE__)
  __asm__("" : "+r"(sum));
#endif
#endif
  return sum;
}

static inline int32_t tfb_sum_of(int32_t sum, int32_t a, int32_t b) {
  return (int32_t)tfb_mla((uint32_t)sum, (uint32_t)a, (uint32_t)b);
}

/* tfb_product_of_twice(a2, b) + c */
static inline int32_t tfb_product_plus(int32_t a2, int32_t b, int32_t c) {
#if (TFB_DSP || TFB_MVE) && defined(__GNUC__) && !defined(TFBINREG_EMULATE_DSP)
  int32_t result;
  __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(a2), "r"(b), "r"(c));
  return result;
#elif defined(__GNUC__) && defined(__thumb2__)
  int32_t low = INT32_MIN; /* the half, below the upper word c */
  __asm__("smlal %0, %1, %2, %3" : "+r"(low), "+r"(c) : "r"(a2), "r"(b));
  return c;
#else
  return tfb_product_of_twice(a2, b) + c;
#endif
}

/* The nearest number of 8 bits. */
static inline int8_t tfb_saturated(int32_t x) {
#if defined(__ARM_FEATURE_SAT) && defined(__GNUC__)
  __asm__("ssat %0, #8, %0" : "+r"(x));
  return (int8_t)x;
#else
  return (int8_t)tfb_clamp(x, -128, 127);
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

/* The same for a shift of at most 0 and numbers of 30 bits; 0 is rounded to 0 whatever its sign
 * was, so that the sign before the product does. */
static inline int32_t tfb_scale_down(int32_t x, int32_t multiplier, int32_t shift) {
  int32_t sign = -(shift < 0), half = (int32_t)(((uint32_t)1 << -shift) >> 1);
  return tfb_product_plus(2 * x, multiplier, half + ((x >> 31) & sign)) >> -shift;
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

/* ---- Convolutions ---- */

/* Flags of tfb_conv.form. */
#define TFB_BIAS16 1          /* biases are int16_t, not int32_t */
#define TFB_BIAS24 2          /* biases are three bytes each, least significant first */
#define TFB_FOLDED 4          /* biases contain -in_zero * sum of the filter's weights */
#define TFB_EACH_MULTIPLIER 8 /* a multiplier per channel, not one for all */
#define TFB_EACH_SHIFT 16     /* a shift per channel, not one for all */
#define TFB_JOINT_SHIFT 32    /* bits 30 and 31 of a multiplier are added to the shift */
#define TFB_SHORT 128         /* bias and multiplier of a channel are three bytes of `bias` */

#ifndef TFB_SHORT_CONSTANTS /* whether a layer has the last flag */
#define TFB_SHORT_CONSTANTS 0
#endif

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

/* What turns the sums of a filter into stored values: as in tfb_filter, with an offset that holds
 * the half of the last rounding and the zero point. Those of two filters follow their weights. */
typedef struct {
  int32_t factor, base, multiplier, offset, exponent;
} tfb_scales;

#define TFB_TWO_SCALES ((int32_t)(2 * sizeof(tfb_scales) / 4)) /* words */

/* What is taken off the inputs where a filter reaches over the border. */
static inline int32_t tfb_zero(const tfb_conv *op) {
  return op->form & TFB_FOLDED ? 0 : op->in_zero;
}

/* Three bytes, least significant first, in the upper bits of a word. */
static inline uint32_t tfb_three_bytes(const tfb_conv *op, int32_t c) {
  const uint8_t *bytes = (const uint8_t *)op->bias + 3 * c;
  return (uint32_t)bytes[0] << 8 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 24;
}

static inline int32_t tfb_bias(const tfb_conv *op, int32_t c) {
  if (op->form & TFB_BIAS16) return ((const int16_t *)op->bias)[c];
  if (op->form & TFB_BIAS24) return (int32_t)tfb_three_bytes(op, c) >> 8;
  return ((const int32_t *)op->bias)[c];
}

/* What turns the sums of channel c into stored values. In short constants the upper half of
 * three bytes is the bias, the lower one how many octaves the factor lies above `shift[0]` and,
 * in `shift[1]` bits, what its multiplier has behind the leading one. A bias counts in
 * 2^`shift[2]`, and in an octave less for each that the factor lies higher. */
static inline tfb_filter tfb_filter_scales(const tfb_conv *op, int32_t c) {
  tfb_filter filter;
  uint32_t multiplier;
  int32_t shift = op->shift[op->form & TFB_EACH_SHIFT ? c : 0], left, bias;
#if TFB_SHORT_CONSTANTS
  if (op->form & TFB_SHORT) {
    uint32_t word = tfb_three_bytes(op, c), code = word >> 8 & 0xfff;
    int32_t above = (int32_t)(code >> op->shift[1]);
    multiplier = 0x40000000u | (code << (30 - op->shift[1]) & 0x3fffffffu);
    shift += above;
    bias = ((int32_t)word >> 20) * ((int32_t)1 << tfb_max(op->shift[2] - above, 0));
  } else
#endif
  {
    multiplier = (uint32_t)op->multiplier[op->form & TFB_EACH_MULTIPLIER ? c : 0];
    bias = tfb_bias(op, c);
    if (op->form & TFB_JOINT_SHIFT) {
      shift += (int32_t)(multiplier >> 30);
      multiplier = (multiplier & 0x3fffffffu) | 0x40000000u;
    }
  }
  left = tfb_max(shift, 0);
  filter.row = 0;
  filter.outside = 0;
  filter.factor = (int32_t)op->prescale << (left + 1);
  filter.base = bias * ((int32_t)2 << left);
  filter.multiplier = (int32_t)multiplier;
  filter.exponent = left - shift;
  return filter;
}

/* The filter with the codes in `row`. */
static inline tfb_filter tfb_filter_with(const tfb_conv *op, int32_t c, const int8_t *row,
                                         int32_t taps) {
  tfb_filter filter = tfb_filter_scales(op, c);
  filter.row = row;
  filter.outside = tfb_zero(op) != 0 ? tfb_zero(op) * tfb_sum(filter.row, taps) : 0;
  filter.base -= (filter.outside >> (8 - op->bits)) * filter.factor;
  return filter;
}

/* From this exponent on the offset below and what it is added to could leave 31 bits. */
#define TFB_MOST_SHIFT 22

#if !TFB_MVE
/* Whether limits leave nothing below the zero point, so that how negative numbers are rounded does
 * not show. */
static inline int32_t tfb_rectifies(const tfb_conv *op) {
#if defined(__ARM_FEATURE_SAT)
  return op->low == -128 && op->high == 127 && op->out_zero == -128;
#else
  return op->low == op->out_zero;
#endif
}

/* What is stored then. Without an instruction that saturates a branch is taken anyway: it spares the
 * product of what is below zero. */
static inline int32_t tfb_rectified(int32_t twice, int32_t multiplier, int32_t offset,
                                    int32_t exponent, int32_t low, int32_t high) {
#if defined(__ARM_FEATURE_SAT)
  (void)low;
  (void)high;
  return tfb_saturated(tfb_product_plus(twice, multiplier, offset) >> exponent);
#else
  if (twice < 0) return low;
  return tfb_min(tfb_product_plus(twice, multiplier, offset) >> exponent, high);
#endif
}
#endif

/* Stores n outputs of a filter. */
#if TFB_MVE
static TFB_APART void tfb_store(const tfb_conv *op, const tfb_filter *filter, const int32_t *sums,
                                int32_t n, int8_t *out) {
  int32_t factor = filter->factor / 2, next = op->out_c;
  int32x4_t drop = vdupq_n_s32(op->bits - 8), base = vdupq_n_s32(filter->base / 2);
  int32x4_t exponent = vdupq_n_s32(-filter->exponent);
  int32x4_t sign = vdupq_n_s32(-(filter->exponent > 0)), zero = vdupq_n_s32(op->out_zero);
  int32x4_t low = vdupq_n_s32(op->low), high = vdupq_n_s32(op->high);
  uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)next);
  for (; n > 0; n -= 4, sums += 4, out += 4 * next) {
    mve_pred16_t left = vctp32q((uint32_t)n);
    int32x4_t value = vshlq_s32(vldrwq_z_s32(sums, left), drop);
    value = vqrdmulhq_n_s32(vaddq_s32(vmulq_n_s32(value, factor), base), filter->multiplier);
    value = vaddq_s32(value, vandq_s32(vshrq_n_s32(value, 31), sign));
    value = vaddq_s32(vrshlq_s32(value, exponent), zero);
    value = vminq_s32(vmaxq_s32(value, low), high);
    vstrbq_scatter_offset_p_s32(out, places, value, left);
  }
}
#else
/* The last rounding takes 1 off a negative number, where there is one; it may go by the sign
 * before the product, for 0 is rounded to 0 either way. Mostly the offset that is added has the
 * half of that rounding and the zero point, and what codes are times is in the factor. */
static TFB_APART void tfb_store(const tfb_conv *op, const tfb_filter *filter, const int32_t *sums,
                                int32_t n, int8_t *out) {
  int32_t drop = 8 - op->bits, zero = op->out_zero, low = op->low, high = op->high;
  int32_t factor = filter->factor, base = filter->base, multiplier = filter->multiplier;
  int32_t exponent = filter->exponent, sign = -(exponent > 0), next = op->out_c, half;
  const int32_t *end = sums + n;
  if (exponent > 0 && exponent < TFB_MOST_SHIFT && (factor & ((1 << drop) - 1)) == 0) {
    int32_t offset = (zero * 2 + 1) * (1 << (exponent - 1));
    factor >>= drop;
    if (tfb_rectifies(op)) {
      for (; sums != end; out += next) {
        int32_t twice = *sums++ * factor + base;
        *out = (int8_t)tfb_rectified(twice, multiplier, offset, exponent, low, high);
      }
      return;
    }
    if (low == -128 && high == 127) {
      for (; sums != end; out += next) {
        int32_t twice = *sums++ * factor + base;
        twice = tfb_product_plus(twice, multiplier, offset + (twice >> 31)) >> exponent;
        *out = tfb_saturated(twice);
      }
      return;
    }
    for (; sums != end; out += next) {
      int32_t twice = *sums++ * factor + base;
      twice = tfb_product_plus(twice, multiplier, offset + (twice >> 31)) >> exponent;
      *out = (int8_t)tfb_clamp(twice, low, high);
    }
    return;
  }
  half = (int32_t)(((uint32_t)1 << exponent) >> 1);
  for (; sums != end; out += next) {
    int32_t twice = (*sums++ >> drop) * factor + base;
    twice = tfb_product_plus(twice, multiplier, half + ((twice >> 31) & sign)) >> exponent;
    *out = (int8_t)tfb_clamp(twice + zero, low, high);
  }
}
#endif

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

/* ---- Rows of codes, and what a filter sees ---- */

/* How a filter's codes are found: times 2^(8 - bits), from a stream that stands before them. */
typedef const int8_t *(*tfb_row_of)(const void *op, int32_t c, tfb_stream *stream, int8_t *scratch,
                                    int32_t taps);

static inline const int8_t *tfb_plain_row(const void *op, int32_t c, tfb_stream *stream,
                                          int8_t *scratch, int32_t taps) {
  (void)c;
  return tfb_unpack(stream, ((const tfb_conv *)op)->bits, scratch, taps);
}

#if !TFB_MVE
/* Widens blocks of packed codes of two rows, as tfb_unpack would unpack them before. */
typedef uint32_t *(*tfb_widen_codes)(uint32_t *to, const uint8_t *p, const uint8_t *q,
                                     int32_t blocks);
#endif

/* The filters from `first` on and below `last`, and where their codes are. */
typedef struct {
  tfb_row_of row_of;
  const void *source; /* that function's */
  tfb_stream stream;  /* stands before the codes of `first` */
  int32_t first, last;
#if !TFB_MVE
  tfb_widen_codes widen; /* for packed codes of less than 8 bits; else 0 */
#endif
} tfb_rows;

/* All filters of a convolution. */
static inline tfb_rows tfb_rows_of(const tfb_conv *op, tfb_row_of row_of, const void *source) {
  tfb_rows rows;
  rows.row_of = row_of;
  rows.source = source;
  rows.stream.next = op->weights;
  rows.stream.held = 0;
  rows.stream.count = 0;
  rows.first = 0;
  rows.last = op->out_c;
#if !TFB_MVE
  rows.widen = 0;
#endif
  return rows;
}

/* Where a filter lies: its first row and column in an image. */
typedef struct {
  const int8_t *image;
  int32_t y, x;
} tfb_spot;

/* n bytes of an image, or of the zero point for none; returns the place behind them. */
static TFB_APART int8_t *tfb_put_bytes(const tfb_conv *op, int8_t *to, const int8_t *from,
                                       int32_t n) {
  int8_t *end = to + n;
#if TFB_MVE
  __asm__ volatile(
      "wlstp.8 lr, %[n], 3f\n"
      "cbz %[from], 2f\n"
      "1: vldrb.8 q0, [%[from]], #16\n"
      "vstrb.8 q0, [%[to]], #16\n"
      "letp lr, 1b\n"
      "b 3f\n"
      "2: vstrb.8 %q[zero], [%[to]], #16\n"
      "letp lr, 2b\n"
      "3:\n"
      : [to] "+r"(to), [from] "+l"(from)
      : [n] "r"(n), [zero] "w"(vdupq_n_s8(op->in_zero))
      : "lr", "q0", "cc", "memory");
#else
  if (from) {
#if TFB_UNALIGNED
    for (; n >= 4; n -= 4, to += 4, from += 4) tfb_put(to, tfb_word(from));
#else
    for (; n >= 4; n -= 4, to += 4, from += 4) {
      to[0] = from[0];
      to[1] = from[1];
      to[2] = from[2];
      to[3] = from[3];
    }
#endif
    for (; n > 0; n--) *to++ = *from++;
  } else {
    memset(to, op->in_zero, (size_t)n);
  }
#endif
  return end;
}

static inline int32_t tfb_lies_inside(const tfb_conv *op, const tfb_spot *spot) {
  return spot->y >= 0 && spot->x >= 0 && spot->y + (op->k_h - 1) * op->dilation_h < op->in_h &&
         spot->x + (op->k_w - 1) * op->dilation_w < op->in_w;
}

/* What a filter sees, as a row of bytes; the zero point around the image. */
static TFB_APART void tfb_patch(const tfb_conv *op, const tfb_spot *spot, int8_t *row) {
  int32_t ky, kx, c = op->in_c, line = op->in_w * c, across = op->k_w * c;
  int32_t y = spot->y, x = spot->x, before, inside;
  const int8_t *first = spot->image + y * line + x * c;
  if (op->dilation_w == 1 && tfb_lies_inside(op, spot)) {
    for (ky = op->k_h; ky > 0; ky--, first += op->dilation_h * line) {
      row = tfb_put_bytes(op, row, first, across);
    }
    return;
  }
  before = tfb_clamp(-x, 0, op->k_w) * c;
  inside = tfb_clamp(op->in_w - x, 0, op->k_w) * c - before;
  for (ky = op->k_h; ky > 0; ky--, y += op->dilation_h, first += op->dilation_h * line) {
    int32_t is_row = y >= 0 && y < op->in_h, n = is_row ? inside : 0;
    if (!is_row || op->dilation_w == 1) { /* a run between zeros */
      row = tfb_put_bytes(op, row, 0, before);
      row = tfb_put_bytes(op, row, first + before, n);
      row = tfb_put_bytes(op, row, 0, across - before - n);
      continue;
    }
    for (kx = 0; kx < op->k_w; kx++) {
      int32_t at = kx * op->dilation_w, is_inside = x + at >= 0 && x + at < op->in_w;
      row = tfb_put_bytes(op, row, is_inside ? first + at * c : 0, c);
    }
  }
}

/* ---- From sums to stored values with Helium ---- */

#if TFB_MVE

/* What turns the sums of four channels into stored values: (sum + bias) * 2^left * multiplier / 2^31
 * * 2^exponent. Exponents are never positive. */
typedef struct {
  int32x4_t bias, multiplier, exponent, left;
} tfb_four;

/* Three bytes for each of four channels, least significant first, in the upper bits of words. */
static inline uint32x4_t tfb_four_of_three_bytes(const tfb_conv *op, int32_t c,
                                                 mve_pred16_t wanted) {
  const uint8_t *bytes = (const uint8_t *)op->bias + 3 * c;
  uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), 3);
  uint32x4_t word = vldrbq_gather_offset_z_u32(bytes + 2, places, wanted);
  word = vorrq_u32(vshlq_n_u32(word, 8), vldrbq_gather_offset_z_u32(bytes + 1, places, wanted));
  word = vorrq_u32(vshlq_n_u32(word, 8), vldrbq_gather_offset_z_u32(bytes, places, wanted));
  return vshlq_n_u32(word, 8);
}

/* Biases of the channels from c on, unless constants are short. */
static inline int32x4_t tfb_four_biases(const tfb_conv *op, int32_t c, mve_pred16_t wanted) {
  if (op->form & TFB_BIAS16) return vldrhq_z_s32((const int16_t *)op->bias + c, wanted);
  if (op->form & TFB_BIAS24) {
    return vshrq_n_s32(vreinterpretq_s32_u32(tfb_four_of_three_bytes(op, c, wanted)), 8);
  }
  return vldrwq_z_s32((const int32_t *)op->bias + c, wanted);
}

/* Of the channels from c on, as tfb_filter_scales has them for one. */
static inline tfb_four tfb_four_scales(const tfb_conv *op, int32_t c, mve_pred16_t wanted) {
  tfb_four four;
  int32x4_t shift = vdupq_n_s32(op->shift[0]), none = vdupq_n_s32(0);
  if (op->form & TFB_EACH_SHIFT) shift = vldrbq_z_s32(op->shift + c, wanted);
#if TFB_SHORT_CONSTANTS
  if (op->form & TFB_SHORT) {
    uint32x4_t word = tfb_four_of_three_bytes(op, c, wanted);
    uint32x4_t code = vandq_u32(vshrq_n_u32(word, 8), vdupq_n_u32(0xfff));
    int32x4_t above = vreinterpretq_s32_u32(vshlq_r_u32(code, -op->shift[1]));
    code = vandq_u32(vshlq_r_u32(code, 30 - op->shift[1]), vdupq_n_u32(0x3fffffff));
    four.multiplier = vreinterpretq_s32_u32(vorrq_u32(code, vdupq_n_u32(0x40000000)));
    shift = vaddq_s32(vdupq_n_s32(op->shift[0]), above);
    above = vmaxq_s32(vsubq_s32(vdupq_n_s32(op->shift[2]), above), none);
    four.bias = vshlq_s32(vshrq_n_s32(vreinterpretq_s32_u32(word), 20), above);
  } else
#endif
  {
    four.multiplier = vdupq_n_s32(op->multiplier[0]);
    if (op->form & TFB_EACH_MULTIPLIER) four.multiplier = vldrwq_z_s32(op->multiplier + c, wanted);
    four.bias = tfb_four_biases(op, c, wanted);
    if (op->form & TFB_JOINT_SHIFT) {
      uint32x4_t joint = vreinterpretq_u32_s32(four.multiplier);
      shift = vaddq_s32(shift, vreinterpretq_s32_u32(vshrq_n_u32(joint, 30)));
      joint = vorrq_u32(vandq_u32(joint, vdupq_n_u32(0x3fffffff)), vdupq_n_u32(0x40000000));
      four.multiplier = vreinterpretq_s32_u32(joint);
    }
  }
  four.left = vmaxq_s32(shift, none);
  four.exponent = vminq_s32(shift, none);
  return four;
}

/* Four sums with their biases as stored values that are not limited yet. The last rounding takes 1
 * off a negative number, where there is one: then exponents are negative too. */
static inline int32x4_t tfb_four_scaled(tfb_four four, int32x4_t sums, int32_t zero) {
  sums = vqrdmulhq_s32(vshlq_s32(sums, four.left), four.multiplier);
  sums = vaddq_s32(sums, vshrq_n_s32(vandq_s32(sums, four.exponent), 31));
  return vaddq_n_s32(vrshlq_s32(sums, four.exponent), zero);
}

/* Stores what up to four channels make of their sums without biases. */
static inline void tfb_store_four(const tfb_conv *op, tfb_four four, mve_pred16_t wanted,
                                  int32x4_t sums, int8_t *out) {
  int32x4_t value = tfb_four_scaled(four, vaddq_s32(sums, four.bias), op->out_zero);
  value = vmaxq_s32(vminq_s32(value, vdupq_n_s32(op->high)), vdupq_n_s32(op->low));
  vstrbq_p_s32(out, value, wanted);
}
#endif

/* ---- Filters as they are stored in the file, and copies, with Helium ---- */

#if TFB_MVE

/* Codes times 2^drop -> codes times the prescale, which are what the file stores; 8 bits hold them. */
static inline int8x16_t tfb_stored(int8x16_t codes, int32_t drop, int8_t prescale) {
  return vmulq_n_s8(vshlq_r_s8(codes, -drop), prescale);
}

static TFB_APART void tfb_store_row(const tfb_conv *op, const int8_t *codes, int8_t *row,
                                    int32_t n) {
  int32_t drop = 8 - op->bits;
  for (; n > 0; n -= 16, codes += 16, row += 16) {
    mve_pred16_t left = vctp8q((uint32_t)n);
    int8x16_t some = tfb_stored(vldrbq_z_s8(codes, left), drop, (int8_t)op->prescale);
    vstrbq_p_s8(row, some, left);
  }
}

/* Runs a loop over whole blocks as tfb_block2, 3 and 4 unpack them, four at a time; behind the last one
 * LETP leaves blocks out. Places of blocks are in q7; rows begin where words do. */
#define TFB_STORE_BLOCKS(body)                                                                \
  __asm__ volatile("dlstp.32 lr, %[blocks]\n1:\n" body "letp lr, 1b\n"                       \
                   : [p] "+r"(p), [row] "+r"(row)                                             \
                   : [blocks] "r"(blocks), [prescale] "r"(prescale), [first] "w"(first),      \
                     [second] "w"(second), [places] "w"(places)                               \
                   : "lr", "q0", "q1", "q2", "q3", "memory")
/* Puts the same four codes of each block, shifted up and down again, which gives them their signs. */
#define TFB_PUT_FOURS(up, down)                \
  up "vshr.s8 q1, q1, #" down "\n"             \
  "vmul.i8 q1, q1, %[prescale]\n"              \
  "vstrw.32 q1, [%[row], %q[places]]\n"        \
  "add %[row], #4\n"
#define TFB_UP(codes, up) "vshl.i8 q1, " codes ", #" up "\n"

static inline void tfb_store_blocks(int32_t bits, const uint8_t *p, int8_t *row, int32_t blocks,
                                    int32_t prescale) {
  static const uint8_t words[16] = {0, 1, 2, 3, 12, 13, 14, 15, 24, 25, 26, 27, 36, 37, 38, 39};
  uint8x16_t first = vldrbq_u8(words), second = vaddq_n_u8(first, 4);
  uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), bits == 4 ? 8 : bits == 3 ? 32 : 16);
  if (bits == 2) {
    TFB_STORE_BLOCKS("vldrb.8 q0, [%[p]], #16\n" TFB_PUT_FOURS(TFB_UP("q0", "6"), "6")
                     TFB_PUT_FOURS(TFB_UP("q0", "4"), "6") TFB_PUT_FOURS(TFB_UP("q0", "2"), "6")
                     TFB_PUT_FOURS("vmov q1, q0\n", "6") "add %[row], #48\n");
  } else if (bits == 4) {
    TFB_STORE_BLOCKS("vldrb.8 q0, [%[p]], #16\n" TFB_PUT_FOURS(TFB_UP("q0", "4"), "4")
                     TFB_PUT_FOURS("vmov q1, q0\n", "4") "add %[row], #24\n");
  } else {
    TFB_STORE_BLOCKS("vldrb.u8 q0, [%[p], %q[first]]\n"
                     "vldrb.u8 q2, [%[p], %q[second]]\n"
                     "add %[p], #4\n"
                     "vldrb.u8 q3, [%[p], %q[second]]\n"
                     TFB_PUT_FOURS(TFB_UP("q0", "5"), "5") TFB_PUT_FOURS(TFB_UP("q0", "2"), "5")
                     TFB_PUT_FOURS(TFB_UP("q2", "5"), "5") TFB_PUT_FOURS(TFB_UP("q2", "2"), "5")
                     TFB_PUT_FOURS(TFB_UP("q3", "5"), "5") TFB_PUT_FOURS(TFB_UP("q3", "2"), "5")
                     TFB_PUT_FOURS(TFB_UP("q2", "1") "vsri.8 q0, q1, #2\nvmov q1, q0\n", "5")
                     TFB_PUT_FOURS("vsri.8 q3, q2, #2\nvmov q1, q3\n", "5")
                     "add %[p], #44\nadd %[row], #96\n");
  }
}

/* n codes in order, whose first begins at a bit of a byte; eight at a time. Only those of 3 bits reach
 * into a second byte, which is there if they do. */
static inline void tfb_store_in_order(const tfb_conv *op, const uint8_t *from, int32_t begin,
                                      int8_t *row, int32_t n) {
  int32_t bits = op->bits, last = (begin + n * bits - 1) / 8;
  uint16x8_t bit = vmulq_n_u16(vidupq_n_u16(0, 1), (uint16_t)bits);
  bit = vaddq_n_u16(bit, (uint16_t)begin);
  for (; n > 0; n -= 8, row += 8, from += bits, last -= bits) {
    mve_pred16_t left = vctp16q((uint32_t)n);
    uint16x8_t place = vshrq_n_u16(bit, 3), code = vldrbq_gather_offset_z_u16(from, place, left);
    int16x8_t up = vreinterpretq_s16_u16(vandq_u16(bit, vdupq_n_u16(7)));
    if (bits == 3) {
      place = vminq_u16(vaddq_n_u16(place, 1), vdupq_n_u16((uint16_t)last));
      code = vorrq_u16(code, vshlq_n_u16(vldrbq_gather_offset_z_u16(from, place, left), 8));
    }
    code = vshlq_u16(code, vsubq_s16(vdupq_n_s16((int16_t)(16 - bits)), up));
    up = vshlq_r_s16(vreinterpretq_s16_u16(code), bits - 16);
    vstrbq_p_s16(row, vmulq_n_s16(up, op->prescale), left);
  }
}

/* The next n codes of a stream, of which no bits but `count` are needed, as the file stores them. */
static TFB_APART void tfb_store_packed(const tfb_conv *op, tfb_stream *stream, int8_t *row,
                                       int32_t n) {
  int32_t bits = op->bits, block = bits == 4 ? 8 : bits == 3 ? 32 : 16, whole = n & -block, end;
  if (stream->count == 0 && whole > 0) {
    tfb_store_blocks(bits, stream->next, row, whole / block, op->prescale);
    stream->next += whole * bits / 8;
    row += whole;
    n -= whole;
  }
  if (n == 0) return;
  stream->next -= stream->count > 0;
  end = (-stream->count & 7) + n * bits;
  tfb_store_in_order(op, stream->next, -stream->count & 7, row, n);
  stream->next += (end + 7) / 8;
  stream->count = -end & 7;
}

/* Whether filters are read where they are packed: their codes are what the file stores. */
static inline int32_t tfb_is_stored(const tfb_conv *op, const tfb_rows *rows) {
  return op->bits == 8 && op->prescale == 1 && rows->row_of == tfb_plain_row;
}

/* The next filter, c, as the file stores it. */
static inline void tfb_next_stored(const tfb_conv *op, tfb_rows *rows, int32_t c, int8_t *row,
                                   int32_t taps) {
  if (op->bits < 8 && rows->row_of == tfb_plain_row) {
    tfb_store_packed(op, &rows->stream, row, taps);
  } else {
    const int8_t *codes = rows->row_of(rows->source, c, &rows->stream, row, taps);
    tfb_store_row(op, codes, row, taps);
  }
}

/* Puts n bytes. */
static inline void tfb_fill(int8_t *to, int8_t value, int32_t n) {
  __asm__ volatile(
      "dlstp.8 lr, %[n]\n"
      "1: vstrb.8 %q[value], [%[to]], #16\n"
      "letp lr, 1b\n"
      : [to] "+r"(to)
      : [n] "r"(n), [value] "w"(vdupq_n_s8(value))
      : "lr", "cc", "memory");
}

/* Copies rows of n bytes, which are `line` apart, to places that are `next` apart; the same for some
 * positions, which are `step` apart, one behind the other. */
static inline void tfb_copy_rows(const int8_t *from, int32_t line, int32_t step, int8_t *to,
                                 int32_t next, int32_t n, int32_t rows, int32_t positions) {
  const int8_t *row, *p;
  int8_t *q;
  int32_t left;
  __asm__ volatile(
      "1: mov %[row], %[from]\n"
      "mov %[left], %[rows]\n"
      "2: mov %[p], %[row]\n"
      "mov %[q], %[to]\n"
      "dlstp.8 lr, %[n]\n"
      "3: vldrb.8 q0, [%[p]], #16\n"
      "vstrb.8 q0, [%[q]], #16\n"
      "letp lr, 3b\n"
      "add %[row], %[line]\n"
      "add %[to], %[next]\n"
      "subs %[left], #1\n"
      "bne 2b\n"
      "add %[from], %[step]\n"
      "subs %[positions], #1\n"
      "bne 1b\n"
      : [to] "+r"(to), [from] "+r"(from), [positions] "+r"(positions), [row] "=&r"(row),
        [left] "=&r"(left), [p] "=&r"(p), [q] "=&r"(q)
      : [n] "r"(n), [line] "r"(line), [next] "r"(next), [step] "r"(step), [rows] "r"(rows)
      : "lr", "q0", "cc", "memory");
}

/* What filters without dilation along rows see: of a row of positions the filter's rows that lie inside
 * the image, from its first column on and the first of these rows, in bytes. */
typedef struct {
  const int8_t *first;
  int32_t x, rows, above, line, across, width, step;
  int8_t zero;
} tfb_windows;

static inline void tfb_put_window(tfb_windows *windows, int32_t taps, int8_t *to) {
  int32_t before = tfb_max(-windows->x, 0), across = windows->across;
  int32_t inside = tfb_min(across, windows->width - windows->x) - before;
  if (inside < across || windows->rows * across < taps) tfb_fill(to, windows->zero, taps);
  if (inside > 0 && windows->rows > 0) {
    tfb_copy_rows(windows->first + windows->x + before, windows->line, 0,
                  to + windows->above + before, across, inside, windows->rows, 1);
  }
  windows->x += windows->step;
}
#endif

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

/* ---- Blocks of filters with Helium ---- */

#if TFB_MVE

/* Positions at a time: six sums, with what is multiplied and where it lies, take all registers. */
#define TFB_SPOTS 3

/* What turns the sums of four filters into stored values, as in tfb_four: the biases of the first, the
 * third, the second and the fourth, and the others in order. */
typedef struct {
  int32_t bias[4], multiplier[4], exponent[4], left[4];
} tfb_lanes;

/* What tfb_tile reads and moves on. The second filter that is summed lies steps[0] behind the first,
 * the next two begin steps[1] behind it; the same for those with steps[2] and [3]. */
typedef struct {
  const int8_t *x[TFB_SPOTS];
  int32_t taps;
  const int8_t *w;
  int32_t steps[4];
  int8_t *out[TFB_SPOTS];
  int32_t zero, filters, careful, low, high;
} tfb_tiles;

/* Two filters at three positions: 96 products take five loads and six VMLADAVA. Behind the last tap
 * LETP leaves lanes out. */
#define TFB_TWO_FILTERS(steps, high, low)              \
  "ldr r7, [%[all], #16]\n"                            \
  "ldrd r6, r8, [%[all], #" steps "]\n"                \
  "ldrd r5, r10, [%[all], #8]\n"                       \
  "ldrd r1, r3, [%[all]]\n"                            \
  "add r9, r7, r6\n"                                   \
  "add r8, r7\n"                                       \
  "str r8, [%[all], #16]\n"                            \
  "ldrd r0, r2, [%[lanes]], #8\n"                      \
  "dlstp.8 lr, r10\n"                                  \
  "mov r4, r0\n"                                       \
  "mov r6, r2\n"                                       \
  "mov r8, r0\n"                                       \
  "mov r10, r2\n"                                      \
  "2: vldrb.8 q0, [r7], #16\n"                         \
  "vldrb.8 q2, [r1], #16\n"                            \
  "vmladava.s8 r0, q0, q2\n"                           \
  "vldrb.8 q1, [r9], #16\n"                            \
  "vmladava.s8 r2, q1, q2\n"                           \
  "vldrb.8 q2, [r3], #16\n"                            \
  "vmladava.s8 r4, q0, q2\n"                           \
  "vmladava.s8 r6, q1, q2\n"                           \
  "vldrb.8 q2, [r5], #16\n"                            \
  "vmladava.s8 r8, q0, q2\n"                           \
  "vmladava.s8 r10, q1, q2\n"                          \
  "letp lr, 2b\n"                                      \
  "vmov q5[" high "], q5[" low "], r0, r2\n"           \
  "vmov q6[" high "], q6[" low "], r4, r6\n"           \
  "vmov q7[" high "], q7[" low "], r8, r10\n"

/* As tfb_four_scaled where no number is shifted left and each is rounded twice, and limited. */
#define TFB_SCALED(q)                    \
  "vqrdmulh.s32 " q ", " q ", q0\n"      \
  "vshr.s32 q2, " q ", #31\n"            \
  "vadd.i32 " q ", " q ", q2\n"          \
  "vrshl.s32 " q ", " q ", q1\n"         \
  "vadd.i32 " q ", " q ", r7\n"          \
  "vmax.s32 " q ", " q ", q3\n"          \
  "vmin.s32 " q ", " q ", q4\n"
/* The same with any numbers. */
#define TFB_SCALED_WITH_CARE(q)          \
  "vldrw.32 q2, [%[lanes], #-16]\n"      \
  "vshl.s32 " q ", " q ", q2\n"          \
  "vqrdmulh.s32 " q ", " q ", q0\n"      \
  "vand q2, " q ", q1\n"                 \
  "vshr.s32 q2, q2, #31\n"               \
  "vadd.i32 " q ", " q ", q2\n"          \
  "vrshl.s32 " q ", " q ", q1\n"         \
  "vadd.i32 " q ", " q ", r7\n"          \
  "vmax.s32 " q ", " q ", q3\n"          \
  "vmin.s32 " q ", " q ", q4\n"

/* Stores what some filters, four at a time, make of three positions. Compilers that keep a frame
 * pointer in r7 cannot be told that it is changed: it is put back. */
static TFB_APART void tfb_tile(tfb_tiles *tiles, const tfb_lanes *first) {
  register tfb_tiles *all __asm__("r11") = tiles;
  register const tfb_lanes *lanes __asm__("r12") = first;
  __asm__ volatile(
      "push {r7}\n"
      "ldrd r0, r2, [%[all], #60]\n"
      "vdup.32 q3, r0\n"
      "vdup.32 q4, r2\n"
      "b 1f\n"
      "3:\n"
      TFB_SCALED_WITH_CARE("q5") TFB_SCALED_WITH_CARE("q6") TFB_SCALED_WITH_CARE("q7")
      "b 4f\n"
      "1:\n"
      TFB_TWO_FILTERS("20", "2", "0")
      TFB_TWO_FILTERS("28", "3", "1")
      "ldrd r0, r2, [%[all], #52]\n"
      "vldrw.32 q0, [%[lanes]], #16\n"
      "vldrw.32 q1, [%[lanes]], #32\n"
      "ldrd r5, r7, [%[all], #44]\n"
      "ldrd r1, r3, [%[all], #36]\n"
      "cmp r2, #0\n"
      "bne 3b\n"
      TFB_SCALED("q5") TFB_SCALED("q6") TFB_SCALED("q7")
      "4: vctp.32 r0\n"
      "vpsttt\n"
      "vstrbt.32 q5, [r1], #4\n"
      "vstrbt.32 q6, [r3], #4\n"
      "vstrbt.32 q7, [r5], #4\n"
      "subs r0, #4\n"
      "strd r1, r3, [%[all], #36]\n"
      "str r5, [%[all], #44]\n"
      "str r0, [%[all], #52]\n"
      "bgt 1b\n"
      "pop {r7}\n"
      : [lanes] "+r"(lanes)
      : [all] "r"(all)
      : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "lr", "q0", "q1", "q2",
        "q3", "q4", "q5", "q6", "q7", "cc", "memory");
}

/* A block of filters, one every `stride` bytes. */
typedef struct {
  const tfb_lanes *lanes;
  const int8_t *w;
  int32_t n, stride, careful;
} tfb_block;

/* Stores the outputs of three positions; the last filters, below four, are no further apart than
 * there are. */
static inline void tfb_tile_block(tfb_tiles *all, const tfb_block *block) {
  int32_t stride = block->stride, whole = block->n & ~3, rest = block->n & 3;
  all->w = block->w;
  all->steps[0] = all->steps[2] = 2 * stride;
  all->steps[1] = stride;
  all->steps[3] = 3 * stride;
  all->filters = whole;
  if (whole > 0) tfb_tile(all, block->lanes);
  if (rest > 0) {
    all->steps[0] = rest == 3 ? 2 * stride : 0;
    all->steps[1] = rest > 1 ? stride : 0;
    all->steps[2] = 0;
    all->filters = rest;
    tfb_tile(all, block->lanes + whole / 4);
  }
}

/* Where what filters see is looked for: the next position of an image. */
typedef struct {
  const int8_t *image;
  int32_t oy, ox, size;
  tfb_range whole; /* positions of the row at which all of the filter lies inside */
  tfb_windows windows;
} tfb_walk;

static inline tfb_walk tfb_begin_walk(const tfb_conv *op, const int8_t *in) {
  tfb_walk walk;
  memset(&walk, 0, sizeof walk);
  walk.image = in;
  walk.size = op->in_h * op->in_w * op->in_c;
  walk.windows.across = op->k_w * op->in_c;
  walk.windows.width = op->in_w * op->in_c;
  walk.windows.line = op->dilation_h * walk.windows.width;
  walk.windows.step = op->stride_w * op->in_c;
  walk.windows.zero = op->in_zero;
  return walk;
}

/* Puts what a filter sees at the next n positions. */
static TFB_APART void tfb_put_windows(const tfb_conv *op, tfb_walk *walk, int32_t taps, int32_t n,
                                      int8_t *to) {
  tfb_windows *windows = &walk->windows;
  while (n > 0) {
    int32_t y = walk->oy * op->stride_h - op->pad_h, some = 1;
    if (op->dilation_w > 1) {
      tfb_spot spot;
      spot.image = walk->image;
      spot.y = y;
      spot.x = walk->ox * op->stride_w - op->pad_w;
      tfb_patch(op, &spot, to);
    } else {
      if (walk->ox == 0) {
        tfb_range rows = tfb_inside(y, op->k_h, op->dilation_h, op->in_h);
        walk->whole = tfb_whole(op, rows);
        windows->x = -op->pad_w * op->in_c;
        windows->rows = rows.last - rows.first;
        windows->above = rows.first * windows->across;
        windows->first = walk->image + (y + rows.first * op->dilation_h) * windows->width;
      }
      if (walk->ox >= walk->whole.first && walk->ox < walk->whole.last) {
        some = tfb_min(n, walk->whole.last - walk->ox);
        tfb_copy_rows(windows->first + windows->x, windows->line, windows->step, to,
                      windows->across, windows->across, op->k_h, some);
        windows->x += some * windows->step;
      } else {
        tfb_put_window(windows, taps, to);
      }
    }
    n -= some;
    to += some * taps;
    walk->ox += some;
    if (walk->ox < op->out_w) continue;
    walk->ox = 0;
    if (++walk->oy < op->out_h) continue;
    walk->oy = 0;
    walk->image += walk->size;
  }
}

/* Runs a block over all positions, three at a time; the last takes the place of those that are not
 * there. `bytes` holds what filters see, unless that is the image as it is. */
static TFB_APART void tfb_positions(const tfb_conv *op, const tfb_block *block, int32_t taps,
                                    const int8_t *in, int8_t *out, int8_t *bytes) {
  int32_t left = op->batch * op->out_h * op->out_w, next = op->out_c, i;
  int32_t flat = op->k_h * op->k_w * op->stride_h * op->stride_w == 1;
  tfb_walk walk = tfb_begin_walk(op, in);
  tfb_tiles all;
  all.taps = taps;
  all.zero = op->out_zero;
  all.careful = block->careful;
  all.low = op->low;
  all.high = op->high;
  for (; left > 0; left -= TFB_SPOTS) {
    int32_t n = tfb_min(left, TFB_SPOTS), step = taps, to = next;
    const int8_t *x = bytes;
    if (flat) {
      x = in;
      in += TFB_SPOTS * taps;
    } else {
      tfb_put_windows(op, &walk, taps, n, bytes);
    }
    for (i = 0; i < TFB_SPOTS; i++, x += step, out += to) {
      if (i == n - 1) step = to = 0;
      all.x[i] = x;
      all.out[i] = out;
    }
    out += next;
    tfb_tile_block(&all, block);
  }
}

/* What scales the sums of n filters from c on, one every `stride` bytes. Returns whether one is not
 * rounded twice, or is shifted left. */
static TFB_APART int32_t tfb_take_lanes(const tfb_conv *op, int32_t c, int32_t n, const int8_t *w,
                                        int32_t stride, int32_t taps, tfb_lanes *lanes) {
  int32_t zero = tfb_zero(op), most = -31, i;
  for (; n > 0; n -= 4, c += 4, lanes++) {
    mve_pred16_t wanted = vctp32q((uint32_t)n);
    tfb_four four = tfb_four_scales(op, c, wanted);
    most = vmaxvq_p_s32(most, four.exponent, wanted);
    vstrwq_s32(lanes->multiplier, four.multiplier);
    vstrwq_s32(lanes->exponent, four.exponent);
    vstrwq_s32(lanes->left, four.left);
    for (i = 0; zero != 0 && i < tfb_min(n, 4); i++, w += stride) {
      lanes->bias[i] = zero * tfb_sum(w, taps);
    }
    if (zero != 0) four.bias = vsubq_s32(four.bias, vldrwq_z_s32(lanes->bias, wanted));
    vstrwq_s32(lanes->bias, four.bias);
    i = lanes->bias[1];
    lanes->bias[1] = lanes->bias[2];
    lanes->bias[2] = i;
  }
  return most == 0;
}

/* A convolution in blocks of filters, as even as can be: as many as fit where other cores keep so many
 * pairs, widened. `scratch` holds what scales their sums, what three filters see, and the filters
 * unless they are read where they are packed. */
static inline void tfb_blocks(const tfb_conv *op, tfb_rows *rows, const int8_t *in, int8_t *out,
                              int8_t *scratch, int32_t pairs) {
  int32_t taps = op->k_h * op->k_w * op->in_c, wide = 4 * ((taps + 1) & ~1), c, i, n;
  int32_t flat = op->k_h * op->k_w * op->stride_h * op->stride_w == 1, size = (taps + 3) & ~3;
  int32_t stored = tfb_is_stored(op, rows), count = rows->last - rows->first;
  int32_t room = wide + pairs * (wide + 40) - (flat ? 0 : TFB_SPOTS * size);
  int32_t most = tfb_max(4, room / (16 + (stored ? 0 : size)) & ~3);
  tfb_lanes *lanes = (tfb_lanes *)(void *)scratch;
  tfb_block block;
  n = (count + most - 1) / most; /* blocks */
  most = ((count + n - 1) / n + 3) & ~3;
  block.lanes = lanes;
  block.stride = stored ? taps : size;
  for (c = rows->first; c < rows->last; c += n) {
    int8_t *bytes = (int8_t *)(lanes + most / 4), *row = bytes + (flat ? 0 : TFB_SPOTS * size);
    n = tfb_min(most, rows->last - c);
    if (stored) {
      block.w = (const int8_t *)rows->stream.next;
      rows->stream.next += n * taps;
    } else {
      block.w = row;
      for (i = 0; i < n; i++, row += size) tfb_next_stored(op, rows, c + i, row, taps);
    }
    block.n = n;
    block.careful = tfb_take_lanes(op, c, n, block.w, block.stride, taps, lanes);
    tfb_positions(op, &block, taps, in, out + c, bytes);
  }
}
#endif

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

/* ---- Tiles of pairs of filters, on cores that have neither DSP instructions nor Helium ---- */

#if TFB_JOINS

/* Stores the outputs of two positions, `next` apart, for pairs of filters. The last rounding
 * takes 1 off a negative number; it may go by the sign before the product, for 0 is rounded to 0
 * either way. */
#if TFB_BY_HAND
#define TFB_PAIR(w0, w1)              \
  "ldrd r6, %[b], [%[x]], #8\n"       \
  "mla %[s0], r6, " w0 ", %[s0]\n"    \
  "mla %[s1], r6, " w1 ", %[s1]\n"    \
  "mla %[s2], %[b], " w0 ", %[s2]\n"  \
  "mla %[s3], %[b], " w1 ", %[s3]\n"
#define TFB_TWO_PAIRS "ldm %[w]!, {r2, r3, r4, r5}\n" TFB_PAIR("r2", "r3") TFB_PAIR("r4", "r5")
#define TFB_SCALE(s, t)              \
  "ldm %[w]!, {r2, r3, r4, r5, r6}\n" \
  "mla " s ", " s ", r2, r3\n"       \
  "mla " t ", " t ", r2, r3\n"       \
  "mov r2, #0x80000000\n"            \
  "add r3, r5, " s ", asr #31\n"     \
  "smlal r2, r3, " s ", r4\n"        \
  "mov r2, #0x80000000\n"            \
  "asr " s ", r3, r6\n"              \
  "add r3, r5, " t ", asr #31\n"     \
  "smlal r2, r3, " t ", r4\n"        \
  "asr " t ", r3, r6\n"
#define TFB_FOURS 0
#define TFB_LIMIT(s) "cmp " s ", r2\nit lt\nmovlt " s ", r2\ncmp " s ", r3\nit gt\nmovgt " s ", r3\n"
#define TFB_UPPER_HALVES              \
  "asrs %[s0], %[s0], #16\n"         \
  "asrs %[s1], %[s1], #16\n"         \
  "asrs %[s2], %[s2], #16\n"         \
  "asrs %[s3], %[s3], #16\n"
/* A part of sums that do not fit 16 bits: the last one, or more are summed up. */
#define TFB_PARTS_OF_SUMS        \
  "ldrd r2, r3, %[sums]\n"      \
  "ldrd r4, r5, %[sums2]\n"     \
  "add %[s0], r2\n"             \
  "add %[s1], r3\n"             \
  "add %[s2], r4\n"             \
  "add %[s3], r5\n"             \
  "movs r2, #0\n"               \
  "ldr r4, %[behind]\n"         \
  "mov r3, r2\n"                \
  "cmp %[x], r4\n"              \
  "itt eq\n"                    \
  "strdeq r2, r3, %[sums]\n"    \
  "strdeq r2, r3, %[sums2]\n"   \
  "beq 7f\n"                    \
  "strd %[s0], %[s1], %[sums]\n" \
  "strd %[s2], %[s3], %[sums2]\n" \
  "ldr %[n], %[most]\n"         \
  "b 8b\n"                      \
  "7:\n"
/* What a tile is made of: `taps` are summed first, then `most` at a time, from `sums` on. */
typedef struct {
  const uint32_t *x;
  int32_t taps;
  int8_t *out;
  int32_t next;
  const int8_t *end;
  int32_t limits[2], clipped, sums[4], most;
  const uint32_t *behind;
} tfb_tile_parts;

/* What sums begin with, and what is left of them when all is summed up. */
#define TFB_TILE(name, first, sums_of)                                                             \
  static TFB_APART void name(tfb_tile_parts kept, const uint32_t *w) {                             \
    int32_t n, b, s0, s1, s2, s3;                                                                  \
    const uint32_t *x;                                                                             \
    __asm__ volatile(                                                                              \
        "1: ldrd %[x], %[n], %[from]\n"                                                           \
        "8: " first                                                                                \
        "mov %[s1], %[s0]\n"                                                                      \
        "mov %[s2], %[s0]\n"                                                                      \
        "mov %[s3], %[s0]\n"                                                                      \
        "subs %[n], #8\n"                                                                         \
        "blt 3f\n"                                                                                \
        "2:\n" /* eight taps */                                                                   \
        TFB_TWO_PAIRS TFB_TWO_PAIRS                                                                \
        "subs %[n], #8\n"                                                                         \
        "bge 2b\n"                                                                                \
        "3: lsls %[n], %[n], #30\n" /* carry if four more are left, negative if two more are */   \
        "bcc 4f\n"                                                                                \
        TFB_TWO_PAIRS                                                                              \
        "4: bpl 5f\n"                                                                             \
        "ldm %[w]!, {r2, r3}\n"                                                                   \
        TFB_PAIR("r2", "r3")                                                                       \
        "5:\n"                                                                                    \
        sums_of                                                                                    \
        TFB_SCALE("%[s0]", "%[s2]")                                                                \
        TFB_SCALE("%[s1]", "%[s3]")                                                                \
        "ldr r2, %[clipped]\n"                                                                    \
        "cbz r2, 6f\n"                                                                            \
        "ldrd r2, r3, %[limits]\n"                                                                \
        TFB_LIMIT("%[s0]") TFB_LIMIT("%[s1]") TFB_LIMIT("%[s2]") TFB_LIMIT("%[s3]")                \
        "6: ldrd r2, r3, %[to]\n"                                                                 \
        "ssat %[s0], #8, %[s0]\n"                                                                 \
        "ssat %[s1], #8, %[s1]\n"                                                                 \
        "ssat %[s2], #8, %[s2]\n"                                                                 \
        "ssat %[s3], #8, %[s3]\n"                                                                 \
        "strb %[s0], [r2], #1\n"                                                                  \
        "add r3, r2\n"                                                                            \
        "strb %[s1], [r2], #1\n"                                                                  \
        "ldr r4, %[end]\n"                                                                        \
        "strb %[s2], [r3, #-1]\n"                                                                 \
        "strb %[s3], [r3]\n"                                                                      \
        "str r2, %[to]\n"                                                                         \
        "cmp r2, r4\n"                                                                            \
        "bne 1b\n"                                                                                \
        : [w] "+r"(w), [x] "=&r"(x), [n] "=&r"(n), [s0] "=&l"(s0), [s1] "=&r"(s1),                 \
          [s2] "=&r"(s2), [s3] "=&r"(s3), [b] "=&r"(b), [to] "+m"(kept.out),                       \
          [sums] "+m"(kept.sums[0]), [sums2] "+m"(kept.sums[2])                                    \
        : [from] "m"(kept.x), [end] "m"(kept.end), [limits] "m"(kept.limits[0]),                   \
          [clipped] "m"(kept.clipped), [most] "m"(kept.most), [behind] "m"(kept.behind)            \
        : "r2", "r3", "r4", "r5", "r6", "cc", "memory");                                           \
  }
TFB_TILE(tfb_byte_tile_of, "movs %[s0], #0\n", "")
TFB_TILE(tfb_short_tile_of, "mvn %[s0], #0x7f80\n", TFB_UPPER_HALVES)
TFB_TILE(tfb_long_tile_of, "mvn %[s0], #0x7f80\n", TFB_UPPER_HALVES TFB_PARTS_OF_SUMS)

static TFB_APART void tfb_tile(const tfb_conv *op, const uint32_t *w, const uint32_t *x,
                               int32_t taps, int32_t pairs, int8_t *out, int32_t next) {
  tfb_tile_parts kept;
  if (pairs == 0) return;
  kept.x = x;
  kept.taps = taps;
  kept.out = out;
  kept.next = next;
  kept.end = out + 2 * pairs;
  kept.limits[0] = op->low;
  kept.limits[1] = op->high;
  kept.clipped = op->low > -128 || op->high < 127;
  kept.most = tfb_most_taps(op->bits);
  if (op->bits == 8) {
    tfb_byte_tile_of(kept, w);
  } else if (taps <= kept.most) {
    tfb_short_tile_of(kept, w);
  } else {
    kept.taps = (taps - 1) % kept.most + 1;
    kept.behind = x + taps;
    kept.sums[0] = kept.sums[1] = kept.sums[2] = kept.sums[3] = 0;
    tfb_long_tile_of(kept, w);
  }
}
#undef TFB_TILE
#else
#define TFB_FOURS 1 /* tfb_tile4 makes four positions at a time */

/* What is stored for a sum. */
static TFB_INSIDE int32_t tfb_scaled(const tfb_scales *scales, int32_t sum, int32_t low,
                                     int32_t high, int32_t rectifies) {
  uint32_t product = (uint32_t)sum * (uint32_t)scales->factor;
  int32_t twice = (int32_t)(product + (uint32_t)scales->base), offset = scales->offset;
  int32_t multiplier = scales->multiplier, exponent = scales->exponent;
  if (rectifies) return tfb_rectified(twice, multiplier, offset, exponent, low, high);
  twice = tfb_product_plus(twice, multiplier, offset + (twice >> 31)) >> exponent;
  return tfb_clamp(twice, low, high);
}

/* A word of each position with those of two filters. */
#define TFB_TAPS(k)                                                           \
  do {                                                                        \
    const uint32_t *p = x + positions * (k);                                  \
    uint32_t word = w[2 * (k)], other = w[2 * (k) + 1];                       \
    s0 = tfb_mla(s0, p[0], word), t0 = tfb_mla(t0, p[0], other);              \
    s1 = tfb_mla(s1, p[1], word), t1 = tfb_mla(t1, p[1], other);              \
    if (positions == 4) {                                                     \
      s2 = tfb_mla(s2, p[2], word), t2 = tfb_mla(t2, p[2], other);            \
      s3 = tfb_mla(s3, p[3], word), t3 = tfb_mla(t3, p[3], other);            \
    }                                                                         \
    TFB_LOADS_STAY;                                                           \
  } while (0)
#define TFB_EACH(sums)                          \
  do {                                          \
    sums(0, s0), sums(1, s1), sums(4, t0), sums(5, t1); \
    if (positions == 2) break;                  \
    sums(2, s2), sums(3, s3), sums(6, t2), sums(7, t3); \
  } while (0)
#define TFB_KEEP(i, sum) parts[i] += (int32_t)(sum) >> 16
#define TFB_WHOLE(i, sum) sum = (uint32_t)(parts[i] + ((int32_t)(sum) >> 16))
#define TFB_UPPER(i, sum) sum = (uint32_t)((int32_t)(sum) >> 16)
#define TFB_STORE(position, s, t)                                                      \
  do {                                                                                 \
    int8_t *to = out + (position) * next;                                              \
    to[0] = (int8_t)tfb_scaled(&first, (int32_t)(s), low, high, rectifies);            \
    to[1] = (int8_t)tfb_scaled(&second, (int32_t)(t), low, high, rectifies);           \
  } while (0)

/* The tile of so many positions; what does not fit 16 bits is summed in parts, which lie in
 * memory. */
static TFB_INSIDE void tfb_tile_of(const tfb_conv *op, const uint32_t *w, const uint32_t *inputs,
                                   int32_t taps, int32_t pairs, int8_t *out, int32_t next,
                                   int32_t positions, int32_t rectifies) {
  int32_t most = tfb_most_taps(op->bits), low = op->low, high = op->high, parts[8];
  tfb_in_memory(parts);
  for (; pairs > 0; pairs--, out += 2) {
    const uint32_t *x = inputs;
    int32_t left = taps, adds = 0;
    tfb_scales first, second;
    uint32_t s0, s1, s2, s3, t0, t1, t2, t3;
    for (;;) {
      const uint32_t *end = w + tfb_min(left, most), *last = end - 7;
      s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = TFB_JOINED;
      while (w < last) {
        TFB_TAPS(0);
        TFB_TAPS(1);
        TFB_TAPS(2);
        TFB_TAPS(3);
        w += 8, x += 4 * positions;
        TFB_IN_REGISTERS(x, w);
      }
      while (w != end) {
        TFB_TAPS(0);
        w += 2, x += positions;
        TFB_IN_REGISTERS(x, w);
      }
      left -= most;
      if (left <= 0) break;
      if (!adds) memset(parts, 0, sizeof(parts));
      TFB_EACH(TFB_KEEP);
      adds = 1;
    }
    if (adds) {
      TFB_EACH(TFB_WHOLE);
    } else {
      TFB_EACH(TFB_UPPER);
    }
    first = ((const tfb_scales *)(const void *)w)[0];
    second = ((const tfb_scales *)(const void *)w)[1];
    w += TFB_TWO_SCALES;
    TFB_STORE(0, s0, t0);
    TFB_STORE(1, s1, t1);
    if (positions == 2) continue;
    TFB_STORE(2, s2, t2);
    TFB_STORE(3, s3, t3);
  }
}
#undef TFB_TAPS
#undef TFB_EACH
#undef TFB_KEEP
#undef TFB_WHOLE
#undef TFB_UPPER
#undef TFB_STORE

static TFB_APART void tfb_tile(const tfb_conv *op, const uint32_t *w, const uint32_t *x,
                               int32_t taps, int32_t pairs, int8_t *out, int32_t next) {
  tfb_tile_of(op, w, x, taps, pairs, out, next, 2, 0);
}

/* The same of four positions, whose inputs lie by fours. */
static TFB_APART void tfb_tile4(const tfb_conv *op, const uint32_t *w, const uint32_t *x,
                                int32_t taps, int32_t pairs, int8_t *out) {
  if (tfb_rectifies(op)) {
    tfb_tile_of(op, w, x, taps, pairs, out, op->out_c, 4, 1);
  } else {
    tfb_tile_of(op, w, x, taps, pairs, out, op->out_c, 4, 0);
  }
}
#endif
#endif

/* ---- Pairs of filters on cores that have no Helium ---- */

#if !TFB_MVE

/* Stores the outputs of two positions for n filters of which some have no offset, or one of
 * which the last has no second. */
static TFB_APART void tfb_careful_tile(const tfb_conv *op, const uint32_t *w, const uint32_t *x,
                                       int32_t taps, int32_t n, int8_t *out, int32_t next,
                                       uint32_t pair) {
  int32_t c, position;
  for (c = 0; c < n; c++, w += c % 2 ? 0 : taps + TFB_TWO_SCALES) {
    const tfb_scales *scales = (const tfb_scales *)(const void *)(w + taps) + c % 2;
    for (position = 0; position < 2; position++) {
      uint32_t sum = (uint32_t)tfb_pair_sum(op, x + position, w + c % 2, taps, pair);
      int32_t value = (int32_t)(sum * (uint32_t)scales->factor + (uint32_t)scales->base);
      value = tfb_product_of_twice(value, scales->multiplier);
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
  return tfb_join(w, a, b, taps, 8 - bits);
}

/* Filters c and c + 1 (c alone twice if it is the last): their widened weights, and behind them
 * what scales their sums. Notes in `careful` whether one has no offset. */
static TFB_APART uint32_t *tfb_two_filters(const tfb_conv *op, tfb_rows *rows, int32_t c,
                                           int32_t taps, int8_t *bytes, uint32_t *w,
                                           int32_t *careful) {
  int32_t i, count = tfb_min(2, rows->last - c);
  uint32_t *end = tfb_two_rows(op, rows, c, count, taps, bytes, w);
  tfb_scales *scales = (tfb_scales *)(void *)end;
  for (i = 0; i < count; i++, scales++) {
    tfb_filter filter = tfb_filter_scales(op, c + i);
    tfb_suit(op, &filter, w + i, end, taps);
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

/* What two filters see, widened: straight from the image where whole words lie one behind the
 * other, else by way of rows of bytes. */
static TFB_APART void tfb_two_patches(const tfb_conv *op, const tfb_spot *spots, int32_t taps,
                                      int8_t *bytes, uint32_t *x, uint32_t pair) {
  int32_t run = op->k_w * op->in_c, line = op->dilation_h * op->in_w * op->in_c, ky;
  if ((op->dilation_w == 1 || op->k_w == 1) && (run % TFB_RUN(op) == 0 || op->k_h == 1) &&
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

/* The next two positions of a convolution, widened; the last one alone twice. */
typedef struct {
  const int8_t *in;
  int32_t left, ox, oy; /* positions that are left, and the next one's place */
} tfb_walk;

static inline void tfb_two_positions(const tfb_conv *op, tfb_walk *walk, int32_t taps,
                                     uint32_t pair, uint32_t *x, int8_t *bytes) {
  int32_t n = tfb_min(walk->left, 2), i;
  tfb_spot spots[2];
  walk->left -= n;
  if (op->k_h * op->k_w * op->stride_h * op->stride_w == 1) {
    tfb_widen(x, walk->in, n == 1 ? walk->in : walk->in + taps, taps, pair);
    walk->in += 2 * taps;
    return;
  }
  for (i = 0; i < n; i++) {
    spots[i].image = walk->in;
    spots[i].y = walk->oy * op->stride_h - op->pad_h;
    spots[i].x = walk->ox * op->stride_w - op->pad_w;
    if (++walk->ox < op->out_w) continue;
    walk->ox = 0;
    if (++walk->oy < op->out_h) continue;
    walk->oy = 0;
    walk->in += op->in_h * op->in_w * op->in_c;
  }
  if (n == 1) spots[1] = spots[0];
  tfb_two_patches(op, spots, taps, bytes, x, pair);
}

/* Runs a block of n filters over all positions, two at a time, or four if `x` holds as many. */
static TFB_APART void tfb_positions(const tfb_conv *op, const uint32_t *w, int32_t n,
                                    int32_t careful, int32_t taps, const int8_t *in, int8_t *out,
                                    uint32_t *x, int8_t *bytes, int32_t fours) {
  int32_t even = TFB_LENGTH(op, taps), next = op->out_c;
  int32_t pairs = careful ? 0 : n / 2, rest = n - 2 * pairs;
  const uint32_t *last = w + pairs * (even + TFB_TWO_SCALES);
  uint32_t pair = TFB_PAIR_OF(op, 2);
  tfb_walk walk = {0, 0, 0, 0};
  walk.in = in;
  walk.left = op->batch * op->out_h * op->out_w;
  (void)fours;
#if TFB_FOURS
  for (; fours && walk.left >= 4; out += 4 * next) {
    tfb_two_positions(op, &walk, taps, TFB_PAIR_OF(op, 4), x, bytes);
    tfb_two_positions(op, &walk, taps, TFB_PAIR_OF(op, 4), x + 2, bytes);
    tfb_tile4(op, w, x, even, pairs, out);
    if (rest == 0) continue;
    tfb_careful_tile(op, last, x, even, rest, out + 2 * pairs, next, 4);
    tfb_careful_tile(op, last, x + 2, even, rest, out + 2 * next + 2 * pairs, next, 4);
  }
#endif
  for (; walk.left > 0; out += 2 * next) {
    if (walk.left == 1) next = 0;
    tfb_two_positions(op, &walk, taps, pair, x, bytes);
    tfb_tile(op, w, x, even, pairs, out, next);
    if (rest > 0) tfb_careful_tile(op, last, x, even, rest, out + 2 * pairs, next, pair);
  }
}

/* A convolution in blocks of so many pairs of filters. `scratch` holds what two filters see,
 * widened, the filters of a block, and where filters reach over the border or see no whole words
 * two rows of bytes. */
static inline void tfb_pair_blocks(const tfb_conv *op, tfb_rows *rows, const int8_t *in,
                                   int8_t *out, int8_t *scratch, int32_t pairs) {
  int32_t taps = op->k_h * op->k_w * op->in_c, even = TFB_LENGTH(op, taps), fours = 0, c, i;
  uint32_t *x = (uint32_t *)(void *)scratch, *w;
  int8_t *bytes;
#if TFB_FOURS
  /* Inputs of two more positions lie where a pair of filters would, unless they were widened for
   * fewer filters at a time then. */
  int32_t all = (rows->last - rows->first + 1) / 2;
  fours = pairs > all || pairs > 5;
  if (fours) pairs = pairs > all ? all : pairs - 1;
#endif
  w = x + (fours ? 2 * even : even);
  bytes = (int8_t *)(w + pairs * (even + TFB_TWO_SCALES));
  for (c = rows->first; c < rows->last; c += 2 * pairs) {
    int32_t n = tfb_min(2 * pairs, rows->last - c), careful = 0;
    uint32_t *to = w;
    for (i = 0; i < n; i += 2) {
      to = tfb_two_filters(op, rows, c + i, taps, (int8_t *)x, to, &careful);
    }
    tfb_positions(op, w, n, careful, taps, in, out + c, x, bytes, fours);
  }
}
#endif

/* ---- Filters of 8 bits on cores that have neither DSP instructions nor Helium ---- */

#if TFB_JOINS

/* Sums of so many positions with two filters fit into the registers beside what they are made
 * of. */
#if defined(__arm__) && !defined(__aarch64__)
#define TFB_TOGETHER 2
#else
#define TFB_TOGETHER 4
#endif

#if TFB_BY_HAND
#define TFB_ONE_TAP                          \
  "ldrsb %[first], [%[w]], #1\n"            \
  "ldrsb %[second], [%[v]], #1\n"           \
  "ldrsb %[x], [%[a]], #1\n"                \
  "mla %[s0], %[x], %[first], %[s0]\n"      \
  "mla %[t0], %[x], %[second], %[t0]\n"     \
  "ldrsb %[x], [%[b]], #1\n"                \
  "mla %[s1], %[x], %[first], %[s1]\n"      \
  "mla %[t1], %[x], %[second], %[t1]\n"
#define TFB_FOUR_TAPS TFB_ONE_TAP TFB_ONE_TAP TFB_ONE_TAP TFB_ONE_TAP
#endif

/* The sums of TFB_TOGETHER times so many inputs, `step` apart, with the weights at w and w +
 * row. */
static TFB_APART void tfb_dot_together(const int8_t *x, int32_t step, const int8_t *weights,
                                       int32_t row, int32_t n, int32_t times, int32_t *sums) {
  for (; times > 0; times--, x += TFB_TOGETHER * step, sums += TFB_TOGETHER) {
    const int8_t *a = x, *b = a + step, *w = weights, *v = w + row, *end = w + n;
    const int8_t *last = end - (TFB_TOGETHER == 2 ? 7 : 3);
    int32_t s0 = 0, s1 = 0, t0 = 0, t1 = 0;
#if TFB_TOGETHER == 2
#define TFB_TAP(k)                                              \
  do {                                                          \
    int32_t first = w[k], second = v[k];                        \
    s0 = tfb_sum_of(s0, a[k], first), t0 = tfb_sum_of(t0, a[k], second); \
    s1 = tfb_sum_of(s1, b[k], first), t1 = tfb_sum_of(t1, b[k], second); \
    TFB_LOADS_STAY;                                             \
  } while (0)
#if TFB_BY_HAND
    if (w < last) {
      int32_t eights = n & ~7, x, first, second;
      __asm__ volatile(
          "1:\n" TFB_FOUR_TAPS TFB_FOUR_TAPS
          "subs %[n], #8\n"
          "bgt 1b\n"
          : [a] "+r"(a), [b] "+r"(b), [w] "+r"(w), [v] "+r"(v), [n] "+r"(eights), [s0] "+r"(s0),
            [s1] "+r"(s1), [t0] "+r"(t0), [t1] "+r"(t1), [x] "=&r"(x), [first] "=&r"(first),
            [second] "=&r"(second)
          :
          : "cc", "memory");
    }
#else
    for (; w < last; a += 8, b += 8, w += 8, v += 8) {
      TFB_TAP(0);
      TFB_TAP(1);
      TFB_TAP(2);
      TFB_TAP(3);
      TFB_TAP(4);
      TFB_TAP(5);
      TFB_TAP(6);
      TFB_TAP(7);
    }
#endif
    for (; w != end; a++, b++, w++, v++) TFB_TAP(0);
#else
    const int8_t *c = b + step, *d = c + step;
    int32_t s2 = 0, s3 = 0, t2 = 0, t3 = 0;
#define TFB_TAP(k)                                              \
  do {                                                          \
    int32_t first = w[k], second = v[k];                        \
    s0 = tfb_sum_of(s0, a[k], first), t0 = tfb_sum_of(t0, a[k], second); \
    s1 = tfb_sum_of(s1, b[k], first), t1 = tfb_sum_of(t1, b[k], second); \
    s2 = tfb_sum_of(s2, c[k], first), t2 = tfb_sum_of(t2, c[k], second); \
    s3 = tfb_sum_of(s3, d[k], first), t3 = tfb_sum_of(t3, d[k], second); \
    TFB_LOADS_STAY;                                             \
  } while (0)
    for (; w < last; a += 4, b += 4, c += 4, d += 4, w += 4, v += 4) {
      TFB_TAP(0);
      TFB_TAP(1);
      TFB_TAP(2);
      TFB_TAP(3);
    }
    for (; w != end; a++, b++, c++, d++, w++, v++) TFB_TAP(0);
    sums[2] = s2;
    sums[3] = s3;
    sums[TFB_CHUNK + 2] = t2;
    sums[TFB_CHUNK + 3] = t3;
#endif
#undef TFB_TAP
    sums[0] = s0;
    sums[1] = s1;
    sums[TFB_CHUNK] = t0;
    sums[TFB_CHUNK + 1] = t1;
  }
}

/* How the filters of a block lie: two sets of scales, behind them two rows of bytes; or the rows
 * stay where they are stored, and `rows` are the first. Inputs lie `step` apart. */
typedef struct {
  const int8_t *rows;
  int32_t size, taps, step;
} tfb_block;

/* The sums of n positions with two filters, or with one. */
static inline void tfb_two_sums(const tfb_block *block, const int8_t *row, int32_t filters,
                                const int8_t *x, int32_t n, int32_t *sums) {
  int32_t step = block->step, taps = block->taps, next = block->rows ? taps : (taps + 3) & ~3;
  int32_t whole = n / TFB_TOGETHER * TFB_TOGETHER;
  if (filters == 1) next = 0;
  tfb_dot_together(x, step, row, next, taps, n / TFB_TOGETHER, sums);
  x += whole * step;
  sums += whole;
  for (n -= whole; n > 0; n--, x += step, sums++) {
    sums[0] = sums[TFB_CHUNK] = 0;
    tfb_dot2(x, row, next, taps, 0, sums);
  }
}

/* Stores the outputs of n positions for some filters. */
static TFB_APART void tfb_byte_tile(const tfb_conv *op, const tfb_block *block,
                                    const int8_t *scratch, int32_t filters, const int8_t *x,
                                    int32_t n, int8_t *out) {
  const int8_t *row = block->rows;
  int32_t sums[2 * TFB_CHUNK], i;
  for (; filters > 0; filters -= 2, scratch += block->size, out += 2) {
    const tfb_scales *scales = (const tfb_scales *)(const void *)scratch;
    tfb_two_sums(block, row ? row : scratch + 4 * TFB_TWO_SCALES, filters, x, n, sums);
    if (row) row += 2 * block->taps;
    for (i = 0; i < tfb_min(filters, 2); i++, scales++) {
      tfb_filter filter;
      filter.factor = scales->factor;
      filter.base = scales->base;
      filter.multiplier = scales->multiplier;
      filter.exponent = scales->exponent;
      tfb_store(op, &filter, sums + i * TFB_CHUNK, n, out + i);
    }
  }
}

/* Runs a block of filters over all positions: a pixel each, where they lie, or patches of the
 * image, some at a time. */
static TFB_APART void tfb_byte_positions(const tfb_conv *op, const tfb_block *block,
                                         const int8_t *scratch, int32_t filters, const int8_t *in,
                                         int8_t *out, int8_t *patches, int32_t room) {
  int32_t left = op->batch * op->out_h * op->out_w, ox = 0, oy = 0, n, i;
  int32_t image = op->in_h * op->in_w * op->in_c;
  for (; left > 0; left -= n, out += n * op->out_c) {
    n = tfb_min(left, room);
    if (!patches) {
      tfb_byte_tile(op, block, scratch, filters, in, n, out);
      in += n * block->step;
      continue;
    }
    for (i = 0; i < n; i++) {
      tfb_spot spot;
      spot.image = in;
      spot.y = oy * op->stride_h - op->pad_h;
      spot.x = ox * op->stride_w - op->pad_w;
      tfb_patch(op, &spot, patches + i * block->step);
      if (++ox < op->out_w) continue;
      ox = 0;
      if (++oy < op->out_h) continue;
      oy = 0;
      in += image;
    }
    tfb_byte_tile(op, block, scratch, filters, patches, n, out);
  }
}

/* Two filters, or one twice, as a block has them. */
static TFB_APART void tfb_two_byte_rows(const tfb_conv *op, tfb_rows *rows, const tfb_block *block,
                                        int32_t c, int32_t count, int8_t *to) {
  int32_t taps = block->taps, i;
  tfb_scales *scales = (tfb_scales *)(void *)to;
  int8_t *own = to + 4 * TFB_TWO_SCALES;
  for (i = 0; i < count; i++, own += (taps + 3) & ~3, scales++) {
    tfb_filter filter;
    const int8_t *codes = rows->row_of(rows->source, c + i, &rows->stream, own, taps);
    if (!block->rows && codes != own) memcpy(own, codes, (size_t)taps);
    filter = tfb_filter_with(op, c + i, codes, taps);
    scales->factor = filter.factor;
    scales->base = filter.base;
    scales->multiplier = filter.multiplier;
    scales->exponent = filter.exponent;
  }
}

/* A convolution in blocks of filters: as many pairs as fit where cores with DSP instructions
 * keep so many. `scratch` holds patches, and behind them the block. */
static inline void tfb_byte_blocks(const tfb_conv *op, tfb_rows *rows, const int8_t *in,
                                   int8_t *out, int8_t *scratch, int32_t pairs) {
  int32_t taps = op->k_h * op->k_w * op->in_c, length = (taps + 3) & ~3, c, i, most;
  int32_t flat = op->k_h * op->k_w * op->stride_h * op->stride_w == 1;
  int32_t kept = flat ? 0 : tfb_max(4, tfb_min(TFB_CHUNK, 512 / length & ~3));
  int32_t wide = 4 * ((taps + 1) & ~1), room = wide + pairs * (wide + 40) - kept * length;
  int8_t *first = scratch + kept * length;
  tfb_block block;
  block.rows = 0;
  block.taps = taps;
  block.step = flat ? taps : length;
  block.size = 4 * TFB_TWO_SCALES + 2 * length;
  if (rows->row_of == tfb_plain_row) {
    block.size = 4 * TFB_TWO_SCALES;
    block.rows = (const int8_t *)rows->stream.next;
  }
  most = 2 * tfb_max(1, room / block.size);
  for (c = rows->first; c < rows->last; c += most) {
    int32_t n = tfb_min(most, rows->last - c);
    for (i = 0; i < n; i += 2) {
      tfb_two_byte_rows(op, rows, &block, c + i, tfb_min(2, n - i), first + i / 2 * block.size);
    }
    tfb_byte_positions(op, &block, first, n, in, out + c, flat ? 0 : scratch,
                       flat ? TFB_CHUNK : kept);
    if (block.rows) block.rows += n * taps;
  }
}

/* A convolution by either way. Where the tile is written by hand, codes of 8 bits take a word
 * each if the memory holds all filters so, or not much fewer than a block has. */
static inline void tfb_blocks(const tfb_conv *op, tfb_rows *rows, const int8_t *in, int8_t *out,
                              int8_t *scratch, int32_t pairs) {
#if TFB_BY_HAND
  int32_t taps = op->k_h * op->k_w * op->in_c, wide = 4 * ((taps + 1) & ~1), size = 8 * taps;
  int32_t words = (wide + pairs * (wide + 40) - size) / (size + 40);
  if (op->bits == 8 && (words >= 4 || 2 * words >= rows->last - rows->first)) {
    tfb_pair_blocks(op, rows, in, out, scratch, words);
    return;
  }
#endif
  if (op->bits < 8) {
    tfb_pair_blocks(op, rows, in, out, scratch, pairs);
  } else {
    tfb_byte_blocks(op, rows, in, out, scratch, pairs);
  }
}

#endif

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

/* ---- Filters that are used once, with Helium ---- */

#if TFB_MVE

/* What is summed over a filter: codes times inputs; both with their signs turned, which makes them
 * larger by 128 and never negative; or codes alone. */
enum { TFB_PRODUCTS, TFB_RAISED, TFB_CODES };

/* Inputs in the order in which tfb_arrange puts them for lanes of packed codes; how far the second to
 * fourth of four filters lie behind the one before, and the next four; where codes are read and sums
 * go, of so many filters, what these begin with, and the bytes of a filter. */
typedef struct {
  const int8_t *x;
  int32_t lanes, steps[4];
  const uint8_t *codes;
  int32_t *sums, count, start, kind, bytes;
} tfb_inputs;

/* Makes the sums of in->count filters, four at a time. */
typedef void (*tfb_sum_blocks)(tfb_inputs *in);

/* Where the bytes of the first words of four blocks of 12 bytes lie, then those of the second ones. */
static const uint8_t tfb_places[32] = {0, 1, 2, 3, 12, 13, 14, 15, 24, 25, 26, 27, 36, 37, 38, 39,
                                       4, 5, 6, 7, 16, 17, 18, 19, 28, 29, 30, 31, 40, 41, 42, 43};

/* Runs loops over sixteen lanes of packed codes of filters at p, q, r and s, with what `first` sets up;
 * behind the last lane LETP leaves lanes out. */
#define TFB_FOUR_FILTERS(first, body)                                                          \
  __asm__ volatile(first                                                                       \
                   "2: ldrd %[q], %[r], [%[in], #8]\n"                                         \
                   "ldrd %[s], %[d], [%[in], #16]\n"                                           \
                   "ldr %[p], [%[in], #24]\n"                                                  \
                   "ldrd %[x], %[b], [%[in]]\n"                                                \
                   "add %[q], %[p]\n"                                                          \
                   "add %[r], %[q]\n"                                                          \
                   "add %[s], %[r]\n"                                                          \
                   "add %[d], %[s]\n"                                                          \
                   "str %[d], [%[in], #24]\n"                                                  \
                   "dlstp.8 lr, %[b]\n"                                                        \
                   "ldr %[a], [%[in], #36]\n"                                                  \
                   "mov %[b], %[a]\n"                                                          \
                   "mov %[c], %[a]\n"                                                          \
                   "mov %[d], %[a]\n"                                                          \
                   "1:\n" body "letp lr, 1b\n"                                                 \
                   "ldrd %[p], %[q], [%[in], #28]\n"                                           \
                   "strd %[a], %[b], [%[p]], #8\n"                                             \
                   "strd %[c], %[d], [%[p]], #8\n"                                             \
                   "subs %[q], #4\n"                                                           \
                   "strd %[p], %[q], [%[in], #28]\n"                                           \
                   "bgt 2b\n"                                                                  \
                   : [a] "=&Te"(a), [b] "=&Te"(b), [c] "=&Te"(c), [d] "=&Te"(d), [p] "=&r"(p), \
                     [q] "=&r"(q), [r] "=&r"(r), [s] "=&r"(s), [x] "=&r"(x)                    \
                   : [in] "r"(in), [places] "r"(tfb_places)                                    \
                   : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "cc", "memory")

/* The three kinds of sums, of which `of` makes a loop with an instruction for inputs in q4, one for
 * codes that are raised, and one that sums codes. */
#define TFB_SUMS_OF_KIND(first, of)                                                    \
  int32_t a, b, c, d;                                                                  \
  const int8_t *x;                                                                     \
  const uint8_t *p, *q, *r, *s;                                                        \
  if (in->kind == TFB_PRODUCTS) {                                                      \
    TFB_FOUR_FILTERS(first, of(TFB_NEXT_INPUTS, TFB_AS_IS, TFB_MULTIPLIED));           \
  } else if (in->kind == TFB_RAISED) {                                                 \
    TFB_FOUR_FILTERS(first, of(TFB_NEXT_INPUTS, TFB_TURNED, TFB_MULTIPLIED_UNSIGNED)); \
  } else {                                                                             \
    TFB_FOUR_FILTERS(first, of(TFB_NO_INPUTS, TFB_AS_IS, TFB_SUMMED));                 \
  }

#define TFB_NEXT_INPUTS(to) "vldrb.8 " to ", [%[x]], #16\n"
#define TFB_NO_INPUTS(to)
#define TFB_AS_IS(codes)
#define TFB_TURNED(codes) "veor " codes ", " codes ", q7\n"
#define TFB_MULTIPLIED(sum, x, codes) "vmladava.s8 %[" sum "], " x ", " codes "\n"
#define TFB_MULTIPLIED_UNSIGNED(sum, x, codes) "vmladava.u8 %[" sum "], " x ", " codes "\n"
#define TFB_SUMMED(sum, x, codes) "vaddva.s8 %[" sum "], " codes "\n"

/* Codes of 8 bits. */
#define TFB_ONE_OF_8(filter, sum, turn, add) \
  "vldrb.8 q0, [%[" filter "]], #16\n" turn("q0") add(sum, "q4", "q0")
#define TFB_LOOP_OF_8(next, turn, add)                                              \
  next("q4") TFB_ONE_OF_8("p", "a", turn, add) TFB_ONE_OF_8("q", "b", turn, add)    \
      TFB_ONE_OF_8("r", "c", turn, add) TFB_ONE_OF_8("s", "d", turn, add)
static TFB_APART void tfb_blocks8(tfb_inputs *in) {
  TFB_SUMS_OF_KIND("vmov.i8 q7, #0x80\n", TFB_LOOP_OF_8)
}

/* Bytes with several codes each, of four filters. */
#define TFB_FOUR_BYTES(turn)                                                     \
  "vldrb.8 q0, [%[p]], #16\n" turn("q0") "vldrb.8 q1, [%[q]], #16\n" turn("q1")  \
  "vldrb.8 q2, [%[r]], #16\n" turn("q2") "vldrb.8 q3, [%[s]], #16\n" turn("q3")
/* The codes at the lower end of these bytes; `shift` takes them to the upper end. */
#define TFB_LOWEST_OF(shift, codes, sum, add) \
  "vshl.i8 q5, " codes ", #" shift "\n" add(sum, "q4", "q5")
#define TFB_LOWEST(shift, next, add)                                                      \
  next("q4") TFB_LOWEST_OF(shift, "q0", "a", add) TFB_LOWEST_OF(shift, "q1", "b", add)    \
      TFB_LOWEST_OF(shift, "q2", "c", add) TFB_LOWEST_OF(shift, "q3", "d", add)
/* Those between. */
#define TFB_MIDDLE_OF(shift, codes, sum, add) \
  "vshl.i8 q5, " codes ", #" shift "\nvand q5, q5, q6\n" add(sum, "q4", "q5")
#define TFB_MIDDLE(shift, next, add)                                                      \
  next("q4") TFB_MIDDLE_OF(shift, "q0", "a", add) TFB_MIDDLE_OF(shift, "q1", "b", add)    \
      TFB_MIDDLE_OF(shift, "q2", "c", add) TFB_MIDDLE_OF(shift, "q3", "d", add)
/* Those at the upper end. */
#define TFB_HIGHEST_OF(codes, sum, add) "vand q5, " codes ", q6\n" add(sum, "q4", "q5")
#define TFB_HIGHEST(next, add)                                                 \
  next("q4") TFB_HIGHEST_OF("q0", "a", add) TFB_HIGHEST_OF("q1", "b", add)     \
      TFB_HIGHEST_OF("q2", "c", add) TFB_HIGHEST_OF("q3", "d", add)

#define TFB_LOOP_OF_4(next, turn, add) \
  TFB_FOUR_BYTES(turn) TFB_LOWEST("4", next, add) TFB_HIGHEST(next, add)
static TFB_APART void tfb_blocks4(tfb_inputs *in) {
  TFB_SUMS_OF_KIND("vmov.i8 q6, #0xf0\nvmov.i8 q7, #0x88\n", TFB_LOOP_OF_4)
}
#define TFB_LOOP_OF_2(next, turn, add)                                                     \
  TFB_FOUR_BYTES(turn) TFB_LOWEST("6", next, add) TFB_MIDDLE("4", next, add)               \
      TFB_MIDDLE("2", next, add) TFB_HIGHEST(next, add)
static TFB_APART void tfb_blocks2(tfb_inputs *in) {
  TFB_SUMS_OF_KIND("vmov.i8 q6, #0xc0\nvmov.i8 q7, #0xaa\n", TFB_LOOP_OF_2)
}

/* Words of four blocks of 12 bytes each, by where their bytes lie (q5 the first, q6 the second), and
 * of what a group of 128 codes has in them two times 16 in the lower bits. Inputs are in q0 and q1. */
#define TFB_LOWER_OF(places, filter, sum, turn, add)             \
  "vldrb.u8 q2, [%[" filter "], " places "]\n"                   \
  "vshl.i8 q3, q2, #5\n" turn("q3") add(sum, "q0", "q3")         \
  "vshl.i8 q3, q2, #2\nvand q3, q3, q4\n" turn("q3") add(sum, "q1", "q3")
#define TFB_LOWER(places, next, turn, add)                                                        \
  next("q0") next("q1") TFB_LOWER_OF(places, "p", "a", turn, add)                                 \
      TFB_LOWER_OF(places, "q", "b", turn, add) TFB_LOWER_OF(places, "r", "c", turn, add)         \
          TFB_LOWER_OF(places, "s", "d", turn, add)
/* Those whose two upper bits are in the first or third word, the lowest one in the second. */
#define TFB_UPPER_OF(places, second, shift, filter, sum, turn, add)   \
  "vldrb.u8 q2, [%[" filter "], " places "]\n"                        \
  "vldrb.u8 q3, [%[" filter "], " second "]\n" shift                  \
  "vsri.8 q2, q3, #2\nvand q2, q2, q4\n" turn("q2") add(sum, "q0", "q2")
#define TFB_UPPER(places, second, shift, next, turn, add)                       \
  next("q0") TFB_UPPER_OF(places, second, shift, "p", "a", turn, add)           \
      TFB_UPPER_OF(places, second, shift, "q", "b", turn, add)                  \
          TFB_UPPER_OF(places, second, shift, "r", "c", turn, add)              \
              TFB_UPPER_OF(places, second, shift, "s", "d", turn, add)
#define TFB_ALL_ON(bytes) \
  "add %[p], #" bytes "\nadd %[q], #" bytes "\nadd %[r], #" bytes "\nadd %[s], #" bytes "\n"
#define TFB_LOOP_OF_3(next, turn, add)                                                         \
  TFB_LOWER("q5", next, turn, add) TFB_LOWER("q6", next, turn, add)                            \
      TFB_UPPER("q5", "q6", "vshl.i8 q3, q3, #1\n", next, turn, add) TFB_ALL_ON("4")           \
          TFB_LOWER("q6", next, turn, add) TFB_UPPER("q6", "q5", "", next, turn, add) TFB_ALL_ON("44")
static TFB_APART void tfb_blocks3(tfb_inputs *in) {
  TFB_SUMS_OF_KIND("vmov.i8 q4, #0xe0\nvmov.i8 q7, #0x80\nvldrb.8 q5, [%[places]]\n"
                   "vldrb.8 q6, [%[places], #16]\n", TFB_LOOP_OF_3)
}

/* Inputs as the loops above load them: the same four of each of four blocks, fours in turn, but those
 * whose codes of 3 bits are parted one after the other with others of their words. `turned` is what
 * turns their signs, or 0. What is behind the last block are bytes whose codes are in order; of 3 bits
 * it is left out. Returns the inputs that are taken. */
static TFB_APART int32_t tfb_arrange(const int8_t *x, int32_t taps, int32_t bits, int8_t turned,
                                     int8_t *to) {
  static const uint8_t fours[8] = {0, 1, 2, 3, 6, 4, 5, 7};
  int32_t each = 8 / bits, fourths = bits == 3 ? 8 : each, block = 4 * fourths, i, k;
  int32_t blocks = taps / block, taken = blocks * block;
  int8x16_t sign = vdupq_n_s8(turned);
  uint8x16_t lane = vidupq_n_u8(0, 1);
  uint8x16_t places = vmulq_n_u8(vshrq_n_u8(lane, 2), (uint8_t)block);
  if (bits == 8) {
    for (i = 0; i < taps; i += 16) {
      mve_pred16_t left = vctp8q((uint32_t)(taps - i));
      vstrbq_p_s8(to + i, veorq_s8(vldrbq_z_s8(x + i, left), sign), left);
    }
    return taps;
  }
  places = vaddq_u8(places, vandq_u8(lane, vdupq_n_u8(3)));
  for (; blocks > 0; blocks -= 4, x += 4 * block, to += 4 * block) {
    mve_pred16_t left = vctp8q(4 * (uint32_t)blocks);
    for (k = 0; k < fourths; k++) {
      const int8_t *four = x + 4 * (bits == 3 ? fours[k] : k);
      int8x16_t some = veorq_s8(vldrbq_gather_offset_z_s8(four, places, left), sign);
      vstrbq_p_s8(to + 16 * k, some, left);
    }
  }
  if (bits == 3 || taken == taps) return taken;
  if (blocks < 0) { /* the last group has room */
    x += blocks * block;
    to += blocks * 4 + 16 - 4 * block;
  }
  for (i = 0; i < (taps - taken) / each; i++, x += each, to++) {
    for (k = 0; k < each; k++) to[16 * k] = x[k] ^ turned;
  }
  return taps;
}

/* Adds the products of the n codes of 3 bits behind the last block of each filter, eight in 3 bytes at
 * a time, as they are in the upper bits of a byte. */
static TFB_APART void tfb_rest_of_3(const tfb_conv *op, const uint8_t *codes, int32_t bytes,
                                    int32_t filters, const int8_t *x, int32_t n, int32_t *sums) {
  uint16x8_t bit = vmulq_n_u16(vidupq_n_u16(0, 1), 3), low = vshrq_n_u16(bit, 3);
  uint16x8_t high = vminq_u16(vaddq_n_u16(low, 1), vdupq_n_u16(2));
  int16x8_t up = vreinterpretq_s16_u16(vandq_u16(bit, vdupq_n_u16(7)));
  int32_t zero = tfb_zero(op), i;
  up = vsubq_s16(vdupq_n_s16(13), up);
  for (; filters > 0; filters--, codes += bytes) {
    int32_t sum = 0;
    for (i = 0; i < n; i += 8) {
      const uint8_t *three = codes + i * 3 / 8;
      uint16x8_t pair = vshlq_n_u16(vldrbq_gather_offset_u16(three, high), 8);
      pair = vshlq_u16(vorrq_u16(pair, vldrbq_gather_offset_u16(three, low)), up);
      sum = vmladavaq_s16(sum, vshrq_n_s16(vreinterpretq_s16_u16(pair), 13),
                          vsubq_n_s16(vldrbq_s16(x + i), (int16_t)zero));
    }
    *sums++ += sum * 32;
  }
}

/* The sums of n filters at `codes`; of the last ones, below four, the last is made again. */
static TFB_APART void tfb_sums_of(tfb_inputs *in, tfb_sum_blocks blocks, const uint8_t *codes,
                                  int32_t n, int32_t *sums) {
  int32_t rest = n & 3, i;
  in->codes = codes;
  in->sums = sums;
  in->count = n - rest;
  for (i = 0; i < 4; i++) in->steps[i] = in->bytes;
  if (n > rest) blocks(in);
  for (i = 1; i < 4; i++) in->steps[i - 1] = i < rest ? in->bytes : 0;
  in->count = rest;
  if (rest > 0) blocks(in);
}

/* What turns sums of a chunk of filters into stored values, as in tfb_four. */
typedef struct {
  int32_t bias[TFB_CHUNK], left[TFB_CHUNK], multiplier[TFB_CHUNK], exponent[TFB_CHUNK];
} tfb_chunk;

/* Takes what scales the sums of n filters from c on; if they differ in their biases alone, only these
 * but for the first chunk. */
static TFB_APART void tfb_take_chunk(const tfb_conv *op, int32_t c, int32_t n, tfb_chunk *chunk) {
  int32_t each = op->form & (TFB_EACH_MULTIPLIER | TFB_EACH_SHIFT | TFB_SHORT), i;
  for (i = 0; i < n; i += 4) {
    mve_pred16_t wanted = vctp32q((uint32_t)(n - i));
    if (c == 0 || each) {
      tfb_four four = tfb_four_scales(op, c + i, wanted);
      vstrwq_s32(chunk->bias + i, four.bias);
      vstrwq_s32(chunk->left + i, four.left);
      vstrwq_s32(chunk->multiplier + i, four.multiplier);
      vstrwq_s32(chunk->exponent + i, four.exponent);
    } else {
      vstrwq_s32(chunk->bias + i, tfb_four_biases(op, c + i, wanted));
    }
  }
}

/* Stores what n sums of codes times inputs make, as tfb_four_scaled has it; rows of `chunk` are 128
 * bytes apart. */
static TFB_APART void tfb_store_chunk(const tfb_conv *op, const tfb_chunk *chunk,
                                      const int32_t *sums, int32_t n, int8_t *out) {
  __asm__ volatile(
      "dlstp.32 lr, %[n]\n"
      "1: vldrw.32 q0, [%[sums]], #16\n"
      "vldrw.32 q1, [%[chunk]], #16\n"
      "vshl.s32 q0, %[drop]\n"
      "vmla.s32 q1, q0, %[prescale]\n"
      "vldrw.32 q0, [%[chunk], #112]\n"
      "vshl.s32 q1, q1, q0\n"
      "vldrw.32 q0, [%[chunk], #240]\n"
      "vqrdmulh.s32 q1, q1, q0\n"
      "vldrw.32 q0, [%[chunk], #368]\n"
      "vand q2, q1, q0\n"
      "vshr.s32 q2, q2, #31\n"
      "vadd.i32 q1, q1, q2\n"
      "vrshl.s32 q1, q1, q0\n"
      "vadd.i32 q1, q1, %[zero]\n"
      "vmin.s32 q1, q1, %q[high]\n"
      "vmax.s32 q1, q1, %q[low]\n"
      "vstrb.32 q1, [%[out]], #4\n"
      "letp lr, 1b\n"
      : [sums] "+r"(sums), [chunk] "+r"(chunk), [out] "+l"(out)
      : [n] "r"(n), [drop] "r"(op->bits - 8), [prescale] "r"((int32_t)op->prescale),
        [zero] "r"((int32_t)op->out_zero), [low] "w"(vdupq_n_s32(op->low)),
        [high] "w"(vdupq_n_s32(op->high))
      : "lr", "q0", "q1", "q2", "memory");
}

/* A convolution whose filters each see the whole input, in order; every filter begins with a byte.
 * `scratch` holds the input in the order of the codes; `blocks` is the function for their width. Where
 * biases do not contain what the zero point adds, inputs less it have no sign if it is the least one;
 * else the codes are summed for it. */
static TFB_APART void tfb_dense(const tfb_conv *op, const int8_t *in, int8_t *out, int8_t *scratch,
                                tfb_sum_blocks blocks) {
  int32_t taps = op->in_h * op->in_w * op->in_c, bits = op->bits, zero = tfb_zero(op), c, i;
  int32_t taken = taps, sums[TFB_CHUNK], codes[TFB_CHUNK];
  const uint8_t *next = op->weights;
  tfb_inputs inputs;
  tfb_chunk chunk;
  inputs.x = in;
  if (bits < 8 || zero == -128) {
    inputs.x = scratch;
    taken = tfb_arrange(in, taps, bits, zero == -128 ? -128 : 0, scratch);
  }
  inputs.bytes = taps * bits / 8;
  inputs.lanes = bits == 3 ? taken / 8 : inputs.bytes;
  inputs.start = zero == -128 ? -128 * (tfb_sum(in, taken) + 128 * taken) : 0;
  for (c = 0; c < op->out_c; c += TFB_CHUNK, next += TFB_CHUNK * inputs.bytes) {
    int32_t n = tfb_min(TFB_CHUNK, op->out_c - c);
    memset(sums, 0, sizeof sums);
    inputs.kind = zero == -128 ? TFB_RAISED : TFB_PRODUCTS;
    if (taken > 0) tfb_sums_of(&inputs, blocks, next, n, sums);
    if (taken > 0 && zero != 0 && zero != -128) {
      inputs.kind = TFB_CODES;
      tfb_sums_of(&inputs, blocks, next, n, codes);
      for (i = 0; i < n; i++) sums[i] -= zero * codes[i];
    }
    if (taken < taps) {
      tfb_rest_of_3(op, next + taken * 3 / 8, inputs.bytes, n, in + taken, taps - taken, sums);
    }
    tfb_take_chunk(op, c, n, &chunk);
    tfb_store_chunk(op, &chunk, sums, n, out + c);
  }
}
#endif

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

/* ---- Sums of sixteen channels with Helium ---- */

#if TFB_MVE

/* Channels at a time, and taps of a filter that are kept for each. */
#define TFB_SIXTEEN 16
#define TFB_MOST_TAPS 32

/* What every position takes stays within the loop over them. */
#define TFB_INLINED __attribute__((always_inline))

/* Four of sixteen channels, 4 j + k for j from 0 on, which is where widening puts them; as in tfb_four. */
typedef struct {
  int32_t bias[4], multiplier[4], exponent[4], left[4];
} tfb_fourth;

/* Sixteen channels at some positions, `step` apart, whose first has its taps at `at`: what is read for
 * them, and where their outputs go, `next` apart. */
typedef struct {
  const int8_t *const *at;
  int32_t taps;
  const int8_t *w;
  int32_t first, low, high; /* the first channel that is wanted */
  const tfb_fourth *scales;
  int8_t *out;
  int32_t step, next, prescale, zero;
} tfb_run;

/* Sixteen filters: the codes of their taps side by side, and what turns their sums into stored values,
 * for k of 0, 2, 1 and 3. */
typedef struct {
  int8_t w[TFB_MOST_TAPS * TFB_SIXTEEN];
  tfb_fourth scales[4];
} tfb_sixteen;

/* Any sums, of the channels that are wanted. */
static inline void tfb_any_sums_at(const tfb_run *run, int32_t n) {
  int32_t offset = 0, i, k;
  int8_t *out = run->out;
  for (; n > 0; n--, offset += run->step, out += run->next) {
    int32x4_t sums[4];
    int16x8_t even = vdupq_n_s16(0), odd = even;
    int8x16_t made = vreinterpretq_s8_s16(even);
    for (k = 0; k < 4; k++) sums[k] = vdupq_n_s32(0);
    for (i = 0; i < run->taps; i++) {
      int8x16_t x = vldrbq_s8(run->at[i] + offset), w = vldrbq_s8(run->w + i * TFB_SIXTEEN);
      even = vmullbq_int_s8(x, w);
      odd = vmulltq_int_s8(x, w);
      sums[0] = vaddq_s32(sums[0], vmovlbq_s16(even));
      sums[1] = vaddq_s32(sums[1], vmovltq_s16(even));
      sums[2] = vaddq_s32(sums[2], vmovlbq_s16(odd));
      sums[3] = vaddq_s32(sums[3], vmovltq_s16(odd));
    }
    for (k = 0; k < 4; k++) {
      const tfb_fourth *scales = run->scales + k;
      tfb_four four;
      four.left = vldrwq_s32(scales->left);
      four.multiplier = vldrwq_s32(scales->multiplier);
      four.exponent = vldrwq_s32(scales->exponent);
      four.bias = vmlaq_n_s32(vldrwq_s32(scales->bias), sums[k], run->prescale);
      sums[k] = tfb_four_scaled(four, four.bias, run->zero);
    }
    even = vqmovntq_s32(vqmovnbq_s32(even, sums[0]), sums[1]);
    odd = vqmovntq_s32(vqmovnbq_s32(odd, sums[2]), sums[3]);
    made = vqmovntq_s16(vqmovnbq_s16(made, even), odd);
    made = vmaxq_s8(vminq_s8(made, vdupq_n_s8((int8_t)run->high)), vdupq_n_s8((int8_t)run->low));
    vstrbq_p_s8(out, made, (mve_pred16_t)(0xffffu << run->first));
  }
}

/* Scales four sums that are rounded twice and not shifted left, with q4 in use; the next loads are of
 * what follows in tfb_fourth. */
#define TFB_SCALED_FOURTH(q)             \
  "vldrw.32 q4, [%[scales]], #16\n"      \
  "vqrdmulh.s32 " q ", " q ", q4\n"      \
  "vshr.s32 q4, " q ", #31\n"            \
  "vadd.i32 " q ", " q ", q4\n"          \
  "vldrw.32 q4, [%[scales]], #32\n"      \
  "vrshl.s32 " q ", " q ", q4\n"
/* The same of sums in one half of 16-bit numbers, without their biases. */
#define TFB_SCALED_HALF(half, sums, to)  \
  "vmovl" half ".s16 q4, " sums "\n"     \
  "vldrw.32 " to ", [%[scales]], #16\n"  \
  "vmla.s32 " to ", q4, %[prescale]\n" TFB_SCALED_FOURTH(to)
/* Puts two vectors of scaled sums together. 16 bits hold what the zero point is added to: what they
 * cannot hold is limited anyway. */
#define TFB_NARROWED(low, high, to)      \
  "vqmovnb.s32 " to ", " low "\n"        \
  "vqmovnt.s32 " to ", " high "\n"       \
  "vqadd.s16 " to ", " to ", %[zero]\n"
/* Stores sixteen of them. */
#define TFB_STORED(even, odd)            \
  "vqmovnb.s16 q4, " even "\n"           \
  "vqmovnt.s16 q4, " odd "\n"            \
  "ldrd %[w], %[p], [%[run], #16]\n"     \
  "vdup.8 q5, %[w]\n"                    \
  "vmax.s8 q4, q4, q5\n"                 \
  "vdup.8 q5, %[p]\n"                    \
  "vmin.s8 q4, q4, q5\n"                 \
  "vstrb.8 q4, [%[out]]\n"
#define TFB_SCALED_SMALL(even, odd)                                          \
  TFB_SCALED_HALF("b", even, "q5") TFB_SCALED_HALF("t", even, "q6")          \
  TFB_NARROWED("q5", "q6", even)                                             \
  TFB_SCALED_HALF("b", odd, "q5") TFB_SCALED_HALF("t", odd, "q6")            \
  TFB_NARROWED("q5", "q6", odd) "sub %[scales], #256\n" TFB_STORED(even, odd)

/* What the loops over taps begin with; the next loads are of w. */
#define TFB_FIRST_TAP                    \
  "ldrd %[at], lr, [%[run]]\n"           \
  "ldr %[w], [%[run], #8]\n"             \
  "dls lr, lr\n"
/* A tap of one position, at p. */
#define TFB_SMALL_TAP(even, odd)         \
  "vldrb.8 q5, [%[p]]\n"                 \
  "vmullb.s8 q6, q5, q4\n"               \
  "vadd.i16 " even ", " even ", q6\n"    \
  "vmullt.s8 q5, q5, q4\n"               \
  "vadd.i16 " odd ", " odd ", q5\n"

/* Sums that 16 bits hold, of two positions at a time. */
static inline TFB_INLINED void tfb_small_sums_at(const tfb_run *run, int32_t n) {
  const int8_t *const *at;
  const int8_t *w, *p;
  const tfb_fourth *scales = run->scales;
  int8_t *out = run->out;
  int32_t offset = 0, step = run->step, next = run->next;
  for (; n > 1; n -= 2, offset += 2 * step, out += next) {
    __asm__ volatile(
        TFB_FIRST_TAP
        "vmov.i32 q0, #0\n"
        "vmov.i32 q1, #0\n"
        "vmov.i32 q2, #0\n"
        "vmov.i32 q3, #0\n"
        "1: ldr %[p], [%[at]], #4\n"
        "vldrb.8 q4, [%[w]], #16\n"
        "add %[p], %[offset]\n"
        TFB_SMALL_TAP("q0", "q1")
        "add %[p], %[step]\n"
        TFB_SMALL_TAP("q2", "q3")
        "le lr, 1b\n"
        TFB_SCALED_SMALL("q0", "q1")
        "add %[out], %[next]\n"
        TFB_SCALED_SMALL("q2", "q3")
        : [at] "=&r"(at), [w] "=&r"(w), [p] "=&r"(p), [out] "+r"(out), [scales] "+r"(scales)
        : [run] "r"(run), [offset] "r"(offset), [step] "r"(step), [next] "r"(next),
          [prescale] "r"(run->prescale), [zero] "r"(run->zero)
        : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "cc", "memory");
  }
  if (n == 1) {
    __asm__ volatile(
        TFB_FIRST_TAP
        "vmov.i32 q0, #0\n"
        "vmov.i32 q1, #0\n"
        "1: ldr %[p], [%[at]], #4\n"
        "vldrb.8 q4, [%[w]], #16\n"
        "add %[p], %[offset]\n"
        TFB_SMALL_TAP("q0", "q1")
        "le lr, 1b\n"
        TFB_SCALED_SMALL("q0", "q1")
        : [at] "=&r"(at), [w] "=&r"(w), [p] "=&r"(p), [scales] "+r"(scales)
        : [run] "r"(run), [offset] "r"(offset), [out] "r"(out), [prescale] "r"(run->prescale),
          [zero] "r"(run->zero)
        : "lr", "q0", "q1", "q4", "q5", "q6", "cc", "memory");
  }
}

/* Codes of 8 bits above -128: 16 bits hold two products, which are widened together. */
static inline TFB_INLINED void tfb_pairs_at(const tfb_run *run, int32_t n) {
  const int8_t *const *at;
  const int8_t *w, *p, *q;
  const tfb_fourth *scales = run->scales;
  int8_t *out = run->out;
  int32_t offset = 0;
  for (; n > 0; n--, offset += run->step, out += run->next) {
    __asm__ volatile(
        "vldrw.32 q0, [%[scales]], #64\n"
        "vldrw.32 q1, [%[scales]], #64\n"
        "vldrw.32 q2, [%[scales]], #64\n"
        "vldrw.32 q3, [%[scales]]\n"
        "ldrd %[at], %[q], [%[run]]\n"
        "ldr %[w], [%[run], #8]\n"
        "sub %[scales], #176\n"
        "lsrs %[q], #1\n"
        "wls lr, %[q], 2f\n"
        "1: ldrd %[p], %[q], [%[at]], #8\n"
        "vldrb.8 q4, [%[w]], #16\n"
        "add %[p], %[offset]\n"
        "vldrb.8 q5, [%[p]]\n"
        "vmullb.s8 q6, q5, q4\n"
        "add %[q], %[offset]\n"
        "vmullt.s8 q4, q5, q4\n"
        "vldrb.8 q5, [%[q]]\n"
        "vldrb.8 q7, [%[w]], #16\n"
        "vmullb.s8 q5, q5, q7\n"
        "vadd.i16 q6, q6, q5\n"
        "vldrb.8 q5, [%[q]]\n"
        "vmullt.s8 q5, q5, q7\n"
        "vadd.i16 q4, q4, q5\n"
        "vmovlb.s16 q5, q6\n"
        "vadd.i32 q0, q0, q5\n"
        "vmovlt.s16 q6, q6\n"
        "vadd.i32 q1, q1, q6\n"
        "vmovlb.s16 q5, q4\n"
        "vadd.i32 q2, q2, q5\n"
        "vmovlt.s16 q4, q4\n"
        "vadd.i32 q3, q3, q4\n"
        "le lr, 1b\n"
        "2: ldr %[q], [%[run], #4]\n"
        "lsls %[q], #31\n"
        "beq 3f\n"
        "ldr %[p], [%[at]]\n"
        "vldrb.8 q4, [%[w]]\n"
        "add %[p], %[offset]\n"
        "vldrb.8 q5, [%[p]]\n"
        "vmullb.s8 q6, q5, q4\n"
        "vmullt.s8 q4, q5, q4\n"
        "vmovlb.s16 q5, q6\n"
        "vadd.i32 q0, q0, q5\n"
        "vmovlt.s16 q6, q6\n"
        "vadd.i32 q1, q1, q6\n"
        "vmovlb.s16 q5, q4\n"
        "vadd.i32 q2, q2, q5\n"
        "vmovlt.s16 q4, q4\n"
        "vadd.i32 q3, q3, q4\n"
        "3:\n"
        TFB_SCALED_FOURTH("q0") "add %[scales], #16\n"
        TFB_SCALED_FOURTH("q1") "add %[scales], #16\n"
        TFB_SCALED_FOURTH("q2") "add %[scales], #16\n"
        TFB_SCALED_FOURTH("q3") "sub %[scales], #256\n"
        TFB_NARROWED("q0", "q1", "q0") TFB_NARROWED("q2", "q3", "q2")
        TFB_STORED("q0", "q2")
        : [at] "=&r"(at), [w] "=&r"(w), [p] "=&r"(p), [q] "=&r"(q), [scales] "+r"(scales)
        : [run] "r"(run), [offset] "r"(offset), [out] "r"(out), [zero] "r"(run->zero)
        : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "cc", "memory");
  }
}
#endif

/* ---- Depthwise convolutions on cores that have neither DSP instructions nor Helium ---- */

#if TFB_JOINS

/* A word holds two inputs as x + 65536 y, so that a multiplication by a code makes the products
 * of both: those of an output in the upper half of the map, and of the one as far below the
 * first row of the lower half. Of a map with an odd number of rows the middle one is in both. As
 * in joined.h up to tfb_most_taps products lie between -2^15 + 2^8 and 2^15: sums that begin
 * with TFB_TWO_OUTPUTS have both halves from 0 to 2^16 - 1, by TFB_RAISED higher. */
#define TFB_RAISED 0x7fff
#define TFB_TWO_OUTPUTS 0x7fff7fffu
#define TFB_WORDS_KEPT 64

/* Copies a channel of an image into `lines` rows of words inside their border; the second input
 * of each lies `down` rows below the first. Rows beyond the image are of the zero point. */
static TFB_APART void tfb_joined_plane(const tfb_conv *op, const int8_t *channel, int32_t lines,
                                       int32_t width, int32_t down, uint32_t *plane) {
  int32_t line = op->in_w * op->in_c, columns = tfb_min(op->in_w, width - op->pad_w), y;
  plane += op->pad_w;
  for (y = -op->pad_h; y < lines - op->pad_h; y++, plane += width) {
    int32_t in_first = y >= 0 && y < op->in_h, in_second = y + down >= 0 && y + down < op->in_h;
    const int8_t *a = in_first ? channel + y * line : &op->in_zero;
    const int8_t *b = in_second ? channel + (y + down) * line : &op->in_zero;
    int32_t next = in_first ? op->in_c : 0, other = in_second ? op->in_c : 0;
    uint32_t *to = plane, *end = plane + columns, *last = end - 1;
    for (; to < last; to += 2, a += next, b += other) {
      to[0] = tfb_joint(*a, *b);
      a += next, b += other;
      to[1] = tfb_joint(*a, *b);
    }
    if (to != end) *to = tfb_joint(*a, *b);
  }
}

/* How a filter reads a plane, in words: from one of its rows to the next, from a row of outputs
 * to the next, and from one output to the next. */
typedef struct {
  int32_t line, down, next;
} tfb_steps;

#define TFB_TAP(weight, a, b, c, d)                                                              \
  do {                                                                                           \
    uint32_t word = (uint32_t)(weight);                                                          \
    s0 = tfb_mla(s0, (uint32_t)(a), word), s1 = tfb_mla(s1, (uint32_t)(b), word);                \
    s2 = tfb_mla(s2, (uint32_t)(c), word), s3 = tfb_mla(s3, (uint32_t)(d), word);                \
  } while (0)
/* What a filter row of three makes of four places at stride 1, or at stride 2. */
#define TFB_THREE(element, u, v, w)                \
  do {                                             \
    element a = p[0], b = p[1], c = p[2], d = p[3]; \
    TFB_TAP(u, a, b, c, d);                        \
    a = p[4];                                      \
    TFB_TAP(v, b, c, d, a);                        \
    b = p[5];                                      \
    TFB_TAP(w, c, d, a, b);                        \
    TFB_LOADS_STAY;                                \
    p += line;                                     \
  } while (0)
#define TFB_THREE_OF_TWO(element, u, v, w)         \
  do {                                             \
    element c = p[2], e = p[4], g = p[6];          \
    TFB_TAP(u, p[0], c, e, g);                     \
    TFB_TAP(w, c, e, g, p[8]);                     \
    TFB_TAP(v, p[1], p[3], p[5], p[7]);            \
    TFB_LOADS_STAY;                                \
    p += line;                                     \
  } while (0)
/* The same of one place, or of two. */
#define TFB_THREE_AT(at, sum) \
  sum = tfb_mla(sum, (uint32_t)p[at], t0), sum = tfb_mla(sum, (uint32_t)p[(at) + 1], t1), \
  sum = tfb_mla(sum, (uint32_t)p[(at) + 2], t2)
#define TFB_THREE_TWICE(u, v, w)                                                     \
  do {                                                                               \
    const uint32_t t0 = (uint32_t)(u), t1 = (uint32_t)(v), t2 = (uint32_t)(w);       \
    TFB_THREE_AT(0, s0);                                                             \
    if (end - to == 2) TFB_THREE_AT(next, s1);                                       \
    TFB_LOADS_STAY;                                                                  \
    p += line;                                                                       \
  } while (0)
#define TFB_PUT_SUMS \
  to[0] = s0;        \
  to[1] = s1;        \
  to[2] = s2;        \
  to[3] = s3

/* Three functions that make the sums of n places in each of some rows, of bytes or of words:
 * with filters of 3x3, with filters five wide, both at stride 1 or 2, and with any. Four are
 * made at a time: what is too much lies behind the last, or is overwritten by the next row. */
#define TFB_SUMS(element, start, of_3x3, of_5, of_any)                                             \
  static TFB_APART void of_3x3(const element *plane, const tfb_steps *steps, const element *taps,  \
                               int32_t n, int32_t rows, uint32_t *sums) {                          \
    element k = taps[0], l = taps[1], m = taps[2], o = taps[3], q = taps[4], r = taps[5];          \
    element u = taps[6], v = taps[7], w = taps[8];                                                 \
    int32_t line = steps->line, next = steps->next;                                                \
    for (; rows > 0; rows--, plane += steps->down, sums += n) {                                    \
      const element *first = plane;                                                                \
      uint32_t *to = sums, *end = sums + n;                                                        \
      for (; to < end; to += 4, first += 4 * next) {                                               \
        uint32_t s0 = start, s1 = s0, s2 = s0, s3 = s0;                                            \
        const element *p = first;                                                                  \
        if (end - to <= 2) {                                                                       \
          TFB_THREE_TWICE(k, l, m);                                                                \
          TFB_THREE_TWICE(o, q, r);                                                                \
          TFB_THREE_TWICE(u, v, w);                                                                \
          to[0] = s0;                                                                              \
          to[1] = s1;                                                                              \
          break;                                                                                   \
        }                                                                                          \
        if (next == 1) {                                                                           \
          TFB_THREE(element, k, l, m);                                                             \
          TFB_THREE(element, o, q, r);                                                             \
          TFB_THREE(element, u, v, w);                                                             \
        } else {                                                                                   \
          TFB_THREE_OF_TWO(element, k, l, m);                                                      \
          TFB_THREE_OF_TWO(element, o, q, r);                                                      \
          TFB_THREE_OF_TWO(element, u, v, w);                                                      \
        }                                                                                          \
        TFB_PUT_SUMS;                                                                              \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  static TFB_APART void of_5(const element *plane, const tfb_steps *steps, const element *taps,    \
                             int32_t k_h, int32_t n, int32_t rows, uint32_t *sums) {               \
    int32_t line = steps->line, next = steps->next;                                                \
    for (; rows > 0; rows--, plane += steps->down, sums += n) {                                    \
      const element *first = plane;                                                                \
      uint32_t *to = sums, *end = sums + n;                                                        \
      for (; to < end; to += 4, first += 4 * next) {                                               \
        uint32_t s0 = start, s1 = s0, s2 = s0, s3 = s0;                                            \
        const element *p = first, *w = taps, *last = taps + 5 * k_h;                               \
        for (; w != last; w += 5, p += line) {                                                     \
          if (next == 1) {                                                                         \
            element a = p[0], b = p[1], c = p[2], d = p[3];                                        \
            TFB_TAP(w[0], a, b, c, d);                                                             \
            a = p[4];                                                                              \
            TFB_TAP(w[1], b, c, d, a);                                                             \
            b = p[5];                                                                              \
            TFB_TAP(w[2], c, d, a, b);                                                             \
            c = p[6];                                                                              \
            TFB_TAP(w[3], d, a, b, c);                                                             \
            d = p[7];                                                                              \
            TFB_TAP(w[4], a, b, c, d);                                                             \
          } else {                                                                                 \
            element a = p[4], b = p[6], c = p[5], d = p[7];                                        \
            TFB_TAP(w[0], p[0], p[2], a, b);                                                       \
            TFB_TAP(w[2], p[2], a, b, p[8]);                                                       \
            TFB_TAP(w[4], a, b, p[8], p[10]);                                                      \
            TFB_TAP(w[1], p[1], p[3], c, d);                                                       \
            TFB_TAP(w[3], p[3], c, d, p[9]);                                                       \
          }                                                                                        \
          TFB_LOADS_STAY;                                                                          \
        }                                                                                          \
        TFB_PUT_SUMS;                                                                              \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  static TFB_APART void of_any(const tfb_conv *op, const element *plane, const tfb_steps *steps,   \
                               const element *taps, int32_t n, int32_t rows, uint32_t *sums) {     \
    int32_t common = op->dilation_w == 1 && op->stride_w <= 2 ? op->k_w : 0;                       \
    int32_t next = steps->next, ky, kx;                                                            \
    if (common == 3 && op->k_h == 3) {                                                             \
      of_3x3(plane, steps, taps, n, rows, sums);                                                   \
      return;                                                                                      \
    }                                                                                              \
    if (common == 5) {                                                                             \
      of_5(plane, steps, taps, op->k_h, n, rows, sums);                                            \
      return;                                                                                      \
    }                                                                                              \
    for (; rows > 0; rows--, plane += steps->down, sums += n) {                                    \
      const element *first = plane;                                                                \
      uint32_t *to = sums, *end = sums + n;                                                        \
      for (; to < end; to += 4, first += 4 * next) {                                               \
        uint32_t s0 = start, s1 = s0, s2 = s0, s3 = s0;                                            \
        const element *row = first, *w = taps;                                                     \
        for (ky = op->k_h; ky > 0; ky--, row += steps->line) {                                     \
          const element *p = row;                                                                  \
          for (kx = op->k_w; kx > 0; kx--, p += op->dilation_w, w++) {                             \
            TFB_TAP(*w, p[0], p[next], p[2 * next], p[3 * next]);                                  \
          }                                                                                        \
        }                                                                                          \
        TFB_PUT_SUMS;                                                                              \
      }                                                                                            \
    }                                                                                              \
  }
TFB_SUMS(int8_t, 0, tfb_bytes_3x3, tfb_bytes_5, tfb_byte_sums)
TFB_SUMS(uint32_t, TFB_TWO_OUTPUTS, tfb_words_3x3, tfb_words_5, tfb_word_sums)
#undef TFB_TAP
#undef TFB_THREE
#undef TFB_THREE_AT
#undef TFB_THREE_TWICE
#undef TFB_THREE_OF_TWO
#undef TFB_PUT_SUMS
#undef TFB_SUMS

static inline tfb_steps tfb_steps_of(const tfb_conv *op, int32_t width) {
  tfb_steps steps;
  steps.line = op->dilation_h * width;
  steps.down = op->stride_h * width;
  steps.next = op->stride_w;
  return steps;
}

/* Stores n outputs in the upper half of a map and as many in the lower one, `lower` further. Where
 * limits leave nothing below the zero point, how negative numbers are rounded does not show. */
static TFB_APART void tfb_store_joined(const tfb_conv *op, const tfb_filter *filter,
                                       const uint32_t *words, int32_t n, int8_t *out,
                                       int32_t lower) {
  uint32_t factor = (uint32_t)filter->factor, base = (uint32_t)filter->base;
  int32_t exponent = filter->exponent, multiplier = filter->multiplier, next = op->out_c;
  int32_t low = op->low, high = op->high, zero = op->out_zero, offset;
  const uint32_t *end = words + n;
  int8_t *second = out + lower;
  base -= TFB_RAISED * factor;
#define TFB_EACH(made)                                           \
  for (; words != end; out += next, second += next) {            \
    uint32_t both = *words++;                                    \
    int32_t twice = (int32_t)((both >> 16) * factor + base);     \
    *second = (int8_t)(made);                                    \
    twice = (int32_t)((both & 0xffff) * factor + base);          \
    *out = (int8_t)(made);                                       \
  }
#define TFB_PLUS(offset) (tfb_product_plus(twice, multiplier, offset) >> exponent)
  if (exponent == 0 || exponent >= TFB_MOST_SHIFT) {
    int32_t value;
    TFB_EACH((value = tfb_product_of_twice(twice, multiplier),
              tfb_clamp(tfb_rounded_shift(value, exponent) + zero, low, high)))
    return;
  }
  offset = (zero * 2 + 1) * (1 << (exponent - 1));
  if (tfb_rectifies(op)) {
    TFB_EACH(tfb_rectified(twice, multiplier, offset, exponent, low, high))
  } else if (low > -128 || high < 127) {
    TFB_EACH(tfb_clamp(TFB_PLUS(offset + (twice >> 31)), low, high))
  } else {
    TFB_EACH(tfb_saturated(TFB_PLUS(offset + (twice >> 31))))
  }
#undef TFB_PLUS
#undef TFB_EACH
}

/* All outputs of one filter, from a channel with its border. */
static TFB_APART void tfb_joined_channel(const tfb_conv *op, const tfb_filter *filter,
                                         const uint32_t *plane, int32_t width, const uint32_t *w,
                                         int8_t *out) {
  int32_t oy, ox, n = tfb_min(op->out_w, TFB_WORDS_KEPT), half = (op->out_h + 1) / 2;
  int32_t lower = (op->out_h - half) * op->out_w * op->out_c;
  int32_t rows = n == op->out_w ? TFB_WORDS_KEPT / n : 1;
  uint32_t sums[TFB_WORDS_KEPT + 3];
  tfb_steps steps = tfb_steps_of(op, width);
  for (oy = 0; oy < half; oy += rows, plane += rows * steps.down) {
    rows = tfb_min(rows, half - oy);
    for (ox = 0; ox < op->out_w; ox += TFB_WORDS_KEPT) {
      n = tfb_min(op->out_w - ox, TFB_WORDS_KEPT);
      tfb_word_sums(op, plane + ox * steps.next, &steps, w, n, rows, sums);
      tfb_store_joined(op, filter, sums, n * rows, out, lower);
      out += n * rows * op->out_c;
    }
  }
}

/* Channel by channel. `scratch` holds a filter's codes as bytes and as words, and a channel. */
static TFB_APART void tfb_joined_depthwise(const tfb_conv *op, const tfb_rows *rows,
                                           const int8_t *in, int8_t *out, int8_t *scratch) {
  int32_t multiple = op->out_c / op->in_c, taps = op->k_h * op->k_w, half = (op->out_h + 1) / 2;
  int32_t lines = (half - 1) * op->stride_h + (op->k_h - 1) * op->dilation_h + 1, b, c, i;
  int32_t width = (op->out_w - 1) * op->stride_w + (op->k_w - 1) * op->dilation_w + 1;
  uint32_t *w = (uint32_t *)(void *)(scratch + ((taps + 3) & ~3)), *plane = w + taps;
  for (i = 0; i < lines * width; i++) plane[i] = tfb_joint(op->in_zero, op->in_zero);
  for (b = 0; b < op->batch; b++, in += op->in_h * op->in_w * op->in_c) {
    tfb_stream stream = rows->stream;
    for (c = 0; c < op->out_c; c++) {
      const int8_t *codes = rows->row_of(rows->source, c, &stream, scratch, taps);
      tfb_filter filter = tfb_filter_with(op, c, codes, taps);
      for (i = 0; i < taps; i++) w[i] = (uint32_t)(codes[i] >> (8 - op->bits));
      if (c % multiple == 0) {
        tfb_joined_plane(op, in + c / multiple, lines, width, (op->out_h - half) * op->stride_h,
                         plane);
      }
      tfb_joined_channel(op, &filter, plane, width, w,
                         out + b * op->out_h * op->out_w * op->out_c + c);
    }
  }
}
#endif

/* ---- Depthwise convolutions with Helium ---- */

#if TFB_MVE

/* The taps of a filter: rows, columns and bytes from the first on, and where they lie in an image;
 * those outside at `zeros`. */
typedef struct {
  uint32_t y[TFB_MOST_TAPS], x[TFB_MOST_TAPS], offset[TFB_MOST_TAPS];
  const int8_t *at[TFB_MOST_TAPS];
  int8_t zeros[TFB_SIXTEEN];
} tfb_taps;

static TFB_APART void tfb_lay_taps(const tfb_conv *op, tfb_taps *taps) {
  int32_t ky, kx, i = 0;
  memset(taps->zeros, op->in_zero, sizeof taps->zeros);
  for (ky = 0; ky < op->k_h; ky++) {
    for (kx = 0; kx < op->k_w; kx++, i++) {
      taps->y[i] = (uint32_t)(ky * op->dilation_h);
      taps->x[i] = (uint32_t)(kx * op->dilation_w);
      taps->offset[i] = (taps->y[i] * op->in_w + taps->x[i]) * op->in_c;
    }
  }
}

/* Finds the taps of a filter whose first lies at (y, x). */
static inline TFB_INLINED void tfb_find_taps(const tfb_conv *op, const int8_t *image, int32_t y, int32_t x,
                                    tfb_taps *taps) {
  const int8_t *first = image + (y * op->in_w + x) * op->in_c;
  uint32x4_t zeros = vdupq_n_u32((uint32_t)(uintptr_t)taps->zeros);
  int32_t n = op->k_h * op->k_w, i;
  for (i = 0; i < n; i += 4) {
    uint32x4_t place = vaddq_n_u32(vldrwq_u32(taps->offset + i), (uint32_t)(uintptr_t)first);
    uint32x4_t row = vaddq_n_u32(vldrwq_u32(taps->y + i), (uint32_t)y);
    uint32x4_t column = vaddq_n_u32(vldrwq_u32(taps->x + i), (uint32_t)x);
    place = vpselq_u32(zeros, place, vcmphiq_n_u32(row, op->in_h - 1u));
    place = vpselq_u32(zeros, place, vcmphiq_n_u32(column, op->in_w - 1u));
    vstrwq_u32((uint32_t *)(void *)(taps->at + i), place);
  }
}

/* Unpacks the taps of sixteen filters that lie one behind the other from channel c on; the codes of
 * one tap of eight channels at a time. In filters that begin with a byte, whole blocks are in an order
 * of their own (tfb_block2 and 4; a block of 3 bits is longer than filters here). Only codes of 3 bits
 * reach into a second byte, which is there if they do. */
static TFB_APART void tfb_unpack_sixteen(const tfb_conv *op, int32_t c, int32_t taps, int8_t *w) {
  int32_t bits = op->bits, begin = c * taps * bits, last = ((c + 16) * taps * bits - 1) / 8, k, i;
  int32_t block = bits == 2 ? 16 : 8, whole = bits == 2 || bits == 4 ? taps & -block : 0;
  const uint8_t *from = op->weights + begin / 8;
  uint16x8_t end = vdupq_n_u16((uint16_t)(last - begin / 8));
  for (i = 0; i < TFB_SIXTEEN; i += 8) {
    uint16x8_t first = vmulq_n_u16(vidupq_n_u16((uint32_t)i, 1), (uint16_t)(taps * bits));
    mve_pred16_t in_blocks;
    first = vaddq_n_u16(first, (uint16_t)(begin % 8));
    in_blocks = vcmpeqq_n_u16(vandq_u16(first, vdupq_n_u16(7)), 0);
    for (k = 0; k < taps; k++) {
      uint16x8_t bit = vaddq_n_u16(first, (uint16_t)(k * bits)), place, code;
      int16x8_t up;
      if (k < whole) {
        int32_t at = (k & -block) * bits + k % 4 * 8 + k % block / 4 * bits;
        bit = vpselq_u16(vaddq_n_u16(first, (uint16_t)at), bit, in_blocks);
      }
      up = vreinterpretq_s16_u16(vandq_u16(bit, vdupq_n_u16(7)));
      place = vshrq_n_u16(bit, 3);
      code = vldrbq_gather_offset_u16(from, place);
      if (bits == 3) {
        place = vminq_u16(vaddq_n_u16(place, 1), end);
        code = vorrq_u16(code, vshlq_n_u16(vldrbq_gather_offset_u16(from, place), 8));
      }
      code = vshlq_u16(code, vsubq_s16(vdupq_n_s16((int16_t)(16 - bits)), up));
      up = vshlq_r_s16(vreinterpretq_s16_u16(code), bits - 16);
      vstrbq_s16(w + k * TFB_SIXTEEN + i, up);
    }
  }
}

/* Sums and stores n positions. */
typedef void (*tfb_sums_at)(const tfb_run *run, int32_t n);

/* Sixteen channels at all positions of an image, those before `first` left out. Inside, a position's
 * taps are those of the one before it moved on; at the border each finds its own. */
static inline TFB_INLINED void tfb_all_sixteen(const tfb_conv *op, const tfb_sixteen *filters,
                                               tfb_taps *taps, int32_t first, const int8_t *in,
                                               int8_t *out, const tfb_sums_at sums_at) {
  int32_t oy, ox, some;
  tfb_run run;
  run.at = taps->at;
  run.step = op->stride_w * op->in_c;
  run.taps = op->k_h * op->k_w;
  run.w = filters->w;
  run.scales = filters->scales;
  run.out = out;
  run.next = op->out_c;
  run.prescale = op->prescale;
  run.zero = op->out_zero;
  run.low = op->low;
  run.high = op->high;
  run.first = first;
  for (oy = 0; oy < op->out_h; oy++) {
    int32_t y = oy * op->stride_h - op->pad_h;
    tfb_range rows = tfb_inside(y, op->k_h, op->dilation_h, op->in_h), whole = tfb_whole(op, rows);
    for (ox = 0; ox < op->out_w; ox += some, run.out += some * op->out_c) {
      some = ox < whole.first ? 1 : tfb_max(1, whole.last - ox);
      tfb_find_taps(op, in, y, ox * op->stride_w - op->pad_w, taps);
      sums_at(&run, some);
    }
  }
}

typedef void (*tfb_sixteen_run)(const tfb_conv *op, const tfb_sixteen *filters, tfb_taps *taps,
                                int32_t first, const int8_t *in, int8_t *out);
#define TFB_RUN_OF(name, sums_at)                                                             \
  static TFB_APART void name(const tfb_conv *op, const tfb_sixteen *filters, tfb_taps *taps,  \
                             int32_t first, const int8_t *in, int8_t *out) {                  \
    tfb_all_sixteen(op, filters, taps, first, in, out, sums_at);                              \
  }
TFB_RUN_OF(tfb_small_sixteen, tfb_small_sums_at)
TFB_RUN_OF(tfb_pairs_of_sixteen, tfb_pairs_at)
TFB_RUN_OF(tfb_any_sixteen, tfb_any_sums_at)

/* Takes the filters of channels from c on; those before `first` are not needed, and cannot be had where
 * filters are not found by their number. Returns what runs them. */
static TFB_APART tfb_sixteen_run tfb_take_sixteen(const tfb_conv *op, tfb_rows *rows, int32_t c,
                                                  int32_t first, int8_t *scratch,
                                                  tfb_sixteen *to) {
  int32_t taps = op->k_h * op->k_w, zero = tfb_zero(op), most = -31, i, k, all = 1;
  static const uint32_t fourths[4] = {0, 128, 64, 192};
  uint32x4_t places = vldrwq_u32(fourths);
  int8_t least = 0;
  if (rows->row_of == tfb_plain_row && (op->bits != 3 || taps < 32)) {
    tfb_unpack_sixteen(op, c, taps, to->w);
  } else {
    all = first == 0;
    for (i = first; i < TFB_SIXTEEN; i++) {
      const int8_t *row = rows->row_of(rows->source, c + i, &rows->stream, scratch, taps);
      for (k = 0; k < taps; k++) to->w[k * TFB_SIXTEEN + i] = (int8_t)(row[k] >> (8 - op->bits));
    }
  }
  for (i = 0; i < TFB_SIXTEEN; i += 4) {
    tfb_four four = tfb_four_scales(op, c + i, vctp32q(4));
    int32x4_t sum = vdupq_n_s32(0);
    for (k = 0; zero != 0 && k < taps; k++) {
      sum = vaddq_s32(sum, vldrbq_s32(to->w + k * TFB_SIXTEEN + i));
    }
    four.bias = vsubq_s32(four.bias, vmulq_n_s32(sum, zero * op->prescale));
    most = vmaxvq_s32(most, four.exponent);
    vstrwq_scatter_offset_s32(to->scales[0].bias + i / 4, places, four.bias);
    vstrwq_scatter_offset_s32(to->scales[0].multiplier + i / 4, places, four.multiplier);
    vstrwq_scatter_offset_s32(to->scales[0].exponent + i / 4, places, four.exponent);
    vstrwq_scatter_offset_s32(to->scales[0].left + i / 4, places, four.left);
  }
  for (k = 0; k < taps; k++) least = vminvq_s8(least, vldrbq_s8(to->w + k * TFB_SIXTEEN));
  if (!all || most == 0) return tfb_any_sixteen;
  if (taps << (op->bits + 6) <= INT16_MAX) { /* products: 2^7 * 2^(bits - 1) at most */
    return tfb_small_sixteen;
  }
  return op->prescale == 1 && least > -128 ? tfb_pairs_of_sixteen : tfb_any_sixteen;
}

/* Whether a depthwise convolution can be computed sixteen channels at a time. */
static inline int32_t tfb_in_sixteens(const tfb_conv *op) {
  return op->in_c == op->out_c && op->in_c >= TFB_SIXTEEN && op->k_h * op->k_w <= TFB_MOST_TAPS;
}

/* A depthwise convolution sixteen channels at a time; the last ones overlap those before, whose
 * outputs stay. `scratch` holds a filter's codes as bytes. */
static TFB_APART void tfb_depthwise_in_sixteens(const tfb_conv *op, tfb_rows *rows, const int8_t *in,
                                                int8_t *out, int8_t *scratch) {
  int32_t first, c, b;
  tfb_sixteen_run run;
  tfb_sixteen filters;
  tfb_taps taps;
  tfb_lay_taps(op, &taps);
  for (c = 0; c < op->out_c; c += TFB_SIXTEEN) {
    first = tfb_max(0, c + TFB_SIXTEEN - op->out_c);
    run = tfb_take_sixteen(op, rows, c - first, first, scratch, &filters);
    for (b = 0; b < op->batch; b++) {
      const int8_t *image = in + b * op->in_h * op->in_w * op->in_c + c - first;
      int8_t *made = out + b * op->out_h * op->out_w * op->out_c + c - first;
      run(op, &filters, &taps, first, image, made);
    }
  }
}
#endif

/* A row of outputs: of two filters, or of one that is given twice (`count`). */
typedef void (*tfb_line)(const tfb_conv *op, const int8_t *image, const tfb_filter *filters,
                         int32_t count, int32_t oy, int8_t *out);

/* Runs up to two filters over all rows. */
static inline void tfb_all_rows(const tfb_conv *op, tfb_line line, const tfb_filter *filters,
                                   int32_t count, const int8_t *in, int8_t *out) {
  int32_t b, y, image = op->in_h * op->in_w * op->in_c, row = op->out_w * op->out_c;
  for (b = 0; b < op->batch; b++, in += image) {
    for (y = 0; y < op->out_h; y++, out += row) line(op, in, filters, count, y, out);
  }
}

/* Unpacks two filters at a time, and runs them over all rows. */
static inline void tfb_filters(const tfb_conv *op, tfb_line line, tfb_rows *rows, const int8_t *in,
                               int8_t *out, int8_t *scratch) {
  int32_t taps = op->k_h * op->k_w * op->in_c, c, i;
  for (c = rows->first; c < rows->last; c += 2) {
    int32_t count = tfb_min(2, rows->last - c);
    tfb_filter filters[2];
    for (i = 0; i < count; i++) {
      int8_t *to = scratch + i * ((taps + 3) & ~3);
      const int8_t *codes = rows->row_of(rows->source, c + i, &rows->stream, to, taps);
      filters[i] = tfb_filter_with(op, c + i, codes, taps);
    }
    if (count == 1) filters[1] = filters[0];
    tfb_all_rows(op, line, filters, count, in, out + c);
  }
}

/* CONV_2D; FULLY_CONNECTED as a 1x1 convolution over a row of samples. It is computed in blocks
 * of so many pairs of filters; `widen` is the function for the codes' width on cores with DSP
 * instructions, none for 8 bits. */
#if TFB_MVE
static TFB_APART void tfb_conv_2d_in_blocks(const tfb_conv *op, const int8_t *in, int8_t *out,
                                            int8_t *scratch, int32_t pairs) {
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  tfb_blocks(op, &rows, in, out, scratch, pairs);
}
#define tfb_conv_2d(op, in, out, scratch, pairs, widen) \
  tfb_conv_2d_in_blocks(op, in, out, scratch, pairs)
#else
static TFB_APART void tfb_conv_2d(const tfb_conv *op, const int8_t *in, int8_t *out,
                                  int8_t *scratch, int32_t pairs, tfb_widen_codes widen) {
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  rows.widen = widen;
  tfb_blocks(op, &rows, in, out, scratch, pairs);
}
#endif

/* Sums of a depthwise filter that are kept. */
#define TFB_PLANE_CHUNK 32

#if !TFB_DSP
/* Copies a channel of an image into the rows of a plane, inside its border. */
static TFB_APART void tfb_plane(const tfb_conv *op, const int8_t *channel, int32_t height,
                                int32_t width, int8_t *plane) {
  int32_t rows = tfb_min(op->in_h, height - op->pad_h), next = op->in_c;
  int32_t columns = tfb_min(op->in_w, width - op->pad_w);
  plane += op->pad_h * width + op->pad_w;
  for (; rows > 0; rows--, channel += op->in_w * next, plane += width) {
    const int8_t *pixel = channel;
    int8_t *to = plane, *end = plane + columns, *last = end - 1;
    for (; to < last; to += 2, pixel += next) {
      to[0] = *pixel;
      pixel += next;
      to[1] = *pixel;
    }
    if (to != end) *to = *pixel;
  }
}

#if TFB_MVE
/* The sums of n positions in each of some rows of outputs. Four are made at a time: what is too
 * much lies behind the last, or is overwritten by the next row. */
static TFB_APART void tfb_plane_sums(const tfb_conv *op, const int8_t *plane, int32_t width,
                                     const int8_t *row, int32_t n, int32_t rows, int32_t *sums) {
  int32_t tap = op->dilation_w, line = op->dilation_h * width, next = op->stride_w, i, ky, kx;
  uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)next);
  for (; rows > 0; rows--, plane += op->stride_h * width, sums += n) {
    const int8_t *pixel = plane;
    for (i = 0; i < n; i += 4, pixel += 4 * next) {
      int32x4_t four = vdupq_n_s32(0);
      const int8_t *first = pixel, *w = row;
      for (ky = op->k_h; ky > 0; ky--, first += line) {
        const int8_t *p = first;
        for (kx = op->k_w; kx > 0; kx--, p += tap) {
          four = vmlaq_n_s32(four, vldrbq_gather_offset_s32(p, places), *w++);
        }
      }
      vstrwq_s32(sums + i, four);
    }
  }
}

/* All outputs of a filter of one tap at stride 1, straight from a channel of the images. */
static TFB_APART void tfb_one_tap(const tfb_conv *op, const tfb_filter *filter,
                                  const int8_t *channel, int8_t *out) {
  int32_t left = op->out_h * op->out_w, weight = filter->row[0], n, i;
  uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), op->in_c);
  int32_t sums[TFB_PLANE_CHUNK];
  for (; left > 0; left -= n, out += n * op->out_c) {
    n = tfb_min(left, TFB_PLANE_CHUNK);
    for (i = 0; i < n; i += 4, channel += 4 * op->in_c) {
      mve_pred16_t wanted = vctp32q((uint32_t)(n - i));
      int32x4_t four = vldrbq_gather_offset_z_s32(channel, places, wanted);
      vstrwq_s32(sums + i, vmulq_n_s32(four, weight));
    }
    tfb_store(op, filter, sums, n, out);
  }
}
#endif

/* All outputs of one filter, from a channel with its border. */
static inline void tfb_depthwise_plane(const tfb_conv *op, const int8_t *plane, int32_t width,
                                       const tfb_filter *filter, int8_t *out) {
  int32_t n = tfb_min(op->out_w, TFB_PLANE_CHUNK), oy, ox, sums[TFB_PLANE_CHUNK + 3];
#if TFB_JOINS
  tfb_steps steps = tfb_steps_of(op, width);
#endif
  int32_t rows = n == op->out_w ? TFB_PLANE_CHUNK / n : 1;
  for (oy = 0; oy < op->out_h; oy += rows) {
    const int8_t *row = plane + oy * op->stride_h * width;
    rows = tfb_min(rows, op->out_h - oy);
    for (ox = 0; ox < op->out_w; ox += TFB_PLANE_CHUNK) {
      n = tfb_min(op->out_w - ox, TFB_PLANE_CHUNK);
#if TFB_JOINS
      tfb_byte_sums(op, row + ox * op->stride_w, &steps, filter->row, n, rows, (uint32_t *)sums);
#else
      tfb_plane_sums(op, row + ox * op->stride_w, width, filter->row, n, rows, sums);
#endif
      tfb_store(op, filter, sums, n * rows, out);
      out += n * rows * op->out_c;
    }
  }
}

#endif

/* DEPTHWISE_CONV_2D; output channel c reads input channel c / (out_c / in_c). Behind one filter,
 * `scratch` holds one channel with its border: every position sees a whole filter, in a run. */
static inline void tfb_depthwise_rows(const tfb_conv *op, tfb_rows *rows, const int8_t *in,
                                      int8_t *out, int8_t *scratch) {
#if TFB_DSP
  tfb_wide_depthwise(op, rows->row_of, rows->source, in, out, scratch);
#else
  int32_t multiple = op->out_c / op->in_c, taps = op->k_h * op->k_w, b, c;
  int32_t height = (op->out_h - 1) * op->stride_h + (op->k_h - 1) * op->dilation_h + 1;
  int32_t width = (op->out_w - 1) * op->stride_w + (op->k_w - 1) * op->dilation_w + 1;
  int32_t one = taps * op->stride_h * op->stride_w == 1;
  int8_t *plane = scratch + ((taps + 3) & ~3);
#if TFB_MVE
  if (tfb_in_sixteens(op)) {
    tfb_depthwise_in_sixteens(op, rows, in, out, scratch);
    return;
  }
#endif
#if TFB_JOINS
  int32_t is_small = op->out_h * op->out_w < 16; /* two planes in one are more work than they save */
  if (!one && !is_small && op->bits <= 4 && taps <= tfb_most_taps(op->bits)) {
    tfb_joined_depthwise(op, rows, in, out, scratch);
    return;
  }
#endif
  memset(plane, op->in_zero, (size_t)(height * width));
  for (b = 0; b < op->batch; b++, in += op->in_h * op->in_w * op->in_c) {
    tfb_stream stream = rows->stream;
    for (c = 0; c < op->out_c; c++) {
      const int8_t *codes = rows->row_of(rows->source, c, &stream, scratch, taps);
      tfb_filter filter = tfb_filter_with(op, c, codes, taps);
      if (one) {
        tfb_one_tap(op, &filter, in + c / multiple,
                    out + b * op->out_h * op->out_w * op->out_c + c);
        continue;
      }
      if (c % multiple == 0) tfb_plane(op, in + c / multiple, height, width, plane);
      tfb_depthwise_plane(op, plane, width, &filter,
                          out + b * op->out_h * op->out_w * op->out_c + c);
    }
  }
#endif
}

static inline void tfb_depthwise(const tfb_conv *op, const int8_t *in, int8_t *out,
                                 int8_t *scratch) {
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  tfb_depthwise_rows(op, &rows, in, out, scratch);
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
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  tfb_filters(op, tfb_transpose_line, &rows, in, out, scratch);
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
  int32_t first = tfb_scale_down((a - op->zero_a) * (1 << 20), op->multiplier_a, op->shift_a);
  int32_t second = tfb_scale_down((b - op->zero_b) * (1 << 20), op->multiplier_b, op->shift_b);
  return tfb_scale_down(first + second, op->multiplier, op->shift) + op->zero;
}
static inline int32_t tfb_sub(const tfb_pair *op, int32_t a, int32_t b) {
  int32_t first = tfb_scale_down((a - op->zero_a) * (1 << 20), op->multiplier_a, op->shift_a);
  int32_t second = tfb_scale_down((b - op->zero_b) * (1 << 20), op->multiplier_b, op->shift_b);
  return tfb_scale_down(first - second, op->multiplier, op->shift) + op->zero;
}
static inline int32_t tfb_mul(const tfb_pair *op, int32_t a, int32_t b) {
  int32_t product = (a - op->zero_a) * (b - op->zero_b);
  return tfb_scale(product, op->multiplier, op->shift) + op->zero;
}
/* The same for a shift of at most 0. */
static inline int32_t tfb_mul_down(const tfb_pair *op, int32_t a, int32_t b) {
  int32_t product = (a - op->zero_a) * (b - op->zero_b);
  return tfb_scale_down(product, op->multiplier, op->shift) + op->zero;
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

#if TFB_MVE
/* n values of an operand with a step, from the first on. */
static inline int32x4_t tfb_four_of(const int8_t *first, int32_t step, uint32x4_t places,
                                    mve_pred16_t wanted) {
  return step == 1 ? vldrbq_z_s32(first, wanted)
                   : vldrbq_gather_offset_z_s32(first, places, wanted);
}

/* tfb_mul along the last axis. */
static TFB_APART void tfb_multiply(const tfb_pair *op, const int8_t *a, const int8_t *b,
                                   int8_t *out) {
  int32_t n = op->size[3], step_a = op->step_a[3], step_b = op->step_b[3];
  int32_t left = tfb_max(op->shift, 0), right = tfb_min(op->shift, 0);
  uint32x4_t places = vidupq_n_u32(0, 1), places_a = vmulq_n_u32(places, (uint32_t)step_a);
  uint32x4_t places_b = vmulq_n_u32(places, (uint32_t)step_b);
  int32x4_t sign = vdupq_n_s32(-(right < 0));
  for (; n > 0; n -= 4, a += 4 * step_a, b += 4 * step_b, out += 4) {
    mve_pred16_t wanted = vctp32q((uint32_t)n);
    int32x4_t x = vsubq_n_s32(tfb_four_of(a, step_a, places_a, wanted), op->zero_a);
    x = vmulq_s32(x, vsubq_n_s32(tfb_four_of(b, step_b, places_b, wanted), op->zero_b));
    x = vqrdmulhq_n_s32(vshlq_r_s32(x, left), op->multiplier);
    x = vaddq_s32(x, vandq_s32(vshrq_n_s32(x, 31), sign));
    x = vaddq_n_s32(vrshlq_n_s32(x, right), op->zero);
    x = vmaxq_s32(vminq_s32(x, vdupq_n_s32(op->high)), vdupq_n_s32(op->low));
    vstrbq_p_s32(out, x, wanted);
  }
}
#endif

/* A copy of the parameters: the compiler cannot know that `out` is not among them. */
static inline void tfb_combine(const tfb_pair *parameters, tfb_pair_function function,
                               const int8_t *a, const int8_t *b, int8_t *out) {
  const tfb_pair copy = *parameters, *op = &copy;
  int32_t i, j, k, l;
  const int32_t *step_a = op->step_a, *step_b = op->step_b;
  for (i = 0; i < op->size[0]; i++) {
    for (j = 0; j < op->size[1]; j++) {
      for (k = 0; k < op->size[2]; k++) {
        const int8_t *p = a + i * step_a[0] + j * step_a[1] + k * step_a[2];
        const int8_t *q = b + i * step_b[0] + j * step_b[1] + k * step_b[2];
#if TFB_MVE
        if (function == tfb_mul || function == tfb_mul_down) {
          tfb_multiply(op, p, q, out);
          out += op->size[3];
          continue;
        }
#endif
        for (l = 0; l < op->size[3]; l++, p += step_a[3], q += step_b[3]) {
          *out++ = (int8_t)tfb_clamp(function(op, *p, *q), op->low, op->high);
        }
      }
    }
  }
}

/* MUL for a shift below 0 and above -TFB_MOST_SHIFT, of operands that go on by one in the last
 * axis. As in tfb_scale_down the sign before the product decides how it is rounded, and the
 * offset of that rounding has the zero point in it. */
#if !TFB_MVE
static TFB_APART void tfb_mul_rows(const tfb_pair *op, const int8_t *a, const int8_t *b,
                                   int8_t *out) {
  int32_t zero_a = op->zero_a, zero_b = op->zero_b, multiplier = op->multiplier;
  int32_t exponent = -op->shift, offset = (op->zero * 2 + 1) * (1 << (exponent - 1));
  int32_t low = op->low, high = op->high, clipped = low > -128 || high < 127, i, j, k;
  for (i = 0; i < op->size[0]; i++) {
    for (j = 0; j < op->size[1]; j++) {
      for (k = 0; k < op->size[2]; k++) {
        const int8_t *p = a + i * op->step_a[0] + j * op->step_a[1] + k * op->step_a[2];
        const int8_t *q = b + i * op->step_b[0] + j * op->step_b[1] + k * op->step_b[2];
        const int8_t *end = p + op->size[3];
        while (p != end) {
          int32_t twice = (*p++ - zero_a) * (*q++ - zero_b) * 2;
          twice = tfb_product_plus(twice, multiplier, offset + (twice >> 31)) >> exponent;
          if (clipped) twice = tfb_clamp(twice, low, high);
          *out++ = tfb_saturated(twice);
        }
      }
    }
  }
}
#else
#define tfb_mul_rows(op, a, b, out) tfb_combine(op, tfb_mul_down, a, b, out)
#endif

/* ADD of n values each, the first with the larger scale: its factor is one half, without rounding.
 * As in tfb_scale_down the sign before a product decides how it is rounded, and the offset of the
 * last rounding has the zero point in it. */
#if TFB_MVE
static TFB_APART void tfb_add_equal(const tfb_pair *op, const int8_t *a, const int8_t *b,
                                    int8_t *out, int32_t n) {
  int32_t zero_a = op->zero_a * -(1 << 19), zero_b = op->zero_b * -(1 << 20);
  if (n <= 0) return;
  __asm__ volatile(
      "dlstp.32 lr, %[n]\n"
      "1: vldrb.s32 q0, [%[a]], #4\n"
      "vshl.i32 q0, q0, #19\n"
      "vadd.i32 q0, q0, %q[zero_a]\n"
      "vldrb.s32 q1, [%[b]], #4\n"
      "vshl.i32 q1, q1, #20\n"
      "vadd.i32 q1, q1, %[zero_b]\n"
      "vqrdmulh.s32 q1, q1, %[multiplier_b]\n"
      "vshr.s32 q2, q1, #31\n"
      "vand q2, q2, %q[sign_b]\n"
      "vadd.i32 q1, q1, q2\n"
      "vrshl.s32 q1, %[shift_b]\n"
      "vadd.i32 q0, q0, q1\n"
      "vqrdmulh.s32 q0, q0, %[multiplier]\n"
      "vshr.s32 q2, q0, #31\n"
      "vadd.i32 q0, q0, q2\n"
      "vrshl.s32 q0, %[shift]\n"
      "vadd.i32 q0, q0, %q[zero]\n"
      "vmax.s32 q0, q0, %q[low]\n"
      "vmin.s32 q0, q0, %q[high]\n"
      "vstrb.32 q0, [%[out]], #4\n"
      "letp lr, 1b\n"
      : [a] "+l"(a), [b] "+l"(b), [out] "+l"(out)
      : [n] "r"(n), [zero_a] "w"(vdupq_n_s32(zero_a)),
        [zero_b] "r"(zero_b), [multiplier_b] "r"(op->multiplier_b), [shift_b] "r"((int32_t)op->shift_b),
        [sign_b] "w"(vdupq_n_s32(-(op->shift_b < 0))), [multiplier] "r"(op->multiplier),
        [shift] "r"((int32_t)op->shift), [zero] "w"(vdupq_n_s32(op->zero)),
        [low] "w"(vdupq_n_s32(op->low)), [high] "w"(vdupq_n_s32(op->high))
      : "lr", "q0", "q1", "q2", "memory");
}
#else
static TFB_APART void tfb_add_equal(const tfb_pair *op, const int8_t *a, const int8_t *b,
                                    int8_t *out, int32_t n) {
  int32_t multiplier_b = op->multiplier_b, exponent_b = -op->shift_b, sign_b = -(exponent_b > 0);
  int32_t half_b = (int32_t)(((uint32_t)1 << exponent_b) >> 1), zero_b = op->zero_b * (1 << 21);
  int32_t multiplier = op->multiplier, exponent = -op->shift, zero_a = op->zero_a * (1 << 20);
  int32_t offset = (op->zero * 2 + 1) * (1 << (exponent - 1)), low = op->low, high = op->high;
  int32_t clipped = low > -128 || high < 127;
  const int8_t *end = a + n;
  while (a != end) {
    int32_t second = *b++ * (1 << 21) - zero_b, twice = *a++ * (1 << 20) - zero_a;
    second = tfb_product_plus(second, multiplier_b, half_b + ((second >> 31) & sign_b));
    twice += (second >> exponent_b) * 2;
    twice = tfb_product_plus(twice, multiplier, offset + (twice >> 31)) >> exponent;
    if (clipped) twice = tfb_clamp(twice, low, high);
    *out++ = tfb_saturated(twice);
  }
}
#endif

/* A function of one int8 as the table of its 256 values; `out` may be `in`. */
static inline void tfb_lookup(const int8_t *table, const int8_t *in, int8_t *out, int32_t n) {
#if TFB_MVE
  for (; n > 0; n -= 16, in += 16, out += 16) {
    mve_pred16_t left = vctp8q((uint32_t)n);
    uint8x16_t places = veorq_u8(vreinterpretq_u8_s8(vldrbq_z_s8(in, left)), vdupq_n_u8(128));
    vstrbq_p_s8(out, vldrbq_gather_offset_z_s8(table, places, left), left);
  }
#else
  for (; n > 0; n--) *out++ = table[*in++ + 128];
#endif
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

#if TFB_MVE
/* Four numbers side by side at a time. */
static TFB_APART void tfb_mean(const tfb_reduce *op, const int8_t *in, int8_t *out) {
  int32_t i, j, k, inner = op->inner, left_shift = tfb_max(op->shift, 0);
  int32_t right = tfb_min(op->shift, 0);
  int32x4_t sign = vdupq_n_s32(-(right < 0));
  for (i = 0; i < op->outer; i++, in += op->count * inner) {
    for (j = 0; j < inner; j += 4, out += 4) {
      mve_pred16_t left = vctp32q((uint32_t)(inner - j));
      int32x4_t sum = vdupq_n_s32(-op->in_zero * op->count);
      const int8_t *next = in + j;
      for (k = op->count; k > 0; k--, next += inner) sum = vaddq_s32(sum, vldrbq_z_s32(next, left));
      sum = vqrdmulhq_n_s32(vshlq_r_s32(sum, left_shift), op->multiplier);
      sum = vaddq_s32(sum, vandq_s32(vshrq_n_s32(sum, 31), sign));
      sum = vaddq_n_s32(vrshlq_n_s32(sum, right), op->out_zero);
      sum = vminq_s32(vmaxq_s32(sum, vdupq_n_s32(-128)), vdupq_n_s32(127));
      vstrbq_p_s32(out, sum, left);
    }
    out += inner - (inner + 3) / 4 * 4;
  }
}
#else
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
#endif

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
      /* Shares below 1 / 512 are nothing; C has no shift by 32. */
      value = 35 - zeros > 31 ? 0 : tfb_rounded_shift(value, 35 - zeros);
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

/* ---- RESIZE_BILINEAR ---- */

/* The row and the column at or before each output's place, and its share of the one behind, in
 * units of 1/1024. */
typedef struct {
  const uint16_t *rows, *columns, *row_shares, *column_shares;
  uint16_t batch, in_h, in_w, channels, out_h, out_w;
} tfb_bilinear;

static inline void tfb_resize_bilinear(const tfb_bilinear *op, const int8_t *in, int8_t *out) {
  int32_t b, y, x, c;
  for (b = 0; b < op->batch; b++, in += op->in_h * op->in_w * op->channels) {
    for (y = 0; y < op->out_h; y++) {
      int32_t low = op->row_shares[y], high = 1024 - low;
      const int8_t *row = in + op->rows[y] * op->in_w * op->channels;
      const int8_t *next = low ? row + op->in_w * op->channels : row;
      for (x = 0; x < op->out_w; x++) {
        int32_t right = op->column_shares[x], left = 1024 - right;
        int32_t first = op->columns[x] * op->channels, ahead = right ? op->channels : 0;
        for (c = first; c < first + op->channels; c++) {
          int32_t sum = (row[c] * left + row[c + ahead] * right) * high;
          sum += (next[c] * left + next[c + ahead] * right) * low;
          *out++ = (int8_t)((sum + (sum > 0 ? 1 << 19 : -(1 << 19))) / (1 << 20));
        }
      }
    }
  }
}

#endif
