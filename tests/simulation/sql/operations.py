"""sql/operations.sql: what operators are told of the keepers."""

from tests.simulation.connection import Query
from tests.simulation.store import Row


def note_repair(q: Query) -> list[Row]:
    """A keeper put something right."""
    old = q.t.get("repairs", q.v["kind"]) or {"count": 0}
    q.t.put("repairs", q.v["kind"], {"count": old["count"] + q.v["count"]})
    return []
