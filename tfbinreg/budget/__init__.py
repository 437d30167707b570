"""How many bits each layer can have in a given flash size.

Knows models as a user does; must not know file formats.
"""
