/* ---- Blocks of filters on cores that have neither DSP instructions nor Helium ---- */

#if TFB_JOINS

/* With codes of 4 bits and fewer one multiplication makes two products. A word holds the codes v and
 * w of two filters as v + 65536 w, and
 *
 *   x (v + 65536 w) = x v + 65536 x w
 *
 * so that sums of both filters grow in one register. The lower half is the first filter's sum while
 * that fits 16 bits. A product lies between -(2^7 - 1) 2^(bits - 1) and 2^(14 - (8 - bits)), so 256 >>
 * (bits - 1) of them lie between -2^15 + 2^8 and 2^15, both included. Sums that begin with TFB_JOINED
 * have the lower half 2^15 - 1 higher, from 0 to 2^16 - 1, and the upper one by 1 lower. */
#define TFB_JOINED 0xffff7fffu

/* The codes of two rows in words, and words of 0 up to `length`. Rows hold codes times 2^drop. */
static TFB_APART void tfb_join(const int8_t *first, const int8_t *second, int32_t drop, int32_t n,
                               int32_t length, uint32_t *words) {
  uint32_t *end = words + length;
#define TFB_WORD(k) \
  words[k] = (uint32_t)(first[k] >> drop) + ((uint32_t)(second[k] >> drop) << 16)
  for (; n >= 4; n -= 4, words += 4, first += 4, second += 4) {
    TFB_WORD(0);
    TFB_WORD(1);
    TFB_WORD(2);
    TFB_WORD(3);
  }
  for (; n > 0; n--, words++, first++, second++) TFB_WORD(0);
#undef TFB_WORD
  while (words != end) *words++ = 0;
}

/* What two filters have summed up, to sums[0] and [TFB_CHUNK]; or added to these. */
static inline void tfb_part_joined(uint32_t both, int32_t adds, int32_t *sums) {
  int32_t first = (int32_t)(both & 0xffff) - 0x7fff, second = ((int32_t)both >> 16) + 1;
  if (adds) {
    first += sums[0];
    second += sums[TFB_CHUNK];
  }
  sums[0] = first;
  sums[TFB_CHUNK] = second;
}

/* The sums of n products of one input, up to `most` at a time, with two filters. */
static TFB_APART void tfb_joined_dot(const int8_t *x, const uint32_t *w, int32_t n, int32_t most,
                                     int32_t *sums) {
  int32_t adds;
  for (adds = 0; n > 0; n -= most, adds = 1) {
    const uint32_t *end = w + tfb_min(n, most), *last = end - 3;
    uint32_t both = TFB_JOINED;
    for (; w < last; x += 4, w += 4) {
      both += (uint32_t)(int32_t)x[0] * w[0];
      both += (uint32_t)(int32_t)x[1] * w[1];
      both += (uint32_t)(int32_t)x[2] * w[2];
      both += (uint32_t)(int32_t)x[3] * w[3];
    }
    while (w < end) both += (uint32_t)(int32_t)*x++ * *w++;
    tfb_part_joined(both, adds, sums);
  }
}

#define TFB_TAP(k)                        \
  do {                                    \
    uint32_t word = w[k];                 \
    s0 += (uint32_t)(int32_t)a[k] * word; \
    s1 += (uint32_t)(int32_t)b[k] * word; \
    s2 += (uint32_t)(int32_t)c[k] * word; \
    s3 += (uint32_t)(int32_t)d[k] * word; \
    TFB_LOADS_STAY;                       \
  } while (0)

/* The same of four times so many inputs, `step` apart. */
static TFB_APART void tfb_joined_dot4(const int8_t *x, int32_t step, const uint32_t *words,
                                      int32_t taps, int32_t most, int32_t fours, int32_t *sums) {
  for (; fours > 0; fours--, x += 4 * step, sums += 4) {
    const int8_t *a = x, *b = a + step, *c = b + step, *d = c + step;
    const uint32_t *w = words;
    int32_t adds, n = taps;
    for (adds = 0; n > 0; n -= most, adds = 1) {
      const uint32_t *end = w + tfb_min(n, most), *last = end - 3;
      uint32_t s0 = TFB_JOINED, s1 = s0, s2 = s0, s3 = s0;
      for (; w < last; a += 4, b += 4, c += 4, d += 4, w += 4) {
        TFB_TAP(0);
        TFB_TAP(1);
        TFB_TAP(2);
        TFB_TAP(3);
      }
      for (; w < end; a++, b++, c++, d++, w++) TFB_TAP(0);
      tfb_part_joined(s0, adds, sums);
      tfb_part_joined(s1, adds, sums + 1);
      tfb_part_joined(s2, adds, sums + 2);
      tfb_part_joined(s3, adds, sums + 3);
    }
  }
}

#undef TFB_TAP

