"""What an event gets for every function it touches: a run, or a recorded reason; on a real database."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

from app.adapters.http import Answer
from app.domain.event import NewEvent
from app.domain.ids import to_ulid
from tests.integration.engine.world import Call, Gate, World, in_turn, invokes, ops, result


async def outcomes(world: World, slug: str) -> list[tuple[str, str]]:
    """(outcome, detail) of a function's answers, in the order of its events."""
    rows = await world.rows(
        "select d.outcome, d.detail from dispositions d join events e on e.id = d.event_id"
        " where d.function_id = $1 order by e.received_at, e.id",
        world.function_id(slug),
    )
    return [(row["outcome"], row["detail"]) for row in rows]


async def reacted(world: World) -> None:
    """Every event has been reacted to."""
    await world.until(lambda: world.value("select not exists (select from inbox)"))


async def send_at(world: World, name: str, data: object, ts: int) -> UUID:
    """Send an event with a `ts` of its own."""
    return (await world.ingest.add(world.mine, [NewEvent(name, json.dumps(data).encode(), ts)]))[0]


async def time_is_up(world: World) -> None:
    """The timers of all gates come due."""
    await world.owner.execute("update gates set due_at = clock() where due_at is not null")
    world.wake()


async def statuses(world: World, slug: str) -> list[str]:
    found: list[str] = await world.column(
        "select status from runs where function_id = $1 order by id", world.function_id(slug)
    )
    return found


async def test_a_paused_function_gets_skipped_runs_and_goes_on_when_it_is_not_paused(world: World) -> None:
    await world.function("order", in_turn("a"))
    await world.owner.execute("update functions set paused_at = clock()")
    await world.owner.execute("update environments set catalogue_version = catalogue_version + 1")
    await world.engine()
    await world.send("order/sent", client_id="same")
    await reacted(world)
    assert await statuses(world, "order") == ["skipped"]
    assert [o for o, _ in await outcomes(world, "order")] == ["paused"]
    assert world.apps.calls == []
    await world.owner.execute("update functions set paused_at = null")
    await world.owner.execute("update environments set catalogue_version = catalogue_version + 1")
    await world.send("order/sent", client_id="same")
    await world.all_ended()
    assert await statuses(world, "order") == ["skipped", "completed"]


async def test_an_event_over_the_rate_limit_is_answered_and_makes_no_run(world: World) -> None:
    await world.function("order", result_at_once, rateLimit={"limit": 1, "period": "1h", "key": "event.data.user"})
    await world.engine()
    await world.send_many([("order/sent", {"user": user}) for user in ("a", "a", "b", "a")])
    await world.all_ended()
    assert len(await statuses(world, "order")) == 2
    found = await outcomes(world, "order")
    assert [o for o, _ in found] == ["rate_limited", "rate_limited"]
    assert "key 'a', again from" in found[0][1]


async def test_an_invoke_that_is_rate_limited_gets_an_error(world: World) -> None:
    def parent(call: Call) -> Answer:
        return result() if "child" in call.steps else ops(invokes("child", "child"))

    await world.function("child", result_at_once, rateLimit={"limit": 1, "period": "1h"})
    await world.function("order", parent)
    await world.engine()
    await world.ended(await world.begin("child"))
    run_id = await world.begin("order")
    assert (await world.ended(run_id))["status"] == "completed"
    assert world.apps.of(run_id)[-1].steps["child"]["error"]["message"] == "invoked function is rate limited"


async def test_the_second_event_with_an_id_is_a_duplicate_before_any_other_gate(world: World) -> None:
    await world.function("order", result_at_once, rateLimit={"limit": 1, "period": "1h"})
    await world.function("plain", result_at_once, event="order/sent")
    await world.engine()
    await world.send("order/sent", client_id="x")
    await world.send("order/sent", client_id="x")
    await world.send("order/sent", client_id="y")
    await world.all_ended()
    assert [o for o, _ in await outcomes(world, "order")] == ["duplicate", "rate_limited"]
    assert [o for o, _ in await outcomes(world, "plain")] == ["duplicate"]


async def test_an_idempotency_key_lets_one_run_through(world: World) -> None:
    await world.function("order", result_at_once, idempotency="event.data.order")
    await world.engine()
    await world.send_many([("order/sent", {"order": n}) for n in (1, 1, 2, 1)])
    await world.all_ended()
    assert len(await statuses(world, "order")) == 2
    assert [o for o, _ in await outcomes(world, "order")] == ["duplicate", "duplicate"]


