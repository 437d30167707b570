"""What each layer gets and why, decided before anything is changed.

Knows graphs and recipes; must not build layers.
"""
