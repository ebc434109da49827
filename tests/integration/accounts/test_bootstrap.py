"""`stepwell bootstrap` and the tenant of `stepwell dev`."""

import asyncio

import pytest

from app.accounts.bootstrap import DEV_SCOPE, ensure_dev_tenant
from app.accounts.keys import bearer_of
from app.accounts.login import SignedIn, WrongLogin, find_session, sign_in
from app.accounts.resolve import Bearers, EventKeys, SigningKeys
from app.adapters.sealing import Sealer
from app.domain.errors import Refused
from app.store.db import Pool
from tests.integration.accounts.world import BASE_URL, PASSWORD, CountingPasswords, new_tenant, scope_of


async def test_bootstrap_gives_keys_that_work(database: str, engine_pool: Pool, sealer: Sealer) -> None:
    made = await new_tenant(database)
    assert made["base_url"] == BASE_URL
    assert made["environment"] == "production"
    assert await EventKeys(engine_pool).find(made["event_key"]) == scope_of(made)
    assert await Bearers(engine_pool).find(made["signing_key"]) == scope_of(made)
    assert await SigningKeys(engine_pool, sealer).of(scope_of(made).environment_id) == [made["signing_key"]]


async def test_bootstrap_repeated_gives_the_same_keys(database: str) -> None:
    first = await new_tenant(database)
    again = await new_tenant(database, email=first["user"].upper(), organization=first["organization"])
    assert again == first


async def test_two_bootstraps_at_once_make_one_organization(database: str) -> None:
    both = await asyncio.gather(
        *(new_tenant(database, email="pair@example.com", organization="Pair of Shops") for _ in range(2))
    )
    assert both[0] == both[1]


async def test_bootstrap_with_another_password_replaces_it_and_ends_sessions(
    database: str, page_pool: Pool, passwords: CountingPasswords
) -> None:
    made = await new_tenant(database)

    async def login(password: str) -> object:
        return await sign_in(
            page_pool, passwords, email=made["user"], password=password, network="192.0.2.0/24", agent=""
        )

    before = await login(PASSWORD)
    assert isinstance(before, SignedIn)
    await new_tenant(
        database, email=made["user"], organization=made["organization"], password="another walk by the sea"
    )
    assert await find_session(page_pool, before.session_id) is None
    assert isinstance(await login(PASSWORD), WrongLogin)
    assert isinstance(await login("another walk by the sea"), SignedIn)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"password": "short"}, "password_too_short"),
        ({"password": "password1234"}, "password_common"),
        ({"password": "x" * 129}, "password_too_long"),
        ({"email": "nobody"}, "email_invalid"),
        ({"organization": "  "}, "name_invalid"),
    ],
)
async def test_bootstrap_refuses_bad_values_before_it_writes(
    database: str, engine_pool: Pool, wrong: dict[str, str], code: str
) -> None:
    count = "select (select count(*) from users) + (select count(*) from accounts)"
    before = await engine_pool.fetchval(count)
    given = {"email": "new@example.com", "password": PASSWORD, "organization": "New"} | wrong
    with pytest.raises(Refused) as refused:
        await new_tenant(database, **given)
    assert refused.value.code == code
    assert await engine_pool.fetchval(count) == before


async def test_dev_tenant_is_made_once_and_signs_nothing(engine_pool: Pool, sealer: Sealer) -> None:
    for _ in range(2):
        async with engine_pool.acquire() as conn, conn.transaction():
            assert await ensure_dev_tenant(conn, sealer) == DEV_SCOPE
    assert await SigningKeys(engine_pool, sealer).of(DEV_SCOPE.environment_id) == []
    keys = await engine_pool.fetchval(
        "select count(*) from event_keys where environment_id = $1", DEV_SCOPE.environment_id
    )
    assert keys == 1


async def test_no_secret_is_stored_in_the_clear(database: str, engine_pool: Pool) -> None:
    made = await new_tenant(database)
    secrets = [made["event_key"], made["signing_key"].rpartition("-")[2], PASSWORD]
    for table in ("users", "event_keys", "signing_keys", "sessions", "audit_log"):
        rows = await engine_pool.fetch(f"select to_json(t)::text from {table} t")
        text = "\n".join(row[0] for row in rows)
        for secret in secrets:
            assert secret not in text
            assert secret.encode().hex() not in text


async def test_the_token_of_sdks_is_not_stored_either(database: str, engine_pool: Pool) -> None:
    made = await new_tenant(database)
    token = bytes.fromhex(bearer_of(made["signing_key"]))
    found = await engine_pool.fetchval("select count(*) from signing_keys where $1 in (bearer_hash, plain_hash)", token)
    assert found == 0
