"""Other files from the canonical one: bytes in, bytes out, compared before they are written.

Must not know Keras, nor open or print anything.
"""
