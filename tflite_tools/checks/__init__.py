"""Verdicts on a file and on what it computes.

Must not write files or print.
"""
