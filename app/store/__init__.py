"""Postgres, and only Postgres. Functions, not classes: connection first, then scope, then keywords.

`db.py` opens pools and transactions, `sql/` holds the named statements of the hot path, the other modules are one
noun each. No function here commits: the edge does (request, station, keeper).
"""
