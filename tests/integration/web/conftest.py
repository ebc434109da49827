"""Fixtures of the web tests."""

from collections.abc import AsyncIterator

import pytest

from app.store.db import Pool, open_engine_pool
from tests.integration.web.site import Client, running, settings_for


@pytest.fixture
async def client(database: str) -> AsyncIterator[Client]:
    """Give a client of the running application."""
    async with running(settings_for(database)) as client:
        yield client


@pytest.fixture
async def engine_pool(database: str) -> AsyncIterator[Pool]:
    """Give a pool that sees all tenants."""
    pool = await open_engine_pool(database, size=2)
    yield pool
    await pool.close()
