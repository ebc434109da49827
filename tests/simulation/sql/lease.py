"""sql/lease.sql: leasing, loading and locking."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from tests.simulation.connection import Query
from tests.simulation.store import EPOCH, FOREVER, Row

#: When a lane looks again that was refused without a time.
_AGAIN = timedelta(seconds=0.8)
_CALLS = ("discover", "step")


def lease_free(q: Query) -> list[Row]:
    """Due items of lanes without limits, lane by lane; always one row, which says whether gated lanes are due."""
    t, now, hints = q.t, q.t.began, set(q.v["hints"])
    due = [(k, r) for k, r in t.rows("lanes") if (r["next_due"] <= now or k in hints) and not r["is_gated"]]
    lanes = [k for k, _ in _in_turn(due)][: q.v["lanes"]]
    lanes = [k for k in lanes if _lock_free(q, "lanes", k)]
    queues = [_due_items(q, lane)[: q.v["per_lane"]] for lane in lanes]
    picked = [key for key in _round_robin(queues)[: q.v["room"]] if _lock_free(q, "items", key)]
    taken = [_take(q, key, q.uuid()) for key in picked]
    for lane in lanes:
        rest = _waiting(q, lane)
        served = {t_row["lane_id"] for t_row in taken}
        row = t.get("lanes", lane)
        assert row is not None
        t.update(
            "lanes", lane, next_due=min(rest, default=FOREVER), served_at=now if lane in served else row["served_at"]
        )
    has_gated = any(r["is_gated"] and (r["next_due"] <= now or k in hints) for k, r in t.rows("lanes"))
    rows = taken or [{"id": None}]
    return [row | {"now": now, "has_gated": has_gated} for row in rows]


def limited_lanes(q: Query) -> list[Row]:
    """Due items of gated lanes, lanes and items locked; and of lanes that wait for the keys of a hinted one."""
    t, now, hints = q.t, q.t.began, set(q.v["hints"])
    keys = {key for hint in hints if (lane := t.get("lanes", hint)) for key in lane["flow_key_ids"]}
    due = [
        (k, r)
        for k, r in t.rows("lanes")
        if (r["is_gated"] and (r["next_due"] <= now or k in hints)) or (r["blocked_by"] in keys and r["blocked_by"])
    ]
    # Refused lanes go by when they look again; who waits for a slot that came free by when it was served.
    freed = {k for k, r in due if k in hints or r["blocked_by"] in keys}
    seen = {k: r["served_at"] if k in freed else max(r["served_at"], r["blocked_until"] or EPOCH) for k, r in due}
    lanes = [(k, r) for k, r in _in_turn(due, seen)[: q.v["lanes"]] if _lock_free(q, "lanes", k)]
    rows: list[tuple[int, int, Row]] = []
    for turn, (lane_id, lane) in enumerate(lanes):
        head = {"lane_id": lane_id, "flow_key_ids": lane["flow_key_ids"], "limit_ids": lane["limit_ids"], "now": now}
        waiting = [(k, r) for k, r in t.rows("items") if r["lane_id"] == lane_id and r["lease_id"] is None]
        waiting = [(k, r) for k, r in waiting if r["due_at"] <= now]
        place = "rank" if lane["is_ranked"] else "due_at"
        others = sorted((r["due_at"], k) for k, r in waiting if r["kind"] not in _CALLS)[: q.v["per_lane"]]
        calls = sorted((r[place], k) for k, r in waiting if r["kind"] in _CALLS and r[place] is not None)
        both = sorted(others + calls[: q.v["per_lane"]])
        if not lane["is_ranked"]:
            # Runs that have their place under a limit of runs come first.
            placed = _placed(q, lane)
            first = [k for _, k in calls if (t.get("items", k) or {})["run_id"] in placed][: q.v["per_lane"]]
            both = [(EPOCH, k) for k in first] + [pair for pair in both if pair[1] not in first]
        if not both:
            rows.append((0, turn, head | {"id": None}))
        for nth, (_, key) in enumerate(both):
            if _lock_free(q, "items", key):
                item = t.get("items", key)
                assert item is not None
                rows.append((nth, turn, head | {"id": key} | {c: item[c] for c in ("kind", "run_id", "key", "fence")}))
            else:
                rows.append((nth, turn, head | {"id": None}))
    return [row for _, _, row in sorted(rows, key=lambda r: r[:2])][: q.v["room"]]


def _placed(q: Query, lane: Row) -> set[Any]:
    """Runs with a slot of their own under the lane's limits of runs."""
    keys = [
        key
        for key, limit_id in zip(lane["flow_key_ids"], lane["limit_ids"], strict=True)
        if (limit := q.t.get("flow_limits", limit_id)) is not None and limit["kind"] == "runs"
    ]
    return {r["run_id"] for (key, lease), r in q.t.rows("slots") if key in keys and lease == r["run_id"]}


