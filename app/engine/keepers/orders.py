"""Works off orders to cancel many runs, a slice at a time (architecture 5, rule 16)."""

from collections.abc import Callable

from app.engine import measured
from app.engine.apply import Entry
from app.engine.clock import DatabaseClock
from app.engine.orders import work_off
from app.store.db import Pool

#: Slices in one go, so that a large order does not keep the other keepers waiting.
_AT_ONCE = 20


async def run_once(pool: Pool, clock: DatabaseClock, after_commit: Callable[[list[Entry]], None]) -> int:
    """Do what is due; returns how many runs were cancelled. `after_commit` hears of each slice."""
    cancelled = 0
    for _ in range(_AT_ONCE):
        done = await work_off(pool, clock)
        if done.entries:
            cancelled += len(done.entries)
            measured.committed(done.entries)
            after_commit(done.entries)
        if done.is_idle:
            break
    return cancelled
