/* Start-up code and semihosting for an emulated Cortex-M; the debugger, here QEMU, opens files. */
#include "semihosting.h"

#include <stdint.h>
#include <string.h>

extern uint32_t stack_top, bss_start, bss_end;

int main(void);

int semihosting(int operation, const void *arguments) {
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = arguments;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

void finish(int failed) {
  /* ApplicationExit, which QEMU turns into exit code 0, or RunTimeErrorUnknown. */
  semihosting(SYS_EXIT, (const void *)(failed ? 0x20023 : 0x20026));
  for (;;) {
  }
}

static void reset(void) {
#if defined(__ARM_FEATURE_MVE) /* its registers are those of coprocessors 10 and 11 */
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20;
  __asm__ volatile("dsb\n isb" : : : "memory");
#endif
  memset(&bss_start, 0, (size_t)((char *)&bss_end - (char *)&bss_start));
  finish(main());
}

static void fault(void) { finish(1); }

volatile uint32_t systick_wraps;
static void systick(void) { systick_wraps++; }

/* The first 16 vectors of every Cortex-M. */
typedef void (*vector)(void);
__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    (vector)&stack_top, reset, fault, fault, fault, fault, fault, fault,
    fault, fault, fault, fault, fault, fault, fault, systick,
};
