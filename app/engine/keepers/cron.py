"""Starts what time sets off: debounces and batches whose timer came due, and crons.

The engine calls it when it is idle and something is due, and at least every second. Any number of schedulers may run at
once: rows are taken with `skip locked`, and what is made of them has derived ids.
"""

from collections.abc import Awaitable, Callable

from app.engine.crons import take_up
from app.engine.react import React, Reacted
from app.store.db import Pool
from app.store.named import fetch, named


async def run_once(pool: Pool, react: React, tell: Callable[[Reacted], Awaitable[None]]) -> int:
    """Fire everything that is due; returns how many transactions that took. `tell` hears of each of them."""
    async with pool.acquire(timeout=10) as connection:
        async with connection.transaction():
            await take_up(connection)
        due = (await fetch(connection, named("flow", "timers")))[0]
    count = 0
    if due["has_gates"]:
        while (fired := await react.fire_due()).events:
            count += 1
            await tell(fired)
    if due["has_schedules"]:
        while (fired := await react.fire_crons()).events:
            count += 1
            await tell(fired)
    return count
