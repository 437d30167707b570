/* ---- Filters that are used once, with Helium ---- */

#if TFB_MVE

/* What is summed over a filter: codes times inputs; both with their signs turned, which makes them
 * larger by 128 and never negative; or codes alone. */
enum { TFB_PRODUCTS, TFB_RAISED, TFB_CODES };

/* Inputs in the order in which tfb_arrange puts them for lanes of packed codes; how far the second to
 * fourth of four filters lie behind the one before, and the next four; where codes are read and sums
 * go, of so many filters, what these begin with, and the bytes of a filter. */
typedef struct {
  const int8_t *x;
  int32_t lanes, steps[4];
  const uint8_t *codes;
  int32_t *sums, count, start, kind, bytes;
} tfb_inputs;

/* Makes the sums of in->count filters, four at a time. */
typedef void (*tfb_sum_blocks)(tfb_inputs *in);

/* Where the bytes of the first words of four blocks of 12 bytes lie, then those of the second ones. */
static const uint8_t tfb_places[32] = {0, 1, 2, 3, 12, 13, 14, 15, 24, 25, 26, 27, 36, 37, 38, 39,
                                       4, 5, 6, 7, 16, 17, 18, 19, 28, 29, 30, 31, 40, 41, 42, 43};

/* Runs loops over sixteen lanes of packed codes of filters at p, q, r and s, with what `first` sets up;
 * behind the last lane LETP leaves lanes out. */
#define TFB_FOUR_FILTERS(first, body)                                                          \
  __asm__ volatile(first                                                                       \
                   "2: ldrd %[q], %[r], [%[in], #8]\n"                                         \
                   "ldrd %[s], %[d], [%[in], #16]\n"                                           \
                   "ldr %[p], [%[in], #24]\n"                                                  \
                   "ldrd %[x], %[b], [%[in]]\n"                                                \
                   "add %[q], %[p]\n"                                                          \
                   "add %[r], %[q]\n"                                                          \
                   "add %[s], %[r]\n"                                                          \
                   "add %[d], %[s]\n"                                                          \
                   "str %[d], [%[in], #24]\n"                                                  \
                   "dlstp.8 lr, %[b]\n"                                                        \
                   "ldr %[a], [%[in], #36]\n"                                                  \
                   "mov %[b], %[a]\n"                                                          \
                   "mov %[c], %[a]\n"                                                          \
                   "mov %[d], %[a]\n"                                                          \
                   "1:\n" body "letp lr, 1b\n"                                                 \
                   "ldrd %[p], %[q], [%[in], #28]\n"                                           \
                   "strd %[a], %[b], [%[p]], #8\n"                                             \
                   "strd %[c], %[d], [%[p]], #8\n"                                             \
                   "subs %[q], #4\n"                                                           \
                   "strd %[p], %[q], [%[in], #28]\n"                                           \
                   "bgt 2b\n"                                                                  \
                   : [a] "=&Te"(a), [b] "=&Te"(b), [c] "=&Te"(c), [d] "=&Te"(d), [p] "=&r"(p), \
                     [q] "=&r"(q), [r] "=&r"(r), [s] "=&r"(s), [x] "=&r"(x)                    \
                   : [in] "r"(in), [places] "r"(tfb_places)                                    \
                   : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "cc", "memory")

/* The three kinds of sums, of which `of` makes a loop with an instruction for inputs in q4, one for
 * codes that are raised, and one that sums codes. */
#define TFB_SUMS_OF_KIND(first, of)                                                    \
  int32_t a, b, c, d;                                                                  \
  const int8_t *x;                                                                     \
  const uint8_t *p, *q, *r, *s;                                                        \
  if (in->kind == TFB_PRODUCTS) {                                                      \
    TFB_FOUR_FILTERS(first, of(TFB_NEXT_INPUTS, TFB_AS_IS, TFB_MULTIPLIED));           \
  } else if (in->kind == TFB_RAISED) {                                                 \
    TFB_FOUR_FILTERS(first, of(TFB_NEXT_INPUTS, TFB_TURNED, TFB_MULTIPLIED_UNSIGNED)); \
  } else {                                                                             \
    TFB_FOUR_FILTERS(first, of(TFB_NO_INPUTS, TFB_AS_IS, TFB_SUMMED));                 \
  }

