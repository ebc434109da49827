"""Corrects lanes whose clock says later than their work: what a lost wake-up costs is one second (rule 17)."""

from uuid import UUID

from app.store.db import Pool
from app.store.named import fetch, named


async def run_once(pool: Pool) -> list[UUID]:
    """Bring the clocks of lanes forward; returns the lanes that were wrong."""
    async with pool.acquire(timeout=10) as connection:
        return [row["id"] for row in await fetch(connection, named("workers", "sweep"))]
