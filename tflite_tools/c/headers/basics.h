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
