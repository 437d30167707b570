/* Semihosting calls of the Arm architecture. */
#ifndef SEMIHOSTING_H_
#define SEMIHOSTING_H_

#include <stdint.h>

enum { SYS_OPEN = 0x01, SYS_CLOSE = 0x02, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT = 0x18 };

int semihosting(int operation, const void *arguments);
void finish(int failed);

/* How often the 24-bit SysTick counter has begun anew. */
extern volatile uint32_t systick_wraps;

#endif
