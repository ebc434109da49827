"""Drops rows that are kept for a time only, and makes the partitions of the days to come."""

from app.store.db import Pool

#: Rows of one kind dropped at once, so that no statement runs long.
_SLICE = 5000


async def run_once(pool: Pool) -> int:
    """Delete expired seeds, dedupe keys, sessions and login counters; returns how many rows went."""
    gone = 0
    async with pool.acquire(timeout=10) as connection:
        for table, key in (("ingest_seeds", "ctid"), ("dedupe", "ctid"), ("sessions", "ctid")):
            status: str = await connection.execute(
                f"delete from {table} where {key} in (select {key} from {table} where expires_at < clock() limit {_SLICE})"
            )
            gone += int(status.rsplit(maxsplit=1)[-1])
    return gone


async def make_days(pool: Pool) -> int:
    """Make the day partitions up to a week ahead; returns how many were new. Needs the owner's rights to add tables."""
    async with pool.acquire(timeout=10) as connection:
        made: int = await connection.fetchval(
            "select make_partitions((clock() at time zone 'UTC')::date, (clock() at time zone 'UTC')::date + 7)"
        )
        return made
