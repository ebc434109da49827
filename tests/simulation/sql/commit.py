"""sql/commit.sql: the one statement that changes runs."""

from datetime import timedelta
from typing import Any

from tests.simulation.connection import Query
from tests.simulation.store import FOREVER, Row

_NONE = timedelta(0)


def _unnest(q: Query, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(q.v[name] for name in names), strict=True))


def commit(q: Query) -> list[Row]:
    """The parts of a batch, in their order; every one joins the winners of `guard`."""
    torn = q.v.get("torn")
    win = guard(q) if torn is None else _again(q, torn)
    given_up = hand_over(q, win) if "hand_over" in q.parts else set()
    settled = steps(q, win) if "steps" in q.parts else {}
    for part, write in _PARTS.items():
        if part in q.parts:
            write(q, win)
    if "enqueue" in q.parts:
        enqueue(q, win, given_up)
    if "wake" in q.parts:
        wake(q, win, given_up)
    if "finish" in q.parts:
        finish(q, win)
    if "run" in q.parts:
        run(q, win, settled)
    return [
        {
            "n": n,
            "version": row["version"] + 1,
            "now": q.t.began,
            "given_up": [lease for m, lease in given_up if m == n] or None,
        }
        for n, row in win.items()
    ]


def _again(q: Query, torn: set[int]) -> dict[int, Row]:
    found = {n: q.t.get("runs", run_id) for n, run_id in _unnest(q, "n", "run_id") if n in torn}
    ends = dict(_unnest(q, "n", "ends"))
    return {n: {**row, "ends": ends[n]} for n, row in found.items() if row is not None}


def guard(q: Query) -> dict[int, Row]:
    """Lock items, then runs, without waiting; keep whose run is open and unchanged and whose items are ours."""
    t, planted = q.t, q.server.planted
    want = _unnest(q, "want_n", "want_item", "want_fence")
    held: list[int] = []
    for n, item_id, fence in want:
        item = t.get("items", item_id)
        if item is None or (item["fence"] != fence and "lease guard lost" not in planted):
            q.server.seen["lost: a fence had moved"] += 1
        elif t.is_free("items", item_id):
            t.lock("items", item_id)
            held.append(n)
    win: dict[int, Row] = {}
    for n, run_id, expect, ends in _unnest(q, "n", "run_id", "expect", "ends"):
        row = t.get("runs", run_id)
        if row is None or row["ended_at"] is not None:
            continue
        if expect is not None and row["version"] != expect and "version check dropped" not in planted:
            q.server.seen["stale"] += 1
            continue
        if sum(m == n for m, *_ in want) != held.count(n):
            continue
        if not t.is_free("runs", run_id):
            q.server.seen["busy"] += 1
            continue
        t.lock("runs", run_id)
        win[n] = {**row, "ends": ends}
    return win


def steps(q: Query, win: dict[int, Row]) -> dict[Any, int]:
    """Open, retry or settle steps; a settled one keeps its outcome. Answers how many settled, by run."""
    t, count = q.t, dict[Any, int]()
    names = ["n", "place", "key", "kind", "name", "type", "state", "member", "race", "memo", "input", "opts", "error"]
    for values in _unnest(q, *(f"step_{name}" for name in names)):
        s = dict(zip(names, values, strict=True))
        w = win.get(s["n"])
        if w is None:
            continue
        old = t.get("steps", (w["id"], s["key"]))
        if old is not None and old["memo_order"] is not None:
            continue
        is_settled = s["memo"] is not None
        row = {
            "run_id": w["id"],
            "step_key": s["key"],
            "kind": s["kind"],
            "state": s["state"],
            "is_member": s["member"],
            "is_race": s["race"] or bool(old and old["is_race"]),
            "memo": s["memo"],
            "memo_order": w["completed"] + s["place"] if is_settled else None,
            "input": s["input"] if s["input"] is not None else old and old["input"],
            "opts": s["opts"] if s["opts"] is not None else old and old["opts"],
            "settled_at": t.began if is_settled else None,
        }
        if old is not None:
            row["kind"] = old["kind"]
        t.put("steps", (w["id"], s["key"]), row)
        count[w["id"]] = count.get(w["id"], 0) + is_settled
    return count


