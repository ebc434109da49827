"""sql/signals.sql."""

from tests.simulation.connection import Query
from tests.simulation.store import Row


def find(q: Query) -> list[Row]:
    """Who waits for a signal now."""
    return [
        {"run_id": r["run_id"], "step_key": r["step_key"]}
        for _, r in q.t.rows("pauses")
        if r["environment_id"] == q.v["environment"] and r["signal"] == q.v["signal"]
    ]


def hold(q: Query) -> list[Row]:
    """Whether the wait still has its name."""
    key = (q.v["run_id"], q.v["step_key"])
    row = q.t.get("pauses", key)
    if row is None or row["signal"] != q.v["signal"]:
        return []
    q.t.lock("pauses", key)
    return [{"has_name": True}]
