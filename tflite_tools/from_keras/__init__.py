"""Keras models to canonical files: the only room of the tools that imports `tfbinreg`, lazily.

Must not print.
"""
