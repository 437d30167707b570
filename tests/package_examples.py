"""The examples of packages, built for this computer with the few words that they use of each
platform: the console is standard input and output."""

import contextlib
import os
import select
import shutil
import subprocess

import pytest

ARDUINO = """
#include <cstdint>
#include <cstdio>
#define ARDUINO 200
static unsigned long millis() { return 0; }
static unsigned long micros() { static unsigned long now; return now += 7; }
static void yield() {}
struct Port {
  void begin(long) {}
  operator bool() const { return true; }
  void print(const char *text) { std::fputs(text, stdout); }
  void print(uint32_t number) { std::printf("%u", number); }
  void println(const char *text) { std::puts(text); std::fflush(stdout); }
  int available() { return 1; }
  int read() { return std::getchar(); }
  void write(uint8_t byte) {
    std::putchar(byte);
    if (byte == '\\n') std::fflush(stdout);
  }
};
static Port Serial;
void setup();
void loop();
int main() { setup(); loop(); }
"""
ESP = """
#include <stdint.h>
void app_main(void);
int main(void) { app_main(); return 0; }
static uint32_t esp_cpu_get_cycle_count(void) { static uint32_t now; return now += 7; }
"""
FREERTOS = """
#include <stdlib.h>
static void vTaskDelay(int ticks) { exit(ticks != 1); }
"""
ZEPHYR = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#define printk(...) (printf(__VA_ARGS__), fflush(stdout))
static uint32_t k_cycle_get_32(void) { static uint32_t now; return now += 7; }
static uint32_t sys_clock_hw_cycles_per_sec(void) { return 1000; }
static void k_yield(void) { exit(0); }
"""
ZEPHYR_UART = """
#include <stdio.h>
struct device { int kind; };
static const struct device chosen;
#define DT_CHOSEN(name) &chosen
#define DEVICE_DT_GET(node) node
static int uart_poll_in(const struct device *port, unsigned char *byte) {
  int got = getchar();
  *byte = (unsigned char)got;
  return got < 0 || port->kind != 0 ? -1 : 0;
}
static void uart_poll_out(const struct device *port, unsigned char byte) {
  putchar(byte);
  if (byte == '\\n' && port == &chosen) fflush(stdout);
}
"""
# The example of each package, and the headers of the platform that it asks for.
EXAMPLES = {
    "arduino": ("examples/infer/infer.ino", {"Arduino.h": ARDUINO}),
    "platformio": ("examples/infer/src/main.cpp", {"Arduino.h": ARDUINO}),
    "esp-idf": (
        "examples/infer/main/main.c",
        {
            "esp_cpu.h": ESP,
            "freertos/FreeRTOS.h": "",
            "freertos/task.h": FREERTOS,
            "sdkconfig.h": "#define CONFIG_ESP_DEFAULT_CPU_FREQ_MHZ 160\n",
        },
    ),
    "zephyr": (
        "samples/infer/src/main.c",
        {
            "zephyr/device.h": "",
            "zephyr/drivers/uart.h": ZEPHYR_UART,
            "zephyr/kernel.h": ZEPHYR,
            "zephyr/sys/printk.h": "",
        },
    ),
    "cmsis-pack": ("examples/infer/infer_example.c", {}),
}


def built(folder, package, tmp_path, *flags):
    """The program of a package's example, without a warning."""
    example, headers = EXAMPLES[package]
    for name, text in headers.items():
        path = tmp_path / "platform" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    plus = example.endswith((".ino", ".cpp"))
    compiler = shutil.which("g++" if plus else "gcc") or pytest.skip("no compiler of GCC")
    network, program = tmp_path / "network.o", tmp_path / "program"
    paths = [f"-I{folder / 'src'}", f"-I{tmp_path / 'platform'}"]
    warnings = ("-Wall", "-Wextra", "-Werror", *flags)
    own = [str(path) for path in (folder / "src").glob("*.c")]
    subprocess.run(["gcc", "-std=c99", *warnings, "-c", *own, "-o", network], check=True)
    language = ("-x", "c++", "-std=c++11") if plus else ("-x", "c", "-std=c99")
    source = (*language, folder / example, "-x", "none", network, "-o", program)
    subprocess.run([compiler, *warnings, *paths, *source], check=True)
    return program


class Pipes:
    """A program's standard input and output as a serial port."""

    in_waiting = 1

    def __init__(self, process):
        self._process = process

    def read(self, size):
        source = self._process.stdout
        ready, _, _ = select.select([source], [], [], 0.02)
        got = os.read(source.fileno(), 4096) if ready else b""
        if ready and not got:
            raise OSError("the program has ended")
        return got

    def write(self, data):
        self._process.stdin.write(data)


@contextlib.contextmanager
def attached(program):
    """A program that runs meanwhile, as a port."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen([program], **pipes) as process:
        yield Pipes(process)
        process.stdin.close()
