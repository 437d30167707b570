"""A trained model as integers: frozen, computed, written as a file and proved.

`freeze` reads the Keras model; what comes behind it knows plain values only.
"""
