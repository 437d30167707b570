"""The runtimes' whole-number arithmetic and its constants.

Knows numbers only: no files, no models.
"""
