/* ---- Blocks of filters with Helium ---- */

#if TFB_MVE

/* Positions at a time: six sums, with what is multiplied and where it lies, take all registers. */
#define TFB_SPOTS 3

/* What turns the sums of four filters into stored values, as in tfb_four: the biases of the first, the
 * third, the second and the fourth, and the others in order. */
typedef struct {
  int32_t bias[4], multiplier[4], exponent[4], left[4];
} tfb_lanes;

/* What tfb_tile reads and moves on. The second filter that is summed lies steps[0] behind the first,
 * the next two begin steps[1] behind it; the same for those with steps[2] and [3]. */
typedef struct {
  const int8_t *x[TFB_SPOTS];
  int32_t taps;
  const int8_t *w;
  int32_t steps[4];
  int8_t *out[TFB_SPOTS];
  int32_t zero, filters, careful, low, high;
} tfb_tiles;

/* Two filters at three positions: 96 products take five loads and six VMLADAVA. Behind the last tap
 * LETP leaves lanes out. */
#define TFB_TWO_FILTERS(steps, high, low)              \
  "ldr r7, [%[all], #16]\n"                            \
  "ldrd r6, r8, [%[all], #" steps "]\n"                \
  "ldrd r5, r10, [%[all], #8]\n"                       \
  "ldrd r1, r3, [%[all]]\n"                            \
  "add r9, r7, r6\n"                                   \
  "add r8, r7\n"                                       \
  "str r8, [%[all], #16]\n"                            \
  "ldrd r0, r2, [%[lanes]], #8\n"                      \
  "dlstp.8 lr, r10\n"                                  \
  "mov r4, r0\n"                                       \
  "mov r6, r2\n"                                       \
  "mov r8, r0\n"                                       \
  "mov r10, r2\n"                                      \
  "2: vldrb.8 q0, [r7], #16\n"                         \
  "vldrb.8 q2, [r1], #16\n"                            \
  "vmladava.s8 r0, q0, q2\n"                           \
  "vldrb.8 q1, [r9], #16\n"                            \
  "vmladava.s8 r2, q1, q2\n"                           \
  "vldrb.8 q2, [r3], #16\n"                            \
  "vmladava.s8 r4, q0, q2\n"                           \
  "vmladava.s8 r6, q1, q2\n"                           \
  "vldrb.8 q2, [r5], #16\n"                            \
  "vmladava.s8 r8, q0, q2\n"                           \
  "vmladava.s8 r10, q1, q2\n"                          \
  "letp lr, 2b\n"                                      \
  "vmov q5[" high "], q5[" low "], r0, r2\n"           \
  "vmov q6[" high "], q6[" low "], r4, r6\n"           \
  "vmov q7[" high "], q7[" low "], r8, r10\n"

/* As tfb_four_scaled where no number is shifted left and each is rounded twice, and limited. */
#define TFB_SCALED(q)                    \
  "vqrdmulh.s32 " q ", " q ", q0\n"      \
  "vshr.s32 q2, " q ", #31\n"            \
  "vadd.i32 " q ", " q ", q2\n"          \
  "vrshl.s32 " q ", " q ", q1\n"         \
  "vadd.i32 " q ", " q ", r7\n"          \
  "vmax.s32 " q ", " q ", q3\n"          \
  "vmin.s32 " q ", " q ", q4\n"
/* The same with any numbers. */
#define TFB_SCALED_WITH_CARE(q)          \
  "vldrw.32 q2, [%[lanes], #-16]\n"      \
  "vshl.s32 " q ", " q ", q2\n"          \
  "vqrdmulh.s32 " q ", " q ", q0\n"      \
  "vand q2, " q ", q1\n"                 \
  "vshr.s32 q2, q2, #31\n"               \
  "vadd.i32 " q ", " q ", q2\n"          \
  "vrshl.s32 " q ", " q ", q1\n"         \
  "vadd.i32 " q ", " q ", r7\n"          \
  "vmax.s32 " q ", " q ", q3\n"          \
  "vmin.s32 " q ", " q ", q4\n"

/* Stores what some filters, four at a time, make of three positions. Compilers that keep a frame
 * pointer in r7 cannot be told that it is changed: it is put back. */
