"""Lets go of what is past its time, and makes the partitions of the days to come (D18; docs/adr/0004).

    rows      runs by their end, then what hangs on them; what names a run goes before the run; slices, never all at once
    days      events, steps and history a whole day at a time, when it is past the longest time anybody here keeps
    ahead     the partitions of a week to come
    default   rows that came while their day had no partition: moved into one, or dropped with their day

Who is authoritative for what
- `PLANS` in the code for how long a plan keeps; `retentions` is its copy for SQL, written here.
- a run's row for whether its payloads are needed: a day of steps and history goes after the last run of that day, so a
  run that sleeps for months keeps its day, and no run row is ever left without its steps.
- the events of an unfinished run, an open debounce or batch, and of the inbox keep their day as well. An ended run made
  again from an old event does not: its page says that the event is not kept any more.

Kept for good: accounts, keys, apps, functions and their versions, syncs, and the audit log.
"""

import logging
from collections.abc import Mapping
from datetime import date, timedelta
from uuid import UUID

import asyncpg

from app.domain.limits import PLANS
from app.store import identities, sessions
from app.store.db import Connection, Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: Rows of one kind dropped by one statement, so that none runs long and none locks much.
_SLICE = 1000
#: Statements of one kind in one go; what is left waits for the next.
_SLICES = 50
#: Days for which partitions stand ready, so that a keeper may be away for a week.
AHEAD = 7
#: Seconds a statement about whole partitions may take.
_LONG_S = 120
_NOBODY = UUID(int=0)
#: One keeper at a time lets go of things.
_LOCK = 0x5745_4C4C
#: Sessions end when unused for this long; counters of failed logins start anew after this (accounts/login.py).
_IDLE, _WINDOW = timedelta(days=14), timedelta(days=1)
#: In this order: what names a run goes before the run.
_ROWS = (
    "drop_answers",
    "drop_dispositions",
    "drop_minutes",
    "drop_orders",
    "drop_bulk_items",
    "drop_bulk",
    "drop_seeds",
    "drop_dedupe",
    "drop_processes",
    "drop_late_steps",
    "drop_late_history",
)


def keeps_of(own: timedelta | None = None) -> dict[str, timedelta]:
    """How long each plan keeps; `own` is what the owner of this installation set for their own machine."""
    keeps = {name: plan.retention for name, plan in PLANS.items()}
    return keeps if own is None else keeps | {"self_hosted": own}


async def run_once(pool: Pool, keeps: Mapping[str, timedelta], limit: int = _SLICE) -> int:
    """Drop everything that is past its time; returns how many rows and partitions went.

    `limit` is rows per statement. Leaves off after `_SLICES` statements of a kind; the next call goes on. One keeper at
    a time does this: while another is at it, nothing happens.
    """
    async with pool.acquire(timeout=10) as connection:
        # Held by the session, for what follows are many transactions: each slice and each partition goes by itself.
        if not await connection.fetchval("select pg_try_advisory_lock($1)", _LOCK):
            return 0
        try:
            return await _all(connection, keeps, limit)
        finally:
            await connection.execute("select pg_advisory_unlock($1)", _LOCK)


async def _all(connection: Connection, keeps: Mapping[str, timedelta], limit: int) -> int:
    await fetch(connection, named("retention", "set_keep"), plans=list(keeps), keeps=list(keeps.values()))
    bounds = (await fetch(connection, named("retention", "bounds")))[0]
    span = {"shortest": bounds["shortest"], "longest": bounds["longest"]}
    gone = 0
    for name in _ROWS:
        gone += await _in_slices(connection, name, span, limit)
    gone += await _runs(connection, limit)
    gone += await sessions.delete_expired(connection, idle=_IDLE, window=_WINDOW, limit=limit)
    gone += await identities.delete_expired(connection, limit=limit)
    return gone + await _partitions(connection, bounds["today"], span)


async def make_days(pool: Pool) -> int:
    """Make the day partitions up to a week ahead; returns how many were new."""
    async with pool.acquire(timeout=10) as connection:
        today: date = await connection.fetchval("select (clock() at time zone 'UTC')::date")
        return await _ahead(connection, today)


async def _in_slices(connection: Connection, name: str, span: Mapping[str, timedelta], limit: int) -> int:
    statement = named("retention", name)
    values = {key: value for key, value in {**span, "room": limit}.items() if key in statement.names}
    gone = 0
    for _ in range(_SLICES):
        rows = len(await fetch(connection, statement, **values))
        gone += rows
        if rows < limit:
            break
    return gone


async def _runs(connection: Connection, limit: int) -> int:
    """Walk over the old runs of each environment by id: those that are not over are passed once, however many sleep."""
    gone = 0
    for place in await fetch(connection, named("retention", "old_environments")):
        after: UUID | None = _NOBODY
        while after is not None:
            row = (
                await fetch(
                    connection,
                    named("retention", "drop_runs"),
                    environment=place["id"],
                    keep=place["keep"],
                    after=after,
                    room=limit,
                )
            )[0]
            gone += row["gone"]
            after = row["last"]
    return gone


async def _partitions(connection: Connection, today: date, span: Mapping[str, timedelta]) -> int:
    try:
        await connection.execute(f"set statement_timeout = '{_LONG_S}s'", timeout=_LONG_S)
        made = await _ahead(connection, today)
        moved = await _out_of_default(connection, today, span["longest"])
        dropped = await _drop_days(connection, span["longest"])
        if made or moved or dropped:
            log.info("partitions", extra={"made": made, "moved_in": moved, "dropped": dropped})
        return dropped
    finally:
        await connection.execute("reset statement_timeout")


async def _ahead(connection: Connection, today: date) -> int:
    return await _make(connection, today, today + timedelta(days=AHEAD))


async def _make(connection: Connection, first: date, last: date) -> int:
    """Each day in a transaction of its own; a table that is busy is left for the next time."""
    made = 0
    for n in range((last - first).days + 1):
        day = first + timedelta(days=n)
        try:
            made += await connection.fetchval("select make_partitions($1, $1)", day, timeout=_LONG_S)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            log.warning("the tables are busy; partitions are made later", extra={"day": str(day)})
    return made


async def _out_of_default(connection: Connection, today: date, longest: timedelta) -> int:
    rows = await connection.fetch(named("retention", "days_by_default").sql, timeout=_LONG_S)
    oldest = today - longest
    days = sorted(
        {row["day"] for row in rows if oldest - timedelta(days=400) < row["day"] <= today + timedelta(days=1)}
    )
    return sum([await _make(connection, day, day) for day in days])


async def _drop_days(connection: Connection, longest: timedelta) -> int:
    statement = named("retention", "days_to_drop")
    dropped = 0
    for row in await connection.fetch(statement.sql, *statement.arguments({"longest": longest}), timeout=_LONG_S):
        if row["is_needed"]:
            continue
        try:
            dropped += await connection.fetchval(
                "select drop_partition($1, $2)", row["parent"], row["day"], timeout=_LONG_S
            )
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            log.warning("a partition is busy; it is dropped later", extra={"day": str(row["day"])})
    return dropped
