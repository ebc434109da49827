"""Crons on a real database: one run per due time, whoever looks, and an answer for every due time."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from app.domain.cron import read_cron
from app.engine.pause import archive_app, unarchive_app
from app.engine.sync import remove_app
from tests.integration.engine.world import URL, Call, World, result


async def cron(world: World, slug: str, *crons: str, jitter: str | None = None, **more: Any) -> None:
    """Register a function with crons; their next due time is long ahead until `overdue` moves it."""
    triggers = [{"cron": text, **({"jitter": jitter} if jitter else {})} for text in crons]
    await world.function(slug, lambda _call: result(), **more)
    configs = world._configs[world.mine.environment_id]
    configs[-1]["triggers"] = triggers
    world.apps.scripts[slug] = _done
    await world.function("other", _done)


def _done(_call: Call) -> Any:
    return result()


async def overdue(world: World, times: int, *, text: str | None = None) -> list[datetime]:
    """Nobody looked for a while: the last `times` due times of all schedules are unanswered."""
    now = await world.value("select clock()")
    missed: list[datetime] = []
    for row in await world.rows("select * from schedules where $1::text is null or cron = $1", text):
        due = read_cron(row["cron"]).due_times(now - timedelta(days=40))
        past: list[datetime] = []
        for d in due:
            if d > now:
                break
            past.append(d)
        missed = past[-times:]
        await world.owner.execute("update schedules set next_due = $2 where id = $1", row["id"], missed[0])
    world.wake()
    return missed


async def answers(world: World) -> list[tuple[datetime, str]]:
    rows = await world.rows("select due_at, outcome from schedule_answers order by due_at")
    return [(row["due_at"], row["outcome"]) for row in rows]


async def test_a_sync_writes_when_a_cron_comes_due_next(world: World) -> None:
    await cron(world, "nightly", "TZ=Europe/Rome 30 2 * * *", "0 9 * * 1")
    rows = {r["cron"]: r["next_due"] for r in await world.rows("select * from schedules")}
    now = datetime.now(UTC)
    assert rows == {text: read_cron(text).next_after(now) for text in ("TZ=Europe/Rome 30 2 * * *", "0 9 * * 1")}


async def test_a_due_cron_starts_a_run_with_the_timer_event(world: World) -> None:
    await cron(world, "hourly", "0 * * * *")
    await world.engine()
    (due,) = await overdue(world, 1)
    (row,) = await world.until(lambda: world.rows("select * from runs where ended_at is not null"))
    said = due.isoformat().replace("+00:00", "Z")
    (call,) = world.apps.calls
    assert call.body["event"]["name"] == "inngest/scheduled.timer"
    assert call.body["event"]["data"] == {"cron": "0 * * * *", "fireAt": said, "scheduledAt": said}
    assert call.body["event"]["id"] == said
    assert row["cron"] == "0 * * * *"
    assert await answers(world) == [(due, "ran")]
    assert await world.value("select next_due from schedules") == due + timedelta(hours=1)


async def test_after_an_outage_the_newest_due_time_runs_and_older_ones_are_recorded_as_missed(world: World) -> None:
    await cron(world, "hourly", "*/10 * * * *")
    await world.engine()
    missed = await overdue(world, 30)
    await world.until(lambda: world.rows("select * from runs where ended_at is not null"))
    assert await answers(world) == [*((d, "missed") for d in missed[:-1]), (missed[-1], "ran")]
    assert len(world.apps.calls) == 1


async def test_many_schedulers_make_one_run_of_a_due_time(world: World) -> None:
    for n in range(5):
        await cron(world, f"f{n}", f"{n} * * * *")
    engines = [await world.engine(starts=False) for _ in range(4)]
    await overdue(world, 3)
    await asyncio.gather(*(engine.react.fire_crons() for engine in engines for _ in range(3)))
    assert await world.value("select count(*) from runs where cron is not null") == 5
    assert await world.value("select count(*) from schedule_answers") == 15
    await engines[0].start()
    await world.all_ended()


async def test_a_scheduler_that_dies_before_its_commit_leaves_the_due_time_to_another(world: World) -> None:
    await cron(world, "hourly", "0 * * * *")
    await overdue(world, 1)
    first = await world.engine(starts=False)
    stop = world.stop_at("cron.written")
    fired = asyncio.create_task(first.react.fire_crons())
    await stop.reached()
    fired.cancel()
    await asyncio.gather(fired, return_exceptions=True)
    assert await world.value("select count(*) from runs") == 0
    await world.engine()
    await world.until(lambda: world.rows("select * from runs where ended_at is not null"))
    assert [outcome for _, outcome in await answers(world)] == ["ran"]


async def test_two_crons_of_a_function_that_meet_make_one_run(world: World) -> None:
    await cron(world, "both", "0 0 * * *", "0 */24 * * *")
    await world.engine()
    await overdue(world, 1)
    await world.until(lambda: world.value("select count(*) = 2 from schedule_answers"))
    await world.all_ended()
    assert len(await world.rows("select * from runs where cron is not null")) == 1


async def test_jitter_delays_the_start_and_not_the_answer(world: World) -> None:
    await cron(world, "hourly", "* * * * *", jitter="5m")
    await world.engine()
    (due,) = await overdue(world, 1)
    await world.until(lambda: world.rows("select * from runs where cron is not null"))
    event = json.loads(await world.value("select payload from events where name = 'inngest/scheduled.timer' limit 1"))
    fire_at = datetime.fromtimestamp(event["ts"] / 1000, UTC)
    assert timedelta(seconds=1) <= fire_at - due < timedelta(minutes=5)
    assert event["data"]["fireAt"] == fire_at.isoformat().replace("+00:00", "Z")
    item = await world.value("select min(due_at) from items")
    assert item is None or item == fire_at


async def test_a_paused_function_skips_its_due_time_and_does_not_make_up_for_it(world: World) -> None:
    await cron(world, "hourly", "0 * * * *")
    await world.owner.execute("update functions set paused_at = clock()")
    await world.owner.execute("update environments set catalogue_version = catalogue_version + 1")
    await world.engine()
    await overdue(world, 1)
    await world.until(lambda: world.value("select count(*) = 1 from runs where status = 'skipped'"))
    assert [outcome for _, outcome in await answers(world)] == ["paused"]
    assert world.apps.calls == []


async def test_a_changed_cron_replaces_the_old_one_at_once_and_a_removed_function_has_none(world: World) -> None:
    await cron(world, "job", "0 * * * *")
    await cron(world, "job", "30 * * * *")
    assert await world.column("select cron from schedules") == ["30 * * * *"]
    configs = world._configs[world.mine.environment_id]
    configs[:] = [c for c in configs if c["id"] != "job"]
    await world.function("other", _done)
    assert await world.column("select cron from schedules") == []


async def test_a_cron_passes_rate_limits_by(world: World) -> None:
    await cron(world, "job", "0 * * * *", "30 * * * *", rateLimit={"limit": 1, "period": "24h"})
    await world.engine()
    await overdue(world, 1)
    await world.until(lambda: world.value("select count(*) = 2 from runs where status = 'completed'"))
    assert await world.value("select count(*) from dispositions") == 0


async def test_a_cron_of_an_archived_app_sleeps_and_is_taken_up_when_the_app_is_back(world: World) -> None:
    await cron(world, "hourly", "0 * * * *")
    engine = await world.engine()
    app_id = await world.value("select app_id from functions where slug = 'hourly'")
    assert await archive_app(world.pool, world.mine, app_id)
    (due,) = await overdue(world, 1)
    await world.until(lambda: world.rows("select * from schedule_answers"))
    assert await answers(world) == [(due, "gone")]
    assert await world.value("select next_due = 'infinity' from schedules")
    assert await unarchive_app(world.pool, world.mine, app_id)
    await engine.keep_once()
    assert await world.value("select next_due from schedules") == due + timedelta(hours=1)
    assert await world.value("select count(*) from runs") == 0


async def test_crons_of_an_archived_environment_and_of_a_removed_app_start_nothing(world: World) -> None:
    await cron(world, "hourly", "0 * * * *")
    engine = await world.engine(starts=False)
    await world.owner.execute(
        "update environments set archived_at = clock(), catalogue_version = catalogue_version + 1 where id = $1",
        world.mine.environment_id,
    )
    await overdue(world, 1)
    await engine.keep_once()
    await engine.keep_once()
    assert await world.value("select next_due = 'infinity' from schedules")
    assert [outcome for _, outcome in await answers(world)] == ["gone"]
    await world.owner.execute("update environments set archived_at = null where id = $1", world.mine.environment_id)
    await engine.keep_once()
    assert await world.value("select next_due < 'infinity' from schedules")
    assert await remove_app(world.pool, world.mine, URL) == 1
    await overdue(world, 2)
    await engine.react.fire_crons()
    assert {outcome for _, outcome in await answers(world)} <= {"gone", "missed"}
    assert await world.value("select count(*) from runs") == 0
