"""Every kind of answer, from the app's bytes to the run's end."""

import json
from datetime import timedelta
from typing import Any

import pytest

from app.adapters.http import Answer
from app.domain.limits import MAX_OUTPUT_BYTES
from app.reads import machine
from app.store.db import open_page_pool, tenant
from tests.integration.engine.stage import (
    SDK,
    Asked,
    done,
    failed,
    op,
    ops,
    output,
    ran,
    sequence,
    sleeps,
    staged,
)

MIB = 1 << 20


async def _only(database: str, script: Any, *, retries: int = 0, **settings: Any) -> tuple[Any, list[Asked]]:
    """The one run of a function, once it has ended, and the calls it took."""
    async with staged(database, **settings) as stage:
        stage.plays("shop-pay", script, event="order/made", retries=retries)
        await stage.sync()
        await stage.start()
        return await stage.ended(await stage.send("order/made")), stage.apps.asked["shop-pay"]


async def test_a_streamed_answer_is_what_its_envelope_says(database: str) -> None:
    def script(asked: Asked) -> Answer:
        inner: Any = [ran("a", 1)] if not asked.steps else {"done": True}
        status = 200 if asked.steps else 206
        envelope = {"status": status, "headers": dict(SDK), "body": json.dumps(inner), "version": 2}
        return Answer(201, dict(SDK), b"   \n " + json.dumps(envelope).encode(), 1.0)

    run, calls = await _only(database, script)
    assert (run["status"], output(run), len(calls)) == ("completed", {"done": True}, 2)


async def test_an_endpoint_that_takes_less_is_called_again_at_once_and_fetches_its_state(database: str) -> None:
    seen: list[Any] = []

    async with staged(database) as stage:

        async def script(asked: Asked) -> Answer:
            if asked.size > 3000:
                return Answer(413, {"content-type": "text/html"}, b"<html>", 1.0)
            if not asked.body["use_api"]:
                return ops(ran("big", "x" * 3000)) if not asked.steps else done("never")
            pages = await open_page_pool(database, size=1)
            async with tenant(pages, stage.scope.account_id) as connection:
                (run,) = await stage.runs()
                steps = await machine.actions_of_run(connection, stage.scope, run["id"])
            await pages.close()
            seen.append(json.loads(steps or b"{}"))
            return ops(ran("after", 1)) if "after" not in seen[-1] else done(sorted(seen[-1]))

        stage.plays("shop-pay", script, event="order/made")
        await stage.sync()
        await stage.start()
        run = await stage.ended(await stage.send("order/made"))
        assert (run["status"], output(run)) == ("completed", ["after", "big"])
        assert seen[0] == {"big": {"data": "x" * 3000}}
        # Refused once; from then on calls of that size are not even tried whole.
        sizes = [call.size > 3000 for call in stage.apps.asked["shop-pay"]]
        assert sizes == [False, True, False, False]
        assert [call.attempt for call in stage.apps.asked["shop-pay"]] == [0, 0, 0, 0]


