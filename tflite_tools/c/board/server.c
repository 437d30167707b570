/* Answers lines at the board's serial port (serve.h), with instructions as ticks.
 *
 * The build says where the port's registers lie: UART. */
#include "board.h"
#include "serve.h"

#ifdef __riscv /* a 16550 */
#define AT(place) (*(volatile uint8_t *)(UART + (place)))
static void open_port(void) {}
static int received(void) { return (AT(5) & 0x01) != 0; }
static int sendable(void) { return (AT(5) & 0x20) != 0; }
#else /* the port of Arm's CMSDK */
#define AT(place) (*(volatile uint32_t *)(UART + (place)))
static void open_port(void) {
  AT(16) = 16; /* the smallest divisor of the clock */
  AT(8) = 3;   /* sends and receives */
}
static int received(void) { return (AT(4) & 2) != 0; }
static int sendable(void) { return (AT(4) & 1) == 0; }
#endif

static int read_byte(void) {
  while (!received()) {
  }
  return (int)(AT(0) & 0xFFu);
}

static void write_byte(uint8_t byte) {
  while (!sendable()) {
  }
  AT(0) = byte;
}

/* QEMU's clock moves on by a fixed time with every instruction (-icount): so many ticks take
 * 2 * CALIBRATION instructions. */
#define CALIBRATION 1000000u
static uint64_t calibration;
static void calibrate(void) {
  uint64_t empty;
  start_ticks();
  empty = ticks();
  empty = ticks() - empty;
  calibration = ticks();
  spin(CALIBRATION);
  calibration = ticks() - calibration - empty;
}

#ifdef __riscv /* a tick is a nanosecond, and an instruction takes a power of two of them */
static uint32_t instructions(void) {
  uint64_t count = ticks();
  for (uint64_t rest = calibration; rest > 3 * CALIBRATION; rest >>= 1) count >>= 1;
  return (uint32_t)count;
}
#else
static uint32_t instructions(void) { return (uint32_t)(ticks() * 2 * CALIBRATION / calibration); }
#endif

int main(void) {
  const serve_board board = {read_byte, write_byte, instructions, "instructions", 0};
  open_port();
  calibrate();
  serve(&board);
  return 1; /* a port has no end */
}