async def test_a_crash_before_the_commit_counts_nothing(world: World) -> None:
    await world.function("order", result_at_once, rateLimit={"limit": 1, "period": "1h"})
    engine = await world.engine(starts=False)
    stop = world.stop_at("react.claimed")
    await world.send("order/sent")
    first = asyncio.create_task(engine.react.round(0))
    await stop.reached()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await world.engine()
    await world.all_ended()
    assert await statuses(world, "order") == ["completed"]
    assert await outcomes(world, "order") == []


async def test_a_singleton_that_skips_links_the_skipped_run_to_the_one_that_is_there(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, singleton={"mode": "skip", "key": "event.data.user"})
    await world.engine()
    there = await world.begin("order", {"user": "a"})
    _, answer = await gate.next()
    await world.send("order/sent", {"user": "a"})
    await world.until(lambda: world.value("select count(*) = 2 from runs"))
    skipped = await world.row("select * from runs where status = 'skipped'")
    assert skipped["error_code"] == "singleton"
    assert to_ulid(there) in skipped["error_message"]
    answer.set_result(result())
    await world.ended(there)
    again = await world.begin("order", {"user": "a"})
    _, answer = await gate.next()
    answer.set_result(result())
    assert (await world.ended(again))["status"] == "completed"
    assert [o for o, _ in await outcomes(world, "order")] == ["singleton"]


async def test_a_singleton_that_cancels_leaves_one_run_at_a_time(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, singleton={"mode": "cancel"})
    await world.engine()
    first = await world.begin("order")
    await gate.next()
    second = await world.begin("order")
    _, answer = await gate.next()
    row = await world.ended(first)
    assert (row["status"], row["error_code"]) == ("cancelled", "singleton")
    answer.set_result(result())
    assert (await world.ended(second))["status"] == "completed"


async def test_a_burst_for_a_cancelling_singleton_runs_its_last_event(world: World) -> None:
    await world.function("order", result_at_once, singleton={"mode": "cancel"})
    engine = await world.engine(starts=False)
    for n in range(5):
        await world.send("order/sent", {"n": n})
    await engine.react.round(0)
    assert sorted(await statuses(world, "order")) == ["queued", *["skipped"] * 4]
    await engine.start()
    await world.all_ended()
    assert [call.body["event"]["data"]["n"] for call in world.apps.calls] == [4]


async def test_a_batch_starts_one_run_with_all_its_events_when_it_is_full(world: World) -> None:
    await world.function("order", result_at_once, batchEvents={"maxSize": 3, "timeout": "60s", "key": "event.data.k"})
    await world.engine()
    await world.send_many([("order/sent", {"k": k, "n": n}) for n, k in enumerate("aabab")])
    await world.until(lambda: world.value("select exists (select from runs where ended_at is not null)"))
    (call,) = world.apps.calls
    assert [e["data"]["n"] for e in call.body["events"]] == [0, 1, 3]
    assert call.body["event"]["data"]["n"] == 0
    run = await world.run(call.run_id)
    assert run["batch_size"] == 3
    rows = await world.rows("select run_id from dispositions where outcome = 'batched' and run_id = $1", call.run_id)
    assert len(rows) == 3
    await time_is_up(world)
    await world.until(lambda: world.value("select count(*) = 2 from runs where ended_at is not null"))
    assert [e["data"]["n"] for e in world.apps.calls[1].body["events"]] == [2, 4]
    finished = await world.value("select payload from events where name = 'inngest/function.finished' limit 1")
    assert len(json.loads(finished)["data"]["events"]) >= 2


async def test_an_event_its_batch_does_not_want_runs_at_once(world: World) -> None:
    await world.function(
        "order", result_at_once, batchEvents={"maxSize": 3, "timeout": "60s", "if": "event.data.slow == true"}
    )
    await world.engine()
    await world.send_many([("order/sent", {"slow": False}), ("order/sent", {"slow": True})])
    await world.until(lambda: world.value("select count(*) = 1 from runs where ended_at is not null"))
    assert [o for o, _ in await outcomes(world, "order")] == ["batched"]


