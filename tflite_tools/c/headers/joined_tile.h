/* ---- Tiles of pairs of filters, on cores that have neither DSP instructions nor Helium ---- */

#if TFB_JOINS

/* Stores the outputs of two positions, `next` apart, for pairs of filters. The last rounding
 * takes 1 off a negative number; it may go by the sign before the product, for 0 is rounded to 0
 * either way. */
#if TFB_BY_HAND
#define TFB_PAIR(w0, w1)              \
  "ldrd r6, %[b], [%[x]], #8\n"       \
  "mla %[s0], r6, " w0 ", %[s0]\n"    \
  "mla %[s1], r6, " w1 ", %[s1]\n"    \
  "mla %[s2], %[b], " w0 ", %[s2]\n"  \
  "mla %[s3], %[b], " w1 ", %[s3]\n"
#define TFB_TWO_PAIRS "ldm %[w]!, {r2, r3, r4, r5}\n" TFB_PAIR("r2", "r3") TFB_PAIR("r4", "r5")
#define TFB_SCALE(s, t)              \
  "ldm %[w]!, {r2, r3, r4, r5, r6}\n" \
  "mla " s ", " s ", r2, r3\n"       \
  "mla " t ", " t ", r2, r3\n"       \
  "mov r2, #0x80000000\n"            \
  "add r3, r5, " s ", asr #31\n"     \
  "smlal r2, r3, " s ", r4\n"        \
  "mov r2, #0x80000000\n"            \
  "asr " s ", r3, r6\n"              \
  "add r3, r5, " t ", asr #31\n"     \
  "smlal r2, r3, " t ", r4\n"        \
  "asr " t ", r3, r6\n"
#define TFB_FOURS 0
#define TFB_LIMIT(s) "cmp " s ", r2\nit lt\nmovlt " s ", r2\ncmp " s ", r3\nit gt\nmovgt " s ", r3\n"
#define TFB_UPPER_HALVES              \
  "asrs %[s0], %[s0], #16\n"         \
  "asrs %[s1], %[s1], #16\n"         \
  "asrs %[s2], %[s2], #16\n"         \
  "asrs %[s3], %[s3], #16\n"
/* A part of sums that do not fit 16 bits: the last one, or more are summed up. */
#define TFB_PARTS_OF_SUMS        \
  "ldrd r2, r3, %[sums]\n"      \
  "ldrd r4, r5, %[sums2]\n"     \
  "add %[s0], r2\n"             \
  "add %[s1], r3\n"             \
  "add %[s2], r4\n"             \
  "add %[s3], r5\n"             \
  "movs r2, #0\n"               \
  "ldr r4, %[behind]\n"         \
  "mov r3, r2\n"                \
  "cmp %[x], r4\n"              \
  "itt eq\n"                    \
  "strdeq r2, r3, %[sums]\n"    \
  "strdeq r2, r3, %[sums2]\n"   \
  "beq 7f\n"                    \
  "strd %[s0], %[s1], %[sums]\n" \
  "strd %[s2], %[s3], %[sums2]\n" \
  "ldr %[n], %[most]\n"         \
  "b 8b\n"                      \
  "7:\n"
/* What a tile is made of: `taps` are summed first, then `most` at a time, from `sums` on. */
typedef struct {
  const uint32_t *x;
  int32_t taps;
  int8_t *out;
  int32_t next;
  const int8_t *end;
  int32_t limits[2], clipped, sums[4], most;
  const uint32_t *behind;
} tfb_tile_parts;