static TFB_APART void tfb_tile(tfb_tiles *tiles, const tfb_lanes *first) {
  register tfb_tiles *all __asm__("r11") = tiles;
  register const tfb_lanes *lanes __asm__("r12") = first;
  __asm__ volatile(
      "push {r7}\n"
      "ldrd r0, r2, [%[all], #60]\n"
      "vdup.32 q3, r0\n"
      "vdup.32 q4, r2\n"
      "b 1f\n"
      "3:\n"
      TFB_SCALED_WITH_CARE("q5") TFB_SCALED_WITH_CARE("q6") TFB_SCALED_WITH_CARE("q7")
      "b 4f\n"
      "1:\n"
      TFB_TWO_FILTERS("20", "2", "0")
      TFB_TWO_FILTERS("28", "3", "1")
      "ldrd r0, r2, [%[all], #52]\n"
      "vldrw.32 q0, [%[lanes]], #16\n"
      "vldrw.32 q1, [%[lanes]], #32\n"
      "ldrd r5, r7, [%[all], #44]\n"
      "ldrd r1, r3, [%[all], #36]\n"
      "cmp r2, #0\n"
      "bne 3b\n"
      TFB_SCALED("q5") TFB_SCALED("q6") TFB_SCALED("q7")
      "4: vctp.32 r0\n"
      "vpsttt\n"
      "vstrbt.32 q5, [r1], #4\n"
      "vstrbt.32 q6, [r3], #4\n"
      "vstrbt.32 q7, [r5], #4\n"
      "subs r0, #4\n"
      "strd r1, r3, [%[all], #36]\n"
      "str r5, [%[all], #44]\n"
      "str r0, [%[all], #52]\n"
      "bgt 1b\n"
      "pop {r7}\n"
      : [lanes] "+r"(lanes)
      : [all] "r"(all)
      : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "lr", "q0", "q1", "q2",
        "q3", "q4", "q5", "q6", "q7", "cc", "memory");
}

/* A block of filters, one every `stride` bytes. */
typedef struct {
  const tfb_lanes *lanes;
  const int8_t *w;
  int32_t n, stride, careful;
} tfb_block;

/* Stores the outputs of three positions; the last filters, below four, are no further apart than
 * there are. */
static inline void tfb_tile_block(tfb_tiles *all, const tfb_block *block) {
  int32_t stride = block->stride, whole = block->n & ~3, rest = block->n & 3;
  all->w = block->w;
  all->steps[0] = all->steps[2] = 2 * stride;
  all->steps[1] = stride;
  all->steps[3] = 3 * stride;
  all->filters = whole;
  if (whole > 0) tfb_tile(all, block->lanes);
  if (rest > 0) {
    all->steps[0] = rest == 3 ? 2 * stride : 0;
    all->steps[1] = rest > 1 ? stride : 0;
    all->steps[2] = 0;
    all->filters = rest;
    tfb_tile(all, block->lanes + whole / 4);
  }
}

/* Where what filters see is looked for: the next position of an image. */
typedef struct {
  const int8_t *image;
  int32_t oy, ox, size;
  tfb_range whole; /* positions of the row at which all of the filter lies inside */
  tfb_windows windows;
} tfb_walk;

static inline tfb_walk tfb_begin_walk(const tfb_conv *op, const int8_t *in) {
  tfb_walk walk;
  memset(&walk, 0, sizeof walk);
  walk.image = in;
  walk.size = op->in_h * op->in_w * op->in_c;
  walk.windows.across = op->k_w * op->in_c;
  walk.windows.width = op->in_w * op->in_c;
  walk.windows.line = op->dilation_h * walk.windows.width;
  walk.windows.step = op->stride_w * op->in_c;
  walk.windows.zero = op->in_zero;
  return walk;
}

/* Puts what a filter sees at the next n positions. */
static TFB_APART void tfb_put_windows(const tfb_conv *op, tfb_walk *walk, int32_t taps, int32_t n,
                                      int8_t *to) {
  tfb_windows *windows = &walk->windows;
  while (n > 0) {
    int32_t y = walk->oy * op->stride_h - op->pad_h, some = 1;
    if (op->dilation_w > 1) {
      tfb_spot spot;
      spot.image = walk->image;
      spot.y = y;
      spot.x = walk->ox * op->stride_w - op->pad_w;
      tfb_patch(op, &spot, to);
    } else {
      if (walk->ox == 0) {
        tfb_range rows = tfb_inside(y, op->k_h, op->dilation_h, op->in_h);
        walk->whole = tfb_whole(op, rows);
        windows->x = -op->pad_w * op->in_c;
        windows->rows = rows.last - rows.first;
        windows->above = rows.first * windows->across;
        windows->first = walk->image + (y + rows.first * op->dilation_h) * windows->width;
      }
      if (walk->ox >= walk->whole.first && walk->ox < walk->whole.last) {
        some = tfb_min(n, walk->whole.last - walk->ox);
        tfb_copy_rows(windows->first + windows->x, windows->line, windows->step, to,
                      windows->across, windows->across, op->k_h, some);
        windows->x += some * windows->step;
      } else {
        tfb_put_window(windows, taps, to);
      }
    }
    n -= some;
    to += some * taps;
    walk->ox += some;
    if (walk->ox < op->out_w) continue;
    walk->ox = 0;
    if (++walk->oy < op->out_h) continue;
    walk->oy = 0;
    walk->image += walk->size;
  }
}

