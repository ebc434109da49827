"""Requests that the worker makes for a step: sent once, kept from view, no capacity of the function held."""

import asyncio
import json
import logging
from typing import Any

import pytest

from app.adapters.http import Answer, CallFailed
from app.reads.run_page import load_run
from app.reads.step_panel import load_detail
from tests.integration.engine.stage import Asked, Request, done, op, ops, output, planned, ran, sequence, staged

KEY = "sk-canary-9f3a"


def fetches(step: str, **opts: Any) -> dict[str, Any]:
    return op("Gateway", step, opts={"url": "http://api.test/x?y=1", **opts})


def infers(step: str, **opts: Any) -> dict[str, Any]:
    return op("AIGateway", step, opts={"url": "https://ai.test/chat", "auth_key": KEY, "body": {"model": "m"}, **opts})


def _answer(status: int, body: bytes, **headers: str) -> Answer:
    return Answer(status, {k.replace("_", "-"): v for k, v in headers.items()}, body, 1.0)


async def _everything(pool: Any) -> str:
    """All text of all tables that a page or a dump could show."""
    tables = [
        row["relname"]
        for row in await pool.fetch(
            "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
        )
    ]
    rows = [str(await pool.fetch(f"select t::text from {table} t")) for table in tables if table != "alembic_version"]
    return "\n".join(rows)


async def test_a_fetch_is_made_by_the_worker_and_its_answer_is_the_steps_memo(database: str) -> None:
    async with staged(database) as stage:
        stage.apps.outside = lambda request: _answer(418, b"tea", x_pot="1")
        stage.plays(
            "shop-get",
            sequence(fetches("f", method="PUT", headers={"x-a": "b"}, body="hello"), ran("after")),
            event="order/made",
        )
        await stage.sync()
        await stage.start()
        run = await stage.ended(await stage.send("order/made"))
        assert output(run)["f"] == {
            "data": {"url": "http://api.test/x?y=1", "headers": {"x-pot": "1"}, "body": "tea", "status_code": 418}
        }
        (request,) = stage.apps.requests
        assert (request.method, request.headers["x-a"], request.body) == ("PUT", "b", b"hello")
        assert len(stage.apps.asked["shop-get"]) == 3
        assert await stage.left_over() == {}


async def test_a_models_credentials_are_sent_and_never_stored_or_logged_in_the_clear(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    async with staged(database) as stage:

        async def model(request: Request) -> Answer:
            seen.append(await _everything(stage.pool))
            body = {"model": "gpt-x", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 11}}
            return _answer(200, json.dumps(body).encode())

        stage.apps.outside = model
        stage.plays(
            "shop-ask",
            sequence(infers("ai", headers={"x-team": KEY}), infers("g", format="gemini")),
            event="order/made",
        )
        await stage.sync()
        await stage.start()
        run = await stage.ended(await stage.send("order/made"))
        assert output(run)["ai"]["data"]["model"] == "gpt-x"
        first, second = stage.apps.requests
        assert (first.headers["authorization"], first.headers["x-team"]) == (f"Bearer {KEY}", KEY)
        assert second.url == f"https://ai.test/chat?key={KEY}"
        seen.append(await _everything(stage.pool))
        # While the request is under way its row is there, sealed.
        assert "gateway:ai" in seen[0]
        assert not any(KEY in text for text in seen)
        assert KEY not in caplog.text
        detail = await stage.pool.fetchval(
            "select detail from history where run_id = $1 and kind = 'gateway' and step_key = 'ai'", run["id"]
        )
        assert json.loads(detail)["ai"] == {
            "provider": "openai-chat",
            "model": "gpt-x",
            "input_tokens": 7,
            "output_tokens": 11,
        }
        opts = await stage.pool.fetchval("select opts from steps where run_id = $1 and step_key = 'ai'", run["id"])
        assert json.loads(opts)["body"] == {"model": "m"}
        assert await stage.left_over() == {}


async def test_a_refusal_is_tried_again_and_the_last_one_is_an_error_the_function_may_catch(database: str) -> None:
    async with staged(database) as stage:
        stage.apps.outside = lambda request: _answer(529, b'{"error":"overloaded"}')
        stage.plays("shop-ask", sequence(infers("ai")), event="order/made", retries=2)
        await stage.sync()
        await stage.start()
        run = await stage.ended(await stage.send("order/made"))
        error = output(run)["ai"]["error"]
        assert (error["name"], error["data"]) == ("AIGatewayError", {"error": "overloaded"})
        assert len(stage.apps.requests) == 3
        assert run["status"] == "completed"
        assert len(stage.apps.asked["shop-ask"]) == 2


