"""Rule 10: leases of workers that die, freeze, forget, or come back (F2, F4, F17)."""

import asyncio

import asyncpg
import pytest

from app import telemetry
from app.domain.ids import WorkerId
from app.engine.engine import Engine
from tests.integration.engine.world import Gate, World, in_turn, ops, ran, result


async def test_rule_10_the_late_answer_of_a_frozen_worker_changes_nothing(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    frozen = await world.engine()
    run_id = await world.begin("order")
    _, late = await gate.next()
    await world.expire(frozen)
    second = await world.engine()
    await second.keep_once()
    _, answer = await gate.next()
    answer.set_result(ops(ran("a", "new")))
    _, end = await gate.next()
    late.set_result(ops(ran("a", "old"), ran("b", "old")))
    await world.until(lambda: world.told(run_id, "late"))
    end.set_result(result())
    row = await world.ended(run_id)
    assert row["status"] == "completed"
    assert await world.column("select memo from steps where run_id = $1", run_id) == ['{"data":"new"}']


async def test_rule_10_a_commit_under_way_while_its_lease_is_taken_loses(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    frozen = await world.engine()
    run_id = await world.begin("order")
    _, answer = await gate.next()
    stop = world.stop_at("commit.before", run_id)
    answer.set_result(ops(ran("a", "frozen")))
    await stop.reached()
    await world.expire(frozen)
    second = await world.engine()
    await second.keep_once()
    _, again = await gate.next()
    stop.go()
    await world.until(lambda: world.told(run_id, "late"))
    again.set_result(result("second"))
    await world.ended(run_id)
    assert await world.steps(run_id) == {}


async def test_rule_10_the_rescuer_does_not_take_a_worker_that_just_renewed(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    engine = await world.engine()
    await world.begin("order")
    await gate.next()
    second = await world.engine()
    await second.keep_once()
    assert gate.waiting == 0
    assert await world.column("select distinct worker_id from items") == [engine.worker_id]


@pytest.mark.parametrize(
    "error",
    [asyncpg.AdminShutdownError("the database restarts"), RuntimeError("a bug")],
    ids=lambda e: type(e).__name__,
)
async def test_rule_10_a_renewal_that_fails_in_whatever_way_is_tried_again(world: World, error: Exception) -> None:
    await world.engine(renew_s=0.02)
    stop = world.stop_at("heartbeat")
    await stop.reached()
    stop.go(error)
    beats_on = world.stop_at("heartbeat")
    await beats_on.reached()
    beats_on.go()


async def test_rule_10_a_worker_whose_renewal_touches_no_row_drops_everything_and_starts_anew(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    engine = await world.engine(renew_s=0.05)
    old = engine.worker_id
    run_id = await world.begin("order")
    await gate.next()
    stop = world.stop_at("commit.before")
    other = await world.begin("order")
    _, answer = await gate.next()
    answer.set_result(ops(ran("a")))
    await stop.reached()
    await world.expire(engine)
    await world.until(lambda: _now(engine.worker_id != old))
    assert engine.execute.in_flight == 0 or all(task.cancelling() for task in engine.execute._tasks)
    stop.go()
    await engine.keep_once()
    for _ in range(2):
        _, answer = await gate.next()
        answer.set_result(result())
    rows = await world.all_ended()
    assert {row["id"]: row["status"] for row in rows} == {run_id: "completed", other: "completed"}


async def test_rule_10_a_worker_whose_lease_may_have_run_out_takes_no_work(world: World) -> None:
    await world.function("order", in_turn("a"))
    thawed = await world.engine(lease_s=0.0)
    run_id = await world.begin("order")
    await thawed._round()
    assert await world.column("select worker_id from items where run_id = $1", run_id) == [None]
    await world.engine()
    assert (await world.ended(run_id))["status"] == "completed"


async def test_rule_10_a_worker_takes_no_work_under_a_new_id_before_that_is_on_the_list(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.function("order", in_turn("a"))
    engine = await world.engine(renew_s=0.02)
    old, register = engine.worker_id, Engine._register
    is_asked, may_go = asyncio.Event(), asyncio.Event()

    async def late(self: Engine, *ids: WorkerId) -> float:
        is_asked.set()
        await may_go.wait()
        return await register(self, *ids)

    monkeypatch.setattr(Engine, "_register", late)
    await world.owner.execute("delete from workers")
    await is_asked.wait()
    run_id = await world.begin("order")
    await engine._round()
    # A round that was under way may have leased it under the old id still.
    assert set(await world.column("select worker_id from items where run_id = $1", run_id)) <= {None, old}
    may_go.set()
    assert (await world.ended(run_id))["status"] == "completed"


async def _now(value: object) -> object:
    return value


async def test_rule_10_what_waits_for_a_commit_is_dropped_with_the_leases(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    engine = await world.engine()
    runs = [await world.begin("order") for _ in range(3)]
    held = [await gate.next() for _ in runs]
    writing = [world.stop_at("commit.before"), world.stop_at("commit.before")]
    for (_, answer), stop in zip(held, writing, strict=False):
        answer.set_result(result("old"))
        await stop.reached()
    arrived = world.stop_at("call.after")
    held[2][1].set_result(result("old"))
    await arrived.reached()
    arrived.go()
    await world.until(lambda: _now(len(engine.committer._queue) == 1))
    engine.execute.forget_all()
    engine.committer.forget_all()
    await world.expire(engine)
    second = await world.engine()
    await second.keep_once()
    for stop in writing:
        stop.go()
    for _ in runs:
        _, answer = await gate.next()
        answer.set_result(result("new"))
    await world.all_ended()
    results = await world.column("select detail::json ->> 'output' from history where kind = 'run.completed'")
    assert results == ["new"] * 3


async def test_rule_10_an_item_of_a_worker_on_no_list_is_rescued(world: World) -> None:
    await world.function("order", in_turn("a"))
    gone = await world.engine()
    stop = world.stop_at("react.committed")
    await world.send("order/sent")
    (run_id,) = await stop.reached()
    await world.owner.execute("delete from workers where id = $1", gone.worker_id)
    world.engines.remove(gone)
    for task in gone._tasks:
        task.cancel()
    second = await world.engine()
    await second.keep_once()
    assert (await world.ended(run_id))["status"] == "completed"


async def test_rule_10_an_item_that_a_living_worker_forgot_is_given_back(world: World) -> None:
    await world.function("order", in_turn("a"))
    engine = await world.engine(forgotten_s=0.0)
    # Its own keepers would give the item back before it was looked at, now and then.
    next(task for task in engine._tasks if task.get_name() == "keepers").cancel()
    stop = world.stop_at("call.before")
    run_id = await world.begin("order")
    await stop.reached()
    stop.go(RuntimeError("a bug in the driver"))
    await world.until(lambda: _now(engine.execute.in_flight == 0))
    assert await world.value("select worker_id from items") == engine.worker_id
    await engine.keep_once()
    assert (await world.ended(run_id))["status"] == "completed"
    assert len(world.apps.of(run_id)) == 2


async def test_rule_10_an_item_in_hand_is_never_given_back(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    engine = await world.engine(forgotten_s=0.0)
    run_id = await world.begin("order")
    _, answer = await gate.next()
    await engine.keep_once()
    stop = world.stop_at("commit.before", run_id)
    answer.set_result(ops(ran("a")))
    await stop.reached()
    await engine.keep_once()
    stop.go()
    _, answer = await gate.next()
    await engine.keep_once()
    answer.set_result(result())
    await world.ended(run_id)
    assert len(world.apps.of(run_id)) == 2


async def test_rule_10_work_that_takes_three_workers_down_is_set_aside_and_its_run_fails(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    run_id = None
    for _ in range(3):
        engine = await world.engine()
        await engine.keep_once()
        run_id = run_id or await world.begin("order")
        await gate.next()
        await world.kill(engine)
    last = await world.engine()
    await last.keep_once()
    assert run_id is not None
    row = await world.ended(run_id)
    assert (row["status"], row["error_code"]) == ("failed", "poison_work")
    assert {call.attempt for call in world.apps.of(run_id)} == {0}
    counted = {tuple(value[:-1]): value[-1] for value in telemetry.snapshot()["values"]}
    assert counted[("stepwell_poison_work_total",)] >= 1


async def test_rule_10_a_stop_hands_back_and_counts_nothing(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    engine = await world.engine()
    run_id = await world.begin("order")
    await gate.next()
    world.engines.remove(engine)
    await engine.stop(grace_s=0.05)
    row = await world.row("select * from items where run_id = $1", run_id)
    assert (row["worker_id"], row["attempt"], row["redeliveries"]) == (None, 0, 0)
    assert await world.value("select count(*) from workers") == 0
    await world.engine()
    _, answer = await gate.next()
    answer.set_result(result())
    await world.ended(run_id)


async def test_rule_10_a_stop_lets_a_call_in_flight_end_and_leaves_the_rest_to_others(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    engine = await world.engine()
    run_id = await world.begin("order")
    _, answer = await gate.next()
    world.engines.remove(engine)
    stopping = asyncio.create_task(engine.stop(grace_s=5))
    await world.until(lambda: _now(engine.execute.is_stopping))
    answer.set_result(ops(ran("a")))
    await stopping
    assert await world.steps(run_id) == {"a": "completed"}
    await world.engine()
    call, answer = await gate.next()
    assert call.done == {"a"}
    answer.set_result(result())
    await world.ended(run_id)
