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
