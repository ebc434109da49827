"""sql/functions.sql: what the catalogue reads."""

from tests.simulation.connection import Query
from tests.simulation.store import Row


def environment(q: Query) -> list[Row]:
    """An environment and its plan."""
    row = q.t.get("environments", q.v["environment"])
    return [row | {"stops_for": None}] if row is not None else []


def of_environment(q: Query) -> list[Row]:
    """Its functions."""
    return [r for _, r in q.t.rows("functions") if r["environment_id"] == q.v["environment"] and not r["is_removed"]]


def raise_version(q: Query) -> list[Row]:
    """Processes reload what they know."""
    row = q.t.get("environments", q.v["environment"])
    assert row is not None
    q.t.update("environments", q.v["environment"], catalogue_version=row["catalogue_version"] + 1)
    return []
