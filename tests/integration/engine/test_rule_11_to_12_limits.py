"""Rules 11 and 12: lanes take turns, limits hold, slots do not leak, and leases go on while nobody waits (I17, I18)."""

import asyncio

from app.adapters.http import Answer
from app.domain.ids import WorkerId
from app.engine.engine import Engine
from app.engine.queue import lease
from tests.integration.engine.world import Call, Gate, World, in_turn, ops, ran, result, sleeps


async def _queue(world: World, **counts: int) -> Engine:
    """Runs that wait for a worker, and a worker that only leases when told."""
    engine = await world.engine(starts=False)
    await engine._register(engine.worker_id)
    for slug, count in counts.items():
        await world.send_many([(f"{slug}/sent", None)] * count)
    while (await engine.react.round(0)).events:
        pass
    return engine


async def test_rule_11_lanes_take_turns_so_a_backlog_delays_nobody_else(world: World) -> None:
    await world.function("big", in_turn("a"))
    await world.function("small", in_turn("a"))
    engine = await _queue(world, big=40, small=1)
    names = {world.function_id("big"): "big", world.function_id("small"): "small"}
    served: list[str] = []
    for _ in range(3):
        found, _ = await lease(engine.pool, engine.worker_id, 2, ())
        served += [names[x.function_id] for x in found]
    assert "small" in served[:4]
    assert len(served) == 6


async def test_rule_11_two_workers_never_lease_the_same_item(world: World) -> None:
    await world.function("big", in_turn("a"))
    one = await _queue(world, big=30)
    two = await world.engine(starts=False)
    await two._register(two.worker_id)
    rounds = await asyncio.gather(
        *(lease(engine.pool, engine.worker_id, 5, ()) for engine in (one, two) for _ in range(4))
    )
    items = [x.item.id for found, _ in rounds for x in found]
    assert len(items) == len(set(items))
    assert items


async def test_rule_11_a_cancel_that_meets_a_lease_under_way_leaves_no_slot(world: World) -> None:
    await world.function("order", in_turn("a"), concurrency=[{"limit": 1}])
    engine = await _queue(world, order=1)
    run_id = await world.value("select id from runs")
    stop = world.stop_at("lease.picked")
    leasing = asyncio.create_task(lease(engine.pool, engine.worker_id, 1, ()))
    await stop.reached()
    cancelling = asyncio.create_task(world.cancel(run_id))
    await world.until(
        lambda: world.owner.fetchval(
            "select exists (select from pg_stat_activity where wait_event_type = 'Lock'"
            " and datname = current_database())"
        )
    )
    stop.go()
    await asyncio.gather(leasing, cancelling)
    assert await world.column("select lease_id from slots") == []


async def test_rule_11_a_slot_that_nobody_has_is_free_within_a_second(world: World) -> None:
    await world.function("order", in_turn("a"), concurrency=[{"limit": 1}])
    engine = await _queue(world, order=1)
    await lease(engine.pool, engine.worker_id, 1, ())
    await world.rows("delete from items returning id")
    await engine.keep_once()
    assert await world.column("select lease_id from slots") == []
    await world.cancel(await world.value("select id from runs"))


