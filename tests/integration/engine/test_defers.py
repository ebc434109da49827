"""Functions that a run defers: started once when it has ended, unless aborted; never a reason for it to fail."""

from typing import Any

import pytest

from tests.integration.engine.stage import Asked, Stage, done, failed, op, ops, ran, run_text, sleeps, staged

DEFERRED = "inngest/deferred.schedule"


def adds(key: str, slug: str = "shop-later", **given: Any) -> dict[str, Any]:
    return op("DeferAdd", key, opts={"fn_slug": slug, **given})


def aborts(key: str) -> dict[str, Any]:
    return op("DeferAbort", f"{key}.abort", opts={"target_hashed_id": key})


def completes(value: object) -> dict[str, Any]:
    return op("RunComplete", "0737", data=value)


async def _with_later(stage: Stage) -> None:
    stage.plays("shop-later", lambda asked: done(asked.event["data"]["n"]))
    stage.configs["shop-later"]["triggers"] = [
        {"event": DEFERRED, "expression": "event.data._inngest.fn_slug == 'shop-later'"}
    ]
    await stage.sync()
    await stage.start()


async def _states(stage: Stage, run: Any) -> dict[str, str]:
    rows = await stage.pool.fetch("select defer_key, state from defers where run_id = $1", run["id"])
    return {row["defer_key"]: row["state"] for row in rows}


async def test_a_defer_starts_its_function_with_the_input_when_the_run_has_ended(database: str) -> None:
    def script(asked: Asked) -> object:
        if not asked.steps:
            return ops(adds("d1", input={"n": 1}, meta={"sessions": {"chat": "c"}}), ran("a"))
        if "z" not in asked.steps:
            return ops(sleeps("z", "1s"))
        return ops(adds("d1", input={"n": 99}), adds("d2", input={"n": 2}), completes("ok"))

    async with staged(database) as stage:
        stage.plays("shop-pay", script, event="order/made")
        await _with_later(stage)
        event = await stage.send("order/made")

        async def sleeping() -> Any:
            rows = await stage.runs(event)
            return rows and await stage.memo(rows[0], "a")

        await stage.until(sleeping)
        assert await stage.events(DEFERRED) == []
        run = await stage.ended(event)
        await stage.ended(function="shop-later", count=2)
        # The first one says where it comes from, and keeps its sessions.
        first, second = sorted(await stage.events(DEFERRED), key=lambda one: int(one["data"]["n"]))
        assert (first["data"]["n"], second["data"]["n"]) == (1, 2)
        assert first["meta"] == {"sessions": {"chat": "c"}}
        meta = first["data"]["_inngest"]
        assert (meta["fn_slug"], meta["parent_fn_slug"], meta["parent_run_id"]) == (
            "shop-later",
            "shop-pay",
            run_text(run),
        )
        assert await _states(stage, run) == {"d1": "scheduled", "d2": "scheduled"}
        assert [call.body["defers"] for call in stage.apps.asked["shop-pay"]] == [
            {},
            {"d1": {"abortable": True}},
            {"d1": {"abortable": True}},
        ]


async def test_an_aborted_defer_starts_nothing(database: str) -> None:
    def script(asked: Asked) -> object:
        if not asked.steps:
            return ops(adds("d1", input={"n": 1}), adds("d2", input={"n": 2}), aborts("d2"), ran("a"))
        assert asked.body["defers"] == {"d1": {"abortable": True}, "d2": {"abortable": False}}
        return ops(aborts("d1"), aborts("nobody"), completes(None))

    async with staged(database) as stage:
        stage.plays("shop-pay", script, event="order/made")
        await _with_later(stage)
        run = await stage.ended(await stage.send("order/made"))
        assert run["status"] == "completed"
        assert await _states(stage, run) == {"d1": "aborted", "d2": "aborted"}
        assert await stage.events(DEFERRED) == []


async def test_a_run_that_fails_still_starts_what_it_deferred(database: str) -> None:
    def script(asked: Asked) -> object:
        return failed() if asked.steps else ops(adds("d1", input={"n": 1}), ran("a"))

    async with staged(database) as stage:
        stage.plays("shop-pay", script, event="order/made")
        await _with_later(stage)
        assert (await stage.ended(await stage.send("order/made")))["status"] == "failed"
        assert (await stage.ended(function="shop-later"))["status"] == "completed"


@pytest.mark.parametrize(
    ("said", "states"),
    [
        ([adds(f"d{n:02}", input={"n": n}) for n in range(22)], {"scheduled": 20, "rejected": 2}),
        ([adds(f"d{n}", input={"n": 1, "x": "x" * 1_500_000}) for n in range(4)], {"scheduled": 2, "rejected": 2}),
        ([adds("d1", input=[1])], {"rejected": 1}),
        ([op("DeferAdd", "d1", opts={"input": {}}), op("DeferAdd", "d2", opts=None)], {}),
    ],
)
async def test_defers_above_a_limit_are_kept_as_rejected_and_the_run_goes_on(
    database: str, said: list[dict[str, Any]], states: dict[str, int]
) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", lambda asked: ops(*said, completes(1)), event="order/made")
        await _with_later(stage)
        run = await stage.ended(await stage.send("order/made"))
        found = list((await _states(stage, run)).values())
        assert (run["status"], {state: found.count(state) for state in set(found)}) == ("completed", states)
        if states.get("scheduled"):
            await stage.ended(function="shop-later", count=states["scheduled"])
