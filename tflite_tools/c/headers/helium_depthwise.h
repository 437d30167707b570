/* ---- Depthwise convolutions with Helium ---- */

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