/* What sums begin with, and what is left of them when all is summed up. */
#define TFB_TILE(name, first, sums_of)                                                             \
  static TFB_APART void name(tfb_tile_parts kept, const uint32_t *w) {                             \
    int32_t n, b, s0, s1, s2, s3;                                                                  \
    const uint32_t *x;                                                                             \
    __asm__ volatile(                                                                              \
        "1: ldrd %[x], %[n], %[from]\n"                                                           \
        "8: " first                                                                                \
        "mov %[s1], %[s0]\n"                                                                      \
        "mov %[s2], %[s0]\n"                                                                      \
        "mov %[s3], %[s0]\n"                                                                      \
        "subs %[n], #8\n"                                                                         \
        "blt 3f\n"                                                                                \
        "2:\n" /* eight taps */                                                                   \
        TFB_TWO_PAIRS TFB_TWO_PAIRS                                                                \
        "subs %[n], #8\n"                                                                         \
        "bge 2b\n"                                                                                \
        "3: lsls %[n], %[n], #30\n" /* carry if four more are left, negative if two more are */   \
        "bcc 4f\n"                                                                                \
        TFB_TWO_PAIRS                                                                              \
        "4: bpl 5f\n"                                                                             \
        "ldm %[w]!, {r2, r3}\n"                                                                   \
        TFB_PAIR("r2", "r3")                                                                       \
        "5:\n"                                                                                    \
        sums_of                                                                                    \
        TFB_SCALE("%[s0]", "%[s2]")                                                                \
        TFB_SCALE("%[s1]", "%[s3]")                                                                \
        "ldr r2, %[clipped]\n"                                                                    \
        "cbz r2, 6f\n"                                                                            \
        "ldrd r2, r3, %[limits]\n"                                                                \
        TFB_LIMIT("%[s0]") TFB_LIMIT("%[s1]") TFB_LIMIT("%[s2]") TFB_LIMIT("%[s3]")                \
        "6: ldrd r2, r3, %[to]\n"                                                                 \
        "ssat %[s0], #8, %[s0]\n"                                                                 \
        "ssat %[s1], #8, %[s1]\n"                                                                 \
        "ssat %[s2], #8, %[s2]\n"                                                                 \
        "ssat %[s3], #8, %[s3]\n"                                                                 \
        "strb %[s0], [r2], #1\n"                                                                  \
        "add r3, r2\n"                                                                            \
        "strb %[s1], [r2], #1\n"                                                                  \
        "ldr r4, %[end]\n"                                                                        \
        "strb %[s2], [r3, #-1]\n"                                                                 \
        "strb %[s3], [r3]\n"                                                                      \
        "str r2, %[to]\n"                                                                         \
        "cmp r2, r4\n"                                                                            \
        "bne 1b\n"                                                                                \
        : [w] "+r"(w), [x] "=&r"(x), [n] "=&r"(n), [s0] "=&l"(s0), [s1] "=&r"(s1),                 \
          [s2] "=&r"(s2), [s3] "=&r"(s3), [b] "=&r"(b), [to] "+m"(kept.out),                       \
          [sums] "+m"(kept.sums[0]), [sums2] "+m"(kept.sums[2])                                    \
        : [from] "m"(kept.x), [end] "m"(kept.end), [limits] "m"(kept.limits[0]),                   \
          [clipped] "m"(kept.clipped), [most] "m"(kept.most), [behind] "m"(kept.behind)            \
        : "r2", "r3", "r4", "r5", "r6", "cc", "memory");                                           \
  }
TFB_TILE(tfb_byte_tile_of, "movs %[s0], #0\n", "")
TFB_TILE(tfb_short_tile_of, "mvn %[s0], #0x7f80\n", TFB_UPPER_HALVES)
TFB_TILE(tfb_long_tile_of, "mvn %[s0], #0x7f80\n", TFB_UPPER_HALVES TFB_PARTS_OF_SUMS)

static TFB_APART void tfb_tile(const tfb_conv *op, const uint32_t *w, const uint32_t *x,
                               int32_t taps, int32_t pairs, int8_t *out, int32_t next) {
  tfb_tile_parts kept;
  if (pairs == 0) return;
  kept.x = x;
  kept.taps = taps;
  kept.out = out;
  kept.next = next;
  kept.end = out + 2 * pairs;
  kept.limits[0] = op->low;
  kept.limits[1] = op->high;
  kept.clipped = op->low > -128 || op->high < 127;
  kept.most = tfb_most_taps(op->bits);
  if (op->bits == 8) {
    tfb_byte_tile_of(kept, w);
  } else if (taps <= kept.most) {
    tfb_short_tile_of(kept, w);
  } else {
    kept.taps = (taps - 1) % kept.most + 1;
    kept.behind = x + taps;
    kept.sums[0] = kept.sums[1] = kept.sums[2] = kept.sums[3] = 0;
    tfb_long_tile_of(kept, w);
  }
}
#undef TFB_TILE
#else
#define TFB_FOURS 1 /* tfb_tile4 makes four positions at a time */

/* What is stored for a sum. */
static TFB_INSIDE int32_t tfb_scaled(const tfb_scales *scales, int32_t sum, int32_t low,
                                     int32_t high, int32_t rectifies) {
  uint32_t product = (uint32_t)sum * (uint32_t)scales->factor;
  int32_t twice = (int32_t)(product + (uint32_t)scales->base), offset = scales->offset;
  int32_t multiplier = scales->multiplier, exponent = scales->exponent;
  if (rectifies) return tfb_rectified(twice, multiplier, offset, exponent, low, high);
  twice = tfb_product_plus(twice, multiplier, offset + (twice >> 31)) >> exponent;
  return tfb_clamp(twice, low, high);
}

