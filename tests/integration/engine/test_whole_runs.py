"""Runs from an event to their end, without anything in the way: what the races are variations of."""

from collections.abc import Awaitable

from app.adapters.http import Answer
from app.domain.scope import Scope
from tests.integration.engine.world import Call, Gate, World, in_turn, invokes, ops, planned, ran, result, waits


async def test_a_run_of_three_steps_completes_and_makes_no_call_twice(world: World) -> None:
    await world.function("order", in_turn("a", "b", "c"))
    await world.engine()
    row = await world.ended(await world.begin("order"))
    assert row["status"] == "completed"
    assert [sorted(call.done) for call in world.apps.calls] == [[], ["a"], ["a", "b"], ["a", "b", "c"]]


async def test_parallel_steps_are_each_called_once_and_seen_together(world: World) -> None:
    def answer(call: Call) -> Answer:
        if call.target:
            return ops(ran(call.target))
        return result() if call.done == {"a", "b", "c"} else ops(planned("a"), planned("b"), planned("c"))

    await world.function("order", answer)
    await world.engine()
    run_id = await world.begin("order")
    assert (await world.ended(run_id))["status"] == "completed"
    targets = [call.target for call in world.apps.of(run_id)]
    assert sorted(t for t in targets if t) == ["a", "b", "c"]
    assert targets.count(None) == 2


async def test_a_member_of_a_group_that_is_tried_again_is_still_waited_for(world: World) -> None:
    gate = Gate()

    def answer(call: Call) -> Answer | Awaitable[Answer]:
        if call.target == "a" and call.attempt == 0:
            return ops({"op": "StepError", "id": "a", "name": "a", "error": {"name": "Error", "message": "no"}})
        if call.target:
            return gate(call)
        return result() if call.done == {"a", "b"} else ops(planned("a"), planned("b"))

    await world.function("order", answer)
    await world.engine()
    run_id = await world.begin("order")
    held = {call.target: future for call, future in [await gate.next(), await gate.next()]}
    assert await world.steps(run_id) == {"a": "retrying", "b": "planned"}
    await world.check()
    held["a"].set_result(ops(ran("a")))
    await world.until(lambda: world.steps(run_id), lambda steps: steps["a"] == "completed")
    held["b"].set_result(ops(ran("b")))
    await world.ended(run_id)
    assert [call.target for call in world.apps.of(run_id)].count(None) == 2


async def test_a_child_resumes_its_parent_and_an_event_of_another_tenant_resumes_nobody(world: World) -> None:
    def parent(call: Call) -> Answer:
        if "child" not in call.steps:
            return ops(invokes("child", "shop-child" if "shop-child" in world.apps.scripts else "child"))
        return result() if "paid" in call.steps else ops(waits("paid", "paid"))

    await world.function("child", in_turn("x", last={"n": 7}))
    await world.function("order", parent)
    await world.engine()
    run_id = await world.begin("order")
    await world.quiet(run_id)
    await _send_and_react(world, "paid", world.theirs)
    assert (await world.steps(run_id))["paid"] == "waiting"
    await world.send("paid")
    assert (await world.ended(run_id))["status"] == "completed"
    assert world.apps.of(run_id)[-1].steps["child"] == {"data": {"n": 7}}


async def _send_and_react(world: World, name: str, scope: Scope) -> None:
    await world.send(name, scope=scope)
    await world.until(lambda: world.value("select not exists (select from inbox)"))
