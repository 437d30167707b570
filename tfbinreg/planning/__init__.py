"""What each layer gets and why, decided before anything is touched.

Knows graphs and recipes; must not build layers.
"""
