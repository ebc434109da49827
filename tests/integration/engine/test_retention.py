"""What is past its time goes, what is needed stays, and every day has its partition."""

import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from app.domain.ids import AccountId
from app.domain.limits import PLANS
from app.engine.keepers import retention
from app.store.db import open_page_pool, tenant
from tests.integration.engine.world import World, ops, result, sleeps

DAY = timedelta(days=1)
KEEPS = {"self_hosted": 30 * DAY, "free": DAY, "pro": 7 * DAY}


def nap(call: Any) -> Any:
    return result() if "nap" in call.steps else ops(sleeps("nap", "300d" if call.body["event"]["data"] else "1s"))


async def age(world: World, run_id: Any, days: int) -> Any:
    """Move one run with its event and its rows back by whole days; gives its new id."""
    moved = await world.owner.fetchval(
        "select (lpad(to_hex((extract(epoch from minute_of($1) - $2::interval) * 1000)::bigint), 12, '0')"
        " || right(replace($1::text, '-', ''), 20))::uuid",
        run_id, days * DAY,
    )  # fmt: skip
    for table, column in (("runs", "id"), ("steps", "run_id"), ("history", "run_id"), ("items", "run_id")):
        await world.owner.execute(f"update {table} set {column} = $2 where {column} = $1", run_id, moved)
    await world.owner.execute(
        "with e as (update events e set received_at = e.received_at - $2::interval from runs r where r.id = $1"
        " and e.environment_id = r.environment_id and e.id = r.event_id and e.received_at = r.event_received_at)"
        " update runs set event_received_at = event_received_at - $2, queued_at = queued_at - $2,"
        " ended_at = ended_at - $2 where id = $1",
        moved, days * DAY,
    )  # fmt: skip
    return moved


async def days_of(world: World, parent: str) -> list[date]:
    return await world.column("select day from day_partitions() where parent = $1 order by day", parent)


async def today(world: World) -> date:
    found: date = await world.value("select (clock() at time zone 'UTC')::date")
    return found


async def test_what_has_ended_goes_after_its_time_with_its_day_and_what_goes_on_keeps_its_own(world: World) -> None:
    await world.function("nap", nap)
    await world.engine(housekeeping_s=1e9)
    old, young, asleep = await world.begin("nap"), await world.begin("nap"), await world.begin("nap", {"long": True})
    await world.ended(old)
    await world.ended(young)
    await world.quiet(asleep, "sleeping")
    old, young, asleep = await age(world, old, 40), await age(world, young, 20), await age(world, asleep, 41)
    # Rows so late have no partition: they lie in the default ones, whence the keeper takes them.
    assert await world.value("select count(*) from steps_default") == 3
    await retention.run_once(world.pool, KEEPS)
    assert await world.column("select id from runs order by id") == [asleep, young]
    assert await world.column("select run_id from steps order by run_id") == [asleep, young]
    assert await world.value("select count(*) from steps_default") == 0
    now = await today(world)
    kept = [day for day in await days_of(world, "steps") if day < now - DAY]
    assert kept == [now - 41 * DAY, now - 20 * DAY]
    assert [day for day in await days_of(world, "events") if day < now - DAY] == kept
    assert await world.column("select e.id from events e join runs r on r.event_id = e.id order by r.id") == (
        await world.column("select event_id from runs order by id")
    )


async def test_partitions_stand_ready_for_a_week_and_take_over_what_came_before_them(world: World) -> None:
    now = await today(world)
    late = now + timedelta(days=3)
    for parent in ("events", "steps", "history"):
        await world.owner.execute("select drop_partition($1, $2)", parent, late)
    await world.owner.execute("set stepwell.clock_offset = '3 days'")
    await world.owner.execute(
        "insert into events (environment_id, id, received_at, account_id, name, ts, payload)"
        " values ($1, $2, clock(), $3, 'late', 0, '{}')",
        world.mine.environment_id, uuid.uuid4(), world.mine.account_id,
    )  # fmt: skip
    assert await world.value("select count(*) from events_default") == 1
    assert await retention.make_days(world.pool) == 3
    assert await world.value("select count(*) from events_default") == 0
    assert await world.value("select count(*) from events where name = 'late'") == 1
    assert (await days_of(world, "history"))[-8:] == [now + timedelta(days=n) for n in range(8)]
    assert await retention.make_days(world.pool) == 0
    await world.owner.execute("delete from events where name = 'late'")


