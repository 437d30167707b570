"""LiteRT and TFLM behind one interface, and what they are given.

Must not judge what comes out.
"""
