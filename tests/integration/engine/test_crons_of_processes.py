"""Two schedulers in processes of their own that are killed again and again: every due time has one answer, and at most one run.

The database's clock runs fast, so that a cron of every minute comes due every few seconds. The figures are printed (`-s`).
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.integration.engine.test_crons import cron
from tests.integration.engine.workers import Workers
from tests.integration.engine.world import World

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
#: Seconds of the database in one of ours; kills, and answers between them.
SPEED, KILLS, BETWEEN = (20, 20, 6) if IS_FULL else (120, 1, 5)
MINUTE = timedelta(minutes=1)
#: Crons by the number of minutes between two due times, counted from midnight of UTC.
CRONS = {"* * * * *": 1, "*/2 * * * *": 2, "TZ=Asia/Kolkata */3 * * * *": 3, "*/5 * * * *": 5}


@pytest.fixture
async def fast(world: World) -> AsyncIterator[World]:
    """A world in which time flies."""
    plain = await world.owner.fetchval("select pg_get_functiondef('clock()'::regprocedure)")
    base = f"timestamptz '{(await world.owner.fetchval('select now()')).isoformat()}'"
    await world.owner.execute(
        "create or replace function clock() returns timestamptz language sql stable parallel safe as"
        f" $$ select {base} + (now() - {base}) * {SPEED} $$"
    )
    try:
        yield world
    finally:
        await world.owner.execute(plain)


@pytest.mark.timeout(900)
async def test_no_due_time_is_doubled_and_none_is_missing_while_schedulers_are_killed(
    fast: World, redis_url: str, tmp_path: Path
) -> None:
    world, dice = fast, random.Random(11)
    for n, text in enumerate(CRONS):
        await cron(world, f"cron{n}", text)
    began = {row["cron"]: row["next_due"] for row in await world.rows("select cron, next_due from schedules")}
    workers = Workers(world.url, redis_url, tmp_path, SPEED)
    try:
        for _ in range(2):
            workers.start()
        for kill in range(1, KILLS + 1):
            await _answered(world, kill * BETWEEN)
            # Any moment of what they do next.
            await asyncio.sleep(dice.random() * BETWEEN * 60 / SPEED / len(CRONS))
            workers.kill()
            workers.start()
        until: datetime = await world.value("select clock()")
        await world.until(lambda: world.value("select min(next_due) > $1 from schedules", until))
        await world.until(lambda: world.value("select not exists (select from runs where ended_at is null)"))
    finally:
        workers.end()
    rows = await world.rows(
        "select s.cron, a.due_at, a.outcome, a.at, a.run_id, r.status from schedule_answers a"
        " join schedules s on s.id = a.schedule_id left join runs r on r.id = a.run_id order by a.due_at"
    )
    for text, minutes in CRONS.items():
        answered = [row["due_at"] for row in rows if row["cron"] == text and row["due_at"] <= until]
        first = began[text]
        assert (first.minute + first.hour * 60) % minutes == 0
        assert answered == [first + n * minutes * MINUTE for n in range(len(answered))]
        assert answered[-1] + minutes * MINUTE > until
    for row in rows:
        # One that was missed was late for its turn: the next one of its cron had come due (F27).
        if row["outcome"] == "missed":
            assert row["at"] >= row["due_at"] + CRONS[row["cron"]] * MINUTE
        else:
            assert (row["outcome"], row["status"]) == ("ran", "completed")
    ran = [row for row in rows if row["outcome"] == "ran"]
    assert len({row["run_id"] for row in ran}) == len(ran) > 0
    assert await world.value("select count(*) from runs where cron is not null") == len(ran)
    print(f"\n{len(rows)} due times of {len(CRONS)} crons, {workers.count} processes, {KILLS} of them killed:"
          f" {len(ran)} ran, {len(rows) - len(ran)} were recorded as missed")  # fmt: skip


async def _answered(world: World, count: int) -> None:
    """So many due times have an answer."""
    await world.until(lambda: world.value("select count(*) >= $1 from schedule_answers", count))
