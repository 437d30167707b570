/* tfb_add and tfb_sub where all three multipliers are 2^30; the shifts of the operands go left, that
 * of the result right. */
static inline int32_t tfb_add_shifts(const tfb_pair *op, int32_t a, int32_t b) {
  int32_t sum = (a - op->zero_a) * (1 << op->shift_a) + (b - op->zero_b) * (1 << op->shift_b);
  return tfb_rounded_shift((sum + 1) >> 1, op->shift) + op->zero;
}
static inline int32_t tfb_sub_shifts(const tfb_pair *op, int32_t a, int32_t b) {
  int32_t sum = (a - op->zero_a) * (1 << op->shift_a) - (b - op->zero_b) * (1 << op->shift_b);
  return tfb_rounded_shift((sum + 1) >> 1, op->shift) + op->zero;
}