/* A word of each position with those of two filters. */
#define TFB_TAPS(k)                                                           \
  do {                                                                        \
    const uint32_t *p = x + positions * (k);                                  \
    uint32_t word = w[2 * (k)], other = w[2 * (k) + 1];                       \
    s0 = tfb_mla(s0, p[0], word), t0 = tfb_mla(t0, p[0], other);              \
    s1 = tfb_mla(s1, p[1], word), t1 = tfb_mla(t1, p[1], other);              \
    if (positions == 4) {                                                     \
      s2 = tfb_mla(s2, p[2], word), t2 = tfb_mla(t2, p[2], other);            \
      s3 = tfb_mla(s3, p[3], word), t3 = tfb_mla(t3, p[3], other);            \
    }                                                                         \
    TFB_LOADS_STAY;                                                           \
  } while (0)
#define TFB_EACH(sums)                          \
  do {                                          \
    sums(0, s0), sums(1, s1), sums(4, t0), sums(5, t1); \
    if (positions == 2) break;                  \
    sums(2, s2), sums(3, s3), sums(6, t2), sums(7, t3); \
  } while (0)
#define TFB_KEEP(i, sum) parts[i] += (int32_t)(sum) >> 16
#define TFB_WHOLE(i, sum) sum = (uint32_t)(parts[i] + ((int32_t)(sum) >> 16))
#define TFB_UPPER(i, sum) sum = (uint32_t)((int32_t)(sum) >> 16)
#define TFB_STORE(position, s, t)                                                      \
  do {                                                                                 \
    int8_t *to = out + (position) * next;                                              \
    to[0] = (int8_t)tfb_scaled(&first, (int32_t)(s), low, high, rectifies);            \
    to[1] = (int8_t)tfb_scaled(&second, (int32_t)(t), low, high, rectifies);           \
  } while (0)

/* The tile of so many positions; what does not fit 16 bits is summed in parts, which lie in
 * memory. */
static TFB_INSIDE void tfb_tile_of(const tfb_conv *op, const uint32_t *w, const uint32_t *inputs,
                                   int32_t taps, int32_t pairs, int8_t *out, int32_t next,
                                   int32_t positions, int32_t rectifies) {
  int32_t most = tfb_most_taps(op->bits), low = op->low, high = op->high, parts[8];
  tfb_in_memory(parts);
  for (; pairs > 0; pairs--, out += 2) {
    const uint32_t *x = inputs;
    int32_t left = taps, adds = 0;
    tfb_scales first, second;
    uint32_t s0, s1, s2, s3, t0, t1, t2, t3;
    for (;;) {
      const uint32_t *end = w + tfb_min(left, most), *last = end - 7;
      s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = TFB_JOINED;
      while (w < last) {
        TFB_TAPS(0);
        TFB_TAPS(1);
        TFB_TAPS(2);
        TFB_TAPS(3);
        w += 8, x += 4 * positions;
        TFB_IN_REGISTERS(x, w);
      }
      while (w != end) {
        TFB_TAPS(0);
        w += 2, x += positions;
        TFB_IN_REGISTERS(x, w);
      }
      left -= most;
      if (left <= 0) break;
      if (!adds) memset(parts, 0, sizeof(parts));
      TFB_EACH(TFB_KEEP);
      adds = 1;
    }
    if (adds) {
      TFB_EACH(TFB_WHOLE);
    } else {
      TFB_EACH(TFB_UPPER);
    }
    first = ((const tfb_scales *)(const void *)w)[0];
    second = ((const tfb_scales *)(const void *)w)[1];
    w += TFB_TWO_SCALES;
    TFB_STORE(0, s0, t0);
    TFB_STORE(1, s1, t1);
    if (positions == 2) continue;
    TFB_STORE(2, s2, t2);
    TFB_STORE(3, s3, t3);
  }
}
#undef TFB_TAPS
#undef TFB_EACH
#undef TFB_KEEP
#undef TFB_WHOLE
#undef TFB_UPPER
#undef TFB_STORE

static TFB_APART void tfb_tile(const tfb_conv *op, const uint32_t *w, const uint32_t *x,
                               int32_t taps, int32_t pairs, int8_t *out, int32_t next) {
  tfb_tile_of(op, w, x, taps, pairs, out, next, 2, 0);
}

/* The same of four positions, whose inputs lie by fours. */
static TFB_APART void tfb_tile4(const tfb_conv *op, const uint32_t *w, const uint32_t *x,
                                int32_t taps, int32_t pairs, int8_t *out) {
  if (tfb_rectifies(op)) {
    tfb_tile_of(op, w, x, taps, pairs, out, op->out_c, 4, 1);
  } else {
    tfb_tile_of(op, w, x, taps, pairs, out, op->out_c, 4, 0);
  }
}
#endif
#endif
