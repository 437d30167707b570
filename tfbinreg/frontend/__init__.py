"""Any Keras model, rewritten as a plain functional model.

Knows both Kerases; must not know bits, recipes or methods.
"""
