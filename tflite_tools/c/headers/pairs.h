/* ---- Pairs of filters on cores that have no Helium ---- */

#if !TFB_MVE

/* Stores the outputs of two positions for n filters of which some have no offset, or one of
 * which the last has no second. */
static TFB_APART void tfb_careful_tile(const tfb_conv *op, const uint32_t *w, const uint32_t *x,
                                       int32_t taps, int32_t n, int8_t *out, int32_t next,
                                       uint32_t pair) {
  int32_t c, position;
  for (c = 0; c < n; c++, w += c % 2 ? 0 : taps + TFB_TWO_SCALES) {
    const tfb_scales *scales = (const tfb_scales *)(const void *)(w + taps) + c % 2;
    for (position = 0; position < 2; position++) {
      uint32_t sum = (uint32_t)tfb_pair_sum(op, x + position, w + c % 2, taps, pair);
      int32_t value = (int32_t)(sum * (uint32_t)scales->factor + (uint32_t)scales->base);
      value = tfb_product_of_twice(value, scales->multiplier);
      value = tfb_rounded_shift(value, scales->exponent) + op->out_zero;
      out[c + position * next] = (int8_t)tfb_clamp(value, op->low, op->high);
    }
  }
}

/* The widened codes of filters c and c + 1, or of c twice. Rows that begin with a byte are not
 * unpacked to bytes but for what is behind their last block. */
static TFB_APART uint32_t *tfb_two_rows(const tfb_conv *op, tfb_rows *rows, int32_t c,
                                        int32_t count, int32_t taps, int8_t *bytes, uint32_t *w) {
  tfb_stream *stream = &rows->stream;
  int8_t *other = bytes + ((taps + 3) & ~3);
  const int8_t *a, *b;
  int32_t bits = op->bits;
  if (rows->widen && taps * bits % 8 == 0) {
    int32_t size = taps * bits / 8, block = bits == 4 ? 8 : bits == 3 ? 32 : 16;
    int32_t blocks = taps / block;
    const uint8_t *p = stream->next, *q = count == 2 ? p + size : p;
    stream->next = q + size;
    w = rows->widen(w, p, q, blocks);
    if (taps % block == 0) return w;
    taps %= block;
    {
      tfb_stream first = {0, 0, 0}, second = {0, 0, 0};
      first.next = p + blocks * block * bits / 8;
      second.next = q + blocks * block * bits / 8;
      a = tfb_unpack(&first, bits, bytes, taps);
      b = tfb_unpack(&second, bits, other, taps);
    }
  } else {
    a = b = rows->row_of(rows->source, c, stream, bytes, taps);
    if (count == 2) b = rows->row_of(rows->source, c + 1, stream, other, taps);
  }
  return tfb_join(w, a, b, taps, 8 - bits);
}

/* Filters c and c + 1 (c alone twice if it is the last): their widened weights, and behind them
 * what scales their sums. Notes in `careful` whether one has no offset. */
static TFB_APART uint32_t *tfb_two_filters(const tfb_conv *op, tfb_rows *rows, int32_t c,
                                           int32_t taps, int8_t *bytes, uint32_t *w,
                                           int32_t *careful) {
  int32_t i, count = tfb_min(2, rows->last - c);
  uint32_t *end = tfb_two_rows(op, rows, c, count, taps, bytes, w);
  tfb_scales *scales = (tfb_scales *)(void *)end;
  for (i = 0; i < count; i++, scales++) {
    tfb_filter filter = tfb_filter_scales(op, c + i);
    tfb_suit(op, &filter, w + i, end, taps);
    scales->factor = filter.factor;
    scales->base = filter.base;
    scales->multiplier = filter.multiplier;
    scales->exponent = filter.exponent;
    if (filter.exponent > 0 && filter.exponent < TFB_MOST_SHIFT) {
      scales->offset = (op->out_zero * 2 + 1) * (1 << (filter.exponent - 1));
    } else {
      *careful = 1;
    }
  }
  return end + TFB_TWO_SCALES;
}

/* What two filters see, widened: straight from the image where whole words lie one behind the
 * other, else by way of rows of bytes. */
static TFB_APART void tfb_two_patches(const tfb_conv *op, const tfb_spot *spots, int32_t taps,
                                      int8_t *bytes, uint32_t *x, uint32_t pair) {
  int32_t run = op->k_w * op->in_c, line = op->dilation_h * op->in_w * op->in_c, ky;
  if ((op->dilation_w == 1 || op->k_w == 1) && (run % TFB_RUN(op) == 0 || op->k_h == 1) &&
      tfb_lies_inside(op, spots) && tfb_lies_inside(op, spots + 1)) {
    const int8_t *a = spots[0].image + (spots[0].y * op->in_w + spots[0].x) * op->in_c;
    const int8_t *b = spots[1].image + (spots[1].y * op->in_w + spots[1].x) * op->in_c;
    for (ky = op->k_h; ky > 0; ky--, a += line, b += line) x = tfb_widen(x, a, b, run, pair);
  } else {
    int8_t *second = bytes + ((taps + 3) & ~3);
    tfb_patch(op, spots, bytes);
    tfb_patch(op, spots + 1, second);
    tfb_widen(x, bytes, second, taps, pair);
  }
}

