"""Other formats made from the bytes of a canonical int8 file."""
