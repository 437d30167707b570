/* ---- Scales that are powers of two ---- */

#define TFB_SHIFTS 64 /* flag of tfb_conv.form: every multiplier is 2^30 */

/* Stores n outputs of a filter whose multiplier halves. Both roundings and the zero point are in one
 * shift: of x = sum * factor + base they make (x + 1) >> 1, and of that the nearest x / 2^exponent.
 * Halves of negative numbers, which `edge` finds, go down, unless these are clipped anyway. */
static TFB_APART void tfb_store_shifts(const tfb_conv *op, const tfb_filter *filter,
                                       const int32_t *sums, int32_t n, int8_t *out) {
  int32_t drop = 8 - op->bits, low = op->low, high = op->high, next = op->out_c;
  int32_t factor = filter->factor >> 1, exponent = filter->exponent + 1;
  int32_t half = ((int32_t)1 << filter->exponent) & ~1;
  int32_t edge = half + op->out_zero * ((int32_t)1 << exponent);
  int32_t base = (filter->base >> 1) + 1 + edge;
  if (low >= op->out_zero || half == 0) {
    for (; n > 0; n--, out += next) {
      *out = (int8_t)tfb_clamp(((*sums++ >> drop) * factor + base) >> exponent, low, high);
    }
    return;
  }
  for (; n > 0; n--, out += next) {
    int32_t value = (*sums++ >> drop) * factor + base;
    value = (value + (((value - edge) >> 31) & -2)) >> exponent;
    *out = (int8_t)tfb_clamp(value, low, high);
  }
}

#if TFB_SHIFT_STEPS == 2 /* all steps of the network have the flag */
#define tfb_store tfb_store_shifts
#else
static inline void tfb_store_either(const tfb_conv *op, const tfb_filter *filter,
                                    const int32_t *sums, int32_t n, int8_t *out) {
  if (op->form & TFB_SHIFTS) {
    tfb_store_shifts(op, filter, sums, n, out);
  } else {
    tfb_store(op, filter, sums, n, out);
  }
}
#define tfb_store tfb_store_either
#endif