/* Sums of so many positions with two filters fit into the registers beside what they are made of. */
#if defined(__arm__) && !defined(__aarch64__)
#define TFB_TOGETHER 2
#else
#define TFB_TOGETHER 4
#endif

/* The sums of TFB_TOGETHER times so many inputs, `step` apart, with the weights at w and w + row. */
static TFB_APART void tfb_dot_together(const int8_t *x, int32_t step, const int8_t *weights,
                                       int32_t row, int32_t n, int32_t times, int32_t *sums) {
  for (; times > 0; times--, x += TFB_TOGETHER * step, sums += TFB_TOGETHER) {
    const int8_t *a = x, *b = a + step, *w = weights, *v = w + row, *end = w + n, *last = end - 3;
    int32_t s0 = 0, s1 = 0, t0 = 0, t1 = 0;
#if TFB_TOGETHER == 2
#define TFB_TAP(k)                                        \
  do {                                                    \
    int32_t first = w[k], second = v[k];                  \
    s0 += a[k] * first, t0 += a[k] * second;              \
    s1 += b[k] * first, t1 += b[k] * second;              \
    TFB_LOADS_STAY;                                       \
  } while (0)
    for (; w < last; a += 4, b += 4, w += 4, v += 4) {
      TFB_TAP(0);
      TFB_TAP(1);
      TFB_TAP(2);
      TFB_TAP(3);
    }
    for (; w != end; a++, b++, w++, v++) TFB_TAP(0);
#else
    const int8_t *c = b + step, *d = c + step;
    int32_t s2 = 0, s3 = 0, t2 = 0, t3 = 0;
#define TFB_TAP(k)                                        \
  do {                                                    \
    int32_t first = w[k], second = v[k];                  \
    s0 += a[k] * first, t0 += a[k] * second;              \
    s1 += b[k] * first, t1 += b[k] * second;              \
    s2 += c[k] * first, t2 += c[k] * second;              \
    s3 += d[k] * first, t3 += d[k] * second;              \
    TFB_LOADS_STAY;                                       \
  } while (0)
    for (; w < last; a += 4, b += 4, c += 4, d += 4, w += 4, v += 4) {
      TFB_TAP(0);
      TFB_TAP(1);
      TFB_TAP(2);
      TFB_TAP(3);
    }
    for (; w != end; a++, b++, c++, d++, w++, v++) TFB_TAP(0);
    sums[2] = s2;
    sums[3] = s3;
    sums[TFB_CHUNK + 2] = t2;
    sums[TFB_CHUNK + 3] = t3;
#endif
#undef TFB_TAP
    sums[0] = s0;
    sums[1] = s1;
    sums[TFB_CHUNK] = t0;
    sums[TFB_CHUNK + 1] = t1;
  }
}

/* What turns the sums of a filter into stored values, as in tfb_filter. */
typedef struct {
  int32_t factor, base, multiplier, exponent;
} tfb_scales;

/* How the filters of a block lie: two sets of scales, behind them a word for each tap, or two rows of
 * bytes; or the rows stay where they are stored, and `rows` are the first. Inputs lie `step` apart. */
typedef struct {
  const int8_t *rows;
  int32_t size, taps, step, most, joins;
} tfb_block;

/* The sums of n positions with two filters, or with one. */
static inline void tfb_two_sums(const tfb_block *block, const uint32_t *w, const int8_t *row,
                                int32_t filters, const int8_t *x, int32_t n, int32_t *sums) {
  int32_t step = block->step, taps = block->taps, next = taps, whole;
  if (block->joins) {
    tfb_joined_dot4(x, step, w, taps, block->most, n / 4, sums);
    x += (n & ~3) * step;
    sums += n & ~3;
    for (n &= 3; n > 0; n--, x += step, sums++) tfb_joined_dot(x, w, taps, block->most, sums);
    return;
  }
  if (!block->rows) {
    row = (const int8_t *)w;
    next = (taps + 3) & ~3;
  }
  if (filters == 1) next = 0;
  whole = n / TFB_TOGETHER * TFB_TOGETHER;
  tfb_dot_together(x, step, row, next, taps, n / TFB_TOGETHER, sums);
  x += whole * step;
  sums += whole;
  for (n -= whole; n > 0; n--, x += step, sums++) {
    sums[0] = sums[TFB_CHUNK] = 0;
    tfb_dot2(x, row, next, taps, 0, sums);
  }
}

/* Stores the outputs of n positions for some filters. `op` takes sums in the unit of codes. */
static TFB_APART void tfb_tile(const tfb_conv *op, const tfb_block *block, const uint32_t *w,
                               int32_t filters, const int8_t *x, int32_t n, int8_t *out) {
  const int8_t *row = block->rows;
  int32_t sums[2 * TFB_CHUNK], i;
  for (; filters > 0; filters -= 2, w += block->size, out += 2) {
    const tfb_scales *scales = (const tfb_scales *)(const void *)w;
    tfb_two_sums(block, w + 8, row, filters, x, n, sums);
    if (row) row += 2 * block->taps;
    for (i = 0; i < tfb_min(filters, 2); i++, scales++) {
      tfb_filter filter;
      filter.factor = scales->factor;
      filter.base = scales->base;
      filter.multiplier = scales->multiplier;
      filter.exponent = scales->exponent;
      tfb_store(op, &filter, sums + i * TFB_CHUNK, n, out + i);
    }
  }
}

