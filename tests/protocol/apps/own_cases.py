"""The functions of the cases, written with our own SDK. Started by the protocol tests as a process, like any app.

`python -m tests.protocol.apps.own_cases --port 3030`; every function has its twin in the other SDKs' `cases` programs.
The ledger's `order_id` is the `key` of the event's data here.
"""

import argparse
import json
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import timedelta
from typing import Any

import uvicorn

import stepwell
from examples.shop import ledger

client = stepwell.Client("cases")


@client.function(id="sleeper", trigger=stepwell.Event("case/sleeper"))
async def sleeper(ctx: stepwell.Context, step: stepwell.Step) -> str:
    """Sleep an hour between two steps."""
    key: str = ctx.event.data["key"]
    first = await step.run("before", _noted, key, "before")
    await step.sleep("an-hour", timedelta(hours=1))
    await step.run("after", _noted, key, "after")
    return first


def _noted(key: str, what: str) -> str:
    ledger.record(key, what)
    return what


_served = stepwell.serve.asgi(client)


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Answer one request: `POST /send` sends an event, the rest is the SDK's."""
    if scope["type"] != "http" or scope["path"] != "/send":
        await _served(scope, receive, send)
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    wanted = json.loads(body)
    ids = await client.send(stepwell.EventMessage(name=wanted["name"], data=wanted["data"]))
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps({"event_id": ids[0]}).encode()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
