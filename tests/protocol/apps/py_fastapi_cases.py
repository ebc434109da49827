"""The functions of the cases, written with the PyPI package `inngest` on FastAPI; twins of those in `own_cases`.

Reads `PORT`, `SHOP_LOG` and the SDK's own `INNGEST_*` variables. The ledger's `order_id` is the `key` of the event's data.
"""

import asyncio
import datetime as dt
import logging
import os
from typing import Any

import fastapi
import inngest
import inngest.fast_api
import uvicorn

from examples.shop import ledger

client = inngest.Inngest(app_id="cases-py", logger=logging.getLogger("uvicorn"))


@client.create_function(fn_id="sleeper", trigger=inngest.TriggerEvent(event="case/sleeper"))
async def sleeper(ctx: inngest.Context) -> str:
    """Sleep an hour between two steps."""
    key = str(ctx.event.data["key"])

    async def noted(what: str) -> str:
        ledger.record(key, what)
        return what

    first = await ctx.step.run("before", noted, "before")
    await ctx.step.sleep("an-hour", dt.timedelta(hours=1))
    await ctx.step.run("after", noted, "after")
    return first


app = fastapi.FastAPI()
inngest.fast_api.serve(app, client, [sleeper])


@app.post("/send", status_code=202)
async def send(wanted: dict[str, Any]) -> dict[str, Any]:
    """Send an event."""
    ids = await client.send(inngest.Event(name=wanted["name"], data=wanted["data"]))
    return {"event_id": ids[0]}


if __name__ == "__main__":
    config = uvicorn.Config(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
    asyncio.run(uvicorn.Server(config).serve())
