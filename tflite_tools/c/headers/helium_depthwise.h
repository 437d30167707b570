/* ---- Depthwise convolutions with Helium ---- */

#if TFB_MVE

/* Channels at a time, taps of a filter that are kept for each, and positions whose sums are. */
#define TFB_SIXTEEN 16
#define TFB_MOST_TAPS 32
#define TFB_AT_ONCE 8

/* What turns the sums of sixteen channels into stored values. Widening puts channel 4 j + k into lane
 * j of its k-th vector: so they stand at 4 k + j. */
typedef struct {
  int32_t factor[TFB_SIXTEEN], base[TFB_SIXTEEN];
  int32_t multiplier[TFB_SIXTEEN], exponent[TFB_SIXTEEN];
} tfb_sixteen;

/* The taps of channels from c on, side by side in `w`, and what scales their sums; those before
 * `first` are left out. */
static TFB_APART void tfb_take_sixteen(const tfb_conv *op, tfb_rows *rows, int32_t c, int32_t first,
                                       int8_t *scratch, int8_t *w, tfb_sixteen *scales) {
  int32_t taps = op->k_h * op->k_w, drop = 8 - op->bits, i, k;
  memset(w, 0, (size_t)(taps * TFB_SIXTEEN));
  memset(scales, 0, sizeof *scales);
  for (i = first; i < TFB_SIXTEEN; i++) {
    const int8_t *row = rows->row_of(rows->source, c + i, &rows->stream, scratch, taps);
    tfb_filter filter = tfb_filter_with(op, c + i, row, taps);
    int32_t lane = 4 * (i % 4) + i / 4;
    for (k = 0; k < taps; k++) w[k * TFB_SIXTEEN + i] = (int8_t)(row[k] >> drop);
    scales->factor[lane] = filter.factor / 2;
    scales->base[lane] = filter.base / 2;
    scales->multiplier[lane] = filter.multiplier;
    scales->exponent[lane] = -filter.exponent;
  }
}

/* Sums of sixteen channels at n positions, `step` apart; the taps of the first are at `at`. */
static TFB_APART void tfb_sixteen_sums(const int8_t *const *at, int32_t step, const int8_t *w,
                                       int32_t taps, int32_t n, int32_t *sums) {
  int32_t offset, i;
  for (offset = 0; n > 0; n--, offset += step, sums += TFB_SIXTEEN) {
    int32x4_t s0 = vdupq_n_s32(0), s1 = s0, s2 = s0, s3 = s0;
    for (i = 0; i < taps; i++) {
      int8x16_t x = vldrbq_s8(at[i] + offset), weights = vldrbq_s8(w + i * TFB_SIXTEEN);
      int16x8_t even = vmullbq_int_s8(x, weights), odd = vmulltq_int_s8(x, weights);
      s0 = vaddq_s32(s0, vmovlbq_s16(even));
      s1 = vaddq_s32(s1, vmovlbq_s16(odd));
      s2 = vaddq_s32(s2, vmovltq_s16(even));
      s3 = vaddq_s32(s3, vmovltq_s16(odd));
    }
    vstrwq_s32(sums, s0);
    vstrwq_s32(sums + 4, s1);
    vstrwq_s32(sums + 8, s2);
    vstrwq_s32(sums + 12, s3);
  }
}

/* The same where 16 bits hold them. */
static TFB_APART void tfb_sixteen_small_sums(const int8_t *const *at, int32_t step, const int8_t *w,
                                             int32_t taps, int32_t n, int32_t *sums) {
  int32_t offset, i;
  for (offset = 0; n > 0; n--, offset += step, sums += TFB_SIXTEEN) {
    int16x8_t even = vdupq_n_s16(0), odd = even;
    for (i = 0; i < taps; i++) {
      int8x16_t x = vldrbq_s8(at[i] + offset), weights = vldrbq_s8(w + i * TFB_SIXTEEN);
      even = vaddq_s16(even, vmullbq_int_s8(x, weights));
      odd = vaddq_s16(odd, vmulltq_int_s8(x, weights));
    }
    vstrwq_s32(sums, vmovlbq_s16(even));
    vstrwq_s32(sums + 4, vmovlbq_s16(odd));
    vstrwq_s32(sums + 8, vmovltq_s16(even));
    vstrwq_s32(sums + 12, vmovltq_s16(odd));
  }
}

/* Scales the sums of four of the sixteen channels at n positions, where they stand. */
static TFB_APART void tfb_scale_four(const tfb_conv *op, const int32_t *scales, int32_t n,
                                     int32_t *sums) {
  int32_t zero = op->out_zero;
  tfb_four four;
  int32x4_t factor = vldrwq_s32(scales), base = vldrwq_s32(scales + TFB_SIXTEEN);
  four.left = vdupq_n_s32(0);
  four.multiplier = vldrwq_s32(scales + 2 * TFB_SIXTEEN);
  four.exponent = vldrwq_s32(scales + 3 * TFB_SIXTEEN);
  for (; n > 0; n--, sums += TFB_SIXTEEN) {
    vstrwq_s32(sums, tfb_four_scaled(four, vaddq_s32(vmulq_s32(vldrwq_s32(sums), factor), base), zero));
  }
}