def make_flow_keys(q: Query) -> list[Row]:
    """Keys that were tidied away."""
    for key in sorted(q.v["ids"]):
        q.t.insert("flow_keys", key, new_flow_key())
    return []


def new_flow_key() -> Row:
    """A fresh row of `flow_keys`."""
    return {"cap": None, "tat": None, "waited_since": None}


def lock_flow_keys(q: Query) -> list[Row]:
    """The counters of limits, in the order of their ids."""
    found = [key for key in sorted(q.v["ids"]) if q.t.get("flow_keys", key) is not None]
    for key in found:
        q.t.lock("flow_keys", key)
    return [{"id": key} for key in found]


def flow_states(q: Query) -> list[Row]:
    """What is used of held keys."""
    runs = set(q.v["runs"])
    found: list[Row] = []
    for key in q.v["ids"]:
        row = q.t.get("flow_keys", key)
        if row is None:
            continue
        mine = [(lease, r) for (of, lease), r in q.t.rows("slots") if of == key]
        whole = [r["run_id"] for lease, r in mine if lease in runs]
        found.append({"id": key, "tat": row["tat"], "cap": row["cap"], "live": len(mine), "runs": whole})
    return found


def limits(q: Query) -> list[Row]:
    """What limits allow now."""
    found = [(key, q.t.get("flow_limits", key)) for key in q.v["ids"]]
    return [{"id": key, "kind": r["kind"], "cap": r["cap"], "every": r["every"]} for key, r in found if r is not None]


def lease_limited(q: Query) -> list[Row]:
    """Lease the admitted items, take their slots, mark refusing keys, set the lanes' clocks."""
    t, v, now = q.t, q.v, q.t.began
    taken: list[Row] = []
    for key, lease_id in zip(v["item_ids"], v["lease_ids"], strict=True):
        item = t.get("items", key)
        run = t.get("runs", item["run_id"]) if item is not None else None
        if item is None or run is None:
            continue
        lane_id = run["lane_id"] if item["kind"] in _CALLS else item["lane_id"]
        taken.append(_take(q, key, lease_id, lane_id=lane_id, rank=None))
    by_lease = {row["lease_id"]: row for row in taken}
    for key, lease_id, is_whole in zip(v["slot_keys"], v["slot_leases"], v["slot_whole"], strict=True):
        row = by_lease.get(lease_id)
        if row is not None:
            slot = (key, row["run_id"] if is_whole else lease_id)
            t.insert("slots", slot, {"run_id": row["run_id"], "item_id": row["id"]})
    refused = set(v["refused"])
    for key, tat in zip(v["key_ids"], v["key_tats"], strict=True):
        row = t.get("flow_keys", key)
        if row is not None:
            since = (row["waited_since"] or now) if key in refused else None
            if since != row["waited_since"] or tat != row["tat"]:
                t.update("flow_keys", key, tat=tat if tat is not None else row["tat"], waited_since=since)
    columns = (v["lane_ids"], v["lane_blocked_by"], v["lane_until"], v["lane_served"])
    for lane_id, blocked_by, until, is_served in zip(*columns, strict=True):
        lane = t.get("lanes", lane_id)
        if lane is None:
            continue
        if blocked_by is None:
            due = min(_waiting(q, lane_id), default=FOREVER)
            t.update("lanes", lane_id, served_at=now, blocked_by=None, blocked_until=None, next_due=due)
        else:
            q.server.seen["refused by a limit"] += 1
            again = until if until is not None else now + _AGAIN
            timers = [r["due_at"] for k, r in t.rows("items") if r["lane_id"] == lane_id and r["lease_id"] is None]
            timers = [
                r["due_at"]
                for _, r in t.rows("items")
                if r["lane_id"] == lane_id and r["lease_id"] is None and r["kind"] not in _CALLS
            ]
            due = min([again, *sorted(timers)[:1]])
            served_at = now if is_served else lane["served_at"]
            t.update("lanes", lane_id, served_at=served_at, blocked_by=blocked_by, blocked_until=again, next_due=due)
    return [row | {"now": now} for row in taken]


