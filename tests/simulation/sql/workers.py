"""sql/workers.sql: who may lease, and what becomes of the items of those who died."""

from datetime import timedelta
from typing import Any

from tests.simulation.connection import Query
from tests.simulation.sql.commit import bring_forward
from tests.simulation.store import FOREVER, Row


def register(q: Query) -> list[Row]:
    """A worker exists; older rows of its name expire now."""
    name, now = q.v["name"], q.t.began
    for key, row in list(q.t.rows("workers")):
        if name and row["name"] == name and row["lease_until"] > now:
            q.t.update("workers", key, lease_until=now)
    q.t.put("workers", q.v["id"], {"name": name, "pid": q.v["pid"], "lease_until": now + q.v["lease"]})
    return []


def renew(q: Query) -> list[Row]:
    """One row for all leases of a worker; no row means they are lost."""
    row = q.t.get("workers", q.v["id"])
    if row is None or row["lease_until"] <= q.t.began:
        q.server.seen["worker lost its leases"] += 1
        return []
    q.t.update("workers", q.v["id"], lease_until=q.t.began + q.v["lease"])
    return [{"now": q.t.began}]


def leave(q: Query) -> list[Row]:
    """A worker without items goes."""
    if not any(r["worker_id"] == q.v["id"] for _, r in q.t.rows("items")):
        q.t.delete("workers", q.v["id"])
    return []


def expired(q: Query) -> list[Row]:
    """A worker whose lease ran out, held."""
    until = q.t.began - q.v["grace"]
    for key, row in sorted(q.t.rows("workers"), key=lambda worker: worker[1]["lease_until"]):
        if row["lease_until"] <= until and q.t.is_free("workers", key):
            q.t.lock("workers", key)
            return [{"id": key, "name": row["name"], "host": "", "pid": row["pid"]}]
    return []


def rescue(q: Query) -> list[Row]:
    """Items nobody works on are ready again with a higher fence, their slots are free."""
    v, now = q.v, q.t.began
    held, busy = set(v["held"]), set(v["busy"])
    lost = [
        (k, r)
        for k, r in q.t.rows("items")
        if r["worker_id"] == v["worker"] and r["leased_at"] <= now - v["older"] and k not in held
        if r["run_id"] not in busy
    ][: v["room"]]
    raised = 0 if "fence not raised by rescue" in q.server.planted else 1
    q.server.seen["rescued"] += len(lost)
    if lost and v["older"] > timedelta(0):
        q.server.seen["forgotten item given back"] += len(lost)
    _give_back(
        q,
        lost,
        lambda r: {
            "fence": r["fence"] + raised,
            "redeliveries": r["redeliveries"] + 1,
            "due_at": min(r["due_at"], now),
        },
    )
    return [{"id": k, "run_id": r["run_id"], "lane_id": r["lane_id"]} for k, r in lost]


def orphans(q: Query) -> list[Row]:
    """Workers that are on no list and hold items."""
    holders = {r["worker_id"] for _, r in q.t.rows("items") if r["worker_id"] is not None}
    return [{"id": w} for w in sorted(holders) if q.t.get("workers", w) is None][: q.v["room"]]


def forget(q: Query) -> list[Row]:
    """The worker's row goes."""
    q.t.delete("workers", q.v["worker"])
    return []


def release(q: Query) -> list[Row]:
    """A stopping worker hands items back that it has not called."""
    given = dict(zip(q.v["item_ids"], q.v["fences"], strict=True))
    mine = [(k, r) for k, r in q.t.rows("items") if given.get(k) == r["fence"]]
    _give_back(q, mine, lambda r: {"fence": r["fence"] + 1})
    return [{"id": k} for k, _ in mine]


