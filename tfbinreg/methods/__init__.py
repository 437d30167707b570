"""Published algorithms: quantizers and penalties, with their gradients.

Knows tensors and variables, and neither models nor files.
"""
