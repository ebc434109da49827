"""Fixtures of the store tests."""

from collections.abc import AsyncIterator

import pytest

from app.adapters.sealing import Sealer
from app.store.db import Connection, Pool, open_engine_pool, open_page_pool
from tests.integration.accounts.world import SECRET_KEY, CountingPasswords


@pytest.fixture
async def engine_pool(database: str) -> AsyncIterator[Pool]:
    """Give a pool that sees all tenants."""
    pool = await open_engine_pool(database, size=4)
    yield pool
    await pool.close()


@pytest.fixture
async def engine_connection(engine_pool: Pool) -> AsyncIterator[Connection]:
    """Give one connection that sees all tenants."""
    async with engine_pool.acquire() as connection:
        yield connection


@pytest.fixture
async def page_pool(database: str) -> AsyncIterator[Pool]:
    """Give a pool under row-level security."""
    pool = await open_page_pool(database, size=4)
    yield pool
    await pool.close()


@pytest.fixture
def passwords() -> CountingPasswords:
    """Give cheap, counting passwords."""
    return CountingPasswords()


@pytest.fixture
def sealer() -> Sealer:
    """Give the sealer of the test secret."""
    return Sealer(SECRET_KEY)
