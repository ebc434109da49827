"""Changes by people while work waits: what the queue does from then on, until when, and what is told of it."""

import json
from datetime import timedelta
from typing import Any

import pytest

from app.adapters.http import Answer
from app.domain.ids import FunctionId, RunId
from app.domain.settings import Backoff
from app.engine import overrides
from app.engine.overrides import LimitChange, OverrideRefused, Who
from app.reads.explain import explain_run
from app.store.audit import Actor
from app.store.db import open_page_pool, tenant
from tests.integration.engine.world import Call, Gate, World, failure, in_turn, result

ANN = Who(Actor("ann@example.com"), "too many")
HOUR = timedelta(hours=1)
_LANES = "select (id, flow_key_ids, limit_ids, is_gated, is_ranked)::text from lanes"


def fn(world: World, slug: str = "order") -> FunctionId:
    return FunctionId(world.function_id(slug))


async def why(world: World, run_id: RunId) -> list[dict[str, Any]]:
    pages = await open_page_pool(world.url, size=1)
    try:
        async with tenant(pages, world.mine.account_id) as connection:
            found = await explain_run(connection, world.mine, run_id)
    finally:
        await pages.close()
    assert found is not None
    reasons: list[dict[str, Any]] = found["reasons"]
    return reasons


async def finish(world: World, count: int) -> None:
    await world.until(
        lambda: world.value("select count(*) from runs where ended_at is not null"), lambda n: bool(n >= count)
    )


async def told(world: World) -> list[tuple[str, str, str]]:
    return [
        (row["action"], row["actor"], json.loads(row["detail"])["setting"])
        for row in await world.owner.fetch("select action, actor, detail from audit_log order by at")
    ]


@pytest.fixture(autouse=True)
async def nothing_told(world: World) -> None:
    """The audit log outlives worlds."""
    await world.owner.execute("truncate audit_log")


async def test_a_raised_limit_lets_waiting_work_go_and_its_end_holds_it_again(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, concurrency={"limit": 1, "key": "event.data.user"})
    engine = await world.engine()
    await world.send_many([("order/sent", {"user": "a"}) for _ in range(5)])
    held = [await gate.next()]
    done = await overrides.change_limit(world.pool, world.mine, fn(world), "concurrency", LimitChange(3), HOUR, ANN)
    engine.wake(list(done.lanes))
    held += [await gate.next(), await gate.next()]
    for was_over in (False, True):
        ended = await overrides.end(world.pool, world.mine, fn(world), done.id, ANN)
        assert ended is not None
        assert ended.was_over == was_over
    held[0][1].set_result(result())
    held[1][1].set_result(result())
    await finish(world, 2)
    assert await world.value("select count(*) from slots") == 1
    held[2][1].set_result(result())
    for _ in range(2):
        (await gate.next())[1].set_result(result())
    await finish(world, 5)
    assert await told(world) == [
        ("override.set", "ann@example.com", "3 at once"),
        ("override.ended", "ann@example.com", "3 at once"),
    ]


async def test_a_sync_does_not_undo_a_change_and_a_limit_of_the_code_is_kept_beside_it(world: World) -> None:
    await world.function("order", in_turn(), concurrency=5)
    await overrides.change_limit(world.pool, world.mine, fn(world), "concurrency", LimitChange(0), HOUR, ANN)
    await world.function("order", in_turn(), concurrency=7)
    assert tuple(await world.row("select cap, own_cap from flow_limits")) == (7, 0)
    await world.engine()
    run_id = await world.begin("order")
    found = await world.until(lambda: _reason(world, run_id, "concurrency"))
    assert (found["limit"], found["is_changed_by_people"]) == (0, True)
    assert found["changed_until"]
    await world.owner.execute("update overrides set until = clock()")
    await world.owner.execute("update flow_limits set own_until = clock()")
    await finish(world, 1)
    await world.until(lambda: told(world), lambda lines: len(lines) == 2)
    assert (await told(world))[1] == ("override.ended", "Stepwell", "held")