def run(q: Query, win: dict[int, Row], settled: dict[Any, int]) -> None:
    """The run's row: one version on."""
    names = [
        "n",
        "status",
        "request_version",
        "is_planned",
        "pending",
        "group_key",
        "discoveries",
        "bytes",
        "starts",
        "ends",
        "error_code",
    ]
    for values in _unnest(q, *names):
        e = dict(zip(names, values, strict=True))
        w = win.get(e["n"])
        if w is None:
            continue
        now = q.t.began
        q.t.update(
            "runs",
            w["id"],
            version=w["version"] + 1,
            commit_id=q.v["commit_id"],
            completed=w["completed"] + settled.get(w["id"], 0),
            status=w["status"] if e["status"] is None else e["status"],
            request_version=w["request_version"] if e["request_version"] is None else e["request_version"],
            is_planned=w["is_planned"] if e["is_planned"] is None else e["is_planned"],
            pending=w["pending"] if e["pending"] is None else e["pending"],
            group_key=w["group_key"] if e["pending"] is None else e["group_key"],
            discoveries=w["discoveries"] if e["discoveries"] is None else e["discoveries"],
            state_bytes=w["state_bytes"] + e["bytes"],
            started_at=(w["started_at"] or now) if e["starts"] else w["started_at"],
            ended_at=now if e["ends"] else None,
            error_code=e["error_code"],
        )


def settle(q: Query, win: dict[int, Row]) -> None:
    """Items that are done."""
    for n, item_id in _unnest(q, "gone_n", "gone_id"):
        if n in win:
            q.t.delete("items", item_id)


def hand_over(q: Query, win: dict[int, Row]) -> set[tuple[int, Any]]:
    """Leases that may not go on: somebody waits for their keys, or a limit is younger than they are."""
    t = q.t
    given_up: set[tuple[int, Any]] = set()
    for n, lease_id in _unnest(q, "hand_n", "hand_lease"):
        w = win.get(n)
        lane = t.get("lanes", w["lane_id"]) if w is not None else None
        if w is None or lane is None:
            continue
        slots = {key for (key, lease), _ in t.rows("slots") if lease in (lease_id, w["id"])}
        own = {key for (key, lease), _ in t.rows("slots") if lease == lease_id}
        is_wanted = any((t.get("flow_keys", key) or {}).get("waited_since") is not None for key in own)
        is_younger = any(
            (limit := t.get("flow_limits", limit_id)) is not None and limit["kind"] != "throttle" and key not in slots
            for key, limit_id in zip(lane["flow_key_ids"], lane["limit_ids"], strict=True)
        )
        if is_wanted or is_younger:
            q.server.seen["lease not handed on"] += 1
            given_up.add((n, lease_id))
            for key in own:
                t.delete("slots", (key, lease_id))
    return given_up


def enqueue(q: Query, win: dict[int, Row], given_up: set[tuple[int, Any]]) -> None:
    """Work made by the entry, leased where the lease goes on."""
    gone = {lease_id for _, lease_id in given_up}
    names = ["n", "id", "key", "kind", "step", "at", "after", "lease", "worker"]
    for values in _unnest(q, *(f"new_{name}" for name in names)):
        i = dict(zip(names, values, strict=True))
        w = win.get(i["n"])
        if w is None or (i["kind"] == "timeout" and "timeout item dropped" in q.server.planted):
            continue
        lease_id = None if i["lease"] in gone else i["lease"]
        due_at = i["at"] if i["at"] is not None else q.t.began + (i["after"] or _NONE)
        worker = i["worker"] if lease_id else None
        q.t.insert("items", i["id"], new_item(w, i["key"], i["kind"], i["step"], due_at, lease_id, worker, q.t.began))


