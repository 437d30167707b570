/* ---- Convolutions in groups ---- */

#define TFB_GROUPS 1

/* Some channels of n pixels, which lie `next` apart, one pixel behind the other. */
static TFB_APART void tfb_take(const int8_t *from, int32_t next, int32_t channels, int32_t n,
                               int8_t *to) {
  for (; n > 0; n--, from += next) {
    const int8_t *pixel = from;
    int32_t left = channels;
    for (; left >= 4; left -= 4, pixel += 4, to += 4) tfb_put(to, tfb_word(pixel));
    for (; left > 0; left--) *to++ = *pixel++;
  }
}

/* CONV_2D in groups: of as many output channels each, which see as many input channels and no
 * others. Where a convolution has its scratch memory, a group's input channels come first. */
static inline void tfb_by_groups(const tfb_conv *op, tfb_rows *rows, int32_t groups,
                                 const int8_t *in, int8_t *out, int8_t *scratch, int32_t pairs) {
  int32_t pixels = op->batch * op->in_h * op->in_w, filters = op->out_c / groups, g;
  int32_t channels = op->in_c / groups;
  int8_t *others = scratch + ((pixels * channels + 3) & ~3);
  tfb_conv one = *op;
  one.in_c = (uint16_t)channels;
  for (g = 0; g < groups; g++, in += channels) {
    rows->first = g * filters;
    rows->last = rows->first + filters;
    tfb_take(in, op->in_c, channels, pixels, scratch);
    tfb_blocks(&one, rows, scratch, out, others, pairs);
  }
}

#if TFB_MVE
static TFB_APART void tfb_plain_groups(const tfb_conv *op, const int8_t *in, int8_t *out,
                                       int8_t *scratch, int32_t pairs, int32_t groups) {
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  tfb_by_groups(op, &rows, groups, in, out, scratch, pairs);
}
#define tfb_grouped_conv_2d(op, in, out, scratch, pairs, widen, groups) \
  tfb_plain_groups(op, in, out, scratch, pairs, groups)
#else
static TFB_APART void tfb_grouped_conv_2d(const tfb_conv *op, const int8_t *in, int8_t *out,
                                          int8_t *scratch, int32_t pairs, tfb_widen_codes widen,
                                          int32_t groups) {
  tfb_rows rows = tfb_rows_of(op, tfb_plain_row, op);
  rows.widen = widen;
  tfb_by_groups(op, &rows, groups, in, out, scratch, pairs);
}
#endif