def load(q: Query) -> list[Row]:
    """Runs with their steps, items and events, as one picture."""
    t = q.t
    found: list[Row] = []
    for run_id in dict.fromkeys(q.v["run_ids"]):
        run = t.get("runs", run_id)
        function = t.get("functions", run["function_id"]) if run is not None else None
        if run is None or function is None:
            continue
        environment = t.get("environments", run["environment_id"])
        assert environment is not None
        steps = sorted((r for (of, _), r in t.rows("steps") if of == run_id), key=lambda r: r["memo_order"] or 1 << 30)
        items = [
            r
            for _, r in t.rows("items")
            if r["run_id"] == run_id and r["kind"] not in ("start_timeout", "finish_timeout")
        ]
        lane = t.get("lanes", run["lane_id"])
        event = t.get("events", (run["environment_id"], run["event_id"], run["event_received_at"]))
        more = sorted((k[1], r) for k, r in t.rows("run_events") if k[0] == run_id)
        events = [t.get("events", (run["environment_id"], r["event_id"], r["received_at"])) for _, r in more]
        wants = q.v["with_memos"]
        found.append(
            run
            | {
                "slug": function["slug"],
                "url": function["url"],
                "backoff": function["own_backoff"] or function["backoff"],
                "environment_name": environment["name"],
                "plan": environment["plan"],
                "more_events": [e["payload"] for e in events if e] if run["batch_size"] > 1 else None,
                "is_limited": lane is not None and bool(lane["flow_key_ids"]),
                "event": event and event["payload"],
                "keys": [s["step_key"] for s in steps],
                "kinds": [s["kind"] for s in steps],
                "states": [s["state"] for s in steps],
                "members": [s["is_member"] for s in steps],
                "races": [s["is_race"] for s in steps],
                "memos": [s["memo"] if wants else None for s in steps],
                "inputs": [s["input"] if wants and s["state"] in ("retrying", "planned") else None for s in steps],
                "item_keys": [i["key"] for i in items],
                "item_kinds": [i["kind"] for i in items],
                "item_steps": [i["step_key"] for i in items],
                "item_attempts": [i["attempt"] for i in items],
                "defer_keys": None,
                "defer_states": None,
                "defer_sizes": None,
                "now": t.began,
            }
        )
    return found


def lock_runs(q: Query) -> list[Row]:
    """Hold the runs that are free."""
    found = [run_id for run_id in q.v["run_ids"] if q.t.get("runs", run_id) is not None]
    free = [run_id for run_id in found if _lock_free(q, "runs", run_id)]
    q.server.seen["busy"] += len(found) - len(free)
    return [{"id": run_id} for run_id in free]


def lock_run(q: Query) -> list[Row]:
    """Hold one run, waiting for it."""
    if q.t.get("runs", q.v["run_id"]) is None:
        return []
    q.t.lock("runs", q.v["run_id"])
    return [{"id": q.v["run_id"]}]


def lock_items(q: Query) -> list[Row]:
    """The items of runs that are about to end, in the order of their ids."""
    runs = set(q.v["run_ids"])
    found = sorted(key for key, r in q.t.rows("items") if r["run_id"] in runs)
    for key in found:
        q.t.lock("items", key)
    return [{"id": key} for key in found if q.t.get("items", key) is not None]


def item_fences(q: Query) -> list[Row]:
    """The fences of items whose runs are held."""
    found: list[Row] = []
    for item_id in q.v["item_ids"]:
        item = q.t.get("items", item_id)
        if item is not None:
            q.t.lock("items", item_id)
            found.append({"id": item_id, "fence": item["fence"], "attempt": item["attempt"]})
    return found


