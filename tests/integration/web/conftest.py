"""Fixtures of the web tests."""

from collections.abc import AsyncIterator

import pytest

from app.store.db import Pool, open_engine_pool
from tests.integration.accounts.databases import database_url
from tests.integration.web.site import Client, running, settings_for

__all__ = ["database_url"]


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    """Give a client of the running application."""
    async with running(settings_for(database_url)) as client:
        yield client


@pytest.fixture
async def engine_pool(database_url: str) -> AsyncIterator[Pool]:
    """Give a pool that sees all tenants."""
    pool = await open_engine_pool(database_url, size=2)
    yield pool
    await pool.close()
