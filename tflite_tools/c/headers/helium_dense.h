/* ---- Filters that are used once, with Helium ---- */

#if TFB_MVE

/* Inputs in the order in which tfb_group puts them, and filters of so many bytes. */
typedef struct {
  const int8_t *x;
  int32_t groups, bytes;
} tfb_inputs;

/* Sums the products of groups of codes of some filters; of an odd one behind them twice. */
typedef void (*tfb_sum_blocks)(const tfb_inputs *in, const uint8_t *codes, int32_t filters,
                               int32_t *sums);

/* Runs a loop over the groups of two filters at p and q, whose sums are a and b. */
#define TFB_TWO_FILTERS(bytes_of_group, inputs_of_group, ...)                   \
  for (; filters > 0; filters -= 2, codes += 2 * in->bytes, sums += 2) {        \
    const uint8_t *p = codes, *q = filters == 1 ? p : p + in->bytes;            \
    const int8_t *x = in->x, *end = x + in->groups * (inputs_of_group);         \
    int32_t a = 0, b = 0;                                                       \
    for (; x != end; p += (bytes_of_group), q += (bytes_of_group), x += (inputs_of_group)) { \
      __VA_ARGS__                                                               \
    }                                                                           \
    sums[0] = a;                                                                \
    sums[1] = b;                                                                \
  }

/* Sixteen codes of either filter, each in the upper bits of a byte, times the same inputs. */
#define TFB_SIXTEEN_AT(x, p, q)                          \
  do {                                                   \
    int8x16_t some_ = vldrbq_s8(x);                      \
    a = vmladavaq_s8(a, some_, vreinterpretq_s8_u8(p));  \
    b = vmladavaq_s8(b, some_, vreinterpretq_s8_u8(q));  \
  } while (0)
/* Groups of four blocks as tfb_block2, 3 and 4 unpack them, and of 16 codes of 8 bits. */
static TFB_APART void tfb_blocks8(const tfb_inputs *in, const uint8_t *codes, int32_t filters,
                                  int32_t *sums) {
  TFB_TWO_FILTERS(16, 16, { TFB_SIXTEEN_AT(x, vldrbq_u8(p), vldrbq_u8(q)); })
}
static TFB_APART void tfb_blocks4(const tfb_inputs *in, const uint8_t *codes, int32_t filters,
                                  int32_t *sums) {
  uint8x16_t mask = vdupq_n_u8(0xf0);
  TFB_TWO_FILTERS(16, 32, {
    uint8x16_t u = vldrbq_u8(p), v = vldrbq_u8(q);
    TFB_SIXTEEN_AT(x, vshlq_n_u8(u, 4), vshlq_n_u8(v, 4));
    TFB_SIXTEEN_AT(x + 16, vandq_u8(u, mask), vandq_u8(v, mask));
  })
}
/* What has been shifted in from `bits` stands behind the two upper bits of a code. */
static inline uint8x16_t tfb_third_bit(uint8x16_t upper, uint8x16_t bits) {
  return vandq_u8(vsriq_n_u8(upper, bits, 2), vdupq_n_u8(0xe0));
}

/* Two times sixteen codes in the lower bits of bytes of either filter, for inputs from `at` on. */
#define TFB_LOWER_CODES(at, u, v)                                                              \
  do {                                                                                         \
    TFB_SIXTEEN_AT(at, vshlq_n_u8(u, 5), vshlq_n_u8(v, 5));                                    \
    TFB_SIXTEEN_AT((at) + 16, vandq_u8(vshlq_n_u8(u, 2), mask), vandq_u8(vshlq_n_u8(v, 2), mask)); \
  } while (0)

