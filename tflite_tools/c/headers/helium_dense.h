/* ---- Filters that are used once, with Helium ---- */

#if TFB_MVE

/* Codes of a filter as they are stored, and the products that they are summed to. */
typedef struct {
  const uint8_t *next;
  int32_t sum;
} tfb_run;

/* Adds the products of groups of codes of two filters with inputs that tfb_group has put in order. */
typedef void (*tfb_sum_blocks)(const int8_t *x, tfb_run *runs, int32_t groups);

/* Sixteen codes of either filter, each in the upper bits of a byte, times the same inputs. */
#define TFB_SIXTEEN_CODES(p, q)                                        \
  do {                                                                 \
    int8x16_t some_ = vldrbq_s8(x);                                    \
    a = vmladavaq_s8(a, some_, vreinterpretq_s8_u8(p));                \
    b = vmladavaq_s8(b, some_, vreinterpretq_s8_u8(q));                \
    x += 16;                                                           \
  } while (0)

/* Groups of four blocks as tfb_block2, 3 and 4 unpack them, and of 16 codes of 8 bits. */
static TFB_APART void tfb_blocks8(const int8_t *x, tfb_run *runs, int32_t groups) {
  const uint8_t *p = runs[0].next, *q = runs[1].next;
  int32_t a = 0, b = 0;
  for (; groups > 0; groups--, p += 16, q += 16) TFB_SIXTEEN_CODES(vldrbq_u8(p), vldrbq_u8(q));
  runs[0].sum = a;
  runs[1].sum = b;
}
static TFB_APART void tfb_blocks4(const int8_t *x, tfb_run *runs, int32_t groups) {
  const uint8_t *p = runs[0].next, *q = runs[1].next;
  uint8x16_t mask = vdupq_n_u8(0xf0);
  int32_t a = 0, b = 0;
  for (; groups > 0; groups--, p += 16, q += 16) {
    uint8x16_t u = vldrbq_u8(p), v = vldrbq_u8(q);
    TFB_SIXTEEN_CODES(vshlq_n_u8(u, 4), vshlq_n_u8(v, 4));
    TFB_SIXTEEN_CODES(vandq_u8(u, mask), vandq_u8(v, mask));
  }
  runs[0].sum = a;
  runs[1].sum = b;
}
static TFB_APART void tfb_blocks3(const int8_t *x, tfb_run *runs, int32_t groups) {
  const uint8_t *p = runs[0].next, *q = runs[1].next;
  static const uint8_t words[16] = {0, 1, 2, 3, 12, 13, 14, 15, 24, 25, 26, 27, 36, 37, 38, 39};
  uint8x16_t places = vldrbq_u8(words), mask = vdupq_n_u8(0xe0);
  uint8x16_t upper = vdupq_n_u8(0xc0), lowest = vdupq_n_u8(0x20);
  int32_t a = 0, b = 0, k;
  for (; groups > 0; groups--, p += 48, q += 48) {
    uint8x16_t u, v, u6, v6, u7, v7;
    for (k = 0; k < 12; k += 4) {
      u = vldrbq_gather_offset_u8(p + k, places);
      v = vldrbq_gather_offset_u8(q + k, places);
      TFB_SIXTEEN_CODES(vshlq_n_u8(u, 5), vshlq_n_u8(v, 5));
      TFB_SIXTEEN_CODES(vandq_u8(vshlq_n_u8(u, 2), mask), vandq_u8(vshlq_n_u8(v, 2), mask));
    }
    u7 = vandq_u8(u, upper);
    v7 = vandq_u8(v, upper);
    u = vldrbq_gather_offset_u8(p + 4, places);
    v = vldrbq_gather_offset_u8(q + 4, places);
    u6 = vandq_u8(vldrbq_gather_offset_u8(p, places), upper);
    v6 = vandq_u8(vldrbq_gather_offset_u8(q, places), upper);
    u6 = vorrq_u8(u6, vandq_u8(vshrq_n_u8(u, 1), lowest));
    v6 = vorrq_u8(v6, vandq_u8(vshrq_n_u8(v, 1), lowest));
    u7 = vorrq_u8(u7, vandq_u8(vshrq_n_u8(u, 2), lowest));
    v7 = vorrq_u8(v7, vandq_u8(vshrq_n_u8(v, 2), lowest));
    TFB_SIXTEEN_CODES(u6, v6);
    TFB_SIXTEEN_CODES(u7, v7);
  }
  runs[0].sum = a;
  runs[1].sum = b;
}
static TFB_APART void tfb_blocks2(const int8_t *x, tfb_run *runs, int32_t groups) {
  const uint8_t *p = runs[0].next, *q = runs[1].next;
  uint8x16_t mask = vdupq_n_u8(0xc0);
  int32_t a = 0, b = 0;
  for (; groups > 0; groups--, p += 16, q += 16) {
    uint8x16_t u = vldrbq_u8(p), v = vldrbq_u8(q);
    TFB_SIXTEEN_CODES(vshlq_n_u8(u, 6), vshlq_n_u8(v, 6));
    TFB_SIXTEEN_CODES(vandq_u8(vshlq_n_u8(u, 4), mask), vandq_u8(vshlq_n_u8(v, 4), mask));
    TFB_SIXTEEN_CODES(vandq_u8(vshlq_n_u8(u, 2), mask), vandq_u8(vshlq_n_u8(v, 2), mask));
    TFB_SIXTEEN_CODES(vandq_u8(u, mask), vandq_u8(v, mask));
  }
  runs[0].sum = a;
  runs[1].sum = b;
}

