"""A trained model as integers: frozen, computed, written as a file and proved.

`freeze` reads the Keras model; everything after it knows only plain values.
"""
