"""Bulk cancel and replay: slices of a frozen set of runs, one transaction per run.

    take a slice ─► for each run: hold its item ─► cancel or replay ─► settle the item      one transaction
    (skip locked)                 (skip locked)

A crash anywhere leaves items pending: they are taken again when `taken_until` has passed. An item is settled in the
transaction that changed its run, so nothing is done twice, and no transaction touches two runs (architecture 5, rules 9
and 16). Nobody waits for Redis: job BULK only makes it start at once.

When an item is due stands in `taken_until`: the ten seconds in which an action can be undone, its speed and its pauses are
nothing else. The worker that holds an item looks once more whether the action rests.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from app.domain.errors import Refused
from app.domain.ids import AccountId, EnvironmentId, RunId, to_ulid
from app.domain.run.happenings import CancelRequested
from app.domain.scope import Scope
from app.engine.acts import Held
from app.engine.apply import Entry
from app.engine.clock import DatabaseClock
from app.engine.replay import replay
from app.engine.transition import RunEnded, RunUnknown, change_run
from app.store.db import CONNECTION_LOST, Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: Runs taken at once (architecture 5, rule 16).
SLICE = 200
_ENDED, _GONE = "The run had already ended.", "The run is not there any more."
#: The run is busy, or the statement was cut off: the item stays pending.
_LATER = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
    *CONNECTION_LOST,
)


@dataclass(frozen=True, slots=True)
class Done:
    """One run that was changed: the commit of a cancel, or the new run of a replay."""

    scope: Scope
    run_id: RunId
    entry: Entry | None = None
    new_run_id: RunId | None = None


async def run_once(pool: Pool, clock: DatabaseClock, tell: Callable[[Done], None]) -> int:
    """Work off one slice; returns how many items it took. `tell` is called after each commit that changed a run."""
    async with pool.acquire(timeout=10) as connection:
        taken = await fetch(connection, named("bulk", "take"), room=SLICE)
    for row in taken:
        scope = Scope(AccountId(row["account_id"]), EnvironmentId(row["environment_id"]))
        try:
            done = await _do(pool, clock, scope, row)
        except _LATER as error:
            log.info("bulk item put off", extra={"error": type(error).__name__, "run_id": to_ulid(row["run_id"])})
            continue
        except asyncpg.PostgresError:
            log.exception("bulk item failed", extra={"run_id": to_ulid(row["run_id"])})
            async with pool.acquire(timeout=10) as connection:
                await _settle(connection, row, "failed", "The change could not be stored.")
            continue
        if done is not None:
            tell(done)
    return len(taken)


async def _do(pool: Pool, clock: DatabaseClock, scope: Scope, row: asyncpg.Record) -> Done | None:
    run_id = RunId(row["run_id"])
    async with pool.acquire(timeout=10) as connection, connection.transaction():
        held = await fetch(connection, named("bulk", "hold"), bulk_id=row["bulk_id"], run_id=run_id)
        if not held:
            return None
        asked = held[0]
        try:
            if asked["action"] == "cancel":
                entry = await change_run(Held(connection), run_id, CancelRequested("bulk"), clock=clock, scope=scope)
                done = Done(scope, run_id, entry)
                if asked["is_deep"]:
                    # They are items of their own: no transaction changes two runs.
                    await fetch(connection, named("bulk", "take_children"), bulk_id=row["bulk_id"], run_id=run_id)
            else:
                cause = row["bulk_id"].bytes + run_id.bytes
                new_id = await replay(
                    Held(connection), scope, run_id, from_step=asked["from_step"], cause=cause, at=asked["made_at"]
                )
                done = Done(scope, run_id, new_run_id=new_id)
        except RunEnded:
            await _settle(connection, row, "skipped", _ENDED)
            return None
        except RunUnknown:
            await _settle(connection, row, "skipped", _GONE)
            return None
        except Refused as refusal:
            await _settle(connection, row, "skipped", refusal.message)
            return None
        await _settle(connection, row, "done", "", done.new_run_id)
    return done


async def _settle(
    connection: asyncpg.Connection, row: asyncpg.Record, state: str, detail: str, new_run_id: RunId | None = None
) -> None:
    await fetch(
        connection,
        named("bulk", "settle"),
        bulk_id=row["bulk_id"],
        run_id=row["run_id"],
        state=state,
        detail=detail,
        new_run_id=new_run_id,
    )
