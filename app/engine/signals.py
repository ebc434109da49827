"""Delivers signals (protocol 23.2): to the one wait that has the name, once; none is kept for later.

    POST /v1/signals ─► who has the name? ─► run locked ─► still has it? ─► Resumed        one transaction

Who is authoritative: the `signal` column of the wait. It is claimed and taken over by `transition`, which locks names;
a wait that lost its name ends by its timeout.
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
