/* Reads images from standard input, the bytes of one behind the other, and tells the boxes in each:
 * number of the image, class, score, left, top, right, bottom. The least score may be given.
 *
 *     tflite_tools convert detector.tflite --format c --output net
 *     cc -O2 -Inet -Iexamples/detector_c examples/detector_c/[bm]*.c net/net.c -o find
 */
#include <stdio.h>
#include <stdlib.h>

#include "boxes.h"
#include "net.h"

enum { ROWS = 8, COLUMNS = 8, CELL = 8, CLASSES = NET_OUTPUT_1_SIZE / (ROWS * COLUMNS) };

static uint8_t image[NET_INPUT_0_SIZE];
static int8_t input[NET_INPUT_0_SIZE];
static int8_t distances[NET_OUTPUT_0_SIZE], scores[NET_OUTPUT_1_SIZE];
static boxes_box found[BOXES_MOST];

int main(int argc, char **argv) {
  boxes_detector detector = {ROWS, COLUMNS, CLASSES, CELL, {0, 0}, {0, 0}, 0.25f, 0.5f};
  int number = 0, count, i;
  if (argc > 1) detector.least_score = strtof(argv[1], NULL);
  detector.distances.scale = strtof(NET_OUTPUT_0_SCALE, NULL);
  detector.distances.zero_point = NET_OUTPUT_0_ZERO_POINT;
  detector.scores.scale = strtof(NET_OUTPUT_1_SCALE, NULL);
  detector.scores.zero_point = NET_OUTPUT_1_ZERO_POINT;
  while (fread(image, 1, sizeof image, stdin) == sizeof image) {
    /* The scale of the input is 1: a stored value is a byte, moved to int8. */
    for (i = 0; i < NET_INPUT_0_SIZE; i++) {
      input[i] = (int8_t)(image[i] + NET_INPUT_0_ZERO_POINT);
    }
    net_run(input, distances, scores);
    count = boxes_find(&detector, distances, scores, found);
    for (i = 0; i < count; i++) {
      const boxes_box *box = &found[i];
      /* 9 digits tell every float32 from all others. */
      printf("%d %d %.9g %.9g %.9g %.9g %.9g\n", number, box->kind, (double)box->score,
             (double)box->left, (double)box->top, (double)box->right, (double)box->bottom);
    }
    number++;
  }
  return 0;
}
