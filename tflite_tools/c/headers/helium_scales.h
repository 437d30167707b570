/* ---- From sums to stored values with Helium ---- */

#if TFB_MVE

/* What turns the sums of four channels into stored values: (sum + bias) * 2^left * multiplier / 2^31
 * * 2^exponent. Exponents are never positive. */
typedef struct {
  int32x4_t bias, multiplier, exponent, left;
} tfb_four;

/* Three bytes for each of four channels, least significant first, in the upper bits of words. */
static inline uint32x4_t tfb_four_of_three_bytes(const tfb_conv *op, int32_t c,
                                                 mve_pred16_t wanted) {
  const uint8_t *bytes = (const uint8_t *)op->bias + 3 * c;
  uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), 3);
  uint32x4_t word = vldrbq_gather_offset_z_u32(bytes + 2, places, wanted);
  word = vorrq_u32(vshlq_n_u32(word, 8), vldrbq_gather_offset_z_u32(bytes + 1, places, wanted));
  word = vorrq_u32(vshlq_n_u32(word, 8), vldrbq_gather_offset_z_u32(bytes, places, wanted));
  return vshlq_n_u32(word, 8);
}

/* Biases of the channels from c on, unless constants are short. */
static inline int32x4_t tfb_four_biases(const tfb_conv *op, int32_t c, mve_pred16_t wanted) {
  if (op->form & TFB_BIAS16) return vldrhq_z_s32((const int16_t *)op->bias + c, wanted);
  if (op->form & TFB_BIAS24) {
    return vshrq_n_s32(vreinterpretq_s32_u32(tfb_four_of_three_bytes(op, c, wanted)), 8);
  }
  return vldrwq_z_s32((const int32_t *)op->bias + c, wanted);
}

/* Of the channels from c on, as tfb_filter_scales has them for one. */
static inline tfb_four tfb_four_scales(const tfb_conv *op, int32_t c, mve_pred16_t wanted) {
  tfb_four four;
  int32x4_t shift = vdupq_n_s32(op->shift[0]), none = vdupq_n_s32(0);
  if (op->form & TFB_EACH_SHIFT) shift = vldrbq_z_s32(op->shift + c, wanted);
#if TFB_SHORT_CONSTANTS
  if (op->form & TFB_SHORT) {
    uint32x4_t word = tfb_four_of_three_bytes(op, c, wanted);
    uint32x4_t code = vandq_u32(vshrq_n_u32(word, 8), vdupq_n_u32(0xfff));
    int32x4_t above = vreinterpretq_s32_u32(vshlq_r_u32(code, -op->shift[1]));
    code = vandq_u32(vshlq_r_u32(code, 30 - op->shift[1]), vdupq_n_u32(0x3fffffff));
    four.multiplier = vreinterpretq_s32_u32(vorrq_u32(code, vdupq_n_u32(0x40000000)));
    shift = vaddq_s32(vdupq_n_s32(op->shift[0]), above);
    above = vmaxq_s32(vsubq_s32(vdupq_n_s32(op->shift[2]), above), none);
    four.bias = vshlq_s32(vshrq_n_s32(vreinterpretq_s32_u32(word), 20), above);
  } else
#endif
  {
    four.multiplier = vdupq_n_s32(op->multiplier[0]);
    if (op->form & TFB_EACH_MULTIPLIER) four.multiplier = vldrwq_z_s32(op->multiplier + c, wanted);
    four.bias = tfb_four_biases(op, c, wanted);
    if (op->form & TFB_JOINT_SHIFT) {
      uint32x4_t joint = vreinterpretq_u32_s32(four.multiplier);
      shift = vaddq_s32(shift, vreinterpretq_s32_u32(vshrq_n_u32(joint, 30)));
      joint = vorrq_u32(vandq_u32(joint, vdupq_n_u32(0x3fffffff)), vdupq_n_u32(0x40000000));
      four.multiplier = vreinterpretq_s32_u32(joint);
    }
  }
  four.left = vmaxq_s32(shift, none);
  four.exponent = vminq_s32(shift, none);
  return four;
}

/* Four sums with their biases as stored values that are not limited yet. The last rounding takes 1
 * off a negative number, where there is one: then exponents are negative too. */
static inline int32x4_t tfb_four_scaled(tfb_four four, int32x4_t sums, int32_t zero) {
  sums = vqrdmulhq_s32(vshlq_s32(sums, four.left), four.multiplier);
  sums = vaddq_s32(sums, vshrq_n_s32(vandq_s32(sums, four.exponent), 31));
  return vaddq_n_s32(vrshlq_s32(sums, four.exponent), zero);
}

/* Stores what up to four channels make of their sums without biases. */
static inline void tfb_store_four(const tfb_conv *op, tfb_four four, mve_pred16_t wanted,
                                  int32x4_t sums, int8_t *out) {
  int32x4_t value = tfb_four_scaled(four, vaddq_s32(sums, four.bias), op->out_zero);
  value = vmaxq_s32(vminq_s32(value, vdupq_n_s32(op->high)), vdupq_n_s32(op->low));
  vstrbq_p_s32(out, value, wanted);
}
#endif
