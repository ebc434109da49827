"""What is used is counted once: runs that start, steps of runs that end, events; whoever counts, and however often."""

from datetime import timedelta
from typing import Any

from app.billing.usage import WINDOW, count_events
from app.domain.scope import Scope
from app.engine.keepers import merge
from app.engine.replay import replay
from tests.integration.engine.played import playing
from tests.integration.engine.test_replay import Order
from tests.integration.engine.world import World, failure, in_turn, ops, sleeps
from tests.integration.engine.world import result as done


async def used(world: Any, scope: Scope) -> tuple[int, int, int]:
    """Runs, steps and events of an environment, after the keepers had their turn on counters that are an hour old."""
    await world.rows("update usage_minutes set minute = minute - interval '1 hour' where shard <> 0 returning 1")
    await merge.run_once(world.pool)
    rows = await world.rows(
        "select coalesce(sum(runs), 0)::int, coalesce(sum(steps), 0)::int, coalesce(sum(events), 0)::int from usage_days"
        " where environment_id = $1",
        scope.environment_id,
    )
    return tuple(rows[0])


async def test_a_run_of_five_steps_is_six_executions_and_counting_again_changes_nothing(world: World) -> None:
    await world.function("good", in_turn("a", "b", "c", "d", "e"))
    await world.engine()
    await world.ended(await world.begin("good"))
    assert (await used(world, world.mine))[:2] == (1, 5)
    await world.ended(await world.begin("good"))
    assert (await used(world, world.mine))[:2] == (2, 10)
    assert (await used(world, world.mine))[:2] == (2, 10)
    assert (await used(world, world.theirs))[:2] == (0, 0)


async def test_attempts_are_not_counted_and_steps_count_when_their_run_ends_however_it_ends(world: World) -> None:
    await world.function("bad", lambda _call: failure(), retries=2)
    await world.function("slow", lambda call: done() if call.done else ops(sleeps("nap")))
    await world.engine()
    assert (await world.ended(await world.begin("bad")))["status"] == "failed"
    assert (await used(world, world.mine))[:2] == (1, 0)
    asleep = await world.begin("slow")
    await world.quiet(asleep, "sleeping")
    assert (await used(world, world.mine))[:2] == (2, 0)
    await world.make_due(asleep, "sleep")
    await world.ended(asleep)
    assert (await used(world, world.mine))[:2] == (2, 1)


async def test_a_paused_function_uses_nothing(world: World) -> None:
    await world.function("good", in_turn("a"))
    await world.rows("update functions set paused_at = clock() returning 1")
    await world.rows("update environments set catalogue_version = catalogue_version + 1 returning 1")
    await world.engine()
    assert (await world.ended(await world.begin("good")))["status"] == "skipped"
    assert (await used(world, world.mine))[:2] == (0, 0)


async def test_steps_that_a_replay_keeps_are_not_counted_again(database: str) -> None:
    async with playing(database) as played:
        order = Order()
        await played.function("order", order)
        first = await played.begin("order")
        await played.ended(first)
        before = await used(played, played.scope)
        order.broken = set()
        await played.ended(await replay(played.pool, played.scope, first))
        after = await used(played, played.scope)
        # Of three steps, the first was kept; the second failed before, and a failed step is a step.
        assert (after[0] - before[0], after[1] - before[1]) == (1, 2)


async def test_events_are_counted_once_by_however_many_keepers_and_ours_are_not(world: World) -> None:
    await world.rows("update usage_marks set until = date_trunc('hour', clock()) returning 1")
    for n in range(3):
        await world.send("order/made", {"n": n})
    await world.rows("update events set source = 'internal' where id = (select id from events limit 1) returning 1")
    await world.rows("delete from inbox returning 1")
    assert (
        await world.value("select count(*) from usage_days where environment_id = $1", world.mine.environment_id) == 0
    )
    mark = await world.value("select until from usage_marks where what = 'events'")
    now = await world.value("select clock()")
    # Time has passed: everything received so far lies in windows that are over.
    await world.rows(
        "update usage_marks set until = until - $1::interval where what = 'events' returning 1",
        (now - mark) // WINDOW * WINDOW + 2 * WINDOW,
    )
    moved = timedelta(hours=1)
    await world.rows("update events set received_at = received_at - $1::interval returning 1", moved)
    await world.rows("update usage_marks set until = until - $1::interval where what = 'events' returning 1", moved)
    assert await count_events(world.pool) > 0
    assert (await used(world, world.mine))[2] == 2
    assert await count_events(world.pool) == 0
    assert (await used(world, world.mine))[2] == 2
