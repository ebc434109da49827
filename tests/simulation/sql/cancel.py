"""sql/cancel.sql: what ends runs from outside."""

from tests.simulation.connection import Query
from tests.simulation.sql.commit import new_item
from tests.simulation.store import EPOCH, FOREVER, Row


def arm(q: Query) -> list[Row]:
    """The events that cancel fresh runs, as waits."""
    names = [
        "run_id",
        "step_key",
        "account",
        "environment",
        "event",
        "expression",
        "path",
        "value",
        "requested_at",
        "expires_at",
    ]
    for values in zip(*(q.v[name] for name in names), strict=True):
        p = dict(zip(names, values, strict=True))
        if p["expires_at"] <= q.t.began:
            continue
        row = {
            "run_id": p["run_id"],
            "step_key": p["step_key"],
            "account_id": p["account"],
            "environment_id": p["environment"],
            "kind": "cancel",
            "event_name": p["event"],
            "expression": p["expression"],
            "match_path": p["path"],
            "match_value": p["value"],
            "signal": None,
            "correlation": None,
            "requested_at": p["requested_at"],
            "rechecked_at": None,
            "expires_at": p["expires_at"],
        }
        q.t.insert("pauses", (p["run_id"], p["step_key"]), row)
    return []


def set_deadlines(q: Query) -> list[Row]:
    """When fresh runs must have started, in a lane of their own; and how long they may take."""
    v = q.v
    names = ["run_id", "function", "item_id", "lane_id", "start_by", "finish_within"]
    for values in zip(*(v[name] for name in names), strict=True):
        d = dict(zip(names, values, strict=True))
        run = q.t.get("runs", d["run_id"])
        assert run is not None
        if d["start_by"] is not None:
            lane = q.t.get("lanes", d["lane_id"])
            if lane is None:
                q.t.insert(
                    "lanes", d["lane_id"], new_lane(d["function"], run["environment_id"], next_due=d["start_by"])
                )
            else:
                q.t.update("lanes", d["lane_id"], next_due=min(lane["next_due"], d["start_by"]))
            owner = run | {"lane_id": d["lane_id"]}
            item = new_item(owner, "start_timeout", "start_timeout", None, d["start_by"], None, None, q.t.began)
            q.t.insert("items", d["item_id"], item)
        if d["finish_within"] is not None:
            q.t.update("runs", d["run_id"], finish_within=d["finish_within"])
    return []


def new_lane(function: object, environment: object, **more: object) -> Row:
    """A fresh row of `lanes`."""
    row = {
        "environment_id": environment,
        "function_id": function,
        "flow_key_ids": (),
        "limit_ids": (),
        "is_gated": False,
        "is_ranked": False,
        "next_due": FOREVER,
        "served_at": EPOCH,
        "blocked_by": None,
        "blocked_until": None,
    }
    return row | more


def is_leased(q: Query) -> list[Row]:
    """Whether an item is being done now."""
    item = q.t.get("items", q.v["item"])
    return [{"is_leased": True}] if item is not None and item["lease_id"] is not None else []


def claim(q: Query) -> list[Row]:
    """Orders to cancel many runs: nobody gives one here."""
    return []
