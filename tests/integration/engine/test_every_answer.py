"""Every event has an answer for every function it touches: a run, or a recorded reason. One event, all the reasons there are."""

from typing import Any

from app.engine.pause import pause_function
from tests.integration.engine.world import Gate, World, result

DONE: Any = lambda _call: result()  # noqa: E731 - one answer for all


async def test_every_function_an_event_touches_has_a_run_or_its_reason(world: World) -> None:
    gate = Gate()
    functions: dict[str, dict[str, Any]] = {
        "plain": {},
        "filtered": {"triggers": [{"event": "it/happened", "expression": "event.data.n > 100"}]},
        "broken": {"triggers": [{"event": "it/happened", "expression": "event.data.s - 1 > 0 || event.data.s / 2"}]},
        "paused": {},
        "limited": {"rateLimit": {"limit": 1, "period": "24h"}},
        "once": {"idempotency": "event.data.n"},
        "quiet": {"debounce": {"period": "1h"}},
        "bundled": {"batchEvents": {"maxSize": 10, "timeout": "60s"}},
        "single": {"singleton": {"mode": "skip"}},
        "other": {"triggers": [{"event": "something/else"}]},
    }
    for slug, more in functions.items():
        triggers = more.pop("triggers", [{"event": "it/happened"}])
        await world.function(slug, gate if slug == "single" else DONE, **more)
        world._configs[world.mine.environment_id][-1]["triggers"] = triggers
    await world.function("last", DONE)
    await pause_function(world.pool, world.mine, world.function_id("paused"))  # type: ignore[arg-type]
    await world.engine()
    await world.send("it/happened", {"n": 1, "s": "text"})
    _, reply = await gate.next()
    event_id = await world.send("it/happened", {"n": 1, "s": "text"})
    await world.until(lambda: world.value("select not exists (select from inbox)"))

    async def answers(event: Any) -> dict[str, str]:
        rows = await world.rows(
            "select f.slug, coalesce(d.outcome, 'run') as outcome from functions f"
            " left join dispositions d on d.function_id = f.id and d.event_id = $1"
            " left join runs r on r.function_id = f.id and r.event_id = $1 where d.outcome is not null or r.id is not null",
            event,
        )
        return {row["slug"]: row["outcome"] for row in rows}

    assert await answers(event_id) == {
        "plain": "run",
        "filtered": "filtered",
        "broken": "expression_error",
        "paused": "paused",
        "limited": "rate_limited",
        "once": "duplicate",
        "quiet": "debounced",
        "bundled": "batched",
        "single": "singleton",
    }
    # An id seen before needs an event of its own.
    await world.send("last/sent", client_id="mine")
    same = await world.send("last/sent", client_id="mine")
    await world.until(lambda: world.value("select not exists (select from inbox)"))
    assert await answers(same) == {"last": "duplicate"}
    reply.set_result(result())


async def test_a_run_that_starts_later_for_a_full_backlog_says_so(world: World) -> None:
    await world.owner.execute("update accounts set plan = 'free' where id = $1", world.mine.account_id)
    await world.function("order", DONE)
    engine = await world.engine(starts=False)
    engine.react.schedule._backlogs[world.mine.environment_id] = (await world.value("select clock()"), True)
    event_id = await world.send("order/sent")
    await engine.react.round(0)
    row = await world.row("select outcome, run_id from dispositions where event_id = $1", event_id)
    assert row["outcome"] == "backlog"
    assert row["run_id"] == await world.value("select id from runs")
