"""Row-level security: the second lock on every tenant's rows (I24)."""

import asyncpg
import pytest

from app.store import accounts, audit, keys
from app.store.audit import Actor
from app.store.db import Pool, tenant
from tests.integration.accounts.world import new_tenant, scope_of

#: Tables of people rather than tenants; found by hashes and addresses only. `sessions` names the account looked at.
PEOPLE = {"users", "sessions", "login_attempts"}


async def test_every_table_with_an_account_has_both_policies_forced(engine_pool: Pool) -> None:
    rows = await engine_pool.fetch(
        "select c.relname, c.relrowsecurity and c.relforcerowsecurity as forced,"
        " array(select polname::text from pg_policy p where p.polrelid = c.oid) as policies"
        " from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'account_id' and not a.attisdropped"
        " where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace"
    )
    assert len(rows) > 25
    for row in rows:
        if row["relname"] not in PEOPLE:
            assert row["forced"], row["relname"]
            assert {"tenant", "engine"} <= set(row["policies"]), row["relname"]


async def test_the_roles_own_nothing_and_cannot_pass_by(engine_pool: Pool) -> None:
    rows = await engine_pool.fetch(
        "select rolname, rolsuper, rolbypassrls, rolcanlogin,"
        " (select count(*) from pg_class where relowner = r.oid) as owns"
        " from pg_roles r where rolname in ('stepwell_app', 'stepwell_engine') order by 1"
    )
    assert [tuple(row) for row in rows] == [
        ("stepwell_app", False, False, False, 0),
        ("stepwell_engine", False, False, False, 0),
    ]


async def test_without_a_tenant_pages_see_nothing_and_cannot_write(database: str, page_pool: Pool) -> None:
    made = await new_tenant(database)
    scope = scope_of(made)
    for table in ("accounts", "environments", "event_keys", "signing_keys", "memberships", "audit_log"):
        assert await page_pool.fetchval(f"select count(*) from {table}") == 0
    assert await page_pool.execute("update environments set name = 'mine'") == "UPDATE 0"
    assert await page_pool.execute("delete from event_keys") == "DELETE 0"
    async with page_pool.acquire() as conn:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await audit.insert_entry(conn, scope.account_id, Actor("nobody"), "thing.done")


async def test_with_a_tenant_pages_see_and_change_only_its_rows(database: str, page_pool: Pool) -> None:
    mine, other = await new_tenant(database), await new_tenant(database)
    async with tenant(page_pool, scope_of(mine).account_id) as conn:
        assert await conn.fetchval("select count(*) from accounts") == 1
        assert len(await keys.list_event_keys(conn, scope_of(mine))) == 1
        assert await keys.list_event_keys(conn, scope_of(other)) == []
        assert await accounts.find_environment(conn, scope_of(other).account_id, "production") is None
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with conn.transaction():
                await audit.insert_entry(conn, scope_of(other).account_id, Actor("a thief"), "thing.done")


async def test_the_tenant_ends_with_its_transaction(database: str, page_pool: Pool) -> None:
    made = await new_tenant(database)
    async with tenant(page_pool, scope_of(made).account_id):
        pass
    assert await page_pool.fetchval("select count(*) from accounts") == 0


async def test_the_audit_log_cannot_be_changed_by_pages(database: str, page_pool: Pool) -> None:
    made = await new_tenant(database)
    for statement in ("update audit_log set action = 'x'", "delete from audit_log"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with tenant(page_pool, scope_of(made).account_id) as conn:
                await conn.execute(statement)


async def test_a_person_sees_their_own_memberships_before_an_account_is_chosen(database: str, page_pool: Pool) -> None:
    mine = await new_tenant(database)
    await new_tenant(database)
    async with page_pool.acquire() as conn, conn.transaction():
        await conn.execute("select set_config('app.user', $1, true)", mine["user_id"])
        rows = await conn.fetch("select account_id::text from memberships")
    assert [row["account_id"] for row in rows] == [mine["organization_id"]]
