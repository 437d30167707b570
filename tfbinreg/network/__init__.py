"""A plain functional model as a graph of layers of known kinds.

Knows Keras layers, and nothing of how anything is quantized.
"""
