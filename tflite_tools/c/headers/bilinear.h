/* ---- RESIZE_BILINEAR ---- */

/* The row and the column at or before each output's place, and its share of the one behind, in
 * units of 1/1024. */
typedef struct {
  const uint16_t *rows, *columns, *row_shares, *column_shares;
  uint16_t batch, in_h, in_w, channels, out_h, out_w;
} tfb_bilinear;

static inline void tfb_resize_bilinear(const tfb_bilinear *op, const int8_t *in, int8_t *out) {
  int32_t b, y, x, c;
  for (b = 0; b < op->batch; b++, in += op->in_h * op->in_w * op->channels) {
    for (y = 0; y < op->out_h; y++) {
      int32_t low = op->row_shares[y], high = 1024 - low;
      const int8_t *row = in + op->rows[y] * op->in_w * op->channels;
      const int8_t *next = low ? row + op->in_w * op->channels : row;
      for (x = 0; x < op->out_w; x++) {
        int32_t right = op->column_shares[x], left = 1024 - right;
        int32_t first = op->columns[x] * op->channels, ahead = right ? op->channels : 0;
        for (c = first; c < first + op->channels; c++) {
          int32_t sum = (row[c] * left + row[c + ahead] * right) * high;
          sum += (next[c] * left + next[c + ahead] * right) * low;
          *out++ = (int8_t)((sum + (sum > 0 ? 1 << 19 : -(1 << 19))) / (1 << 20));
        }
      }
    }
  }
}
