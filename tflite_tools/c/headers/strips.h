/* ---- Strips: some operators in turn, over some rows of their maps at a time ---- */

/* The rows of a map that are kept: from `first` on and before `end`, `size` bytes each. */
typedef struct {
  int8_t *at;
  int32_t size, first, end;
} tfb_map;

/* Lets go of the rows before `first`; the others move to the front. */
static inline void tfb_keep(tfb_map *map, int32_t first) {
  first = tfb_min(first, map->end);
  memmove(map->at, map->at + (first - map->first) * map->size,
          (size_t)((map->end - first) * map->size));
  map->first = first;
}

static inline int8_t *tfb_row(const tfb_map *map, int32_t row) {
  return map->at + (row - map->first) * map->size;
}

/* Makes a convolution or a pooling that of its rows from `begin` on and before `end`, whose input
 * begins with the first row that they see and has `left` rows. */
#define TFB_TAKE_ROWS(part, left, begin, end)                                         \
  do {                                                                                \
    (part).pad_h = (uint16_t)tfb_max((part).pad_h - (begin) * (part).stride_h, 0);    \
    (part).in_h = (uint16_t)(left);                                                   \
    (part).out_h = (uint16_t)((end) - (begin));                                       \
  } while (0)
