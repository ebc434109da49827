"""Rules 13 to 16: checkpoints, wake-ups, waits, cancels; whatever the order, one outcome (I14, I15, I22, F24)."""

import asyncio
from itertools import permutations

import pytest

from app.adapters.http import Answer
from app.engine import execute
from app.engine.transition import ItemMoved, RunEnded
from tests.integration.engine.world import Call, Gate, World, in_turn, ops, ran, result, waits

ORDERS = [" ".join(order) for order in permutations(("checkpoint", "cancel", "finish"))]
WAKES = [" ".join(order) for order in permutations(("event", "timeout", "cancel"))]


@pytest.mark.parametrize("order", ORDERS)
async def test_rule_13_checkpoint_cancel_and_finish_have_one_winner_in_every_order(world: World, order: str) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    call, answer = await gate.next()
    refused: list[str] = []
    for deed in order.split():
        try:
            if deed == "checkpoint":
                await world.checkpoint(call, ran("a"))
            elif deed == "cancel":
                await world.cancel(run_id)
            else:
                over = (await world.run(run_id))["ended_at"] is not None
                answer.set_result(result())
                await (world.until(lambda: world.told(run_id, "late")) if over else world.ended(run_id))
                if over:
                    refused.append(deed)
        except (RunEnded, ItemMoved):
            refused.append(deed)
    row = await world.ended(run_id)
    deeds = order.split()
    enders = [deed for deed in deeds if deed != "checkpoint"]
    assert row["status"] == ("cancelled" if enders[0] == "cancel" else "completed")
    assert refused == [deed for n, deed in enumerate(deeds) if any(before in enders for before in deeds[:n])]
    assert (await world.steps(run_id)) == ({"a": "completed"} if deeds[0] == "checkpoint" else {})
    finished = "select count(*) from events where name = 'inngest/function.finished'"
    assert await world.value(finished) == 1


