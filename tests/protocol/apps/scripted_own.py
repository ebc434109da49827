"""The matrix's app for our own SDK, on plain ASGI."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import uvicorn

import stepwell
from tests.protocol.apps import scripted


async def execute(script: list[dict[str, Any]], step: stepwell.Step, frame: scripted.Frame, ctx: Any) -> Any:
    """Execute a script with the SDK's steps; gives what its last operation gave, or what `give` says."""
    last: Any = None
    for op in script:
        if op["op"] == "give":
            return frame.resolve(op.get("value"))
        last = await _one(op, step, frame, ctx)
        frame.kept[op.get("keep") or op.get("id", "")] = last
    return last


def _own_error(error: scripted.ScriptedError) -> Exception:
    if error.kind == "non_retriable":
        return stepwell.NonRetriableError(str(error))
    if error.kind == "retry_after":
        return stepwell.RetryAfterError(str(error), error.after_s)
    return error


async def _one(op: dict[str, Any], step: stepwell.Step, frame: scripted.Frame, ctx: stepwell.Context) -> Any:
    match op["op"]:
        case "run":

            async def handler() -> Any:
                try:
                    output = frame.start(op, ctx.attempt)
                except scripted.ScriptedError as error:
                    raise _own_error(error) from None
                if "takes_ms" in op:
                    await asyncio.sleep(op["takes_ms"] / 1000)
                while frame.is_held(op):  # noqa: ASYNC110 - a file rings no bell
                    await asyncio.sleep(scripted.LOOK_S)
                if "takes_ms" in op or "until" in op:
                    frame.record(op["id"], "end")
                return output

            return await step.run(op["id"], handler)
        case "sleep":
            return await step.sleep(op["id"], timedelta(milliseconds=op["ms"]))
        case "sleep_until":
            return await step.sleep_until(op["id"], datetime.now(UTC) + timedelta(milliseconds=op["ms"]))
        case "wait":
            found = await step.wait_for_event(
                op["id"], op["event"], if_=op.get("if"), timeout=timedelta(milliseconds=op["ms"])
            )
            return None if found is None else found.data
        case "invoke":
            timeout = timedelta(milliseconds=op["ms"]) if "ms" in op else None
            return await step.invoke(
                op["id"], f"{op['app']}-{op['function']}", frame.resolve(op["value"]), timeout=timeout
            )
        case "send":
            return await step.send_event(op["id"], [frame.resolve(one) for one in op["events"]])
        case "parallel":
            branches = [lambda branch=branch: execute(branch, step, frame, ctx) for branch in op["branches"]]
            if op["mode"] == "race":
                return await step.parallel(*branches, mode="race")
            return list(await step.parallel(*branches))
        case "attempt":
            try:
                await execute(op["script"], step, frame, ctx)
            except Exception as error:  # noqa: BLE001 - user code that catches everything is the case
                return {"name": getattr(error, "name", type(error).__name__), "message": str(error)}
            return None
        case "note":
            frame.record(op["what"], "note", frame.resolve(op.get("value")), ctx.attempt)
        case "throw":
            try:
                frame.may_fail("", op["fails"])
            except scripted.ScriptedError as error:
                raise _own_error(error) from None
        case other:
            raise ValueError(f"no operation {other}")
    return None


def _frame(ctx: stepwell.Context, function: dict[str, Any]) -> scripted.Frame:
    events = [
        {"name": one.name, "data": one.data, "id": one.id, "ts": one.ts, "v": one.v, "user": one.user}
        for one in ctx.events or [ctx.event]
    ]
    return scripted.Frame(function["id"], ctx.run_id, ctx.attempt, events[0], events)


def declare(client: stepwell.Client, function: dict[str, Any]) -> None:
    """Declare a function of the catalogue."""
    options = dict(function["options"])
    limits = [stepwell.Concurrency(one["limit"], one.get("key")) for one in options.pop("concurrency", [])]
    triggers: list[stepwell.Event | stepwell.Cron] = [
        stepwell.Cron(trigger["cron"]) if "cron" in trigger else stepwell.Event(trigger["event"], trigger.get("if"))
        for trigger in function["triggers"]
    ]

    async def on_failure(ctx: stepwell.Context, step: stepwell.Step) -> Any:
        return await execute(function["on_failure"], step, _frame(ctx, function), ctx)

    @client.function(
        id=function["id"],
        trigger=triggers,
        concurrency=limits,
        on_failure=on_failure if function["on_failure"] is not None else None,
        **options,
    )
    async def scripted_function(ctx: stepwell.Context, step: stepwell.Step) -> Any:
        return await execute(function["script"], step, _frame(ctx, function), ctx)


FUNCTIONS = scripted.catalogue()
client = stepwell.Client(scripted.APP_ID)
for one in FUNCTIONS:
    declare(client, one)
door = scripted.Door(FUNCTIONS)
_served = stepwell.serve.asgi(client)


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Answer one request: `POST /send` sends events, some are answered at the door, the rest is the SDK's."""
    if scope["type"] != "http":
        return await _served(scope, receive, send)
    asked = parse_qs(scope["query_string"].decode()).get("fnId", [None])[0]
    status = door.answers(asked)
    if status is not None:
        return await _answer(send, status, b"not now", b"text/plain")
    if scope["path"] != "/send":
        return await _served(scope, receive, send)
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    ids = await client.send(json.loads(body))
    return await _answer(send, 202, json.dumps({"ids": ids}).encode(), b"application/json")


async def _answer(
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]], status: int, body: bytes, kind: bytes
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=scripted.PORT, log_level="warning")