/* Runs a block over all positions, three at a time; the last takes the place of those that are not
 * there. `bytes` holds what filters see, unless that is the image as it is. */
static TFB_APART void tfb_positions(const tfb_conv *op, const tfb_block *block, int32_t taps,
                                    const int8_t *in, int8_t *out, int8_t *bytes) {
  int32_t left = op->batch * op->out_h * op->out_w, next = op->out_c, i;
  int32_t flat = op->k_h * op->k_w * op->stride_h * op->stride_w == 1;
  tfb_walk walk = tfb_begin_walk(op, in);
  tfb_tiles all;
  all.taps = taps;
  all.zero = op->out_zero;
  all.careful = block->careful;
  all.low = op->low;
  all.high = op->high;
  for (; left > 0; left -= TFB_SPOTS) {
    int32_t n = tfb_min(left, TFB_SPOTS), step = taps, to = next;
    const int8_t *x = bytes;
    if (flat) {
      x = in;
      in += TFB_SPOTS * taps;
    } else {
      tfb_put_windows(op, &walk, taps, n, bytes);
    }
    for (i = 0; i < TFB_SPOTS; i++, x += step, out += to) {
      if (i == n - 1) step = to = 0;
      all.x[i] = x;
      all.out[i] = out;
    }
    out += next;
    tfb_tile_block(&all, block);
  }
}

/* What scales the sums of n filters from c on, one every `stride` bytes. Returns whether one is not
 * rounded twice, or is shifted left. */
static TFB_APART int32_t tfb_take_lanes(const tfb_conv *op, int32_t c, int32_t n, const int8_t *w,
                                        int32_t stride, int32_t taps, tfb_lanes *lanes) {
  int32_t zero = tfb_zero(op), most = -31, i;
  for (; n > 0; n -= 4, c += 4, lanes++) {
    mve_pred16_t wanted = vctp32q((uint32_t)n);
    tfb_four four = tfb_four_scales(op, c, wanted);
    most = vmaxvq_p_s32(most, four.exponent, wanted);
    vstrwq_s32(lanes->multiplier, four.multiplier);
    vstrwq_s32(lanes->exponent, four.exponent);
    vstrwq_s32(lanes->left, four.left);
    for (i = 0; zero != 0 && i < tfb_min(n, 4); i++, w += stride) {
      lanes->bias[i] = zero * tfb_sum(w, taps);
    }
    if (zero != 0) four.bias = vsubq_s32(four.bias, vldrwq_z_s32(lanes->bias, wanted));
    vstrwq_s32(lanes->bias, four.bias);
    i = lanes->bias[1];
    lanes->bias[1] = lanes->bias[2];
    lanes->bias[2] = i;
  }
  return most == 0;
}

/* A convolution in blocks of filters, as even as can be: as many as fit where other cores keep so many
 * pairs, widened. `scratch` holds what scales their sums, what three filters see, and the filters
 * unless they are read where they are packed. */
static inline void tfb_blocks(const tfb_conv *op, tfb_rows *rows, const int8_t *in, int8_t *out,
                              int8_t *scratch, int32_t pairs) {
  int32_t taps = op->k_h * op->k_w * op->in_c, wide = 4 * ((taps + 1) & ~1), c, i, n;
  int32_t flat = op->k_h * op->k_w * op->stride_h * op->stride_w == 1, size = (taps + 3) & ~3;
  int32_t stored = tfb_is_stored(op, rows), count = rows->last - rows->first;
  int32_t room = wide + pairs * (wide + 40) - (flat ? 0 : TFB_SPOTS * size);
  int32_t most = tfb_max(4, room / (16 + (stored ? 0 : size)) & ~3);
  tfb_lanes *lanes = (tfb_lanes *)(void *)scratch;
  tfb_block block;
  n = (count + most - 1) / most; /* blocks */
  most = ((count + n - 1) / n + 3) & ~3;
  block.lanes = lanes;
  block.stride = stored ? taps : size;
  for (c = rows->first; c < rows->last; c += n) {
    int8_t *bytes = (int8_t *)(lanes + most / 4), *row = bytes + (flat ? 0 : TFB_SPOTS * size);
    n = tfb_min(most, rows->last - c);
    if (stored) {
      block.w = (const int8_t *)rows->stream.next;
      rows->stream.next += n * taps;
    } else {
      block.w = row;
      for (i = 0; i < n; i++, row += size) tfb_next_stored(op, rows, c + i, row, taps);
    }
    block.n = n;
    block.careful = tfb_take_lanes(op, c, n, block.w, block.stride, taps, lanes);
    tfb_positions(op, &block, taps, in, out + c, bytes);
  }
}
#endif
