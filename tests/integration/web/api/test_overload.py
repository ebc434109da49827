"""Too much at once: what is refused, in which order, and that nothing of it was stored (docs/overload.md)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import islice
from typing import Any

import asyncpg
import httpx2
import pytest
from litestar import Litestar

from app.domain.event import NewEvent
from app.domain.limits import MAX_BODY_BYTES, MIB
from app.engine import pause_points
from app.engine.ingest import Bounds
from app.main import INGEST_CONNECTIONS, PAGE_CONNECTIONS, _lifespan, create_app
from app.store.db import Pool, open_engine_pool, open_page_pool
from app.web.load import Load
from app.web.site import Site
from tests.integration.accounts.world import Tenant, new_tenant
from tests.integration.web.site import MACHINES, PAGES, log_in, settings_for

EVENT = {"name": "order/sent", "data": {"n": 1}}


class Client(httpx2.AsyncClient):
    """Asks an application that runs in this event loop, so that a test can stand in its way."""

    def __init__(self, app: Litestar, base_url: str) -> None:
        super().__init__(transport=httpx2.ASGITransport(app), base_url=base_url, timeout=60)  # type: ignore[arg-type]
        self.app = app


@pytest.fixture
async def client(database: str) -> AsyncIterator[Client]:
    """Give a client of the running application."""
    settings = settings_for(database)
    app = create_app(settings, routers=[PAGES, MACHINES])
    async with _lifespan(app), Client(app, settings.base_url) as client:
        yield client


@pytest.fixture
async def tenant(database: str) -> Tenant:
    """Give a tenant on the plan with the narrowest limits."""
    made = await new_tenant(database)
    connection = await asyncpg.connect(database)
    await connection.execute("update accounts set plan = 'free' where id = $1", made["organization_id"])
    await connection.close()
    return made


def site_of(client: Client) -> Site:
    site: Site = client.app.state.site
    return site


def is_well_refused(answer: Any, status: int, code: str) -> None:
    """The shape every refusal for overload has."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["ids"] == []


async def stored(database: str, tenant: Tenant) -> int:
    connection = await asyncpg.connect(database)
    try:
        return int(
            await connection.fetchval("select count(*) from events where account_id = $1", tenant["organization_id"])
        )
    finally:
        await connection.close()


async def test_the_door_for_events_refuses_in_the_documented_order(
    client: Client, tenant: Tenant, database: str
) -> None:
    key = tenant["event_key"]

    async def ask(method: str = "POST", key: str = key, body: bytes = b"{", *, headers: dict[str, str]) -> str:
        answer = await client.request(method, f"/e/{key}", content=body, headers=headers)
        return str(answer.json()["code"])

    full = Bounds(requests=1)
    site = site_of(client)
    # Everything is wrong with the first request; then one thing after the other is put right, in the order of refusals.
    plan = await site.plans.of(await _account(site, key))
    assert plan.event_rate is not None
    taken = await client.post(f"/e/{key}", json=[EVENT] * (plan.event_rate * 4))
    assert taken.status_code == 200
    assert taken.headers["x-ratelimit-limit"] == str(plan.event_burst)
    assert taken.headers["x-ratelimit-remaining"] == "0"
    assert int(taken.headers["x-ratelimit-reset"]) >= 1
    before = await stored(database, tenant)
    other = (await new_tenant(database))["event_key"]
    site.events.bounds = full
    # The clock stands still: what waits would otherwise become too old on a machine that is slow.
    site.events.now = lambda: 0.0
    async with _something_waits(site, other):
        size = {"content-length": str(MAX_BODY_BYTES + 1)}
        bad = size | {"content-encoding": "gzip"}
        assert await ask("PUT", "no-key", headers=bad) == "method_not_allowed"
        assert await ask(key="no-key", headers=bad) == "event_key_invalid"
        assert await ask(headers=bad) == "content_encoding_unsupported"
        assert await ask(headers=size) == "body_too_large"
        refused = await client.post(f"/e/{key}", content=b"{")
        is_well_refused(refused, 429, "rate_limited")
        assert refused.headers["x-ratelimit-remaining"] == "0"
        is_well_refused(await client.post(f"/e/{other}", content=b"{"), 503, "storage_unavailable")
        site.events.bounds = Bounds()
        client.app.state.bodies.most = 1
        is_well_refused(await client.post(f"/e/{other}", content=b"{,"), 503, "overloaded")
        client.app.state.bodies.most = Load().most
        assert await ask(key=other, body=b"{,", headers={}) == "json_invalid"
    assert await stored(database, tenant) == before


async def _account(site: Site, key: str) -> Any:
    scope = await site.event_keys.find(key)
    assert scope is not None
    return scope.account_id


@asynccontextmanager
async def _something_waits(site: Site, key: str) -> AsyncIterator[None]:
    """One request that the database has not answered."""
    scope = await site.event_keys.find(key)
    assert scope is not None
    arrived, goes = asyncio.Event(), asyncio.Event()

    async def hold(name: str, _ids: Any) -> None:
        if name == "ingest.before":
            arrived.set()
            await goes.wait()

    pause_points.listen(hold)
    waiting = asyncio.create_task(site.events.add(scope, [NewEvent("a/b", b"{}", 1_700_000_000_000)]))
    try:
        await asyncio.wait_for(arrived.wait(), 30)
        yield
    finally:
        pause_points.listen(None)
        goes.set()
        await waiting


