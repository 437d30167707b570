/* ---- Blocks of filters with Helium ---- */

#if TFB_MVE

/* Sums of two positions with four filters. */
typedef struct {
  int32_t first[4], second[4];
} tfb_sums;

/* What turns the sums of n filters into stored values: as in tfb_filter, each in a row of n; factors
 * and bases are not doubled, exponents are negative. */
typedef struct {
  int32_t *factor, *base, *multiplier, *exponent;
} tfb_lanes;

static inline void tfb_two_by_two(const int8_t *x, const int8_t *y, const int8_t *a,
                                  const int8_t *b, int32_t n, int32_t *first, int32_t *second) {
  int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, i = n / 16;
  for (; i > 0; i--, x += 16, y += 16, a += 16, b += 16) {
    int8x16_t p = vldrbq_s8(x), q = vldrbq_s8(y), c = vldrbq_s8(a), d = vldrbq_s8(b);
    s0 = vmladavaq_s8(s0, p, c);
    s1 = vmladavaq_s8(s1, p, d);
    s2 = vmladavaq_s8(s2, q, c);
    s3 = vmladavaq_s8(s3, q, d);
  }
  if (n % 16 != 0) {
    mve_pred16_t left = vctp8q((uint32_t)n % 16);
    int8x16_t p = vldrbq_z_s8(x, left), q = vldrbq_z_s8(y, left);
    int8x16_t c = vldrbq_z_s8(a, left), d = vldrbq_z_s8(b, left);
    s0 = vmladavaq_s8(s0, p, c);
    s1 = vmladavaq_s8(s1, p, d);
    s2 = vmladavaq_s8(s2, q, c);
    s3 = vmladavaq_s8(s3, q, d);
  }
  first[0] = s0;
  first[1] = s1;
  second[0] = s2;
  second[1] = s3;
}

/* Of four filters. */
typedef struct {
  int32x4_t factor, base, multiplier, exponent;
} tfb_four;

static inline tfb_four tfb_four_lanes(const tfb_lanes *lanes, int32_t c, mve_pred16_t left) {
  tfb_four four;
  four.factor = vldrwq_z_s32(lanes->factor + c, left);
  four.base = vldrwq_z_s32(lanes->base + c, left);
  four.multiplier = vldrwq_z_s32(lanes->multiplier + c, left);
  four.exponent = vldrwq_z_s32(lanes->exponent + c, left);
  return four;
}

/* Four sums as stored values that are not limited yet. */
static inline int32x4_t tfb_four_scaled(tfb_four four, int32x4_t sums, int32_t zero) {
  sums = vqrdmulhq_s32(vaddq_s32(vmulq_s32(sums, four.factor), four.base), four.multiplier);
  /* the last rounding takes 1 off a negative number, where there is one: exponents are negative */
  sums = vaddq_s32(sums, vandq_s32(vshrq_n_s32(sums, 31), vshrq_n_s32(four.exponent, 31)));
  return vaddq_n_s32(vrshlq_s32(sums, four.exponent), zero);
}

/* Stores a position's outputs of up to four filters. */
static inline void tfb_store_four(const tfb_conv *op, tfb_four four, mve_pred16_t left,
                                  const int32_t *sums, int8_t *out) {
  int32x4_t value = tfb_four_scaled(four, vldrwq_s32(sums), op->out_zero);
  value = vmaxq_s32(vminq_s32(value, vdupq_n_s32(op->high)), vdupq_n_s32(op->low));
  vstrbq_p_s32(out, value, left);
}

/* Stores the outputs of two positions, `next` apart, for n filters. */
static TFB_APART void tfb_tile(const tfb_conv *op, const tfb_lanes *lanes, const int8_t *w,
                               int32_t n, int32_t taps, const int8_t *x, const int8_t *y,
                               int8_t *out, int32_t next) {
  int32_t c;
  for (c = 0; c < n; c += 4, w += 4 * taps) {
    mve_pred16_t left = vctp32q((uint32_t)(n - c));
    int32_t last = tfb_min(n - c, 4) - 1;
    tfb_sums sums;
    tfb_four four;
    tfb_two_by_two(x, y, w, w + tfb_min(1, last) * taps, taps, sums.first, sums.second);
    tfb_two_by_two(x, y, w + tfb_min(2, last) * taps, w + last * taps, taps, sums.first + 2,
                   sums.second + 2);
    four = tfb_four_lanes(lanes, c, left);
    tfb_store_four(op, four, left, sums.first, out + c);
    tfb_store_four(op, four, left, sums.second, out + next + c);
  }
}

