"""An organization whose time has come is erased whole, in slices, and nobody else notices it (F22, I29)."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app.domain.ids import AccountId
from app.engine.keepers import erasure
from app.store import endings
from app.store.db import Pool, open_engine_pool
from tests.every_page import furnish
from tests.integration.accounts.world import new_tenant, scope_of
from tests.integration.engine.world import Gate, World, ops, result, waits
from tests.integration.web.pages.people import world_of
from tests.traces import traces

NOW = timedelta(0)
#: Who did what is kept, and what was billed.
KEPT = {"audit_log", "billing_invoices"}


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """Give a pool that sees all tenants."""
    pool = await open_engine_pool(database, size=3)
    yield pool
    await pool.close()


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Any]:
    """Give a connection of the database's owner."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def places(owner: Any, account: UUID) -> list[UUID]:
    """The ids that an organization's rows bear."""
    rows = await owner.fetch("select id from environments where account_id = $1", account)
    return [account, *(row["id"] for row in rows)]


async def end_now(pool: Pool, account: AccountId) -> None:
    async with pool.acquire() as connection, connection.transaction():
        assert await endings.begin_ending(connection, account, grace=NOW)


async def test_nothing_of_an_erased_organization_is_left_but_its_audit_log(
    database: str, pool: Pool, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small slices, so that every kind takes several.
    monkeypatch.setattr(erasure, "_RUNS", 3)
    monkeypatch.setattr(erasure, "_ROWS", 5)
    made, other = await new_tenant(database), await new_tenant(database)
    for tenant in (made, other):
        await furnish(owner, world_of(tenant))
    await owner.execute("update billing_accounts set status = 'canceled'")
    account, neighbour = scope_of(made).account_id, scope_of(other).account_id
    ids, other_ids = await places(owner, account), await places(owner, neighbour)
    before, theirs = await traces(owner, *ids), await traces(owner, *other_ids)
    assert len(before) > 15, before
    await end_now(pool, account)
    gone = 0
    # While another keeper is at it, nothing happens.
    async with pool.acquire() as connection:
        await connection.execute("select pg_advisory_lock($1)", erasure._LOCK)
        assert await erasure.run_once(pool) == 0
        await connection.execute("select pg_advisory_unlock($1)", erasure._LOCK)
    assert await traces(owner, *ids) == before | {"accounts": 1}
    # Several at once do each thing once.
    while one := sum(await asyncio.gather(*(erasure.run_once(pool, quiet=timedelta(hours=1)) for _ in range(2)))):
        gone += one
    progress = await owner.fetchrow("select erasing_since, erased_rows from accounts where id = $1", account)
    assert progress["erasing_since"] is not None
    assert progress["erased_rows"] == gone > 50
    # A whole pass found nothing; another does, and the last rows go.
    assert await erasure.run_once(pool, quiet=NOW) == 0
    left = await owner.fetch("select action, detail from audit_log where account_id = $1 order by at", account)
    assert left[-1]["action"] == "account.erased"
    assert json.loads(left[-1]["detail"]) == {"rows": gone}
    assert set(await traces(owner, *ids)) == KEPT
    assert await traces(owner, *other_ids) == theirs


async def test_what_can_still_be_kept_is_not_touched(database: str, pool: Pool, owner: Any) -> None:
    made = await new_tenant(database)
    account = scope_of(made).account_id
    ids = await places(owner, account)
    before = await traces(owner, *ids)
    async with pool.acquire() as connection, connection.transaction():
        await endings.begin_ending(connection, account, grace=timedelta(days=3))
    assert await erasure.run_once(pool, quiet=NOW) == 0
    async with pool.acquire() as connection, connection.transaction():
        assert await endings.take_back_ending(connection, account)
    assert await traces(owner, *ids) == before
    assert await owner.fetchval("select archived_at from environments where account_id = $1", account) is None


async def test_answers_that_come_while_their_runs_are_erased_change_nothing_and_others_go_on(world: World) -> None:
    gate = Gate()
    for scope in (world.mine, world.theirs):
        await world.function("slow", gate, scope=scope, concurrency=[{"limit": 20}])
        await world.function("waits", lambda _call: ops(waits("w", "never")), scope=scope)
        await world.function("late", lambda _call: result(), scope=scope, debounce={"period": "1h"})
    await world.engine()
    account = world.mine.account_id
    ids = await places(world.owner, account)
    for scope in (world.mine, world.theirs):
        await world.send_many([("waits/sent", None), ("late/sent", None), *[("slow/sent", None)] * 5], scope=scope)
    answers = [(await asyncio.wait_for(gate.next(), 60))[1] for _ in range(10)]
    for table in ("pauses", "gates", "slots"):
        await world.until(partial(world.value, f"select count(*) from {table} where account_id = $1", account))
    await end_now(world.pool, account)
    assert await erasure.run_once(world.pool, quiet=timedelta(hours=1)) > 15
    for answer in answers:
        answer.set_result(result())
    theirs = "select count(*) from runs where account_id = $1 and status = 'completed'"
    await world.until(lambda: world.value(theirs, world.theirs.account_id), lambda count: count == 5)
    # What a worker still wrote is found by another pass; then the last rows go.
    while await erasure.run_once(world.pool, quiet=NOW):
        pass
    await erasure.run_once(world.pool, quiet=NOW)
    assert set(await traces(world.owner, *ids)) <= KEPT
    await world.send("slow/sent", scope=world.theirs)
    (await asyncio.wait_for(gate.next(), 60))[1].set_result(result())
    await world.until(lambda: world.value(theirs, world.theirs.account_id), lambda count: count == 6)


async def test_what_is_paid_for_is_not_erased_before_the_subscription_is_over(
    database: str, pool: Pool, owner: Any
) -> None:
    account = scope_of(await new_tenant(database)).account_id
    await owner.execute(
        "insert into billing_accounts (account_id, status) values ($1, 'active')"
        " on conflict (account_id) do update set status = 'active'",
        account,
    )
    await end_now(pool, account)
    assert await erasure.run_once(pool, quiet=NOW) == 0
    await owner.execute("update billing_accounts set status = 'canceled' where account_id = $1", account)
    assert await erasure.run_once(pool, quiet=NOW) > 0
    await erasure.run_once(pool, quiet=NOW)
    assert await owner.fetchval("select count(*) from accounts where id = $1", account) == 0


async def test_every_table_that_names_an_account_is_erased_from_or_listed(owner: Any) -> None:
    rows = await owner.fetch(
        "select c.relname, has_table_privilege('stepwell_engine', c.oid, 'delete') as may,"
        " exists (select from pg_inherits i join pg_class p on p.oid = i.inhparent where i.inhrelid = c.oid"
        " and p.relname = any($1::text[])) as by_run"
        " from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'account_id' and not a.attisdropped"
        " where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace",
        list(erasure._BY_RUN_ONLY),
    )
    found = {row["name"] for row in await owner.fetch(erasure._TABLES, [], list(erasure._BY_RUN_ONLY))}
    assert len(found) > 30
    assert set(erasure._KEPT) == KEPT
    assert {row["relname"] for row in rows if not row["by_run"]} == found
    assert [row["relname"] for row in rows if not row["may"]] == []
    # Rows of runs go with their run: whatever has no row of its own to be found by is locked through it.
    assert set(erasure._BY_RUN_ONLY) <= set(erasure._OF_RUNS)
