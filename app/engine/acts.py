"""What a person does to one run: cancel it, or make it again. Deed and audit line in one transaction (I27).

`Held` lends a connection that is already inside a transaction to code that asks a pool for one, so that what
`transition` and `replay` commit alone can be part of a larger whole. At most one run per transaction (architecture 5,
rule 9).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.domain.ids import RunId, to_ulid
from app.domain.run.happenings import CancelRequested
from app.domain.scope import Scope
from app.engine.apply import Entry
from app.engine.clock import DatabaseClock
from app.engine.replay import replay
from app.engine.transition import change_run
from app.store.audit import Actor, insert_entry
from app.store.db import Connection, Pool


@dataclass(frozen=True, slots=True)
class Held:
    """A pool of one connection, which the owner keeps; transactions begun on it are savepoints."""

    connection: Connection

    @asynccontextmanager
    async def acquire(self, timeout: float | None = None) -> AsyncIterator[Connection]:  # noqa: ARG002 - as pools have it
        """Lend the connection; there is nothing to wait for."""
        yield self.connection


async def cancel_as(pool: Pool, scope: Scope, run_id: RunId, actor: Actor, *, clock: DatabaseClock) -> Entry:
    """Cancel a run for somebody. Raises RunUnknown, also for runs of other tenants, and RunEnded."""
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        entry = await change_run(Held(connection), run_id, CancelRequested("page"), clock=clock, scope=scope)
        await insert_entry(
            connection,
            scope.account_id,
            actor,
            "run.cancelled",
            environment_id=scope.environment_id,
            subject=to_ulid(run_id),
        )
    return entry


async def replay_as(
    pool: Pool,
    scope: Scope,
    run_id: RunId,
    actor: Actor,
    *,
    from_step: str | None,
    given: bytes | None = None,
    data: bytes | None = None,
) -> RunId:
    """Make a run again for somebody and give the new id; `from_step`, `given` (its input) and `data` as in `replay`.

    Raises what `replay` raises.
    """
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        new_id = await replay(Held(connection), scope, run_id, from_step=from_step, input=given, data=data)
        await insert_entry(
            connection,
            scope.account_id,
            actor,
            "run.replayed",
            environment_id=scope.environment_id,
            subject=to_ulid(run_id),
            detail={"new_run": to_ulid(new_id), "from_step": from_step or "failed"}
            | ({"edited": "event" if data is not None else "input"} if data is not None or given is not None else {}),
        )
    return new_id