/* Runs n filters over all positions, two at a time; the last alone twice. */
static TFB_APART void tfb_positions(const tfb_conv *op, const tfb_lanes *lanes, const int8_t *w,
                                    int32_t n, int32_t taps, const int8_t *in, int8_t *out,
                                    int8_t *bytes) {
  int32_t left = op->batch * op->out_h * op->out_w, ox = 0, oy = 0, next = op->out_c, i;
  int32_t image = op->in_h * op->in_w * op->in_c;
  int32_t flat = op->k_h * op->k_w * op->stride_h * op->stride_w == 1;
  for (; left > 0; left -= 2, out += 2 * next) {
    const int8_t *x = bytes, *y = bytes + taps;
    if (left == 1) next = 0;
    if (flat) {
      x = in;
      y = left == 1 ? in : in + taps;
      in += 2 * taps;
    } else {
      for (i = 0; i < tfb_min(left, 2); i++) {
        tfb_spot spot;
        spot.image = in;
        spot.y = oy * op->stride_h - op->pad_h;
        spot.x = ox * op->stride_w - op->pad_w;
        tfb_patch(op, &spot, bytes + i * taps);
        if (++ox < op->out_w) continue;
        ox = 0;
        if (++oy < op->out_h) continue;
        oy = 0;
        in += image;
      }
      if (left == 1) y = x;
    }
    tfb_tile(op, lanes, w, n, taps, x, y, out, next);
  }
}

/* A convolution in blocks of filters: as many as fit where other cores keep so many pairs, widened.
 * `scratch` holds what turns their sums into stored values, what two filters see, and the filters
 * unless they are stored as bytes. */
static inline void tfb_blocks(const tfb_conv *op, tfb_rows *rows, const int8_t *in, int8_t *out,
                              int8_t *scratch, int32_t pairs) {
  int32_t taps = op->k_h * op->k_w * op->in_c, drop = 8 - op->bits, c, i, k;
  int32_t wide = 4 * ((taps + 1) & ~1), room = wide + pairs * (wide + 40) - 2 * taps;
  int32_t unpacks = op->bits < 8 || rows->row_of != tfb_plain_row;
  int32_t most = tfb_min(rows->last - rows->first, room / (16 + (unpacks ? taps : 0)));
  int8_t *bytes = scratch + 16 * most, *block = bytes + 2 * taps;
  tfb_lanes lanes;
  lanes.factor = (int32_t *)(void *)scratch;
  lanes.base = lanes.factor + most;
  lanes.multiplier = lanes.base + most;
  lanes.exponent = lanes.multiplier + most;
  for (c = rows->first; c < rows->last; c += most) {
    int32_t n = tfb_min(most, rows->last - c);
    const int8_t *w = block;
    for (i = 0; i < n; i++) {
      int8_t *row = block + i * taps;
      const int8_t *codes = rows->row_of(rows->source, c + i, &rows->stream, row, taps);
      tfb_filter filter = tfb_filter_with(op, c + i, codes, taps);
      if (filter.factor / 2 & ((1 << drop) - 1)) {
        for (k = 0; k < taps; k++) row[k] = (int8_t)(row[k] >> drop);
      } else {
        filter.factor >>= drop;
      }
      if (unpacks && codes != row) memcpy(row, codes, (size_t)taps);
      if (!unpacks && i == 0) w = codes;
      lanes.factor[i] = filter.factor / 2;
      lanes.base[i] = filter.base / 2;
      lanes.multiplier[i] = filter.multiplier;
      lanes.exponent[i] = -filter.exponent;
    }
    tfb_positions(op, &lanes, w, n, taps, in, out + c, bytes);
  }
}
#endif
