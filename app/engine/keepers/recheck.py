"""Takes the second look that an opened wait owes (architecture 5, rule 15), where its opener did not live to take it."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from app.domain.ids import RunId
from app.domain.run.happenings import Happening
from app.engine.waits import recheck
from app.store.db import Pool
from app.store.named import fetch, named

#: Waits looked at in one go.
_SLICE = 100


async def run_once(
    pool: Pool, resume: Callable[[RunId, Happening], Awaitable[None]], older: timedelta = timedelta(seconds=1)
) -> int:
    """Recheck waits opened at least `older` ago and never looked at again; returns how many were looked at."""
    wakes: list[tuple[RunId, Happening]] = []
    async with pool.acquire(timeout=10) as connection:
        owed = await fetch(connection, named("inbox", "unchecked_pauses"), older=older, room=_SLICE)
        for pause in owed:
            happening = await recheck(connection, pause) if pause["event_name"] else None
            if happening is not None:
                wakes.append((pause["run_id"], happening))
            else:
                await fetch(
                    connection, named("inbox", "mark_rechecked"), run_id=pause["run_id"], step_key=pause["step_key"]
                )
    # Not before the connection is given back: a wake-up needs one of its own (F10).
    for run_id, happening in wakes:
        await resume(run_id, happening)
    return len(owed)