#define TFB_NEXT_INPUTS(to) "vldrb.8 " to ", [%[x]], #16\n"
#define TFB_NO_INPUTS(to)
#define TFB_AS_IS(codes)
#define TFB_TURNED(codes) "veor " codes ", " codes ", q7\n"
#define TFB_MULTIPLIED(sum, x, codes) "vmladava.s8 %[" sum "], " x ", " codes "\n"
#define TFB_MULTIPLIED_UNSIGNED(sum, x, codes) "vmladava.u8 %[" sum "], " x ", " codes "\n"
#define TFB_SUMMED(sum, x, codes) "vaddva.s8 %[" sum "], " codes "\n"

/* Codes of 8 bits. */
#define TFB_ONE_OF_8(filter, sum, turn, add) \
  "vldrb.8 q0, [%[" filter "]], #16\n" turn("q0") add(sum, "q4", "q0")
#define TFB_LOOP_OF_8(next, turn, add)                                              \
  next("q4") TFB_ONE_OF_8("p", "a", turn, add) TFB_ONE_OF_8("q", "b", turn, add)    \
      TFB_ONE_OF_8("r", "c", turn, add) TFB_ONE_OF_8("s", "d", turn, add)
static TFB_APART void tfb_blocks8(tfb_inputs *in) {
  TFB_SUMS_OF_KIND("vmov.i8 q7, #0x80\n", TFB_LOOP_OF_8)
}

/* Bytes with several codes each, of four filters. */
#define TFB_FOUR_BYTES(turn)                                                     \
  "vldrb.8 q0, [%[p]], #16\n" turn("q0") "vldrb.8 q1, [%[q]], #16\n" turn("q1")  \
  "vldrb.8 q2, [%[r]], #16\n" turn("q2") "vldrb.8 q3, [%[s]], #16\n" turn("q3")
/* The codes at the lower end of these bytes; `shift` takes them to the upper end. */
#define TFB_LOWEST_OF(shift, codes, sum, add) \
  "vshl.i8 q5, " codes ", #" shift "\n" add(sum, "q4", "q5")
#define TFB_LOWEST(shift, next, add)                                                      \
  next("q4") TFB_LOWEST_OF(shift, "q0", "a", add) TFB_LOWEST_OF(shift, "q1", "b", add)    \
      TFB_LOWEST_OF(shift, "q2", "c", add) TFB_LOWEST_OF(shift, "q3", "d", add)
/* Those between. */
#define TFB_MIDDLE_OF(shift, codes, sum, add) \
  "vshl.i8 q5, " codes ", #" shift "\nvand q5, q5, q6\n" add(sum, "q4", "q5")
#define TFB_MIDDLE(shift, next, add)                                                      \
  next("q4") TFB_MIDDLE_OF(shift, "q0", "a", add) TFB_MIDDLE_OF(shift, "q1", "b", add)    \
      TFB_MIDDLE_OF(shift, "q2", "c", add) TFB_MIDDLE_OF(shift, "q3", "d", add)
/* Those at the upper end. */
#define TFB_HIGHEST_OF(codes, sum, add) "vand q5, " codes ", q6\n" add(sum, "q4", "q5")
#define TFB_HIGHEST(next, add)                                                 \
  next("q4") TFB_HIGHEST_OF("q0", "a", add) TFB_HIGHEST_OF("q1", "b", add)     \
      TFB_HIGHEST_OF("q2", "c", add) TFB_HIGHEST_OF("q3", "d", add)

#define TFB_LOOP_OF_4(next, turn, add) \
  TFB_FOUR_BYTES(turn) TFB_LOWEST("4", next, add) TFB_HIGHEST(next, add)
static TFB_APART void tfb_blocks4(tfb_inputs *in) {
  TFB_SUMS_OF_KIND("vmov.i8 q6, #0xf0\nvmov.i8 q7, #0x88\n", TFB_LOOP_OF_4)
}
#define TFB_LOOP_OF_2(next, turn, add)                                                     \
  TFB_FOUR_BYTES(turn) TFB_LOWEST("6", next, add) TFB_MIDDLE("4", next, add)               \
      TFB_MIDDLE("2", next, add) TFB_HIGHEST(next, add)
