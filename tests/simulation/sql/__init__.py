"""What the SQL of app/store/sql does, in Python: one small function for each statement, under the statement's own name.

`find` turns the text a connection is sent into the function that stands for it. A statement without one is an error, so a
new statement on the way of a history cannot go unnoticed.
"""

import re
from functools import cache
from types import ModuleType

from app.store.db import statements
from app.store.named import compile_sql, named
from tests.simulation.connection import Model
from tests.simulation.sql import (
    bulk,
    cancel,
    commit,
    flow,
    functions,
    inbox,
    lease,
    operations,
    overrides,
    pause,
    signals,
    sync,
    workers,
)

_MODULES: dict[str, ModuleType] = {
    "bulk": bulk,
    "cancel": cancel,
    "flow": flow,
    "functions": functions,
    "inbox": inbox,
    "lease": lease,
    "operations": operations,
    "overrides": overrides,
    "pause": pause,
    "signals": signals,
    "sync": sync,
    "workers": workers,
}
Found = tuple[Model, tuple[str, ...], tuple[str, ...]]


@cache
def _known() -> dict[str, Found]:
    found: dict[str, Found] = {}
    for file, module in _MODULES.items():
        for name in statements(file):
            model = getattr(module, name, None)
            if model is not None:
                statement = named(file, name)
                found[statement.sql] = (model, statement.names, ())
    return found


@cache
def find(sql: str) -> Found:
    """The model of a statement, the names of its parameters, and of a commit its parts (sql/commit.sql)."""
    if sql in _known():
        return _known()[sql]
    if "commit_id = $2 for no key update" in sql:
        return commit.read_back, ("ids", "commit_id"), ()
    parts = _parts_of(sql)
    if parts[:1] != ("guard",):
        raise LookupError(f"no model for the statement:\n{sql}")
    statement = compile_sql("\n".join(statements("commit")[part] for part in parts))
    if statement.sql != sql:
        raise LookupError(f"not the parts of a commit: {parts}")
    return commit.commit, statement.names, parts


def _parts_of(sql: str) -> tuple[str, ...]:
    """The parts of sql/commit.sql a text is joined from, in its order."""
    numberless = _bare(sql)
    places = {
        name: numberless.find(_bare(re.sub(r"--[^\n]*", "", text))) for name, text in statements("commit").items()
    }
    return tuple(sorted((name for name, place in places.items() if place >= 0), key=places.__getitem__))


def _bare(sql: str) -> str:
    return re.sub(r"\$\d+|(?<!:):[a-z_]+", "?", sql)
