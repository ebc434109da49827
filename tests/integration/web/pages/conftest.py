"""Two tenants in every world, so that a leak shows."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from app.store.db import Pool, open_page_pool
from tests.integration.accounts.world import new_tenant
from tests.integration.web.pages.people import Person
from tests.integration.web.site import running, settings_for
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


@pytest.fixture
async def ada(database: str) -> AsyncIterator[Person]:
    """Give a signed-in owner on the whole application."""
    async with running(settings_for(database)) as client:
        yield await Person(client, await new_tenant(database)).sign_in()


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the list of statements that handlers send; transactions, sessions and the tenant are not counted."""
    seen: list[str] = []
    for name in ("fetch", "fetchrow", "fetchval"):
        real = getattr(asyncpg.Connection, name)

        def spy(self: Any, query: Any, *args: Any, _real: Any = real, **kwargs: Any) -> Any:
            if not any(word in query for word in ("sessions", "from environments", "from memberships")):
                seen.append(query)
            return _real(self, query, *args, **kwargs)

        monkeypatch.setattr(asyncpg.Connection, name, spy)
    return seen