async def test_rule_11_a_limit_of_two_holds_under_four_workers_one_of_which_is_killed(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, concurrency=[{"limit": 2}])
    engines = [await world.engine() for _ in range(4)]
    await world.send_many([("order/sent", None)] * 8)
    held = [await gate.next(), await gate.next()]
    victims = await world.column("select distinct worker_id from items where lease_id is not null")
    await world.check()
    killed = next(engine for engine in engines if engine.worker_id in victims)
    await world.kill(killed)
    await next(engine for engine in engines if engine is not killed).keep_once()
    world.wake()
    for _, answer in held:
        if not answer.done():
            answer.set_result(result())
    while await world.value("select exists (select from runs where ended_at is null)"):
        turn = asyncio.create_task(gate.next())
        over = asyncio.create_task(
            world.until(lambda: world.value("select not exists (select from runs where ended_at is null)"))
        )
        await asyncio.wait({turn, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if turn.done():
            turn.result()[1].set_result(result())
        else:
            turn.cancel()
    assert world.apps.most_at_once["order"] <= 2
    assert await world.value("select count(*) from slots") == 0


async def test_rule_11_many_short_calls_under_a_limit_never_overlap_more_than_allowed(world: World) -> None:
    async def yields(call: Call) -> Answer:
        await asyncio.sleep(0)
        return result() if call.done else ops(ran("a"))

    await world.function("order", yields, concurrency=[{"limit": 2}])
    for _ in range(4):
        await world.engine()
    await world.send_many([("order/sent", None)] * 16)
    assert {row["status"] for row in await world.all_ended()} == {"completed"}
    assert world.apps.most_at_once["order"] <= 2


async def test_rule_11_a_worker_that_just_started_frees_the_slots_it_takes(world: World) -> None:
    await world.function("order", in_turn("a", "b"), concurrency=[{"limit": 1}])
    first = await world.engine()
    stop = world.stop_at("call.before")
    run_id = await world.begin("order")
    await stop.reached()
    await world.kill(first)
    second = await world.engine()
    await second.keep_once()
    assert (await world.ended(run_id))["status"] == "completed"
    assert await world.value("select count(*) from slots") == 0


async def test_rule_11_idle_limited_lanes_do_not_stand_in_front_of_a_busy_one(world: World) -> None:
    for n in range(20):
        await world.function(f"f{n}", in_turn("a"), concurrency=[{"limit": 1}])
    engine = await _queue(world, f19=1)
    await world.owner.execute("update lanes set next_due = clock() - interval '1 hour'")
    found: list[object] = []
    for _ in range(2):
        found += (await lease(engine.pool, engine.worker_id, 100, ()))[0]
    assert len(found) == 1


async def test_rule_11_a_timer_does_not_wait_behind_calls_that_wait_for_room(world: World) -> None:
    gate = Gate()

    def answer(call: Call) -> object:
        if call.body["event"]["data"].get("sleeps") and not call.steps:
            return ops(sleeps("nap"))
        return gate(call)

    await world.function("order", answer, concurrency=[{"limit": 1}])  # type: ignore[arg-type]
    await world.engine()
    sleeper = await world.begin("order", {"sleeps": True})
    await world.quiet(sleeper, "sleeping")
    await world.send_many([("order/sent", None)] * 25)
    await gate.next()
    await world.until(lambda: world.value("select count(*) = 26 from items"))
    await world.make_due(sleeper, "sleep")
    await world.until(lambda: world.steps(sleeper), lambda steps: steps == {"nap": "completed"})
    assert world.apps.most_at_once["order"] == 1


async def test_rule_12_a_lease_goes_on_with_its_slot_while_nobody_waits(world: World) -> None:
    seen: set[object] = set()

    async def answer(call: Call) -> Answer:
        seen.update(await world.column("select lease_id from slots"))
        await world.check()
        return in_turn("a", "b", "c")(call)  # type: ignore[return-value]

    await world.function("order", answer, concurrency=[{"limit": 1}])
    await world.engine()
    await world.ended(await world.begin("order"))
    assert len(seen) == 1
    assert len(world.apps.calls) == 4


async def test_rule_12_a_run_gives_way_when_another_waits_for_its_limit(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, concurrency=[{"limit": 1}])
    await world.engine()
    first = await world.begin("order")
    _, answer = await gate.next()
    second = await world.begin("order")
    await world.until(lambda: world.value("select exists (select from flow_keys where waited_since is not null)"))
    answer.set_result(ops(ran("a")))
    order = []
    for _ in range(3):
        call, answer = await gate.next()
        order.append(call.run_id)
        await world.check()
        answer.set_result(result())
        if len(order) == 2:
            break
    assert order == [second, first]
    await world.all_ended()


async def test_rule_12_the_lease_of_a_timer_is_not_handed_to_a_call(world: World) -> None:
    gate = Gate()

    def answer(call: Call) -> object:
        return gate(call) if call.steps else ops(sleeps("nap"))

    await world.function("order", answer, concurrency=[{"limit": 1}])  # type: ignore[arg-type]
    await world.engine()
    run_id = await world.begin("order")
    await world.quiet(run_id, "sleeping")
    await world.make_due(run_id, "sleep")
    _, end = await gate.next()
    assert await world.value("select count(*) from slots") == 1
    await world.check()
    end.set_result(result())
    await world.ended(run_id)


async def test_rule_12_a_limit_that_is_added_while_a_run_is_hot_is_kept_from_its_next_call_on(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    engine = await world.engine()
    await world.begin("order")
    _, answer = await gate.next()
    await world.function("order", gate, concurrency=[{"limit": 1}])
    await engine.catalogue.view(world.mine, 10**6)
    world.allowed.add("I17-slots")  # the call in flight began without a limit
    answer.set_result(ops(ran("a")))
    _, answer = await gate.next()
    world.allowed.clear()
    assert await world.value("select count(*) from slots") == 1
    await world.check()
    answer.set_result(result())
    await world.all_ended()


async def test_rule_12_several_successors_are_taken_only_while_there_is_room(world: World) -> None:
    gate = Gate()
    names = [f"p{n}" for n in range(6)]

    def answer(call: Call) -> object:
        if call.target:
            return gate(call)
        if call.done >= set(names):
            return result()
        return ops(*({"op": "StepPlanned", "id": n, "name": n, "opts": {}} for n in names))

    await world.function("order", answer)  # type: ignore[arg-type]
    engine = await world.engine(max_calls=3)
    run_id = await world.begin("order")
    held = [await gate.next() for _ in range(3)]
    assert engine.execute.in_flight == 3
    leased = await world.column("select worker_id from items where lease_id is not null")
    assert leased == [WorkerId(engine.worker_id)] * 3
    for _ in names:
        if not held:
            held.append(await gate.next())
        call, future = held.pop()
        future.set_result(ops(ran(str(call.target))))
    await world.ended(run_id)
    assert world.apps.most_at_once["order"] <= 3
