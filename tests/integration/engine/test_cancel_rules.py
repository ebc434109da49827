"""Runs ended from outside: by events, by deadlines; nothing starts afterwards and nothing is left behind."""

import asyncio
from typing import Any

from tests.integration.engine.stage import (
    Asked,
    Stage,
    done,
    ops,
    output,
    planned,
    ran,
    sequence,
    sleeps,
    staged,
    waits,
)

BY_USER = {"event": "order/cancelled", "if": "event.data.user == async.data.user"}


async def _armed(stage: Stage, event: Any) -> Any:
    """The run of an event once its rules stand."""

    async def is_armed() -> Any:
        rows = await stage.runs(event)
        return rows and rows[0]["status"] == "running" and rows[0]

    return await stage.until(is_armed)


async def test_an_event_that_matches_the_rule_cancels_the_run_and_another_users_does_not(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(waits("w", "never/comes")), event="order/made", cancel=[BY_USER])
        await stage.sync()
        await stage.start()
        ada = await stage.send("order/made", {"user": "ada"})
        bob = await stage.send("order/made", {"user": "bob"})
        await stage.waiting(ada)
        await stage.waiting(bob)
        await stage.send("order/cancelled", {"user": "nobody"})
        await stage.send("order/cancelled", {"user": "ada"})
        run = await stage.ended(ada)
        assert (run["status"], run["error_code"]) == ("cancelled", "event")
        assert (await stage.runs(bob))[0]["status"] == "running"
        (cancelled,) = await stage.events("inngest/function.cancelled")
        (finished,) = await stage.events("inngest/function.finished")
        assert cancelled["data"]["function_id"] == "shop-pay"
        assert finished["data"]["_inngest"] == {"status": "Cancelled"}
        assert await stage.events("inngest/function.failed") == []
        await stage.cancel((await stage.runs(bob))[0]["id"])
        assert await stage.left_over() == {}


async def test_an_event_of_the_same_request_as_the_first_cancels_the_run_and_one_before_it_does_not(
    database: str,
) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(waits("w", "never/comes")), event="order/made", cancel=[BY_USER])
        await stage.sync()
        await stage.send("order/cancelled", {"user": "ada"})
        early = await stage.send("order/made", {"user": "ada"})
        late = await stage.send("order/made", {"user": "bob"})
        await stage.send("order/cancelled", {"user": "bob"})
        await stage.start()
        assert (await stage.ended(late))["status"] == "cancelled"
        assert (await stage.waiting(early))["status"] == "running"


async def test_a_rule_that_has_run_out_cancels_nothing_and_one_that_can_never_hold_is_not_kept(database: str) -> None:
    rules = [
        {"event": "order/cancelled", "timeout": "1s"},
        {"event": "order/cancelled", "if": "event.data.user == 'root'"},
    ]
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(sleeps("z", "3s")), event="order/made", cancel=rules)
        await stage.sync()
        await stage.start()
        event = await stage.send("order/made", {"user": "ada"})
        run = await _armed(stage, event)
        kept = "select count(*) from pauses where run_id = $1"
        assert await stage.pool.fetchval(kept, run["id"]) == 1

        async def has_run_out() -> Any:
            return await stage.pool.fetchval("select expires_at < clock() from pauses where run_id = $1", run["id"])

        await stage.until(has_run_out)
        await stage.send("order/cancelled", {})
        assert (await stage.ended(event))["status"] == "completed"


async def test_a_call_in_flight_is_not_heard_any_more_and_no_step_follows(database: str) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def script(asked: Asked) -> object:
        reached.set()
        await go_on.wait()
        return ops(ran("a", 1), planned("b")) if not asked.steps else done()

    async with staged(database) as stage:
        stage.plays("shop-pay", script, event="order/made", cancel=[{"event": "order/cancelled"}])
        await stage.sync()
        await stage.start()
        event = await stage.send("order/made")
        await asyncio.wait_for(reached.wait(), 20)
        await stage.send("order/cancelled")
        run = await stage.ended(event)
        assert run["status"] == "cancelled"
        go_on.set()

        async def idle() -> bool:
            return stage.engines[0].execute.in_flight == 0

        await stage.until(idle)
        assert len(stage.apps.asked["shop-pay"]) == 1
        assert await stage.memo(run, "a") is None
        assert await stage.left_over() == {}