async def test_the_limit_of_an_event_is_that_of_the_tenants_plan(client: Client, tenant: Tenant) -> None:
    large = {"name": "order/sent", "data": {"text": "x" * 600 * 1024}}
    answer = await client.post(f"/e/{tenant['event_key']}", json=large)
    assert (answer.status_code, answer.json()["code"]) == (413, "event_too_large")


async def test_while_the_database_is_locked_events_are_refused_soon_and_what_was_acknowledged_is_there(
    client: Client, database: str
) -> None:
    tenant = await new_tenant(database)
    site_of(client).events.bounds = Bounds(requests=20)
    # The key is known before: what is looked at here is the writing.
    assert (await client.post(f"/e/{tenant['event_key']}", json=EVENT)).status_code == 200
    locker = await asyncpg.connect(database)
    lock = locker.transaction()
    await lock.start()
    await locker.execute("lock table events in exclusive mode")
    sending = [asyncio.create_task(client.post(f"/e/{tenant['event_key']}", json=EVENT)) for _ in range(60)]
    # Forty are told while the lock is held: they do not wait for it. The others may be stored when it is gone.
    for done in islice(asyncio.as_completed(sending), 40):
        is_well_refused(await done, 503, "storage_unavailable")
    await lock.rollback()
    await locker.close()
    answers = [await task for task in sending]
    acknowledged = sum(answer.status_code == 200 for answer in answers)
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert await stored(database, tenant) >= acknowledged + 1
    assert site_of(client).events.waiting == (0, 0, 0)
    assert (await client.post(f"/e/{tenant['event_key']}", json=EVENT)).status_code == 200


async def test_many_large_bodies_share_a_bound_also_where_the_framework_reads_them(
    client: Client, tenant: Tenant
) -> None:
    client.app.state.bodies.most = 1 * MIB
    bearer = {"authorization": f"Bearer {tenant['signing_key']}"}
    answer = await client.post("/v1/signals", content=b"x" * 2 * MIB, headers=bearer)
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    assert client.app.state.bodies.octets == 0
    answer = await client.post(f"/e/{tenant['event_key']}", content=b"x" * 2 * MIB)
    is_well_refused(answer, 503, "overloaded")
    assert client.app.state.bodies.octets == 0


@pytest.fixture
async def exhausted(client: Client, database: str) -> AsyncIterator[tuple[Client, Tenant]]:
    """Give an application all of whose connections are in use, and somebody who is signed in."""
    tenant = await new_tenant(database)
    await log_in(client, tenant)  # type: ignore[arg-type]
    site = site_of(client)
    async with AsyncExitStack() as taken:
        for pool, count in ((site.pages, PAGE_CONNECTIONS), (site.ingest, INGEST_CONNECTIONS)):
            for _ in range(count):
                await taken.enter_async_context(pool.acquire(timeout=2))
        yield client, tenant


async def test_f10_with_all_connections_in_use_everybody_hears_it_soon_and_in_their_own_shape(
    exhausted: tuple[Client, Tenant],
) -> None:
    client, tenant = exhausted
    bearer = {"authorization": f"Bearer {tenant['signing_key']}"}
    event, api, own, page = await asyncio.wait_for(
        asyncio.gather(
            client.post(f"/e/{tenant['event_key']}", json=EVENT),
            client.get("/v1/events", headers=bearer),
            client.get("/v2/runs", headers=bearer),
            client.get("/env/production/runs"),
        ),
        30,
    )
    is_well_refused(event, 503, "storage_unavailable")
    assert (api.status_code, api.json()["code"]) == (503, "storage_unavailable")
    assert (own.status_code, own.json()["errors"][0]["code"]) == (503, "storage_unavailable")
    assert (page.status_code, "Back in a moment" in page.text) == (503, True)
    assert all(1 <= int(answer.headers["retry-after"]) <= 5 for answer in (event, api, own, page))


async def test_f10_pages_do_not_take_the_connections_of_events(client: Client, database: str) -> None:
    tenant = await new_tenant(database)
    async with AsyncExitStack() as taken:
        for _ in range(PAGE_CONNECTIONS):
            await taken.enter_async_context(site_of(client).pages.acquire(timeout=2))
        assert (await client.post(f"/e/{tenant['event_key']}", json=EVENT)).status_code == 200


async def test_nobody_waits_longer_for_a_connection_than_the_web_process_says(client: Client) -> None:
    site = site_of(client)
    async with AsyncExitStack() as taken:
        for _ in range(INGEST_CONNECTIONS):
            await taken.enter_async_context(site.ingest.acquire(timeout=2))
        with pytest.raises(asyncio.TimeoutError):
            # An hour is asked for; this test's own time limit is far below it.
            async with site.ingest.acquire(timeout=3600):
                pytest.fail("there was a connection")


@pytest.mark.parametrize("open_pool", [open_engine_pool, open_page_pool])
async def test_l15_statements_locks_and_idle_transactions_have_a_time_limit(database: str, open_pool: Any) -> None:
    pool: Pool = await open_pool(database, size=1)
    try:
        async with pool.acquire(timeout=5) as connection:
            limits = [
                await connection.fetchval(f"show {name}")
                for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
            ]
        assert limits == ["5s", "2s", "10s"]
    finally:
        await pool.close()


async def test_l15_a_statement_that_takes_too_long_is_ended_and_the_connection_works_on(database: str) -> None:
    pool = await open_engine_pool(database, size=1, statement_timeout_ms=50)
    try:
        async with pool.acquire(timeout=5) as connection:
            with pytest.raises(asyncpg.QueryCanceledError):
                await connection.fetch("select pg_sleep(3600)")
            assert await connection.fetchval("select 1") == 1
    finally:
        await pool.close()
