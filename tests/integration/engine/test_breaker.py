"""An app that is down costs nobody else anything, and its own runs no attempts beyond the calls that were made (F14)."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.adapters.http import Answer
from app.domain.protocol.registration import read_registration
from app.engine.breaker import OPENS_AFTER, Breaker
from app.engine.sync import checks, register
from app.reads.apps import find_app, held_back
from app.reads.explain import explain_run
from app.store.db import Pool, open_page_pool, tenant
from tests.integration.engine.world import URL, Call, World, result, unreachable

RUNS = 40


@pytest.fixture
async def pages(world: World) -> AsyncIterator[Pool]:
    """Give the pool of the pages, under row-level security."""
    pool = await open_page_pool(world.url, size=2)
    yield pool
    await pool.close()


class Shop:
    """An app that is down until it is back, and how many calls it had meanwhile."""

    def __init__(self) -> None:
        self.is_down = True

    def __call__(self, _call: Call) -> Answer:
        if self.is_down:
            raise unreachable()
        return result()


class Clock:
    """The breaker's seconds, which pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


async def down(world: World) -> tuple[Shop, Clock, Any]:
    """Many runs of an app that has gone down, all held back."""
    shop, clock = Shop(), Clock()
    await world.function("order", shop, retries=20)
    engine = await world.engine(starts=False)
    # Every wait is far beyond the test's: what is held back moves when the test says so.
    engine.execute.breaker = Breaker(now=clock, chance=lambda: 0.0, longest_s=3600.0)
    clock.seconds = 0.0
    for _ in range(RUNS):
        await world.send("order/sent")
    await engine.start()
    await world.until(lambda: world.value("select count(*) from runs"), lambda n: n == RUNS)
    await world.until(
        lambda: world.value("select count(*) from items where held_due is not null and lease_id is null"),
        lambda n: n == RUNS,
    )
    return shop, clock, engine


async def make_due(world: World) -> None:
    """Time passes for all that is held back."""
    await world.owner.execute("update items set due_at = clock() where lease_id is null")
    await world.owner.execute("update lanes set next_due = clock()")
    world.wake()


async def test_f14_an_app_that_is_down_is_called_a_few_times_whatever_number_of_runs_wait(world: World) -> None:
    shop, clock, engine = await down(world)
    made = len(world.apps.calls)
    # The calls that were under way together when the fifth one failed were made; afterwards none.
    assert OPENS_AFTER <= made <= 2 * RUNS
    await make_due(world)
    await world.until(
        lambda: world.value(
            "select count(*) from items where held_due is not null and lease_id is null and due_at > clock()"
        ),
        lambda n: n == RUNS,
    )
    assert len(world.apps.calls) == made
    attempts = await world.value("select sum(attempt) from items")
    assert attempts == made
    assert await world.value("select sum(redeliveries) from items") == 0
    shop.is_down = False
    clock.seconds += 10_000
    for _ in range(100):
        if await world.value("select count(*) from runs where ended_at is null") == 0:
            break
        await make_due(world)
        clock.seconds += 10
        await world.until(
            lambda: world.value("select not exists (select from items where lease_id is not null or due_at <= clock())")
        )
    assert {run["status"] for run in await world.all_ended()} == {"completed"}
    (app_id,) = engine.execute.breaker.held_back
    assert engine.execute.breaker.ask(app_id, await world.value("select synced_at from apps")).wait_s == 0


async def test_f14_another_app_is_not_held_back(world: World) -> None:
    await down(world)
    await world.function("other", lambda _call: result(), scope=world.theirs)
    event_id = await world.send("other/sent", scope=world.theirs)
    assert (await world.ended((await world.runs_of(event_id))[0]))["status"] == "completed"


async def test_f14_why_a_run_waits_for_its_app_is_said_on_its_page_and_on_the_apps(world: World, pages: Pool) -> None:
    shop, clock, _ = await down(world)
    run_id = (await world.column("select id from runs limit 1"))[0]
    async with tenant(pages, world.mine.account_id) as connection:
        why = await explain_run(connection, world.mine, run_id)
        app = await find_app(connection, world.mine.environment_id, "shop")
        assert app is not None
        held = await held_back(connection, world.mine.environment_id, app.id)
    assert why is not None
    assert [reason["kind"] for reason in why["reasons"]] == ["app_silent"]
    assert why["reasons"][0]["at"] > why["now"] > why["reasons"][0]["since"]
    assert held is not None
    assert (held.count, held.next_at > held.since) == (RUNS, True)
    async with tenant(pages, world.theirs.account_id) as connection:
        assert await held_back(connection, world.theirs.environment_id, app.id) is None
    shop.is_down = False
    clock.seconds += 10_000
    # Only this run is tried: one call on the ramp.
    await world.owner.execute("update items set due_at = clock() where run_id = $1", run_id)
    await world.owner.execute("update lanes set next_due = clock()")
    world.wake()
    await world.ended(run_id)
    (detail,) = await world.column(
        "select detail::json from history where run_id = $1 and kind = 'call' order by version desc limit 1", run_id
    )
    assert '"held_back":true' in detail.replace(" ", "")
    await make_due(world)
    clock.seconds += 10_000
    await world.function("order", shop, retries=20)
    await _sync_again(world)
    while await world.value("select count(*) from runs where ended_at is null"):
        await make_due(world)
        await world.until(
            lambda: world.value("select not exists (select from items where lease_id is not null or due_at <= clock())")
        )


async def test_f14_a_sync_of_the_app_ends_the_wait_even_when_it_changes_nothing(world: World) -> None:
    shop, _, engine = await down(world)
    shop.is_down = False
    await _sync_again(world)
    # The view of functions is at most a second old; then the first who asks finds a newer sync.
    while engine.execute.breaker.held_back:
        await make_due(world)
        await world.until(
            lambda: world.value("select not exists (select from items where lease_id is not null or due_at <= clock())")
        )
    await make_due(world)
    assert {run["status"] for run in await world.all_ended()} == {"completed"}


async def _sync_again(world: World) -> None:
    """The app tells the same functions once more, as one that has just been started does."""
    configs = world._configs[world.mine.environment_id]
    body = {"appname": "shop", "url": URL, "sdk": "js:v4.24.0", "framework": "", "functions": configs, "v": "0.1"}
    said = read_registration(json.dumps(body).encode(), checks=checks())
    synced = await register(world.pool, world.mine, said, kind="out_of_band")
    assert not synced.is_modified
