"""Changes that people make while work waits, without a deploy: audited, and over by themselves (feature-semantics A5).

    limit   what one limit of a function allows    flow_limits.own_*       all its key values, from the next lease on; a limit of
                                                                           calls also where the code has none, for as long
    key     how many slots one key value has       flow_keys.cap           0 holds it; functions that share it too
    hold    no call of the function is made        functions.held_until    runs are made and wait, in their order
    retry   the waits between retries              functions.own_backoff   from the next retry on; the only one without an end

Each is a row of `overrides`, with who, why and until when; what it changes lies in the columns above, beside what the code
says, so a sync neither undoes it nor is undone by it. The queue reads the end with the value, by the database's clock, so a
change is over in time even where no keeper runs; the keeper closes the row, writes the audit line and wakes who waited.

Locks: the function's row first, then limits, then lanes in the order of their ids, then keys, as leases have them. A lease
that read a limit before it changed may still block a lane by it; the keeper looks at such lanes again.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.domain.backoff import stored
from app.domain.errors import Refused
from app.domain.flow.concurrency import NO_LIMIT, Kind, Limit, added_limit, flow_key, flow_key_of, named_limits
from app.domain.flow.gcra import pace_of
from app.domain.ids import FunctionId
from app.domain.limits import MAX_OVERRIDE, MAX_THROTTLE_PERIOD, MIN_OVERRIDE, MIN_PERIOD
from app.domain.protocol.function_config import read_stored
from app.domain.scope import Scope
from app.domain.settings import Backoff
from app.domain.settings import Scope as Over
from app.store.audit import Actor, insert_entry
from app.store.db import Pool
from app.store.named import fetch, named

#: Slots and starts that may be asked for; more is no limit any more.
MOST = NO_LIMIT
#: The limit that people may set on a function whose code has none of the name.
_ADDED = "concurrency"
#: Overrides ended in one transaction.
_ROOM = 20
#: Who ends what is over.
_KEEPER = Actor("Stepwell")


class OverrideRefused(Refused):
    """The change cannot be made; `details["field"]` names what is wrong where it is one thing.

    Codes: `function_unknown`, `limit_unknown`, `override_invalid`, `key_shared`.
    """


@dataclass(frozen=True, slots=True)
class Who:
    """Who changes something and why. `is_program`: a key of the environment, which may not touch other environments."""

    actor: Actor
    reason: str = ""
    is_program: bool = False


@dataclass(frozen=True, slots=True)
class LimitChange:
    """`limit` is slots, or starts in `period` with `burst` more at once for a throttle."""

    limit: int
    period: timedelta | None = None
    burst: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """A change that is made or ended. `lanes` have work that may go on now, for the bell; `was_over`: nothing was to be done."""

    id: UUID
    lanes: tuple[UUID, ...] = ()
    was_over: bool = False


async def change_limit(
    pool: Pool, scope: Scope, function_id: FunctionId, name: str, change: LimitChange, last: timedelta, who: Who
) -> Done:
    """Let a limit of a function allow something else for a time. `name` as `named_limits` has it."""
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        row = await _function(connection, scope, function_id)
        limit = _named(row, name)
        is_added = limit is None and name == _ADDED
        limit = added_limit(function_id) if is_added else limit
        if limit is None:
            raise _unknown(name)
        cap, every, setting = _asked(limit, change)
        until = _until(row, last)
        if is_added:
            key = flow_key(limit, scope, {})
            await fetch(
                connection,
                named("overrides", "add_limit"),
                limit=limit.id,
                account=scope.account_id,
                environment=scope.environment_id,
                function=function_id,
                cap=limit.cap,
                flow_key=key.id,
                key=key.text,
            )
        found = await fetch(
            connection,
            named("overrides", "set_limit"),
            limit=limit.id,
            function=function_id,
            cap=cap,
            every=every,
            until=until,
        )
        if not found:
            raise _unknown(name)
        lanes = await fetch(connection, named("overrides", "unblock_function"), function=function_id)
        if limit.kind is not Kind.THROTTLE and cap < found[0]["cap"]:
            await fetch(connection, named("overrides", "waited_for"), function=function_id, limit=limit.id)
        done = await _put(connection, scope, row, "limit", who, name, setting, until, limit=limit.id)
        if is_added:
            await fetch(connection, named("functions", "raise_version"), environment=scope.environment_id)
    return Done(done, tuple(lane["id"] for lane in lanes))


async def change_key(
    pool: Pool, scope: Scope, function_id: FunctionId, name: str, value: str, slots: int, last: timedelta, who: Who
) -> Done:
    """Give one key value of a limit `slots` of its own for a time; 0 holds it. A throttled key can only be held."""
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        row, limit = await _limit(connection, scope, function_id, name)
        if limit.over is Over.ACCOUNT and who.is_program:
            raise OverrideRefused(
                "key_shared", "This key is shared with other environments: change it in the dashboard."
            )
        if limit.kind is Kind.THROTTLE and slots != 0:
            raise _wrong("limit", "A throttled key can only be held; change the throttle itself for another pace.")
        if not 0 <= slots <= MOST:
            raise _wrong("limit", f"A whole number from 0 to {MOST} is expected.")
        key = flow_key_of(limit, scope, value)
        until = _until(row, last)
        lanes = await fetch(connection, named("overrides", "unblock_key"), flow_key=key.id)
        await fetch(
            connection,
            named("overrides", "set_key"),
            flow_key=key.id,
            account=scope.account_id,
            environment=scope.environment_id,
            function=function_id,
            scope=key.scope,
            key=key.text,
            cap=slots,
            until=until,
        )
        subject = f"{name}, key {key.text}" if limit.key else f"{name}, all of it"
        setting = "held" if slots == 0 else f"{slots} at once"
        done = await _put(connection, scope, row, "key", who, subject, setting, until, limit=limit.id, flow_key=key.id)
    return Done(done, tuple(lane["id"] for lane in lanes))


async def hold_function(pool: Pool, scope: Scope, function_id: FunctionId, last: timedelta, who: Who) -> Done:
    """Call nothing of a function for a time. Events still make runs, which wait; a call under way ends."""
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        row = await _function(connection, scope, function_id)
        until = _until(row, last)
        await fetch(connection, named("overrides", "set_hold"), function=function_id, until=until)
        done = await _put(connection, scope, row, "hold", who, "the function", "held", until)
        await fetch(connection, named("functions", "raise_version"), environment=scope.environment_id)
    return Done(done)


async def change_retry(pool: Pool, scope: Scope, function_id: FunctionId, backoff: Backoff, who: Who) -> Done:
    """Give a function waits between retries, in place of those of its code, until somebody ends that."""
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        row = await _function(connection, scope, function_id)
        await fetch(connection, named("overrides", "set_backoff"), function=function_id, backoff=stored(backoff))
        setting = f"{_said(backoff.initial)}, times {backoff.factor:g}, at most {_said(backoff.cap)}"
        done = await _put(connection, scope, row, "retry", who, "waits between retries", setting, None)
        await fetch(connection, named("functions", "raise_version"), environment=scope.environment_id)
    return Done(done)


async def end(pool: Pool, scope: Scope, function_id: FunctionId, override_id: UUID, who: Who) -> Done | None:
    """End a change before its time; None when there is no such change."""
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        row = await _function(connection, scope, function_id)
        found = await fetch(
            connection,
            named("overrides", "find"),
            environment=scope.environment_id,
            function=function_id,
            id=override_id,
        )
        if not found:
            return None
        if found[0]["ended_at"] is not None:
            return Done(override_id, was_over=True)
        lanes = await _lift(connection, found[0], row["slug"], who.actor)
    return Done(override_id, tuple(lanes))


async def end_due(pool: Pool) -> list[UUID]:
    """The keeper: close what is over; returns the lanes that may go on."""
    lanes: list[UUID] = []
    async with pool.acquire(timeout=10) as connection, connection.transaction():
        for override in await fetch(connection, named("overrides", "over"), room=_ROOM):
            lanes += await _lift(connection, override, override["slug"], _KEEPER)
        lanes += [lane["id"] for lane in await fetch(connection, named("overrides", "unblock_lately"))]
    return lanes


async def _function(connection: Any, scope: Scope, function_id: FunctionId) -> Any:
    rows = await fetch(
        connection, named("overrides", "function"), environment=scope.environment_id, function=function_id
    )
    if not rows:
        raise OverrideRefused("function_unknown", "There is no such function here.")
    return rows[0]


async def _limit(connection: Any, scope: Scope, function_id: FunctionId, name: str) -> tuple[Any, Limit]:
    row = await _function(connection, scope, function_id)
    limit = _named(row, name)
    if limit is None:
        raise _unknown(name)
    return row, limit


def _named(row: Any, name: str) -> Limit | None:
    """A limit that the code of a function has."""
    return named_limits(row["id"], read_stored(row["config"].encode())).get(name)


async def _is_added(connection: Any, override: Any) -> bool:
    """Whether the limit of an override is one that the code does not have."""
    of = {"environment": override["environment_id"], "function": override["function_id"]}
    config = (await fetch(connection, named("overrides", "config"), **of))[0]["config"]
    added = added_limit(override["function_id"])
    return added.id == override["limit_id"] and _ADDED not in named_limits(
        override["function_id"], read_stored(config.encode())
    )


async def _put(
    connection: Any,
    scope: Scope,
    row: Any,
    kind: str,
    who: Who,
    subject: str,
    setting: str,
    until: datetime | None,
    *,
    limit: UUID | None = None,
    flow_key: UUID | None = None,
) -> UUID:
    """Write the row and its audit line; an earlier change of the same thing is over."""
    which = {"function": row["id"], "kind": kind, "limit": limit, "flow_key": flow_key}
    earlier = await fetch(connection, named("overrides", "live_on"), **which)
    await fetch(connection, named("overrides", "close"), ids=[r["id"] for r in earlier], actor=who.actor.label)
    override_id = uuid.uuid4()
    told = {"subject": subject, "setting": setting, "reason": who.reason}
    await fetch(
        connection,
        named("overrides", "put"),
        id=override_id,
        account=scope.account_id,
        environment=scope.environment_id,
        actor=who.actor.label,
        until=until,
        **which,
        **told,
    )
    detail = {"function": row["slug"], **told, "until": until.isoformat() if until else None}
    await _tell(connection, scope.account_id, scope.environment_id, who.actor, "override.set", row["slug"], detail)
    return override_id


async def _lift(connection: Any, override: Any, slug: str, actor: Actor) -> list[UUID]:
    await fetch(connection, named("overrides", "close"), ids=[override["id"]], actor=actor.label)
    lanes: list[Any] = []
    is_added = False
    match override["kind"]:
        case "limit":
            await fetch(connection, named("overrides", "lift_limit"), limit=override["limit_id"])
            is_added = await _is_added(connection, override)
            lanes = await fetch(connection, named("overrides", "unblock_function"), function=override["function_id"])
            if is_added:
                which = {"function": override["function_id"], "limit": override["limit_id"]}
                await fetch(connection, named("overrides", "drop_limit"), **which)
        case "key":
            lanes = await fetch(connection, named("overrides", "unblock_key"), flow_key=override["flow_key_id"])
            await fetch(connection, named("overrides", "lift_key"), flow_key=override["flow_key_id"])
        case "hold":
            await fetch(connection, named("overrides", "set_hold"), function=override["function_id"], until=None)
            lanes = await fetch(connection, named("pause", "unpark"), function=override["function_id"])
        case "retry":
            await fetch(connection, named("overrides", "set_backoff"), function=override["function_id"], backoff=None)
    if is_added or override["kind"] in ("hold", "retry"):
        await fetch(connection, named("functions", "raise_version"), environment=override["environment_id"])
    detail = {"function": slug, "subject": override["subject"], "setting": override["setting"]}
    await _tell(connection, override["account_id"], override["environment_id"], actor, "override.ended", slug, detail)
    return [lane["id"] for lane in lanes]


async def _tell(
    connection: Any, account: Any, environment: Any, actor: Actor, action: str, slug: str, detail: Mapping[str, object]
) -> None:
    await insert_entry(connection, account, actor, action, environment_id=environment, subject=slug, detail=detail)


def _asked(limit: Limit, change: LimitChange) -> tuple[int, timedelta | None, str]:
    """What the columns get, and what people read."""
    least = 1 if limit.kind is Kind.THROTTLE else 0
    if not least <= change.limit <= MOST:
        raise _wrong("limit", f"A whole number from {least} to {MOST} is expected.")
    if limit.kind is not Kind.THROTTLE:
        return change.limit, None, f"{change.limit} at once" if change.limit else "held"
    period = change.period
    if period is None or not MIN_PERIOD <= period <= MAX_THROTTLE_PERIOD:
        raise _wrong("period", "A throttle needs a period from 1 s to 7 d.")
    if not 0 <= change.burst <= MOST:
        raise _wrong("burst", f"A whole number from 0 to {MOST} is expected.")
    more = f", {change.burst} more at once" if change.burst else ""
    pace = pace_of(change.limit, period, change.burst)
    return pace.burst, pace.every, f"{change.limit} starts per {_said(period)}{more}"


def _until(row: Any, last: timedelta) -> datetime:
    if not MIN_OVERRIDE <= last <= MAX_OVERRIDE:
        raise _wrong("expires_in", "A change holds for one minute to 30 days.")
    now: datetime = row["now"]
    return now + last


def _unknown(name: str) -> OverrideRefused:
    return OverrideRefused(
        "limit_unknown", f"The function has no limit {name[:40]!r}; add it in the code and sync.", {"field": "limit"}
    )


def _wrong(field: str, message: str) -> OverrideRefused:
    return OverrideRefused("override_invalid", message, {"field": field})


def _said(length: timedelta) -> str:
    seconds = length.total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