/* Stores n positions of sixteen channels but those before `first`. */
static TFB_APART void tfb_store_sixteen(const tfb_conv *op, const int32_t *scaled, int32_t n,
                                        int32_t first, int8_t *out) {
  int8x16_t low = vdupq_n_s8(op->low), high = vdupq_n_s8(op->high), made = low;
  mve_pred16_t wanted = (mve_pred16_t)(0xffffu << first);
  int32_t next = op->out_c;
  for (; n > 0; n--, scaled += TFB_SIXTEEN, out += next) {
    int16x8_t even = vreinterpretq_s16_s8(made), odd = even;
    even = vqmovnbq_s32(even, vldrwq_s32(scaled));
    even = vqmovntq_s32(even, vldrwq_s32(scaled + 8));
    odd = vqmovnbq_s32(odd, vldrwq_s32(scaled + 4));
    odd = vqmovntq_s32(odd, vldrwq_s32(scaled + 12));
    made = vqmovntq_s16(vqmovnbq_s16(made, even), odd);
    made = vmaxq_s8(vminq_s8(made, high), low);
    vstrbq_p_s8(out, made, wanted);
  }
}

/* Where the taps of a filter lie; those outside the image at `zeros`. */
static TFB_APART void tfb_find_taps(const tfb_conv *op, const int8_t *image, int32_t y, int32_t x,
                                    const int8_t *zeros, const int8_t **at) {
  int32_t across = op->dilation_w * op->in_c, right = x + op->k_w * op->dilation_w, ky, k;
  for (ky = op->k_h; ky > 0; ky--, y += op->dilation_h) {
    const int8_t *tap = image + (y * op->in_w + x) * op->in_c;
    int32_t is_row = y >= 0 && y < op->in_h;
    for (k = x; k < right; k += op->dilation_w, tap += across) {
      *at++ = is_row && k >= 0 && k < op->in_w ? tap : zeros;
    }
  }
}

/* Whether a depthwise convolution can be computed sixteen channels at a time. */
static inline int32_t tfb_in_sixteens(const tfb_conv *op) {
  return op->in_c == op->out_c && op->in_c >= TFB_SIXTEEN && op->k_h * op->k_w <= TFB_MOST_TAPS;
}

/* Sixteen channels at all positions of an image, those before `first` left out. Inside, a position's
 * taps are those of the one before it moved on; at the border each finds its own. */
static TFB_APART void tfb_sixteen_channels(const tfb_conv *op, const tfb_sixteen *scales,
                                           const int8_t *w, int32_t first, const int8_t *in,
                                           int8_t *out) {
  int32_t taps = op->k_h * op->k_w, step = op->stride_w * op->in_c, oy, ox, n, i, some;
  /* a product is at most 2^7 times 2^(bits - 1) */
  int32_t small = taps << (op->bits + 6) <= INT16_MAX;
  int32_t sums[TFB_AT_ONCE * TFB_SIXTEEN];
  int8_t zeros[TFB_SIXTEEN];
  const int8_t *at[TFB_MOST_TAPS];
  memset(zeros, op->in_zero, sizeof zeros);
  for (oy = 0; oy < op->out_h; oy++) {
    int32_t y = oy * op->stride_h - op->pad_h;
    tfb_range rows = tfb_inside(y, op->k_h, op->dilation_h, op->in_h), whole = tfb_whole(op, rows);
    for (ox = 0; ox < op->out_w; ox += n, out += n * op->out_c) {
      n = tfb_min(op->out_w - ox, TFB_AT_ONCE);
      for (i = 0; i < n; i += some) {
        int32_t x = (ox + i) * op->stride_w - op->pad_w, *to = sums + i * TFB_SIXTEEN;
        some = ox + i < whole.first ? 1 : tfb_max(1, tfb_min(whole.last - ox - i, n - i));
        tfb_find_taps(op, in, y, x, zeros, at);
        if (small) {
          tfb_sixteen_small_sums(at, step, w, taps, some, to);
        } else {
          tfb_sixteen_sums(at, step, w, taps, some, to);
        }
      }
      for (i = 0; i < TFB_SIXTEEN; i += 4) tfb_scale_four(op, scales->factor + i, n, sums + i);
      tfb_store_sixteen(op, sums, n, first, out);
    }
  }
}

/* A depthwise convolution sixteen channels at a time; the last ones overlap those before, whose
 * outputs stay. `scratch` holds a filter's codes as bytes. */
static TFB_APART void tfb_depthwise_in_sixteens(const tfb_conv *op, tfb_rows *rows, const int8_t *in,
                                                int8_t *out, int8_t *scratch) {
  int32_t first, c, b;
  int8_t w[TFB_MOST_TAPS * TFB_SIXTEEN];
  tfb_sixteen scales;
  for (c = 0; c < op->out_c; c += TFB_SIXTEEN) {
    first = tfb_max(0, c + TFB_SIXTEEN - op->out_c);
    tfb_take_sixteen(op, rows, c - first, first, scratch, w, &scales);
    for (b = 0; b < op->batch; b++) {
      const int8_t *image = in + b * op->in_h * op->in_w * op->in_c + c - first;
      int8_t *made = out + b * op->out_h * op->out_w * op->out_c + c - first;
      tfb_sixteen_channels(op, &scales, w, first, image, made);
    }
  }
}
#endif
