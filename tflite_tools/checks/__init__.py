"""What can be said of a file and what it computes: verdicts.

Must not write files or print.
"""