@pytest.mark.parametrize(
    ("format_", "answer", "told"),
    [
        (
            "openai-chat",
            {"model": "gpt-x-2026", "usage": {"prompt_tokens": 1200, "completion_tokens": 11, "total_tokens": 1211}},
            {"Provider": "openai-chat", "Model": "gpt-x-2026", "Tokens": "1,200 in, 11 out"},
        ),
        (
            "anthropic",
            {"model": "claude-x", "usage": {"input_tokens": 7, "output_tokens": 11, "cache_read_input_tokens": 3}},
            {"Provider": "anthropic", "Model": "claude-x", "Tokens": "7 in, 11 out"},
        ),
        ("somebody-elses", {"id": 1}, {"Provider": "openai-chat", "Model": "m"}),
    ],
)
async def test_the_run_page_tells_model_tokens_and_every_try(
    database: str, format_: str, answer: dict[str, Any], told: dict[str, str]
) -> None:
    answers = [_answer(529, b"{}"), _answer(200, json.dumps(answer).encode())]
    async with staged(database) as stage:
        stage.apps.outside = lambda _request: answers.pop(0)
        stage.plays("shop-ask", sequence(infers("ai", format=format_)), event="order/made", retries=2)
        await stage.sync()
        await stage.start()
        run = await stage.ended(await stage.send("order/made"))
        async with stage.pool.acquire() as connection:
            page: Any = await load_run(connection, stage.scope.environment_id, run["id"])
            detail: Any = await load_detail(connection, stage.scope.environment_id, page, "ai")

    facts = dict(detail.facts)
    assert {name: facts[name] for name in ("Provider", "Model", "Tokens") if name in facts} == told
    assert facts["Last answer"] == "HTTP 200"
    assert [(a.number, a.state, a.status) for a in detail.attempts] == [(1, "failed", 529), (2, "completed", 200)]
    assert next(row for row in page.timeline.flat() if row.key == "ai").attempts == 2


async def test_an_address_that_may_not_be_called_is_an_error_at_once(database: str) -> None:
    async with staged(database) as stage:
        stage.apps.outside = lambda request: CallFailed("app_address_blocked")
        stage.plays("shop-get", sequence(fetches("f")), event="order/made", retries=4)
        await stage.sync()
        await stage.start()
        run = await stage.ended(await stage.send("order/made"))
        error = output(run)["f"]["error"]
        assert (error["name"], error["message"]) == ("GatewayError", "The address may not be called from here.")
        assert len(stage.apps.requests) == 1


async def test_a_request_that_publishes_is_an_error_at_once_beside_others_that_are_made(database: str) -> None:
    """Nobody can listen here: whoever asks for it hears so, with a code, instead of nobody hearing anything."""
    wants = {"publish": {"channel": "c", "topic": "t"}}
    async with staged(database) as stage:
        stage.apps.outside = lambda _request: _answer(200, b"{}")

        def script(asked: Asked) -> object:
            if len(asked.steps) == 4:
                return done(asked.steps)
            listed = [fetches("f", **wants), infers("ai", **wants), fetches("made", publish=None), planned("p")]
            return ops(ran("p")) if asked.target == "p" else ops(*listed)

        stage.plays("shop-get", script, event="order/made", retries=4)
        await stage.sync()
        await stage.start()
        run = await stage.ended(await stage.send("order/made"))

        for step, name in (("f", "GatewayError"), ("ai", "AIGatewayError")):
            error = output(run)[step]["error"]
            assert (error["name"], error["code"]) == (name, "realtime_unavailable")
        assert output(run)["made"]["data"]["status_code"] == 200
        assert len(stage.apps.requests) == 1
        assert await stage.left_over() == {}


async def test_a_request_holds_no_slot_of_its_function(database: str) -> None:
    """With a limit of one call at once, ten runs can wait for their requests together."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    most = 0

    async def slow(request: Request) -> Answer:
        if len(stage.apps.requests) == 10:
            reached.set()
        await go_on.wait()
        return _answer(200, b"")

    def script(asked: Asked) -> object:
        return done() if asked.steps else ops(fetches("f"))

    async with staged(database) as stage:
        stage.apps.outside = slow
        stage.plays("shop-get", script, event="order/made", concurrency=[{"limit": 1}])
        await stage.sync()
        await stage.start()
        await stage.send_all([{"name": "order/made"}] * 10)
        await asyncio.wait_for(reached.wait(), 20)
        most = await stage.pool.fetchval(
            "select count(*) from slots where environment_id = $1", stage.scope.environment_id
        )
        assert most == 0
        go_on.set()
        await stage.ended(function="shop-get", count=10)
        assert await stage.left_over() == {}


async def test_a_request_beside_other_steps_of_a_group_joins_them(database: str) -> None:
    def script(asked: Asked) -> object:
        if asked.target != "step":
            return ops(ran(asked.target, 1))
        missing = [step for step in (fetches("f"), planned("p"), planned("q")) if step["id"] not in asked.steps]
        return ops(*missing) if missing else done(sorted(asked.steps))

    async with staged(database) as stage:
        stage.apps.outside = lambda request: _answer(200, b"")
        stage.plays("shop-get", script, event="order/made")
        await stage.sync()
        await stage.start()
        assert output(await stage.ended(await stage.send("order/made"))) == ["f", "p", "q"]
        assert len(stage.apps.requests) == 1


async def test_a_cancelled_run_drops_its_request_and_hears_no_answer(database: str) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Answer:
        reached.set()
        await go_on.wait()
        return _answer(200, b"late")

    async with staged(database) as stage:
        stage.apps.outside = slow
        stage.plays("shop-get", sequence(fetches("f")), event="order/made")
        await stage.sync()
        await stage.start()
        event = await stage.send("order/made")
        await asyncio.wait_for(reached.wait(), 20)
        (run,) = await stage.runs(event)
        await stage.cancel(run["id"])
        assert await stage.left_over() == {}
        go_on.set()
        assert (await stage.ended(event))["status"] == "cancelled"
        assert await stage.memo(run, "f") is None
