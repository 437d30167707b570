"""Files, processes and logs of the operating system.

Knows nothing of networks.
"""
