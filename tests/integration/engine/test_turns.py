"""The inbox is served in turns (D10): nobody's event waits behind a flood of somebody else's."""

from app.domain.event import NewEvent
from app.domain.scope import Scope
from app.engine.react import BATCH, TURNS, React
from tests.integration.engine.world import World, in_turn


async def send(world: World, scope: Scope, name: str, count: int = 1) -> None:
    """Store events without telling an engine."""
    await world.ingest.add(scope, [NewEvent(name, b'{"data":{}}', 1) for _ in range(count)])


async def waiting(world: World, name: str) -> int:
    found: int = await world.value("select count(*) from inbox where name = $1", name)
    return found


async def reacting(world: World) -> React:
    """The station of a worker that does nothing else."""
    engine = await world.engine(starts=False)
    await engine._register(engine.worker_id)
    return engine.react


async def test_one_round_serves_every_tenant_and_every_name_though_one_of_them_has_sent_a_flood(world: World) -> None:
    await send(world, world.mine, "flood", 3 * BATCH)
    await send(world, world.mine, "of/mine")
    await send(world, world.theirs, "of/theirs")
    await (await reacting(world)).round(0)
    assert await waiting(world, "of/mine") == 0
    assert await waiting(world, "of/theirs") == 0
    assert 0 < await waiting(world, "flood") < 3 * BATCH


async def test_events_of_one_name_are_served_in_the_order_they_came(world: World) -> None:
    await send(world, world.mine, "flood", BATCH)
    await send(world, world.mine, "flood", BATCH)
    newest = await world.value("select max(received_at) from inbox where name = 'flood'")
    await (await reacting(world)).round(0)
    assert await world.column("select distinct received_at from inbox where name = 'flood'") == [newest]


async def test_with_more_names_than_turns_each_is_served_before_any_is_served_twice(world: World) -> None:
    names = [f"name/{n:03}" for n in range(TURNS + TURNS // 2)]
    for name in names:
        await send(world, world.mine, name, 10)
    react = await reacting(world)
    await react.round(0)
    assert [await waiting(world, name) == 10 for name in names] == [n >= TURNS for n in range(len(names))]
    await react.round(0)
    assert all([await waiting(world, name) < 10 for name in names])


async def test_two_workers_take_different_events_of_a_flood(world: World) -> None:
    await send(world, world.mine, "flood", 2 * BATCH)
    first, second = await reacting(world), await reacting(world)
    async with world.pool.acquire() as connection, connection.transaction():
        await connection.execute("select 1 from inbox where name = 'flood' order by received_at limit 100 for update")
        assert (await second.round(0)).events == BATCH
    assert (await first.round(0)).events == BATCH
    assert await waiting(world, "flood") == 0


async def test_a_crowded_worker_takes_the_first_event_of_whoever_it_holds_nothing_of_and_leaves_the_rest(
    world: World,
) -> None:
    react = await reacting(world)
    for scope in (world.mine, world.theirs):
        await world.function("order", in_turn("a"), scope=scope)
    for scope in (world.mine, world.theirs, world.theirs):
        await send(world, scope, "order/sent")
    reacted = await react.round(8, {world.mine.environment_id})
    assert [hot.facts.scope for hot, _ in reacted.started] == [world.theirs]
    assert reacted.left_ready
    leased = "select environment_id from items where lease_id is not null"
    assert await world.column(leased) == [world.theirs.environment_id]
    assert await world.value("select count(*) from items") == 3


async def test_a_crowded_worker_lets_no_new_run_overtake_what_waits_in_its_lane(world: World) -> None:
    react = await reacting(world)
    await world.function("order", in_turn("a"), scope=world.theirs)
    await send(world, world.theirs, "order/sent")
    assert (await react.round(0)).left_ready
    await send(world, world.theirs, "order/sent")
    reacted = await react.round(8, set())
    assert (reacted.started, reacted.left_ready) == ([], True)
    assert await world.value("select count(*) from items where lease_id is null") == 2
    # Without a crowd, what waits is leased in the same round anyway.
    await send(world, world.theirs, "order/sent")
    assert len((await react.round(8)).started) == 1
