"""Why a run is not moving: for each piece of its future, what holds it, who holds that, and when it can go on at the earliest.

    item, leased              calling        which worker has it, and whether that worker is alive
    item, due later           scheduled, retry, sleep
    item, due now             queued, or held by a limit: key, limit, what is used, by whom, place in the lane, earliest time;
                              paused, held: people stopped the function's calls
    item of a silent app      app_silent     calls to the app are held back, with the next try
    open wait                 wait_for_event with the events that came and did not match, wait_for_signal, invoke

Answers are data in the order of the reader's interest; sentences are made by pages. Everything is read in the caller's
transaction (`store.db.tenant`), so the parts agree with each other, and nothing of another tenant can be in it.
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from app.domain.flow.gcra import Pace, arrive
from app.domain.ids import RunId, to_ulid
from app.domain.matching import wait_matches, wait_text, wait_value
from app.domain.scope import Scope
from app.store.db import Connection
from app.store.named import fetch, named

#: Holders of a key and events beside a wait that are named; counts are always whole.
_HOLDERS = 10
_EVENTS = 5
#: An item put aside is due again within minutes when its app did not answer, and after a year when its function is paused.
_PARKED = timedelta(days=1)
#: Pieces of a run's future that are explained; a run of 1,000 parallel steps asks no more than one of these.
MOST_REASONS = 20
_CALLED = ("discover", "step", "gateway")


async def explain_run(
    connection: Connection, scope: Scope, run_id: RunId, *, room: int = MOST_REASONS
) -> dict[str, Any] | None:
    """What holds the run; None when there is no such run.

    `reasons` is [] only for a run that is over. Each has `kind`, most have `at` (the earliest time it can move, null when
    that depends on others) and `step`. Of items and of waits `room` are explained; `left_out` counts the others.
    """
    rows = await fetch(connection, named("explain", "run"), environment=scope.environment_id, run=run_id)
    if not rows:
        return None
    run = rows[0]
    out: dict[str, Any] = {
        "run_id": to_ulid(run_id),
        "status": run["status"],
        "function": run["slug"],
        "is_function_paused": run["is_paused"],
        "is_function_removed": run["is_removed"],
        "function_held_until": _time(run["held_until"]),
        "now": _time(run["now"]),
        "reasons": [],
        "left_out": 0,
    }
    if run["ended_at"] is not None:
        out["ended"] = {"at": _time(run["ended_at"]), "code": run["error_code"], "message": run["error_message"]}
        return out
    reasons = out["reasons"]
    items = await fetch(connection, named("explain", "items"), run=run_id, room=room)
    for item in items:
        reasons.append(await _item(connection, run, item))
    waits = await fetch(connection, named("explain", "waits"), run=run_id, room=room)
    for wait in waits:
        reasons.append(await _wait(connection, scope, wait, wait["timeout"]))
    out["left_out"] = sum(found[0]["total"] - len(found) for found in (items, waits) if found)
    if any(r["kind"] in ("queued", "concurrency", "runs") for r in reasons) and not run["workers"]:
        reasons.insert(0, {"kind": "no_worker", "at": None})
    return out


async def _item(connection: Connection, run: Any, item: Any) -> dict[str, Any]:
    now: datetime = run["now"]
    common = {"step": item["step_name"] or None, "attempt": item["attempt"]}
    if item["worker_id"] is not None:
        is_alive = item["lease_until"] is not None and item["lease_until"] > now
        return {
            "kind": "calling" if is_alive else "worker_lost",
            **common,
            "since": _time(item["leased_at"]),
            "worker": item["worker_name"] or None,
            # A dead worker's item is given back when its lease has run out.
            "at": None if is_alive else _time(item["lease_until"]),
        }
    if item["kind"] == "sleep":
        return {"kind": "sleep", **common, "at": _time(item["due_at"])}
    if item["kind"] in _CALLED and (item["is_parked"] or item["due_at"] <= now) and (stop := _stopped(run)) is not None:
        return {**stop, **common, "since": _time(item["due_at"])}
    if item["is_parked"] and item["next_at"] < now + _PARKED:
        return {
            "kind": "app_silent",
            **common,
            "at": _time(max(item["next_at"], now)),
            "since": _time(item["due_at"]),
        }
    if item["due_at"] > now:
        if item["attempt"] > 0:
            return {"kind": "retry", **common, "at": _time(item["due_at"])}
        delayed = "backlog" if run["backlog"] else "cron_jitter" if run["cron"] else "event_time"
        return {"kind": "scheduled", **common, "at": _time(item["due_at"]), "because": delayed}
    place = (await fetch(connection, named("explain", "place"), lane=item["lane_id"], item=item["id"]))[0]["ahead"] + 1
    held = await _held(connection, run, item, now) if item["is_gated"] else None
    return {**common, "place": place, **(held or {"kind": "queued", "at": _time(now), "since": _time(item["due_at"])})}


def _stopped(run: Any) -> dict[str, Any] | None:
    """Why no call of the function is made at all; None when calls are made."""
    if run["is_paused"]:
        return {"kind": "paused", "at": None}
    return {"kind": "held", "at": _time(run["held_until"])} if run["held_until"] is not None else None


async def _held(connection: Connection, run: Any, item: Any, now: datetime) -> dict[str, Any] | None:
    """The key that holds a due item: a full one before a throttle, whose end is known; None when all have room."""
    found: dict[str, Any] | None = None
    for key in await fetch(connection, named("explain", "keys"), lane=item["lane_id"], run=run["id"]):
        shown = {"key": key["key"] or None, "scope": key["scope"], "limit": key["cap"]}
        if key["kind"] == "throttle":
            if item["key"] == "start" and item["fence"] == 0:
                answer = arrive(Pace(key["every"], key["cap"]), key["tat"], now)
                changed = {"is_changed_by_people": key["is_own"], "changed_until": _time(key["until"])}
                if key["is_held"]:
                    return {"kind": "throttle", **shown, **changed, "limit": 0, "at": _time(key["until"])}
                if not answer.is_admitted:
                    shown["limit"] = key["cap"] + 1
                    every = {"every_ms": _millis(key["every"]), "at": _time(answer.at)}
                    found = {"kind": "throttle", **shown, **changed, **every}
        elif not key["is_ours"] and key["live"] >= key["cap"]:
            holders = await fetch(connection, named("explain", "holders"), key=key["id"], room=_HOLDERS)
            return {
                "kind": "concurrency" if key["kind"] == "calls" else "runs",
                **shown,
                "is_changed_by_people": key["is_own"],
                "changed_until": _time(key["until"]),
                "used": key["live"],
                "holders": [
                    {
                        "run_id": to_ulid(h["run_id"]),
                        "environment": h["environment"],
                        "function": h["slug"],
                        "step": h["step_name"],
                        "since": _time(h["taken_at"]),
                    }
                    for h in holders
                ],
                # A key that is held goes on at the latest when the hold is over.
                "at": _time(key["until"]) if key["is_held"] else None,
            }
    return found


async def _wait(connection: Connection, scope: Scope, wait: Any, timeout: datetime | None) -> dict[str, Any]:
    common = {
        "step": wait["step_name"],
        "since": _time(wait["requested_at"]),
        "at": _time(timeout) if timeout else None,
    }
    if wait["kind"] == "wait_for_signal":
        return {"kind": "wait_for_signal", **common, "signal": wait["signal"]}
    if wait["kind"] == "invoke":
        return {"kind": "invoke", **common, **await _child(connection, scope, wait)}
    events = await fetch(
        connection,
        named("explain", "events"),
        environment=scope.environment_id,
        name=wait["event_name"],
        since=wait["requested_at"],
        room=_EVENTS,
    )
    return {
        "kind": "wait_for_event",
        **common,
        "event": wait["event_name"],
        "expression": wait_text(wait["expression"]) if wait["expression"] else None,
        "near_misses": [
            {"event_id": to_ulid(e["id"]), "received_at": _time(e["received_at"]), "why": _miss(wait, e)}
            for e in events
        ],
    }


def _miss(wait: Any, event: Any) -> str:
    """Why an event did not end the wait."""
    decoded = msgspec.json.decode(event["payload"])
    if wait["match_path"] == "":
        return "nothing can match: the run's own event already makes the expression false"
    if wait["match_path"] is not None:
        value = wait_value(wait["match_path"], decoded)
        if value != wait["match_value"]:
            path = "async" + wait["match_path"].replace("/", ".")
            return f"{path} is {_plain(value)}, not {_plain(wait['match_value'])}"
    matches, error = wait_matches(wait["expression"], decoded, event["received_at"])
    if error is not None:
        return error
    return "it matches and is on its way" if matches else "the expression is false for it"


async def _child(connection: Connection, scope: Scope, wait: Any) -> dict[str, Any]:
    """The run an invoke waits for, or what became of its event."""
    rows = await fetch(connection, named("explain", "child"), parent=wait["run_id"], step=wait["step_key"])
    if rows:
        return {"child": {"run_id": to_ulid(rows[0]["id"]), "function": rows[0]["slug"], "status": rows[0]["status"]}}
    answer = await fetch(
        connection,
        named("explain", "child_answer"),
        environment=scope.environment_id,
        correlation=wait["correlation"],
        since=wait["requested_at"],
    )
    if answer:
        return {"child": None, "answer": {"outcome": answer[0]["outcome"], "detail": answer[0]["detail"]}}
    return {"child": None}


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def _millis(length: timedelta) -> float:
    return length / timedelta(milliseconds=1)


def _plain(value: str) -> str:
    """A value of the index of waits, without its mark of kind and of bounded length."""
    text = value[2:] if value[1:2] == ":" else value
    return text if len(text) <= 100 else f"{text[:100]}…"