async def test_a_debounce_runs_the_newest_event_by_its_own_time_once(world: World) -> None:
    await world.function("order", result_at_once, debounce={"period": "1h", "key": "event.data.user"})
    await world.engine()
    for n, ts in enumerate((1_700_000_000_005, 1_700_000_000_009, 1_700_000_000_007)):
        await send_at(world, "order/sent", {"user": "a", "n": n}, ts)
        await reacted(world)
    assert await statuses(world, "order") == []
    await time_is_up(world)
    await world.until(lambda: world.value("select count(*) = 1 from runs where ended_at is not null"))
    assert [call.body["event"]["data"]["n"] for call in world.apps.calls] == [1]
    assert [d for _, d in await outcomes(world, "order")] == [
        "superseded by a newer event",
        "ran for 3 events",
        "superseded by a newer event",
    ]
    await time_is_up(world)
    assert await world.value("select count(*) from gates where due_at is not null") == 0


async def test_a_debounce_is_bounded_by_its_timeout(world: World) -> None:
    await world.function("order", result_at_once, debounce={"period": "1h", "timeout": "90m"})
    await world.engine()
    await world.send("order/sent")
    await reacted(world)
    await world.owner.execute("update gates set opened_at = opened_at - interval '80 minutes'")
    await world.send("order/sent")
    await reacted(world)
    opened, due = await world.row("select opened_at, due_at from gates")
    assert due - opened == timedelta(minutes=90)
    await time_is_up(world)
    await world.until(lambda: world.value("select count(*) = 1 from runs where ended_at is not null"))


async def test_timers_fired_by_two_workers_at_once_make_one_run(world: World) -> None:
    await world.function("order", result_at_once, debounce={"period": "1h", "key": "event.data.user"})
    await world.engine()
    await world.send_many([("order/sent", {"user": n % 20}) for n in range(60)])
    await reacted(world)
    await world.engine()
    await time_is_up(world)
    await world.until(lambda: world.value("select count(*) = 20 from runs where ended_at is not null"))
    assert await world.value("select count(*) from gates where due_at is not null") == 0
    assert len(world.apps.calls) == 20


async def test_a_worker_killed_while_a_batch_fires_loses_and_doubles_nothing(world: World) -> None:
    await world.function("order", result_at_once, batchEvents={"maxSize": 10, "timeout": "60s", "key": "event.data.k"})
    first = await world.engine(starts=False)
    await world.send_many([("order/sent", {"k": n % 7, "n": n}) for n in range(33)])
    await first.react.round(0)
    await world.owner.execute("update gates set due_at = clock() where due_at is not null")
    fired = asyncio.create_task(first.react.fire_due())
    stop = world.stop_at("react.fired")
    await stop.reached()  # committed, and dies before it can lease
    fired.cancel()
    await asyncio.gather(fired, return_exceptions=True)
    await world.engine()
    await world.until(lambda: world.value("select count(*) = 7 from runs where ended_at is not null"))
    seen = sorted(e["data"]["n"] for call in world.apps.calls for e in call.body["events"])
    assert seen == list(range(33))


async def test_a_function_that_is_removed_while_its_batch_is_open_starts_nothing(world: World) -> None:
    await world.function("order", result_at_once, batchEvents={"maxSize": 10, "timeout": "60s"})
    await world.engine()
    await world.send("order/sent")
    await reacted(world)
    await world.owner.execute("update functions set archived_at = clock()")
    await world.owner.execute("update environments set catalogue_version = catalogue_version + 1")
    await time_is_up(world)
    await world.until(lambda: world.value("select count(*) = 0 from gates where due_at is not null"))
    assert await outcomes(world, "order") == [("batched", "the function was removed meanwhile")]


async def test_a_full_backlog_delays_runs_and_says_so(world: World) -> None:
    await world.owner.execute("update accounts set plan = 'free' where id = $1", world.mine.account_id)
    await world.function("order", result_at_once)
    engine = await world.engine(starts=False)
    view = await engine.catalogue.view(world.mine)
    assert view.limits.backlog == 100_000
    await world.send("order/sent")
    now = await world.value("select clock()")
    engine.react.schedule._backlogs[world.mine.environment_id] = (now, True)
    await engine.react.round(0)
    assert [o for o, _ in await outcomes(world, "order")] == ["backlog"]
    assert await world.value("select due_at > clock() + interval '30 seconds' from items")
    world.allowed |= {"I31"}


def result_at_once(_call: Call) -> Any:
    return result()