/* The next two positions of a convolution, widened; the last one alone twice. */
typedef struct {
  const int8_t *in;
  int32_t left, ox, oy; /* positions that are left, and the next one's place */
} tfb_walk;

static inline void tfb_two_positions(const tfb_conv *op, tfb_walk *walk, int32_t taps,
                                     uint32_t pair, uint32_t *x, int8_t *bytes) {
  int32_t n = tfb_min(walk->left, 2), i;
  tfb_spot spots[2];
  walk->left -= n;
  if (op->k_h * op->k_w * op->stride_h * op->stride_w == 1) {
    tfb_widen(x, walk->in, n == 1 ? walk->in : walk->in + taps, taps, pair);
    walk->in += 2 * taps;
    return;
  }
  for (i = 0; i < n; i++) {
    spots[i].image = walk->in;
    spots[i].y = walk->oy * op->stride_h - op->pad_h;
    spots[i].x = walk->ox * op->stride_w - op->pad_w;
    if (++walk->ox < op->out_w) continue;
    walk->ox = 0;
    if (++walk->oy < op->out_h) continue;
    walk->oy = 0;
    walk->in += op->in_h * op->in_w * op->in_c;
  }
  if (n == 1) spots[1] = spots[0];
  tfb_two_patches(op, spots, taps, bytes, x, pair);
}

/* Runs a block of n filters over all positions, two at a time, or four if `x` holds as many. */
static TFB_APART void tfb_positions(const tfb_conv *op, const uint32_t *w, int32_t n,
                                    int32_t careful, int32_t taps, const int8_t *in, int8_t *out,
                                    uint32_t *x, int8_t *bytes, int32_t fours) {
  int32_t even = TFB_LENGTH(op, taps), next = op->out_c;
  int32_t pairs = careful ? 0 : n / 2, rest = n - 2 * pairs;
  const uint32_t *last = w + pairs * (even + TFB_TWO_SCALES);
  uint32_t pair = TFB_PAIR_OF(op, 2);
  tfb_walk walk = {0, 0, 0, 0};
  walk.in = in;
  walk.left = op->batch * op->out_h * op->out_w;
  (void)fours;
#if TFB_FOURS
  for (; fours && walk.left >= 4; out += 4 * next) {
    tfb_two_positions(op, &walk, taps, TFB_PAIR_OF(op, 4), x, bytes);
    tfb_two_positions(op, &walk, taps, TFB_PAIR_OF(op, 4), x + 2, bytes);
    tfb_tile4(op, w, x, even, pairs, out);
    if (rest == 0) continue;
    tfb_careful_tile(op, last, x, even, rest, out + 2 * pairs, next, 4);
    tfb_careful_tile(op, last, x + 2, even, rest, out + 2 * next + 2 * pairs, next, 4);
  }
#endif
  for (; walk.left > 0; out += 2 * next) {
    if (walk.left == 1) next = 0;
    tfb_two_positions(op, &walk, taps, pair, x, bytes);
    tfb_tile(op, w, x, even, pairs, out, next);
    if (rest > 0) tfb_careful_tile(op, last, x, even, rest, out + 2 * pairs, next, pair);
  }
}

/* A convolution in blocks of so many pairs of filters. `scratch` holds what two filters see,
 * widened, the filters of a block, and where filters reach over the border or see no whole words
 * two rows of bytes. */
static inline void tfb_pair_blocks(const tfb_conv *op, tfb_rows *rows, const int8_t *in,
                                   int8_t *out, int8_t *scratch, int32_t pairs) {
  int32_t taps = op->k_h * op->k_w * op->in_c, even = TFB_LENGTH(op, taps), fours = 0, c, i;
  uint32_t *x = (uint32_t *)(void *)scratch, *w;
  int8_t *bytes;
#if TFB_FOURS
  /* Inputs of two more positions lie where a pair of filters would, unless they were widened for
   * fewer filters at a time then. */
  int32_t all = (rows->last - rows->first + 1) / 2;
  fours = pairs > all || pairs > 5;
  if (fours) pairs = pairs > all ? all : pairs - 1;
#endif
  w = x + (fours ? 2 * even : even);
  bytes = (int8_t *)(w + pairs * (even + TFB_TWO_SCALES));
  for (c = rows->first; c < rows->last; c += 2 * pairs) {
    int32_t n = tfb_min(2 * pairs, rows->last - c), careful = 0;
    uint32_t *to = w;
    for (i = 0; i < n; i += 2) {
      to = tfb_two_filters(op, rows, c + i, taps, (int8_t *)x, to, &careful);
    }
    tfb_positions(op, w, n, careful, taps, in, out + c, x, bytes, fours);
  }
}
#endif
