"""Rules 1 to 4: versions and fences, who may write, what memory may believe, what a guard lets through."""

import asyncio
import functools

from app.adapters.http import Answer
from tests.integration.engine.world import Call, Gate, World, in_turn, ops, planned, ran, result


async def test_rule_01_leasing_and_rescue_raise_the_fence_and_leave_the_run_alone(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    first = await world.engine()
    run_id = await world.begin("order")
    one, _ = await gate.next()
    before = await world.run(run_id)
    await world.kill(first)
    second = await world.engine()
    await second.keep_once()
    two, answer = await gate.next()
    assert await world.run(run_id) == before
    assert two.fence == one.fence + 2, "one for the rescue, one for the new lease"
    assert two.item_id == one.item_id
    assert two.attempt == one.attempt == 0
    answer.set_result(result())
    assert (await world.ended(run_id))["version"] == before["version"] + 1


async def test_rule_02_changes_of_a_run_come_one_after_the_other_and_each_raises_the_version(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    call, answer = await gate.next()
    stop = world.stop_at("change.locked", run_id)
    saving = asyncio.create_task(world.checkpoint(call, ran("a")))
    await stop.reached()
    slow = world.stop_at("commit.after", run_id)
    answer.set_result(ops(ran("b")))
    await slow.reached()
    slow.go()
    stop.go()
    await saving
    _, last = await gate.next()
    last.set_result(result())
    row = await world.ended(run_id)
    places = await world.rows("select distinct version from history where run_id = $1 order by version", run_id)
    assert [place[0] for place in places] == list(range(row["version"] + 1))
    order = await world.column("select step_key from steps where run_id = $1 order by memo_order", run_id)
    assert order == ["a", "b"]


async def test_rule_03_a_call_is_built_from_what_was_committed_and_not_from_what_memory_had(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    call, answer = await gate.next()
    stop = world.stop_at("commit.before", run_id)
    answer.set_result(ops(ran("b")))
    await stop.reached()
    await world.checkpoint(call, ran("a", "saved elsewhere"))
    stop.go()
    following, end = await gate.next()
    assert following.steps == {"a": {"data": "saved elsewhere"}, "b": {"data": 1}}
    assert following.body["ctx"]["stack"]["stack"] == ["a", "b"]
    end.set_result(result())
    await world.ended(run_id)


async def test_rule_04_a_failed_guard_drops_its_own_entry_and_no_other_of_the_batch(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.function("other", gate)
    await world.engine()
    lost, kept = await world.begin("order"), await world.begin("other")
    answers = {call.run_id: answer for call, answer in [await gate.next(), await gate.next()]}
    stop = world.stop_at("commit.before")
    for answer in answers.values():
        answer.set_result(ops(ran("a")))
    assert set(await stop.reached()) == {lost, kept}, "both are in one batch"
    await world.cancel(lost)
    stop.go()
    call, end = await gate.next()
    assert (call.run_id, call.done) == (kept, {"a"})
    end.set_result(result())
    assert (await world.ended(kept))["status"] == "completed"
    assert (await world.run(lost))["status"] == "cancelled"
    assert await world.steps(lost) == {}
    assert gate.waiting == 0


async def test_rule_04_memo_order_is_the_order_of_commits_whoever_makes_them(world: World) -> None:
    gate = Gate()

    def answer(call: Call) -> Answer | asyncio.Future[Answer]:
        if call.target:
            return gate(call)  # type: ignore[return-value]
        return result() if len(call.steps) == 3 else ops(planned("a"), planned("b"), planned("c"))

    await world.function("order", answer)
    await world.engine()
    await world.engine()
    run_id = await world.begin("order")
    held = {call.target: future for call, future in [await gate.next() for _ in range(3)]}
    for key in ("c", "a", "b"):
        stop = world.stop_at("commit.after", run_id)
        held[key].set_result(ops(ran(key)))
        await stop.reached()
        stop.go()
        saved = functools.partial(
            world.value, "select count(*) from steps where memo is not null and step_key = $1", key
        )
        await world.until(saved)
    await world.ended(run_id)
    assert world.apps.of(run_id)[-1].body["ctx"]["stack"]["stack"] == ["c", "a", "b"]


async def test_rule_01_every_call_of_a_run_of_ten_steps_has_a_version_of_its_own(world: World) -> None:
    await world.function("order", in_turn(*(f"s{n}" for n in range(10))))
    await world.engine()
    row = await world.ended(await world.begin("order"))
    assert row["version"] == 11
