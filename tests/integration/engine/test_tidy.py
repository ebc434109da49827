"""Lanes, keys and gates of key values out of use go, and nothing that is waited for goes with them."""

from typing import Any

from app.adapters.http import Answer
from app.engine.keepers import tidy
from tests.integration.engine.world import Call, Gate, World, result

_AGE = "update lanes set served_at = served_at - interval '2 hours', retired_at = retired_at - interval '2 hours'"


def at_once(_call: Call) -> Answer:
    return result()


async def keyed_lanes(world: World) -> Any:
    return await world.value("select count(*) from lanes where key <> ''")


async def test_an_unused_lane_is_dropped_in_two_looks_and_comes_back(world: World) -> None:
    await world.function("order", at_once, concurrency={"limit": 1, "key": "event.data.user"})
    await world.engine()
    await world.send_many([("order/sent", {"user": n}) for n in range(5)])
    await world.all_ended()
    await world.until(
        lambda: world.value("select not exists (select from lanes where key <> '' and next_due < 'infinity')")
    )
    await world.owner.execute(_AGE)
    await tidy.run_once(world.pool)
    assert await keyed_lanes(world) == 5
    await world.owner.execute(_AGE)
    await tidy.run_once(world.pool)
    assert await keyed_lanes(world) == 0
    assert await world.value("select count(*) from flow_keys") == 0
    await world.send("order/sent", {"user": 1})
    await world.all_ended()
    assert await keyed_lanes(world) == 1


async def test_a_lane_that_is_used_again_after_it_was_marked_stays(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, concurrency={"limit": 1, "key": "event.data.user"})
    await world.engine()
    await world.begin("order", {"user": 1})
    _, answer = await gate.next()
    # Only leased work is left in the lane: by its clock and its ready items it looks unused.
    await world.owner.execute("update lanes set retired_at = clock() - interval '1 day', next_due = 'infinity'")
    await tidy.run_once(world.pool)
    assert await world.value("select count(*) from lanes where key <> '' and retired_at is null") == 1
    answer.set_result(result())
    await world.all_ended()


async def test_the_gate_of_a_singleton_stays_as_long_as_its_run(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, singleton={"mode": "skip"})
    await world.function("limited", at_once, rateLimit={"limit": 1, "period": "1h"})
    await world.engine()
    await world.begin("order")
    _, answer = await gate.next()
    await world.ended(await world.begin("limited"))
    await world.owner.execute("update gates set touched_at = clock() - interval '9 days'")
    await tidy.run_once(world.pool)
    assert await world.column("select kind from gates") == ["singleton"]
    answer.set_result(result())
    await world.all_ended()