def hold_back(q: Query) -> list[Row]:
    """A leased item whose app is not called just now is due again later."""
    item, due = q.t.get("items", q.v["item"]), q.t.began + q.v["wait"]
    if item is None or item["fence"] != q.v["fence"]:
        return []
    q.server.seen["held back from an app that fails"] += 1
    held = item["held_due"] or item["due_at"]
    columns = {"fence": item["fence"] + 1, "held_due": held, "due_at": due}
    q.t.update("items", q.v["item"], lease_id=None, worker_id=None, leased_at=None, **columns)
    for slot, _ in list(q.t.rows("slots")):
        if slot[1] == item["lease_id"]:
            q.t.delete("slots", slot)
    bring_forward(q, {item["lane_id"]: due})
    return [{"id": q.v["item"]}]


def release_all(q: Query) -> list[Row]:
    """What a stopped worker still has by the rows."""
    mine = [(k, r) for k, r in q.t.rows("items") if r["worker_id"] == q.v["worker"]]
    _give_back(q, mine, lambda r: {"fence": r["fence"] + 1})
    return [{"id": k} for k, _ in mine]


def fence(q: Query) -> list[Row]:
    """Whether a lease is still ours, for a call that was not sent for a while."""
    q.server.seen["fence read again before a call"] += 1
    item = q.t.get("items", q.v["item"])
    return [{"fence": item["fence"]}] if item is not None else []


def sweep(q: Query) -> list[Row]:
    """Lanes whose clock says later than their work; and where the walk over the others goes on."""
    waiting = [r for _, r in q.t.rows("items") if r["lease_id"] is None]
    walk = sorted({r["lane_id"] for r in waiting if r["lane_id"] > q.v["after"]})[: q.v["lanes"]]
    lately = q.t.began - q.v["lately"]
    due: dict[Any, Any] = {}
    for r in waiting:
        if r["due_at"] <= q.t.began and (r["due_at"] > lately or r["lane_id"] in walk):
            due[r["lane_id"]] = min(r["due_at"], due.get(r["lane_id"], FOREVER))
    wrong: dict[Any, Any] = {}
    for lane_id, when in due.items():
        lane = q.t.get("lanes", lane_id)
        if lane is None or lane["next_due"] <= when or not q.t.is_free("lanes", lane_id):
            continue
        if lane["blocked_until"] is None or lane["blocked_until"] <= q.t.began:
            wrong[lane_id] = when
    bring_forward(q, wrong)
    following = walk[-1] if len(walk) == q.v["lanes"] else None
    return [{"id": k, "following": following} for k in wrong or [None]]


def free_orphans(q: Query) -> list[Row]:
    """Slots nobody has."""
    leases = {(r["run_id"], r["lease_id"]) for _, r in q.t.rows("items")}
    gone: list[Row] = []
    for (key, lease), slot in list(q.t.rows("slots")):
        run = q.t.get("runs", slot["run_id"])
        is_whole = lease == slot["run_id"] and run is not None and run["ended_at"] is None
        if (slot["run_id"], lease) not in leases and not is_whole and q.t.is_free("slots", (key, lease)):
            q.server.seen["orphaned slot freed"] += 1
            q.t.delete("slots", (key, lease))
            gone.append({"flow_key_id": key})
    return gone


def next_due(q: Query) -> list[Row]:
    """When the earliest future work comes due."""
    now = q.t.began
    gates = [r["due_at"] for _, r in q.t.rows("gates") if r["due_at"] is not None]
    times = [r["next_due"] for _, r in q.t.rows("lanes")] + gates
    ahead = [at for at in times if at > now]
    return [{"next_due": min(ahead, default=None), "has_timers": any(at <= now for at in gates), "now": now}]


def _give_back(q: Query, items: list[tuple[Any, Row]], more: Any) -> None:
    leases = {r["lease_id"] for _, r in items}
    for key, row in items:
        q.t.update("items", key, lease_id=None, worker_id=None, leased_at=None, **more(row))
    for slot, _ in list(q.t.rows("slots")):
        if slot[1] in leases:
            q.t.delete("slots", slot)
    late = {r["lane_id"] for _, r in items}
    for lane_id in sorted(late):
        lane = q.t.get("lanes", lane_id)
        if lane is not None and lane["next_due"] > q.t.began:
            q.t.update("lanes", lane_id, next_due=q.t.began)