static TFB_APART void tfb_blocks2(tfb_inputs *in) {
  TFB_SUMS_OF_KIND("vmov.i8 q6, #0xc0\nvmov.i8 q7, #0xaa\n", TFB_LOOP_OF_2)
}

/* Words of four blocks of 12 bytes each, by where their bytes lie (q5 the first, q6 the second), and
 * of what a group of 128 codes has in them two times 16 in the lower bits. Inputs are in q0 and q1. */
#define TFB_LOWER_OF(places, filter, sum, turn, add)             \
  "vldrb.u8 q2, [%[" filter "], " places "]\n"                   \
  "vshl.i8 q3, q2, #5\n" turn("q3") add(sum, "q0", "q3")         \
  "vshl.i8 q3, q2, #2\nvand q3, q3, q4\n" turn("q3") add(sum, "q1", "q3")
#define TFB_LOWER(places, next, turn, add)                                                        \
  next("q0") next("q1") TFB_LOWER_OF(places, "p", "a", turn, add)                                 \
      TFB_LOWER_OF(places, "q", "b", turn, add) TFB_LOWER_OF(places, "r", "c", turn, add)         \
          TFB_LOWER_OF(places, "s", "d", turn, add)
/* Those whose two upper bits are in the first or third word, the lowest one in the second. */
#define TFB_UPPER_OF(places, second, shift, filter, sum, turn, add)   \
  "vldrb.u8 q2, [%[" filter "], " places "]\n"                        \
  "vldrb.u8 q3, [%[" filter "], " second "]\n" shift                  \
  "vsri.8 q2, q3, #2\nvand q2, q2, q4\n" turn("q2") add(sum, "q0", "q2")
#define TFB_UPPER(places, second, shift, next, turn, add)                       \
  next("q0") TFB_UPPER_OF(places, second, shift, "p", "a", turn, add)           \
      TFB_UPPER_OF(places, second, shift, "q", "b", turn, add)                  \
          TFB_UPPER_OF(places, second, shift, "r", "c", turn, add)              \
              TFB_UPPER_OF(places, second, shift, "s", "d", turn, add)
#define TFB_ALL_ON(bytes) \
  "add %[p], #" bytes "\nadd %[q], #" bytes "\nadd %[r], #" bytes "\nadd %[s], #" bytes "\n"
#define TFB_LOOP_OF_3(next, turn, add)                                                         \
  TFB_LOWER("q5", next, turn, add) TFB_LOWER("q6", next, turn, add)                            \
      TFB_UPPER("q5", "q6", "vshl.i8 q3, q3, #1\n", next, turn, add) TFB_ALL_ON("4")           \
          TFB_LOWER("q6", next, turn, add) TFB_UPPER("q6", "q5", "", next, turn, add) TFB_ALL_ON("44")
static TFB_APART void tfb_blocks3(tfb_inputs *in) {
  TFB_SUMS_OF_KIND("vmov.i8 q4, #0xe0\nvmov.i8 q7, #0x80\nvldrb.8 q5, [%[places]]\n"
                   "vldrb.8 q6, [%[places], #16]\n", TFB_LOOP_OF_3)
}

/* Inputs as the loops above load them: the same four of each of four blocks, fours in turn, but those
 * whose codes of 3 bits are parted one after the other with others of their words. `turned` is what
 * turns their signs, or 0. What is behind the last block are bytes whose codes are in order; of 3 bits
 * it is left out. Returns the inputs that are taken. */
