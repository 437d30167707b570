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

/* Puts the same four codes of up to four blocks where the blocks have them. */
static inline void tfb_put_fourth(int8_t *row, uint32x4_t places, uint8x16_t codes, int8_t prescale,
                                  int32_t drop, mve_pred16_t left) {
  int8x16_t some = tfb_stored(vreinterpretq_s8_u8(codes), drop, prescale);
  vstrwq_scatter_offset_p_s32((int32_t *)(void *)row, places, vreinterpretq_s32_s8(some), left);
}

/* Whole blocks as tfb_block2, 3 and 4 unpack them, four at a time; rows begin where words do. */
static TFB_APART void tfb_store_blocks2(const uint8_t *p, int8_t *row, int32_t blocks,
                                        int8_t prescale) {
  uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), 16);
  for (; blocks > 0; blocks -= 4, p += 16, row += 64) {
    mve_pred16_t left = vctp32q((uint32_t)blocks);
    uint8x16_t u = vldrbq_z_u8(p, left);
    tfb_put_fourth(row, places, vshlq_n_u8(u, 6), prescale, 6, left);
    tfb_put_fourth(row + 4, places, vshlq_n_u8(u, 4), prescale, 6, left);
    tfb_put_fourth(row + 8, places, vshlq_n_u8(u, 2), prescale, 6, left);
    tfb_put_fourth(row + 12, places, u, prescale, 6, left);
  }
}
static TFB_APART void tfb_store_blocks4(const uint8_t *p, int8_t *row, int32_t blocks,
                                        int8_t prescale) {
  uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), 8);
  for (; blocks > 0; blocks -= 4, p += 16, row += 32) {
    mve_pred16_t left = vctp32q((uint32_t)blocks);
    uint8x16_t u = vldrbq_z_u8(p, left);
    tfb_put_fourth(row, places, vshlq_n_u8(u, 4), prescale, 4, left);
    tfb_put_fourth(row + 4, places, u, prescale, 4, left);
  }
}

/* Bytes of a word of each of four blocks of 12 bytes. */
static inline uint8x16_t tfb_words_of_blocks(const uint8_t *p, mve_pred16_t left) {
  static const uint8_t words[16] = {0, 1, 2, 3, 12, 13, 14, 15, 24, 25, 26, 27, 36, 37, 38, 39};
  return vldrbq_gather_offset_z_u8(p, vldrbq_u8(words), left);
}
static TFB_APART void tfb_store_blocks3(const uint8_t *p, int8_t *row, int32_t blocks,
                                        int8_t prescale) {
  uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), 32);
  for (; blocks > 0; blocks -= 4, p += 48, row += 128) {
    mve_pred16_t left = vctp32q((uint32_t)blocks);
    uint8x16_t first = tfb_words_of_blocks(p, left), middle = tfb_words_of_blocks(p + 4, left);
    uint8x16_t last = tfb_words_of_blocks(p + 8, left);
    tfb_put_fourth(row, places, vshlq_n_u8(first, 5), prescale, 5, left);
    tfb_put_fourth(row + 4, places, vshlq_n_u8(first, 2), prescale, 5, left);
    tfb_put_fourth(row + 8, places, vshlq_n_u8(middle, 5), prescale, 5, left);
    tfb_put_fourth(row + 12, places, vshlq_n_u8(middle, 2), prescale, 5, left);
    tfb_put_fourth(row + 16, places, vshlq_n_u8(last, 5), prescale, 5, left);
    tfb_put_fourth(row + 20, places, vshlq_n_u8(last, 2), prescale, 5, left);
    first = vsriq_n_u8(first, vshlq_n_u8(middle, 1), 2);
    tfb_put_fourth(row + 24, places, first, prescale, 5, left);
    tfb_put_fourth(row + 28, places, vsriq_n_u8(last, middle, 2), prescale, 5, left);
  }
}

/* The next n codes of a stream, as the file stores them. */
static TFB_APART void tfb_store_packed(const tfb_conv *op, tfb_stream *stream, int8_t *row,
                                       int32_t n) {
  int32_t bits = op->bits, block = bits == 4 ? 8 : bits == 3 ? 32 : 16, whole = n & -block;
  int8_t prescale = (int8_t)op->prescale;
  if (stream->count == 0 && whole > 0) {
    if (bits == 2) {
      tfb_store_blocks2(stream->next, row, whole / block, prescale);
    } else if (bits == 3) {
      tfb_store_blocks3(stream->next, row, whole / block, prescale);
    } else {
      tfb_store_blocks4(stream->next, row, whole / block, prescale);
    }
    stream->next += whole * bits / 8;
    row += whole;
    n -= whole;
  }
  if (n > 0) tfb_store_row(op, tfb_unpack(stream, bits, row, n), row, n);
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

/* Copies some rows of n bytes, which are `line` apart, one behind the other. */
static inline void tfb_copy_rows(int8_t *to, const int8_t *from, int32_t n, int32_t rows,
                                 int32_t line) {
  const int8_t *p;
  int8_t *q;
  __asm__ volatile(
      "1: mov %[p], %[from]\n"
      "mov %[q], %[to]\n"
      "dlstp.8 lr, %[n]\n"
      "2: vldrb.8 q0, [%[p]], #16\n"
      "vstrb.8 q0, [%[q]], #16\n"
      "letp lr, 2b\n"
      "add %[from], %[line]\n"
      "add %[to], %[n]\n"
      "subs %[rows], #1\n"
      "bne 1b\n"
      : [to] "+r"(to), [from] "+r"(from), [rows] "+r"(rows), [p] "=&r"(p), [q] "=&r"(q)
      : [n] "r"(n), [line] "r"(line)
      : "lr", "q0", "cc", "memory");
}
#endif
