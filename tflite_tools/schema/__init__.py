"""The TFLite file: read, changed, written; the manifest and the codes in it.

The only room that knows the schema; must not run anything.
"""