static TFB_APART int32_t tfb_arrange(const int8_t *x, int32_t taps, int32_t bits, int8_t turned,
                                     int8_t *to) {
  static const uint8_t fours[8] = {0, 1, 2, 3, 6, 4, 5, 7};
  int32_t each = 8 / bits, fourths = bits == 3 ? 8 : each, block = 4 * fourths, i, k;
  int32_t blocks = taps / block, taken = blocks * block;
  int8x16_t sign = vdupq_n_s8(turned);
  uint8x16_t lane = vidupq_n_u8(0, 1);
  uint8x16_t places = vmulq_n_u8(vshrq_n_u8(lane, 2), (uint8_t)block);
  if (bits == 8) {
    for (i = 0; i < taps; i += 16) {
      mve_pred16_t left = vctp8q((uint32_t)(taps - i));
      vstrbq_p_s8(to + i, veorq_s8(vldrbq_z_s8(x + i, left), sign), left);
    }
    return taps;
  }
  places = vaddq_u8(places, vandq_u8(lane, vdupq_n_u8(3)));
  for (; blocks > 0; blocks -= 4, x += 4 * block, to += 4 * block) {
    mve_pred16_t left = vctp8q(4 * (uint32_t)blocks);
    for (k = 0; k < fourths; k++) {
      const int8_t *four = x + 4 * (bits == 3 ? fours[k] : k);
      int8x16_t some = veorq_s8(vldrbq_gather_offset_z_s8(four, places, left), sign);
      vstrbq_p_s8(to + 16 * k, some, left);
    }
  }
  if (bits == 3 || taken == taps) return taken;
  if (blocks < 0) { /* the last group has room */
    x += blocks * block;
    to += blocks * 4 + 16 - 4 * block;
  }
  for (i = 0; i < (taps - taken) / each; i++, x += each, to++) {
    for (k = 0; k < each; k++) to[16 * k] = x[k] ^ turned;
  }
  return taps;
}

/* Adds the products of the n codes of 3 bits behind the last block of each filter, eight in 3 bytes at
 * a time, as they are in the upper bits of a byte. */
static TFB_APART void tfb_rest_of_3(const tfb_conv *op, const uint8_t *codes, int32_t bytes,
                                    int32_t filters, const int8_t *x, int32_t n, int32_t *sums) {
  uint16x8_t bit = vmulq_n_u16(vidupq_n_u16(0, 1), 3), low = vshrq_n_u16(bit, 3);
  uint16x8_t high = vminq_u16(vaddq_n_u16(low, 1), vdupq_n_u16(2));
  int16x8_t up = vreinterpretq_s16_u16(vandq_u16(bit, vdupq_n_u16(7)));
  int32_t zero = tfb_zero(op), i;
  up = vsubq_s16(vdupq_n_s16(13), up);
  for (; filters > 0; filters--, codes += bytes) {
    int32_t sum = 0;
    for (i = 0; i < n; i += 8) {
      const uint8_t *three = codes + i * 3 / 8;
      uint16x8_t pair = vshlq_n_u16(vldrbq_gather_offset_u16(three, high), 8);
      pair = vshlq_u16(vorrq_u16(pair, vldrbq_gather_offset_u16(three, low)), up);
      sum = vmladavaq_s16(sum, vshrq_n_s16(vreinterpretq_s16_u16(pair), 13),
                          vsubq_n_s16(vldrbq_s16(x + i), (int16_t)zero));
    }
    *sums++ += sum * 32;
  }
}

/* The sums of n filters at `codes`; of the last ones, below four, the last is made again. */
static TFB_APART void tfb_sums_of(tfb_inputs *in, tfb_sum_blocks blocks, const uint8_t *codes,
                                  int32_t n, int32_t *sums) {
  int32_t rest = n & 3, i;
  in->codes = codes;
  in->sums = sums;
  in->count = n - rest;
  for (i = 0; i < 4; i++) in->steps[i] = in->bytes;
  if (n > rest) blocks(in);
  for (i = 1; i < 4; i++) in->steps[i - 1] = i < rest ? in->bytes : 0;
  in->count = rest;
  if (rest > 0) blocks(in);
}

/* What turns sums of a chunk of filters into stored values, as in tfb_four. */
typedef struct {
  int32_t bias[TFB_CHUNK], left[TFB_CHUNK], multiplier[TFB_CHUNK], exponent[TFB_CHUNK];
} tfb_chunk;

/* Takes what scales the sums of n filters from c on; if they differ in their biases alone, only these
 * but for the first chunk. */
static TFB_APART void tfb_take_chunk(const tfb_conv *op, int32_t c, int32_t n, tfb_chunk *chunk) {
  int32_t each = op->form & (TFB_EACH_MULTIPLIER | TFB_EACH_SHIFT | TFB_SHORT), i;
  for (i = 0; i < n; i += 4) {
    mve_pred16_t wanted = vctp32q((uint32_t)(n - i));
    if (c == 0 || each) {
      tfb_four four = tfb_four_scales(op, c + i, wanted);
      vstrwq_s32(chunk->bias + i, four.bias);
      vstrwq_s32(chunk->left + i, four.left);
      vstrwq_s32(chunk->multiplier + i, four.multiplier);
      vstrwq_s32(chunk->exponent + i, four.exponent);
    } else {
      vstrwq_s32(chunk->bias + i, tfb_four_biases(op, c + i, wanted));
    }
  }
}

