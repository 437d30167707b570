/* Runs a generated network on samples of a file and counts instructions.
 *
 * network.h comes from the build: INPUT_BYTES, OUTPUT_BYTES and RUN_NETWORK, the call. QEMU's clock
 * moves on by a fixed time with every instruction (-icount), so a counter of that clock counts
 * instructions; the first two numbers in the file of counts tell how many ticks it takes to read
 * it, and how many 2 * CALIBRATION instructions take.
 */
#include <stdint.h>

#include "board.h"
#include "network.h"

#define CALIBRATION 1000000u

static int8_t inputs[INPUT_BYTES], outputs[OUTPUT_BYTES];

static int open_file(const char *name, uint32_t length, int mode) {
  const uint32_t arguments[3] = {(uint32_t)(uintptr_t)name, (uint32_t)mode, length};
  return semihosting(SYS_OPEN, arguments);
}

#ifdef STEPS
/* Ticks at the beginning of each of the network's steps, and at the end of the last. */
static uint64_t marks[STEPS + 1];
static uint32_t marked;
void mark_step(void) { marks[marked++ % (STEPS + 1)] = ticks(); }
#endif

/* Bytes that were not read or written. */
static int transfer(int operation, int file, const void *data, uint32_t size) {
  const uint32_t arguments[3] = {(uint32_t)file, (uint32_t)(uintptr_t)data, size};
  return semihosting(operation, arguments);
}

static int close_file(int file) {
  const uint32_t arguments[1] = {(uint32_t)file};
  return semihosting(SYS_CLOSE, arguments);
}

int main(void) {
  int source = open_file("inputs", 6, 1), made = open_file("outputs", 7, 5);
  int counts = open_file("counts", 6, 5), failed = source < 0 || made < 0 || counts < 0;
  uint64_t count;
  start_ticks();
  count = ticks();
  count = ticks() - count;
  failed = failed || transfer(SYS_WRITE, counts, &count, sizeof count) != 0;
  count = ticks();
  spin(CALIBRATION);
  count = ticks() - count;
  failed = failed || transfer(SYS_WRITE, counts, &count, sizeof count) != 0;
  while (!failed && transfer(SYS_READ, source, inputs, sizeof inputs) == 0) {
    count = ticks();
    RUN_NETWORK;
    count = ticks() - count;
    failed = transfer(SYS_WRITE, made, outputs, sizeof outputs) != 0 ||
             transfer(SYS_WRITE, counts, &count, sizeof count) != 0;
  }
#ifdef STEPS
  {
    int steps = open_file("steps", 5, 5);
    failed = failed || transfer(SYS_WRITE, steps, marks, sizeof marks) != 0;
    failed = close_file(steps) != 0 || failed;
  }
#endif
  return failed || close_file(made) != 0 || close_file(counts) != 0;
}
