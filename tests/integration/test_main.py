"""The web process as a whole: starts without its database, heals when it comes."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from app.store.late_pool import LatePool
from app.store.migrate import upgrade
from tests.integration.accounts.world import new_tenant
from tests.integration.web.site import Client, running, settings_for


@pytest.fixture
async def absent_database(database: str) -> AsyncIterator[str]:
    """Give the address of a database that does not exist yet, on a server that does."""
    url = urlsplit(database)._replace(path=f"/late_{uuid4().hex[:12]}").geturl()
    yield url
    await execute(url, 'drop database if exists "{}" with (force)')


async def execute(url: str, statement: str) -> None:
    """Run a statement about a database, from the maintenance one."""
    name = urlsplit(url).path[1:]
    connection = await asyncpg.connect(urlsplit(url)._replace(path="/postgres").geturl())
    try:
        await connection.execute(statement.format(name))
    finally:
        await connection.close()


async def becomes_ready(client: Client) -> bool:
    """Ask until the process is ready, for at most ten seconds."""
    for _ in range(100):
        if (await client.get("/ready")).status_code == 200:
            return True
        await asyncio.sleep(0.1)  # The process tries again by itself, at most every two seconds.
    return False


async def test_health_and_readiness_need_postgres_but_not_redis(database: str) -> None:
    async with running(settings_for(database)) as client:
        for path in ("/health", "/ready"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": 200, "message": "OK"})


async def test_the_process_starts_without_its_database_and_works_once_it_is_there(absent_database: str) -> None:
    async with running(settings_for(absent_database)) as client:
        for path in ("/health", "/ready"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert answer.json()["code"] == "storage_unavailable"
            assert 1 <= int(answer.headers["retry-after"]) <= 5
        assert (await client.get("/login")).status_code == 200
        assert (await client.post("/login", data={"email": "a@b.c", "password": "x"})).status_code == 503
        assert (await client.get("/v1/whose/a-key")).status_code == 503

        await execute(absent_database, 'create database "{}"')
        await asyncio.to_thread(upgrade, absent_database)
        made = await new_tenant(absent_database)
        assert await becomes_ready(client)
        assert (await client.get("/health")).status_code == 200
        assert (await client.get(f"/v1/whose/{made['event_key']}")).text == made["environment_id"]
        answer = await client.post("/login", data={"email": made["user"], "password": made["password"]})
        assert answer.status_code == 303


async def test_lost_connections_are_replaced(database: str) -> None:
    made = await new_tenant(database)
    async with running(settings_for(database)) as client:
        await execute(
            database,
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = '{}' and application_name like 'stepwell%'",
        )
        assert await becomes_ready(client)
        assert (await client.get(f"/v1/whose/{made['event_key']}")).text == made["environment_id"]


async def test_a_pool_that_is_stopped_while_it_tries_gives_up() -> None:
    async def refuse() -> None:
        raise ConnectionRefusedError

    pool = LatePool(refuse)
    await pool.start()
    assert not pool.is_open
    assert pool.last_failure == "ConnectionRefusedError"
    await pool.stop()


async def test_a_mistake_in_opening_is_not_mistaken_for_an_absent_database() -> None:
    async def mistake() -> None:
        raise ZeroDivisionError

    pool = LatePool(mistake)
    with pytest.raises(ZeroDivisionError):
        await pool.start()
    with pytest.raises(ZeroDivisionError):
        pool.acquire()
    await pool.stop()
