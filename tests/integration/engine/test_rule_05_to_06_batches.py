"""Rules 5 and 6: what a batch holds, and what becomes of entries that do not win at once."""

import asyncio

import pytest

from app.adapters.http import Answer
from tests.integration.engine.world import Call, Gate, World, failure, in_turn, ops, planned, ran, result


def _parallel(gate: Gate, *names: str):  # type: ignore[no-untyped-def]
    def answer(call: Call) -> object:
        if call.target:
            return gate(call)
        return result() if call.done == set(names) else ops(*map(planned, names))

    return answer


async def test_rule_05_answers_of_one_run_that_are_ready_together_are_one_entry(world: World) -> None:
    gate = Gate()
    await world.function("order", _parallel(gate, "a", "b", "c"))
    await world.engine()
    run_id = await world.begin("order")
    held = [await gate.next() for _ in range(3)]
    before = (await world.run(run_id))["version"]
    for call, answer in held:
        answer.set_result(ops(ran(str(call.target))))
    row = await world.ended(run_id)
    versions = await world.column(
        "select distinct version from history where run_id = $1 and kind = 'step.completed'", run_id
    )
    assert versions == [before + 1]
    assert row["version"] == before + 2, "one for the three steps, one for the end"


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends"])
async def test_rule_05_an_item_that_one_answer_retries_and_another_settles_is_called_no_more(
    world: World, ends: bool
) -> None:
    """Two calls of one run answer at once: the step's own says that it failed, another brings its result, or the run's."""
    gate = Gate()
    await world.function("order", gate, retries=4)
    await world.engine()
    run_id = await world.begin("order")
    _, answer = await gate.next()
    answer.set_result(ops(planned("a"), planned("b"), version=1))
    held = {str(call.target): given for call, given in [await gate.next(), await gate.next()]}
    held["a"].set_result(failure())
    held["b"].set_result(result() if ends else ops(ran("a", "of b"), ran("b")))
    if not ends:
        following, answer = await gate.next()
        assert following.target is None
        assert following.done == {"a", "b"}
        assert await world.column("select step_key from items where run_id = $1", run_id) == [None]
        answer.set_result(result())
    await world.ended(run_id)
    journal = await world.column(
        "select version from history where run_id = $1 and item_key in ('step:a', 'step:b')", run_id
    )
    assert len(set(journal)) == 1, "both answers are in one entry"
    assert await world.column("select key from items where run_id = $1", run_id) == []
    assert len(world.apps.of(run_id)) == (3 if ends else 4)


