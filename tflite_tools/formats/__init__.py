"""Formats made from the canonical int8 file, each compared with it before it is returned."""
