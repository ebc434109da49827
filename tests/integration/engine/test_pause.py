"""What a pause and an archive mean for runs that are there and runs that are not."""

import asyncio
from datetime import timedelta
from typing import Any

from app.domain.ids import AppId, derive_uuid
from app.engine import pause
from app.engine.sync import function_id_of
from tests.integration.engine.stage import (
    Asked,
    Stage,
    done,
    invokes,
    new_scope,
    ops,
    output,
    planned,
    ran,
    sequence,
    sleeps,
    staged,
)


async def _resume(stage: Stage, slug: str) -> None:
    lanes = await pause.resume_function(stage.pool, stage.scope, function_id_of(stage.scope, slug))
    assert lanes is not None
    for engine in stage.engines:
        engine.wake(lanes)


async def test_a_paused_function_is_not_called_and_goes_on_where_it_was_with_no_attempt_counted(
    database: str,
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def script(asked: Asked) -> object:
        if asked.target != "step":
            return ops(ran(asked.target, asked.attempt))
        if not asked.steps:
            reached.set()
            await go_on.wait()
            return ops(planned("a"), planned("b"), sleeps("z", "1s"))
        return done({step: memo for step, memo in asked.steps.items() if memo})

    async with staged(database) as stage:
        stage.plays("shop-pay", script, event="order/made", concurrency=[{"limit": 2}])
        await stage.sync()
        await stage.start()
        function_id = function_id_of(stage.scope, "shop-pay")
        event = await stage.send("order/made")
        await asyncio.wait_for(reached.wait(), 20)
        assert not await pause.pause_function(stage.pool, await new_scope(stage.pool), function_id)
        assert await pause.pause_function(stage.pool, stage.scope, function_id)
        assert not await pause.pause_function(stage.pool, stage.scope, function_id)
        await _views_renewed()
        go_on.set()  # a call in flight is not stopped, and its answer counts

        async def parked() -> Any:
            return await stage.pool.fetchval("select count(*) from items where held_due is not null") == 2

        await stage.until(parked)

        async def slept() -> Any:
            (run,) = await stage.runs(event)
            return await stage.pool.fetchval(
                "select settled_at from steps where run_id = $1 and step_key = 'z'", run["id"]
            )

        await stage.until(slept)
        skipped = await stage.send("order/made")

        async def answered() -> Any:
            return await stage.pool.fetchval("select outcome from dispositions where event_id = $1", skipped)

        assert await stage.until(answered) == "paused"
        assert len(stage.apps.asked["shop-pay"]) == 1
        assert await stage.pool.fetchval("select count(*) from slots") == 0
        await _resume(stage, "shop-pay")
        run = await stage.ended(event)
        assert output(run) == {"a": {"data": 0}, "b": {"data": 0}}
        assert await stage.pool.fetchval("select count(*) from cancellations where deleted_at is null") == 0
        assert await stage.left_over() == {}


async def test_the_runs_of_a_function_paused_for_good_are_cancelled(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(sleeps("z", "1h")), event="order/made")
        await stage.sync()
        await stage.send("order/made")
        await stage.make_runs()
        await pause.pause_function(
            stage.pool, stage.scope, function_id_of(stage.scope, "shop-pay"), cancel_after=timedelta(0)
        )
        await stage.start()
        run = await stage.ended(function="shop-pay")
        assert (run["status"], run["error_code"]) == ("cancelled", "paused")
        assert stage.apps.asked["shop-pay"] == []


async def test_an_archived_app_starts_nothing_and_its_runs_go_on(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(sleeps("z", "2s"), ran("a")), event="order/made")
        await stage.sync(app="old")
        stage.configs.clear()
        stage.plays("new-parent", sequence(invokes("i", "shop-pay")), event="parent/go")
        await stage.sync(app="new")
        await stage.start()
        event = await stage.send("order/made")

        async def called() -> Any:
            return stage.apps.asked["shop-pay"]

        await stage.until(called)
        app_id = AppId(derive_uuid("app", stage.scope.environment_id.bytes, "old"))
        assert await pause.archive_app(stage.pool, stage.scope, app_id)
        parent = await stage.ended(await stage.send("parent/go"))
        assert "could not find function" in output(parent)["i"]["error"]["message"]
        ignored = await stage.send("order/made")
        assert (await stage.ended(event))["status"] == "completed"
        assert await stage.runs(ignored) == []
        assert await pause.unarchive_app(stage.pool, stage.scope, app_id)
        assert (await stage.ended(await stage.send("order/made")))["status"] == "completed"


async def test_the_runs_of_an_archived_function_end_and_say_why(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(sleeps("z", "2s")), event="order/made")
        await stage.sync()
        await stage.start()
        event = await stage.send("order/made")

        async def called() -> Any:
            return stage.apps.asked["shop-pay"]

        await stage.until(called)
        assert await pause.archive_function(stage.pool, stage.scope, function_id_of(stage.scope, "shop-pay"))
        run = await stage.ended(event)
        assert (run["status"], run["error_code"]) == ("failed", "function_removed")
        assert len(stage.apps.asked["shop-pay"]) == 1


async def _views_renewed() -> None:
    """A view of an environment is believed for a second: what is promised of a pause holds from then on."""
    await asyncio.sleep(1.1)
