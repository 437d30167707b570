/* ---- Filters of 8 bits on cores that have neither DSP instructions nor Helium ---- */

#if TFB_JOINS

/* Sums of so many positions with two filters fit into the registers beside what they are made
 * of. */
#if defined(__arm__) && !defined(__aarch64__)
#define TFB_TOGETHER 2
#else
#define TFB_TOGETHER 4
#endif

#if TFB_BY_HAND
#define TFB_ONE_TAP                          \
  "ldrsb %[first], [%[w]], #1\n"            \
  "ldrsb %[second], [%[v]], #1\n"           \
  "ldrsb %[x], [%[a]], #1\n"                \
  "mla %[s0], %[x], %[first], %[s0]\n"      \
  "mla %[t0], %[x], %[second], %[t0]\n"     \
  "ldrsb %[x], [%[b]], #1\n"                \
  "mla %[s1], %[x], %[first], %[s1]\n"      \
  "mla %[t1], %[x], %[second], %[t1]\n"
#define TFB_FOUR_TAPS TFB_ONE_TAP TFB_ONE_TAP TFB_ONE_TAP TFB_ONE_TAP
#endif

/* The sums of TFB_TOGETHER times so many inputs, `step` apart, with the weights at w and w +
 * row. */
static TFB_APART void tfb_dot_together(const int8_t *x, int32_t step, const int8_t *weights,
                                       int32_t row, int32_t n, int32_t times, int32_t *sums) {
  for (; times > 0; times--, x += TFB_TOGETHER * step, sums += TFB_TOGETHER) {
    const int8_t *a = x, *b = a + step, *w = weights, *v = w + row, *end = w + n;
    const int8_t *last = end - (TFB_TOGETHER == 2 ? 7 : 3);
    int32_t s0 = 0, s1 = 0, t0 = 0, t1 = 0;
#if TFB_TOGETHER == 2
#define TFB_TAP(k)                                              \
  do {                                                          \
    int32_t first = w[k], second = v[k];                        \
    s0 = tfb_sum_of(s0, a[k], first), t0 = tfb_sum_of(t0, a[k], second); \
    s1 = tfb_sum_of(s1, b[k], first), t1 = tfb_sum_of(t1, b[k], second); \
    TFB_LOADS_STAY;                                             \
  } while (0)
#if TFB_BY_HAND
    if (w < last) {
      int32_t eights = n & ~7, x, first, second;
      __asm__ volatile(
          "1:\n" TFB_FOUR_TAPS TFB_FOUR_TAPS
          "subs %[n], #8\n"
          "bgt 1b\n"
          : [a] "+r"(a), [b] "+r"(b), [w] "+r"(w), [v] "+r"(v), [n] "+r"(eights), [s0] "+r"(s0),
            [s1] "+r"(s1), [t0] "+r"(t0), [t1] "+r"(t1), [x] "=&r"(x), [first] "=&r"(first),
            [second] "=&r"(second)
          :
          : "cc", "memory");
    }
#else
    for (; w < last; a += 8, b += 8, w += 8, v += 8) {
      TFB_TAP(0);
      TFB_TAP(1);
      TFB_TAP(2);
      TFB_TAP(3);
      TFB_TAP(4);
      TFB_TAP(5);
      TFB_TAP(6);
      TFB_TAP(7);
    }
#endif
    for (; w != end; a++, b++, w++, v++) TFB_TAP(0);
#else
    const int8_t *c = b + step, *d = c + step;
    int32_t s2 = 0, s3 = 0, t2 = 0, t3 = 0;
#define TFB_TAP(k)                                              \
  do {                                                          \
    int32_t first = w[k], second = v[k];                        \
    s0 = tfb_sum_of(s0, a[k], first), t0 = tfb_sum_of(t0, a[k], second); \
    s1 = tfb_sum_of(s1, b[k], first), t1 = tfb_sum_of(t1, b[k], second); \
    s2 = tfb_sum_of(s2, c[k], first), t2 = tfb_sum_of(t2, c[k], second); \
    s3 = tfb_sum_of(s3, d[k], first), t3 = tfb_sum_of(t3, d[k], second); \
    TFB_LOADS_STAY;                                             \
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

/* How the filters of a block lie: two sets of scales, behind them two rows of bytes; or the rows
 * stay where they are stored, and `rows` are the first. Inputs lie `step` apart. */
typedef struct {
  const int8_t *rows;
  int32_t size, taps, step;
} tfb_block;

/* The sums of n positions with two filters, or with one. */
static inline void tfb_two_sums(const tfb_block *block, const int8_t *row, int32_t filters,
                                const int8_t *x, int32_t n, int32_t *sums) {
  int32_t step = block->step, taps = block->taps, next = block->rows ? taps : (taps + 3) & ~3;
  int32_t whole = n / TFB_TOGETHER * TFB_TOGETHER;
  if (filters == 1) next = 0;
  tfb_dot_together(x, step, row, next, taps, n / TFB_TOGETHER, sums);
  x += whole * step;
  sums += whole;
  for (n -= whole; n > 0; n--, x += step, sums++) {
    sums[0] = sums[TFB_CHUNK] = 0;
    tfb_dot2(x, row, next, taps, 0, sums);
  }
}

/* Stores the outputs of n positions for some filters. */
static TFB_APART void tfb_byte_tile(const tfb_conv *op, const tfb_block *block,
                                    const int8_t *scratch, int32_t filters, const int8_t *x,
                                    int32_t n, int8_t *out) {
  const int8_t *row = block->rows;
  int32_t sums[2 * TFB_CHUNK], i;
  for (; filters > 0; filters -= 2, scratch += block->size, out += 2) {
    const tfb_scales *scales = (const tfb_scales *)(const void *)scratch;
    tfb_two_sums(block, row ? row : scratch + 4 * TFB_TWO_SCALES, filters, x, n, sums);
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

/* Runs a block of filters over all positions: a pixel each, where they lie, or patches of the
 * image, some at a time. */
static TFB_APART void tfb_byte_positions(const tfb_conv *op, const tfb_block *block,
                                         const int8_t *scratch, int32_t filters, const int8_t *in,
                                         int8_t *out, int8_t *patches, int32_t room) {
  int32_t left = op->batch * op->out_h * op->out_w, ox = 0, oy = 0, n, i;
  int32_t image = op->in_h * op->in_w * op->in_c;
  for (; left > 0; left -= n, out += n * op->out_c) {
    n = tfb_min(left, room);
    if (!patches) {
      tfb_byte_tile(op, block, scratch, filters, in, n, out);
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
    tfb_byte_tile(op, block, scratch, filters, patches, n, out);
  }
}

/* Two filters, or one twice, as a block has them. */
static TFB_APART void tfb_two_byte_rows(const tfb_conv *op, tfb_rows *rows, const tfb_block *block,
                                        int32_t c, int32_t count, int8_t *to) {
  int32_t taps = block->taps, i;
  tfb_scales *scales = (tfb_scales *)(void *)to;
  int8_t *own = to + 4 * TFB_TWO_SCALES;
  for (i = 0; i < count; i++, own += (taps + 3) & ~3, scales++) {
    tfb_filter filter;
    const int8_t *codes = rows->row_of(rows->source, c + i, &rows->stream, own, taps);
    if (!block->rows && codes != own) memcpy(own, codes, (size_t)taps);
    filter = tfb_filter_with(op, c + i, codes, taps);
    scales->factor = filter.factor;
    scales->base = filter.base;
    scales->multiplier = filter.multiplier;
    scales->exponent = filter.exponent;
  }
}

/* A convolution in blocks of filters: as many pairs as fit where cores with DSP instructions
 * keep so many. `scratch` holds patches, and behind them the block. */
static inline void tfb_byte_blocks(const tfb_conv *op, tfb_rows *rows, const int8_t *in,
                                   int8_t *out, int8_t *scratch, int32_t pairs) {
  int32_t taps = op->k_h * op->k_w * op->in_c, length = (taps + 3) & ~3, c, i, most;
  int32_t flat = op->k_h * op->k_w * op->stride_h * op->stride_w == 1;
  int32_t kept = flat ? 0 : tfb_max(4, tfb_min(TFB_CHUNK, 512 / length & ~3));
  int32_t wide = 4 * ((taps + 1) & ~1), room = wide + pairs * (wide + 40) - kept * length;
  int8_t *first = scratch + kept * length;
  tfb_block block;
  block.rows = 0;
  block.taps = taps;
  block.step = flat ? taps : length;
  block.size = 4 * TFB_TWO_SCALES + 2 * length;
  if (rows->row_of == tfb_plain_row) {
    block.size = 4 * TFB_TWO_SCALES;
    block.rows = (const int8_t *)rows->stream.next;
  }
  most = 2 * tfb_max(1, room / block.size);
  for (c = rows->first; c < rows->last; c += most) {
    int32_t n = tfb_min(most, rows->last - c);
    for (i = 0; i < n; i += 2) {
      tfb_two_byte_rows(op, rows, &block, c + i, tfb_min(2, n - i), first + i / 2 * block.size);
    }
    tfb_byte_positions(op, &block, first, n, in, out + c, flat ? 0 : scratch,
                       flat ? TFB_CHUNK : kept);
    if (block.rows) block.rows += n * taps;
  }
}

/* A convolution by either way. Where the tile is written by hand, codes of 8 bits take a word
 * each if the memory holds all filters so, or not much fewer than a block has. */
static inline void tfb_blocks(const tfb_conv *op, tfb_rows *rows, const int8_t *in, int8_t *out,
                              int8_t *scratch, int32_t pairs) {
#if TFB_BY_HAND
  int32_t taps = op->k_h * op->k_w * op->in_c, wide = 4 * ((taps + 1) & ~1), size = 8 * taps;
  int32_t words = (wide + pairs * (wide + 40) - size) / (size + 40);
  if (op->bits == 8 && (words >= 4 || 2 * words >= rows->last - rows->first)) {
    tfb_pair_blocks(op, rows, in, out, scratch, words);
    return;
  }
#endif
  if (op->bits < 8) {
    tfb_pair_blocks(op, rows, in, out, scratch, pairs);
  } else {
    tfb_byte_blocks(op, rows, in, out, scratch, pairs);
  }
}

#endif
