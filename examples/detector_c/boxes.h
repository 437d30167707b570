/* The boxes that a detector sees in an image; examples/detections.py finds the same in Python. */
#ifndef BOXES_H_
#define BOXES_H_

#include <stdint.h>

#define BOXES_MOST 1024 /* that are looked at in an image */

/* A stored integer stands for (stored - zero_point) * scale. */
typedef struct {
  float scale;
  int zero_point;
} boxes_grid;

typedef struct {
  int rows, columns, classes; /* of the grid of cells */
  int cell;                   /* pixels, height and width of a cell */
  boxes_grid distances, scores;
  float least_score, most_overlap;
} boxes_detector;

typedef struct {
  float left, top, right, bottom; /* pixels */
  float score;
  int kind;
} boxes_box;

/* Writes the boxes, the best first, to `found`, which has BOXES_MOST places, and returns how many
 * they are. `distances` and `scores` are the outputs of the network: for each cell the distances
 * from its middle to the left, upper, right and lower edge in cells, and a score for each class. */
int boxes_find(const boxes_detector *detector, const int8_t *distances, const int8_t *scores,
               boxes_box *found);

#endif
