"""Values that every room shares: grids, recipes, targets, problems, warnings.

Knows NumPy, and neither Keras nor a method.
"""
