"""Bytes of generated C by section."""

import shutil

import pytest

from tflite_tools.c import boards, generate, host_run, host_size

LISTING = """
model.o  :
section                  size   addr
.text                     100      0
.text.startup              10      0
.data                       4      0
.data.rel.ro.local         50      0
.rodata                  2000      0
.rodata.cst16              16      0
.bss                      300      0
.comment                   44      0
.eh_frame                  88      0
Total                    2612
"""


def test_sections_are_added_up():
    assert host_size.parse(LISTING) == boards.Sizes(text=110, rodata=2066, data=4, bss=300)
    assert host_size.parse(LISTING * 2).text == 220


def test_missing_tools_have_packages(two_bits, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert host_size.missing() == ("gcc", "binutils")
    with pytest.raises(host_run.CompilerError, match="Missing: gcc, binutils"):
        host_size.measure(generate.generate(two_bits))


def test_the_example_program_does_not_count(two_bits):
    if host_size.missing():
        pytest.skip("no C compiler, or no binutils")
    sources = generate.generate(two_bits)
    sizes = host_size.measure(sources)
    assert sizes.rodata >= sources.packed_weight_bytes + sources.constant_bytes
    assert sources.arena_bytes <= sizes.bss < sources.arena_bytes + 64
    assert sizes.data == 0
