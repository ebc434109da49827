"""Waits under race: an event against the registration of the wait, and against its timeout. One outcome each, none missed.

An event that was accepted after the app's answer reached the engine must end the wait (I14); one accepted before the
call must not; what lies between may do either, but a run has exactly one outcome and every run ends.
"""

import asyncio
import os
import random
from typing import Any

import pytest

from tests.integration.engine.stage import Asked, Stage, done, ops, output, staged, waits

#: Tries in all; the full size is what is promised of a release.
TRIES = 10_000 if os.environ.get("STEPWELL_TEST_SIZE") == "full" else 150
_AT_ONCE = 50


async def _outcomes(stage: Stage, count: int) -> dict[int, Any]:
    async def all_ended() -> bool:
        return bool(
            await stage.pool.fetchval(
                "select count(*) = $2 from runs where environment_id = $1 and ended_at is not null",
                stage.scope.environment_id,
                count,
            )
        )

    await stage.until(all_ended)
    return {output(run)["n"]: output(run)["w"] for run in await stage.runs()}


async def _check(stage: Stage, tries: int) -> None:
    """One outcome in the rows, one in the history, and nothing left."""
    rows = await stage.pool.fetch(
        "select r.id, (select count(*) from history h where h.run_id = r.id and h.kind like 'wait.%') as outcomes,"
        " (select count(*) from history h where h.run_id = r.id and h.kind = 'run.completed') as ends"
        " from runs r where r.environment_id = $1",
        stage.scope.environment_id,
    )
    assert len(rows) == tries
    assert all((row["outcomes"], row["ends"]) == (1, 1) for row in rows)
    assert await stage.left_over() == {}


@pytest.mark.timeout(60 + TRIES * 0.2)
async def test_an_event_sent_when_the_wait_is_being_registered_is_not_missed(database: str) -> None:
    """The event is accepted at the moment the app answers: before, within or after the commit of the wait."""
    rng = random.Random(7)
    async with staged(database) as stage:
        senders: set[asyncio.Task[Any]] = set()

        async def send(number: int, delay: float) -> None:
            await asyncio.sleep(delay)
            await stage.send("order/paid", {"n": number})

        async def script(asked: Asked) -> object:
            number = asked.event["data"]["n"]
            if "w" in asked.steps:
                return done({"n": number, "w": (asked.steps["w"] or {}).get("data")})
            # As if the app sent it with its last breath: accepted after the engine has read the answer, or as it does.
            task = asyncio.create_task(send(number, rng.choice((0.0, 0.0, 0.001, 0.003, 0.01))))
            senders.add(task)
            task.add_done_callback(senders.discard)
            await asyncio.sleep(0)
            return ops(waits("w", "order/paid", "1h", "event.data.n == async.data.n"))

        stage.plays("shop-wait", script, event="order/made")
        await stage.sync()
        await stage.start(2)
        sent = 0
        while sent < TRIES:
            room = min(_AT_ONCE, TRIES - sent)
            await stage.send_all([{"name": "order/made", "data": {"n": sent + i}} for i in range(room)])
            sent += room
            missed: set[int] = set()
            try:
                await asyncio.wait_for(_outcomes(stage, sent), 15)
            except TimeoutError:
                missed = await _still_waiting(stage)
            assert not missed, f"missed: {sorted(missed)}"
        outcomes = await _outcomes(stage, TRIES)
        assert outcomes == {n: {"n": n} for n in range(TRIES)}
        await _check(stage, TRIES)


@pytest.mark.timeout(60 + TRIES * 0.2)
async def test_an_event_against_the_timeout_gives_one_of_the_two(database: str) -> None:
    """Half of the events come just as the wait runs out; whoever loses changes nothing."""
    rng = random.Random(11)
    async with staged(database) as stage:

        async def script(asked: Asked) -> object:
            number = asked.event["data"]["n"]
            if "w" in asked.steps:
                return done({"n": number, "w": (asked.steps["w"] or {}).get("data")})
            return ops(waits("w", "order/paid", "1s", "event.data.n == async.data.n"))

        async def pay(number: int) -> None:
            await asyncio.sleep(1.0 + rng.uniform(-0.05, 0.15))
            await stage.send("order/paid", {"n": number})

        stage.plays("shop-wait", script, event="order/made")
        await stage.sync()
        await stage.start(2)
        sent = 0
        while sent < TRIES:
            room = min(_AT_ONCE, TRIES - sent)
            await stage.send_all([{"name": "order/made", "data": {"n": sent + i}} for i in range(room)])
            await asyncio.gather(*(pay(sent + i) for i in range(room)))
            sent += room
            await _outcomes(stage, sent)
        outcomes = await _outcomes(stage, TRIES)
        assert set(outcomes) == set(range(TRIES))
        assert all(outcome is None or outcome == {"n": n} for n, outcome in outcomes.items())
        await _check(stage, TRIES)


async def _still_waiting(stage: Stage) -> set[int]:
    rows = await stage.pool.fetch(
        "select (e.payload::json->'data'->>'n')::int as n from runs r join events e on e.id = r.event_id"
        " where r.environment_id = $1 and r.ended_at is null",
        stage.scope.environment_id,
    )
    return {row["n"] for row in rows}
