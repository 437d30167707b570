/* A 32-bit RISC-V: start-up code, semihosting, the counter of instructions, and what is needed of
 * a C library. */
#include "board.h"

#include <stdint.h>
#include <string.h>

extern uint32_t bss_start, bss_end;

int semihosting(int operation, const void *arguments) {
  register int a0 __asm__("a0") = operation;
  register const void *a1 __asm__("a1") = arguments;
  /* These three instructions, uncompressed and in one page, are the call. */
  __asm__ volatile(
      ".option push\n .option norvc\n .balign 16\n"
      " slli x0, x0, 0x1f\n ebreak\n srai x0, x0, 7\n .option pop\n"
      : "+r"(a0)
      : "r"(a1)
      : "memory");
  return a0;
}

static void finish(int failed) {
  semihosting(SYS_EXIT, (const void *)(failed ? EXIT_FAILED : EXIT_DONE));
  for (;;) {
  }
}

__attribute__((used, aligned(4))) static void fault(void) { finish(1); }

__attribute__((used)) static void reset(void) {
  __asm__ volatile("csrw mtvec, %0" : : "r"(fault));
  memset(&bss_start, 0, (size_t)((char *)&bss_end - (char *)&bss_start));
  finish(main());
}

/* The first instructions of the memory for code, where QEMU begins. */
__attribute__((naked, used, section(".vectors"))) static void start(void) {
  __asm__ volatile("la sp, stack_top\n j reset");
}

void start_ticks(void) {}

uint64_t ticks(void) {
  uint32_t high, low, again;
  do {
    __asm__ volatile("csrr %0, minstreth\n csrr %1, minstret\n csrr %2, minstreth"
                     : "=&r"(high), "=&r"(low), "=r"(again));
  } while (high != again);
  return (uint64_t)high << 32 | low;
}

void spin(uint32_t count) {
  __asm__ volatile("1: addi %0, %0, -1\n bnez %0, 1b\n" : "+r"(count));
}

/* By words where both ends allow it: a library is not slower. */
__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memcpy(void *to,
                                                                           const void *from,
                                                                           size_t count) {
  uint8_t *target = to;
  const uint8_t *source = from;
  if ((((uintptr_t)target | (uintptr_t)source) & 3) == 0) {
    for (; count >= 4; count -= 4, target += 4, source += 4) {
      *(uint32_t *)(void *)target = *(const uint32_t *)(const void *)source;
    }
  }
  while (count--) *target++ = *source++;
  return to;
}

/* memcpy goes forwards, which is right for rows that move to the front. */
__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memmove(void *to,
                                                                            const void *from,
                                                                            size_t count) {
  uint8_t *target = to;
  const uint8_t *source = from;
  if ((uintptr_t)to <= (uintptr_t)from) return memcpy(to, from, count);
  while (count--) target[count] = source[count];
  return to;
}

__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memset(void *to, int value,
                                                                           size_t count) {
  uint8_t *target = to;
  const uint32_t word = (uint8_t)value * 0x01010101u;
  for (; count != 0 && ((uintptr_t)target & 3) != 0; --count) *target++ = (uint8_t)value;
  for (; count >= 4; count -= 4, target += 4) *(uint32_t *)(void *)target = word;
  while (count--) *target++ = (uint8_t)value;
  return to;
}
