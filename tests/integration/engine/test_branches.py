"""Branch environments that nobody deploys to are put away; those in use, and those a person took back, are not."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.accounts.branches import BranchArchived, Branches
from app.domain.ids import EnvironmentId
from app.domain.scope import Scope
from app.engine.keepers import branches as keeper
from app.engine.sync import register
from app.store import accounts
from app.store.db import Pool, open_engine_pool
from tests.integration.engine.played import config, read, registration, tenant


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await open_engine_pool(database, size=2)
    yield pool
    await pool.close()


@pytest.fixture
async def parent(pool: Pool) -> Scope:
    production = await tenant(pool)
    scope = Scope(production.account_id, EnvironmentId(uuid4()))
    async with pool.acquire() as connection:
        await connection.execute(
            "insert into environments (id, account_id, name, slug, kind) values ($1, $2, 'Branches', 'branches', 'branch')",
            scope.environment_id,
            scope.account_id,
        )
    return scope


async def live(pool: Pool, parent: Scope) -> set[str]:
    """The names of the branches that are not put away."""
    async with pool.acquire() as connection:
        rows = await connection.fetch(
            "select name from environments where parent_id = $1 and archived_at is null", parent.environment_id
        )
    return {row["name"] for row in rows}


async def age(pool: Pool, scope: Scope) -> None:
    """Four days pass for a branch."""
    async with pool.acquire() as connection:
        for statement in (
            "update environments set used_at = used_at - interval '4 days' where id = $1",
            "update syncs set started_at = started_at - interval '4 days' where environment_id = $1",
        ):
            await connection.execute(statement, scope.environment_id)


async def test_a_branch_without_deploys_for_three_days_is_put_away_and_the_next_sync_brings_it_back(
    pool: Pool, parent: Scope
) -> None:
    branches = Branches(pool)
    quiet, busy, fresh = [await branches.for_sync(parent, name) for name in ("quiet", "busy", "fresh")]
    for scope in (quiet, busy):
        await register(pool, scope, read(registration(config("a"))), kind="out_of_band")
        await age(pool, scope)
    # The same code deployed again counts.
    await register(pool, busy, read(registration(config("a"))), kind="out_of_band")
    await keeper.run_once(pool)
    assert await live(pool, parent) == {"busy", "fresh"}
    with pytest.raises(BranchArchived):
        await Branches(pool).for_event(parent, "quiet")
    async with pool.acquire() as connection:
        query = "select count(*) from audit_log where environment_id = $1 and action = 'environment.archived'"
        assert await connection.fetchval(query, quiet.environment_id) == 1
    assert await Branches(pool).for_sync(parent, "quiet") == quiet
    await keeper.run_once(pool)
    assert await live(pool, parent) == {"quiet", "busy", "fresh"}
    assert fresh != quiet


async def test_what_a_person_took_back_stays(pool: Pool, parent: Scope) -> None:
    scope = await Branches(pool).for_sync(parent, "mine")
    await age(pool, scope)
    await keeper.run_once(pool)
    assert await live(pool, parent) == set()
    async with pool.acquire() as connection:
        await accounts.set_archived(connection, scope, is_archived=False)
    await age(pool, scope)
    await keeper.run_once(pool)
    assert await live(pool, parent) == {"mine"}


async def test_only_branches_put_themselves_away(pool: Pool, parent: Scope) -> None:
    await age(pool, parent)
    await keeper.run_once(pool)
    async with pool.acquire() as connection:
        query = "select archived_at from environments where id = $1"
        assert await connection.fetchval(query, parent.environment_id) is None
