"""A migrated database per module: on the server named by STEPWELL_TEST_PG, else the one every tier shares."""

import asyncio
import os
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from app.store.migrate import upgrade


@pytest.fixture(scope="module")
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the address of a fresh migrated database."""
    server = os.environ.get("STEPWELL_TEST_PG")
    if not server:
        yield request.getfixturevalue("database")
        return
    name = f"acc_{uuid4().hex[:12]}"
    asyncio.run(_execute(server, f'create database "{name}"'))
    url = urlsplit(server)._replace(path=f"/{name}").geturl()
    try:
        upgrade(url)
        yield url
    finally:
        asyncio.run(_execute(server, f'drop database "{name}" with (force)'))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(urlsplit(url)._replace(path="/postgres").geturl())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