async def _reason(world: World, run_id: RunId, kind: str) -> dict[str, Any] | None:
    return next((r for r in await why(world, run_id) if r["kind"] == kind), None)


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"priority": {"run": "1"}},
        {"throttle": {"limit": 1000, "period": "1s", "burst": 9}},
        {"concurrency": {"fn": [{"limit": 9}]}},
    ],
)
async def test_a_function_without_a_limit_of_calls_gets_one_for_a_time(world: World, rule: dict[str, Any]) -> None:
    gate = Gate()
    await world.function("order", gate, **rule)
    engine = await world.engine(starts=False)
    before = set(await world.column(_LANES))
    await world.send_many([("order/sent", {"n": n}) for n in range(2)])
    await engine.react.round(0)
    done = await overrides.change_limit(world.pool, world.mine, fn(world), "concurrency", LimitChange(1), HOUR, ANN)
    await engine.start()
    held = [await gate.next()]
    await world.send_many([("order/sent", {"n": n}) for n in range(2, 4)])
    await world.until(lambda: world.value("select count(*) = 4 from items"))
    (last,) = await world.column("select run_id from items where lease_id is null order by due_at desc limit 1")
    # A sync neither undoes it nor is undone by it.
    await world.function("order", gate, retries=1, **rule)
    found = await world.until(lambda: _reason(world, RunId(last), "concurrency"))
    assert (found["limit"], found["is_changed_by_people"]) == (1, True)
    held[0][1].set_result(result())
    held.append(await gate.next())
    taken = "select count(*) from slots s join lanes l on s.flow_key_id = any(l.flow_key_ids) where l.key = '' and s.lease_id <> s.run_id"
    assert (gate.waiting, await world.value(taken)) == (0, 1)
    ended = await overrides.end(world.pool, world.mine, fn(world), done.id, ANN)
    assert ended is not None
    engine.wake(list(ended.lanes))
    held += [await gate.next(), await gate.next()]
    for _, answer in held[1:]:
        answer.set_result(result())
    await finish(world, 4)
    assert await world.value("select count(*) from flow_limits where kind = 'calls'") == 0
    assert before <= set(await world.column(_LANES))
    assert [action for action, *_ in await told(world)] == ["override.set", "override.ended"]


