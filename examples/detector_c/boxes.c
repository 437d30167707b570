#include "boxes.h"

static float real(boxes_grid grid, int8_t stored) {
  return (float)(stored - grid.zero_point) * grid.scale;
}

static float area(const boxes_box *box) {
  return (box->right - box->left) * (box->bottom - box->top);
}

static float lower(float a, float b) { return a < b ? a : b; }
static float higher(float a, float b) { return a > b ? a : b; }

/* Intersection over union. */
static float overlap(const boxes_box *a, const boxes_box *b) {
  float width = higher(lower(a->right, b->right) - higher(a->left, b->left), 0.0f);
  float height = higher(lower(a->bottom, b->bottom) - higher(a->top, b->top), 0.0f);
  float shared = width * height;
  float both = area(a) + area(b);
  return shared / higher(both - shared, 1e-6f);
}

/* All boxes with a score that is high enough, cell by cell. */
static int candidates(const boxes_detector *d, const int8_t *distances, const int8_t *scores,
                      boxes_box *boxes) {
  int row, column, kind, count = 0;
  for (row = 0; row < d->rows; row++) {
    for (column = 0; column < d->columns; column++, distances += 4) {
      for (kind = 0; kind < d->classes; kind++) {
        float score = real(d->scores, *scores++);
        float x = (float)column + 0.5f, y = (float)row + 0.5f;
        boxes_box box;
        if (score < d->least_score || count == BOXES_MOST) continue;
        box.left = (x - real(d->distances, distances[0])) * (float)d->cell;
        box.top = (y - real(d->distances, distances[1])) * (float)d->cell;
        box.right = (x + real(d->distances, distances[2])) * (float)d->cell;
        box.bottom = (y + real(d->distances, distances[3])) * (float)d->cell;
        box.score = score;
        box.kind = kind;
        boxes[count++] = box;
      }
    }
  }
  return count;
}

/* The best box comes first; of equal ones, the one that was there first. */
static void sort(boxes_box *boxes, int count) {
  int i, j;
  for (i = 1; i < count; i++) {
    boxes_box box = boxes[i];
    for (j = i; j > 0 && boxes[j - 1].score < box.score; j--) boxes[j] = boxes[j - 1];
    boxes[j] = box;
  }
}

int boxes_find(const boxes_detector *detector, const int8_t *distances, const int8_t *scores,
               boxes_box *found) {
  int count = candidates(detector, distances, scores, found), kept = 0, i, j;
  sort(found, count);
  for (i = 0; i < count; i++) {
    for (j = 0; j < kept; j++) {
      if (found[j].kind == found[i].kind &&
          overlap(&found[i], &found[j]) > detector->most_overlap) {
        break;
      }
    }
    if (j == kept) found[kept++] = found[i];
  }
  return kept;
}
