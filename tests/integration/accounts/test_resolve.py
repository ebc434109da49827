"""Keys become scopes, and stop doing so in time."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from app.accounts import keys
from app.accounts.bootstrap import DEV_SCOPE
from app.accounts.keys import KeyInUse, KeyUnknown, bearer_of
from app.accounts.resolve import Bearers, EventKeys, SigningKeys
from app.adapters.sealing import CannotOpen, Sealer
from app.domain.scope import Scope
from app.store import keys as rows
from app.store.audit import Actor
from app.store.db import Pool, tenant
from tests.integration.accounts.world import Tenant, new_tenant, scope_of

ACTOR = Actor("a test")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def event_key_id(pool: Pool, made: Tenant) -> UUID:
    """The id of the tenant's one event key."""
    async with pool.acquire() as conn:
        return (await rows.list_event_keys(conn, scope_of(made)))[0].id


async def signing_key_ids(pool: Pool, scope: Scope) -> list[tuple[UUID, str]]:
    """Ids and states, the current one first."""
    async with pool.acquire() as conn:
        return [(row.id, row.state) for row in await rows.list_signing_keys(conn, scope)]


async def test_a_revoked_event_key_is_refused_within_five_seconds(
    database: str, engine_pool: Pool, page_pool: Pool
) -> None:
    made, clock = await new_tenant(database), Clock()
    finder = EventKeys(engine_pool, now=clock)
    assert await finder.find(made["event_key"]) == scope_of(made)
    key_id = await event_key_id(engine_pool, made)
    async with tenant(page_pool, scope_of(made).account_id) as conn:
        await keys.revoke_event_key(conn, scope_of(made), ACTOR, key_id)
    clock.now += 5.0
    assert await finder.find(made["event_key"]) is None


async def test_a_key_that_is_revoked_while_it_is_looked_up_lives_no_longer_for_it(
    database: str, engine_pool: Pool
) -> None:
    made, clock = await new_tenant(database), Clock()
    finder = EventKeys(engine_pool, now=clock)
    looking = asyncio.create_task(finder.find(made["event_key"]))
    await asyncio.sleep(0)  # The question is on its way.
    clock.now += 3.0  # It took three seconds to answer.
    assert await looking == scope_of(made)
    await engine_pool.execute("update event_keys set revoked_at = clock()")
    clock.now += 2.0
    assert await finder.find(made["event_key"]) is None


async def test_unknown_foreign_and_archived_keys_are_refused_alike(database: str, engine_pool: Pool) -> None:
    made = await new_tenant(database)
    await engine_pool.execute(
        "update environments set archived_at = clock() where id::text = $1", made["environment_id"]
    )
    finder = EventKeys(engine_pool)
    for key in (
        "",
        "unknown",
        made["signing_key"],
        made["event_key"],
        made["event_key"].upper(),
        "k" * 100_000,
        "\ud800",
    ):
        assert await finder.find(key) is None
    assert await Bearers(engine_pool).find(made["signing_key"]) is None


async def test_sdks_and_people_are_let_in_by_hash_or_plain_key_with_or_without_prefix(
    database: str, engine_pool: Pool
) -> None:
    made = await new_tenant(database)
    await new_tenant(database)
    bare = made["signing_key"].removeprefix("signkey-prod-")
    assert len(bare) == 64
    hashed = bearer_of(made["signing_key"])
    finder = Bearers(engine_pool)
    for token in (made["signing_key"], bare, hashed, f"signkey-prod-{hashed}", f"signkey-test-{hashed}"):
        assert await finder.find(token) == scope_of(made)
        assert await finder.find_header(f"Bearer {token}") == scope_of(made)
    for header in (None, "", f"Basic {hashed}", "Bearer ", "Bearer x", f"Bearer {hashed[:-1]}"):
        assert await finder.find_header(header) is None


async def test_in_dev_mode_any_key_opens_the_dev_environment(engine_pool: Pool) -> None:
    assert await EventKeys(engine_pool, anyone=DEV_SCOPE).find("anything") == DEV_SCOPE
    assert await Bearers(engine_pool, anyone=DEV_SCOPE).find_header(None) == DEV_SCOPE


async def test_many_who_ask_at_once_cause_one_question(database: str, engine_pool: Pool) -> None:
    made = await new_tenant(database)
    questions = 0

    class Counting:
        def acquire(self, **given: Any) -> Any:
            nonlocal questions
            questions += 1
            return engine_pool.acquire(**given)

    finder = EventKeys(Counting())
    found = await asyncio.gather(*(finder.find(made["event_key"]) for _ in range(50)))
    assert set(found) == {scope_of(made)}
    assert questions == 1


