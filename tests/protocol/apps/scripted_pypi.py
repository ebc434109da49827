"""The matrix's app for the PyPI package `inngest`, asynchronous, on FastAPI."""

import asyncio
import datetime as dt
from typing import Any

import fastapi
import inngest
import inngest.fast_api
import uvicorn

from tests.protocol.apps import scripted
from tests.protocol.apps import scripted_pypi_options as pypi


async def execute(script: list[dict[str, Any]], ctx: inngest.Context, frame: scripted.Frame) -> Any:
    """Execute a script with the SDK's steps; gives what its last operation gave, or what `give` says."""
    last: Any = None
    for op in script:
        if op["op"] == "give":
            return frame.resolve(op.get("value"))
        last = await _one(op, ctx, frame)
        frame.kept[op.get("keep") or op.get("id", "")] = last
    return last


async def _one(op: dict[str, Any], ctx: inngest.Context, frame: scripted.Frame) -> Any:
    step = ctx.step
    match op["op"]:
        case "run":

            async def handler() -> Any:
                try:
                    output = frame.start(op)
                except scripted.ScriptedError as error:
                    raise pypi.own_error(error) from None
                if "takes_ms" in op:
                    await asyncio.sleep(op["takes_ms"] / 1000)
                while frame.is_held(op):  # noqa: ASYNC110 - a file rings no bell
                    await asyncio.sleep(scripted.LOOK_S)
                if "takes_ms" in op or "until" in op:
                    frame.record(op["id"], "end")
                return output

            return await step.run(op["id"], handler)
        case "sleep":
            return await step.sleep(op["id"], dt.timedelta(milliseconds=op["ms"]))
        case "sleep_until":
            return await step.sleep_until(op["id"], pypi.moment(op["ms"]))
        case "wait":
            found = await step.wait_for_event(
                op["id"], event=op["event"], if_exp=op.get("if"), timeout=dt.timedelta(milliseconds=op["ms"])
            )
            return None if found is None else dict(found.data)
        case "invoke":
            return await step.invoke_by_id(
                op["id"],
                app_id=op["app"],
                function_id=op["function"],
                data=frame.resolve(op["value"]),
                timeout=dt.timedelta(milliseconds=op["ms"]) if "ms" in op else None,
            )
        case "send":
            return await step.send_event(op["id"], [pypi.event(frame.resolve(one)) for one in op["events"]])
        case "infer":
            return await step.ai.infer(op["id"], adapter=pypi.adapter(op), body=op["body"])
        case "parallel":
            branches = tuple(lambda branch=branch: execute(branch, ctx, frame) for branch in op["branches"])
            return list(await ctx.group.parallel(branches))
        case "attempt":
            try:
                await execute(op["script"], ctx, frame)
            except Exception as error:  # noqa: BLE001 - user code that catches everything is the case
                return pypi.caught(error)
            return None
        case "note":
            frame.record(op["what"], "note", frame.resolve(op.get("value")))
        case "throw":
            try:
                frame.may_fail("", op["fails"])
            except scripted.ScriptedError as error:
                raise pypi.own_error(error) from None
        case "log":
            ctx.logger.info(op["message"])
        case other:
            raise ValueError(f"no operation {other}")
    return None


def declare(client: inngest.Inngest, function: dict[str, Any]) -> inngest.Function[Any]:
    """Declare a function of the catalogue."""

    async def on_failure(ctx: inngest.Context) -> Any:
        return await execute(function["on_failure"], ctx, pypi.frame(ctx, function))

    @client.create_function(
        fn_id=function["id"],
        trigger=pypi.triggers(function),
        on_failure=on_failure if function["on_failure"] is not None else None,
        **pypi.options(function["options"]),
    )
    async def scripted_function(ctx: inngest.Context) -> Any:
        return await execute(function["script"], ctx, pypi.frame(ctx, function))

    return scripted_function


FUNCTIONS = scripted.catalogue()
client = pypi.client()
streaming = pypi.client("-streaming")
door = scripted.Door(FUNCTIONS)
app = fastapi.FastAPI()


@app.middleware("http")
async def at_the_door(request: fastapi.Request, go_on: Any) -> Any:
    """Answer some calls before the SDK."""
    status = door.answers(request.query_params.get("fnId"))
    return await go_on(request) if status is None else fastapi.Response("not now", status_code=status)


inngest.fast_api.serve(app, client, [declare(client, one) for one in FUNCTIONS if one["kind"] == "function"])
inngest.fast_api.serve(
    app,
    streaming,
    [declare(streaming, one) for one in FUNCTIONS if one["kind"] == "streaming"],
    serve_path=scripted.STREAMING_PATH,
    streaming=inngest.Streaming.FORCE,
)


@app.post("/send", status_code=202)
async def send(wanted: list[dict[str, Any]]) -> dict[str, Any]:
    """Send events."""
    return {"ids": await client.send([pypi.event(one) for one in wanted])}


if __name__ == "__main__":
    config = uvicorn.Config(app, host="127.0.0.1", port=scripted.PORT, log_level="warning")
    asyncio.run(uvicorn.Server(config).serve())