def handed_on(q: Query) -> list[Row]:
    """Those of an entry's successors that are held as the entry has them."""
    q.server.seen["successors looked for after a lost answer"] += 1
    found: list[Row] = []
    for item_id, lease_id in zip(q.v["item_ids"], q.v["lease_ids"], strict=True):
        item = q.t.get("items", item_id)
        if item is not None and item["lease_id"] == lease_id and item["worker_id"] == q.v["worker"]:
            found.append({"id": item_id})
    return found


def gateway_call(q: Query) -> list[Row]:
    """The sealed request of a gateway step."""
    row = q.t.get("gateway_calls", (q.v["run_id"], q.v["step_key"]))
    return [row] if row is not None else []


def lock_signals(q: Query) -> list[Row]:
    """One claim of a signal's name at a time."""
    for name in sorted(set(zip(q.v["environments"], q.v["names"], strict=True))):
        q.t.lock("signal names", name)
    return []


def signal_waits(q: Query) -> list[Row]:
    """Who waits for these signals."""
    names = set(zip(q.v["environments"], q.v["names"], strict=True))
    return [r for _, r in q.t.rows("pauses") if (r["environment_id"], r["signal"]) in names]


def take_signals(q: Query) -> list[Row]:
    """Waits that lose their signal to a new one."""
    for row in signal_waits(q):
        q.t.update("pauses", (row["run_id"], row["step_key"]), signal=None)
    return []


def tell_late(q: Query) -> list[Row]:
    """Journal an answer that came too late, behind everything else of its version."""
    q.server.seen["late answer"] += 1
    run_id = q.v["run_id"]
    run = q.t.get("runs", run_id)
    if run is not None:
        places = [k[2] for k, _ in q.t.rows("history") if k[0] == run_id and k[1] == run["version"]]
        line = {"run_id": run_id, "kind": "late", "step_key": q.v["step"], "item_key": q.v["item"]}
        line |= {"attempt": q.v["attempt"], "started_at": q.v["started"]}
        q.t.insert("history", (run_id, run["version"], max(places, default=0) + 1), line)
    return []


# ---- pieces


def _lock_free(q: Query, table: str, key: Any) -> bool:
    """`for update skip locked`."""
    if not q.t.is_free(table, key):
        return False
    q.t.lock(table, key)
    return True


def _in_turn(lanes: list[tuple[Any, Row]], seen: dict[Any, Any] | None = None) -> list[tuple[Any, Row]]:
    """Round robin over functions, each function's lanes by when they were `seen`, or served, last."""
    nth: dict[Any, int] = {}
    turns: list[tuple[int, Any, int, tuple[Any, Row]]] = []

    def last(lane: tuple[Any, Row]) -> tuple[Any, Any]:
        return (seen or {}).get(lane[0], lane[1]["served_at"]), lane[1]["served_at"]

    for number, (key, row) in enumerate(sorted(lanes, key=last)):
        place = nth[row["function_id"]] = nth.get(row["function_id"], 0) + 1
        turns.append((place, last((key, row)), number, (key, row)))
    return [lane for *_, lane in sorted(turns, key=lambda turn: turn[:3])]


def _due_items(q: Query, lane: Any) -> list[Any]:
    due = [
        (r["due_at"], k)
        for k, r in q.t.rows("items")
        if r["lane_id"] == lane and r["lease_id"] is None and r["due_at"] <= q.t.began
    ]
    return [key for _, key in sorted(due)]


def _waiting(q: Query, lane: Any) -> Iterable[Any]:
    return [r["due_at"] for _, r in q.t.rows("items") if r["lane_id"] == lane and r["lease_id"] is None]


def _round_robin(queues: list[list[Any]]) -> list[Any]:
    longest = max(map(len, queues), default=0)
    return [queue[n] for n in range(longest) for queue in queues if n < len(queue)]


def _take(q: Query, key: Any, lease_id: Any, **more: Any) -> Row:
    item = q.t.get("items", key)
    assert item is not None
    columns = {"lease_id": lease_id, "worker_id": q.v["worker"], "leased_at": q.t.began, "fence": item["fence"] + 1}
    q.t.update("items", key, **columns, **more)
    return item | columns | more | {"id": key}
