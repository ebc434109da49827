"""Corrects lanes whose clock says later than their work, and slots nobody has: either costs one second (rule 17, I18)."""

import logging
from uuid import UUID

from app.store.db import Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)


async def run_once(pool: Pool) -> list[UUID]:
    """Bring the clocks of lanes forward; returns the lanes that were wrong. Lanes look for freed slots by themselves."""
    async with pool.acquire(timeout=10) as connection:
        if freed := await fetch(connection, named("workers", "free_orphans")):
            log.warning("freed slots that nobody had", extra={"slots": len(freed)})
        return [row["id"] for row in await fetch(connection, named("workers", "sweep"))]
