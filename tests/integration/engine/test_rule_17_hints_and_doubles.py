"""Rule 17: hints may be lost. And F16: everything may come twice."""

import asyncio

from app.adapters.http import Answer
from tests.integration.engine.world import Call, Gate, World, in_turn, invokes, ops, planned, ran, result, waits

SEED = "1700000000000,AAAAAAAAAAAAAA=="


async def test_rule_17_runs_go_on_when_no_bell_ever_rings(world: World) -> None:
    world.bell.is_deaf = True

    def answer(call: Call) -> Answer:
        if call.target:
            return ops(ran(call.target))
        if {"a", "b"} <= call.done:
            return result()
        return ops(planned("a"), planned("b"))

    await world.function("order", answer)
    await world.function("parent", lambda call: result() if call.done else ops(invokes("c", "order")))
    await world.engine()
    run_id = await world.begin("parent")
    assert (await world.ended(run_id))["status"] == "completed"


async def test_rule_17_a_slot_that_nobody_has_is_freed_by_a_keeper_and_the_repair_is_noted(world: World) -> None:
    await world.function("order", in_turn("a"), concurrency=[{"limit": 1}])
    engine = await world.engine()
    await world.ended(await world.begin("order"))
    key = await world.value("select id from flow_keys limit 1")
    await world.owner.execute(
        "insert into slots (flow_key_id, lease_id, account_id, environment_id, run_id, item_id)"
        " values ($1, gen_random_uuid(), $2, $3, gen_random_uuid(), gen_random_uuid())",
        key, world.mine.account_id, world.mine.environment_id,
    )  # fmt: skip
    await engine.keep_once()
    assert await world.value("select count(*) from slots") == 0
    assert await world.value("select sum(count) from repairs where kind = 'orphan'") == 1
    await world.ended(await world.begin("order"))


async def test_rule_17_a_lane_whose_clock_is_late_is_found_by_the_sweep(world: World) -> None:
    await world.function("order", in_turn("a"))
    idle = await world.engine(starts=False)
    await idle._register(idle.worker_id)
    await world.send("order/sent")
    await idle.react.round(0)
    await world.owner.execute("update lanes set next_due = 'infinity'")
    engine = await world.engine()
    await engine.keep_once()
    assert {row["status"] for row in await world.all_ended()} == {"completed"}


async def test_rule_17_the_same_request_with_the_same_seed_is_stored_once(world: World) -> None:
    await world.function("order", in_turn("a"))
    await world.engine()
    sent = await asyncio.gather(*(world.send("order/sent", {"n": 1}, seed=SEED) for _ in range(5)))
    assert len(set(sent)) == 1
    await world.all_ended()
    assert await world.value("select count(*) from runs") == 1
    assert await world.value("select count(*) from events where source = 'api'") == 1


async def test_rule_17_another_body_with_the_same_seed_is_new(world: World) -> None:
    first = await world.send("order/sent", {"n": 1}, seed=SEED)
    assert await world.send("order/sent", {"n": 2}, seed=SEED) != first
    assert await world.value("select count(*) from events") == 2


async def test_rule_17_an_event_with_an_id_of_its_own_starts_a_function_once(world: World) -> None:
    await world.function("order", in_turn("a"))
    await world.engine()
    for _ in range(3):
        await world.send("order/sent", client_id="mine")
    await world.all_ended()
    assert await world.value("select count(*) from runs") == 1
    assert await world.column("select outcome from dispositions") == ["duplicate"] * 2


async def test_rule_17_an_event_claimed_by_a_worker_that_dies_before_its_commit_makes_one_run(world: World) -> None:
    await world.function("order", in_turn("a"))
    first = await world.engine()
    stop = world.stop_at("react.claimed")
    event_id = await world.send("order/sent")
    await stop.reached()
    await world.kill(first)
    second = await world.engine()
    await second.keep_once()
    await world.ended((await world.runs_of(event_id))[0])
    assert await world.value("select count(*) from runs") == 1


async def test_rule_17_a_run_committed_by_a_worker_that_dies_before_driving_it_is_driven_once(world: World) -> None:
    await world.function("order", in_turn("a"))
    first = await world.engine()
    stop = world.stop_at("react.committed")
    await world.send("order/sent")
    (run_id,) = await stop.reached()
    await world.kill(first)
    second = await world.engine()
    await second.keep_once()
    await world.ended(run_id)
    assert len(world.apps.of(run_id)) == 2


async def test_rule_17_a_wake_up_that_comes_twice_is_one(world: World) -> None:
    gate = Gate()

    def answer(call: Call) -> object:
        return gate(call) if call.steps else ops(waits("w", "x"))

    await world.function("order", answer)  # type: ignore[arg-type]
    await world.engine()
    run_id = await world.begin("order")
    await world.quiet(run_id)
    await asyncio.gather(*(world.resume(run_id, "w", b'{"n":%d}' % n) for n in range(3)))
    world.wake()
    _, end = await gate.next()
    end.set_result(result())
    await world.ended(run_id)
    assert gate.waiting == 0
    assert await world.told(run_id, "wait.resumed") == ["wait.resumed"]


async def test_rule_17_two_cancels_are_one(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    await gate.next()
    done = await asyncio.gather(*(world.cancel(run_id) for _ in range(3)), return_exceptions=True)
    assert sum(not isinstance(one, Exception) for one in done) == 1
    assert await world.told(run_id, "run.cancelled") == ["run.cancelled"]


async def test_rule_17_an_app_that_is_asked_again_after_a_crash_sees_the_same_call(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    first = await world.engine()
    run_id = await world.begin("order")
    one, answer = await gate.next()
    stop = world.stop_at("commit.before", run_id)
    answer.set_result(ops(ran("a")))
    await stop.reached()
    await world.kill(first)
    second = await world.engine()
    await second.keep_once()
    two, answer = await gate.next()
    assert (two.item_id, two.attempt, two.steps) == (one.item_id, one.attempt, one.steps)
    answer.set_result(result())
    await world.ended(run_id)
