"""The bounds of one run: what is just inside completes, what is just outside ends the run at once with its code, and
neither keeps other runs waiting. `STEPWELL_TEST_SIZE=full` takes the real numbers; the small size lowers them.
"""

import asyncio
import dataclasses
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.adapters.http import Answer
from app.domain import limits
from app.domain.event import NewEvent
from app.domain.ids import RunId
from app.domain.limits import MAX_OUTPUT_BYTES, MIB, PLANS
from app.reads.machine import actions_of_run
from tests.integration.engine import played as playing_module
from tests.integration.engine.played import Played, ops, playing, ran, result
from tests.invariants import violations

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
STEPS, PARALLEL = (1000, 500) if IS_FULL else (40, 30)
#: A step's output, and the bound of the state: ten of them and the event fit, eleven do not.
CHUNK, STATE = (3 * MIB, 32 * MIB) if IS_FULL else (30_000, 320_000)
_RETRIES = {"step": {"id": "step", "name": "step", "retries": {"attempts": 3}, "runtime": {"url": playing_module.URL}}}
#: `{"data":"…"}` around a text.
_AROUND = len('""')


@pytest.fixture
async def played(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Played]:
    monkeypatch.setitem(PLANS, "self_hosted", dataclasses.replace(PLANS["self_hosted"], steps_per_run=STEPS))
    monkeypatch.setattr(limits, "MAX_STATE_BYTES", STATE)
    monkeypatch.setattr(playing_module, "PATIENCE_S", 600.0 if IS_FULL else 60.0)
    async with playing(database) as made:
        yield made
        async with made.pool.acquire() as connection:
            assert await violations(connection) == []


async def begun(played: Played, slug: str) -> RunId:
    """The run of a fresh event."""
    event_id = (await played.ingest.add(played.scope, [NewEvent(f"{slug}/sent", b'{"n":1}', 1_700_000_000_000)]))[0]
    return RunId((await played.until("select id from runs where event_id = $1", event_id))[0]["id"])


async def beside(played: Played, slug: str, call: int) -> dict[str, Any]:
    """Run `slug` to its end. In its midst, while its `call`th call is open, other runs begin and end."""
    script, count = played.scripts[slug], 0
    is_open, may_go = asyncio.Event(), asyncio.Event()

    async def held(steps: dict[str, Any], target: str | None) -> Answer:
        nonlocal count
        count += 1
        is_last = count == call
        answer = script(steps, target)
        assert isinstance(answer, Answer)
        if is_last:
            is_open.set()
            await may_go.wait()
        return answer

    played.scripts[slug] = held
    run_id = await begun(played, slug)
    async with asyncio.timeout(playing_module.PATIENCE_S):
        await is_open.wait()
    for other in [await begun(played, "other") for _ in range(3)]:
        await played.ended(other)
    may_go.set()
    row: dict[str, Any] = dict(await played.run(await played.ended(run_id)))
    return row


async def with_others(played: Played) -> None:
    """A neighbour of two steps."""

    def other(steps: dict[str, Any], target: str | None) -> Answer:
        return result("done") if len(steps) == 2 else ops(ran("ab"[len(steps)], 1))

    await played.function("other", other)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("more", [0, 1], ids=["as many as allowed", "one more"])
async def test_steps_in_sequence(played: Played, more: int) -> None:
    def counts(steps: dict[str, Any], target: str | None) -> Answer:
        return result(len(steps)) if len(steps) == STEPS + more else ops(ran(f"s{len(steps)}", len(steps)))

    await with_others(played)
    await played.function("count", counts, steps=_RETRIES)
    row = await beside(played, "count", STEPS // 10)
    assert (row["status"], row["error_code"]) == (("failed", "too_many_steps") if more else ("completed", None))
    assert (row["completed"], len(played.calls_of(row["id"]))) == (STEPS, STEPS + 1)


@pytest.mark.timeout(900)
async def test_steps_in_parallel(played: Played) -> None:
    def fans_out(steps: dict[str, Any], target: str | None) -> Answer:
        if target is not None:
            return ops(ran(target, 1))
        if len(steps) == PARALLEL:
            return result(len(steps))
        return ops(*({"op": "StepPlanned", "id": f"p{n}", "name": f"p{n}"} for n in range(PARALLEL)))

    await with_others(played)
    await played.function("fan", fans_out, steps=_RETRIES)
    row = await beside(played, "fan", PARALLEL // 10)
    assert (row["status"], row["completed"]) == ("completed", PARALLEL)
    # One call that plans, one for each step, one that sees them all: no discovery in between.
    assert len(played.calls_of(row["id"])) == PARALLEL + 2


async def test_more_steps_in_one_answer_than_a_run_may_have(played: Played) -> None:
    def fans_out(steps: dict[str, Any], target: str | None) -> Answer:
        return ops(*({"op": "StepPlanned", "id": f"p{n}", "name": f"p{n}"} for n in range(STEPS + 1)))

    await played.function("fan", fans_out, steps=_RETRIES)
    row = await played.run(await played.begin("fan"))
    assert (row["status"], row["error_code"], len(played.calls)) == ("failed", "too_many_steps", 1)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("more", [0, 1], ids=["as large as allowed", "one byte more"])
async def test_the_output_of_a_step(played: Played, more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_STATE_BYTES", 32 * MIB)
    text = "x" * (MAX_OUTPUT_BYTES - _AROUND + more)

    def gives(steps: dict[str, Any], target: str | None) -> Answer:
        return ops(ran("big", text)) if played.calls_of_last() == 1 else result("done")

    await with_others(played)
    await played.function("big", gives, steps=_RETRIES)
    row = await beside(played, "big", 1)
    if more:
        assert (row["status"], row["error_code"]) == ("failed", "output_too_large")
        assert len(played.calls_of(row["id"])) == 1
    else:
        assert (row["status"], row["error_code"]) == ("completed", None)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("chunks", [10, 11], ids=["inside", "outside"])
async def test_the_state_of_a_run(played: Played, chunks: int) -> None:
    text = "x" * CHUNK

    def gathers(steps: dict[str, Any], target: str | None) -> Answer:
        count = played.calls_of_last() - 1
        return result(count) if count == chunks else ops(ran(f"s{count}", text))

    await with_others(played)
    await played.function("big", gathers, steps=_RETRIES)
    row = await beside(played, "big", 2)
    if chunks == 11:
        assert (row["status"], row["error_code"]) == ("failed", "state_too_large")
        assert (row["completed"], len(played.calls_of(row["id"]))) == (10, 11)
    else:
        assert (row["status"], row["completed"]) == ("completed", 10)
        # What is too large to be sent is there to be fetched.
        async with played.pool.acquire() as connection:
            body = await actions_of_run(connection, played.scope, row["id"])
        assert body is not None
        assert [len(memo["data"]) for memo in json.loads(body).values()] == [CHUNK] * 10
