/* ---- Softmax ---- */

typedef struct {
  int32_t outer, depth;
  int32_t multiplier, lowest; /* differences below `lowest` count as nothing */
  int8_t shift;
} tfb_softmax_op;

/* exp(x) for x in [-1/4, 0), Q0.31: Taylor around -1/8. */
static inline int32_t tfb_exp_near_zero(int32_t a) {
  int32_t x = a + (1 << 28), x2 = tfb_high_product(x, x);
  int32_t x3 = tfb_high_product(x2, x), x4 = tfb_high_product(x2, x2);
  int32_t tail = tfb_high_product(tfb_rounded_shift(x4, 2) + x3, 715827883);
  tail = tfb_rounded_shift(tail + x2, 1);
  return 1895147668 + tfb_high_product(1895147668, x + tail);
}

/* exp(x) for x <= 0, from Q5.26 to Q0.31. */
static inline int32_t tfb_exp(int32_t a) {
  static const int32_t factors[7] = {1672461947, 1302514674, 790015084, 290630308,
                                     39332535,   720401,     242};
  int32_t quarter = 1 << 24, near = (a & (quarter - 1)) - quarter, rest = near - a, i;
  int32_t result = tfb_exp_near_zero((int32_t)((uint32_t)near << 5));
  if (a == 0) return INT32_MAX;
  for (i = 0; i < 7; i++) {
    if (rest & ((int32_t)1 << (24 + i))) result = tfb_high_product(result, factors[i]);
  }
  return result;
}

/* 1 / (1 + x) for x in [0, 1), Q0.31: three Newton steps. */
static inline int32_t tfb_reciprocal(int32_t a) {
  int32_t half = (int32_t)(((int64_t)a + INT32_MAX + 1) >> 1), i;
  int32_t x = 1515870810 + tfb_high_product(half, -1010580540);
  for (i = 0; i < 3; i++) {
    int32_t error = (1 << 29) - tfb_high_product(half, x);
    x += (int32_t)((uint32_t)tfb_high_product(x, error) << 2);
  }
  return x > (1 << 30) - 1 ? INT32_MAX : x < -((1 << 30) - 1) ? INT32_MIN : x * 2;
}

static inline int32_t tfb_leading_zeros(uint32_t x) {
  int32_t count = 0;
  for (; count < 32 && !(x & 0x80000000u); x <<= 1) count++;
  return count;
}

static inline int32_t tfb_exp_of(const tfb_softmax_op *op, int32_t difference) {
  int32_t x = (int32_t)((uint32_t)difference << op->shift);
  return tfb_exp(tfb_high_product(x, op->multiplier));
}

static inline void tfb_softmax_row(const tfb_softmax_op *op, const int8_t *in, int8_t *out) {
  int32_t best = -128, sum = 0, i, zeros, scale;
  for (i = 0; i < op->depth; i++) best = tfb_max(best, in[i]);
  for (i = 0; i < op->depth; i++) {
    if (in[i] - best >= op->lowest) sum += tfb_rounded_shift(tfb_exp_of(op, in[i] - best), 12);
  }
  zeros = tfb_leading_zeros((uint32_t)sum);
  scale = tfb_reciprocal((int32_t)(((uint32_t)sum << zeros) - 0x80000000u));
  for (i = 0; i < op->depth; i++) {
    int32_t value = 0;
    if (in[i] - best >= op->lowest) {
      value = tfb_high_product(scale, tfb_exp_of(op, in[i] - best));
      /* Shares below 1 / 512 are nothing; C has no shift by 32. */
      value = 35 - zeros > 31 ? 0 : tfb_rounded_shift(value, 35 - zeros);
    }
    out[i] = (int8_t)tfb_clamp(value - 128, -128, 127);
  }
}

static inline void tfb_softmax(const tfb_softmax_op *op, const int8_t *in, int8_t *out) {
  int32_t i;
  for (i = 0; i < op->outer; i++, in += op->depth, out += op->depth) tfb_softmax_row(op, in, out);
}
