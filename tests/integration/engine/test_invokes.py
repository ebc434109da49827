"""Invoked functions: what the parent gets of each end of its child, and what the child gets of its parent."""

import json
from typing import Any

import pytest

from app.domain.event import read_invoke
from app.engine.sync import function_id_of
from tests.integration.engine.stage import (
    Asked,
    Stage,
    done,
    failed,
    invokes,
    ops,
    output,
    ran,
    sequence,
    sleeps,
    staged,
    waits,
)


async def _parent_of(stage: Stage, child: str, payload: dict[str, Any] | None = None, timeout: str = "") -> Any:
    stage.plays("shop-parent", sequence(invokes("i", child, payload, timeout)), event="order/made")
    await stage.sync()
    await stage.start()
    return await stage.ended(await stage.send("order/made"))


async def test_the_parent_gets_the_childs_result_and_the_child_gets_the_payload(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-child", lambda asked: done({"sum": asked.event["data"]["n"] + 1}))
        payload = {
            "data": {"n": 1, "_inngest": "forged"},
            "user": {"name": "Ada"},
            "v": "7",
            "id": "once",
            "meta": {"sessions": {"chat": "c1"}},
        }
        parent = await _parent_of(stage, "shop-child", payload)
        assert output(parent) == {"i": {"data": {"sum": 2}}}
        (event,) = await stage.events("inngest/function.invoked")
        assert event == stage.apps.asked["shop-child"][0].event
        assert (event["id"], event["user"], event["v"], event["meta"]) == (
            "once",
            {"name": "Ada"},
            "7",
            {"sessions": {"chat": "c1"}},
        )
        meta = event["data"]["_inngest"]
        assert (meta["fn_id"], meta["name"]) == ("shop-child", "i")
        finished = await stage.events("inngest/function.finished")
        of_child = next(one for one in finished if one["data"]["function_id"] == "shop-child")
        assert of_child["data"]["correlation_id"] == meta["correlation_id"]
        assert of_child["meta"] == {"sessions": {"chat": "c1"}}


async def test_a_function_may_be_named_by_its_id_and_belong_to_another_app(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("bank-pay", lambda asked: done("paid"))
        await stage.sync(app="bank")
        stage.configs.clear()
        parent = await _parent_of(stage, str(function_id_of(stage.scope, "bank-pay")))
        assert output(parent) == {"i": {"data": "paid"}}


async def test_a_childs_last_error_is_an_error_the_parent_may_catch(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-child", lambda asked: failed("out of stock", x_inngest_no_retry="true"))
        parent = await _parent_of(stage, "shop-child")
        error = output(parent)["i"]["error"]
        assert (error["name"], error["message"], error["data"]) == ("Error", "out of stock", None)


async def test_an_unknown_function_is_an_error_at_once(database: str) -> None:
    async with staged(database) as stage:
        parent = await _parent_of(stage, "shop-nowhere")
        error = output(parent)["i"]["error"]
        assert error["message"] == "could not find function with ID: shop-nowhere"
        assert await stage.left_over() == {}


@pytest.mark.parametrize("more", [{}, {"rateLimit": {"limit": 100, "period": "1h"}}], ids=["plain", "gated"])
async def test_a_payload_id_that_was_used_before_is_an_error_at_once(database: str, more: dict[str, Any]) -> None:
    async with staged(database) as stage:
        stage.plays("shop-child", lambda asked: done("ran"), **more)
        steps = [invokes("i", "shop-child", {"id": "once"}), invokes("j", "shop-child", {"id": "once"})]
        stage.plays("shop-parent", sequence(*steps), event="order/made")
        await stage.sync()
        await stage.start()
        parent = await stage.ended(await stage.send("order/made"))
        assert output(parent)["i"] == {"data": "ran"}
        assert "started with this event id before" in output(parent)["j"]["error"]["message"]
        assert len(stage.apps.asked["shop-child"]) == 1
        assert await stage.left_over() == {}


async def test_a_cancelled_child_is_an_error_of_the_parents_step(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-child", sequence(waits("w", "never/comes")))
        stage.plays("shop-parent", sequence(invokes("i", "shop-child")), event="order/made")
        await stage.sync()
        await stage.start()
        event = await stage.send("order/made")

        async def child_waits() -> Any:
            rows = await stage.runs(function="shop-child")
            return rows and await stage.memo(rows[0], "w") is None and rows[0]["status"] == "running" and rows[0]

        child = await stage.until(child_waits)
        await stage.cancel(child["id"])
        error = output(await stage.ended(event))["i"]["error"]
        assert "cancelled" in error["message"]
        assert (await stage.runs(function="shop-child"))[0]["status"] == "cancelled"


async def test_a_child_that_is_too_slow_fails_the_step_and_goes_on_by_itself(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-child", sequence(sleeps("z", "2s")))
        parent = await _parent_of(stage, "shop-child", timeout="1s")
        error = output(parent)["i"]["error"]
        assert (error["name"], error["message"]) == (
            "InngestInvokeTimeoutError",
            "Timed out waiting for invoked function to complete",
        )
        child = await stage.ended(function="shop-child")
        assert child["status"] == "completed"


_TIMED_OUT = ("InngestInvokeTimeoutError", "Timed out waiting for invoked function to complete")


async def test_a_skipped_child_leaves_its_parent_waiting_for_its_timeout(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-child", sequence(waits("w", "never", "1h")), event="child/go", singleton={"mode": "skip"})
        stage.plays("shop-parent", sequence(invokes("i", "shop-child", timeout="2s")), event="order/made")
        await stage.sync()
        await stage.start()
        holder = await stage.waiting(await stage.send("child/go"))
        parent = await stage.ended(await stage.send("order/made"))

        error = output(parent)["i"]["error"]
        assert (error["name"], error["message"]) == _TIMED_OUT
        children = {row["id"]: row["status"] for row in await stage.runs(function="shop-child")}
        assert children.pop(holder["id"]) == "running"
        assert list(children.values()) == ["skipped"]


async def test_of_two_invokes_of_a_debounced_function_the_later_gets_the_result(database: str) -> None:
    """The timer is set off by hand, so that it does not matter how long the second one takes to come."""
    async with staged(database) as stage:
        stage.plays("shop-child", lambda asked: done(asked.event["data"]["n"]), debounce={"period": "1h"})
        made = sequence(invokes("i", "shop-child", {"data": {"n": 1}}, "1s"))
        paid = sequence(invokes("i", "shop-child", {"data": {"n": 2}}, "2h"))
        stage.plays("shop-made", made, event="order/made")
        stage.plays("shop-paid", paid, event="order/paid")
        await stage.sync()
        await stage.start()
        gate = "from gates where environment_id = $1 and kind = 'debounce'"

        async def kept() -> Any:
            return await stage.pool.fetchval(f"select event_id {gate}", stage.scope.environment_id)

        async def is_replaced() -> bool:
            return bool(await kept() != before)

        first = await stage.send("order/made")
        before = await stage.until(kept)
        second = await stage.send("order/paid")
        await stage.until(is_replaced)
        error = output(await stage.ended(first))["i"]["error"]
        await stage.pool.execute(
            f"update gates set due_at = clock() where (environment_id, kind) in (select environment_id, kind {gate})",
            stage.scope.environment_id,
        )

        assert (error["name"], error["message"]) == _TIMED_OUT
        assert output(await stage.ended(second)) == {"i": {"data": 2}}


async def test_a_parent_that_ends_first_leaves_its_child_alone(database: str) -> None:
    def parent(asked: Asked) -> object:
        return ops(invokes("i", "shop-child"), ran("r", 1)) if not asked.steps else done("enough")

    async with staged(database) as stage:
        stage.plays("shop-child", sequence(sleeps("z", "1s")))
        stage.plays("shop-parent", parent, event="order/made")
        await stage.sync()
        await stage.start()
        assert output(await stage.ended(await stage.send("order/made"))) == "enough"
        assert (await stage.ended(function="shop-child"))["status"] == "completed"
        assert await stage.left_over() == {}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data":null}'])
def test_an_invoke_without_data_is_an_event_with_nothing_but_its_function(body: bytes) -> None:
    event = read_invoke(body, "shop-pay", max_event_bytes=10_000, received_ms=1)
    assert (event.name, json.loads(event.data)) == ("inngest/function.invoked", {"_inngest": {"fn_id": "shop-pay"}})


async def test_an_invoke_by_request_starts_that_function_only(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-pay", lambda asked: done(asked.event["data"]["n"]))
        stage.plays("shop-other", lambda asked: done(), event="order/made")
        await stage.sync()
        await stage.start()
        event = read_invoke(
            b'{"data":{"n":4},"v":"2"}', "shop-pay", max_event_bytes=10_000, received_ms=1_700_000_000_000
        )
        seed = "1743130137367,eii2YKXRVTJPuA=="
        first = await stage.ingest.add(stage.scope, [event], seed=seed, body=b"x", start=0)
        assert await stage.ingest.add(stage.scope, [event], seed=seed, body=b"x", start=0) == first
        assert output(await stage.ended(first[0])) == 4
        assert len(await stage.runs()) == 1