/* Runs a block of filters over all positions: a pixel each, where they lie, or patches of the image,
 * some at a time. */
static TFB_APART void tfb_positions(const tfb_conv *op, const tfb_block *block, const uint32_t *w,
                                    int32_t filters, const int8_t *in, int8_t *out, int8_t *patches,
                                    int32_t room) {
  int32_t left = op->batch * op->out_h * op->out_w, ox = 0, oy = 0, n, i;
  int32_t image = op->in_h * op->in_w * op->in_c;
  for (; left > 0; left -= n, out += n * op->out_c) {
    n = tfb_min(left, room);
    if (!patches) {
      tfb_tile(op, block, w, filters, in, n, out);
      in += n * block->step;
      continue;
    }
    for (i = 0; i < n; i++) {
      tfb_spot spot;
      spot.image = in;
      spot.y = oy * op->stride_h - op->pad_h;
      spot.x = ox * op->stride_w - op->pad_w;
      tfb_patch(op, &spot, patches + i * block->step);
      if (++ox < op->out_w) continue;
      ox = 0;
      if (++oy < op->out_h) continue;
      oy = 0;
      in += image;
    }
    tfb_tile(op, block, w, filters, patches, n, out);
  }
}

/* Two filters, or one twice, as a block has them. `bytes` is room for two rows. */
static TFB_APART void tfb_two_filters(const tfb_conv *op, tfb_rows *rows, const tfb_block *block,
                                      int32_t c, int32_t count, int32_t taps, int8_t *bytes,
                                      uint32_t *w) {
  int32_t length = (taps + 3) & ~3, copies = !block->joins && !block->rows, i;
  tfb_scales *scales = (tfb_scales *)(void *)w;
  const int8_t *codes[2];
  if (copies) bytes = (int8_t *)(w + 8);
  for (i = 0; i < count; i++, scales++) {
    tfb_filter filter;
    int8_t *own = bytes + i * length;
    codes[i] = rows->row_of(rows->source, c + i, &rows->stream, own, taps);
    if (copies && codes[i] != own) memcpy(own, codes[i], (size_t)taps);
    filter = tfb_filter_with(op, c + i, codes[i], taps);
    scales->factor = filter.factor;
    scales->base = filter.base;
    scales->multiplier = filter.multiplier;
    scales->exponent = filter.exponent;
  }
  if (block->joins) tfb_join(codes[0], codes[count - 1], 8 - op->bits, taps, length, w + 8);
}

/* A convolution in blocks of filters: as many pairs as fit where cores with DSP instructions keep so
 * many. `scratch` holds patches, or rows while two filters are joined, and behind them the block. */
static inline void tfb_blocks(const tfb_conv *op, tfb_rows *rows, const int8_t *in, int8_t *out,
                              int8_t *scratch, int32_t pairs) {
  int32_t taps = op->k_h * op->k_w * op->in_c, length = (taps + 3) & ~3, c, i, most;
  int32_t flat = op->k_h * op->k_w * op->stride_h * op->stride_w == 1;
  int32_t kept = flat ? 2 : tfb_max(4, tfb_min(TFB_CHUNK, 512 / length & ~3));
  int32_t wide = 4 * ((taps + 1) & ~1), room = wide + pairs * (wide + 40) - kept * length;
  uint32_t *w = (uint32_t *)(void *)(scratch + kept * length);
  tfb_conv own = *op;
  tfb_block block;
  own.bits = 8;
  block.joins = op->bits <= 4;
  block.rows = 0;
  block.most = 256 >> (op->bits - 1);
  block.taps = block.joins && !flat ? length : taps;
  block.step = flat ? taps : length;
  block.size = 8 + (block.joins ? length : length / 2);
  if (op->bits == 8 && rows->row_of == tfb_plain_row) {
    block.size = 8;
    block.rows = (const int8_t *)rows->stream.next;
  }
  most = 2 * tfb_max(1, room / (4 * block.size));
  for (c = rows->first; c < rows->last; c += most) {
    int32_t n = tfb_min(most, rows->last - c);
    for (i = 0; i < n; i += 2) {
      tfb_two_filters(op, rows, &block, c + i, tfb_min(2, n - i), taps, scratch,
                      w + i / 2 * block.size);
    }
    tfb_positions(&own, &block, w, n, in, out + c, flat ? 0 : scratch, flat ? TFB_CHUNK : kept);
    if (block.rows) block.rows += n * taps;
  }
}

#endif
