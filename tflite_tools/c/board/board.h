/* What the harness has to know of a processor: cortex_m.c and riscv.c say it. */
#ifndef BOARD_H_
#define BOARD_H_

#include <stdint.h>

enum { SYS_OPEN = 0x01, SYS_CLOSE = 0x02, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT = 0x18 };
/* Reasons of SYS_EXIT: ApplicationExit, which QEMU turns into exit code 0, or RunTimeErrorUnknown. */
enum { EXIT_DONE = 0x20026, EXIT_FAILED = 0x20023 };

/* A call of the debugger, here QEMU, which opens files: Arm's semihosting, also on RISC-V. */
int semihosting(int operation, const void *arguments);

/* A counter that moves on by a fixed number of ticks with every instruction. */
void start_ticks(void);
uint64_t ticks(void);

/* Takes 2 * count instructions. */
void spin(uint32_t count);

int main(void);

#endif
