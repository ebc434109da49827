"""sql/flow.sql: gates before a run, lanes and limits."""

from typing import Any
from uuid import UUID

from tests.simulation.connection import Query
from tests.simulation.sql.cancel import new_lane
from tests.simulation.sql.inbox import claim_keys
from tests.simulation.sql.lease import new_flow_key
from tests.simulation.store import FOREVER, Row


def _unnest(q: Query, *names: str) -> list[dict[str, Any]]:
    return [dict(zip(names, values, strict=True)) for values in zip(*(q.v[name] for name in names), strict=True)]


def make_gates(q: Query) -> list[Row]:
    """Rows of gates nobody has used yet, in the order of their ids."""
    for g in sorted(_unnest(q, "id", "account", "environment", "function", "kind", "key"), key=lambda g: g["id"]):
        if q.t.get("gates", g["id"]) is None:
            empty = dict.fromkeys(("tat", "run_id", "event_id", "event_received_at", "event_ts", "opened_at", "due_at"))
            owner = {"id": g["id"], "account_id": g["account"], "environment_id": g["environment"]}
            more = {"function_id": g["function"], "kind": g["kind"], "key": g["key"], "size": 0, "bytes": 0}
            q.t.insert("gates", g["id"], empty | owner | more)
    return []


def hold_gates(q: Query) -> list[Row]:
    """Gates held, in the order of their ids."""
    rows: list[Row] = []
    for key in sorted(q.v["ids"]):
        q.t.lock("gates", key)
        row = q.t.get("gates", key)
        if row is not None:
            rows.append(row)
    return rows


def put_gates(q: Query) -> list[Row]:
    """Changed rows back."""
    names = ["id", "tat", "run", "event", "event_received_at", "event_ts", "opened_at", "due_at", "size", "bytes"]
    for g in _unnest(q, *names):
        columns = {"run_id": g.pop("run"), "event_id": g.pop("event")}
        q.t.update("gates", g.pop("id"), **g, **columns)
    return []


def due_gates(q: Query) -> list[Row]:
    """Debounces and batches whose timer came due, held."""
    due = [(r["due_at"], k) for k, r in q.t.rows("gates") if r["due_at"] is not None and r["due_at"] <= q.t.began]
    rows: list[Row] = []
    for _, key in sorted(due):
        if not q.t.is_free("gates", key):
            continue
        q.t.lock("gates", key)
        row = q.t.get("gates", key)
        assert row is not None
        environment = q.t.get("environments", row["environment_id"])
        assert environment is not None
        rows.append(row | {"now": q.t.began, "catalogue_version": environment["catalogue_version"]})
    return rows[: q.v["room"]]


def claim_ids(q: Query) -> list[Row]:
    """The first event with an id of the client's; the others are duplicates."""
    asked = _unnest(q, "n", "environment", "function", "key", "run")
    claimed = claim_keys(q, [(a["environment"], a["function"], a["key"], a["run"]) for a in asked])
    return [{"n": a["n"]} for a in asked if a["run"] in claimed]


def live_runs(q: Query) -> list[Row]:
    """Those of the runs that are not over."""
    found = [(key, q.t.get("runs", key)) for key in q.v["ids"]]
    return [{"id": key} for key, row in found if row is not None and row["ended_at"] is None]


def join_batches(q: Query) -> list[Row]:
    """The further events of batches."""
    for j in _unnest(q, "run", "position", "event", "received_at"):
        row = {"event_id": j["event"], "received_at": j["received_at"]}
        q.t.insert("run_events", (j["run"], j["position"]), row)
    return []


def event(q: Query) -> list[Row]:
    """A stored event."""
    row = q.t.get("events", (q.v["environment"], q.v["event"], q.v["received_at"]))
    return [row | {"event_id": row["id"]}] if row is not None else []


def backlog(q: Query) -> list[Row]:
    """No plan of the house has a backlog limit."""
    return [{"count": 0}]


def make_lanes(q: Query) -> list[Row]:
    """Lanes and keys that are not there yet; existing ones stay unless they differ."""
    for key in q.v["key_id"]:
        if q.t.get("flow_keys", key) is None:
            q.t.insert("flow_keys", key, new_flow_key())
    names = ["lane_id", "environment", "function", "lane_flow_keys", "lane_limits", "is_ranked"]
    for w in sorted(_unnest(q, *names), key=lambda w: w["lane_id"]):
        keys = tuple(UUID(text) for text in w["lane_flow_keys"].split(",") if text)
        limits = tuple(UUID(text) for text in w["lane_limits"].split(",") if text)
        gated = {"flow_key_ids": keys, "limit_ids": limits, "is_gated": bool(keys) or w["is_ranked"]}
        gated["is_ranked"] = w["is_ranked"]
        old = q.t.get("lanes", w["lane_id"])
        if old is None:
            q.t.insert("lanes", w["lane_id"], new_lane(w["function"], w["environment"], served_at=q.t.began, **gated))
        elif (old["flow_key_ids"], old["limit_ids"]) != (keys, limits):
            q.t.update("lanes", w["lane_id"], **gated)
    return []


def put_limits(q: Query) -> list[Row]:
    """The limits of functions as they are now."""
    functions, ids = set(q.v["functions"]), set(q.v["id"])
    for key, row in list(q.t.rows("flow_limits")):
        if row["function_id"] in functions and key not in ids:
            q.t.delete("flow_limits", key)
    for f in _unnest(q, "id", "function", "kind", "cap", "every"):
        row = {"function_id": f["function"], "kind": f["kind"], "cap": f["cap"], "every": f["every"]}
        q.t.put("flow_limits", f["id"], row)
    return []


def unblock(q: Query) -> list[Row]:
    """Lanes of functions whose limits changed look again at once."""
    functions = set(q.v["functions"])
    for key, lane in list(q.t.rows("lanes")):
        if lane["function_id"] in functions and lane["blocked_by"] is not None:
            due = min(lane["next_due"], lane["blocked_until"] or FOREVER, q.t.began)
            q.t.update("lanes", key, blocked_by=None, blocked_until=None, next_due=due)
    return []


def put_schedules(q: Query) -> list[Row]:
    """No function of the house has a schedule."""
    return []


def drop_schedules(q: Query) -> list[Row]:
    """As above."""
    return []


def parked_schedules(q: Query) -> list[Row]:
    """As above."""
    return []


def timers(q: Query) -> list[Row]:
    """Whether a gate's time has come."""
    has_gates = any(r["due_at"] is not None and r["due_at"] <= q.t.began for _, r in q.t.rows("gates"))
    return [{"has_gates": has_gates, "has_schedules": False}]
