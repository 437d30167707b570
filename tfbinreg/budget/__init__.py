"""How many bits each layer can have for a given flash size.

Knows models as a user does; must not know file formats.
"""
