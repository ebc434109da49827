"""What events bring to runs and runs to events: idempotency, dates ahead, versions, users and sessions."""

import time
from datetime import timedelta
from typing import Any

from tests.integration.engine.stage import done, failed, output, ran, sequence, staged, waits

META = {"sessions": {"chat": "c1", "import": 7}}


async def test_the_same_event_id_starts_a_function_once_and_still_ends_waits(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", lambda asked: done(1), event="order/made")
        stage.plays("shop-mail", lambda asked: done(2), event="order/made")
        stage.plays("shop-wait", sequence(waits("w", "order/made")), event="wait/go")
        await stage.sync()
        await stage.start()
        await stage.send("order/made", id="once")
        await stage.ended(function="shop-pay")
        waiting = await stage.send("wait/go")
        await stage.waiting(waiting)
        again = await stage.send("order/made", {"n": 2}, id="once")
        assert output(await stage.ended(waiting))["w"]["data"] == {"n": 2}
        assert [len(await stage.runs(function=slug)) for slug in ("shop-pay", "shop-mail")] == [1, 1]
        outcomes = await stage.pool.fetch("select outcome from dispositions where event_id = $1", again)
        assert [row["outcome"] for row in outcomes] == ["duplicate", "duplicate"]


async def test_an_event_dated_ahead_starts_its_run_then_and_ends_a_wait_now(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", lambda asked: done(asked.event["ts"]), event="order/later")
        stage.plays("shop-wait", sequence(waits("w", "order/later")), event="wait/go")
        await stage.sync()
        await stage.start()
        waiting = await stage.send("wait/go")
        await stage.waiting(waiting)
        ts = int(time.time() * 1000) + 4000
        later = await stage.send("order/later", ts=ts)
        assert (await stage.ended(waiting))["status"] == "completed"
        (run,) = await stage.runs(later)
        assert run["status"] == "queued"
        run = await stage.ended(later)
        assert output(run) == ts
        assert run["started_at"] - run["queued_at"] > timedelta(seconds=2)


async def test_version_user_and_sessions_reach_the_app_and_the_events_of_the_end(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", lambda asked: failed("boom"), event="order/made")
        stage.plays("shop-watch", lambda asked: done(1), event="inngest/function.failed")
        await stage.sync()
        await stage.start()
        event = await stage.send("order/made", {"n": 1.5}, v="2026-01", user={"id": "u1"}, meta=META)
        run = await stage.ended(event)
        call = stage.apps.asked["shop-pay"][0].event
        assert (call["v"], call["user"], call["meta"], call["data"]) == ("2026-01", {"id": "u1"}, META, {"n": 1.5})
        await stage.ended(function="shop-watch")
        (failure,) = [
            one for one in await stage.events("inngest/function.failed") if one["data"]["function_id"] == "shop-pay"
        ]
        assert (failure["data"]["event"], failure["data"]["events"]) == (call, [call])
        assert (failure["meta"], failure["id"]) == (META, failure["data"]["run_id"])
        assert failure["data"]["error"]["message"] == "boom"
        # Runs of such events say nothing themselves: one end, one pair of events.
        assert len(await stage.events("inngest/function.finished")) == 1
        assert run["status"] == "failed"


async def test_one_answer_given_twice_is_one_answer(database: str) -> None:
    """A step reported by two calls keeps its first result, and the app is not asked for it again."""
    values = iter(range(100))

    def script(asked: Any) -> Any:
        return sequence(ran("a", next(values)), ran("b"))(asked)

    async with staged(database) as stage:
        stage.plays("shop-pay", script, event="order/made")
        await stage.sync()
        await stage.start(2)
        events = await stage.send_all([{"name": "order/made"}] * 10)
        for event in events:
            run = await stage.ended(event)
            rows = await stage.pool.fetch(
                "select step_key, memo_order from steps where run_id = $1 order by memo_order", run["id"]
            )
            assert [(row["step_key"], row["memo_order"]) for row in rows] == [("a", 1), ("b", 2)]
        assert len(stage.apps.asked["shop-pay"]) == 30