async def test_an_organization_keeps_as_long_as_its_plan_says(world: World) -> None:
    await world.owner.execute("update accounts set plan = 'free' where id = $1", world.theirs.account_id)
    await world.function("nap", nap)
    await world.function("nap", nap, scope=world.theirs)
    await world.engine(housekeeping_s=1e9)
    mine, theirs = await world.send("nap/sent"), await world.send("nap/sent", scope=world.theirs)
    runs = [(await world.runs_of(event_id))[0] for event_id in (mine, theirs)]
    for run_id in runs:
        await world.ended(run_id)
    moved = [await age(world, run_id, 3) for run_id in runs]
    await retention.run_once(world.pool, KEEPS)
    assert await world.column("select id from runs") == moved[:1]
    pages = await open_page_pool(world.url, size=1)
    try:
        for scope, count in ((world.mine, 1), (world.theirs, 0)):
            async with tenant(pages, AccountId(scope.account_id)) as connection:
                seen = await connection.fetchval("select count(*) from events where name = 'nap/sent'")
                assert seen == count, "events past the time of their organization are not shown"
    finally:
        await pages.close()


async def test_slices_are_bounded_and_come_to_an_end(world: World) -> None:
    await world.function("nap", nap)
    await world.owner.executemany(
        "insert into dispositions (environment_id, event_id, function_id, account_id, outcome, at)"
        " values ($1, $2, $3, $4, 'filtered', clock() - $5::interval)",
        [
            (world.mine.environment_id, uuid.uuid4(), world.function_id("nap"), world.mine.account_id, days * DAY)
            for days in (1, 29, 31, 32, 33, 34, 35)
        ],
    )
    await retention.run_once(world.pool, KEEPS, limit=2)
    assert await world.value("select count(*) from dispositions") == 2


async def test_sessions_seeds_and_counters_of_logins_go_when_they_are_over(world: World) -> None:
    user = uuid.uuid4()
    await world.owner.execute("insert into users (id, email) values ($1, $2)", user, f"{user}@example.com")
    await world.owner.execute(
        "insert into sessions (id_hash, user_id, csrf_hash, expires_at) values ('a', $1, '', clock() - interval '1 s'),"
        " ('b', $1, '', clock() + interval '1 day')",
        user,
    )
    await world.owner.execute(
        "insert into login_attempts (kind, key_hash, window_start) values ('network', 'a', clock() - interval '2 days'),"
        " ('network', 'b', clock())"
    )
    await retention.run_once(world.pool, KEEPS)
    assert await world.column("select id_hash from sessions") == [b"b"]
    assert await world.column("select key_hash from login_attempts") == [b"b"]
    await world.owner.execute("delete from users where id = $1", user)


async def test_the_copy_of_the_plans_follows_the_code(world: World) -> None:
    assert retention.keeps_of()["pro"] == PLANS["pro"].retention
    await retention.run_once(world.pool, retention.keeps_of(90 * DAY))
    kept = {row["plan"]: row["keep"] for row in await world.rows("select plan, keep from retentions")}
    assert kept == {name: plan.retention for name, plan in PLANS.items()} | {"self_hosted": 90 * DAY}


async def test_the_pages_role_may_not_touch_partitions(world: World) -> None:
    connection = await asyncpg.connect(world.url)
    try:
        await connection.execute("set role stepwell_app")
        for statement in ("select drop_partition('events', $1)", "select make_partitions($1, $1)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement, datetime.now(UTC).date())
    finally:
        await connection.close()