async def test_a_run_that_waits_too_long_for_its_start_is_cancelled_behind_a_full_limit(database: str) -> None:
    go_on = asyncio.Event()

    async def script(asked: Asked) -> object:
        await go_on.wait()
        return done("done")

    async with staged(database) as stage:
        stage.plays("shop-pay", script, event="order/made", concurrency=[{"limit": 1}], timeouts={"start": "1s"})
        await stage.sync()
        await stage.start()
        first = await stage.send("order/made")

        async def called() -> Any:
            return stage.apps.asked["shop-pay"]

        await stage.until(called)
        second = await stage.send("order/made")
        late = await stage.ended(second)
        assert (late["status"], late["error_code"]) == ("cancelled", "start_timeout")
        go_on.set()
        # The first call of the other one was under way in time.
        assert (await stage.ended(first))["status"] == "completed"
        assert len(stage.apps.asked["shop-pay"]) == 1


async def test_a_run_whose_turn_comes_when_its_start_is_overdue_is_cancelled_instead_of_called(database: str) -> None:
    go_on = asyncio.Event()

    async def script(asked: Asked) -> object:
        await go_on.wait()
        return done("done")

    async with staged(database) as stage:
        stage.plays("shop-pay", script, event="order/made", concurrency=[{"limit": 1}], timeouts={"start": "4s"})
        await stage.sync()
        await stage.start()
        await stage.send("order/made")

        async def called() -> Any:
            return stage.apps.asked["shop-pay"]

        await stage.until(called)
        second = await stage.send("order/made")

        async def is_put_off() -> bool:
            # As if a busy worker came to the item of the deadline only after the run's own turn.
            put_off = (
                "update items i set due_at = clock() + interval '1 hour' from runs r"
                " where r.id = i.run_id and r.status = 'queued' and i.kind = 'start_timeout' and r.event_id = $1"
            )
            return str(await stage.pool.execute(put_off, second)) == "UPDATE 1"

        async def is_overdue() -> Any:
            overdue = "select queued_at + interval '4 s' < clock() from runs where event_id = $1"
            return await stage.pool.fetchval(overdue, second)

        await stage.until(is_put_off)
        await stage.until(is_overdue)
        go_on.set()
        late = await stage.ended(second)
        assert (late["status"], late["error_code"]) == ("cancelled", "start_timeout")
        assert len(stage.apps.asked["shop-pay"]) == 1
        assert await stage.left_over() == {}


async def test_a_run_that_started_in_time_is_left_alone_by_its_start_timeout(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(sleeps("z", "2s")), event="order/made", timeouts={"start": "1s"})
        await stage.sync()
        await stage.start()
        run = await stage.ended(await stage.send("order/made"))
        assert (run["status"], output(run)) == ("completed", {"z": None})
        assert await stage.left_over() == {}


async def test_a_run_that_takes_too_long_is_cancelled_and_its_child_goes_on(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(ran("a"), sleeps("z", "1h")), event="order/made", timeouts={"finish": "1s"})
        await stage.sync()
        await stage.start()
        run = await stage.ended(await stage.send("order/made"))
        assert (run["status"], run["error_code"]) == ("cancelled", "finish_timeout")
        assert (run["ended_at"] - run["started_at"]).total_seconds() >= 1
        assert await stage.left_over() == {}


async def test_a_deadline_is_no_reason_for_a_run_to_stop_asking_its_app(database: str) -> None:
    """An answer of nothing leaves no item but the deadline; the run must not hang until it comes."""
    answers = iter([ops(), ops(), done("at last")])

    async with staged(database) as stage:
        stage.plays("shop-pay", lambda asked: next(answers), event="order/made", retries=5, timeouts={"finish": "1h"})
        await stage.sync()
        await stage.start()
        assert output(await stage.ended(await stage.send("order/made"))) == "at last"
        assert await stage.left_over() == {}