/* Stores what n sums of codes times inputs make, as tfb_four_scaled has it; rows of `chunk` are 128
 * bytes apart. */
static TFB_APART void tfb_store_chunk(const tfb_conv *op, const tfb_chunk *chunk,
                                      const int32_t *sums, int32_t n, int8_t *out) {
  __asm__ volatile(
      "dlstp.32 lr, %[n]\n"
      "1: vldrw.32 q0, [%[sums]], #16\n"
      "vldrw.32 q1, [%[chunk]], #16\n"
      "vshl.s32 q0, %[drop]\n"
      "vmla.s32 q1, q0, %[prescale]\n"
      "vldrw.32 q0, [%[chunk], #112]\n"
      "vshl.s32 q1, q1, q0\n"
      "vldrw.32 q0, [%[chunk], #240]\n"
      "vqrdmulh.s32 q1, q1, q0\n"
      "vldrw.32 q0, [%[chunk], #368]\n"
      "vand q2, q1, q0\n"
      "vshr.s32 q2, q2, #31\n"
      "vadd.i32 q1, q1, q2\n"
      "vrshl.s32 q1, q1, q0\n"
      "vadd.i32 q1, q1, %[zero]\n"
      "vmin.s32 q1, q1, %q[high]\n"
      "vmax.s32 q1, q1, %q[low]\n"
      "vstrb.32 q1, [%[out]], #4\n"
      "letp lr, 1b\n"
      : [sums] "+r"(sums), [chunk] "+r"(chunk), [out] "+l"(out)
      : [n] "r"(n), [drop] "r"(op->bits - 8), [prescale] "r"((int32_t)op->prescale),
        [zero] "r"((int32_t)op->out_zero), [low] "w"(vdupq_n_s32(op->low)),
        [high] "w"(vdupq_n_s32(op->high))
      : "lr", "q0", "q1", "q2", "memory");
}

/* A convolution whose filters each see the whole input, in order; every filter begins with a byte.
 * `scratch` holds the input in the order of the codes; `blocks` is the function for their width. Where
 * biases do not contain what the zero point adds, inputs less it have no sign if it is the least one;
 * else the codes are summed for it. */
static TFB_APART void tfb_dense(const tfb_conv *op, const int8_t *in, int8_t *out, int8_t *scratch,
                                tfb_sum_blocks blocks) {
  int32_t taps = op->in_h * op->in_w * op->in_c, bits = op->bits, zero = tfb_zero(op), c, i;
  int32_t taken = taps, sums[TFB_CHUNK], codes[TFB_CHUNK];
  const uint8_t *next = op->weights;
  tfb_inputs inputs;
  tfb_chunk chunk;
  inputs.x = in;
  if (bits < 8 || zero == -128) {
    inputs.x = scratch;
    taken = tfb_arrange(in, taps, bits, zero == -128 ? -128 : 0, scratch);
  }
  inputs.bytes = taps * bits / 8;
  inputs.lanes = bits == 3 ? taken / 8 : inputs.bytes;
  inputs.start = zero == -128 ? -128 * (tfb_sum(in, taken) + 128 * taken) : 0;
  for (c = 0; c < op->out_c; c += TFB_CHUNK, next += TFB_CHUNK * inputs.bytes) {
    int32_t n = tfb_min(TFB_CHUNK, op->out_c - c);
    memset(sums, 0, sizeof sums);
    inputs.kind = zero == -128 ? TFB_RAISED : TFB_PRODUCTS;
    if (taken > 0) tfb_sums_of(&inputs, blocks, next, n, sums);
    if (taken > 0 && zero != 0 && zero != -128) {
      inputs.kind = TFB_CODES;
      tfb_sums_of(&inputs, blocks, next, n, codes);
      for (i = 0; i < n; i++) sums[i] -= zero * codes[i];
    }
    if (taken < taps) {
      tfb_rest_of_3(op, next + taken * 3 / 8, inputs.bytes, n, in + taken, taps - taken, sums);
    }
    tfb_take_chunk(op, c, n, &chunk);
    tfb_store_chunk(op, &chunk, sums, n, out + c);
  }
}
#endif
