/* ---- Filters as they are stored in the file, and copies, with Helium ---- */

#if TFB_MVE

/* Codes times 2^drop -> codes times the prescale, which are what the file stores; 8 bits hold them. */
static inline int8x16_t tfb_stored(int8x16_t codes, int32_t drop, int8_t prescale) {
  return vmulq_n_s8(vshlq_r_s8(codes, -drop), prescale);
}

static TFB_APART void tfb_store_row(const tfb_conv *op, const int8_t *codes, int8_t *row,
                                    int32_t n) {
  int32_t drop = 8 - op->bits;
  for (; n > 0; n -= 16, codes += 16, row += 16) {
    mve_pred16_t left = vctp8q((uint32_t)n);
    int8x16_t some = tfb_stored(vldrbq_z_s8(codes, left), drop, (int8_t)op->prescale);
    vstrbq_p_s8(row, some, left);
  }
}

/* Runs a loop over whole blocks as tfb_block2, 3 and 4 unpack them, four at a time; behind the last one
 * LETP leaves blocks out. Places of blocks are in q7; rows begin where words do. */
#define TFB_STORE_BLOCKS(body)                                                                \
  __asm__ volatile("dlstp.32 lr, %[blocks]\n1:\n" body "letp lr, 1b\n"                       \
                   : [p] "+r"(p), [row] "+r"(row)                                             \
                   : [blocks] "r"(blocks), [prescale] "r"(prescale), [first] "w"(first),      \
                     [second] "w"(second), [places] "w"(places)                               \
                   : "lr", "q0", "q1", "q2", "q3", "memory")
/* Puts the same four codes of each block, shifted up and down again, which gives them their signs. */
#define TFB_PUT_FOURS(up, down)                \
  up "vshr.s8 q1, q1, #" down "\n"             \
  "vmul.i8 q1, q1, %[prescale]\n"              \
  "vstrw.32 q1, [%[row], %q[places]]\n"        \
  "add %[row], #4\n"
#define TFB_UP(codes, up) "vshl.i8 q1, " codes ", #" up "\n"

static inline void tfb_store_blocks(int32_t bits, const uint8_t *p, int8_t *row, int32_t blocks,
                                    int32_t prescale) {
  static const uint8_t words[16] = {0, 1, 2, 3, 12, 13, 14, 15, 24, 25, 26, 27, 36, 37, 38, 39};
  uint8x16_t first = vldrbq_u8(words), second = vaddq_n_u8(first, 4);
  uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), bits == 4 ? 8 : bits == 3 ? 32 : 16);
  if (bits == 2) {
    TFB_STORE_BLOCKS("vldrb.8 q0, [%[p]], #16\n" TFB_PUT_FOURS(TFB_UP("q0", "6"), "6")
                     TFB_PUT_FOURS(TFB_UP("q0", "4"), "6") TFB_PUT_FOURS(TFB_UP("q0", "2"), "6")
                     TFB_PUT_FOURS("vmov q1, q0\n", "6") "add %[row], #48\n");
  } else if (bits == 4) {
    TFB_STORE_BLOCKS("vldrb.8 q0, [%[p]], #16\n" TFB_PUT_FOURS(TFB_UP("q0", "4"), "4")
                     TFB_PUT_FOURS("vmov q1, q0\n", "4") "add %[row], #24\n");
  } else {
    TFB_STORE_BLOCKS("vldrb.u8 q0, [%[p], %q[first]]\n"
                     "vldrb.u8 q2, [%[p], %q[second]]\n"
                     "add %[p], #4\n"
                     "vldrb.u8 q3, [%[p], %q[second]]\n"
                     TFB_PUT_FOURS(TFB_UP("q0", "5"), "5") TFB_PUT_FOURS(TFB_UP("q0", "2"), "5")
                     TFB_PUT_FOURS(TFB_UP("q2", "5"), "5") TFB_PUT_FOURS(TFB_UP("q2", "2"), "5")
                     TFB_PUT_FOURS(TFB_UP("q3", "5"), "5") TFB_PUT_FOURS(TFB_UP("q3", "2"), "5")
                     TFB_PUT_FOURS(TFB_UP("q2", "1") "vsri.8 q0, q1, #2\nvmov q1, q0\n", "5")
                     TFB_PUT_FOURS("vsri.8 q3, q2, #2\nvmov q1, q3\n", "5")
                     "add %[p], #44\nadd %[row], #96\n");
  }
}

/* n codes in order, whose first begins at a bit of a byte; eight at a time. Only those of 3 bits reach
 * into a second byte, which is there if they do. */