def new_item(
    run_row: Row, key: str, kind: str, step: str | None, due_at: Any, lease_id: Any, worker: Any, now: Any
) -> Row:
    """A fresh row of `items`."""
    return {
        "run_id": run_row["id"],
        "account_id": run_row["account_id"],
        "environment_id": run_row["environment_id"],
        "function_id": run_row["function_id"],
        "lane_id": run_row["lane_id"],
        "key": key,
        "kind": kind,
        "step_key": step,
        "attempt": 0,
        "redeliveries": 0,
        "rank": None,
        "held_due": None,
        "due_at": due_at,
        "fence": 1 if lease_id else 0,
        "lease_id": lease_id,
        "worker_id": worker,
        "leased_at": now if lease_id else None,
    }


def retry(q: Query, win: dict[int, Row]) -> None:
    """The same item later with its lease given back, or attempts counted from 0 under the same lease."""
    for n, item_id, attempt, after in _unnest(q, "again_n", "again_id", "again_attempt", "again_after"):
        item = q.t.get("items", item_id)
        if n not in win or item is None:
            continue
        if after is None:
            q.t.update("items", item_id, attempt=attempt)
        else:
            q.t.update(
                "items",
                item_id,
                attempt=attempt,
                due_at=q.t.began + after,
                lease_id=None,
                worker_id=None,
                leased_at=None,
                fence=item["fence"] + 1,
            )


def wake(q: Query, win: dict[int, Row], given_up: set[tuple[int, Any]]) -> None:
    """The clocks of lanes that have new work."""
    gone = {lease_id for _, lease_id in given_up}
    due: dict[Any, Any] = {}
    for n, at, after, lease_id in _unnest(q, "wake_n", "wake_at", "wake_after", "wake_lease"):
        w = win.get(n)
        if w is not None and (lease_id is None or lease_id in gone):
            when = at if at is not None else q.t.began + (after or _NONE)
            due[w["lane_id"]] = min(when, due.get(w["lane_id"], FOREVER))
    bring_forward(q, due)


def bring_forward(q: Query, due: dict[Any, Any]) -> None:
    """Lanes whose clock is later than their work, in the order of their ids; a blocked one waits for its time."""
    for lane_id in sorted(due):
        lane = q.t.get("lanes", lane_id)
        if lane is None or lane["next_due"] <= due[lane_id]:
            continue
        if lane["blocked_until"] is None or lane["blocked_until"] <= q.t.began:
            q.t.update("lanes", lane_id, next_due=due[lane_id])


def open_pauses(q: Query, win: dict[int, Row]) -> None:
    """Waits; they count from when the engine heard of them."""
    names = ["n", "step", "kind", "event", "expression", "path", "value", "signal", "correlation", "requested"]
    for values in _unnest(q, *(f"pause_{name}" for name in names)):
        p = dict(zip(names, values, strict=True))
        w = win.get(p["n"])
        if w is None:
            continue
        row = {
            "run_id": w["id"],
            "step_key": p["step"],
            "account_id": w["account_id"],
            "environment_id": w["environment_id"],
            "kind": p["kind"],
            "event_name": p["event"],
            "expression": p["expression"],
            "match_path": p["path"],
            "match_value": p["value"],
            "signal": p["signal"],
            "correlation": p["correlation"],
            "requested_at": min(p["requested"] or q.t.began, q.t.began),
            "rechecked_at": None,
            "expires_at": None,
        }
        q.t.insert("pauses", (w["id"], p["step"]), row)


def close_pauses(q: Query, win: dict[int, Row]) -> None:
    """Waits that have their outcome."""
    for n, step_key in _unnest(q, "closed_n", "closed_step"):
        if n in win:
            q.t.delete("pauses", (win[n]["id"], step_key))


