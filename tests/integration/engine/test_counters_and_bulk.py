"""Minute counters say what the rows say, whoever made and ended the runs; a worker finds bulk actions by itself."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from app.engine.keepers import merge
from app.store.named import fetch, named
from tests.integration.engine.world import World, failure, in_turn, ops, result, sleeps

COUNTED = """select function_id, minute, sum(made) as made, sum(completed) as completed, sum(failed) as failed,
  sum(cancelled) as cancelled from usage_minutes group by 1, 2 order by 1, 2"""
ROWS = """select function_id, minute_of(id) as minute, count(*) as made, count(*) filter (where status = 'completed') as completed,
  count(*) filter (where status = 'failed') as failed, count(*) filter (where status in ('cancelled', 'skipped')) as cancelled
  from runs group by 1, 2 order by 1, 2"""


async def agree(world: World) -> list[Any]:
    """Compare counters and rows of this world's functions; gives the counters."""
    rows = [tuple(row) for row in await world.rows(ROWS)]
    functions = {row[0] for row in rows}
    counted = [tuple(row) for row in await world.rows(COUNTED) if row["function_id"] in functions]
    assert counted == rows
    return counted


async def test_counters_agree_with_runs_that_completed_failed_slept_and_were_cancelled(world: World) -> None:
    await world.function("good", in_turn("a", "b"))
    await world.function("bad", lambda _call: failure(), retries=0)
    await world.function("slow", lambda call: result() if call.done else ops(sleeps("nap")))
    await world.engine()
    for _ in range(5):
        await world.ended(await world.begin("good"))
    assert (await world.ended(await world.begin("bad")))["status"] == "failed"
    asleep = await world.begin("slow")
    await world.quiet(asleep, "sleeping")
    open_now = sum(row[2] - row[3] - row[4] - row[5] for row in await agree(world))
    assert open_now == 1
    await world.cancel(asleep)
    assert sum(row[5] for row in await agree(world)) == 1


async def test_merging_shards_changes_no_sum(world: World) -> None:
    await world.function("good", in_turn("a"))
    await world.engine()
    for _ in range(3):
        await world.ended(await world.begin("good"))
    await world.rows(
        "update usage_minutes set minute = minute - interval '1 hour' returning 1",
    )
    before = await world.row("select sum(made) as made, sum(completed) as completed from usage_minutes")
    assert await merge.run_once(world.pool) > 0
    assert await merge.run_once(world.pool) == 0
    after = await world.row("select sum(made) as made, sum(completed) as completed from usage_minutes")
    assert tuple(before) == tuple(after)
    assert await world.value("select count(*) from usage_minutes where shard <> 0") == 0


async def test_a_worker_finds_a_bulk_cancel_without_being_told(world: World) -> None:
    await world.function("slow", lambda call: result() if call.done else ops(sleeps("nap")))
    await world.engine()
    runs = [await world.begin("slow") for _ in range(4)]
    for run_id in runs:
        await world.quiet(run_id, "sleeping")
    row = await world.run(runs[0])
    async with world.pool.acquire() as connection:
        await fetch(
            connection,
            named("bulk", "make"),
            id=uuid4(),
            account=row["account_id"],
            environment=row["environment_id"],
            action="cancel",
            from_step=None,
            token="t",
            reason="",
            filters="",
            run_ids=runs,
            left_out=0,
            actor_id=None,
            actor="ada@example.com",
            name="",
            wait=timedelta(0),
            speed=None,
            is_deep=False,
        )
    began = datetime.now(UTC)
    for run_id in runs:
        assert (await world.ended(run_id))["status"] == "cancelled"
    assert datetime.now(UTC) - began < timedelta(seconds=20)
    await world.until(
        lambda: world.value("select count(*) from bulk_items where state = 'done'"), lambda number: number == 4
    )
    await agree(world)
    await world.check()
