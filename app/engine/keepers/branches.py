"""Puts away branch environments that nobody has deployed to for three days (feature-semantics A9).

Events to an archived branch are refused, its runs go on, and the next sync brings it back. A branch that a person took
back by hand is left alone.
"""

from datetime import timedelta

from app.store.db import Pool
from app.store.named import fetch, named

#: After the last deploy.
AFTER = timedelta(days=3)
_SLICE = 100


async def run_once(pool: Pool, after: timedelta = AFTER) -> int:
    """Archive one slice; returns how many there were."""
    async with pool.acquire(timeout=10) as connection:
        return len(await fetch(connection, named("sync", "archive_branches"), after=after, room=_SLICE))
