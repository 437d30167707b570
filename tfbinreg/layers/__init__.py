"""The Keras layers of a quantized model, and the one door to its quantized tensors.

Must not know how a model is trained or written to a file.
"""