/* Inputs in the order in which groups of codes meet them: the first four of each of four blocks, then
 * the second four, and so on. */
static TFB_APART void tfb_group(int8_t *to, const int8_t *x, int32_t groups, int32_t size) {
  int32_t block = size / 4, k, i;
  for (; groups > 0; groups--, x += size) {
    for (k = 0; k < block; k += 4) {
      for (i = 0; i < 4; i++, to += 4) tfb_put(to, tfb_word(x + i * block + k));
    }
  }
}

/* The products of the n codes, below 128, behind a row's last group. */
static TFB_APART int32_t tfb_rest(const tfb_conv *op, const uint8_t *codes, const int8_t *x,
                                  int32_t n) {
  int8_t bytes[128];
  tfb_stream stream = {0, 0, 0};
  const int8_t *row;
  int32_t sum = 0;
  stream.next = codes;
  for (row = tfb_unpack(&stream, op->bits, bytes, n); n > 0; n -= 16, x += 16, row += 16) {
    mve_pred16_t left = vctp8q((uint32_t)n);
    sum = vmladavaq_s8(sum, vldrbq_z_s8(x, left), vldrbq_z_s8(row, left));
  }
  return sum;
}

/* A filter in bytes, its groups, the codes in these, and those behind. */
typedef struct {
  int32_t bytes, groups, whole, rest;
} tfb_lengths;

/* What two filters, or one, make of inputs that are in order and in groups. */
static inline void tfb_two_sums(const tfb_conv *op, const tfb_lengths *row, const uint8_t *codes,
                                int32_t count, const int8_t *x, const int8_t *grouped,
                                tfb_sum_blocks blocks, int32_t *sums) {
  tfb_run runs[2];
  int32_t i;
  runs[0].next = codes;
  runs[1].next = count == 2 ? codes + row->bytes : codes;
  blocks(grouped, runs, row->groups);
  for (i = 0; i < count; i++, codes += row->bytes) {
    sums[i] = runs[i].sum;
    if (row->rest == 0) continue;
    sums[i] += tfb_rest(op, codes + row->whole * op->bits / 8, x + row->whole, row->rest);
  }
}

/* A convolution whose filters each see the whole input, in order; every filter begins with a byte.
 * `scratch` holds the input in the order of the codes, and where biases do not contain what the zero
 * point adds, ones for the sum of the codes; `blocks` is the function for their width. */
static TFB_APART void tfb_dense(const tfb_conv *op, const int8_t *in, int8_t *out, int8_t *scratch,
                                tfb_sum_blocks blocks) {
  int32_t taps = op->in_h * op->in_w * op->in_c, bits = op->bits, zero = tfb_zero(op), c, i;
  int32_t group = bits == 8 ? 16 : bits == 4 ? 32 : bits == 3 ? 128 : 64;
  int32_t each = op->form & (TFB_EACH_MULTIPLIER | TFB_EACH_SHIFT), out_c = op->out_c;
  int32_t sums[4], codes[4], factor[4], base[4], multiplier[4], exponent[4];
  const tfb_lanes lanes = {factor, base, multiplier, exponent};
  const uint8_t *next = op->weights;
  int8_t *ones = scratch + ((taps + 3) & ~3);
  tfb_filter filter = tfb_filter_scales(op, 0);
  int32_t unit = filter.factor / op->prescale;
  tfb_lengths row;
  row.bytes = taps * bits / 8;
  row.groups = taps / group;
  row.whole = row.groups * group;
  row.rest = taps - row.whole;
  tfb_group(scratch, in, row.groups, group);
  if (zero != 0) memset(ones, 1, (size_t)taps);
  for (c = 0; c < out_c; c += 4, out += 4) {
    int32_t n = tfb_min(4, out_c - c);
    mve_pred16_t left = vctp32q((uint32_t)n);
    for (i = 0; i < n; i += 2, next += 2 * row.bytes) {
      tfb_two_sums(op, &row, next, tfb_min(2, n - i), in, scratch, blocks, sums + i);
      if (zero == 0) continue;
      tfb_two_sums(op, &row, next, tfb_min(2, n - i), ones, ones, blocks, codes + i);
    }
    for (i = 0; i < n; i++) {
      if (each) {
        filter = tfb_filter_scales(op, c + i);
      } else {
        filter.base = tfb_bias(op, c + i) * unit;
      }
      if (zero != 0) sums[i] -= zero * codes[i];
      sums[i] >>= 8 - bits;
      base[i] = filter.base / 2;
      if (c > 0 && !each) continue;
      factor[i] = filter.factor / 2;
      multiplier[i] = filter.multiplier;
      exponent[i] = -filter.exponent;
    }
    tfb_store_four(op, tfb_four_lanes(&lanes, 0, left), left, sums, out);
  }
}
#endif
