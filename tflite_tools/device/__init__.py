"""A device at a serial port, on the desk or emulated, that runs the C of a file: what it computes
and what it takes.
"""
