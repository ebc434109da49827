"""Corrects lanes whose clock says later than their work, and slots nobody has: either costs one second (rule 17, I18).

every second    lanes of items that came due in the last ten seconds       what was lost just now
                500 lanes with waiting items, going round                  what an earlier sweep could not see
                slots whose lease or run is gone                           lanes look for freed slots by themselves
"""

import logging
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from app.store.db import Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: How far back the first part looks: longer than a keeper ever pauses, or than a lane is locked.
_LATELY = timedelta(seconds=10)
#: A worker that starts looks at everything once: nobody may have swept for long.
_EVER = timedelta(days=400)
_LANES = 500
_START = UUID(int=0)


@dataclass(slots=True)
class Sweep:
    """The keeper of one worker; `after` is the lane up to which it has come."""

    after: UUID = _START
    is_first: bool = True

    async def run_once(self, pool: Pool) -> list[UUID]:
        """Bring the clocks of lanes forward; returns the lanes that were wrong."""
        async with pool.acquire(timeout=10) as connection:
            rows = await fetch(
                connection,
                named("workers", "sweep"),
                after=self.after,
                lanes=_LANES,
                lately=_EVER if self.is_first else _LATELY,
            )
        self.is_first = False
        self.after = rows[0]["following"] or _START
        return [row["id"] for row in rows if row["id"] is not None]


async def free_orphans(pool: Pool) -> int:
    """Free the slots nobody has; returns how many there were. Lanes look for freed slots by themselves."""
    async with pool.acquire(timeout=10) as connection:
        freed = len(await fetch(connection, named("workers", "free_orphans")))
    if freed:
        log.warning("freed slots that nobody had", extra={"slots": freed})
    return freed
