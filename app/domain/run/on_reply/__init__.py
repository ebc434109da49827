"""What an app's answer does to a run: `ops.py`, `finished.py`, `failed.py`, and one module per family of opcodes.

A handler takes a turn and one op, and is called by the table in `ops.py` only.
"""