def store_requests(q: Query, win: dict[int, Row]) -> None:
    """What gateway steps ask for."""
    for n, step_key, sealed in _unnest(q, "asked_n", "asked_step", "asked_sealed"):
        if n in win:
            q.t.put("gateway_calls", (win[n]["id"], step_key), {"sealed": sealed})


def drop_requests(q: Query, win: dict[int, Row]) -> None:
    """Requests whose steps are settled."""
    for n, step_key in _unnest(q, "unasked_n", "unasked_step"):
        if n in win:
            q.t.delete("gateway_calls", (win[n]["id"], step_key))


def free_slots(q: Query, win: dict[int, Row]) -> None:
    """Slots of leases that end with their entry."""
    if "slot not freed" in q.server.planted:
        return
    gone = {lease_id for n, lease_id in _unnest(q, "freed_n", "freed_lease") if n in win}
    for key, _ in list(q.t.rows("slots")):
        if key[1] in gone:
            q.t.delete("slots", key)


def finish(q: Query, win: dict[int, Row]) -> None:
    """An ended run keeps no work, no waits and no slots."""
    ended = {w["id"] for w in win.values() if w["ends"]}
    if not ended:
        return
    for table in ("items", "pauses", "slots"):
        for key, row in list(q.t.rows(table)):
            if row["run_id"] in ended:
                q.t.delete(table, key)


def history(q: Query, win: dict[int, Row]) -> None:
    """The journal."""
    names = ["n", "position", "kind", "step", "item", "attempt", "started", "detail"]
    for values in _unnest(q, *(f"told_{name}" for name in names)):
        h = dict(zip(names, values, strict=True))
        w = win.get(h["n"])
        if w is not None:
            line = {"kind": h["kind"], "step_key": h["step"], "item_key": h["item"], "attempt": h["attempt"]}
            place = (w["id"], w["version"] + 1, h["position"])
            q.t.insert("history", place, {**line, "run_id": w["id"], "started_at": h["started"]})


def emit(q: Query, win: dict[int, Row]) -> None:
    """Internal events, stored and put into the inbox."""
    names = ["n", "id", "name", "client_id", "ts", "payload", "correlation"]
    for values in _unnest(q, *(f"event_{name}" for name in names)):
        e = dict(zip(names, values, strict=True))
        w = win.get(e["n"])
        if w is None:
            continue
        store_event(q, w["environment_id"], w["account_id"], e)


def store_event(q: Query, environment: Any, account: Any, e: dict[str, Any]) -> None:
    """One row of `events` and one of `inbox`."""
    row = {
        "environment_id": environment,
        "id": e["id"],
        "received_at": q.t.began,
        "account_id": account,
        "name": e["name"],
        "client_id": e["client_id"],
        "ts": e["ts"],
        "payload": e["payload"],
    }
    q.t.put("events", (environment, e["id"], q.t.began), row)
    box = {
        "environment_id": environment,
        "event_id": e["id"],
        "received_at": q.t.began,
        "account_id": account,
        "name": e["name"],
        "correlation": e.get("correlation"),
    }
    q.t.insert("inbox", (environment, e["id"]), box)


def read_back(q: Query) -> list[Row]:
    """`transition._read_back`: the runs a commit wrote, once nobody holds them."""
    q.server.seen["outcome read back"] += 1
    found: list[Row] = []
    for run_id in q.v["ids"]:
        row = q.t.get("runs", run_id)
        if row is not None:
            q.t.lock("runs", run_id)
            if row["commit_id"] == q.v["commit_id"]:
                found.append({"id": run_id, "version": row["version"], "now": q.t.began})
    return found


_PARTS = {
    "settle": settle,
    "retry": retry,
    "open_pauses": open_pauses,
    "close_pauses": close_pauses,
    "store_requests": store_requests,
    "drop_requests": drop_requests,
    "free_slots": free_slots,
    "history": history,
    "emit": emit,
}
