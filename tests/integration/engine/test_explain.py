"""Why a run is not moving, in situations built for real: what is said names what holds the run."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.adapters.http import Answer
from app.domain.ids import RunId, to_ulid
from app.reads.explain import explain_run
from app.store.db import Pool, open_page_pool, tenant
from tests.integration.engine.world import Call, Gate, World, failure, invokes, ops, result, signals, sleeps, waits
from tests.integration.engine.world import planned as plan


@pytest.fixture
async def pages(world: World) -> AsyncIterator[Pool]:
    """Give the pool of the pages, under row-level security."""
    pool = await open_page_pool(world.url, size=2)
    yield pool
    await pool.close()


async def explained(world: World, pages: Pool, run_id: RunId) -> dict[str, Any]:
    async with tenant(pages, world.mine.account_id) as connection:
        found = await explain_run(connection, world.mine, run_id)
    assert found is not None
    return found


async def reason(world: World, pages: Pool, run_id: RunId, kind: str) -> dict[str, Any]:
    """The reason of a kind, once it is there."""

    async def look() -> dict[str, Any] | None:
        reasons = (await explained(world, pages, run_id))["reasons"]
        return next((r for r in reasons if r["kind"] == kind), None)

    found: dict[str, Any] = await world.until(look)
    return found


async def queue(world: World, slug: str, *data: object) -> list[RunId]:
    """Runs in the order of their events."""
    return [await world.begin(slug, each) for each in data]


async def test_a_run_that_is_over_says_how(world: World, pages: Pool) -> None:
    await world.function("order", lambda _c: result())
    await world.engine()
    run_id = await world.begin("order")
    await world.ended(run_id)
    found = await explained(world, pages, run_id)
    assert (found["status"], found["reasons"]) == ("completed", [])
    assert found["ended"]["at"]


async def test_a_skipped_run_names_the_run_in_its_way(world: World, pages: Pool) -> None:
    gate = Gate()
    await world.function("order", gate, singleton={"mode": "skip"})
    await world.engine()
    there, skipped = await queue(world, "order", {}, {})
    assert to_ulid(there) in (await explained(world, pages, skipped))["ended"]["message"]
    (await gate.next())[1].set_result(result())
    await world.all_ended()


async def test_a_call_in_flight_names_its_worker(world: World, pages: Pool) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine(name="worker-1")
    run_id = await world.begin("order")
    _, answer = await gate.next()
    found = await reason(world, pages, run_id, "calling")
    assert (found["worker"], found["attempt"]) == ("worker-1", 0)
    answer.set_result(result())
    await world.ended(run_id)


async def test_a_call_whose_worker_died_says_when_it_is_given_back(world: World, pages: Pool) -> None:
    gate = Gate()
    await world.function("order", gate)
    engine = await world.engine()
    run_id = await world.begin("order")
    await gate.next()
    await world.kill(engine)
    assert (await reason(world, pages, run_id, "worker_lost"))["at"]


async def test_without_a_worker_that_is_said_first(world: World, pages: Pool) -> None:
    await world.function("order", lambda _c: result())
    engine = await world.engine(starts=False)
    await world.send("order/sent")
    await engine.react.round(0)
    (run_id,) = await world.column("select id from runs")
    kinds = [r["kind"] for r in (await explained(world, pages, run_id))["reasons"]]
    assert kinds == ["no_worker", "queued"]


async def test_a_full_key_names_limit_holders_and_place(world: World, pages: Pool) -> None:
    gate = Gate()
    await world.function("order", gate, concurrency={"limit": 1, "key": "event.data.user"})
    await world.engine()
    runs = await queue(world, "order", *({"user": "anna"} for _ in range(3)))
    await gate.next()
    found = await reason(world, pages, runs[2], "concurrency")
    assert (found["key"], found["scope"], found["limit"], found["used"]) == ("anna", "function", 1, 1)
    assert [h["run_id"] for h in found["holders"]] == [to_ulid(runs[0])]
    assert found["place"] == 2
    assert found["at"] is None


async def test_a_shared_key_names_holders_of_other_functions(world: World, pages: Pool) -> None:
    gate = Gate()
    rule = {"limit": 1, "key": "'all'", "scope": "env"}
    await world.function("one", gate, concurrency=rule)
    await world.function("two", gate, concurrency=rule)
    await world.engine()
    await world.begin("one")
    await gate.next()
    (waiting,) = await queue(world, "two", {})
    found = await reason(world, pages, waiting, "concurrency")
    assert (found["scope"], found["holders"][0]["function"]) == ("environment", "one")


async def test_a_limit_of_runs_names_the_run_that_sleeps(world: World, pages: Pool) -> None:
    await world.function("order", lambda _c: ops(sleeps("nap")), concurrency={"fn": [{"limit": 1}]})
    await world.engine()
    first, second = await queue(world, "order", {}, {})
    await world.quiet(first, "sleeping")
    found = await reason(world, pages, second, "runs")
    assert [h["run_id"] for h in found["holders"]] == [to_ulid(first)]


async def test_a_throttle_says_the_earliest_time(world: World, pages: Pool) -> None:
    await world.function("order", lambda _c: result(), throttle={"limit": 2, "period": "2h"})
    await world.engine()
    first, second = await queue(world, "order", {}, {})
    await world.ended(first)
    found = await reason(world, pages, second, "throttle")
    now = datetime.fromisoformat((await explained(world, pages, second))["now"])
    assert timedelta(minutes=59) < datetime.fromisoformat(found["at"]) - now <= timedelta(hours=1)
    assert found["every_ms"] == 3_600_000


async def test_a_limit_that_people_changed_says_so(world: World, pages: Pool) -> None:
    await world.function("order", lambda _c: result(), concurrency=5)
    await world.owner.execute("update flow_keys set cap = 0")
    await world.engine()
    (run_id,) = await queue(world, "order", {})
    found = await reason(world, pages, run_id, "concurrency")
    assert (found["limit"], found["is_changed_by_people"]) == (0, True)


async def test_an_event_of_the_future_says_when_its_run_starts(world: World, pages: Pool) -> None:
    await world.function("order", lambda _c: result())
    engine = await world.engine(starts=False)
    await world.send("order/sent")
    await world.owner.execute("update events set ts = extract(epoch from clock() + interval '1 hour') * 1000")
    await engine.react.round(0)
    (run_id,) = await world.column("select id from runs")
    found = await reason(world, pages, run_id, "scheduled")
    assert found["because"] == "event_time"


async def test_a_run_held_back_by_the_backlog_says_so(world: World, pages: Pool) -> None:
    await world.owner.execute("update accounts set plan = 'free'")
    await world.function("order", lambda _c: result())
    engine = await world.engine(starts=False)
    await world.send("order/sent")
    engine.react.schedule._backlogs[world.mine.environment_id] = (await world.value("select clock()"), True)
    await engine.react.round(0)
    (run_id,) = await world.column("select id from runs")
    assert (await reason(world, pages, run_id, "scheduled"))["because"] == "backlog"


async def test_a_retry_says_its_attempt_and_when(world: World, pages: Pool) -> None:
    await world.function("order", lambda _c: failure("no", **{"retry-after": "3600"}))
    await world.engine()
    run_id = await world.begin("order")
    found = await reason(world, pages, run_id, "retry")
    assert found["attempt"] == 1
    assert found["at"]


async def test_a_sleep_says_its_step_and_its_end(world: World, pages: Pool) -> None:
    await world.function("order", lambda _c: ops(sleeps("nap", "2h")))
    await world.engine()
    run_id = await world.begin("order")
    found = await reason(world, pages, run_id, "sleep")
    assert found["step"] == "nap"
    assert found["at"]


async def test_a_wait_shows_its_expression_and_the_events_that_missed_it(world: World, pages: Pool) -> None:
    when = "event.data.order == async.data.order && async.data.ok == true"
    await world.function("order", lambda _c: ops(waits("paid", "paid", when=when)))
    await world.engine()
    run_id = await world.begin("order", {"order": "A7"})
    await world.quiet(run_id)
    await world.send("paid", {"order": "B8", "ok": True})
    await world.send("paid", {"order": "A7", "ok": False})
    await world.until(lambda: world.value("select not exists (select from inbox)"))
    found = await reason(world, pages, run_id, "wait_for_event")
    assert (found["event"], found["step"]) == ("paid", "paid")
    assert '"A7"' in found["expression"] or "'A7'" in found["expression"]
    whys = {m["why"] for m in found["near_misses"]}
    assert "async.data.order is B8, not A7" in whys
    assert len(found["near_misses"]) == 2
    assert found["at"]


async def test_a_wait_that_nothing_can_end_says_so(world: World, pages: Pool) -> None:
    when = "event.data.order == 'x' && async.data.ok == true"
    await world.function("order", lambda _c: ops(waits("paid", "paid", when=when)))
    await world.engine()
    run_id = await world.begin("order", {"order": "y"})
    await world.quiet(run_id)
    await world.send("paid", {"ok": True})
    await world.until(lambda: world.value("select not exists (select from inbox)"))
    found = await reason(world, pages, run_id, "wait_for_event")
    assert found["expression"] == "false"
    assert "nothing can match" in found["near_misses"][0]["why"]


async def test_a_signal_is_named(world: World, pages: Pool) -> None:
    await world.function("order", lambda _c: ops(signals("go", "green")))
    await world.engine()
    run_id = await world.begin("order")
    assert (await reason(world, pages, run_id, "wait_for_signal"))["signal"] == "green"


async def test_an_invoke_names_the_child_and_what_it_does(world: World, pages: Pool) -> None:
    gate = Gate()
    await world.function("child", gate)
    await world.function("order", lambda _c: ops(invokes("child", "child")))
    await world.engine()
    run_id = await world.begin("order")
    call, _ = await gate.next()
    found = await reason(world, pages, run_id, "invoke")
    assert found["child"]["run_id"] == to_ulid(call.run_id)
    assert found["child"]["function"] == "child"


async def test_an_invoke_whose_child_was_not_started_says_what_became_of_it(world: World, pages: Pool) -> None:
    await world.function("child", lambda _c: result(), debounce={"period": "1h"})
    await world.function("order", lambda _c: ops(invokes("child", "child")))
    await world.engine()
    run_id = await world.begin("order")
    await world.until(lambda: world.value("select exists (select from dispositions)"))
    found = await reason(world, pages, run_id, "invoke")
    assert found["child"] is None
    assert found["answer"]["outcome"] == "debounced"


async def test_every_branch_of_a_parallel_run_has_its_own_reason(world: World, pages: Pool) -> None:
    gate = Gate()

    async def answer(call: Call) -> Answer:
        return await gate(call) if call.target else ops(plan("a"), sleeps("nap"), waits("paid", "paid"))

    await world.function("order", answer)
    await world.engine()
    run_id = await world.begin("order")
    await gate.next()
    kinds = {r["kind"] for r in (await explained(world, pages, run_id))["reasons"]}
    assert kinds == {"calling", "sleep", "wait_for_event"}


async def test_a_function_that_was_paused_or_removed_is_marked(world: World, pages: Pool) -> None:
    await world.function("order", lambda _c: ops(sleeps("nap")))
    await world.engine()
    run_id = await world.begin("order")
    await world.quiet(run_id, "sleeping")
    await world.owner.execute("update functions set paused_at = clock(), archived_at = clock()")
    found = await explained(world, pages, run_id)
    assert (found["is_function_paused"], found["is_function_removed"]) == (True, True)


async def test_another_tenant_sees_nothing(world: World, pages: Pool) -> None:
    await world.function("order", lambda _c: ops(sleeps("nap")))
    await world.engine()
    run_id = await world.begin("order")
    async with tenant(pages, world.theirs.account_id) as connection:
        assert await explain_run(connection, world.theirs, run_id) is None
        assert await explain_run(connection, world.mine, run_id) is None


async def test_the_plans_limit_is_named_as_such(world: World, pages: Pool) -> None:
    await world.owner.execute("update accounts set plan = 'free'")
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    runs = await queue(world, "order", *({} for _ in range(6)))
    for _ in range(5):
        await gate.next()
    found = await reason(world, pages, runs[5], "concurrency")
    assert (found["key"], found["scope"], found["limit"], found["used"]) == ("the plan", "account", 5, 5)
    assert {h["run_id"] for h in found["holders"]} == {to_ulid(run_id) for run_id in runs[:5]}


async def test_of_two_limits_the_one_that_is_full_is_named(world: World, pages: Pool) -> None:
    gate = Gate()
    rules = [{"limit": 5}, {"limit": 1, "key": "event.data.user"}]
    await world.function("order", gate, concurrency=rules)
    await world.engine()
    _, waiting = await queue(world, "order", {"user": "anna"}, {"user": "anna"})
    await gate.next()
    found = await reason(world, pages, waiting, "concurrency")
    assert (found["key"], found["limit"], found["used"]) == ("anna", 1, 1)


async def test_a_paused_functions_run_says_paused_and_not_a_time(world: World, pages: Pool) -> None:
    await world.function("order", lambda _c: result())
    engine = await world.engine(starts=False)
    await world.send("order/sent")
    await engine.react.round(0)
    await world.owner.execute("update functions set paused_at = clock()")
    await world.owner.execute("update environments set catalogue_version = catalogue_version + 1")
    (run_id,) = await world.column("select id from runs")
    assert [(r["kind"], r["at"]) for r in (await explained(world, pages, run_id))["reasons"]] == [("paused", None)]
    await world.engine()  # one that has not seen the function before it was paused
    await world.until(lambda: world.value("select count(*) = 1 from items where held_due is not null"))
    assert [(r["kind"], r["at"]) for r in (await explained(world, pages, run_id))["reasons"]] == [("paused", None)]
