"""How Stepwell learns an app's functions: the app tells them, or is asked for them over the wire."""

import asyncio
from uuid import UUID

import asyncpg

from app.adapters.http import HttpCaller
from app.domain.addresses import Gate
from app.engine.sync import Synced, SyncFailed, sync_app
from app.store.db import open_engine_pool
from tests.protocol.world import World, only_signed


async def ask(world: World, url: str, *, keys: list[str] | None = None) -> Synced | SyncFailed:
    """Sync the app at `url` as the pages do."""
    pool = await open_engine_pool(world.server.database_url, size=2)
    caller = HttpCaller(Gate(allow_private=True, own_addresses=frozenset()))
    ours = [world.tenant.signing_key] if world.is_signed else []
    try:
        return await sync_app(
            pool,
            caller,
            world.tenant.scope,
            url,
            server_kind="cloud" if world.is_signed else "dev",
            keys=ours if keys is None else keys,
        )
    finally:
        await caller.close()
        await pool.close()


async def slugs_of(world: World, app_name: str) -> set[str]:
    """The functions of an app that events may start."""
    connection = await asyncpg.connect(world.server.database_url)
    try:
        rows = await connection.fetch(
            "select f.slug from functions f join apps a on a.id = f.app_id"
            " where a.environment_id = $1 and a.name = $2 and f.archived_at is null",
            world.tenant.scope.environment_id,
            app_name,
        )
    finally:
        await connection.close()
    return {row["slug"] for row in rows}


async def last_kind(world: World, sync_id: UUID) -> str:
    """How the functions of a sync arrived."""
    connection = await asyncpg.connect(world.server.database_url)
    try:
        kind: str = await connection.fetchval("select kind from syncs where id = $1", sync_id)
    finally:
        await connection.close()
    return kind


async def test_an_app_asked_to_register_tells_its_functions_to_the_server_it_was_told_of(world: World) -> None:
    app = world.app("shop")

    answer = await asyncio.to_thread(app.register)

    assert answer.status_code == 200, answer.text
    assert await slugs_of(world, app.id) == {f"{app.id}-fulfil-order"}


async def test_an_app_asked_over_the_wire_gives_its_functions(world: World) -> None:
    app = world.app("cases")

    synced = await ask(world, app.serve_url)

    assert isinstance(synced, Synced), synced
    assert f"{app.id}-sleeper" in await slugs_of(world, app.id)


async def test_the_same_functions_again_change_nothing(world: World) -> None:
    app = world.registered("shop")
    await ask(world, app.serve_url)

    again = await ask(world, app.serve_url)

    assert isinstance(again, Synced), again
    assert not again.is_modified


async def test_a_signed_request_is_answered_with_the_functions_at_once(world: World) -> None:
    app = world.app("shop")

    synced = await ask(world, app.serve_url)

    assert isinstance(synced, Synced), synced
    assert await last_kind(world, synced.sync_id) == ("in_band" if world.is_signed else world.sdk.dev_sync)


@only_signed
async def test_an_app_with_another_key_refuses_and_the_refusal_says_what_to_do(world: World) -> None:
    app = world.app("shop")

    failed = await ask(world, app.serve_url, keys=["signkey-prod-" + "ab" * 32])

    assert isinstance(failed, SyncFailed), failed
    assert failed.code == "sig_verification_failed"
    assert "INNGEST_SIGNING_KEY" in failed.fix


async def test_a_path_where_no_sdk_is_served_is_named_as_such(world: World) -> None:
    app = world.app("shop")

    failed = await ask(world, f"{app.base_url}/nowhere")

    assert isinstance(failed, SyncFailed), failed
    assert failed.code in {"http_not_ok", "not_sdk"}