static TFB_APART void tfb_blocks3(const tfb_inputs *in, const uint8_t *codes, int32_t filters,
                                  int32_t *sums) {
  static const uint8_t words[16] = {0, 1, 2, 3, 12, 13, 14, 15, 24, 25, 26, 27, 36, 37, 38, 39};
  uint8x16_t places = vldrbq_u8(words), mask = vdupq_n_u8(0xe0);
  TFB_TWO_FILTERS(48, 128, {
    uint8x16_t middle_u = vldrbq_gather_offset_u8(p + 4, places), u;
    uint8x16_t middle_v = vldrbq_gather_offset_u8(q + 4, places), v;
    TFB_LOWER_CODES(x + 32, middle_u, middle_v);
    u = vldrbq_gather_offset_u8(p + 8, places);
    v = vldrbq_gather_offset_u8(q + 8, places);
    TFB_LOWER_CODES(x + 64, u, v);
    TFB_SIXTEEN_AT(x + 112, tfb_third_bit(u, middle_u), tfb_third_bit(v, middle_v));
    u = vldrbq_gather_offset_u8(p, places);
    v = vldrbq_gather_offset_u8(q, places);
    TFB_LOWER_CODES(x, u, v);
    middle_u = vshlq_n_u8(middle_u, 1);
    middle_v = vshlq_n_u8(middle_v, 1);
    TFB_SIXTEEN_AT(x + 96, tfb_third_bit(u, middle_u), tfb_third_bit(v, middle_v));
  })
}
#undef TFB_LOWER_CODES
static TFB_APART void tfb_blocks2(const tfb_inputs *in, const uint8_t *codes, int32_t filters,
                                  int32_t *sums) {
  uint8x16_t mask = vdupq_n_u8(0xc0);
  TFB_TWO_FILTERS(16, 64, {
    uint8x16_t u = vldrbq_u8(p), v = vldrbq_u8(q);
    TFB_SIXTEEN_AT(x, vshlq_n_u8(u, 6), vshlq_n_u8(v, 6));
    TFB_SIXTEEN_AT(x + 16, vandq_u8(vshlq_n_u8(u, 4), mask), vandq_u8(vshlq_n_u8(v, 4), mask));
    TFB_SIXTEEN_AT(x + 32, vandq_u8(vshlq_n_u8(u, 2), mask), vandq_u8(vshlq_n_u8(v, 2), mask));
    TFB_SIXTEEN_AT(x + 48, vandq_u8(u, mask), vandq_u8(v, mask));
  })
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

/* What some filters make of inputs in order, of which those of whole groups are grouped too. */
static TFB_APART void tfb_all_sums(const tfb_conv *op, const tfb_inputs *grouped, const int8_t *x,
                                   int32_t whole, const uint8_t *codes, int32_t filters,
                                   tfb_sum_blocks blocks, int32_t *sums) {
  int32_t rest = op->in_h * op->in_w * op->in_c - whole, i;
  blocks(grouped, codes, filters, sums);
  codes += whole * op->bits / 8;
  for (i = 0; rest > 0 && i < filters; i++, codes += grouped->bytes) {
    sums[i] += tfb_rest(op, codes, x + whole, rest);
  }
}

/* A convolution whose filters each see the whole input, in order; every filter begins with a byte.
 * `scratch` holds the input in the order of the codes, and where biases do not contain what the zero
 * point adds, ones for the sum of the codes; `blocks` is the function for their width. */
static TFB_APART void tfb_dense(const tfb_conv *op, const int8_t *in, int8_t *out, int8_t *scratch,
                                tfb_sum_blocks blocks) {
  int32_t taps = op->in_h * op->in_w * op->in_c, bits = op->bits, zero = tfb_zero(op), c, i, k;
  int32_t group = bits == 8 ? 16 : bits == 4 ? 32 : bits == 3 ? 128 : 64, whole = taps & -group;
  int32_t each = op->form & (TFB_EACH_MULTIPLIER | TFB_EACH_SHIFT);
  int32_t sums[TFB_CHUNK], codes[TFB_CHUNK], lanes[4][4];
  const uint8_t *next = op->weights;
  int8_t *ones = scratch + ((taps + 3) & ~3);
  tfb_filter filter = tfb_filter_scales(op, 0);
  int32_t unit = filter.factor / op->prescale / 2;
  tfb_four four;
  tfb_inputs grouped;
  grouped.x = scratch;
  grouped.groups = taps / group;
  grouped.bytes = taps * bits / 8;
  four.factor = vdupq_n_s32(filter.factor / 2);
  four.multiplier = vdupq_n_s32(filter.multiplier);
  four.exponent = vdupq_n_s32(-filter.exponent);
  tfb_group(scratch, in, grouped.groups, group);
  if (zero != 0) memset(ones, 1, (size_t)taps);
  for (c = 0; c < op->out_c; c += TFB_CHUNK, next += TFB_CHUNK * grouped.bytes) {
    int32_t n = tfb_min(TFB_CHUNK, op->out_c - c);
    tfb_all_sums(op, &grouped, in, whole, next, n, blocks, sums);
    if (zero != 0) {
      tfb_inputs same = grouped;
      same.x = ones;
      tfb_all_sums(op, &same, ones, whole, next, n, blocks, codes);
      for (i = 0; i < n; i++) sums[i] -= zero * codes[i];
    }
    for (i = 0; i < n; i += 4, out += 4) {
      mve_pred16_t left = vctp32q((uint32_t)(n - i));
      for (k = 0; k < tfb_min(4, n - i); k++) {
        if (each) {
          filter = tfb_filter_scales(op, c + i + k);
          lanes[0][k] = filter.factor / 2;
          lanes[1][k] = filter.base / 2;
          lanes[2][k] = filter.multiplier;
          lanes[3][k] = -filter.exponent;
        } else {
          lanes[1][k] = tfb_bias(op, c + i + k) * unit;
        }
      }
      if (each) {
        four.factor = vldrwq_z_s32(lanes[0], left);
        four.multiplier = vldrwq_z_s32(lanes[2], left);
        four.exponent = vldrwq_z_s32(lanes[3], left);
      }
      four.base = vldrwq_z_s32(lanes[1], left);
      vstrwq_p_s32(sums + i, vshlq_s32(vldrwq_z_s32(sums + i, left), vdupq_n_s32(bits - 8)), left);
      tfb_store_four(op, four, left, sums + i, out);
    }
  }
}
#endif
