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
