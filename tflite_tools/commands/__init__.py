"""The command line: flags, files, exit codes.

The only room that opens, prints and exits.
"""
