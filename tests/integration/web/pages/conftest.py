"""Two tenants in every world, so that a leak shows."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from app.store.db import Pool, open_page_pool
from tests.world import Tenant, make_tenant


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Any]:
    """Give a connection that may write anything."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def page_pool(database: str) -> AsyncIterator[Pool]:
    """Give a pool under row-level security."""
    pool = await open_page_pool(database, size=3)
    yield pool
    await pool.close()


@pytest.fixture
async def ours(owner: Any) -> Tenant:
    """Give the tenant who looks."""
    return await make_tenant(owner, "Northwind")


@pytest.fixture
async def theirs(owner: Any) -> Tenant:
    """Give a tenant who must not be seen."""
    return await make_tenant(owner, "Contoso")
