/* A Cortex-M: start-up code, semihosting, and SysTick as a counter of instructions. */
#include "board.h"

#include <stdint.h>
#include <string.h>

#define SYST_CSR (*(volatile uint32_t *)0xE000E010)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018)
#define SYSTICK_PERIOD 0x1000000u

extern uint32_t stack_top, bss_start, bss_end;

int semihosting(int operation, const void *arguments) {
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = arguments;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static void finish(int failed) {
  semihosting(SYS_EXIT, (const void *)(failed ? EXIT_FAILED : EXIT_DONE));
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

/* How often the 24-bit counter has begun anew. */
static volatile uint32_t systick_wraps;
static void systick(void) { systick_wraps++; }

void start_ticks(void) {
  SYST_RVR = SYSTICK_PERIOD - 1;
  SYST_CVR = 0;
  SYST_CSR = 7; /* the processor's clock, an exception when it begins anew, on */
}

uint64_t ticks(void) {
  uint32_t wraps, left;
  do {
    wraps = systick_wraps;
    left = SYST_CVR;
  } while (wraps != systick_wraps);
  return (uint64_t)wraps * SYSTICK_PERIOD + (SYSTICK_PERIOD - left);
}

void spin(uint32_t count) {
  __asm__ volatile("1: subs %0, %0, #1\n bne 1b\n" : "+l"(count) : : "cc");
}

/* The first 16 vectors of every Cortex-M. */
typedef void (*vector)(void);
__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    (vector)&stack_top, reset, fault, fault, fault, fault, fault, fault,
    fault, fault, fault, fault, fault, fault, fault, systick,
};
