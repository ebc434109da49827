"""Which key opens what: hashed or plain, with or without prefix, current or next, and branches below a branch key."""

import hashlib
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.accounts import branches, keys
from app.adapters.sealing import Sealer
from app.domain.ids import EnvironmentId
from app.domain.scope import Scope
from app.store import accounts
from app.store.audit import Actor
from app.store.db import Pool, open_engine_pool
from tests.integration.accounts.world import SECRET_KEY, new_tenant, scope_of
from tests.integration.engine.played import config, registration
from tests.integration.web.site import Client, running, settings_for

ACTOR = Actor("test")


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await open_engine_pool(database, size=2)
    yield pool
    await pool.close()


@pytest.fixture
async def client(database: str) -> AsyncIterator[Client]:
    async with running(settings_for(database)) as client:
        yield client


def tokens_of(key: str) -> list[str]:
    """All ways to write the proof of a key."""
    bare = key.rpartition("-")[2]
    digest = hashlib.sha256(bytes.fromhex(bare)).hexdigest()
    return [key, bare, digest, f"signkey-prod-{digest}", digest.upper()]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_a_key_is_known_plain_and_hashed_with_and_without_prefix(client: Client, database: str) -> None:
    made = await new_tenant(database)
    for token in tokens_of(made["signing_key"]):
        answer = await client.get("/v2/account", headers=bearer(token))
        assert answer.json()["data"]["id"] == made["organization_id"]


async def test_the_next_key_is_taken_during_a_rotation_and_none_after_it_was_revoked(
    client: Client, database: str, pool: Pool
) -> None:
    made = await new_tenant(database)
    scope = scope_of(made)
    async with pool.acquire() as connection, connection.transaction():
        following = await keys.create_signing_key(connection, Sealer(SECRET_KEY), scope, ACTOR, kind="production")
    for token in (*tokens_of(following.secret), *tokens_of(made["signing_key"])):
        assert (await client.get("/v2/envs", headers=bearer(token))).status_code == 200
    async with pool.acquire() as connection, connection.transaction():
        await keys.revoke_signing_key(connection, scope, ACTOR, following.id)
    fresh = running(settings_for(database))  # Another process, which remembers nothing.
    async with fresh as other:
        for token in tokens_of(following.secret):
            assert (await other.get("/v2/envs", headers=bearer(token))).status_code == 401


async def test_keys_are_listed_without_secrets_and_with_their_last_use(client: Client, database: str) -> None:
    made = await new_tenant(database)
    headers = bearer(made["signing_key"])
    await client.post(f"/e/{made['event_key']}", content=b'{"name":"a"}')
    for path, key in (("/v2/keys/events", made["event_key"]), ("/v2/keys/signing", made["signing_key"])):
        answer = await client.get(path, headers=headers)
        (one,) = answer.json()["data"]
        assert key not in answer.text
        assert one["masked"].endswith(key[-4:])
        assert one["lastUsedAt"] is not None


async def branch_parent(pool: Pool, made: dict[str, str]) -> tuple[Scope, str, str]:
    """A branch parent of the tenant with an event key and a signing key."""
    scope = Scope(scope_of(made).account_id, EnvironmentId(uuid4()))
    async with pool.acquire() as connection, connection.transaction():
        await accounts.insert_environment(connection, scope, name="Branches", slug="branches", kind="branch")
        event = await keys.create_event_key(connection, Sealer(SECRET_KEY), scope, ACTOR, kind="branch")
        signing = await keys.create_signing_key(connection, Sealer(SECRET_KEY), scope, ACTOR, kind="branch")
    return scope, event.secret, signing.secret


