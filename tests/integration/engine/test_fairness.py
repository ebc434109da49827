"""Another tenant's run is leased within a few leases, whatever and how much somebody else has queued (D10).

Counted are leases, not seconds: the items a worker leases before it has the other's. Full size: 20,000 runs are queued.
"""

import os
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest

from app.engine.engine import Engine
from app.engine.queue import lease
from tests.integration.engine.world import _HOT, World, result

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
QUEUED = 20_000 if IS_FULL else 1_000
#: Queues of somebody else: what of its runs is limited, how many functions they are spread over, and keys of each.
NOISE: dict[str, tuple[dict[str, Any], int, int]] = {
    "free": ({}, 1, 1),
    "free functions": ({}, 40, 1),
    "limited": ({"concurrency": {"limit": 1_000, "key": "event.data.n"}}, 1, 50),
    "held": ({"concurrency": {"limit": 1, "key": "event.data.n"}}, 2, 25),
    "throttled": ({"throttle": {"limit": 1, "period": "1h", "key": "event.data.n"}}, 1, 50),
}
QUIET: dict[str, dict[str, Any]] = {"free": {}, "limited": {"concurrency": 1}}
#: Leases, and looks of a worker, until the quiet tenant's run is among the leased.
LEASES, LOOKS = 8, 6


@pytest.fixture
async def noisy(world: World) -> AsyncIterator[World]:
    """A world in which what `queue` multiplied is gone before the invariants are checked."""
    yield world
    await world.owner.execute(f"truncate {', '.join(_HOT)} cascade")


async def queue(world: World, engine: Engine, kind: str, count: int) -> None:
    """So many runs of one tenant wait: one of each function and key is made for real, the others are its copies."""
    rule, functions, keys = NOISE[kind]
    for n in range(functions):
        await world.function(f"noisy{n}", lambda _c: result(), **rule)
    await world.send_many([(f"noisy{n}/sent", {"n": key}) for n in range(functions) for key in range(keys)])
    while await world.value("select exists (select from inbox)"):
        await engine.react.round(0)
    await world.owner.execute(
        """with made as materialized (
             select r.id, gen_random_uuid() as run_id from runs r cross join generate_series(1, $1::int / $2::int - 1)
           ), copied as (
             insert into runs select (jsonb_populate_record(r, jsonb_build_object('id', m.run_id))).*
             from made m join runs r on r.id = m.id
           )
           insert into items select (jsonb_populate_record(i, jsonb_build_object('id', gen_random_uuid(), 'run_id', m.run_id))).*
           from made m join items i on i.run_id = m.id""",
        count,
        functions * keys,
    )
    if kind == "held":
        await world.owner.execute("update flow_keys set cap = 0 where account_id = $1", world.mine.account_id)
    await world.owner.execute("analyze items; analyze lanes; analyze runs")


async def done(world: World) -> None:
    """What was leased is done at once: its slots are free, and lanes that wait for some look again."""
    await world.owner.execute("delete from slots; delete from items where lease_id is not null")
    await world.owner.execute(
        "update lanes set next_due = clock() where blocked_until < clock() + interval '2 seconds'"
    )


async def until_leased(world: World, engine: Engine, quiet: Any, room: int) -> tuple[int, int]:
    """Leases and looks until the run of the function `quiet` is leased; each look has room for `room` items."""
    leases = 0
    for look in range(1, 200):
        found, _ = await lease(engine.pool, engine.worker_id, room, [], engine._looks)
        await done(world)
        functions = [x.function_id for x in found]
        if quiet in functions:
            return leases + functions.index(quiet) + 1, look
        leases += len(found)
    raise AssertionError(f"not among the first {leases} leases")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", NOISE)
async def test_a_run_beside_a_full_queue_is_among_the_next_leases(noisy: World, kind: str) -> None:
    world = noisy
    for slug, rule in QUIET.items():
        await world.function(slug, lambda _c: result(), scope=world.theirs, **rule)
    engine = await world.engine(starts=False)
    await engine._register(engine.worker_id)
    await queue(world, engine, kind, QUEUED)
    assert await world.value("select count(*) from items") == QUEUED
    told = []
    for slug, room in product(QUIET, (1, 2, 64)):
        # The noisy tenant's lanes were served before, and are now served for a while.
        for _ in range(3):
            await lease(engine.pool, engine.worker_id, room, [], engine._looks)
        await done(world)
        await world.send_many([(f"{slug}/sent", {})], scope=world.theirs)
        await engine.react.round(0)
        leases, looks = await until_leased(world, engine, world.function_id(slug, world.theirs), room)
        told.append(f"{slug}, room for {room}: {leases} ({looks})")
        assert leases <= max(LEASES, room)
        assert looks <= LOOKS
    print(f"\nbeside {QUEUED} {kind}, leases (looks) until the run is leased: {'; '.join(told)}", end="")


async def test_refused_lanes_do_not_stand_before_one_that_was_not_looked_at(noisy: World) -> None:
    world = noisy
    rule = {"limit": 1, "key": "event.data.n"}
    await world.function("order", lambda _c: result(), concurrency=rule)
    await world.function("quiet", lambda _c: result(), scope=world.theirs, concurrency=1)
    engine = await world.engine(starts=False)
    await engine._register(engine.worker_id)
    await world.send_many([("order/sent", {"n": n}) for n in range(40)])
    await engine.react.round(0)
    await world.owner.execute("update flow_keys set cap = 0 where account_id = $1", world.mine.account_id)
    # As many tenants as keys: each has a lane at the head of its own that is held.
    await world.owner.execute(
        "with x as (select gen_random_uuid() as environment_id, l.id from lanes l where l.account_id = $1 and l.key <> ''"
        " order by l.id limit 20), i as (update items i set environment_id = x.environment_id from x where i.lane_id = x.id)"
        " update lanes l set environment_id = x.environment_id from x where l.id = x.id",
        world.mine.account_id,
    )
    await done(world)
    await world.send_many([("quiet/sent", {})], scope=world.theirs)
    await world.send_many([("order/sent", {"n": "free"})])
    await engine.react.round(0)
    _, looks = await until_leased(world, engine, world.function_id("quiet", world.theirs), 8)
    assert looks <= LOOKS
    # Of one function each key has its turn before any has a second, one in each turn of its tenant.
    _, looks = await until_leased(world, engine, world.function_id("order"), 8)
    assert looks <= 20 + 1


async def test_two_functions_that_share_a_limit_take_turns_though_one_has_a_backlog(noisy: World) -> None:
    world = noisy
    rule = {"limit": 1, "key": "'all'", "scope": "env"}
    for slug in ("busy", "other"):
        await world.function(slug, lambda _c: result(), concurrency=rule)
    engine = await world.engine(starts=False)
    await engine._register(engine.worker_id)
    await world.send_many([("busy/sent", {}) for _ in range(60)])
    await engine.react.round(0)
    await world.send_many([("other/sent", {}) for _ in range(10)])
    await engine.react.round(0)
    names = {world.function_id(slug): slug for slug in ("busy", "other")}
    leased = []
    for _ in range(10):
        found, _ = await lease(engine.pool, engine.worker_id, 8, [], engine._looks)
        leased += [names[x.function_id] for x in found]
        await done(world)
    assert leased[2:] in (["busy", "other"] * 4, ["other", "busy"] * 4)
