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
