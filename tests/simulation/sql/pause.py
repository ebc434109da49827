"""sql/pause.sql: functions that stop for a while."""

from datetime import timedelta

from tests.simulation.connection import Query
from tests.simulation.store import Row


def pause(q: Query) -> list[Row]:
    """Stop a function."""
    row = q.t.get("functions", q.v["function"])
    if row is None or row["paused_at"] is not None:
        return []
    q.t.update("functions", q.v["function"], paused_at=q.t.began)
    return [row | {"now": q.t.began}]


def resume(q: Query) -> list[Row]:
    """Let it go on."""
    row = q.t.get("functions", q.v["function"])
    if row is None or row["paused_at"] is None:
        return []
    q.t.update("functions", q.v["function"], paused_at=None)
    return [{"id": row["id"]}]


def withdraw_orders(q: Query) -> list[Row]:
    """No orders are given here."""
    return []


def park(q: Query) -> list[Row]:
    """Give a leased item of a paused function back until the function goes on."""
    function = q.t.get("functions", q.v["function"])
    item = q.t.get("items", q.v["item"])
    if function is None or function["paused_at"] is None:
        return []
    q.t.lock("functions", q.v["function"])
    if item is None or item["fence"] != q.v["fence"]:
        return []
    q.server.seen["item parked"] += 1
    far = q.t.began + timedelta(days=365)
    columns = {"fence": item["fence"] + 1, "held_due": item["due_at"], "due_at": far}
    q.t.update("items", q.v["item"], lease_id=None, worker_id=None, leased_at=None, **columns)
    for slot, _ in list(q.t.rows("slots")):
        if slot[1] == item["lease_id"]:
            q.t.delete("slots", slot)
    return [{"id": q.v["item"]}]


def unpark(q: Query) -> list[Row]:
    """Items that waited for their function go on in their old order."""
    lanes: set[object] = set()
    for key, row in list(q.t.rows("items")):
        if row["function_id"] == q.v["function"] and row["held_due"] is not None and row["lease_id"] is None:
            q.t.update("items", key, due_at=row["held_due"], held_due=None)
            lanes.add(row["lane_id"])
    found = [lane for lane in lanes if q.t.get("lanes", lane) is not None]
    for lane in sorted(found, key=str):
        q.t.update("lanes", lane, next_due=q.t.began)
    return [{"id": lane} for lane in found]
