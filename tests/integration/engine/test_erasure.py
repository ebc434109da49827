"""An organization whose time has come is erased whole, in slices, and nobody else notices it (F22, I29)."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
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
from tests.integration.engine.world import Gate, World, result
from tests.integration.web.pages.people import world_of
from tests.traces import traces

NOW = timedelta(0)
#: Who did what is kept.
KEPT = {"audit_log"}


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
    account, neighbour = scope_of(made).account_id, scope_of(other).account_id
    ids, other_ids = await places(owner, account), await places(owner, neighbour)
    before, theirs = await traces(owner, *ids), await traces(owner, *other_ids)
    assert len(before) > 15, before
    await end_now(pool, account)
    gone = 0
    # Two keepers at once: one of them works.
    while (one := await asyncio.gather(*(erasure.run_once(pool, quiet=timedelta(hours=1)) for _ in range(2)))) != [
        0,
        0,
    ]:
        gone += sum(one)
        assert 0 in one
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
        await world.function("slow", gate, scope=scope)
    await world.engine()
    account = world.mine.account_id
    ids = await places(world.owner, account)
    for scope in (world.mine, world.theirs):
        for _ in range(5):
            await world.send("slow/sent", scope=scope)
    answers = [(await asyncio.wait_for(gate.next(), 60))[1] for _ in range(10)]
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
