"""Makes a run again: a new run of the same event that keeps what is done and goes on from a chosen step.

    original run ─► what is kept ─► runs, steps, items, history     one statement; the original is not touched
                 └► its event with other data ─► events             only when asked; it sets off nothing but the new run

Completed steps are copied as rows, so retention of the original never takes them away, in the same memo order without
gaps; the app replays them as it does after any other call and runs the first step it has no memo of. The plan flag and
the request version start afresh: the app's first answer sets both. The new run is held by the function as it is now: it
waits in the lanes its event gives today (limits, throttle, priority), its cancel rules and timeouts count from now. Gates
(rate limit, debounce, idempotency) do not hold for it, because somebody asked for it.

Both directions are readable: `runs.original_run_id`, and the index over it.
"""

import hashlib
import os
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from app.domain import canonical
from app.domain.errors import Refused
from app.domain.event import with_data
from app.domain.flow.priority import head_start
from app.domain.ids import RunId, derive_item_id, derive_run_id, millis, to_ulid, ulid_of
from app.domain.limits import MAX_OUTPUT_BYTES, PLANS, plan_of
from app.domain.run import keys
from app.domain.scope import Scope
from app.engine.arm import Fresh, arm, must_arm
from app.engine.catalogue import KnownFunction, known_function
from app.engine.flow_rows import put_lanes
from app.store.db import Connection, Pool
from app.store.named import fetch, named

START: Final = "start"
FAILED: Final = "failed"
_UNFINISHED = frozenset({"failed", "cancelled"})
#: Steps whose input the app takes from us; the others are settled by the server and have none.
_TAKES_INPUT = frozenset({"run", "ai", "gateway"})


class ReplayRefused(Refused):
    """The run cannot be made again like this.

    Codes: `function_removed`, `function_paused`, `state_gone`, `run_not_ended`, `nothing_failed`, `step_unknown`,
    `step_ambiguous`, `input_invalid`, `event_invalid`.
    """


class ReplayOfNothing(Refused):
    """There is no such run, or it is not yours to see."""

    def __init__(self) -> None:
        super().__init__("not_found")


@dataclass(frozen=True, slots=True)
class _Kept:
    """What goes over: keys of settled steps, and the step to run again when one was named."""

    keys: list[str]
    target: str | None = None
    kind: str = ""


async def replay(
    pool: Pool,
    scope: Scope,
    run_id: RunId,
    *,
    from_step: str | None = None,
    input: bytes | None = None,  # noqa: A002 - the word of the protocol
    data: bytes | None = None,
    cause: bytes | None = None,
    at: datetime | None = None,
) -> RunId:
    """Make a new run of the same events and give its id; the caller rings the bell.

    `from_step`: `"start"` keeps nothing. `"failed"` keeps all completed steps and drops the failed ones. A step (its
    hash, its id as the app writes it, or its name) keeps what was settled before it. None means `"failed"` for runs
    that failed or were cancelled, else `"start"`. `input` is a JSON list, the arguments the named step gets instead of
    its own. `data` is a JSON object, the data of the event instead of its own; only from the start, since steps that are
    kept were made of the old one. The same `cause` and `at` make one run however often they are given (bulk replays); without them each call
    makes a new one.

    Raises ReplayOfNothing and ReplayRefused; of `data` also what `domain.event.with_data` raises.
    """
    async with pool.acquire(timeout=5) as connection, connection.transaction():
        rows = await fetch(connection, named("replay", "original"), **_of(scope), run_id=run_id)
        if not rows:
            raise ReplayOfNothing
        original = rows[0]
        _check(original)
        if from_step is None:
            from_step = FAILED if original["status"] in _UNFINISHED else START
        if input is not None and from_step in (START, FAILED):
            raise ReplayRefused("input_invalid", "Name the step that the input is for.")
        if data is not None and from_step != START:
            raise ReplayRefused("event_invalid", "Another event begins from the start.")
        kept = await _kept(connection, scope, original, from_step)
        edited = _edited(kept, input)
        new_id = derive_run_id(
            original["function_id"], b"replay:" + (cause or uuid.uuid4().bytes), at or original["now"]
        )
        own = None if data is None else await _edited_event(connection, scope, original, data)
        event = original["event"].encode() if own is None else own[1]
        known, decoded = await _function(connection, scope, original), msgspec.json.decode(event)
        lanes = known.flow.lanes(scope, decoded) if known.flow is not None else None
        if lanes is not None:
            await put_lanes(connection, [(scope, known.id, lanes)])
        priority = known.flow.priority if known.flow is not None else None
        detail = {"replayed_from": to_ulid(run_id), "from_step": kept.target or from_step, "kept": len(kept.keys)}
        made = await fetch(
            connection,
            named("replay", "create"),
            **_of(scope),
            original=run_id,
            run_id=new_id,
            item_id=derive_item_id(new_id, keys.START),
            commit_id=uuid.uuid4(),
            max_attempts=known.function.max_attempts,
            lane=lanes.run.id if lanes is not None else known.lane_id,
            item_lane=(lanes.first or lanes.run).id if lanes is not None else known.lane_id,
            head_start=head_start(priority, decoded) if priority is not None else None,
            keep=kept.keys,
            edited=kept.target if edited else None,
            input=edited,
            event=None if own is None else own[0],
            payload=None if own is None else own[1].decode(),
            detail=msgspec.json.encode(detail).decode(),
        )
        if made and must_arm(known.function):
            # What came in since the transaction began is found by the second look, which the keeper takes.
            await arm(connection, [Fresh(new_id, scope, event, known.function, original["now"])])
    return new_id


