"""Orders to cancel many runs (protocol 16.3): written by the API, worked off by every worker in slices.

    POST /v1/cancellations ─► row ─► keeper: claim the order ─► next 200 open runs ─► `if` ─► lock, advance, commit
                                                 ▲                                                  │ one transaction
                                                 └──────────── position, until nobody is left ◄─────┘

Runs that are busy at that moment are passed by (`skip locked`) and visited again a second later. A run may appear
after the order although its time is before it: it is dated by its event, which may still lie in the inbox. So an
order stays open, as a filter, until the inbox is past its time.
"""

import logging
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from app.domain.expressions import Expression, ExpressionRefused, compile_expression
from app.domain.ids import RunId, millis, to_ulid, ulid_of
from app.domain.run.advance import advance
from app.domain.run.happenings import CancelRequested
from app.domain.scope import Scope
from app.engine.apply import Entry, write
from app.engine.clock import DatabaseClock
from app.engine.hot import hot_run
from app.store.commit import Batch, commit
from app.store.db import Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: Runs in one transaction (architecture 5, rule 16).
SLICE = 200
_AGAIN = timedelta(seconds=1)
_LEAST, _MOST = UUID(int=0), UUID(int=(1 << 128) - 1)


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice did: `entries` are the runs it ended, `is_idle` when no order was due."""

    entries: list[Entry]
    is_idle: bool = False


async def place(
    pool: Pool,
    scope: Scope,
    function: Any,
    *,
    after: datetime | None,
    before: datetime,
    expression: str | None,
    cause: str = "api",
    due_at: datetime | None = None,
) -> Any:
    """Store an order for the runs of `function` (a `Function`) dated in [after, before]; the stored row.

    Raises ExpressionRefused. `due_at` puts it off.
    """
    if expression is not None:
        compile_expression(expression, ("event",))
    async with pool.acquire(timeout=2) as connection:
        return await insert(
            connection,
            scope,
            app_id=function.app_id,
            function_id=function.id,
            slug=function.slug,
            app_name=function.app_name,
            after=after,
            before=before,
            expression=expression,
            cause=cause,
            due_at=due_at,
        )


async def insert(connection: Any, scope: Scope, **columns: Any) -> Any:
    """The row of an order; `columns` are those of `order` (sql/cancel.sql) by name."""
    now = await connection.fetchval("select clock()")
    rows = await fetch(
        connection,
        named("cancel", "order"),
        id=ulid_of(millis(now), uuid.uuid4().bytes[:10]),
        account=scope.account_id,
        environment=scope.environment_id,
        app=columns.pop("app_id"),
        function=columns.pop("function_id"),
        **columns,
    )
    return rows[0]


async def list_orders(connection: Any, scope: Scope, *, before: UUID | None, room: int) -> list[Any]:
    """The API's orders of an environment, newest first; `before` is the id of the last one seen."""
    return await fetch(connection, named("cancel", "list"), environment=scope.environment_id, before=before, room=room)


async def withdraw(pool: Pool, scope: Scope, order_id: UUID) -> bool:
    """End an order; what it has cancelled stays cancelled. False when there is none."""
    async with pool.acquire(timeout=2) as connection:
        return bool(await fetch(connection, named("cancel", "delete"), environment=scope.environment_id, id=order_id))


async def work_off(pool: Pool, clock: DatabaseClock, *, room: int = SLICE) -> Slice:
    """Do one slice of the order that has waited longest."""
    async with pool.acquire(timeout=10) as connection, connection.transaction():
        orders = await fetch(connection, named("cancel", "claim"))
        if not orders:
            return Slice([], is_idle=True)
        order = orders[0]
        clock.saw(order["now"])
        position = order["position"] or _floor(order["started_after"])
        ids = [
            row["id"]
            for row in await fetch(
                connection,
                named("cancel", "next_runs"),
                environment=order["environment_id"],
                function=order["function_id"],
                position=position,
                until=_ceiling(order["started_before"]),
                room=room,
            )
        ]
        meant = await _meant(connection, order, ids)
        entries = await _cancel(connection, order, meant, clock)
        has_missed = order["has_missed"] or len(entries) < len(meant)
        is_end = len(ids) < room
        due_at: datetime | None = order["now"]
        if is_end:
            behind = await fetch(
                connection,
                named("cancel", "is_behind"),
                environment=order["environment_id"],
                before=order["started_before"],
            )
            # A pass is over: begin again for those who were busy or are still to come, else it is done.
            due_at = order["now"] + _AGAIN if has_missed or behind[0]["is_behind"] else None
        await fetch(
            connection,
            named("cancel", "moved"),
            id=order["id"],
            position=None if is_end else ids[-1],
            has_missed=False if is_end else has_missed,
            due_at=due_at,
            cancelled=len(entries),
        )
    return Slice(entries)


async def _meant(connection: Any, order: Any, ids: list[RunId]) -> list[RunId]:
    """The runs whose event satisfies the order's expression; one that fails on an event means none of it."""
    if order["expression"] is None or not ids:
        return ids
    try:
        expression: Expression = compile_expression(order["expression"], ("event",))
    except ExpressionRefused:
        log.warning("order cannot be judged", extra={"order": to_ulid(order["id"])})
        return []
    rows = await fetch(connection, named("cancel", "events_of"), run_ids=ids)
    return [
        row["id"]
        for row in rows
        if expression.judge({"event": msgspec.json.decode(row["payload"].encode())}, order["now"])[0]
    ]


async def _cancel(connection: Any, order: Any, ids: list[RunId], clock: DatabaseClock) -> list[Entry]:
    """Lock what is free, read it in a new statement, end it: all in one commit statement."""
    if not ids:
        return []
    held = [row["id"] for row in await fetch(connection, named("lease", "lock_runs"), run_ids=ids)]
    rows = await fetch(connection, named("lease", "load"), run_ids=held, with_memos=False)
    cause = "bulk" if order["cause"] == "api" else order["cause"]
    batch = Batch()
    entries: list[Entry] = []
    for row in rows:
        hot = hot_run(row, None)
        if hot.run.is_ended:
            continue
        entry = Entry(hot.run, hot.facts, advance(hot.run, CancelRequested(cause), clock.now()))
        write(batch, len(entries), entry, clock.now())
        entries.append(entry)
    if not entries:
        return []
    won = await commit(connection, batch, uuid.uuid4())
    return [entry for n, entry in enumerate(entries) if n in won]


def _floor(at: datetime | None) -> UUID:
    """The largest id before the moment."""
    return _LEAST if at is None else UUID(int=ulid_of(millis(at), bytes(10)).int - 1)


def _ceiling(at: datetime) -> UUID:
    """The smallest id after the moment."""
    return ulid_of(millis(at) + 1, bytes(10)) if millis(at) + 1 < 1 << 48 else _MOST