async def test_go_cannot_fetch_so_its_413_is_an_error_like_others(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", lambda asked: Answer(413, {}, b"too large", 1.0), event="order/made")
        await stage.sync(sdk="go:v0.15.1")
        await stage.start()
        run = await stage.ended(await stage.send("order/made"))
        assert (run["status"], run["error_code"]) == ("failed", "app_http_error")
        assert not any(call.body["use_api"] for call in stage.apps.asked["shop-pay"])


@pytest.mark.parametrize(
    ("answers", "calls", "status"),
    [
        ([failed(), failed(status=400), done(1)], 3, "completed"),
        ([failed(), failed(x_inngest_no_retry="true")], 2, "failed"),
        ([failed(status=400, x_inngest_no_retry="true")], 1, "failed"),
        ([failed(status=404, x_inngest_no_retry="false"), done(1)], 2, "completed"),
        ([Answer(200, {}, b"<html>", 1.0), done(1)], 2, "completed"),
        ([Answer(502, {}, b"bad gateway", 1.0), done(1)], 2, "completed"),
        ([Answer(206, dict(SDK), b"{", 1.0), done(1)], 2, "completed"),
        ([Answer(302, dict(SDK), b"", 1.0), done(1)], 2, "completed"),
    ],
)
async def test_whether_a_failed_call_is_made_again(
    database: str, answers: list[Answer], calls: int, status: str
) -> None:
    left = iter(answers)
    run, asked = await _only(database, lambda _: next(left), retries=4)
    assert (run["status"], len(asked)) == (status, calls)
    assert [call.attempt for call in asked] == list(range(calls))


async def test_a_retry_comes_when_the_app_asked_for_it(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", lambda asked: failed(retry_after="3600"), event="order/made", retries=1)
        await stage.sync()
        await stage.start()
        await stage.send("order/made")

        async def retrying() -> Any:
            return await stage.pool.fetchrow("select due_at, clock() as now from items where attempt = 1")

        row = await stage.until(retrying)
        assert timedelta(minutes=59) < row["due_at"] - row["now"] <= timedelta(hours=1)


async def test_a_step_that_fails_is_tried_again_by_itself_and_its_last_error_is_given_to_the_function(
    database: str,
) -> None:
    def script(asked: Asked) -> Answer:
        if "bad" not in asked.steps:
            return ops(op("StepError", "bad", error={"name": "Oops", "message": str(asked.attempt), "data": None}))
        return done(asked.steps["bad"]["error"])

    run, asked = await _only(database, script, retries=2)
    assert output(run) == {"name": "Oops", "message": "2", "data": None}
    assert [call.attempt for call in asked] == [0, 1, 2, 0]


async def _ends_with(database: str, script: Any, code: str, name: str, calls: int) -> None:
    run, asked = await _only(database, script, retries=4)
    assert (run["status"], run["error_code"], run["error_name"]) == ("failed", code, name)
    assert len(asked) == calls


async def test_a_thousand_steps_are_allowed_and_one_more_ends_the_run_at_once(database: str) -> None:
    def script(most: int) -> Any:
        def play(asked: Asked) -> Answer:
            if not asked.steps:
                return ops(*(ran(f"s{n}", n) for n in range(999)))
            return ops(ran(f"s{len(asked.steps)}")) if len(asked.steps) < most else done(len(asked.steps))

        return play

    run, _ = await _only(database, script(1000))
    assert (run["status"], output(run)) == ("completed", 1000)
    await _ends_with(database, script(1001), "too_many_steps", "InngestErrFunctionOverflowed", 3)


async def test_an_output_of_four_mib_is_allowed_and_one_byte_more_ends_the_run_at_once(database: str) -> None:
    def script(size: int) -> Any:
        def play(asked: Asked) -> Answer:
            return done("ok") if asked.body["use_api"] or asked.steps else ops(ran("a", "x" * (size - 2)))

        return play

    run, asked = await _only(database, script(MAX_OUTPUT_BYTES))
    assert (output(run), asked[-1].body["use_api"], asked[-1].body["events"]) == ("ok", True, [])
    await _ends_with(database, script(MAX_OUTPUT_BYTES + 1), "output_too_large", "output_too_large", 1)


async def test_a_state_of_more_than_32_mib_ends_the_run_at_once(database: str) -> None:
    count = 0

    def script(_: Asked) -> Answer:
        nonlocal count
        count += 1
        return ops(ran(f"s{count}", "x" * (4 * MIB - 100)))

    await _ends_with(database, script, "state_too_large", "InngestErrStateOverflowed", 9)


async def test_the_longest_sleep_is_the_plans(database: str) -> None:
    run, _ = await _only(database, sequence(sleeps("z", "8d")), plan="free")
    assert (run["status"], run["error_code"], run["error_name"]) == (
        "failed",
        "timeout_too_long",
        "InngestErrTimeoutTooLong",
    )
    run, _ = await _only(database, sequence(sleeps("z", "367d")))
    assert run["error_code"] == "timeout_too_long"
    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(sleeps("z", "8d")), event="order/made")
        await stage.sync()
        await stage.start()
        event = await stage.send("order/made")

        async def asleep() -> Any:
            return await stage.pool.fetchval(
                "select count(*) from items where kind = 'sleep' and environment_id = $1", stage.scope.environment_id
            )

        await stage.until(asleep)
        assert (await stage.runs(event))[0]["status"] == "running"
