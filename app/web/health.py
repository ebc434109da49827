"""Up or down, and nothing more: `/health` for supervisors and SDKs, `/ready` for load balancers."""

import asyncio

from litestar import get
from litestar.di import NamedDependency

from app.store.late_pool import StorageUnavailable
from app.web.site import Site

_PATIENCE = 2.0
"""Seconds the database may take to answer before it counts as down."""


@get("/health")
async def health(site: NamedDependency[Site]) -> dict[str, object]:
    """Say that this process has started: it has reached its database once (protocol 5.7)."""
    if not (site.ingest.is_open and site.pages.is_open):
        raise StorageUnavailable
    return {"status": 200, "message": "OK"}


@get("/ready")
async def ready(site: NamedDependency[Site]) -> dict[str, object]:
    """Say that a request would be answered now: the database works and has our tables."""
    async with asyncio.timeout(_PATIENCE), site.pages.acquire(timeout=_PATIENCE) as conn:
        if await conn.fetchval("select to_regclass('accounts') is null"):
            raise StorageUnavailable
    return {"status": 200, "message": "OK"}
