"""Which way of training is best at low bits: arms x nets x bits x seeds, run and compared.

    python -m examples.study run tune --data_dir DIR
    python -m examples.study report tune

A study is a table in studies/, a run is one of its rows, and each finished run is one small JSON
file in results/. README.md describes the protocol.
"""
