"""A file as C99: lowered, packed, written, compiled, run and read back.

Must not know Keras, nor the other formats.
"""
