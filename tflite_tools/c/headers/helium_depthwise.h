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
