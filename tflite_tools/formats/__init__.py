"""Formats made from the bytes of the canonical int8 file, each compared with it before it is returned."""
