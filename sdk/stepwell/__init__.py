"""Stepwell: functions whose steps survive crashes, restarts and failing neighbours.

    client = stepwell.Client("shop")

    @client.function(id="fulfil-order", trigger=stepwell.Event("shop/order.placed"))
    async def fulfil_order(ctx: stepwell.Context, step: stepwell.Step) -> dict[str, str]:
        charge = await step.run("charge", charge_card, ctx.event.data["order_id"])
        await step.sleep("cool-down", "2h")
        return {"charge": charge}

    app = stepwell.serve.asgi(client)

This module is the public promise; everything with a leading underscore may change.
"""

from stepwell import serve
from stepwell._client import Client
from stepwell._errors import (
    ConfigError,
    NonRetriableError,
    RetryAfterError,
    SendEventsError,
    ServerError,
    StepError,
    StepwellError,
)
from stepwell._event import Cron, Event, EventMessage
from stepwell._function import Backoff, Concurrency, Function
from stepwell._step import Context, Step, SyncStep
from stepwell._version import __version__

__all__ = [
    "Backoff",
    "Client",
    "Concurrency",
    "ConfigError",
    "Context",
    "Cron",
    "Event",
    "EventMessage",
    "Function",
    "NonRetriableError",
    "RetryAfterError",
    "SendEventsError",
    "ServerError",
    "Step",
    "StepError",
    "StepwellError",
    "SyncStep",
    "__version__",
    "serve",
]