async def _function(connection: Connection, scope: Scope, original: Any) -> KnownFunction:
    rows = await fetch(connection, named("replay", "function"), **_of(scope), function=original["function_id"])
    return known_function(rows[0], plan_of(rows[0]["plan"]))


async def replays_of(connection: Connection, scope: Scope, run_id: RunId) -> list[RunId]:
    """The runs that were made from a run, the oldest first, at most 100."""
    rows = await fetch(connection, named("replay", "replays_of"), **_of(scope), run_id=run_id)
    return [RunId(row["id"]) for row in rows]


def _of(scope: Scope) -> dict[str, Any]:
    return {"account": scope.account_id, "environment": scope.environment_id}


def _check(original: Any) -> None:
    if original["is_gone"]:
        raise ReplayRefused("function_removed", "The function is not there any more: sync an app that has it.")
    if original["stops_for"] is not None:
        raise ReplayRefused("quota_exceeded", "The organization starts no new runs just now: see Billing.")
    if original["paused_at"] is not None:
        raise ReplayRefused("function_paused", "The function is paused: resume it first.")
    if original["event"] is None:
        raise ReplayRefused("state_gone", "The events of the run are not kept any more.")


async def _kept(connection: Connection, scope: Scope, original: Any, from_step: str) -> _Kept:
    if from_step == START:
        return _Kept([])
    if original["ended_at"] is None:
        raise ReplayRefused("run_not_ended", "The run has not ended: cancel it first, or start again from the start.")
    rows = await fetch(connection, named("replay", "steps"), **_of(scope), run_id=original["id"])
    settled = [row for row in rows if row["memo_order"] is not None]
    if len(settled) < original["completed"]:
        raise ReplayRefused("state_gone", "The steps of the run are not kept any more.")
    if from_step == FAILED:
        if original["status"] not in _UNFINISHED:
            raise ReplayRefused("nothing_failed", "The run did not fail: name a step, or begin from the start.")
        return _Kept([row["step_key"] for row in settled if row["state"] != "failed"])
    target = _find(rows, from_step)
    before = [row["step_key"] for row in settled if _is_before(row, target)]
    return _Kept(before, target["step_key"], target["kind"])


def _find(rows: list[Any], wanted: str) -> Any:
    """The step meant: by its hash, else by the id it is hashed from, else by a name that only one step has."""
    by_key = {row["step_key"]: row for row in rows}
    hashed = hashlib.sha1(wanted.encode(errors="surrogatepass"), usedforsecurity=False).hexdigest()
    found = by_key.get(wanted) or by_key.get(hashed)
    if found is not None:
        return found
    named_so = [row for row in rows if row["name"] == wanted]
    if not named_so:
        raise ReplayRefused("step_unknown", "The run has no such step.")
    if len(named_so) > 1:
        raise ReplayRefused("step_ambiguous", "Several steps have this name: give the id of the one you mean.")
    return named_so[0]


def _is_before(row: Any, target: Any) -> bool:
    if row["step_key"] == target["step_key"]:
        return False
    return target["memo_order"] is None or bool(row["memo_order"] < target["memo_order"])


async def _edited_event(connection: Connection, scope: Scope, original: Any, data: bytes) -> tuple[UUID, bytes]:
    """The event the new run gets: (its internal id, its payload)."""
    if original["batch_size"] != 1:
        raise ReplayRefused("event_invalid", "The run has a batch of events: they cannot be changed.")
    rows = await fetch(connection, named("replay", "event"), **_of(scope), run_id=original["id"])
    event_id = ulid_of(millis(original["now"]), os.urandom(10))
    payload = with_data(rows[0]["payload"].encode(), data, to_ulid(event_id))
    limit = PLANS["self_hosted"].event_bytes
    if len(payload) > limit:
        raise ReplayRefused("event_invalid", f"The event has {len(payload)} bytes; {limit} are allowed.")
    return event_id, payload


def _edited(kept: _Kept, given: bytes | None) -> str | None:
    """The input as canonical JSON, to be spliced into calls."""
    if given is None:
        return None
    if kept.kind not in _TAKES_INPUT:
        raise ReplayRefused("input_invalid", "This kind of step takes no input.")
    if len(given) > MAX_OUTPUT_BYTES:
        raise ReplayRefused("input_invalid", "The input is larger than 4 MiB.")
    value = canonical.decode(given)
    if not isinstance(value, list):
        raise ReplayRefused("input_invalid", "The input must be the list of the step's arguments.")
    return canonical.encode(value).decode()