async def test_rule_13_all_at_the_same_moment_still_have_one_winner(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    call, answer = await gate.next()
    async with world.locked(run_id):
        deeds = [
            asyncio.create_task(world.checkpoint(call, ran("a"))),
            asyncio.create_task(world.cancel(run_id)),
            asyncio.create_task(world.checkpoint(call, ran("a"), ran("b"))),
        ]
        answer.set_result(result())
        await world.until(lambda: world.owner.fetchval("select count(*) >= 3 from pg_locks where not granted"))
    await asyncio.gather(*deeds, return_exceptions=True)
    row = await world.ended(run_id)
    ends = await world.told(run_id, "run.completed", "run.cancelled", "run.failed")
    assert ends == [f"run.{row['status']}"]


async def test_rule_13_a_checkpoint_of_a_call_that_was_taken_over_is_refused(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    frozen = await world.engine()
    run_id = await world.begin("order")
    old, _ = await gate.next()
    await world.expire(frozen)
    second = await world.engine()
    await second.keep_once()
    new, answer = await gate.next()
    with pytest.raises(ItemMoved):
        await world.checkpoint(old, ran("a", "old"))
    await world.checkpoint(new, ran("a", "new"))
    answer.set_result(result())
    await world.ended(run_id)
    assert await world.column("select memo from steps") == ['{"data":"new"}']


async def test_rule_13_the_same_checkpoint_twice_is_one_and_attempts_count_from_zero_again(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, retries=2)
    await world.engine()
    run_id = await world.begin("order")
    _, answer = await gate.next()
    answer.set_result(Answer(500, {"x-inngest-sdk": "js:v4.24.0"}, b'{"name":"Error","message":"no"}', 1.0))
    call, answer = await gate.next()
    assert call.attempt == 1
    await world.checkpoint(call, ran("a"))
    version = (await world.run(run_id))["version"]
    await world.checkpoint(call, ran("a", "another value"))
    assert (await world.run(run_id))["version"] == version
    answer.set_result(Answer(500, {"x-inngest-sdk": "js:v4.24.0"}, b'{"name":"Error","message":"no"}', 1.0))
    call, answer = await gate.next()
    assert call.attempt == 1
    assert call.steps == {"a": {"data": 1}}
    answer.set_result(result())
    await world.ended(run_id)


def _waits_once(call: Call) -> Answer:
    return result(call.steps["w"]) if "w" in call.steps else ops(waits("w", "x"))


@pytest.mark.parametrize("order", WAKES)
async def test_rule_14_event_timeout_and_cancel_give_a_wait_one_outcome_in_every_order(
    world: World, order: str
) -> None:
    await world.function("order", _waits_once)
    await world.engine()
    run_id = await world.begin("order")
    await world.quiet(run_id)
    first, *rest = order.split()

    async def do(deed: str) -> None:
        if deed == "event":
            await world.send("x")
            await world.until(lambda: world.value("select not exists (select from inbox)"))
        elif deed == "timeout":
            await world.make_due(run_id, "timeout")
        else:
            await world.cancel(run_id)

    stop = world.stop_at("call.before", run_id)
    await do(first)
    if first != "cancel":
        await stop.reached()
    await asyncio.gather(*(do(deed) for deed in rest), return_exceptions=True)
    stop.go()
    await world.ended(run_id)
    outcomes = await world.told(run_id, "wait.resumed", "wait.timed_out")
    assert outcomes == {"event": ["wait.resumed"], "timeout": ["wait.timed_out"], "cancel": []}[first]


async def test_rule_14_event_timeout_and_cancel_at_the_same_moment_give_a_wait_one_outcome(world: World) -> None:
    await world.function("order", _waits_once)
    await world.engine()
    run_id = await world.begin("order")
    await world.quiet(run_id)
    async with world.locked(run_id):
        deeds = [asyncio.create_task(world.resume(run_id, "w")), asyncio.create_task(world.cancel(run_id))]
        await world.make_due(run_id, "timeout")
        await world.until(lambda: world.owner.fetchval("select count(*) >= 2 from pg_locks where not granted"))
    await asyncio.gather(*deeds, return_exceptions=True)
    await world.ended(run_id)
    assert len(await world.told(run_id, "wait.resumed", "wait.timed_out")) <= 1


async def test_rule_14_the_last_of_a_group_is_decided_under_the_lock(world: World) -> None:
    def answer(call: Call) -> Answer:
        if {"w", "v"} <= call.done:
            return result()
        return (
            ops({"op": "StepPlanned", "id": "p", "name": "p", "opts": {}}, waits("w", "x"), waits("v", "y"))
            if not call.target
            else ops(ran("p"))
        )

    await world.function("order", answer)
    await world.engine()
    run_id = await world.begin("order")
    await world.until(lambda: world.steps(run_id), lambda steps: steps.get("p") == "completed")
    async with world.locked(run_id):
        deeds = [asyncio.create_task(world.resume(run_id, key)) for key in ("w", "v")]
        await world.until(lambda: world.owner.fetchval("select count(*) >= 2 from pg_locks where not granted"))
    await asyncio.gather(*deeds)
    assert (await world.ended(run_id))["status"] == "completed"
    assert [call.target for call in world.apps.of(run_id)] == [None, "p", None]


async def test_rule_15_an_event_received_between_the_request_of_a_wait_and_its_commit_is_not_missed(
    world: World,
) -> None:
    await world.function("order", _waits_once)
    await world.engine()
    stop = world.stop_at("commit.before")
    run_id = await world.begin("order")
    await stop.reached()
    await world.send("x", {"n": 1})
    await world.engine()  # the first one's committer stands still; somebody reacts
    await world.until(lambda: world.value("select not exists (select from inbox)"))
    stop.go()
    await world.ended(run_id)
    assert await world.told(run_id, "wait.resumed", "wait.timed_out") == ["wait.resumed"]


async def test_rule_15_an_event_received_after_the_answer_and_before_anything_was_decided_counts(world: World) -> None:
    await world.function("order", _waits_once)
    await world.engine()
    stop = world.stop_at("call.after")
    run_id = await world.begin("order")
    await stop.reached()
    await world.send("x")
    await world.until(lambda: world.value("select not exists (select from inbox)"))
    stop.go()
    await world.ended(run_id)


async def test_rule_15_an_event_received_before_the_wait_was_asked_for_does_not_count(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    _, answer = await gate.next()
    await world.send("x")
    await world.until(lambda: world.value("select not exists (select from inbox)"))
    answer.set_result(ops(waits("w", "x")))
    await world.quiet(run_id)
    await world.until(lambda: world.value("select rechecked_at is not null from pauses"))
    assert await world.steps(run_id) == {"w": "waiting"}


async def test_rule_15_the_second_look_of_an_opener_that_died_is_taken_by_the_keeper(world: World) -> None:
    await world.function("order", _waits_once)
    first = await world.engine()
    stop, look = world.stop_at("commit.before"), world.stop_at("look.before")
    run_id = await world.begin("order")
    await stop.reached()
    second = await world.engine()
    await world.send("x")
    await world.until(lambda: world.value("select not exists (select from inbox)"))
    stop.go()
    await look.reached()
    await world.kill(first)
    assert await world.steps(run_id) == {"w": "waiting"}
    await world.owner.execute("update pauses set requested_at = requested_at - interval '2 seconds'")
    await second.keep_once()
    await world.ended(run_id)


async def test_rule_15_one_event_ends_one_wait_once_even_when_both_looks_see_it(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    _, answer = await gate.next()
    look = world.stop_at("look.before")
    answer.set_result(ops(waits("w", "x")))
    await look.reached()
    react = world.stop_at("react.claimed")
    await world.send("x")
    await react.reached()
    react.go()
    look.go()
    _, answer = await gate.next()
    answer.set_result(result())
    await world.ended(run_id)
    assert await world.told(run_id, "wait.resumed") == ["wait.resumed"]
    assert gate.waiting == 0


async def test_rule_15_events_claimed_together_each_end_the_wait_they_name_and_a_wait_ends_once(world: World) -> None:
    def answer(call: Call) -> Answer:
        if "w" in call.steps:
            return result()
        return ops(waits("w", "x", when=f"async.data.n == {call.body['event']['data']['n']}"))

    await world.function("order", answer)
    await world.engine()
    runs = [await world.begin("order", {"n": n}) for n in (1, 2)]
    for run_id in runs:
        await world.quiet(run_id)
    named = [
        ("x", {"n": 2, "by": "first"}),
        ("x", {"n": 2, "by": "second"}),
        ("y", None),
        ("x", {"n": 1, "by": "third"}),
    ]
    react = world.stop_at("react.claimed")
    await world.send_many(named)
    assert len(await react.reached()) == len(named)
    react.go()
    for run_id, by in zip(runs, ("third", "first"), strict=True):
        await world.ended(run_id)
        assert await world.told(run_id, "wait.resumed") == ["wait.resumed"]
        _, last = world.apps.of(run_id)
        assert last.steps["w"]["data"]["by"] == by
    await world.until(lambda: world.value("select not exists (select from inbox)"))


async def test_rule_16_a_leased_call_that_is_not_sent_when_its_run_is_cancelled_is_not_made(world: World) -> None:
    await world.function("order", in_turn("a"))
    engine = await world.engine()
    stop = world.stop_at("call.before")
    run_id = await world.begin("order")
    await stop.reached()
    await world.cancel(run_id)
    await world.until(lambda: _now(engine.execute._doubted))
    stop.go()
    await world.until(lambda: _now(engine.execute.in_flight == 0))
    assert world.apps.calls == []


async def test_rule_16_without_the_hint_a_call_looks_at_its_fence_when_it_is_late(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "_STALE_S", 0.0)
    world.bell.is_deaf = True
    await world.function("order", in_turn("a"))
    engine = await world.engine()
    stop = world.stop_at("call.before")
    run_id = await world.begin("order")
    await stop.reached()
    await world.cancel(run_id)
    stop.go()
    await world.until(lambda: _now(engine.execute.in_flight == 0))
    assert world.apps.calls == []


async def _now(value: object) -> object:
    return value


async def test_rule_16_a_cancel_takes_work_waits_and_slots_with_it(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, concurrency=[{"limit": 1}])
    await world.engine()
    run_id = await world.begin("order")
    _, answer = await gate.next()
    other = await world.begin("order")
    await world.cancel(run_id)
    for table in ("items", "pauses", "slots"):
        assert await world.value(f"select count(*) from {table} where run_id = $1", run_id) == 0
    call, end = await gate.next()
    assert call.run_id == other
    answer.set_result(ops(ran("a")))
    end.set_result(result())
    await world.ended(other)
    assert (await world.run(run_id))["status"] == "cancelled"
