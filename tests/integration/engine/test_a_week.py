"""More than a week on the test clock: partitions roll, crons fire once, sleeping runs wake, and exactly what is past goes.

The clock jumps, everything that came due settles, the keeper of retention runs, and the rows are compared with what the
test itself has noted. One tenant keeps three days, the other seven.
"""

import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.domain.cron import read_cron
from app.engine.engine import Engine
from app.engine.keepers import retention
from tests.integration.engine.world import Call, World, ops, result, sleeps, waits

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
HOURS = 1 if IS_FULL else 24
DAYS = 9
CRON = "0 * * * *" if IS_FULL else "0 0 * * *"
MINE, THEIRS = timedelta(days=3), timedelta(days=7)
KEEPS = {"self_hosted": MINE, "pro": THEIRS, "free": timedelta(days=1)}


def nap(call: Call) -> Any:
    length = call.body["event"]["data"].get("length")
    return result() if "nap" in call.steps else ops(sleeps("nap", length))


def patient(call: Call) -> Any:
    return result(call.steps["wait"]) if "wait" in call.steps else ops(waits("wait", "never/sent", timeout="2d"))


class Week:
    """The clock, and what the test has noted."""

    def __init__(self, world: World, engine: Engine) -> None:
        self.world, self.engine = world, engine
        self.hours = 0
        #: When each run that was seen to end did so, and its tenant's time.
        self.ended: dict[UUID, tuple[datetime, timedelta]] = {}
        self.answers: dict[datetime, str] = {}

    async def jump(self, hours: int) -> None:
        """Let time pass, for every connection there is."""
        self.hours += hours
        name = await self.world.owner.fetchval("select current_database()")
        await self.world.owner.execute(f"alter database {name} set stepwell.clock_offset = '{self.hours} hours'")
        await self.world.owner.execute(f"set stepwell.clock_offset = '{self.hours} hours'")
        for pool in (self.world.pool, *self.world.pools):
            await pool.expire_connections()
        self.world.wake()

    async def settle(self) -> None:
        """Everything that is due has happened; note it."""
        await self.world.until(
            lambda: self.world.value(
                "select not exists (select from inbox) and not exists (select from items where due_at <= clock())"
                " and not exists (select from schedules where next_due <= clock())"
            )
        )
        for row in await self.world.rows("select id, ended_at, account_id from runs where ended_at is not null"):
            keep = MINE if row["account_id"] == self.world.mine.account_id else THEIRS
            self.ended.setdefault(row["id"], (row["ended_at"], keep))
        for row in await self.world.rows("select due_at, outcome from schedule_answers"):
            assert self.answers.setdefault(row["due_at"], row["outcome"]) == row["outcome"]

    async def check(self) -> None:
        """The keeper has left exactly what must be there."""
        now: datetime = await self.world.value("select clock()")
        kept = {run_id for run_id, (ended_at, keep) in self.ended.items() if ended_at >= now - keep}
        rows = await self.world.rows("select id, ended_at from runs")
        assert {row["id"] for row in rows if row["ended_at"] is not None} == kept
        assert await self.world.value("select count(*) from run_events x where not exists (select from runs r where r.id = x.run_id)") == 0  # fmt: skip
        for parent in ("events", "steps", "history"):
            assert await self.world.value(f"select count(*) from {parent}_default") == 0
            days = await self.world.column("select day from day_partitions() where parent = $1 order by day", parent)
            assert [now.date() + timedelta(days=n) for n in range(8)] == days[-8:]
            if parent != "events":
                needed = {(await self.day_of(row["id"])) for row in rows}
                past = {day for day in days if day < (now - THEIRS).date()}
                assert past == {day for day in needed if day < (now - THEIRS).date()}

    async def day_of(self, run_id: UUID) -> Any:
        """The day a run's rows lie in."""
        return await self.world.value("select (minute_of($1) at time zone 'UTC')::date", run_id)


@pytest.fixture
async def week(world: World) -> AsyncIterator[Week]:
    """Give a week in a world whose clock is put right afterwards."""
    await world.owner.execute("update accounts set plan = 'pro' where id = $1", world.theirs.account_id)
    await world.function("nap", nap)
    await world.function("patient", patient)
    await world.function("order", lambda _call: result())
    await world.function("order", lambda _call: result(), scope=world.theirs)
    await world.function("regular", lambda _call: result())
    world._configs[world.mine.environment_id][-1]["triggers"] = [{"cron": CRON}]
    await world.function("last", lambda _call: result())
    engine = await world.engine(lease_s=90 * 86_400.0, housekeeping_s=1e9)
    yield Week(world, engine)
    name = await world.owner.fetchval("select current_database()")
    await world.owner.execute(f"alter database {name} reset stepwell.clock_offset")


@pytest.mark.timeout(600)
async def test_a_week_goes_by(week: Week) -> None:
    world = week.world
    start: datetime = await world.value("select clock()")
    await retention.run_once(world.pool, KEEPS)
    short = await world.begin("nap", {"length": "40h"})
    long = await world.begin("nap", {"length": "6d"})
    waiting = await world.begin("patient")
    await world.quiet(short, "sleeping")
    await world.quiet(long, "sleeping")
    await world.quiet(waiting)
    for _ in range(DAYS * 24 // HOURS):
        await week.jump(HOURS)
        await world.send("order/sent", {"n": week.hours})
        await world.send("order/sent", {"n": week.hours}, scope=world.theirs)
        await week.settle()
        await retention.run_once(world.pool, KEEPS)
        await week.check()
    for run_id, length in ((short, timedelta(hours=40)), (long, timedelta(days=6)), (waiting, timedelta(days=2))):
        woke = week.ended[run_id][0] - start
        assert length <= woke <= length + timedelta(hours=HOURS, minutes=10), "it woke when it was due, not before"
        assert len(world.apps.of(run_id)) == 2
    end: datetime = await world.value("select clock()")
    due = []
    for at in read_cron(CRON).due_times(start):
        if at > end:
            break
        due.append(at)
    assert week.answers == dict.fromkeys(due, "ran")
    said = [c.body["event"]["data"]["scheduledAt"] for c in world.apps.calls if "regular" in c.slug]
    assert sorted(said) == [at.isoformat().replace("+00:00", "Z") for at in due], "each due time was run once"
    orders = [c for c in world.apps.calls if c.slug.endswith("order")]
    assert len(orders) == 2 * DAYS * 24 // HOURS
    assert len(week.ended) > len(await world.rows("select from runs")), "some are past their time"