async def test_events_and_syncs_make_the_branch_they_name_and_share_it(
    client: Client, database: str, pool: Pool
) -> None:
    made = await new_tenant(database)
    parent, event_key, signing_key = await branch_parent(pool, made)
    named = {"x-inngest-env": "feature/one"}
    sent = await client.post(f"/e/{event_key}", content=b'{"name":"a"}', headers=named)
    event_id = sent.json()["ids"][0]
    synced = await client.post("/fn/register", content=registration(config("a")), headers=bearer(signing_key) | named)
    assert synced.status_code == 200
    async with pool.acquire() as connection:
        rows = await connection.fetch("select * from environments where parent_id = $1", parent.environment_id)
        assert [(row["name"], row["kind"], row["account_id"]) for row in rows] == [
            ("feature/one", "branch", parent.account_id)
        ]
        owner = await connection.fetchval(
            "select environment_id from apps where id = $1::uuid", synced.json()["app_id"]
        )
    assert owner == rows[0]["id"]
    assert (await client.get(f"/v1/events/{event_id}", headers=bearer(signing_key) | named)).status_code == 200
    assert (await client.get(f"/v1/events/{event_id}", headers=bearer(signing_key))).status_code == 404
    listed = (await client.get("/v2/envs", headers=bearer(signing_key))).json()["data"]
    assert [one["name"] for one in listed] == ["Branches", "feature/one"]


async def test_names_that_look_alike_in_addresses_are_two_branches(client: Client, database: str, pool: Pool) -> None:
    made = await new_tenant(database)
    parent, event_key, _ = await branch_parent(pool, made)
    for name in ("feature/one", "feature-one", "feature/one"):
        answer = await client.post(f"/e/{event_key}", content=b'{"name":"a"}', headers={"x-inngest-env": name})
        assert answer.status_code == 200
    async with pool.acquire() as connection:
        found = await connection.fetch("select slug from environments where parent_id = $1", parent.environment_id)
    assert len({row["slug"] for row in found}) == 2


async def test_calls_of_a_branch_are_signed_with_its_parents_key(client: Client, database: str, pool: Pool) -> None:
    from app.accounts.resolve import SigningKeys

    made = await new_tenant(database)
    parent, event_key, signing_key = await branch_parent(pool, made)
    await client.post(f"/e/{event_key}", content=b'{"name":"a"}', headers={"x-inngest-env": "x"})
    async with pool.acquire() as connection:
        branch = await connection.fetchval("select id from environments where parent_id = $1", parent.environment_id)
    assert await SigningKeys(pool, Sealer(SECRET_KEY)).of(EnvironmentId(branch)) == [signing_key]


async def test_a_production_key_goes_to_production_whatever_the_app_calls_itself(
    client: Client, database: str, pool: Pool
) -> None:
    made = await new_tenant(database)
    for name in ("anything", "x" * 300, "\t"):
        sent = await client.post(f"/e/{made['event_key']}", content=b'{"name":"a"}', headers={"x-inngest-env": name})
        event_id = sent.json()["ids"][0]
        seen = await client.get(f"/v1/events/{event_id}", headers=bearer(made["signing_key"]))
        assert seen.json()["data"]["environment_id"] == made["environment_id"]
    async with pool.acquire() as connection:
        count = await connection.fetchval(
            "select count(*) from environments where account_id = $1::uuid", made["organization_id"]
        )
    assert count == 1


async def test_an_archived_branch_takes_no_events_until_a_sync_brings_it_back(
    client: Client, database: str, pool: Pool
) -> None:
    made = await new_tenant(database)
    parent, event_key, signing_key = await branch_parent(pool, made)
    named = {"x-inngest-env": "old"}
    await client.post(f"/e/{event_key}", content=b'{"name":"a"}', headers=named)
    async with pool.acquire() as connection:
        await connection.execute(
            "update environments set archived_at = clock() where parent_id = $1", parent.environment_id
        )
    async with running(settings_for(database)) as other:
        refused = await other.post(f"/e/{event_key}", content=b'{"name":"a"}', headers=named)
        assert (refused.status_code, refused.json()["code"]) == (401, "env_archived")
        body = registration(config("a"))
        assert (await other.post("/fn/register", content=body, headers=bearer(signing_key) | named)).status_code == 200
        assert (await other.post(f"/e/{event_key}", content=b'{"name":"a"}', headers=named)).status_code == 200


async def test_branches_below_one_parent_are_bounded(
    client: Client, database: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branches, "MOST_BRANCHES", 2)
    made = await new_tenant(database)
    _, event_key, _ = await branch_parent(pool, made)
    answers = [
        await client.post(f"/e/{event_key}", content=b'{"name":"a"}', headers={"x-inngest-env": name})
        for name in ("one", "two", "three", "one")
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 400, 200]
    assert answers[2].json()["code"] == "too_many_environments"
