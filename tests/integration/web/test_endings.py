"""People delete their account, owners their organization: what it takes, what stops at once, and what can be kept."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from app.store.db import Pool, open_engine_pool
from tests.integration.accounts.world import PASSWORD, Tenant, new_tenant, scope_of
from tests.integration.web.post import WITH_MAIL, letters_to
from tests.integration.web.site import Client, log_in, running, settings_for
from tests.traces import traces

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine_pool(database: str) -> AsyncIterator[Pool]:
    """Give a pool that sees all tenants."""
    pool = await open_engine_pool(database, size=2)
    yield pool
    await pool.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(database: str) -> AsyncIterator[Client]:
    """Run an installation with mail."""
    async with running(settings_for(database, **WITH_MAIL)) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def client(house: Client, engine_pool: Pool) -> Client:
    """Give a browser without cookies."""
    await engine_pool.execute("delete from login_attempts")
    house.cookies.clear()
    return house


async def joined(pool: Pool, made: Tenant, other: Tenant, role: str) -> None:
    """Make the person of `other` a member of the organization of `made`, too."""
    await pool.execute(
        "insert into memberships (account_id, user_id, role) values ($1, $2, $3)",
        scope_of(made).account_id, UUID(other["user_id"]), role,
    )  # fmt: skip


async def end(client: Client, made: Tenant, token: str, **more: str) -> Any:
    """Ask for the end of the organization."""
    form = {"csrf_token": token, "typed": made["organization"], "password": made["password"]} | more
    return await client.post("/settings/organization/delete", data=form)


async def test_who_deletes_their_account_is_gone_at_once_and_what_they_made_stays(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made, other = await new_tenant(database), await new_tenant(database)
    await joined(engine_pool, made, other, "owner")
    token = await log_in(client, made)
    keys = "select count(*) from event_keys where account_id = $1"
    before = await engine_pool.fetchval(keys, scope_of(made).account_id)
    delete = "/settings/profile/delete"
    refused = await client.post(delete, data={"csrf_token": token, "password": "not it"})
    assert (refused.status_code, "This is not your password." in refused.text) == (422, True)
    assert (await client.post(delete, data={"password": made["password"]})).status_code == 403
    done = await client.post(delete, data={"csrf_token": token, "password": made["password"]})
    assert (done.status_code, done.headers["location"]) == (303, "/login?done=deleted")
    assert "Your account is deleted." in (await client.get("/login?done=deleted")).text
    again = await client.post("/login", data={"email": made["user"], "password": made["password"]})
    assert again.status_code == 401
    # The log says who did what; the one mail is the farewell.
    connection = await asyncpg.connect(database)
    assert set(await traces(connection, made["user_id"], made["user"])) == {"audit_log", "mails"}
    await connection.close()
    assert [letter.subject for letter in await letters_to(engine_pool, made["user"])] == [
        "Your account is deleted · Stepwell"
    ]
    assert await engine_pool.fetchval(keys, scope_of(made).account_id) == before


async def test_the_only_owner_hands_over_or_deletes_the_organization_first(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made, other = await new_tenant(database), await new_tenant(database)
    await joined(engine_pool, made, other, "admin")
    token = await log_in(client, made)
    form = {"csrf_token": token, "password": made["password"]}
    refused = await client.post("/settings/profile/delete", data=form)
    assert refused.status_code == 422
    assert f"You are the only owner of {made['organization']}." in refused.text
    assert await engine_pool.fetchval("select count(*) from users where email = $1", made["user"]) == 1
    assert (await end(client, made, token)).status_code == 303
    assert (await client.post("/settings/profile/delete", data=form)).status_code == 303


async def test_two_owners_who_leave_at_once_do_not_leave_nobody(database: str, engine_pool: Pool) -> None:
    made, other = await new_tenant(database), await new_tenant(database)
    await joined(engine_pool, made, other, "owner")
    await engine_pool.execute("delete from memberships where account_id = $1", scope_of(other).account_id)
    clients = []
    settings = settings_for(database)
    async with running(settings) as first, running(settings) as second:
        for client, tenant in ((first, made), (second, other)):
            token = await log_in(client, tenant)
            form = {"csrf_token": token, "password": PASSWORD}
            clients.append(client.post("/settings/profile/delete", data=form))
        answers = await asyncio.gather(*clients)
    assert sorted(answer.status_code for answer in answers) == [303, 422]


async def test_the_end_of_an_organization_takes_its_name_its_owner_and_the_password(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made = await new_tenant(database)
    token = await log_in(client, made)
    for more, sentence in (
        ({"typed": made["organization"].lower()}, "Type the name of the organization"),
        ({"typed": ""}, "Type the name of the organization"),
        ({"password": "not it"}, "This is not your password."),
    ):
        refused = await end(client, made, token, **more)
        assert (refused.status_code, sentence in refused.text) == (422, True)
    await engine_pool.execute("update memberships set role = 'admin' where account_id = $1", scope_of(made).account_id)
    assert (await end(client, made, token)).status_code == 403
    assert "Delete the organization" not in (await client.get("/settings/organization")).text
    assert await engine_pool.fetchval("select erases_at from accounts where id = $1", scope_of(made).account_id) is None


async def test_a_paid_plan_is_cancelled_before_its_organization_is_deleted(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made = await new_tenant(database)
    token = await log_in(client, made)
    await engine_pool.execute(
        "insert into billing_accounts (account_id, status) values ($1, 'active')"
        " on conflict (account_id) do update set status = 'active'",
        scope_of(made).account_id,
    )
    refused = await end(client, made, token)
    assert (refused.status_code, "Cancel it under Billing first" in refused.text) == (422, True)
    await engine_pool.execute(
        "update billing_accounts set cancels_at = clock() + interval '9 days' where account_id = $1",
        scope_of(made).account_id,
    )
    assert (await end(client, made, token)).status_code == 303


async def test_an_organization_stands_still_at_once_and_can_be_kept(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made = await new_tenant(database)
    token = await log_in(client, made)
    assert (await client.post("/env/new", data={"csrf_token": token, "name": "Old"})).status_code == 303
    await client.post("/env/old/archive", data={"csrf_token": token})
    # Asked for ten times, once it is done.
    answers = await asyncio.gather(*(end(client, made, token) for _ in range(10)))
    assert {answer.headers["location"] for answer in answers} == {"/settings/organization?done=ending"}
    page = await client.get("/settings/organization")
    assert "This organization is about to be deleted" in page.text
    assert "Keep the organization" in page.text
    async with running(settings_for(database)) as fresh:  # A process that remembers no key.
        sent = await fresh.post(f"/e/{made['event_key']}", json={"name": "a/b", "data": {}})
        assert sent.status_code == 401
    for path, form in (("/env/new", {"name": "Back door"}), ("/env/production/unarchive", {})):
        refused = await client.post(path, data={"csrf_token": token} | form)
        assert refused.status_code in (409, 422), path
    account = scope_of(made).account_id
    actions = "select count(*) from audit_log where account_id = $1 and action = $2"
    assert await engine_pool.fetchval(actions, account, "account.ending") == 1
    assert [letter.subject for letter in await letters_to(engine_pool, made["user"])] == [
        "An organization of yours is about to be deleted · Stepwell"
    ]
    kept = await client.post("/settings/organization/keep", data={"csrf_token": token})
    assert kept.headers["location"] == "/settings/organization?done=kept"
    rows = await engine_pool.fetch("select slug, archived_at from environments where account_id = $1", account)
    assert {row["slug"]: row["archived_at"] is None for row in rows} == {"production": True, "old": False}
    async with running(settings_for(database)) as fresh:
        sent = await fresh.post(f"/e/{made['event_key']}", json={"name": "a/b", "data": {}})
        assert sent.status_code == 200


async def test_what_is_being_erased_cannot_be_kept_and_says_how_far_it_is(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made = await new_tenant(database)
    token = await log_in(client, made)
    await end(client, made, token)
    await engine_pool.execute(
        "update accounts set erasing_since = clock(), erased_rows = 12345 where id = $1", scope_of(made).account_id
    )
    page = await client.get("/settings/organization")
    assert "12,345" in page.text
    assert "Keep the organization" not in page.text
    late = await client.post("/settings/organization/keep", data={"csrf_token": token})
    assert (late.status_code, "cannot be kept any more" in late.text) == (422, True)


async def test_the_end_of_one_organization_is_no_business_of_another(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made, other = await new_tenant(database), await new_tenant(database)
    await end(client, made, await log_in(client, made))
    token = await log_in(client, other)
    assert (await client.post("/settings/organization/keep", data={"csrf_token": token})).status_code == 303
    assert await engine_pool.fetchval("select erases_at from accounts where id = $1", scope_of(made).account_id)
    assert "about to be deleted" not in (await client.get("/settings/organization")).text
