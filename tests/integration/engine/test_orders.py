"""Orders to cancel many runs: by function, time and expression; busy runs and late ones included."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from app.domain.expressions import ExpressionRefused
from app.engine import orders
from tests.integration.engine.stage import Stage, new_scope, ran, sequence, sleeps, staged, waits


async def _now(stage: Stage) -> datetime:
    now: datetime = await stage.pool.fetchval("select clock()")
    return now


async def _order(stage: Stage, slug: str = "shop-pay", **more: Any) -> Any:
    view = await stage.catalogue.view(stage.scope)
    given = {"after": None, "before": await _now(stage), "expression": None} | more
    return await orders.place(stage.pool, stage.scope, view.by_slug[slug].function, **given)


async def _work_off(stage: Stage, room: int = orders.SLICE) -> int:
    """All slices that are due; how many runs they ended."""
    ended = 0
    while not (done := await orders.work_off(stage.pool, stage.clock, room=room)).is_idle:
        ended += len(done.entries)
    return ended


async def _statuses(stage: Stage, slug: str) -> list[str]:
    return [row["status"] for row in await stage.runs(function=slug)]


async def _all_wait(stage: Stage, count: int) -> None:
    async def all_wait() -> bool:
        found = await stage.pool.fetchval(
            "select count(*) from pauses where environment_id = $1", stage.scope.environment_id
        )
        return bool(found == count)

    await stage.until(all_wait)


async def test_an_order_ends_the_runs_of_its_function_and_time_whose_event_fits(database: str) -> None:
    async with staged(database) as stage:
        for slug in ("shop-pay", "shop-other"):
            stage.plays(slug, sequence(waits("w", "never/comes")), event="order/made")
        await stage.sync()
        await stage.start()
        early = await stage.send("order/made", {"n": 1})
        await _all_wait(stage, 2)
        between = await _now(stage)
        events = await stage.send_all([{"name": "order/made", "data": {"n": n}} for n in (1, 2, 3)])
        await _all_wait(stage, 8)
        # Ids carry milliseconds, and so do orders.
        before = await _now(stage) - timedelta(milliseconds=2)
        last = await stage.send("order/made", {"n": 1})
        await _all_wait(stage, 10)
        await _order(stage, after=between, before=before, expression="event.data.n < 3")

        async def two_ended() -> bool:
            return (await _statuses(stage, "shop-pay")).count("cancelled") == 2

        await stage.until(two_ended)
        by_event = {row["event_id"]: row["status"] for row in await stage.runs(function="shop-pay")}
        assert [by_event[event] for event in (early, *events, last)] == [
            "running",
            "cancelled",
            "cancelled",
            "running",
            "running",
        ]
        assert set(await _statuses(stage, "shop-other")) == {"running"}
        assert {row["error_code"] for row in await stage.runs(function="shop-pay") if row["ended_at"]} == {"bulk"}
        assert len(await stage.events("inngest/function.cancelled")) == 2


async def test_slices_go_on_where_the_last_one_ended_and_busy_runs_are_visited_again(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(ran("a")), event="order/made", concurrency=[{"limit": 1}])
        await stage.sync()
        await stage.send_all([{"name": "order/made"}] * 25)
        await stage.make_runs()
        (busy, *_) = await stage.runs(function="shop-pay")
        await _order(stage)
        async with stage.pool.acquire() as other, other.transaction():
            await other.execute("select from runs where id = $1 for update", busy["id"])
            assert await _work_off(stage, room=10) == 24
        assert (await _statuses(stage, "shop-pay")).count("queued") == 1
        await stage.pool.execute("update cancellations set due_at = clock() where due_at is not null")
        assert await _work_off(stage, room=10) == 1
        assert (
            await stage.pool.fetchval(
                "select cancelled from cancellations where due_at is null and environment_id = $1",
                stage.scope.environment_id,
            )
            == 25
        )
        assert await stage.left_over() == {}
        await stage.start()
        assert stage.apps.asked["shop-pay"] == []


async def test_an_order_also_ends_runs_of_its_time_that_appear_after_it(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(sleeps("z", "1h")), event="order/made")
        await stage.sync()
        await stage.send("order/made")
        await _order(stage)
        assert await _work_off(stage) == 0
        await stage.make_runs()
        await stage.pool.execute("update cancellations set due_at = clock() where due_at is not null")
        assert await _work_off(stage) == 1
        assert await _statuses(stage, "shop-pay") == ["cancelled"]


async def test_a_withdrawn_order_ends_nothing_more_and_nobody_else_can_withdraw_it(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(ran("a")), event="order/made")
        await stage.sync()
        await stage.send("order/made")
        await stage.make_runs()
        order = await _order(stage)
        stranger = await new_scope(stage.pool)
        assert not await orders.withdraw(stage.pool, stranger, order["id"])
        assert await orders.withdraw(stage.pool, stage.scope, order["id"])
        assert not await orders.withdraw(stage.pool, stage.scope, order["id"])
        assert await _work_off(stage) == 0
        assert await orders.list_orders(stage.pool, stage.scope, before=None, room=10) == []


async def test_an_order_put_off_waits_and_a_bad_expression_is_refused(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(ran("a")), event="order/made")
        await stage.sync()
        await stage.send("order/made")
        await stage.make_runs()
        await _order(stage, due_at=await _now(stage) + timedelta(days=7))
        assert await _work_off(stage) == 0
        with pytest.raises(ExpressionRefused):
            await _order(stage, expression="event.data.(")
        failing = await _order(stage, expression="event.data.n.size() > 'x'")
        assert await _work_off(stage) == 0
        assert failing["expression"] is not None