static inline void tfb_store_in_order(const tfb_conv *op, const uint8_t *from, int32_t begin,
                                      int8_t *row, int32_t n) {
  int32_t bits = op->bits, last = (begin + n * bits - 1) / 8;
  uint16x8_t bit = vmulq_n_u16(vidupq_n_u16(0, 1), (uint16_t)bits);
  bit = vaddq_n_u16(bit, (uint16_t)begin);
  for (; n > 0; n -= 8, row += 8, from += bits, last -= bits) {
    mve_pred16_t left = vctp16q((uint32_t)n);
    uint16x8_t place = vshrq_n_u16(bit, 3), code = vldrbq_gather_offset_z_u16(from, place, left);
    int16x8_t up = vreinterpretq_s16_u16(vandq_u16(bit, vdupq_n_u16(7)));
    if (bits == 3) {
      place = vminq_u16(vaddq_n_u16(place, 1), vdupq_n_u16((uint16_t)last));
      code = vorrq_u16(code, vshlq_n_u16(vldrbq_gather_offset_z_u16(from, place, left), 8));
    }
    code = vshlq_u16(code, vsubq_s16(vdupq_n_s16((int16_t)(16 - bits)), up));
    up = vshlq_r_s16(vreinterpretq_s16_u16(code), bits - 16);
    vstrbq_p_s16(row, vmulq_n_s16(up, op->prescale), left);
  }
}

/* The next n codes of a stream, of which no bits but `count` are needed, as the file stores them. */
static TFB_APART void tfb_store_packed(const tfb_conv *op, tfb_stream *stream, int8_t *row,
                                       int32_t n) {
  int32_t bits = op->bits, block = bits == 4 ? 8 : bits == 3 ? 32 : 16, whole = n & -block, end;
  if (stream->count == 0 && whole > 0) {
    tfb_store_blocks(bits, stream->next, row, whole / block, op->prescale);
    stream->next += whole * bits / 8;
    row += whole;
    n -= whole;
  }
  if (n == 0) return;
  stream->next -= stream->count > 0;
  end = (-stream->count & 7) + n * bits;
  tfb_store_in_order(op, stream->next, -stream->count & 7, row, n);
  stream->next += (end + 7) / 8;
  stream->count = -end & 7;
}

/* Whether filters are read where they are packed: their codes are what the file stores. */
static inline int32_t tfb_is_stored(const tfb_conv *op, const tfb_rows *rows) {
  return op->bits == 8 && op->prescale == 1 && rows->row_of == tfb_plain_row;
}

/* The next filter, c, as the file stores it. */
static inline void tfb_next_stored(const tfb_conv *op, tfb_rows *rows, int32_t c, int8_t *row,
                                   int32_t taps) {
  if (op->bits < 8 && rows->row_of == tfb_plain_row) {
    tfb_store_packed(op, &rows->stream, row, taps);
  } else {
    const int8_t *codes = rows->row_of(rows->source, c, &rows->stream, row, taps);
    tfb_store_row(op, codes, row, taps);
  }
}

/* Puts n bytes. */
static inline void tfb_fill(int8_t *to, int8_t value, int32_t n) {
  __asm__ volatile(
      "dlstp.8 lr, %[n]\n"
      "1: vstrb.8 %q[value], [%[to]], #16\n"
      "letp lr, 1b\n"
      : [to] "+r"(to)
      : [n] "r"(n), [value] "w"(vdupq_n_s8(value))
      : "lr", "cc", "memory");
}

/* Copies rows of n bytes, which are `line` apart, to places that are `next` apart; the same for some
 * positions, which are `step` apart, one behind the other. */
static inline void tfb_copy_rows(const int8_t *from, int32_t line, int32_t step, int8_t *to,
                                 int32_t next, int32_t n, int32_t rows, int32_t positions) {
  const int8_t *row, *p;
  int8_t *q;
  int32_t left;
  __asm__ volatile(
      "1: mov %[row], %[from]\n"
      "mov %[left], %[rows]\n"
      "2: mov %[p], %[row]\n"
      "mov %[q], %[to]\n"
      "dlstp.8 lr, %[n]\n"
      "3: vldrb.8 q0, [%[p]], #16\n"
      "vstrb.8 q0, [%[q]], #16\n"
      "letp lr, 3b\n"
      "add %[row], %[line]\n"
      "add %[to], %[next]\n"
      "subs %[left], #1\n"
      "bne 2b\n"
      "add %[from], %[step]\n"
      "subs %[positions], #1\n"
      "bne 1b\n"
      : [to] "+r"(to), [from] "+r"(from), [positions] "+r"(positions), [row] "=&r"(row),
        [left] "=&r"(left), [p] "=&r"(p), [q] "=&r"(q)
      : [n] "r"(n), [line] "r"(line), [next] "r"(next), [step] "r"(step), [rows] "r"(rows)
      : "lr", "q0", "cc", "memory");
}

/* What filters without dilation along rows see: of a row of positions the filter's rows that lie inside
 * the image, from its first column on and the first of these rows, in bytes. */
typedef struct {
  const int8_t *first;
  int32_t x, rows, above, line, across, width, step;
  int8_t zero;
} tfb_windows;

static inline void tfb_put_window(tfb_windows *windows, int32_t taps, int8_t *to) {
  int32_t before = tfb_max(-windows->x, 0), across = windows->across;
  int32_t inside = tfb_min(across, windows->width - windows->x) - before;
  if (inside < across || windows->rows * across < taps) tfb_fill(to, windows->zero, taps);
  if (inside > 0 && windows->rows > 0) {
    tfb_copy_rows(windows->first + windows->x + before, windows->line, 0,
                  to + windows->above + before, across, inside, windows->rows, 1);
  }
  windows->x += windows->step;
}
#endif