async def test_rule_05_a_step_that_one_answer_plans_and_another_brings_is_not_called(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    _, answer = await gate.next()
    answer.set_result(ops(planned("a"), planned("b"), version=1))
    held = {str(call.target): given for call, given in [await gate.next(), await gate.next()]}
    held["a"].set_result(ops(ran("a"), planned("c")))
    held["b"].set_result(ops(ran("b"), ran("c", "of b")))
    following, answer = await gate.next()
    assert (following.target, following.done) == (None, {"a", "b", "c"})
    answer.set_result(result())
    await world.ended(run_id)
    assert [call.target for call in world.apps.of(run_id) if call.target == "c"] == []


async def test_rule_05_a_run_is_in_one_open_batch_at_a_time(world: World) -> None:
    gate = Gate()
    await world.function("order", _parallel(gate, "a", "b"))
    engine = await world.engine()
    run_id = await world.begin("order")
    (_, first), (_, second) = sorted([await gate.next(), await gate.next()], key=lambda held: str(held[0].target))
    stop = world.stop_at("commit.before", run_id)
    first.set_result(ops(ran("a")))
    await stop.reached()
    late = world.stop_at("commit.before", run_id)
    arrived = world.stop_at("call.after", run_id)
    second.set_result(ops(ran("b")))
    await arrived.reached()
    arrived.go()
    await world.until(lambda: _answer(len(engine.committer._queue) == 1))
    assert not late.arrived.is_set()
    stop.go()
    assert list(await late.reached()) == [run_id]
    late.go()
    await world.ended(run_id)


async def _answer(value: object) -> object:
    return value


async def test_rule_06_an_entry_made_stale_by_a_checkpoint_is_advanced_again_and_nothing_is_called_twice(
    world: World,
) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    call, answer = await gate.next()
    await world.checkpoint(call, ran("a"))
    slow = world.stop_at("slow.locked", run_id)
    answer.set_result(ops(ran("a"), ran("b")))
    assert list(await slow.reached()) == [run_id]
    slow.go()
    following, end = await gate.next()
    assert following.done == {"a", "b"}
    end.set_result(result())
    await world.ended(run_id)
    assert len(world.apps.of(run_id)) == 2


async def test_rule_06_the_slow_path_reads_after_it_has_the_lock(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    call, answer = await gate.next()
    holding = world.stop_at("change.locked", run_id)
    saving = asyncio.create_task(world.checkpoint(call, ran("a")))
    await holding.reached()
    tried = world.stop_at("commit.after", run_id)
    answer.set_result(ops(ran("b")))
    await tried.reached()
    tried.go()
    # Three tries without waiting, then the slow path stands behind the checkpoint's lock.
    await world.until(lambda: world.value("select exists (select from pg_locks where not granted)"))
    holding.go()
    await saving
    following, end = await gate.next()
    assert following.done == {"a", "b"}
    end.set_result(result())
    await world.ended(run_id)


async def test_rule_06_a_busy_run_holds_up_nobody_but_itself(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.function("other", in_turn("a", "b"))
    await world.engine()
    run_id = await world.begin("order")
    _, answer = await gate.next()
    async with world.locked(run_id):
        answer.set_result(result())
        for _ in range(3):
            assert (await world.ended(await world.begin("other")))["status"] == "completed"
        assert (await world.run(run_id))["ended_at"] is None
    assert (await world.ended(run_id))["status"] == "completed"
    assert len(world.apps.of(run_id)) == 1


async def test_rule_06_a_lost_answer_is_journalled_and_changes_nothing(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    _, answer = await gate.next()
    await world.cancel(run_id)
    before = await world.run(run_id)
    answer.set_result(ops(ran("a")))
    await world.until(lambda: world.told(run_id, "late"))
    assert await world.run(run_id) == before
    assert await world.steps(run_id) == {}


async def test_rule_06_two_runs_wait_for_one_signal_and_only_the_second_fails(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    runs = [await world.begin("order"), await world.begin("order"), await world.begin("order")]
    answers = {call.run_id: answer for call, answer in [await gate.next() for _ in runs]}
    stop = world.stop_at("commit.before")
    bystander = runs[2]
    for run_id in runs[:2]:
        answers[run_id].set_result(
            ops({"op": "WaitForSignal", "id": "s", "name": "go", "opts": {"signal": "go", "timeout": "1h"}})
        )
    answers[bystander].set_result(result())
    await stop.reached()
    stop.go()
    await world.ended(bystander)
    rows = await world.until(
        lambda: world.rows("select * from runs where id = any($1) and ended_at is not null", runs[:2])
    )
    assert [row["error_message"] for row in rows] == ["Signal conflict; signal wait already exists for another run"]
    assert await world.column("select run_id from pauses where signal = 'go'") == [
        r for r in runs[:2] if r != rows[0]["id"]
    ]


async def test_rule_06_a_waiter_that_replaces_another_takes_the_signal_over(world: World) -> None:
    def waits(conflict: str) -> Answer:
        opts = {"signal": "go", "timeout": "1h", "conflict": conflict}
        return ops({"op": "WaitForSignal", "id": "s", "name": "go", "opts": opts})

    await world.function("first", lambda _call: waits("fail"))
    await world.function("second", lambda _call: waits("replace"))
    await world.engine()
    first = await world.begin("first")
    await world.quiet(first)
    second = await world.begin("second")
    await world.quiet(second)
    assert await world.column("select run_id from pauses where signal = 'go'") == [second]
    assert (await world.run(first))["ended_at"] is None


async def test_rule_06_a_wait_whose_expression_does_not_compile_fails_its_run_alone(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    runs = [await world.begin("order"), await world.begin("order")]
    answers = {call.run_id: answer for call, answer in [await gate.next() for _ in runs]}
    wrong = {
        "op": "WaitForEvent",
        "id": "w",
        "name": "x",
        "opts": {"event": "x", "timeout": "1h", "if": "async.data. =="},
    }
    answers[runs[0]].set_result(ops(wrong))
    answers[runs[1]].set_result(result())
    failed = await world.ended(runs[0])
    assert (failed["status"], failed["error_name"]) == ("failed", "InvalidExpression")
    assert (await world.ended(runs[1]))["status"] == "completed"
