"""An account whose allowance is used up: events are kept, what runs goes on to its end, nothing new begins."""

from typing import Any

import pytest

from app.engine.replay import ReplayRefused, replay
from app.store import billing
from tests.integration.engine.world import World, in_turn, invokes, ops, result, sleeps

REASON = "the executions or events that the plan includes this month are used up"


async def stop(world: World, reason: str | None) -> None:
    async with world.pool.acquire() as connection:
        await billing.set_standing(
            connection, world.mine.account_id, plan="free", stops_for=reason, notice="", is_loud=True
        )


async def test_new_runs_are_skipped_with_the_reason_and_events_are_kept(world: World) -> None:
    await world.function("good", in_turn("a"))
    await world.engine()
    before = await world.begin("good")
    await world.ended(before)
    await stop(world, "allowance")
    run = await world.ended(await world.begin("good"))
    assert (run["status"], run["error_code"], run["error_message"]) == ("skipped", "allowance", REASON)
    answers = await world.rows("select outcome, run_id from dispositions where event_id = $1", run["event_id"])
    assert [tuple(row) for row in answers] == [("allowance", run["id"])]
    assert await world.value("select count(*) from events where id = $1", run["event_id"]) == 1
    assert world.apps.of(run["id"]) == []

    with pytest.raises(ReplayRefused) as refused:
        await replay(world.pool, world.mine, before)
    assert refused.value.code == "quota_exceeded"

    await stop(world, None)
    again = await replay(world.pool, world.mine, run["id"], from_step="start")
    assert (await world.ended(again))["status"] == "completed"


async def test_what_has_begun_goes_on_with_the_functions_it_invokes(world: World) -> None:
    child: list[Any] = []

    def parent(call: Any) -> Any:
        if "nap" not in call.done:
            return ops(sleeps("nap"))
        if "child" not in call.done:
            return ops(invokes("child", "child"))
        return result(call.steps["child"])

    def answer(call: Any) -> Any:
        child.append(call.run_id)
        return result("from the child")

    await world.function("parent", parent)
    await world.function("child", answer)
    await world.engine()
    run_id = await world.begin("parent")
    await world.quiet(run_id, "sleeping")
    await stop(world, "spend_cap")
    await world.make_due(run_id, "sleep")
    assert (await world.ended(run_id))["status"] == "completed"
    assert len(child) == 1


async def test_the_neighbour_is_not_stopped(world: World) -> None:
    await world.function("good", in_turn("a"))
    await world.function("good", in_turn("a"), scope=world.theirs)
    await world.engine()
    await stop(world, "allowance")
    sent = await world.send("good/sent", {}, scope=world.theirs)
    (theirs,) = await world.runs_of(sent)
    assert (await world.ended(theirs))["status"] == "completed"