async def test_a_limit_that_only_people_had_set_is_over_in_time_and_gone_with_the_keeper(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await overrides.change_limit(world.pool, world.mine, fn(world), "concurrency", LimitChange(0), HOUR, ANN)
    engine = await world.engine()
    run_id = await world.begin("order")
    found = await world.until(lambda: _reason(world, run_id, "concurrency"))
    assert (found["limit"], gate.waiting) == (0, 0)
    # Its time is up, and no keeper has come yet.
    await world.owner.execute("update flow_limits set own_until = clock()")
    await world.owner.execute("update lanes set next_due = clock(), blocked_until = null where is_gated")
    engine.wake()
    (await gate.next())[1].set_result(result())
    await world.ended(run_id)
    await world.owner.execute("update overrides set until = clock()")
    await engine.keep_once()
    assert await world.value("select count(*) from flow_limits") == 0
    assert await world.value("select count(*) from lanes where is_gated") == 0
    again = await world.begin("order")
    (await gate.next())[1].set_result(result())
    await world.ended(again)


async def test_a_limit_that_comes_with_a_sync_takes_the_place_of_one_that_people_had_set(world: World) -> None:
    await world.function("order", in_turn())
    done = await overrides.change_limit(world.pool, world.mine, fn(world), "concurrency", LimitChange(2), HOUR, ANN)
    await world.function("order", in_turn(), concurrency=7)
    assert [tuple(row) for row in await world.rows("select cap, own_cap from flow_limits")] == [(7, 2)]
    assert await overrides.end(world.pool, world.mine, fn(world), done.id, ANN)
    assert [tuple(row) for row in await world.rows("select cap, own_cap from flow_limits")] == [(7, None)]


async def test_a_lowered_limit_is_obeyed_by_runs_under_way(world: World) -> None:
    gate = Gate()

    async def answer(call: Call) -> Answer:
        return await gate(call)

    await world.function("order", answer, concurrency=2)
    await world.engine()
    await world.send_many([("order/sent", {}) for _ in range(2)])
    held = [await gate.next(), await gate.next()]
    await overrides.change_limit(world.pool, world.mine, fn(world), "concurrency", LimitChange(1), HOUR, ANN)
    for _, done in held:
        done.set_result(in_turn("a", "b")(held[0][0]))  # type: ignore[arg-type]
    for _ in range(4):
        call, done = await gate.next()
        assert gate.waiting == 0
        assert await world.value("select count(*) from slots") == 1
        done.set_result(in_turn("a", "b")(call))  # type: ignore[arg-type]
    await finish(world, 2)


async def test_a_held_key_holds_its_runs_and_no_others(world: World) -> None:
    await world.function("order", in_turn("a"), concurrency={"limit": 5, "key": "event.data.user"})
    done = await overrides.change_key(world.pool, world.mine, fn(world), "concurrency", "anna", 0, HOUR, ANN)
    engine = await world.engine()
    waiting = await world.begin("order", {"user": "anna"})
    await world.ended(await world.begin("order", {"user": "bert"}))
    found = await world.until(lambda: _reason(world, waiting, "concurrency"))
    assert (found["key"], found["limit"], found["is_changed_by_people"]) == ("anna", 0, True)
    assert found["at"] == found["changed_until"] is not None
    ended = await overrides.end(world.pool, world.mine, fn(world), done.id, ANN)
    assert ended is not None
    engine.wake(list(ended.lanes))
    await world.ended(waiting)


async def test_a_run_under_way_stops_at_the_next_step_when_its_key_is_held(world: World) -> None:
    gate = Gate()

    async def answer(call: Call) -> Answer:
        return await gate(call) if not call.steps else result()

    await world.function("order", answer, concurrency={"limit": 5, "key": "event.data.user"})
    await world.engine()
    run_id = await world.begin("order", {"user": "anna"})
    call, reply = await gate.next()
    await overrides.change_key(world.pool, world.mine, fn(world), "concurrency", "anna", 0, HOUR, ANN)
    reply.set_result(in_turn("a")(call))  # type: ignore[arg-type]
    await world.until(lambda: _reason(world, run_id, "concurrency"))
    assert len(world.apps.calls) == 1
    await world.owner.execute("update overrides set until = clock()")
    await world.owner.execute("update flow_keys set cap_until = clock() where cap = 0")
    await world.ended(run_id)


async def test_a_throttle_can_be_slowed_quickened_and_held_for_a_key(world: World) -> None:
    rule = {"limit": 1, "period": "1h", "key": "event.data.user"}
    await world.function("order", in_turn(), throttle=rule)
    engine = await world.engine()
    await world.send_many([("order/sent", {"user": "anna"}) for _ in range(4)])
    await finish(world, 1)
    change = LimitChange(1000, timedelta(seconds=1), burst=10)
    done = await overrides.change_limit(world.pool, world.mine, fn(world), "throttle", change, HOUR, ANN)
    await world.owner.execute("update flow_keys set tat = clock()")
    engine.wake(list(done.lanes))
    await finish(world, 4)
    await overrides.change_key(world.pool, world.mine, fn(world), "throttle", "anna", 0, HOUR, ANN)
    waiting = await world.begin("order", {"user": "anna"})
    await world.ended(await world.begin("order", {"user": "bert"}))
    found = await world.until(lambda: _reason(world, waiting, "throttle"))
    assert (found["limit"], found["is_changed_by_people"]) == (0, True)
    assert found["at"] == found["changed_until"]
    assert [setting for _, _, setting in await told(world)] == ["1000 starts per 1 s, 10 more at once", "held"]


async def test_a_held_function_makes_runs_that_wait_in_their_order(world: World) -> None:
    await world.function("order", in_turn("a"))
    await overrides.hold_function(world.pool, world.mine, fn(world), HOUR, ANN)
    engine = await world.engine()
    runs = [await world.begin("order", {"n": n}) for n in range(3)]
    await world.until(lambda: world.value("select count(*) = 3 from items where held_due is not null"))
    (reason,) = await why(world, runs[0])
    assert (reason["kind"], reason["at"] is not None) == ("held", True)
    assert world.apps.calls == []
    await world.owner.execute("update overrides set until = clock()")
    await world.owner.execute("update functions set held_until = clock()")
    await engine.keep_once()
    await finish(world, 3)
    firsts = [c.body["event"]["data"]["n"] for c in world.apps.calls if not c.steps]
    assert sorted(firsts) == [0, 1, 2]
    assert await world.value("select count(*) from items where held_due is not null") == 0
    assert (await told(world))[-1] == ("override.ended", "Stepwell", "held")


async def test_the_end_of_a_hold_does_not_resume_a_paused_function(world: World) -> None:
    await world.function("order", in_turn("a"))
    done = await overrides.hold_function(world.pool, world.mine, fn(world), HOUR, ANN)
    await world.engine()
    run_id = await world.begin("order")
    await world.until(lambda: world.value("select count(*) = 1 from items where held_due is not null"))
    await world.owner.execute("update functions set paused_at = clock()")
    await overrides.end(world.pool, world.mine, fn(world), done.id, ANN)
    assert await world.value("select count(*) from items where held_due is not null") == 1
    (reason,) = await why(world, run_id)
    assert (reason["kind"], reason["at"]) == ("paused", None)


async def test_a_retry_policy_of_people_wins_over_the_code_and_the_code_over_the_table(world: World) -> None:
    steps = {"initial": "2m", "factor": 3, "cap": "1h"}
    await world.function("order", lambda _c: failure(), retries=5)
    configs = world._configs[world.mine.environment_id]
    configs[-1]["steps"]["step"]["retries"]["backoff"] = steps
    await world.function("other", in_turn())
    await world.engine(retry_delay=None)
    first = await world.begin("order")
    assert await _wait(world, first, 1) == pytest.approx(120, abs=15)
    await _again(world, first)
    assert await _wait(world, first, 2) == pytest.approx(360, abs=37)
    policy = Backoff(timedelta(seconds=1000), 1.5, timedelta(hours=2))
    done = await overrides.change_retry(world.pool, world.mine, fn(world), policy, ANN)
    await _again(world, first)
    assert await _wait(world, first, 3) == pytest.approx(2250, abs=230)
    await overrides.end(world.pool, world.mine, fn(world), done.id, ANN)
    await _again(world, first)
    assert await _wait(world, first, 4) == pytest.approx(3240, abs=330)


async def _wait(world: World, run_id: RunId, attempt: int) -> float:
    """Seconds until the retry, once it is there."""
    found = await world.until(
        lambda: world.row(
            "select extract(epoch from due_at - clock())::float as s from items where run_id = $1 and attempt = $2"
            " and lease_id is null and due_at > clock()",
            run_id,
            attempt,
        )
    )
    return float(found["s"])


async def _again(world: World, run_id: RunId) -> None:
    await world.make_due(run_id, "discover")


async def test_a_newer_change_of_the_same_thing_ends_the_older_one(world: World) -> None:
    await world.function("order", in_turn(), concurrency=5)
    for limit in (3, 4):
        await overrides.change_limit(world.pool, world.mine, fn(world), "concurrency", LimitChange(limit), HOUR, ANN)
    assert await world.column("select setting from overrides where ended_at is null") == ["4 at once"]
    assert await world.value("select own_cap from flow_limits") == 4


@pytest.mark.parametrize(
    ("name", "change", "last", "code"),
    [
        ("concurrency", LimitChange(-1), HOUR, "override_invalid"),
        ("concurrency", LimitChange(10**7), HOUR, "override_invalid"),
        ("concurrency", LimitChange(1), timedelta(seconds=1), "override_invalid"),
        ("concurrency", LimitChange(1), timedelta(days=31), "override_invalid"),
        ("throttle", LimitChange(0, HOUR), HOUR, "override_invalid"),
        ("throttle", LimitChange(1), HOUR, "override_invalid"),
        ("throttle", LimitChange(1, timedelta(days=8)), HOUR, "override_invalid"),
        ("throttle", LimitChange(1, HOUR, -1), HOUR, "override_invalid"),
        ("runs", LimitChange(1), HOUR, "limit_unknown"),
        ("", LimitChange(1), HOUR, "limit_unknown"),
    ],
)
async def test_a_change_that_cannot_be_made_is_refused_and_leaves_nothing(
    world: World, name: str, change: LimitChange, last: timedelta, code: str
) -> None:
    await world.function("order", in_turn(), concurrency=5, throttle={"limit": 1, "period": "1h"})
    await world.function("free", in_turn())
    with pytest.raises(OverrideRefused) as caught:
        await overrides.change_limit(world.pool, world.mine, fn(world), name, change, last, ANN)
    assert caught.value.code == code
    assert await world.value("select count(*) from overrides") == 0
    assert await told(world) == []


async def test_nobody_changes_what_belongs_to_another_tenant(world: World) -> None:
    await world.function("order", in_turn(), concurrency=5)
    with pytest.raises(OverrideRefused) as caught:
        await overrides.hold_function(world.pool, world.theirs, fn(world), HOUR, ANN)
    assert caught.value.code == "function_unknown"


async def test_a_key_of_one_environment_does_not_hold_what_others_share(world: World) -> None:
    await world.function("order", in_turn(), concurrency={"limit": 5, "key": "'all'", "scope": "account"})
    program = Who(Actor("API"), is_program=True)
    with pytest.raises(OverrideRefused) as caught:
        await overrides.change_key(world.pool, world.mine, fn(world), "concurrency", "all", 0, HOUR, program)
    assert caught.value.code == "key_shared"
    await overrides.change_key(world.pool, world.mine, fn(world), "concurrency", "all", 0, HOUR, ANN)