async def test_use_of_a_key_is_noted(database: str, engine_pool: Pool) -> None:
    made = await new_tenant(database)
    used = "select used_at from event_keys where environment_id::text = $1"
    assert await engine_pool.fetchval(used, made["environment_id"]) is None
    await EventKeys(engine_pool).find(made["event_key"])
    first = await engine_pool.fetchval(used, made["environment_id"])
    assert first is not None
    await EventKeys(engine_pool).find(made["event_key"])
    assert await engine_pool.fetchval(used, made["environment_id"]) == first


async def test_rotation_keeps_both_keys_accepted_until_the_old_one_is_revoked(
    database: str, engine_pool: Pool, page_pool: Pool, sealer: Sealer
) -> None:
    made, clock = await new_tenant(database), Clock()
    scope = scope_of(made)
    signing, bearers = SigningKeys(engine_pool, sealer, now=clock), Bearers(engine_pool, now=clock)
    async with tenant(page_pool, scope.account_id) as conn:
        new = await keys.create_signing_key(conn, sealer, scope, ACTOR, kind="production")
    assert await signing.of(scope.environment_id) == [made["signing_key"], new.secret]
    assert await bearers.find(bearer_of(new.secret)) == scope

    async with tenant(page_pool, scope.account_id) as conn:
        await keys.promote_signing_key(conn, scope, ACTOR, new.id)
    clock.now += 5
    assert await signing.of(scope.environment_id) == [new.secret, made["signing_key"]]

    (_, current), (old, state) = await signing_key_ids(engine_pool, scope)
    assert (current, state) == ("current", "next")
    async with tenant(page_pool, scope.account_id) as conn:
        await keys.revoke_signing_key(conn, scope, ACTOR, old)
    clock.now += 5
    assert await signing.of(scope.environment_id) == [new.secret]
    assert await bearers.find(made["signing_key"]) is None


async def test_the_current_signing_key_cannot_be_revoked(database: str, engine_pool: Pool, page_pool: Pool) -> None:
    made = await new_tenant(database)
    ((key_id, _),) = await signing_key_ids(engine_pool, scope_of(made))
    with pytest.raises(KeyInUse):
        async with tenant(page_pool, scope_of(made).account_id) as conn:
            await keys.revoke_signing_key(conn, scope_of(made), ACTOR, key_id)
    assert await Bearers(engine_pool).find(made["signing_key"]) == scope_of(made)


async def test_a_key_can_be_shown_again_and_that_is_audited(
    database: str, engine_pool: Pool, page_pool: Pool, sealer: Sealer
) -> None:
    made, stranger = await new_tenant(database), await new_tenant(database)
    scope, key_id = scope_of(made), await event_key_id(engine_pool, made)
    async with tenant(page_pool, scope.account_id) as conn:
        assert await keys.reveal_event_key(conn, sealer, scope, ACTOR, key_id) == made["event_key"]
        actions = await conn.fetch("select action from audit_log where object = $1 order by at", str(key_id))
    assert [row["action"] for row in actions] == ["event_key.created", "event_key.revealed"]
    with pytest.raises(KeyUnknown):
        async with tenant(page_pool, scope_of(stranger).account_id) as conn:
            await keys.reveal_event_key(conn, sealer, scope, ACTOR, key_id)


async def test_a_sealed_key_copied_to_another_tenant_does_not_open(
    database: str, engine_pool: Pool, sealer: Sealer
) -> None:
    made, thief = await new_tenant(database), await new_tenant(database)
    await engine_pool.execute(
        "update signing_keys set secret_sealed ="
        " (select secret_sealed from signing_keys where environment_id::text = $1) where environment_id::text = $2",
        made["environment_id"],
        thief["environment_id"],
    )
    with pytest.raises(CannotOpen):
        await SigningKeys(engine_pool, sealer).of(scope_of(thief).environment_id)


async def test_every_change_of_keys_moves_the_catalogue_version(
    database: str, engine_pool: Pool, page_pool: Pool, sealer: Sealer
) -> None:
    made = await new_tenant(database)
    version = "select catalogue_version from environments where id::text = $1"
    before = await engine_pool.fetchval(version, made["environment_id"])
    async with tenant(page_pool, scope_of(made).account_id) as conn:
        await keys.create_event_key(conn, sealer, scope_of(made), ACTOR, kind="production")
    assert await engine_pool.fetchval(version, made["environment_id"]) == before + 1
