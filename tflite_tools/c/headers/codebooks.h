/* ---- Codebooks, signs, and filters of different widths ---- */

/* Weights that are not codes of one width. All else is in `conv`, whose weights are read as codes of
 * 8 bits: each filter is decoded before it is used. */
typedef struct {
  const tfb_conv *conv;
  const int8_t *levels;  /* the codes that indices stand for; null where codes are stored */
  const uint8_t *widths; /* bits of each filter: 0 (codes of 0), 1, 2, 3, 4 or 8; null for `bits` */
  uint8_t bits;          /* 1 without levels is a sign: codes of 1, or -1 where it is set */
  uint8_t stride;        /* how many levels each filter has; 0 if they share all */
} tfb_coded;

/* The next n single bits, each into the upper bit of a byte. */
static inline void tfb_unpack1(tfb_stream *stream, int8_t *row, int32_t n) {
  for (; n >= 8; n -= 8, row += 8, stream->held >>= 8) {
    stream->held |= (uint32_t)*stream->next++ << stream->count;
    tfb_put2(row, (stream->held & 15) * 0x204081u << 7 & 0x80808080u,
             (stream->held >> 4 & 15) * 0x204081u << 7 & 0x80808080u);
  }
  for (; n > 0; n--, stream->held >>= 1, stream->count--) {
    if (stream->count == 0) {
      stream->held = *stream->next++;
      stream->count = 8;
    }
    *row++ = (int8_t)(stream->held << 7);
  }
}

/* The codes of a filter; those of 8 bits begin with a byte and stay where they are. */
static TFB_APART const int8_t *tfb_decode(const tfb_coded *op, int32_t c, tfb_stream *stream,
                                          int8_t *row, int32_t n) {
  int32_t bits = op->widths ? op->widths[c] : op->bits, drop = 8 - bits, i;
  if (bits == 0) return memset(row, 0, (size_t)n);
  if (bits == 8) {
    stream->held = 0;
    stream->count = 0;
    return tfb_unpack(stream, bits, row, n);
  }
  if (bits == 1) {
    tfb_unpack1(stream, row, n);
  } else {
    tfb_unpack(stream, bits, row, n);
  }
  if (op->levels) {
    const int8_t *levels = op->levels + c * op->stride;
    for (i = 0; i < n; i++) row[i] = levels[(uint8_t)row[i] >> drop];
  } else if (bits == 1) {
    for (i = 0; i < n; i++) row[i] = row[i] < 0 ? -1 : 1;
  } else {
    for (i = 0; i < n; i++) row[i] = (int8_t)(row[i] >> drop);
  }
  return row;
}

static inline const int8_t *tfb_coded_row(const void *op, int32_t c, tfb_stream *stream,
                                          int8_t *scratch, int32_t taps) {
  return tfb_decode((const tfb_coded *)op, c, stream, scratch, taps);
}

static TFB_APART void tfb_coded_conv_2d(const tfb_coded *coded, const int8_t *in, int8_t *out,
                                        int8_t *scratch, int32_t pairs) {
  tfb_rows rows = tfb_rows_of(coded->conv, tfb_coded_row, coded);
  tfb_blocks(coded->conv, &rows, in, out, scratch, pairs);
}

#ifdef TFB_GROUPS
static TFB_APART void tfb_coded_grouped_conv_2d(const tfb_coded *coded, const int8_t *in,
                                                int8_t *out, int8_t *scratch, int32_t pairs,
                                                int32_t groups) {
  tfb_rows rows = tfb_rows_of(coded->conv, tfb_coded_row, coded);
  tfb_by_groups(coded->conv, &rows, groups, in, out, scratch, pairs);
}
#endif

static inline void tfb_coded_transpose_conv(const tfb_coded *coded, const int8_t *in, int8_t *out,
                                            int8_t *scratch) {
  tfb_rows rows = tfb_rows_of(coded->conv, tfb_coded_row, coded);
  tfb_filters(coded->conv, tfb_transpose_line, &rows, in, out, scratch);
}

static inline void tfb_coded_depthwise(const tfb_coded *coded, const int8_t *in, int8_t *out,
                                       int8_t *scratch) {
  tfb_rows rows = tfb_rows_of(coded->conv, tfb_coded_row, coded);
  tfb_depthwise_rows(coded->conv, &rows, in, out, scratch);
}
