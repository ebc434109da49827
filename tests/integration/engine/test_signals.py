"""Signals: one wait per name, delivered once; who is refused loses only its own run."""

import asyncio
from uuid import UUID

from app.domain.ids import RunId
from app.domain.scope import Scope
from app.engine.signals import deliver
from tests.integration.engine.stage import (
    Asked,
    Stage,
    done,
    new_scope,
    ops,
    output,
    planned,
    ran,
    sequence,
    staged,
    waits_signal,
)

CONFLICT = "Signal conflict; signal wait already exists for another run"


async def _send(stage: Stage, signal: str, payload: bytes = b"1", scope: Scope | None = None) -> RunId | None:
    found = await deliver(stage.pool, stage.clock, scope or stage.scope, signal, payload, b'"' + signal.encode() + b'"')
    return found.run_id if found else None


async def _named(stage: Stage, signal: str) -> UUID | None:
    row: UUID | None = await stage.pool.fetchval(
        "select run_id from pauses where environment_id = $1 and signal = $2",
        stage.scope.environment_id,
        signal,
    )
    return row


async def test_a_signal_ends_the_wait_with_its_name_and_data_and_is_then_used_up(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-wait", sequence(waits_signal("w", "paid/1"), ran("after", 2)), event="order/made")
        await stage.sync()
        await stage.start()
        assert await _send(stage, "paid/1") is None  # nothing is kept for later
        event = await stage.send("order/made")
        run = await stage.waiting(event)
        assert await _send(stage, "paid/1", scope=await new_scope(stage.pool)) is None
        assert await _send(stage, "paid/1", b'{"sum":9}') == run["id"]
        assert await _send(stage, "paid/1") is None
        ended = await stage.ended(event)
        assert output(ended)["w"] == {"data": {"signal": "paid/1", "data": {"sum": 9}}}
        assert await stage.left_over() == {}


async def test_a_wait_that_no_signal_ends_gets_null_and_frees_its_name(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-wait", sequence(waits_signal("w", "paid/1", timeout="1s")), event="order/made")
        await stage.sync()
        await stage.start()
        ended = await stage.ended(await stage.send("order/made"))
        assert output(ended) == {"w": None}
        assert await stage.left_over() == {}


async def test_the_second_waiter_fails_with_the_documented_error_and_the_first_one_waits_on(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-wait", sequence(waits_signal("w", "paid/1")), event="order/made", retries=4)
        await stage.sync()
        await stage.start()
        first = await stage.send("order/made")
        await stage.waiting(first)
        loser = await stage.ended(await stage.send("order/made"))
        assert (loser["status"], loser["error_code"], loser["error_name"]) == ("failed", "signal_conflict", "Error")
        assert loser["error_message"] == CONFLICT
        assert len(stage.apps.asked["shop-wait"]) == 2
        assert await _send(stage, "paid/1") is not None
        assert (await stage.ended(first))["status"] == "completed"


async def test_a_replacing_waiter_takes_the_name_and_the_older_wait_ends_by_its_timeout(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-old", sequence(waits_signal("w", "paid/1", timeout="2s")), event="order/old")
        stage.plays("shop-new", sequence(waits_signal("w", "paid/1", conflict="replace")), event="order/new")
        await stage.sync()
        await stage.start()
        old = await stage.send("order/old")
        await stage.waiting(old)
        new = await stage.send("order/new")
        run = await stage.waiting(new)
        assert await _send(stage, "paid/1", b'"for the newer"') == run["id"]
        assert output(await stage.ended(new))["w"]["data"]["data"] == "for the newer"
        assert output(await stage.ended(old)) == {"w": None}


async def test_a_cancelled_run_gives_its_name_back(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-wait", sequence(waits_signal("w", "paid/1")), event="order/made")
        await stage.sync()
        await stage.start()
        first = await stage.send("order/made")
        run = await stage.waiting(first)
        await stage.cancel(run["id"])
        assert await _named(stage, "paid/1") is None
        second = await stage.waiting(await stage.send("order/made"))
        assert await _named(stage, "paid/1") == second["id"]


async def test_a_refused_name_costs_no_other_run_of_the_moment_and_one_waiter_wins(database: str) -> None:
    """Forty runs answer at once: half want the same name, half only a step."""
    gate = asyncio.Event()

    def script(kind: str) -> object:
        async def play(asked: Asked) -> object:
            if asked.steps:
                return done(asked.steps)
            await gate.wait()
            return ops(waits_signal("w", "same") if kind == "wait" else ran("s", 1))

        return play

    async with staged(database) as stage:
        stage.plays("shop-wait", script("wait"), event="order/made")  # type: ignore[arg-type]
        stage.plays("shop-step", script("step"), event="order/made")  # type: ignore[arg-type]
        await stage.sync()
        await stage.start(2)
        await stage.send_all([{"name": "order/made"}] * 20)

        async def all_called() -> bool:
            return len(stage.apps.asked["shop-wait"]) + len(stage.apps.asked["shop-step"]) == 40

        await stage.until(all_called)
        gate.set()
        await stage.ended(function="shop-step", count=20)

        async def all_but_one() -> bool:
            rows = await stage.runs(function="shop-wait")
            return len([row for row in rows if row["status"] == "failed"]) == 19

        await stage.until(all_but_one)
        rows = await stage.runs(function="shop-wait")
        assert {row["error_code"] for row in rows if row["status"] == "failed"} == {"signal_conflict"}
        assert all(row["status"] == "completed" for row in await stage.runs(function="shop-step"))
        assert await _send(stage, "same") is not None
        await stage.ended(function="shop-wait", count=20)
        assert await stage.left_over() == {}


async def test_one_wait_takes_one_of_many_signals_sent_at_once(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-wait", sequence(waits_signal("w", "once")), event="order/made")
        await stage.sync()
        await stage.start()
        event = await stage.send("order/made")
        await stage.waiting(event)
        answers = await asyncio.gather(*(_send(stage, "once", str(n).encode()) for n in range(6)))
        (winner,) = [n for n, run in enumerate(answers) if run is not None]
        assert output(await stage.ended(event))["w"] == {"data": {"signal": "once", "data": winner}}


async def test_two_waits_of_one_group_are_both_open_and_each_takes_its_own(database: str) -> None:
    def script(asked: Asked) -> object:
        if asked.target != "step":
            return ops(ran(asked.target, 1))
        if len(asked.steps) < 3:
            missing = [waits_signal("x", "sig/x"), waits_signal("y", "sig/y"), planned("p")]
            return ops(*(step for step in missing if step["id"] not in asked.steps))
        return done(asked.steps)

    async with staged(database) as stage:
        stage.plays("shop-both", script, event="order/made")
        await stage.sync()
        await stage.start()
        event = await stage.send("order/made")

        async def both() -> bool:
            return await _named(stage, "sig/x") is not None and await _named(stage, "sig/y") is not None

        await stage.until(both)
        await _send(stage, "sig/y", b"2")
        await _send(stage, "sig/x", b"1")
        memos = output(await stage.ended(event))
        assert memos["x"]["data"]["data"] == 1 and memos["y"]["data"]["data"] == 2
