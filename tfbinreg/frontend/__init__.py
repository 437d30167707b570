"""Any Keras model, rewritten to a plain functional model.

Knows both Kerases; must not know bits, recipes or methods.
"""
