"""What the machine itself can do, from the same run: the factor by which figures of two machines may be compared."""

import asyncio
import time
from typing import Any

import asyncpg

#: Statements whose CPU is measured.
_STATEMENTS = 1500


async def machine_factor(database_url: str, *, seconds: float) -> dict[str, float]:
    """Durable commits per second from 1 and from 8 connections, and microseconds of CPU per asyncpg statement.

    Uses a table of its own in the measured database and drops it. `seconds` is spent on each of the two.
    """
    pool: Any = await asyncpg.create_pool(database_url, min_size=8, max_size=8)
    try:
        await pool.execute("create table if not exists public.bench_commit (n int)")
        try:
            one = await _commits(pool, 1, seconds)
            eight = await _commits(pool, 8, seconds)
            return {
                "commits_per_s_1": one,
                "commits_per_s_8": eight,
                "cpu_us_per_statement": await _statement_cpu(pool),
            }
        finally:
            await pool.execute("drop table public.bench_commit")
    finally:
        await pool.close()


async def _commits(pool: Any, connections: int, seconds: float) -> float:
    until = time.monotonic() + seconds

    async def commit_again() -> int:
        done = 0
        async with pool.acquire() as connection:
            await connection.execute("set synchronous_commit = on")
            insert = await connection.prepare("insert into public.bench_commit values ($1)")
            while time.monotonic() < until:
                await insert.fetch(done)
                done += 1
        return done

    began = time.monotonic()
    done = await asyncio.gather(*(commit_again() for _ in range(connections)))
    return sum(done) / (time.monotonic() - began)


async def _statement_cpu(pool: Any) -> float:
    async with pool.acquire() as connection:
        await connection.fetchval("select $1::int", 1)
        began = time.process_time()
        for number in range(_STATEMENTS):
            await connection.fetchval("select $1::int", number)
        return (time.process_time() - began) / _STATEMENTS * 1e6
