"""Channels that a network can do without, bit for bit: found, and left out of its file.

The room has no public names. `tflite_tools.c.generate` uses it, and `tflite_tools.formats.slim`.
"""
