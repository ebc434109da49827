"""Drops lanes, keys and gates of key values out of use, which come back with the next event."""

from app.store.db import Pool
from app.store.named import fetch, named

#: Rows of one kind dropped at once, so that no statement runs long.
_SLICE = 1000


async def run_once(pool: Pool) -> int:
    """Tidy one slice of each; returns how many rows went."""
    gone = 0
    async with pool.acquire(timeout=10) as connection:
        await fetch(connection, named("flow", "retire_lanes"), room=_SLICE)
        for name in ("drop_lanes", "drop_gates", "drop_keys"):
            gone += len(await fetch(connection, named("flow", name), room=_SLICE))
    return gone
