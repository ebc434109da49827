"""Signals (protocol 23.2): one wait per name and environment, delivered once, never queued.

    worker: answer opens a wait ─► run locked ─► names claimed, all or refused ─► commit       one transaction
    web:    POST /v1/signals ─► who has the name? ─► run locked ─► still has it? ─► Resumed    one transaction

Who is authoritative: the row in `signal_names`. It appears and goes with the wait, in the same transaction; only
`replace` moves it to another run, and the older wait then ends by its timeout.
A refused name fails one run and no other entry of its batch, so names are never claimed by the batch statement: an
entry that opens such a wait goes the slow way, where its run is locked first.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.domain.ids import RunId
from app.domain.run.happenings import Resumed
from app.domain.scope import Scope
from app.engine.apply import Entry
from app.engine.clock import DatabaseClock
from app.engine.transition import ItemMoved, RunEnded, RunUnknown, change_run
from app.store.db import Pool
from app.store.named import fetch, named

#: A wait may move to another run between two looks; more often than this it does not while one request is served.
_LOOKS = 5


@dataclass(frozen=True, slots=True)
class Delivered:
    """The wait that took the signal; `entry` is the change of its run."""

    run_id: RunId
    entry: Entry


async def deliver(
    pool: Pool, clock: DatabaseClock, scope: Scope, signal: str, payload: bytes, name: bytes
) -> Delivered | None:
    """End the wait for `signal` with `payload` (canonical JSON); None when nothing waits for it.

    `name` is the signal as canonical JSON text.
    """
    memo = b'{"data":{"data":' + payload + b',"signal":' + name + b"}}"
    for _ in range(_LOOKS):
        async with pool.acquire(timeout=2) as connection:
            found = await fetch(connection, named("signals", "find"), environment=scope.environment_id, signal=signal)
        if not found:
            return None
        run_id, step_key = found[0]["run_id"], found[0]["step_key"]

        async def has_name(connection: Any, run_id: UUID = run_id, step_key: str = step_key) -> bool:
            return bool(
                await fetch(
                    connection,
                    named("signals", "hold"),
                    environment=scope.environment_id,
                    signal=signal,
                    run_id=run_id,
                    step_key=step_key,
                )
            )

        try:
            entry = await change_run(pool, run_id, Resumed(step_key, memo), clock=clock, scope=scope, check=has_name)
        except (RunUnknown, RunEnded, ItemMoved):
            continue
        return Delivered(run_id, entry)
    return None
